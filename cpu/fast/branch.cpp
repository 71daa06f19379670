// JMP, Jcc, CALL and RET, near, in 64-bit mode. JMP and Jcc do not look whether their target is
// canonical: no block is ever found where it is not, and the dispatcher then faults them (cpu/engine.cpp).
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

const Op* jmp(Cpu& cpu, const Op*) { TAKE_LINK(cpu, 1, way_out(cpu, 1)); }

template <unsigned c>
struct Jcc {
    static const Op* handler(Cpu& cpu, const Op*) {
        if (condition<c>(cpu.flags)) TAKE_LINK(cpu, 1, way_out(cpu, 1));
        TAKE_LINK(cpu, 0, way_out(cpu, 0));
    }
};

const Op* not_canonical(Cpu& cpu, const Op* op) { return leave(cpu, op, general_protection(0)); }

const Op* call(Cpu& cpu, const Op* op) {
    if (!cpu.canonical(way_out(cpu, 1))) [[unlikely]]
        return not_canonical(cpu, op);
    if (!push_stack(cpu, op, way_out(cpu, 0))) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    TAKE_LINK(cpu, 1, way_out(cpu, 1));
}

const Op* ret(Cpu& cpu, const Op* op) {
    u64 target;
    if (!load_stack(cpu, op, cpu.r[RSP], target)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    if (!cpu.canonical(target)) [[unlikely]]
        return not_canonical(cpu, op);
    cpu.r[RSP] += 8 + static_cast<u64>(static_cast<u32>(op->immediate));
    TAKE_JUMP(cpu, target);
}

const Op* jmp_reg(Cpu& cpu, const Op* op) {
    const u64 target = cpu.r[op->destination];
    if (!cpu.canonical(target)) [[unlikely]]
        return not_canonical(cpu, op);
    TAKE_JUMP(cpu, target);
}
const Op* call_reg(Cpu& cpu, const Op* op) {
    const u64 target = cpu.r[op->destination];
    if (!cpu.canonical(target)) [[unlikely]]
        return not_canonical(cpu, op);
    if (!push_stack(cpu, op, way_out(cpu, 0))) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    TAKE_JUMP(cpu, target);
}
template <class Mode>
const Op* jmp_mem(Cpu& cpu, const Op* op) {
    u64 target;
    if (!load<u64, Mode>(cpu, op, target)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    if (!cpu.canonical(target)) [[unlikely]]
        return not_canonical(cpu, op);
    TAKE_JUMP(cpu, target);
}
template <class Mode>
const Op* call_mem(Cpu& cpu, const Op* op) {
    u64 target;
    if (!load<u64, Mode>(cpu, op, target)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    if (!cpu.canonical(target)) [[unlikely]]
        return not_canonical(cpu, op);
    if (!push_stack(cpu, op, way_out(cpu, 0))) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    TAKE_JUMP(cpu, target);
}

bool is_far(const Insn& insn) {
    if (insn.operand[0].kind == OperandKind::memory) {
        const unsigned extension = (insn.modrm >> 3) & 7;
        return extension == 3 || extension == 5;
    }
    return insn.operand[0].kind == OperandKind::far_pointer;
}

Handler select_indirect(const Insn& insn, u16 offset, Op& op, bool is_call) {
    if (is_far(insn) || insn.operand[0].bytes != 8) return nullptr;
    if (insn.operand[0].kind == OperandKind::gpr) {
        op.destination = insn.operand[0].number;
        return is_call ? call_reg : jmp_reg;
    }
    if (!fill_memory(insn, offset, op)) return nullptr;
    if (is_based(op)) return is_call ? call_mem<Based> : jmp_mem<Based>;
    return is_call ? call_mem<Flat> : jmp_mem<Flat>;
}

}  // namespace

Handler select_branch(const Insn& insn, u16 offset, Op& op) {
    if (insn.mode != 64 || insn.operand_prefix) return nullptr;
    const bool relative = insn.operand_count == 1 && insn.operand[0].kind == OperandKind::relative;
    switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_JMP: return relative ? jmp : select_indirect(insn, offset, op, false);
        case ZYDIS_MNEMONIC_CALL: return relative ? call : select_indirect(insn, offset, op, true);
        case ZYDIS_MNEMONIC_RET:
            if (insn.opcode != 0xC3 && insn.opcode != 0xC2) return nullptr;
            op.immediate = insn.operand_count == 1 ? static_cast<i32>(insn.immediate & 0xFFFF) : 0;
            return ret;
        case ZYDIS_MNEMONIC_JB: case ZYDIS_MNEMONIC_JBE: case ZYDIS_MNEMONIC_JL: case ZYDIS_MNEMONIC_JLE:
        case ZYDIS_MNEMONIC_JNB: case ZYDIS_MNEMONIC_JNBE: case ZYDIS_MNEMONIC_JNL: case ZYDIS_MNEMONIC_JNLE:
        case ZYDIS_MNEMONIC_JNO: case ZYDIS_MNEMONIC_JNP: case ZYDIS_MNEMONIC_JNS: case ZYDIS_MNEMONIC_JNZ:
        case ZYDIS_MNEMONIC_JO: case ZYDIS_MNEMONIC_JP: case ZYDIS_MNEMONIC_JS: case ZYDIS_MNEMONIC_JZ:
            op.fusion = static_cast<u8>(0x80 | condition_of(insn));
            return condition_table<Jcc>[condition_of(insn)];
        default: return nullptr;
    }
}

}  // namespace exeunt::fast
