// MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, CMOVcc, SETcc, CBW family, BSWAP, NOP.
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

// ---- MOV --------------------------------------------------------------------------------------------------------------

template <class T>
const Op* mov_reg_reg(Cpu& cpu, const Op* op) {
    set_reg<T>(cpu, op->destination, reg<T>(cpu, op->source));
    NEXT_OP(cpu, op + 1);
}
template <class T>
const Op* mov_reg_imm(Cpu& cpu, const Op* op) {
    set_reg<T>(cpu, op->destination, static_cast<T>(op->immediate64));
    NEXT_OP(cpu, op + 1);
}
template <class T, class Mode>
const Op* mov_reg_mem(Cpu& cpu, const Op* op) {
    T value;
    if (!load<T, Mode>(cpu, op, value)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    set_reg<T>(cpu, op->destination, value);
    NEXT_OP(cpu, op + 1);
}
template <class T, class Mode>
const Op* mov_mem_reg(Cpu& cpu, const Op* op) {
    CONTINUE_IF((store<T, Mode>(cpu, op, reg<T>(cpu, op->source))));
}
template <class T, class Mode>
const Op* mov_mem_imm(Cpu& cpu, const Op* op) {
    CONTINUE_IF((store<T, Mode>(cpu, op, static_cast<T>(static_cast<i64>(op->immediate)))));
}

#define SIZES(handler) \
    { handler<u8>, handler<u16>, handler<u32>, handler<u64> }
#define SIZES_IN(handler, Mode) \
    { handler<u8, Mode>, handler<u16, Mode>, handler<u32, Mode>, handler<u64, Mode> }
#define BOTH(handler) \
    { SIZES_IN(handler, Flat), SIZES_IN(handler, Based) }

constexpr Handler reg_reg_table[4] = SIZES(mov_reg_reg);
constexpr Handler reg_imm_table[4] = SIZES(mov_reg_imm);
constexpr Handler reg_mem_table[2][4] = BOTH(mov_reg_mem);
constexpr Handler mem_reg_table[2][4] = BOTH(mov_mem_reg);
constexpr Handler mem_imm_table[2][4] = BOTH(mov_mem_imm);

Handler select_mov(const Insn& insn, u16 offset, Op& op) {
    const unsigned size = size_index(insn.operand[0].bytes);
    op.destination = register_of(insn.operand[0]);
    op.source = register_of(insn.operand[1]);
    const Shape shape = shape_of(insn);
    switch (shape) {
        case Shape::reg_reg: return reg_reg_table[size];
        case Shape::reg_imm: op.immediate64 = insn.immediate; return reg_imm_table[size];
        case Shape::reg_mem: return fill_memory(insn, offset, op) ? reg_mem_table[is_based(op)][size] : nullptr;
        case Shape::mem_reg: return fill_memory(insn, offset, op) ? mem_reg_table[is_based(op)][size] : nullptr;
        case Shape::mem_imm:
            op.immediate = static_cast<i32>(insn.immediate);
            return fill_memory(insn, offset, op) ? mem_imm_table[is_based(op)][size] : nullptr;
        default: return nullptr;
    }
}

// ---- MOVZX, MOVSX, MOVSXD ---------------------------------------------------------------------------------------------

/// From S to D, signed or not; D is 4 or 8 bytes.
template <class D, class S, bool Signed>
[[gnu::always_inline]] inline D extend(S value) {
    if constexpr (Signed) return static_cast<D>(static_cast<std::make_signed_t<D>>(static_cast<std::make_signed_t<S>>(value)));
    return static_cast<D>(value);
}
template <class D, class S, bool Signed>
const Op* extend_reg(Cpu& cpu, const Op* op) {
    set_reg<D>(cpu, op->destination, extend<D, S, Signed>(reg<S>(cpu, op->source)));
    NEXT_OP(cpu, op + 1);
}
template <class D, class S, bool Signed, class Mode>
const Op* extend_mem(Cpu& cpu, const Op* op) {
    S value;
    if (!load<S, Mode>(cpu, op, value)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    set_reg<D>(cpu, op->destination, extend<D, S, Signed>(value));
    NEXT_OP(cpu, op + 1);
}

template <bool Signed>
struct ExtendTable {
    // [destination is 64 bits][source is 1, 2, 4 bytes]
    static constexpr Handler reg[2][3] = {
        {extend_reg<u32, u8, Signed>, extend_reg<u32, u16, Signed>, extend_reg<u32, u32, Signed>},
        {extend_reg<u64, u8, Signed>, extend_reg<u64, u16, Signed>, extend_reg<u64, u32, Signed>}};
    static constexpr Handler mem[2][2][3] = {
        {{extend_mem<u32, u8, Signed, Flat>, extend_mem<u32, u16, Signed, Flat>, extend_mem<u32, u32, Signed, Flat>},
         {extend_mem<u64, u8, Signed, Flat>, extend_mem<u64, u16, Signed, Flat>, extend_mem<u64, u32, Signed, Flat>}},
        {{extend_mem<u32, u8, Signed, Based>, extend_mem<u32, u16, Signed, Based>,
          extend_mem<u32, u32, Signed, Based>},
         {extend_mem<u64, u8, Signed, Based>, extend_mem<u64, u16, Signed, Based>,
          extend_mem<u64, u32, Signed, Based>}}};
};

template <bool Signed>
Handler select_extend(const Insn& insn, u16 offset, Op& op) {
    if (insn.operand[0].bytes < 4 || insn.operand[1].bytes > 4) return nullptr;
    const bool wide = insn.operand[0].bytes == 8;
    const unsigned size = size_index(insn.operand[1].bytes);
    op.destination = insn.operand[0].number;
    if (insn.operand[1].kind == OperandKind::gpr) {
        op.source = register_of(insn.operand[1]);
        return ExtendTable<Signed>::reg[wide][size];
    }
    return fill_memory(insn, offset, op) ? ExtendTable<Signed>::mem[is_based(op)][wide][size] : nullptr;
}

// ---- LEA, XCHG, BSWAP, CDQE, NOP ----------------------------------------------------------------------------------------

template <class T>
const Op* lea(Cpu& cpu, const Op* op) {
    set_reg<T>(cpu, op->destination, static_cast<T>(offset_of(cpu, op)));
    NEXT_OP(cpu, op + 1);
}
template <class T>
const Op* xchg(Cpu& cpu, const Op* op) {
    const T a = reg<T>(cpu, op->destination), b = reg<T>(cpu, op->source);
    set_reg<T>(cpu, op->destination, b);
    set_reg<T>(cpu, op->source, a);
    NEXT_OP(cpu, op + 1);
}
template <class T>
const Op* bswap(Cpu& cpu, const Op* op) {
    const T value = reg<T>(cpu, op->destination);
    if constexpr (sizeof(T) == 8) {
        set_reg<T>(cpu, op->destination, __builtin_bswap64(value));
    } else {
        set_reg<T>(cpu, op->destination, __builtin_bswap32(value));
    }
    NEXT_OP(cpu, op + 1);
}
const Op* cdqe(Cpu& cpu, const Op* op) {
    cpu.r[RAX] = sign_extend(cpu.r[RAX], 32);
    NEXT_OP(cpu, op + 1);
}
const Op* cwde(Cpu& cpu, const Op* op) {
    cpu.r[RAX] = sign_extend(cpu.r[RAX], 16) & 0xFFFF'FFFF;
    NEXT_OP(cpu, op + 1);
}
const Op* cqo(Cpu& cpu, const Op* op) {
    cpu.r[RDX] = static_cast<u64>(static_cast<i64>(cpu.r[RAX]) >> 63);
    NEXT_OP(cpu, op + 1);
}
const Op* cdq(Cpu& cpu, const Op* op) {
    cpu.r[RDX] = test_bit(cpu.r[RAX], 31) ? 0xFFFF'FFFF : 0;
    NEXT_OP(cpu, op + 1);
}
const Op* nop([[maybe_unused]] Cpu& cpu, const Op* op) { NEXT_OP(cpu, op + 1); }

// ---- CMOVcc, SETcc ------------------------------------------------------------------------------------------------------

template <unsigned c>
struct Cmov32 {
    static const Op* handler(Cpu& cpu, const Op* op) {
        const u32 value = reg<u32>(cpu, condition<c>(cpu.flags) ? op->source : op->destination);
        set_reg<u32>(cpu, op->destination, value);
        NEXT_OP(cpu, op + 1);
    }
};
template <unsigned c>
struct Cmov64 {
    static const Op* handler(Cpu& cpu, const Op* op) {
        set_reg<u64>(cpu, op->destination, reg<u64>(cpu, condition<c>(cpu.flags) ? op->source : op->destination));
        NEXT_OP(cpu, op + 1);
    }
};
template <unsigned c>
struct SetReg {
    static const Op* handler(Cpu& cpu, const Op* op) {
        set_reg<u8>(cpu, op->destination, condition<c>(cpu.flags) ? 1 : 0);
        NEXT_OP(cpu, op + 1);
    }
};

Handler select_conditional(const Insn& insn, Op& op) {
    const Shape shape = shape_of(insn);
    op.destination = register_of(insn.operand[0]);
    switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_CMOVB: case ZYDIS_MNEMONIC_CMOVBE: case ZYDIS_MNEMONIC_CMOVL: case ZYDIS_MNEMONIC_CMOVLE:
        case ZYDIS_MNEMONIC_CMOVNB: case ZYDIS_MNEMONIC_CMOVNBE: case ZYDIS_MNEMONIC_CMOVNL:
        case ZYDIS_MNEMONIC_CMOVNLE: case ZYDIS_MNEMONIC_CMOVNO: case ZYDIS_MNEMONIC_CMOVNP:
        case ZYDIS_MNEMONIC_CMOVNS: case ZYDIS_MNEMONIC_CMOVNZ: case ZYDIS_MNEMONIC_CMOVO: case ZYDIS_MNEMONIC_CMOVP:
        case ZYDIS_MNEMONIC_CMOVS: case ZYDIS_MNEMONIC_CMOVZ:
            if (shape != Shape::reg_reg || insn.operand[0].bytes < 4) return nullptr;
            op.source = register_of(insn.operand[1]);
            return (insn.operand[0].bytes == 8 ? condition_table<Cmov64> : condition_table<Cmov32>)[condition_of(insn)];
        case ZYDIS_MNEMONIC_SETB: case ZYDIS_MNEMONIC_SETBE: case ZYDIS_MNEMONIC_SETL: case ZYDIS_MNEMONIC_SETLE:
        case ZYDIS_MNEMONIC_SETNB: case ZYDIS_MNEMONIC_SETNBE: case ZYDIS_MNEMONIC_SETNL: case ZYDIS_MNEMONIC_SETNLE:
        case ZYDIS_MNEMONIC_SETNO: case ZYDIS_MNEMONIC_SETNP: case ZYDIS_MNEMONIC_SETNS: case ZYDIS_MNEMONIC_SETNZ:
        case ZYDIS_MNEMONIC_SETO: case ZYDIS_MNEMONIC_SETP: case ZYDIS_MNEMONIC_SETS: case ZYDIS_MNEMONIC_SETZ:
            return shape == Shape::reg ? condition_table<SetReg>[condition_of(insn)] : nullptr;
        default: return nullptr;
    }
}

}  // namespace

