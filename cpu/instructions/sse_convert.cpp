// Conversions of SSE and SSE2 between integers and floating-point formats, also from and to MMX registers.
// SDM 1 10.4.3 "SSE Conversion Instructions", 11.4.1.6 "SSE2 Conversion Instructions"; the instruction
// reference by name.
#include "cpu/instructions/sse_float.hpp"

namespace exeunt {

using namespace sse;
using softfloat::inexact_is_noted;
using softfloat::Rounding;

namespace {

// ---- Numbers: by native arithmetic where that raises nothing that MXCSR does not hold yet
// ---------------------------

template <class T>
T of_integer(i64 value, Environment& e) {
    using Native = typename softfloat::Format<T>::Native;
    const bool exact = sizeof(T) == 8 && value == static_cast<i32>(value);
    if (exact || inexact_is_noted(e.mxcsr | e.raised)) [[likely]]
        return std::bit_cast<T>(static_cast<Native>(value));
    return softfloat::from_integer<T>(value, e);
}

template <class Integer, bool truncated, class T>
Integer whole_number(T a, Environment& e) {
    using Native = typename softfloat::Format<T>::Native;
    constexpr Native limit = static_cast<Native>(u64{1} << (8 * sizeof(Integer) - 1));
    const Native x = std::bit_cast<Native>(a);
    if (x >= -limit && x < limit) [[likely]] {
        const Integer whole = static_cast<Integer>(x);
        if (static_cast<Native>(whole) == x) return whole;
        if (truncated && ((e.mxcsr | e.raised) & MXCSR::PE) && e.masked(MXCSR::PE)) return whole;
    }
    return softfloat::to_integer<Integer>(a, truncated ? Rounding::zero : e.rounding(), e);
}

u64 to_double(u32 a, Environment& e) {
    if (softfloat::is_ordinary(a)) [[likely]]
        return std::bit_cast<u64>(static_cast<double>(std::bit_cast<float>(a)));
    return softfloat::widen(a, e);
}

u32 to_single(u64 a, Environment& e) {
    if (inexact_is_noted(e.mxcsr | e.raised) && softfloat::is_ordinary(a)) [[likely]] {
        const u32 result = std::bit_cast<u32>(static_cast<float>(std::bit_cast<double>(a)));
        if (softfloat::is_ordinary(result)) return result;
    }
    return softfloat::narrow(a, e);
}

// ---- Scalars
// ---------------------------------------------------------------------------------------------------

template <class T>
Result<void> convert_from_integer(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Operand& from = insn.operand[second_source(insn)];
    const bool wide = from.bytes == 8;
    u64 raw = cpu.r[from.number];
    if (from.kind == OperandKind::memory)
        raw = wide ? TRY(load_number<u64>(cpu, insn)) : TRY(load_number<u32>(cpu, insn));
    const i64 value = wide ? static_cast<i64>(raw) : static_cast<i32>(low32(raw));
    Environment e{cpu.mxcsr};
    Xmm result = first_source(cpu, insn);
    set_lane<T>(result, 0, of_integer<T>(value, e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, result);
    return {};
}

template <class T, bool truncated>
Result<void> convert_to_integer(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T a = TRY(number_operand<T>(cpu, insn, 1));
    Environment e{cpu.mxcsr};
    const u64 result = insn.operand[0].bytes == 8 ? static_cast<u64>(whole_number<i64, truncated>(a, e))
                                                  : static_cast<u32>(whole_number<i32, truncated>(a, e));
    TRY(settle(cpu, e.raised));
    cpu.r[insn.operand[0].number] = result;
    return {};
}

/// CVTSS2SD, CVTSD2SS.
template <class From, class To, To (*convert)(From, Environment&)>
Result<void> convert_number(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const From a = TRY(number_operand<From>(cpu, insn, second_source(insn)));
    Environment e{cpu.mxcsr};
    Xmm result = first_source(cpu, insn);
    set_lane<To>(result, 0, convert(a, e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, result);
    return {};
}

// ---- Vectors
// ---------------------------------------------------------------------------------------------------

/// The lowest lanes of `a`, as many as both vectors have, converted; the rest of the result is zero.
template <class From, class To, unsigned to_bytes, unsigned from_bytes, class F>
Vec<to_bytes> convert_lanes(const Vec<from_bytes>& a, F f) {
    constexpr unsigned most = to_bytes / sizeof(To), available = from_bytes / sizeof(From);
    Vec<to_bytes> r;
    for (unsigned i = 0; i < (most < available ? most : available); ++i)
        set_lane<To>(r, i, static_cast<To>(f(lane<From>(a, i))));
    return r;
}

template <class From, class To, class F>
Result<void> convert_packed(Cpu& cpu, const Insn& insn, F f) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V a = TRY(vector_operand<V>(cpu, insn, 1));
        Environment e{cpu.mxcsr};
        const V result = convert_lanes<From, To, V::bytes>(a, [&](From x) { return f(x, e); });
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, result);
        return {};
    });
}

