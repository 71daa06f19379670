// CMP, TEST, SUB, ADD, AND, INC or DEC of registers, and the Jcc that ends the block, as one handler. Both remain
// instructions: the branch keeps its Op and its tick, and code that is stepped is not fused.
#include "cpu/fast/alu_operations.hpp"
#include "cpu/fast/select.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt {

namespace fast {

namespace {

#define BRANCH(c)                                                        \
    do {                                                                 \
        if (condition<c>(cpu.flags)) TAKE_LINK(cpu, 1, way_out(cpu, 1)); \
        TAKE_LINK(cpu, 0, way_out(cpu, 0));                              \
    } while (false)

/// `b` of a binary operation comes from a register or from the immediate.
template <class F, class T, bool Immediate>
struct Binary {
    template <unsigned c>
    struct Then {
        static const Op* handler(Cpu& cpu, const Op* op) {
            const T b = Immediate ? static_cast<T>(static_cast<i64>(op->immediate)) : reg<T>(cpu, op->source);
            const T result = F::apply(cpu.flags, reg<T>(cpu, op->destination), b);
            if constexpr (F::writes) set_reg<T>(cpu, op->destination, result);
            BRANCH(c);
        }
    };
};
template <class F, class T>
struct Unary {
    template <unsigned c>
    struct Then {
        static const Op* handler(Cpu& cpu, const Op* op) {
            set_reg<T>(cpu, op->destination, F::apply(cpu.flags, reg<T>(cpu, op->destination)));
            BRANCH(c);
        }
    };
};

struct Row {
    u16 mnemonic;
    Shape shape;
    unsigned bytes;
    const std::array<Handler, 16>* handlers;
};

#define SIZES(mnemonic, F)                                                                                        \
    {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_reg, 1, &condition_table<Binary<F, u8, false>::template Then>},        \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_reg, 4, &condition_table<Binary<F, u32, false>::template Then>},   \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_reg, 8, &condition_table<Binary<F, u64, false>::template Then>},   \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_imm, 1, &condition_table<Binary<F, u8, true>::template Then>},     \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_imm, 4, &condition_table<Binary<F, u32, true>::template Then>},    \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg_imm, 8, &condition_table<Binary<F, u64, true>::template Then>}
#define UNARY_SIZES(mnemonic, F)                                                                        \
    {ZYDIS_MNEMONIC_##mnemonic, Shape::reg, 4, &condition_table<Unary<F, u32>::template Then>},         \
        {ZYDIS_MNEMONIC_##mnemonic, Shape::reg, 8, &condition_table<Unary<F, u64>::template Then>}

constexpr Row rows[] = {SIZES(CMP, Cmp), SIZES(TEST, Test), SIZES(SUB, Sub), SIZES(ADD, Add), SIZES(AND, And),
                        UNARY_SIZES(INC, Inc), UNARY_SIZES(DEC, Dec)};

}  // namespace

u8 fusion_of(const Insn& insn) {
    const Shape shape = shape_of(insn);
    for (unsigned i = 0; i < std::size(rows); ++i)
        if (rows[i].mnemonic == insn.mnemonic && rows[i].shape == shape && rows[i].bytes == insn.operand[0].bytes)
            return static_cast<u8>(i + 1);
    return 0;
}

}  // namespace fast

void fuse(Op& compare, const Op& branch) {
    constexpr u8 is_branch = 0x80;
    if (!(branch.fusion & is_branch) || compare.fusion == 0 || (compare.fusion & is_branch)) return;
    compare.handler = (*fast::rows[compare.fusion - 1].handlers)[branch.fusion & 15];
}

}  // namespace exeunt
