// Floating-point arithmetic of SSE to SSE4.1. SDM 1 10.4.1.2 "SSE Arithmetic Instructions", 11.4.1.2, 12.3.3
// to 12.3.5, 12.10.2 "Floating-Point Dot Product Instructions", 12.10.8 "Floating-Point Rounding Instructions
// with Selectable Rounding Mode"; the instruction reference by name.
#include "cpu/instructions/sse_float.hpp"

namespace exeunt {

using namespace sse;
using softfloat::Add;
using softfloat::compute;
using softfloat::Divide;
using softfloat::Maximum;
using softfloat::Minimum;
using softfloat::Multiply;
using softfloat::Rounding;
using softfloat::SquareRoot;
using softfloat::Subtract;

#define SCALAR(mnemonic, format, operation)                                                                \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                                             \
        if (!scalar_quick<operation, format>(cpu, insn)) return scalar_slow<operation, format>(cpu, insn); \
        return {};                                                                                         \
    }
#define PACKED(mnemonic, format, operation)                                                                \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                                             \
        if (!packed_quick<operation, format>(cpu, insn)) return packed_slow<operation, format>(cpu, insn); \
        return {};                                                                                         \
    }
#include "cpu/instructions/sse_float.inc"

namespace {

/// destination = f(first source, second source, environment) in each 128-bit lane, where `f` may raise
/// exceptions.
template <class F>
Result<void> with_exceptions(Cpu& cpu, const Insn& insn, F f) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, second_source(insn)));
        Environment e{cpu.mxcsr};
        const V result =
            by_lanes([&](const Xmm& x, const Xmm& y) { return f(x, y, e); }, first_source<V>(cpu, insn), b);
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, result);
        return {};
    });
}

template <class T>
Result<void> add_subtract(Cpu& cpu, const Insn& insn) {
    return with_exceptions(cpu, insn, [](const Xmm& a, const Xmm& b, Environment& e) {
        auto x = split<T>(a);
        const auto y = split<T>(b);
        for (unsigned i = 0; i < x.size(); ++i)
            x[i] = i & 1 ? compute<Add>(x[i], y[i], e) : compute<Subtract>(x[i], y[i], e);
        return join(x);
    });
}

template <class Op, class T>
Result<void> horizontal(Cpu& cpu, const Insn& insn) {
    return with_exceptions(cpu, insn, [](const Xmm& a, const Xmm& b, Environment& e) {
        const auto x = split<T>(a), y = split<T>(b);
        auto r = x;
        constexpr std::size_t half = r.size() / 2;
        for (unsigned i = 0; i < half; ++i) r[i] = compute<Op>(x[2 * i], x[2 * i + 1], e);
        for (unsigned i = 0; i < half; ++i) r[half + i] = compute<Op>(y[2 * i], y[2 * i + 1], e);
        return join(r);
    });
}

/// DPPS, DPPD. Bits 7:4 of the immediate say which products count, bits 3:0 which lanes get their sum. The
/// exceptions of each step are settled before the next: one that is not masked ends the instruction there.
template <class T, class V>
Result<V> dot_products(Cpu& cpu, const V& a, const V& b, u8 control) {
    constexpr unsigned in_lane = 16 / sizeof(T);
    auto x = split<T>(a);
    const auto y = split<T>(b);
    Environment products{cpu.mxcsr};
    for (unsigned i = 0; i < x.size(); ++i)
        x[i] = control >> (4 + i % in_lane) & 1 ? compute<Multiply>(x[i], y[i], products) : T{0};
    TRY(settle(cpu, products.raised));
    for (unsigned step = 1; step < in_lane; step *= 2) {
        Environment sums{cpu.mxcsr};
        for (unsigned i = 0; i < x.size(); i += 2 * step) x[i] = compute<Add>(x[i], x[i + step], sums);
        TRY(settle(cpu, sums.raised));
    }
    for (unsigned i = static_cast<unsigned>(x.size()); i-- > 0;)
        x[i] = control >> i % in_lane & 1 ? x[i - i % in_lane] : T{0};
    return join(x);
}
template <class T>
Result<void> dot_product(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, second_source(insn)));
        const V a = first_source<V>(cpu, insn);
        set_vector(cpu, insn, TRY((dot_products<T, V>(cpu, a, b, immediate8(insn)))));
        return {};
    });
}

