// FMA: SDM 1 14.5 "Fused-Multiply-ADD (FMA) Extensions". Products and sums are softfloat's, rounded once, on
// every native machine.
#include "cpu/instructions/sse_float.hpp"

namespace exeunt {

using namespace sse;

namespace {

constexpr bool plus = false, minus = true;

/// x * y + z with these signs. The digits of `order` say which operands x, z and y are (SDM 1 Table 14-15);
/// of the two factors the manual's figure has operand 2 first, where it is one.
template <unsigned order, class T>
T fused(T first, T second, T third, bool negate_product, bool negate_addend, Environment& e) {
    if constexpr (order == 132)
        return softfloat::fuse(first, third, second, negate_product, negate_addend, e);
    if constexpr (order == 213)
        return softfloat::fuse(second, first, third, negate_product, negate_addend, e);
    return softfloat::fuse(second, third, first, negate_product, negate_addend, e);
}

template <unsigned order, class T>
Result<void> fuse_packed(Cpu& cpu, const Insn& insn, bool negate_product, bool even, bool odd) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const auto c = split<T>(TRY(vector_operand<V>(cpu, insn, 2)));
        const auto b = split<T>(vector<V>(cpu, insn.operand[1].number));
        auto a = split<T>(vector<V>(cpu, insn.operand[0].number));
        Environment e{cpu.mxcsr};
        for (unsigned i = 0; i < a.size(); ++i)
            a[i] = fused<order>(a[i], b[i], c[i], negate_product, i & 1 ? odd : even, e);
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, join(a));
        return {};
    });
}

template <unsigned order, class T>
Result<void> fuse_scalar(Cpu& cpu, const Insn& insn, bool negate_product, bool negate_addend) {
    TRY(sse_available(cpu, insn));
    const T c = TRY(number_operand<T>(cpu, insn, 2));
    const T b = lane<T>(xmm(cpu, insn.operand[1].number), 0);
    Xmm a = xmm(cpu, insn.operand[0].number);
    Environment e{cpu.mxcsr};
    set_lane<T>(a, 0, fused<order>(lane<T>(a, 0), b, c, negate_product, negate_addend, e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, a);
    return {};
}

} // namespace

#define FMA(mnemonic, order, format, product, addend)                          \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                 \
        return fuse_packed<order, format>(cpu, insn, product, addend, addend); \
    }
#define FMA_ALTERNATING(mnemonic, order, format, even, odd)            \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {         \
        return fuse_packed<order, format>(cpu, insn, plus, even, odd); \
    }
#define FMA_SCALAR(mnemonic, order, format, product, addend)           \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {         \
        return fuse_scalar<order, format>(cpu, insn, product, addend); \
    }
#include "cpu/instructions/fma.inc"

} // namespace exeunt
