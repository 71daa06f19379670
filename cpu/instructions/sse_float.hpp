// Floating-point lanes in handlers: compute by the fast way or by softfloat, then settle the exceptions.
#pragma once

#include "cpu/instructions/sse.hpp"
#include "cpu/softfloat_fast.hpp"

namespace exeunt::sse {

using softfloat::Environment;

/// The lowest lane, with all that MXCSR steers. The rest of the first source stays.
template <class Op, class T>
[[gnu::noinline]] Result<void> scalar_slow(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T b = TRY(number_operand<T>(cpu, insn, second_source(insn)));
    Xmm value = first_source(cpu, insn);
    const T a = lane<T>(value, 0);
    T result;
    if (!softfloat::quick<Op>(a, b, cpu.mxcsr, result)) {
        u64 lanes[2];
        if (softfloat::by_silicon<Op, T, 1>({a, 0}, {b, 0}, cpu.mxcsr, lanes)) {
            result = static_cast<T>(lanes[0]);
        } else {
            Environment e{cpu.mxcsr};
            result = Op::template soft<T>(a, b, e);
            TRY(settle(cpu, e.raised));
        }
    }
    set_lane<T>(value, 0, result);
    set_vector(cpu, insn, value);
    return {};
}

/// Between registers, by the quickest way; false: nothing was done.
template <class Op, class T>
[[gnu::always_inline]] inline bool scalar_quick(Cpu& cpu, const Insn& insn) {
    if (!between_xmm(cpu, insn)) return false;
    u64& to = cpu.vector[insn.operand[0].number].q[0];
    const T a = static_cast<T>(to), b = static_cast<T>(cpu.vector[insn.operand[1].number].q[0]);
    T result;
    if (!softfloat::quick<Op>(a, b, cpu.mxcsr, result)) return false;
    to = (to & ~low_mask(8 * sizeof(T))) | result;
    return true;
}

/// All lanes of `a` and `b` by the fast ways; false: one of them says that it can not.
template <class Op, class T, class V>
[[gnu::always_inline]] inline bool packed_native(const V& a, const V& b, u32& mxcsr, V& result) {
    u32 status = mxcsr;
    bool ok = true;
    result = by_lanes(
        [&](const Xmm& x, const Xmm& y) {
            Xmm r;
            ok = ok && (softfloat::quick_vector<Op, T>(x.q, y.q, status, r.q) ||
                        softfloat::by_silicon<Op, T, 16 / sizeof(T)>(x.q, y.q, status, r.q));
            return r;
        },
        a, b);
    if (ok) mxcsr = status;
    return ok;
}

/// All lanes.
template <class Op, class T>
[[gnu::noinline]] Result<void> packed_slow(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, Op::unary ? 1 : second_source(insn)));
        const V a = Op::unary ? b : first_source<V>(cpu, insn);
        V result;
        if (!packed_native<Op, T>(a, b, cpu.mxcsr, result)) {
            Environment e{cpu.mxcsr};
            result = each<T>(a, b, [&](T x, T y) { return softfloat::compute<Op>(x, y, e); });
            TRY(settle(cpu, e.raised));
        }
        set_vector(cpu, insn, result);
        return {};
    });
}

template <class Op, class T>
[[gnu::always_inline]] inline bool packed_quick(Cpu& cpu, const Insn& insn) {
    if (!between_xmm(cpu, insn)) return false;
    const unsigned to = insn.operand[0].number;
    const Xmm a = xmm(cpu, to), b = xmm(cpu, insn.operand[1].number);
    Xmm result;
    if (!softfloat::quick_vector<Op, T>(a.q, b.q, cpu.mxcsr, result.q)) return false;
    write_xmm(cpu, to, result);
    return true;
}

} // namespace exeunt::sse