/// CVTPI2PS, CVTPI2PD: two integers from an MMX register or memory.
template <class T>
Result<void> convert_from_mmx(Cpu& cpu, const Insn& insn, bool is_mmx_instruction) {
    TRY(sse_available(cpu, insn));
    if (is_mmx_instruction) TRY(mmx_available(cpu));
    const Mm a = TRY(mm_operand(cpu, insn, 1));
    Environment e{cpu.mxcsr};
    Xmm result = xmm(cpu, insn.operand[0].number);
    for (unsigned i = 0; i < 2; ++i)
        set_lane<T>(result, i, of_integer<T>(static_cast<i32>(lane<u32>(a, i)), e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, result);
    if (is_mmx_instruction) use_mmx(cpu);
    return {};
}

/// CVTPS2PI, CVTPD2PI and the truncating ones.
template <class T, bool truncated>
Result<void> convert_to_mmx(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    TRY(mmx_available(cpu));
    const Xmm a = TRY(xmm_operand(cpu, insn, 1));
    Environment e{cpu.mxcsr};
    Mm result;
    for (unsigned i = 0; i < 2; ++i)
        set_lane<u32>(result, i, static_cast<u32>(whole_number<i32, truncated>(lane<T>(a, i), e)));
    TRY(settle(cpu, e.raised));
    set_mm(cpu, insn.operand[0].number, result);
    return {};
}

} // namespace

Result<void> exec_CVTSI2SS(Cpu& cpu, const Insn& insn) { return convert_from_integer<u32>(cpu, insn); }
Result<void> exec_CVTSI2SD(Cpu& cpu, const Insn& insn) { return convert_from_integer<u64>(cpu, insn); }
Result<void> exec_CVTSS2SI(Cpu& cpu, const Insn& insn) { return convert_to_integer<u32, false>(cpu, insn); }
Result<void> exec_CVTSD2SI(Cpu& cpu, const Insn& insn) { return convert_to_integer<u64, false>(cpu, insn); }
Result<void> exec_CVTTSS2SI(Cpu& cpu, const Insn& insn) { return convert_to_integer<u32, true>(cpu, insn); }
Result<void> exec_CVTTSD2SI(Cpu& cpu, const Insn& insn) { return convert_to_integer<u64, true>(cpu, insn); }
Result<void> exec_CVTSS2SD(Cpu& cpu, const Insn& insn) {
    return convert_number<u32, u64, to_double>(cpu, insn);
}
Result<void> exec_CVTSD2SS(Cpu& cpu, const Insn& insn) {
    return convert_number<u64, u32, to_single>(cpu, insn);
}

Result<void> exec_CVTPS2PD(Cpu& cpu, const Insn& insn) {
    return convert_packed<u32, u64>(cpu, insn, to_double);
}
Result<void> exec_CVTPD2PS(Cpu& cpu, const Insn& insn) {
    return convert_packed<u64, u32>(cpu, insn, to_single);
}
Result<void> exec_CVTDQ2PS(Cpu& cpu, const Insn& insn) {
    return convert_packed<i32, u32>(cpu, insn, of_integer<u32>);
}
Result<void> exec_CVTDQ2PD(Cpu& cpu, const Insn& insn) {
    return convert_packed<i32, u64>(cpu, insn, of_integer<u64>);
}
Result<void> exec_CVTPS2DQ(Cpu& cpu, const Insn& insn) {
    return convert_packed<u32, u32>(cpu, insn, whole_number<i32, false, u32>);
}
Result<void> exec_CVTTPS2DQ(Cpu& cpu, const Insn& insn) {
    return convert_packed<u32, u32>(cpu, insn, whole_number<i32, true, u32>);
}
Result<void> exec_CVTPD2DQ(Cpu& cpu, const Insn& insn) {
    return convert_packed<u64, u32>(cpu, insn, whole_number<i32, false, u64>);
}
Result<void> exec_CVTTPD2DQ(Cpu& cpu, const Insn& insn) {
    return convert_packed<u64, u32>(cpu, insn, whole_number<i32, true, u64>);
}

Result<void> exec_CVTPI2PS(Cpu& cpu, const Insn& insn) { return convert_from_mmx<u32>(cpu, insn, true); }
/// With a memory operand it does not touch the x87 FPU's state (SDM 2A CVTPI2PD).
Result<void> exec_CVTPI2PD(Cpu& cpu, const Insn& insn) {
    return convert_from_mmx<u64>(cpu, insn, insn.operand[1].kind == OperandKind::mmx);
}
Result<void> exec_CVTPS2PI(Cpu& cpu, const Insn& insn) { return convert_to_mmx<u32, false>(cpu, insn); }
Result<void> exec_CVTTPS2PI(Cpu& cpu, const Insn& insn) { return convert_to_mmx<u32, true>(cpu, insn); }
Result<void> exec_CVTPD2PI(Cpu& cpu, const Insn& insn) { return convert_to_mmx<u64, false>(cpu, insn); }
Result<void> exec_CVTTPD2PI(Cpu& cpu, const Insn& insn) { return convert_to_mmx<u64, true>(cpu, insn); }

} // namespace exeunt
