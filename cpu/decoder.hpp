// Zydis behind a small interface: bytes in, Insn out.
#pragma once

#include "arch/features.hpp"
#include "cpu/insn.hpp"
#include "cpu/virtualization.hpp"

#include <memory>
#include <span>
#include <string>

namespace exeunt {

/// Code modes that decode differently.
enum class CodeMode : u8 { real16 = 0, protected16 = 1, protected32 = 2, long64 = 3 };

class Decoder {
public:
    /// `extension` answers for rows of vmx and svm; it must outlive the decoder.
    explicit Decoder(const CpuModel& model);
    ~Decoder();

    enum class Status : u8 {
        ok,         ///< `insn.row` may still be null: see below
        more,       ///< the instruction goes on after the bytes given
        undefined,  ///< #UD: no such instruction, or not on this model
        too_long,   ///< #GP(0): more than 15 bytes
    };
    /// Decodes one instruction. With Status::ok and a null row the model offers the instruction and exeunt does
    /// not model it.
    Status decode(CodeMode mode, std::span<const u8> bytes, const Virtualization& extension, Insn& insn) const;

private:
    struct Zydis;
    std::unique_ptr<Zydis> zydis_;
    const CpuModel& model_;
};

/// The instruction in Intel syntax, for messages. `address` resolves relative operands.
std::string disassemble(CodeMode mode, std::span<const u8> bytes, u64 address);

}  // namespace exeunt
