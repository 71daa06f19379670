// SHL SHR SAR ROL ROR of registers by immediate, by one and by CL; SHLD SHRD by immediate, of 32 and 64 bits.
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

#define SHIFT(name, function)                                                    \
    struct name {                                                                \
        template <class T>                                                       \
        [[gnu::always_inline]] static T apply(Flags& f, T a, unsigned count) {   \
            return alu::function(f, a, count);                                   \
        }                                                                        \
    };
SHIFT(Shl, shl)
SHIFT(Shr, shr)
SHIFT(Sar, sar)
SHIFT(Rol, rol)
SHIFT(Ror, ror)
#undef SHIFT

/// The count is constant and not zero: every flag is written, and the test for zero is gone.
template <class F, class T>
const Op* by_immediate(Cpu& cpu, const Op* op) {
    const unsigned count = static_cast<unsigned>(op->immediate);
    if (count == 0) __builtin_unreachable();
    set_reg<T>(cpu, op->destination, F::apply(cpu.flags, reg<T>(cpu, op->destination), count));
    NEXT_OP(cpu, op + 1);
}
template <class F, class T>
const Op* by_cl(Cpu& cpu, const Op* op) {
    const unsigned count = static_cast<unsigned>(cpu.r[RCX] & 0xFF);
    set_reg<T>(cpu, op->destination, F::apply(cpu.flags, reg<T>(cpu, op->destination), count));
    NEXT_OP(cpu, op + 1);
}
template <class T, bool Left>
const Op* double_by_immediate(Cpu& cpu, const Op* op) {
    const unsigned count = static_cast<unsigned>(op->immediate);
    const T a = reg<T>(cpu, op->destination), b = reg<T>(cpu, op->source);
    set_reg<T>(cpu, op->destination,
               Left ? alu::shld(cpu.flags, a, b, count) : alu::shrd(cpu.flags, a, b, count));
    NEXT_OP(cpu, op + 1);
}

template <class F>
Handler handler_of(unsigned size, bool immediate) {
    static constexpr Handler by_imm[] = {by_immediate<F, u8>, by_immediate<F, u16>, by_immediate<F, u32>,
                                         by_immediate<F, u64>};
    static constexpr Handler by_count[] = {by_cl<F, u8>, by_cl<F, u16>, by_cl<F, u32>, by_cl<F, u64>};
    return immediate ? by_imm[size] : by_count[size];
}

}  // namespace

Handler select_shift(const Insn& insn, u16, Op& op) {
    const Operand& destination = insn.operand[0];
    if (destination.kind != OperandKind::gpr) return nullptr;
    const unsigned size = size_index(destination.bytes);
    const bool wide = destination.bytes == 8;
    op.destination = register_of(destination);
    op.immediate = static_cast<i32>(insn.immediate & (wide ? 63 : 31));
    if (insn.operand_count == 3 && insn.operand[2].kind == OperandKind::immediate) {
        if (destination.bytes < 4) return nullptr;
        op.source = insn.operand[1].number;
        switch (insn.mnemonic) {
            case ZYDIS_MNEMONIC_SHLD: return wide ? double_by_immediate<u64, true> : double_by_immediate<u32, true>;
            case ZYDIS_MNEMONIC_SHRD: return wide ? double_by_immediate<u64, false> : double_by_immediate<u32, false>;
            default: return nullptr;
        }
    }
    if (insn.operand_count != 2) return nullptr;
    const Operand& count = insn.operand[1];
    const bool immediate = count.kind == OperandKind::immediate;
    const bool cl = count.kind == OperandKind::gpr && count.number == RCX && count.bytes == 1;
    if (!immediate && !cl) return nullptr;
    if (immediate && op.immediate == 0) return nullptr;
    switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_SHL: return handler_of<Shl>(size, immediate);
        case ZYDIS_MNEMONIC_SHR: return handler_of<Shr>(size, immediate);
        case ZYDIS_MNEMONIC_SAR: return handler_of<Sar>(size, immediate);
        case ZYDIS_MNEMONIC_ROL: return handler_of<Rol>(size, immediate);
        case ZYDIS_MNEMONIC_ROR: return handler_of<Ror>(size, immediate);
        default: return nullptr;
    }
}

}  // namespace exeunt::fast
