// Which instructions have a fast handler: each group looks at a decoded instruction and takes it, or does not.
// A fast handler is an optimisation of the general one, and the tests compare them.
#pragma once

#include "cpu/fast/operands.hpp"

namespace exeunt::fast {

/// The shapes of operands that fast handlers distinguish.
enum class Shape : u8 { other, none, reg, mem, imm, reg_reg, reg_mem, mem_reg, reg_imm, mem_imm };

Shape shape_of(const Insn& insn);
/// 0 to 3 for 1, 2, 4, 8 bytes.
inline unsigned size_index(unsigned bytes) { return static_cast<unsigned>(std::countr_zero(bytes)); }
/// Fills the register of operand `i` the way handlers of its size want it.
u8 register_of(const Operand& operand);
/// Fills base, index, scale, segment and displacement. False where only the general handler will do.
bool fill_memory(const Insn& insn, u16 offset, Op& op);
inline bool is_based(const Op& op) {
    return op.segment == static_cast<u8>(Seg::FS) || op.segment == static_cast<u8>(Seg::GS);
}
/// The condition code in the low four bits of the opcode.
inline unsigned condition_of(const Insn& insn) { return insn.opcode & 15; }

/// The row of cpu/fast/fused.cpp that this instruction takes before a Jcc, from 1; 0 for none.
u8 fusion_of(const Insn& insn);

// Each returns the handler and has filled the Op, or returns nullptr.
Handler select_alu(const Insn& insn, u16 offset, Op& op);
Handler select_move(const Insn& insn, u16 offset, Op& op);
Handler select_shift(const Insn& insn, u16 offset, Op& op);
Handler select_branch(const Insn& insn, u16 offset, Op& op);
Handler select_stack(const Insn& insn, u16 offset, Op& op);
Handler select_bits(const Insn& insn, u16 offset, Op& op);
Handler select_vector(const Insn& insn, u16 offset, Op& op);

}  // namespace exeunt::fast
