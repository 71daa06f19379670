// A decoded instruction as the general handlers see it: Zydis's result, reduced to a fixed-size record.
#pragma once

#include "arch/segment.hpp"
#include "base/types.hpp"

#include <array>

namespace exeunt {

struct Cpu;
struct InsnRow;

enum class OperandKind : u8 { none, gpr, segment, control, debug, x87, mmx, xmm, ymm, bound, memory, immediate, relative, far_pointer };

/// One explicit operand (and the implicit ones that Zydis marks visible), in assembler order.
struct Operand {
    OperandKind kind = OperandKind::none;
    /// Number of the register. For gpr: 0 to 15; with `high_byte`, AH CH DH BH are 0 to 3.
    u8 number = 0;
    u8 bytes = 0;  ///< size of the operand; 0 where it has none (LEA's, INVLPG's memory operand)
    bool high_byte = false;
};

/// The memory operand. Registers are indexes into Cpu::r: `no_register` reads as zero, `rip_register` as the
/// address of the next instruction minus what `displacement` already holds (see Cpu::effective_address).
struct MemoryOperand {
    static constexpr u8 no_register = 16;
    static constexpr u8 rip_register = 17;

    u8 base = no_register;
    u8 index = no_register;  ///< with VSIB none: see vector_index
    u8 scale = 0;  ///< log2: index << scale
    Seg segment = Seg::DS;
    i64 displacement = 0;  ///< sign-extended; RIP-relative: from the end of the instruction
    i32 displacement_size = 0;  ///< bytes in the encoding, 0 when there is none
    u8 vector_index = 0;  ///< VSIB: the vector register of indexes
};

enum class Repeat : u8 { none, rep, repne };

struct Insn {
    const InsnRow* row = nullptr;  ///< cpu/instructions.inc
    u16 mnemonic = 0;              ///< ZydisMnemonic
    u8 length = 0;
    u8 operand_size = 0;           ///< effective operand size in bytes: 2, 4, 8
    u8 address_size = 0;           ///< effective address size in bytes: 2, 4, 8
    u8 mode = 0;                   ///< bits of the code segment: 16, 32, 64
    u8 operand_count = 0;
    Repeat repeat = Repeat::none;
    bool lock = false;
    bool vex = false;              ///< VEX-encoded: upper vector bits are zeroed
    u8 vector_bytes = 0;           ///< 16 or 32 for VEX instructions
    bool operand_prefix = false;   ///< 66H was there
    bool rex_w = false;            ///< REX.W or VEX.W
    u8 opcode = 0;                 ///< the last opcode byte
    u8 modrm = 0;                  ///< raw ModRM byte (0 when there is none), for instruction information
    bool has_segment_override = false;
    std::array<Operand, 5> operand{};
    MemoryOperand memory{};        ///< for the operand whose kind is memory, and for string instructions' source
    u64 immediate = 0;             ///< sign-extended to 64 bits where the manual extends it; far pointer: offset
    u16 immediate2 = 0;            ///< ENTER's level; far pointer: selector
    std::array<u8, 15> bytes{};    ///< the instruction itself

    bool has_memory() const {
        for (unsigned i = 0; i < operand_count; ++i)
            if (operand[i].kind == OperandKind::memory) return true;
        return false;
    }
};

}  // namespace exeunt
