// BT by immediate and register: registers of 32 and 64 bits.
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

template <class T>
const Op* bt_imm(Cpu& cpu, const Op* op) {
    cpu.flags.cf = static_cast<u8>((reg<T>(cpu, op->destination) >> op->immediate) & 1);
    NEXT_OP(cpu, op + 1);
}
template <class T>
const Op* bt_reg(Cpu& cpu, const Op* op) {
    const unsigned n = static_cast<unsigned>(reg<T>(cpu, op->source) & (8 * sizeof(T) - 1));
    cpu.flags.cf = static_cast<u8>((reg<T>(cpu, op->destination) >> n) & 1);
    NEXT_OP(cpu, op + 1);
}

}  // namespace

Handler select_bits(const Insn& insn, u16, Op& op) {
    if (insn.mnemonic != ZYDIS_MNEMONIC_BT || insn.operand[0].bytes < 4) return nullptr;
    const bool wide = insn.operand[0].bytes == 8;
    op.destination = insn.operand[0].number;
    op.source = insn.operand[1].number;
    switch (shape_of(insn)) {
        case Shape::reg_imm:
            op.immediate = static_cast<i32>(insn.immediate & (wide ? 63 : 31));
            return wide ? bt_imm<u64> : bt_imm<u32>;
        case Shape::reg_reg: return wide ? bt_reg<u64> : bt_reg<u32>;
        default: return nullptr;
    }
}

}  // namespace exeunt::fast
