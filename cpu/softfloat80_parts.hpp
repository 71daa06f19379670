// What the operations of softfloat80 share: taking numbers apart, choosing among NaNs, rounding and packing.
#pragma once

#include "cpu/softfloat80.hpp"

#include <bit>

namespace exeunt::softfloat80 {

/// A finite number other than zero: significand / 2^63 * 2^exponent, bit 63 of the significand set.
struct Number {
    bool negative = false;
    int exponent = 0;
    u64 significand = 0;
};

constexpr Number unpack(const Extended& a) {
    const unsigned field = exponent_field(a);
    const int shift = std::countl_zero(a.significand); // 0 unless it is a denormal
    return {is_negative(a), static_cast<int>(field == 0 ? 1 : field) - bias - shift, a.significand << shift};
}

constexpr Extended invalid(Environment& e) {
    e.raise(FSW::IE);
    return default_nan;
}

constexpr Extended quieted(const Extended& a) { return {a.significand | quiet_bit, a.sign_exponent}; }

/// SDM 1 Table 4-7, x87: a quiet NaN before a signaling one; of two of a kind the one with the larger
/// significand, of equal ones the positive.
constexpr Extended choose_nan(const Extended& a, Kind ka, const Extended& b, Kind kb, Environment& e) {
    if (ka == Kind::signaling_nan || kb == Kind::signaling_nan) e.raise(FSW::IE);
    if (!is_nan(ka)) return quieted(b);
    if (!is_nan(kb)) return quieted(a);
    if (ka != kb) return ka == Kind::quiet_nan ? a : b;
    if (a.significand != b.significand) return quieted(a.significand > b.significand ? a : b);
    return quieted(is_negative(a) ? b : a);
}

/// Whether the operand alone decides: an unsupported encoding or a NaN.
constexpr bool not_a_number(const Extended& a, Kind k, Environment& e, Extended& result) {
    if (k == Kind::unsupported) {
        result = invalid(e);
        return true;
    }
    if (!is_nan(k)) return false;
    if (k == Kind::signaling_nan) e.raise(FSW::IE);
    result = quieted(a);
    return true;
}
constexpr bool not_a_number(const Extended& a, Kind ka, const Extended& b, Kind kb, Environment& e,
                            Extended& result) {
    if (ka == Kind::unsupported || kb == Kind::unsupported) {
        result = invalid(e);
        return true;
    }
    if (!is_nan(ka) && !is_nan(kb)) return false;
    result = choose_nan(a, ka, b, kb, e);
    return true;
}

/// The denormal-operand exception comes after what is found invalid. False: it stops the operation.
constexpr bool accept(Kind a, Kind b, Environment& e) {
    if (a == Kind::denormal || b == Kind::denormal || e.denormal_source) e.raise(FSW::DE);
    return !e.stops();
}
constexpr bool accept(Kind a, Environment& e) { return accept(a, a, e); }

constexpr u128 shift_right_sticky(u128 value, unsigned count) {
    if (count == 0) return value;
    if (count > 127) return value != 0;
    return value >> count | ((value << (128 - count)) != 0);
}

/// `significand` (bit 127 leads) rounded to `precision` bits.
struct Rounded {
    u64 significand = 0;
    bool carry =
        false; ///< it became the next power of 2; `significand` is right, but for an exponent one higher
    bool inexact = false, up = false;
};

constexpr bool rounds_up(bool odd, bool half, bool more, bool negative, Rounding rounding) {
    switch (rounding) {
    case Rounding::nearest: return half && (more || odd);
    case Rounding::down: return negative && (half || more);
    case Rounding::up: return !negative && (half || more);
    case Rounding::zero: return false;
    }
    return false;
}

constexpr Rounded round(u128 significand, unsigned precision, bool negative, Rounding rounding) {
    const unsigned drop = 64 - precision;
    const u64 high = static_cast<u64>(significand >> 64), low = static_cast<u64>(significand);
    const u64 unit = u64{1} << drop;
    // The bit below the last place, and whether any bit below that one is set.
    const bool half = drop == 0 ? low >> 63 : (high & (unit >> 1)) != 0;
    const bool more = drop == 0 ? low << 1 != 0 : ((high & ((unit >> 1) - 1)) | low) != 0;
    Rounded r;
    r.significand = high & ~(unit - 1);
    r.inexact = half || more;
    r.up = rounds_up(r.significand & unit, half, more, negative, rounding);
    if (r.up) {
        r.significand += unit;
        if (r.significand < unit) { // only out of all ones
            r.carry = true;
            r.significand = integer_bit;
        }
    }
    return r;
}

constexpr Extended packed(bool negative, int exponent, u64 significand) {
    return {significand, static_cast<u16>((exponent + bias) | (negative ? sign_bit : 0))};
}

/// How far the exponent is moved when #O or #U is not masked. SDM 1 8.5.4, 8.5.5.
inline constexpr int exponent_adjustment = 24576;
inline constexpr int largest_exponent = bias, least_exponent = 1 - bias;

/// What remains of a number that is out of range even with an adjusted exponent, or of one whose overflow is
/// masked.
constexpr Extended overflowed(bool negative, unsigned precision, const Rounded& r, int exponent,
                              Environment& e) {
    e.raise(FSW::OE);
    if (!e.masked(FSW::OE)) {
        exponent -= exponent_adjustment;
        const bool massive = exponent > largest_exponent;
        if (r.inexact || massive) e.raise(FSW::PE);
        e.up = r.up || massive;
        return massive ? infinity(negative) : packed(negative, exponent, r.significand);
    }
    e.raise(FSW::PE);
    const Rounding rounding = e.rounding();
    e.up = rounding == Rounding::nearest || rounding == (negative ? Rounding::down : Rounding::up);
    if (e.up) return infinity(negative);
    return packed(negative, largest_exponent, ~u64{0} << (64 - precision));
}

constexpr Extended underflowed(bool negative, u128 significand, int exponent, unsigned precision,
                               const Rounded& r, int rounded_exponent, Environment& e) {
    if (!e.masked(FSW::UE)) {
        rounded_exponent += exponent_adjustment;
        const bool massive = rounded_exponent < least_exponent;
        e.raise(r.inexact || massive ? FSW::UE | FSW::PE : FSW::UE);
        e.up = r.up && !massive;
        if (massive) return zero(negative);
        return packed(negative, rounded_exponent, r.significand);
    }
    const u128 shifted = shift_right_sticky(significand, static_cast<unsigned>(least_exponent - exponent));
    const Rounded d = round(shifted, precision, negative, e.rounding());
    if (d.inexact) e.raise(FSW::UE | FSW::PE);
    e.up = d.up;
    // A carry into the integer bit makes it the least normal number.
    const u16 field = d.significand & integer_bit ? 1 : 0;
    return {d.significand, static_cast<u16>(field | (negative ? sign_bit : 0))};
}

/// significand / 2^127 * 2^exponent, bit 127 set and bit 0 sticky, rounded, with the exceptions that come out
/// of a result.
constexpr Extended pack(bool negative, int exponent, u128 significand, unsigned precision, Environment& e) {
    const Rounded r = round(significand, precision, negative, e.rounding());
    const int rounded_exponent = exponent + r.carry;
    if (rounded_exponent > largest_exponent) return overflowed(negative, precision, r, rounded_exponent, e);
    if (rounded_exponent < least_exponent)
        return underflowed(negative, significand, exponent, precision, r, rounded_exponent, e);
    if (r.inexact) e.raise(FSW::PE);
    e.up = r.up;
    return packed(negative, rounded_exponent, r.significand);
}

/// As pack(), of any significand but 0.
constexpr Extended normalize_and_pack(bool negative, int exponent, u128 significand, unsigned precision,
                                      Environment& e) {
    const u64 high = static_cast<u64>(significand >> 64);
    const int shift =
        high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<u64>(significand));
    return pack(negative, exponent - shift, significand << shift, precision, e);
}

} // namespace exeunt::softfloat80
