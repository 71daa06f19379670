// What the operations of softfloat share: taking numbers apart, choosing among NaNs, rounding and packing.
#pragma once

#include "cpu/softfloat.hpp"

#include <bit>

namespace exeunt::softfloat {

/// A finite number other than zero: significand / 2^63 * 2^exponent. Bit 63 of the significand is set; when
/// it stands for more bits than it has, bit 0 is sticky.
struct Parts {
    bool negative = false;
    int exponent = 0;
    u64 significand = 0;
};

template <class T>
constexpr Parts unpack(T a) {
    constexpr unsigned left = 63 - Format<T>::fraction_bits;
    const unsigned field = exponent_field(a);
    const u64 fraction = u64{static_cast<T>(a & fraction_mask<T>)} << left;
    if (field != 0)
        return {is_negative(a), static_cast<int>(field) - Format<T>::bias, fraction | u64{1} << 63};
    const int shift = std::countl_zero(fraction);
    return {is_negative(a), 1 - Format<T>::bias - shift, fraction << shift};
}

/// Denormals are zeros: operands lose their fraction and keep their sign.
template <class T>
constexpr T flush_operand(T a, const Environment& e) {
    return e.daz() && is_denormal(a) ? static_cast<T>(a & sign_bit<T>) : a;
}

/// Table 4-7 for SSE: the first operand if it is a NaN, else the second; made quiet.
template <class T>
constexpr T choose_nan(T a, T b, Environment& e) {
    if (is_signaling(a) || is_signaling(b)) e.raise(MXCSR::IE);
    return static_cast<T>((is_nan(a) ? a : b) | quiet_bit<T>);
}

template <class T>
constexpr T invalid(Environment& e) {
    e.raise(MXCSR::IE);
    return default_nan<T>;
}

constexpr u64 shift_right_sticky(u64 value, unsigned count) {
    if (count == 0) return value;
    if (count > 63) return value != 0;
    return value >> count | ((value << (64 - count)) != 0);
}

/// Whether the magnitude is to be increased. `rest` of `half` * 2 was cut off below the last place.
constexpr bool rounds_up(bool odd, u64 rest, u64 half, bool negative, Rounding rounding) {
    switch (rounding) {
    case Rounding::nearest: return rest > half || (rest == half && odd);
    case Rounding::down: return negative && rest != 0;
    case Rounding::up: return !negative && rest != 0;
    case Rounding::zero: return false;
    }
    return false;
}

/// `significand` without its last `drop` bits (1 to 63), rounded; `inexact` says whether they mattered.
constexpr u64 round_off(u64 significand, unsigned drop, bool negative, Rounding rounding, bool& inexact) {
    const u64 rest = significand & ((u64{1} << drop) - 1);
    const u64 kept = significand >> drop;
    inexact = rest != 0;
    return kept + rounds_up(kept & 1, rest, u64{1} << (drop - 1), negative, rounding);
}

template <class T>
constexpr T overflowed(bool negative, bool inexact, Environment& e) {
    e.raise(MXCSR::OE);
    if (e.masked(MXCSR::OE) || inexact) e.raise(MXCSR::PE);
    const Rounding r = e.rounding();
    const bool to_infinity = r == Rounding::nearest || r == (negative ? Rounding::down : Rounding::up);
    const T sign = negative ? sign_bit<T> : T{0};
    return static_cast<T>(sign | (to_infinity ? infinity<T> : static_cast<T>(infinity<T> - 1)));
}

/// A result whose magnitude, rounded as if the exponent had no bound, is below the normal range (SDM
/// 1 4.9.1.5).
template <class T>
constexpr T underflowed(const Parts& p, bool inexact, Environment& e) {
    const T sign = p.negative ? sign_bit<T> : T{0};
    if (!e.masked(MXCSR::UE)) {
        e.raise(inexact ? MXCSR::UE | MXCSR::PE : MXCSR::UE);
        return sign; // the exception is taken; no result is stored
    }
    if (e.flush_to_zero()) {
        e.raise(MXCSR::UE | MXCSR::PE);
        return sign;
    }
    const u64 shifted =
        shift_right_sticky(p.significand, static_cast<unsigned>(1 - Format<T>::bias - p.exponent));
    bool lost = false;
    const u64 rounded = round_off(shifted, 63 - Format<T>::fraction_bits, p.negative, e.rounding(), lost);
    if (lost) e.raise(MXCSR::UE | MXCSR::PE);
    return static_cast<T>(sign | static_cast<T>(rounded)); // a carry makes it the least normal number
}

/// Rounds to the precision of T, with the exceptions that come out of a result.
template <class T>
constexpr T pack(const Parts& p, Environment& e) {
    constexpr unsigned fraction_bits = Format<T>::fraction_bits;
    bool inexact = false;
    const u64 rounded = round_off(p.significand, 63 - fraction_bits, p.negative, e.rounding(), inexact);
    const int carry = static_cast<int>(rounded >> (fraction_bits + 1));
    const int field = p.exponent + Format<T>::bias + carry;
    if (field < 1) return underflowed<T>(p, inexact, e);
    if (field >= (1 << Format<T>::exponent_bits) - 1) return overflowed<T>(p.negative, inexact, e);
    if (inexact) e.raise(MXCSR::PE);
    const T sign = p.negative ? sign_bit<T> : T{0};
    const T fraction = static_cast<T>(static_cast<T>(rounded) & fraction_mask<T>); // 0 after a carry
    return static_cast<T>(sign | static_cast<T>(static_cast<T>(field) << fraction_bits) | fraction);
}

} // namespace exeunt::softfloat