/// ROUNDxx. Immediate: bits 1:0 the rounding, bit 2 MXCSR.RC instead, bit 3 no precision exception.
template <class T>
T round_lane(T value, u8 control, Environment& e) {
    const Rounding rounding = control & 4 ? e.rounding() : static_cast<Rounding>(control & 3);
    return softfloat::round_to_integral(value, rounding, control & 8, e);
}
template <class T>
Result<void> round_packed(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V a = TRY(vector_operand<V>(cpu, insn, 1));
        Environment e{cpu.mxcsr};
        const V result = each<T>(a, [&](T x) { return round_lane(x, immediate8(insn), e); });
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, result);
        return {};
    });
}
template <class T>
Result<void> round_scalar(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T b = TRY(number_operand<T>(cpu, insn, second_source(insn)));
    Environment e{cpu.mxcsr};
    Xmm value = first_source(cpu, insn);
    set_lane<T>(value, 0, round_lane(b, immediate8(insn), e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, value);
    return {};
}

template <u32 (*approximate)(u32)>
Result<void> approximate_scalar(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const u32 b = TRY(number_operand<u32>(cpu, insn, second_source(insn)));
    Xmm value = first_source(cpu, insn);
    set_lane<u32>(value, 0, approximate(b));
    set_vector(cpu, insn, value);
    return {};
}
template <u32 (*approximate)(u32)>
Result<void> approximate_packed(Cpu& cpu, const Insn& insn) {
    return unary_vector(cpu, insn, [](const Xmm& a) { return each<u32>(a, approximate); });
}

} // namespace

Result<void> exec_ADDSUBPS(Cpu& cpu, const Insn& insn) { return add_subtract<u32>(cpu, insn); }
Result<void> exec_ADDSUBPD(Cpu& cpu, const Insn& insn) { return add_subtract<u64>(cpu, insn); }
Result<void> exec_HADDPS(Cpu& cpu, const Insn& insn) { return horizontal<Add, u32>(cpu, insn); }
Result<void> exec_HADDPD(Cpu& cpu, const Insn& insn) { return horizontal<Add, u64>(cpu, insn); }
Result<void> exec_HSUBPS(Cpu& cpu, const Insn& insn) { return horizontal<Subtract, u32>(cpu, insn); }
Result<void> exec_HSUBPD(Cpu& cpu, const Insn& insn) { return horizontal<Subtract, u64>(cpu, insn); }
Result<void> exec_DPPS(Cpu& cpu, const Insn& insn) { return dot_product<u32>(cpu, insn); }
Result<void> exec_DPPD(Cpu& cpu, const Insn& insn) { return dot_product<u64>(cpu, insn); }
Result<void> exec_ROUNDSS(Cpu& cpu, const Insn& insn) { return round_scalar<u32>(cpu, insn); }
Result<void> exec_ROUNDSD(Cpu& cpu, const Insn& insn) { return round_scalar<u64>(cpu, insn); }
Result<void> exec_ROUNDPS(Cpu& cpu, const Insn& insn) { return round_packed<u32>(cpu, insn); }
Result<void> exec_ROUNDPD(Cpu& cpu, const Insn& insn) { return round_packed<u64>(cpu, insn); }
Result<void> exec_RCPSS(Cpu& cpu, const Insn& insn) {
    return approximate_scalar<softfloat::reciprocal>(cpu, insn);
}
Result<void> exec_RCPPS(Cpu& cpu, const Insn& insn) {
    return approximate_packed<softfloat::reciprocal>(cpu, insn);
}
Result<void> exec_RSQRTSS(Cpu& cpu, const Insn& insn) {
    return approximate_scalar<softfloat::reciprocal_square_root>(cpu, insn);
}
Result<void> exec_RSQRTPS(Cpu& cpu, const Insn& insn) {
    return approximate_packed<softfloat::reciprocal_square_root>(cpu, insn);
}

} // namespace exeunt
