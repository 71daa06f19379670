// Every encoding of every row: found by showing the decoder all opcodes, prefixes and ModRM bytes, so that there is
// no second list of instructions, and encodings that no assembler chooses are there too.
#pragma once

#include "base/random.hpp"
#include "tests/differential/case.hpp"

#include <map>
#include <memory>
#include <string_view>

namespace exeunt::test {

enum class Oracle : u8 { unicorn, silicon, fast };

/// An encoding with its free bits: what is not fixed here is chosen at random.
struct Form {
    u8 prefix = 0;        ///< 66H, F2H, F3H or 0 (mandatory for some, an override for others)
    bool rex_w = false;
    bool vex = false, vex_l = false;
    u8 map = 0;           ///< 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A
    u8 opcode = 0;
    bool has_modrm = false;
    bool memory = false;  ///< ModRM names memory
    bool reg_free = true, rm_free = true;
    u8 modrm = 0;         ///< the bits that are not free
    bool vvvv_free = false;
};

struct RowForms {
    const InsnRow* row = nullptr;
    std::vector<Form> forms;
};

/// The forms of one mode that a model offers and that an oracle can answer.
class Forms {
public:
    Forms(CaseMode mode, const CpuModel& model, Oracle oracle);

    const std::vector<RowForms>& rows() const { return rows_; }
    const Decoder& decoder() const { return decoder_; }
    CaseMode mode() const { return mode_; }
    Oracle oracle() const { return oracle_; }
    /// Whether this oracle can answer this instruction (segment loads, far transfers and so on it can not).
    bool answerable(const Insn& insn) const;
    bool decode(const u8* bytes, Insn& insn) const;

private:
    void explore(Form form);
    bool try_form(const Form& form, Insn& insn) const;
    void add(const Form& form, const Insn& insn);

    CaseMode mode_;
    Oracle oracle_;
    const CpuModel& model_;
    Decoder decoder_;
    std::unique_ptr<Virtualization> extension_;
    std::vector<RowForms> rows_;
    std::map<u16, std::size_t> by_mnemonic_;
};

struct Exclusion {
    u16 mnemonic;
    const char* name;
    bool unicorn, silicon;
    const char* reason;
};
const std::vector<Exclusion>& exclusions();
/// All rows of cpu/instructions.inc.
struct RowName {
    u16 mnemonic;
    const char* name;
};
const std::vector<RowName>& row_names();

}  // namespace exeunt::test
