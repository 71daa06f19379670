// Conversions between integers and the two formats, and rounding to an integral value. SDM 1 4.8.4
// "Rounding", 11.4.1.6 "SSE2 Conversion Instructions"; an integer that does not fit is the integer
// indefinite, 11.5.2.1.
#include "cpu/softfloat_parts.hpp"

#include <limits>

namespace exeunt::softfloat {

namespace {

/// The magnitude of `p` rounded to an integer; exponents up to 63.
u64 integer_part(const Parts& p, Rounding rounding, bool& inexact) {
    u64 whole = 0, rest = 0; // `rest` counts 2^-64
    if (p.exponent >= 0) {
        const u128 fixed = u128{p.significand} << (p.exponent + 1);
        whole = static_cast<u64>(fixed >> 64);
        rest = static_cast<u64>(fixed);
    } else {
        rest = shift_right_sticky(p.significand, static_cast<unsigned>(-1 - p.exponent));
    }
    inexact = rest != 0;
    return whole + rounds_up(whole & 1, rest, u64{1} << 63, p.negative, rounding);
}

/// From one format to another. `denormal`: the flag of a denormal operand.
template <class To, class From>
To convert(From a, u32 denormal, Environment& e) {
    constexpr int wider =
        static_cast<int>(Format<To>::fraction_bits) - static_cast<int>(Format<From>::fraction_bits);
    const To sign = is_negative(a) ? sign_bit<To> : To{0};
    if (is_nan(a)) {
        if (is_signaling(a)) e.raise(MXCSR::IE);
        const u64 payload = a & fraction_mask<From>;
        const u64 moved = wider > 0 ? payload << (wider & 63) : payload >> (-wider & 63);
        return static_cast<To>(sign | infinity<To> | quiet_bit<To> | static_cast<To>(moved));
    }
    if (is_infinite(a)) return static_cast<To>(sign | infinity<To>);
    if (is_zero(a)) return sign;
    if (is_denormal(a)) e.raise(denormal);
    return pack<To>(unpack(a), e);
}

} // namespace

template <class Integer, class T>
Integer to_integer(T operand, Rounding rounding, Environment& e) {
    constexpr Integer indefinite = std::numeric_limits<Integer>::min();
    const T a = flush_operand(operand, e);
    if (is_zero(a)) return 0;
    const Parts p = unpack(a);
    if (is_nan(a) || is_infinite(a) || p.exponent > 63) {
        e.raise(MXCSR::IE);
        return indefinite;
    }
    bool inexact = false;
    const u64 size = integer_part(p, rounding, inexact);
    const u64 limit = static_cast<u64>(std::numeric_limits<Integer>::max()) + (p.negative ? 1 : 0);
    if (size > limit) {
        e.raise(MXCSR::IE);
        return indefinite;
    }
    if (inexact) e.raise(MXCSR::PE);
    return static_cast<Integer>(p.negative ? 0 - size : size);
}

template <class T>
T from_integer(i64 value, Environment& e) {
    if (value == 0) return 0;
    const u64 size = value < 0 ? 0 - static_cast<u64>(value) : static_cast<u64>(value);
    const int shift = std::countl_zero(size);
    return pack<T>({value < 0, 63 - shift, size << shift}, e);
}

u64 widen(u32 a, Environment& e) { return convert<u64>(flush_operand(a, e), MXCSR::DE, e); }
u32 narrow(u64 a, Environment& e) { return convert<u32>(flush_operand(a, e), MXCSR::DE, e); }
u32 widen_half(u16 a, Environment& e) { return convert<u32>(a, 0, e); }
u16 narrow_to_half(u32 a, Environment& e) { return convert<u16>(flush_operand(a, e), MXCSR::DE, e); }

template <class T>
T round_to_integral(T operand, Rounding rounding, bool exact, Environment& e) {
    const T a = flush_operand(operand, e);
    if (is_nan(a)) return choose_nan(a, a, e);
    if (is_zero(a)) return a;
    const Parts p = unpack(a);
    if (p.exponent >= static_cast<int>(Format<T>::fraction_bits)) return a; // integral, or an infinity
    bool inexact = false;
    const u64 size = integer_part(p, rounding, inexact);
    if (inexact && !exact) e.raise(MXCSR::PE);
    const T sign = static_cast<T>(a & sign_bit<T>);
    if (size == 0) return sign;
    Environment unobserved;
    const int shift = std::countl_zero(size);
    return static_cast<T>(sign | pack<T>({false, 63 - shift, size << shift}, unobserved));
}

template i32 to_integer<i32>(u32, Rounding, Environment&);
template i32 to_integer<i32>(u64, Rounding, Environment&);
template i64 to_integer<i64>(u32, Rounding, Environment&);
template i64 to_integer<i64>(u64, Rounding, Environment&);
template u32 from_integer<u32>(i64, Environment&);
template u64 from_integer<u64>(i64, Environment&);
template u32 round_to_integral(u32, Rounding, bool, Environment&);
template u64 round_to_integral(u64, Rounding, bool, Environment&);

} // namespace exeunt::softfloat
