// ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, IMUL: registers, immediates, 64-bit mode memory.
#include "cpu/fast/alu_operations.hpp"
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

template <class F, class T>
const Op* reg_reg(Cpu& cpu, const Op* op) {
    const T result = F::apply(cpu.flags, reg<T>(cpu, op->destination), reg<T>(cpu, op->source));
    if constexpr (F::writes) set_reg<T>(cpu, op->destination, result);
    NEXT_OP(cpu, op + 1);
}

template <class F, class T>
const Op* reg_imm(Cpu& cpu, const Op* op) {
    const T b = static_cast<T>(static_cast<i64>(op->immediate));
    const T result = F::apply(cpu.flags, reg<T>(cpu, op->destination), b);
    if constexpr (F::writes) set_reg<T>(cpu, op->destination, result);
    NEXT_OP(cpu, op + 1);
}

template <class F, class T, class Mode>
const Op* reg_mem(Cpu& cpu, const Op* op) {
    T b;
    if (!load<T, Mode>(cpu, op, b)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    const T result = F::apply(cpu.flags, reg<T>(cpu, op->destination), b);
    if constexpr (F::writes) set_reg<T>(cpu, op->destination, result);
    NEXT_OP(cpu, op + 1);
}

template <class F, class T, class Mode>
[[gnu::always_inline]] inline bool mem_with(Cpu& cpu, const Op* op, T b) {
    if constexpr (F::writes) {
        return modify<T, Mode>(cpu, op, [&cpu, b](T a) { return F::apply(cpu.flags, a, b); });
    } else {
        T a;
        if (!load<T, Mode>(cpu, op, a)) return false;
        F::apply(cpu.flags, a, b);
        return true;
    }
}

template <class F, class T, class Mode>
const Op* mem_reg(Cpu& cpu, const Op* op) {
    CONTINUE_IF((mem_with<F, T, Mode>(cpu, op, reg<T>(cpu, op->source))));
}

template <class F, class T, class Mode>
const Op* mem_imm(Cpu& cpu, const Op* op) {
    CONTINUE_IF((mem_with<F, T, Mode>(cpu, op, static_cast<T>(static_cast<i64>(op->immediate)))));
}

struct Forms {
    Handler reg_reg[4], reg_imm[4], reg_mem[2][4], mem_reg[2][4], mem_imm[2][4];
};

#define SIZES(handler, ...) \
    { handler<__VA_ARGS__, u8>, handler<__VA_ARGS__, u16>, handler<__VA_ARGS__, u32>, handler<__VA_ARGS__, u64> }
#define SIZES_IN(handler, F, Mode) \
    { handler<F, u8, Mode>, handler<F, u16, Mode>, handler<F, u32, Mode>, handler<F, u64, Mode> }

template <class F>
constexpr Forms forms{SIZES(reg_reg, F),
                      SIZES(reg_imm, F),
                      {SIZES_IN(reg_mem, F, Flat), SIZES_IN(reg_mem, F, Based)},
                      {SIZES_IN(mem_reg, F, Flat), SIZES_IN(mem_reg, F, Based)},
                      {SIZES_IN(mem_imm, F, Flat), SIZES_IN(mem_imm, F, Based)}};

const Forms* forms_of(u16 mnemonic) {
    switch (mnemonic) {
        case ZYDIS_MNEMONIC_ADD: return &forms<Add>;
        case ZYDIS_MNEMONIC_OR: return &forms<Or>;
        case ZYDIS_MNEMONIC_ADC: return &forms<Adc>;
        case ZYDIS_MNEMONIC_SBB: return &forms<Sbb>;
        case ZYDIS_MNEMONIC_AND: return &forms<And>;
        case ZYDIS_MNEMONIC_SUB: return &forms<Sub>;
        case ZYDIS_MNEMONIC_XOR: return &forms<Xor>;
        case ZYDIS_MNEMONIC_CMP: return &forms<Cmp>;
        case ZYDIS_MNEMONIC_TEST: return &forms<Test>;
        default: return nullptr;
    }
}

// ---- One operand ---------------------------------------------------------------------------------------------------

template <class F, class T>
const Op* unary_reg(Cpu& cpu, const Op* op) {
    set_reg<T>(cpu, op->destination, F::apply(cpu.flags, reg<T>(cpu, op->destination)));
    NEXT_OP(cpu, op + 1);
}

template <class F, class T, class Mode>
const Op* unary_mem(Cpu& cpu, const Op* op) {
    CONTINUE_IF((modify<T, Mode>(cpu, op, [&cpu](T a) { return F::apply(cpu.flags, a); })));
}

struct UnaryForms {
    Handler reg[4], mem[2][4];
};
template <class F>
constexpr UnaryForms unary_forms{SIZES(unary_reg, F), {SIZES_IN(unary_mem, F, Flat), SIZES_IN(unary_mem, F, Based)}};

const UnaryForms* unary_forms_of(u16 mnemonic) {
    switch (mnemonic) {
        case ZYDIS_MNEMONIC_INC: return &unary_forms<Inc>;
        case ZYDIS_MNEMONIC_DEC: return &unary_forms<Dec>;
        case ZYDIS_MNEMONIC_NEG: return &unary_forms<Neg>;
        case ZYDIS_MNEMONIC_NOT: return &unary_forms<Not>;
        default: return nullptr;
    }
}

// ---- IMUL with a destination -------------------------------------------------------------------------------------------

template <class T>
const Op* imul_reg_reg(Cpu& cpu, const Op* op) {
    set_reg<T>(cpu, op->destination,
               alu::imul(cpu.flags, reg<T>(cpu, op->destination), reg<T>(cpu, op->source)));
    NEXT_OP(cpu, op + 1);
}
template <class T>
const Op* imul_reg_reg_imm(Cpu& cpu, const Op* op) {
    const T b = static_cast<T>(static_cast<i64>(op->immediate));
    set_reg<T>(cpu, op->destination, alu::imul(cpu.flags, reg<T>(cpu, op->source), b));
    NEXT_OP(cpu, op + 1);
}
template <class T, class Mode>
const Op* imul_reg_mem(Cpu& cpu, const Op* op) {
    T b;
    if (!load<T, Mode>(cpu, op, b)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    set_reg<T>(cpu, op->destination, alu::imul(cpu.flags, reg<T>(cpu, op->destination), b));
    NEXT_OP(cpu, op + 1);
}

Handler select_imul(const Insn& insn, u16 offset, Op& op) {
    const unsigned bytes = insn.operand[0].bytes;
    if (insn.operand_count < 2 || bytes < 4) return nullptr;
    const bool wide = bytes == 8;
    op.destination = insn.operand[0].number;
    op.source = insn.operand[1].number;
    if (insn.operand_count == 3) {
        if (insn.operand[1].kind != OperandKind::gpr) return nullptr;
        op.immediate = static_cast<i32>(insn.immediate);
        return wide ? imul_reg_reg_imm<u64> : imul_reg_reg_imm<u32>;
    }
    if (insn.operand[1].kind == OperandKind::gpr) return wide ? imul_reg_reg<u64> : imul_reg_reg<u32>;
    if (!fill_memory(insn, offset, op)) return nullptr;
    if (is_based(op)) return wide ? imul_reg_mem<u64, Based> : imul_reg_mem<u32, Based>;
    return wide ? imul_reg_mem<u64, Flat> : imul_reg_mem<u32, Flat>;
}

}  // namespace

Handler select_alu(const Insn& insn, u16 offset, Op& op) {
    if (insn.mnemonic == ZYDIS_MNEMONIC_IMUL) return select_imul(insn, offset, op);
    const Shape shape = shape_of(insn);
    if (shape == Shape::other || shape == Shape::none || shape == Shape::imm) return nullptr;
    const unsigned size = size_index(insn.operand[0].bytes);
    op.destination = register_of(insn.operand[0]);
    op.source = register_of(insn.operand[1]);
    op.immediate = static_cast<i32>(insn.immediate);
    op.fusion = fusion_of(insn);

    if (const UnaryForms* f = unary_forms_of(insn.mnemonic)) {
        if (shape == Shape::reg) return f->reg[size];
        return shape == Shape::mem && fill_memory(insn, offset, op) ? f->mem[is_based(op)][size] : nullptr;
    }
    const Forms* f = forms_of(insn.mnemonic);
    if (!f) return nullptr;
    switch (shape) {
        case Shape::reg_reg: return f->reg_reg[size];
        case Shape::reg_imm: return f->reg_imm[size];
        case Shape::reg_mem: return fill_memory(insn, offset, op) ? f->reg_mem[is_based(op)][size] : nullptr;
        case Shape::mem_reg: return fill_memory(insn, offset, op) ? f->mem_reg[is_based(op)][size] : nullptr;
        case Shape::mem_imm: return fill_memory(insn, offset, op) ? f->mem_imm[is_based(op)][size] : nullptr;
        default: return nullptr;
    }
}

}  // namespace exeunt::fast
