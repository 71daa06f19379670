#include "cpu/fast/select.hpp"

#include "cpu/instructions.hpp"

namespace exeunt {
namespace fast {

Shape shape_of(const Insn& insn) {
    using K = OperandKind;
    const auto kind = [&](unsigned i) { return insn.operand[i].kind; };
    switch (insn.operand_count) {
        case 0: return Shape::none;
        case 1:
            if (kind(0) == K::gpr) return Shape::reg;
            if (kind(0) == K::memory) return Shape::mem;
            if (kind(0) == K::immediate) return Shape::imm;
            return Shape::other;
        case 2:
            if (kind(0) == K::gpr && kind(1) == K::gpr) return Shape::reg_reg;
            if (kind(0) == K::gpr && kind(1) == K::memory) return Shape::reg_mem;
            if (kind(0) == K::memory && kind(1) == K::gpr) return Shape::mem_reg;
            if (kind(0) == K::gpr && kind(1) == K::immediate) return Shape::reg_imm;
            if (kind(0) == K::memory && kind(1) == K::immediate) return Shape::mem_imm;
            return Shape::other;
        default: return Shape::other;
    }
}

u8 register_of(const Operand& operand) {
    if (operand.bytes != 1) return operand.number;
    return byte_offset(operand.number, operand.high_byte ? 1 : 0);
}

bool fill_memory(const Insn& insn, u16 offset, Op& op) {
    if (insn.mode != 64 || insn.address_size != 8) return false;
    const MemoryOperand& m = insn.memory;
    op.base = m.base;
    op.index = m.index;
    op.scale = m.scale;
    op.segment = static_cast<u8>(m.segment);
    op.displacement = m.displacement;
    // r[rip_register] is the block's start.
    if (m.base == MemoryOperand::rip_register) op.displacement += offset + insn.length;
    return true;
}

}  // namespace fast

bool select_fast(const Insn& insn, u16 offset, Op& op) {
    if (insn.lock) return false; // Cpu::note_bus_lock()
    if (insn.row->intercept != Intercept::none || insn.row->fault || insn.repeat != Repeat::none) return false;
    static constexpr decltype(&fast::select_alu) groups[] = {fast::select_move,  fast::select_alu,   fast::select_branch,
                                                             fast::select_stack, fast::select_shift, fast::select_bits,
                                                             fast::select_vector};
    for (const auto select : groups)
        if (const Handler handler = select(insn, offset, op)) {
            op.handler = handler;
            return true;
        }
    return false;
}

}  // namespace exeunt