Handler select_move(const Insn& insn, u16 offset, Op& op) {
    const unsigned bytes = insn.operand[0].bytes;
    switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_MOV: return select_mov(insn, offset, op);
        case ZYDIS_MNEMONIC_MOVZX: return select_extend<false>(insn, offset, op);
        case ZYDIS_MNEMONIC_MOVSX:
        case ZYDIS_MNEMONIC_MOVSXD: return select_extend<true>(insn, offset, op);
        case ZYDIS_MNEMONIC_LEA:
            op.destination = insn.operand[0].number;
            if (bytes < 4 || !fill_memory(insn, offset, op)) return nullptr;
            return bytes == 8 ? lea<u64> : lea<u32>;
        case ZYDIS_MNEMONIC_XCHG:
            if (shape_of(insn) != Shape::reg_reg || bytes < 4) return nullptr;
            op.destination = insn.operand[0].number;
            op.source = insn.operand[1].number;
            return bytes == 8 ? xchg<u64> : xchg<u32>;
        case ZYDIS_MNEMONIC_BSWAP:
            if (bytes < 4) return nullptr;
            op.destination = insn.operand[0].number;
            return bytes == 8 ? bswap<u64> : bswap<u32>;
        case ZYDIS_MNEMONIC_CDQE: return cdqe;
        case ZYDIS_MNEMONIC_CWDE: return cwde;
        case ZYDIS_MNEMONIC_CQO: return cqo;
        case ZYDIS_MNEMONIC_CDQ: return cdq;
        case ZYDIS_MNEMONIC_NOP:
        case ZYDIS_MNEMONIC_ENDBR32:
        case ZYDIS_MNEMONIC_ENDBR64:
        case ZYDIS_MNEMONIC_PREFETCHNTA:
        case ZYDIS_MNEMONIC_PREFETCHT0:
        case ZYDIS_MNEMONIC_PREFETCHW: return nop;
        default: return select_conditional(insn, op);
    }
}

}  // namespace exeunt::fast
