// The operations that obey precision control: addition, subtraction, multiplication, division, square root.
// SDM 1 8.1.5.2 "Precision Control Field"; SDM 2A FADD, FSUB, FMUL, FDIV, FSQRT.
#include "cpu/softfloat80_parts.hpp"

#include <utility>

namespace exeunt::softfloat80 {

namespace {

/// |a| + |b|, or |a| - |b| where |a| >= |b|, both without the two top bits of a u128 so that nothing
/// overflows.
Extended combine(Number a, Number b, bool negative, Environment& e) {
    const bool subtracts = a.negative != b.negative;
    if (b.exponent > a.exponent || (b.exponent == a.exponent && b.significand > a.significand)) {
        std::swap(a, b);
        if (subtracts) negative = !negative;
    }
    const u128 large = u128{a.significand} << 62;
    const u128 small =
        shift_right_sticky(u128{b.significand} << 62, static_cast<unsigned>(a.exponent - b.exponent));
    const u128 result = subtracts ? large - small : large + small;
    if (result == 0) return zero(e.rounding() == Rounding::down);
    return normalize_and_pack(negative, a.exponent + 2, result, e.precision(), e);
}

/// a + b, where `b` counts as negated with `negate`.
Extended sum(const Extended& a, const Extended& b, bool negate, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    const bool negative_b = is_negative(b) != negate;
    if (ka == Kind::finite && kb == Kind::finite && !e.denormal_source) [[likely]] {
        Number y = unpack(b);
        y.negative = negative_b;
        return combine(unpack(a), y, is_negative(a), e);
    }
    Extended result;
    if (not_a_number(a, ka, b, kb, e, result)) return result;
    if (ka == Kind::infinity && kb == Kind::infinity && is_negative(a) != negative_b) return invalid(e);
    if (!accept(ka, kb, e)) return default_nan;
    if (ka == Kind::infinity) return a;
    if (kb == Kind::infinity) return infinity(negative_b);
    if (ka == Kind::zero && kb == Kind::zero)
        return zero(is_negative(a) == negative_b ? negative_b : e.rounding() == Rounding::down);
    if (ka == Kind::zero || kb == Kind::zero) { // the other one, rounded
        const Number n = unpack(ka == Kind::zero ? b : a);
        const bool negative = ka == Kind::zero ? negative_b : is_negative(a);
        return pack(negative, n.exponent, u128{n.significand} << 64, e.precision(), e);
    }
    Number y = unpack(b);
    y.negative = negative_b;
    return combine(unpack(a), y, is_negative(a), e);
}

/// floor(sqrt(value)) for a value with one of its two top bits set.
u64 integer_root(u128 value) {
    u64 root = 0;
    u128 rest = value;
    for (int place = 63; place >= 0; --place) {
        // (root + 2^place)^2 - root^2
        const u128 step = (u128{root} << (place + 1)) + (u128{1} << (2 * place));
        if (rest < step) continue;
        rest -= step;
        root |= u64{1} << place;
    }
    return root;
}

} // namespace

Extended add(const Extended& a, const Extended& b, Environment& e) { return sum(a, b, false, e); }
Extended subtract(const Extended& a, const Extended& b, Environment& e) { return sum(a, b, true, e); }

Extended multiply(const Extended& a, const Extended& b, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    const bool negative = is_negative(a) != is_negative(b);
    if (ka != Kind::finite || kb != Kind::finite || e.denormal_source) [[unlikely]] {
        Extended result;
        if (not_a_number(a, ka, b, kb, e, result)) return result;
        if ((ka == Kind::infinity && kb == Kind::zero) || (ka == Kind::zero && kb == Kind::infinity))
            return invalid(e);
        if (!accept(ka, kb, e)) return default_nan;
        if (ka == Kind::infinity || kb == Kind::infinity) return infinity(negative);
        if (ka == Kind::zero || kb == Kind::zero) return zero(negative);
    }
    const Number x = unpack(a), y = unpack(b);
    return normalize_and_pack(negative, x.exponent + y.exponent + 1, u128{x.significand} * y.significand,
                              e.precision(), e);
}

Extended divide(const Extended& a, const Extended& b, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    const bool negative = is_negative(a) != is_negative(b);
    if (ka != Kind::finite || kb != Kind::finite || e.denormal_source) [[unlikely]] {
        Extended result;
        if (not_a_number(a, ka, b, kb, e, result)) return result;
        if ((ka == Kind::infinity && kb == Kind::infinity) || (ka == Kind::zero && kb == Kind::zero))
            return invalid(e);
        if (kb == Kind::zero && ka != Kind::infinity) { // #Z outranks #D
            e.raise(FSW::ZE);
            return infinity(negative);
        }
        if (!accept(ka, kb, e)) return default_nan;
        if (ka == Kind::infinity) return infinity(negative);
        if (ka == Kind::zero || kb == Kind::infinity) return zero(negative);
    }
    const Number x = unpack(a), y = unpack(b);
    const bool below = x.significand < y.significand; // the quotient of the significands is below 1
    const u128 dividend = u128{x.significand} << (below ? 64 : 63);
    const u64 quotient = static_cast<u64>(dividend / y.significand);
    const u64 rest = static_cast<u64>(dividend % y.significand);
    // All that rounding asks of the other bits: are they nothing, less than a half, a half, or more?
    u64 tail = 0;
    if (rest != 0) {
        const u64 other = y.significand - rest;
        tail = rest < other ? 1 : rest == other ? integer_bit : integer_bit + 1;
    }
    return pack(negative, x.exponent - y.exponent - below, u128{quotient} << 64 | tail, e.precision(), e);
}

Extended square_root(const Extended& a, Environment& e) {
    const Kind k = kind(a);
    if (k != Kind::finite || is_negative(a)) [[unlikely]] {
        Extended result;
        if (not_a_number(a, k, e, result)) return result;
        if (k == Kind::zero) return a;
        if (is_negative(a)) return invalid(e);
        if (!accept(k, e)) return default_nan;
        if (k == Kind::infinity) return a;
    }
    const Number x = unpack(a);
    const bool odd = x.exponent & 1;
    // The value is square / 2^126 * 2^(exponent - odd), with an even exponent.
    const u128 square = u128{x.significand} << (odd ? 64 : 63);
    const u64 root = integer_root(square);
    const u128 rest = square - u128{root} * root;
    // (root + 1/2)^2 lies between rest = root and rest = root + 1, so a half never comes out exactly.
    const u64 tail = rest == 0 ? 0 : rest > root ? integer_bit + 1 : 1;
    return pack(false, (x.exponent - odd) / 2, u128{root} << 64 | tail, e.precision(), e);
}

} // namespace exeunt::softfloat80
