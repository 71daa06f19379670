// PUSH and POP of 64-bit registers and immediates, LEAVE, in 64-bit mode.
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

const Op* push_reg(Cpu& cpu, const Op* op) { CONTINUE_IF(push_stack(cpu, op, cpu.r[op->source])); }
const Op* push_imm(Cpu& cpu, const Op* op) {
    CONTINUE_IF(push_stack(cpu, op, static_cast<u64>(static_cast<i64>(op->immediate))));
}

const Op* pop_reg(Cpu& cpu, const Op* op) {
    u64 value;
    if (!load_stack(cpu, op, cpu.r[RSP], value)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    cpu.r[RSP] += 8;
    cpu.r[op->destination] = value;  // POP RSP takes what was read
    NEXT_OP(cpu, op + 1);
}

const Op* leave_frame(Cpu& cpu, const Op* op) {
    u64 value;
    if (!load_stack(cpu, op, cpu.r[RBP], value)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    cpu.r[RSP] = cpu.r[RBP] + 8;
    cpu.r[RBP] = value;
    NEXT_OP(cpu, op + 1);
}

}  // namespace

Handler select_stack(const Insn& insn, u16, Op& op) {
    if (insn.mode != 64 || insn.operand_prefix) return nullptr;
    const Shape shape = shape_of(insn);
    switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_PUSH:
            if (shape == Shape::reg) {
                op.source = insn.operand[0].number;
                return push_reg;
            }
            op.immediate = static_cast<i32>(insn.immediate);
            return shape == Shape::imm ? push_imm : nullptr;
        case ZYDIS_MNEMONIC_POP:
            op.destination = insn.operand[0].number;
            return shape == Shape::reg ? pop_reg : nullptr;
        case ZYDIS_MNEMONIC_LEAVE: return leave_frame;
        default: return nullptr;
    }
}

}  // namespace exeunt::fast
