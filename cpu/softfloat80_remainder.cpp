// Operations on exponents, partial remainders and comparisons, all of them exact. SDM 2A FSCALE, FXTRACT,
// FPREM, FPREM1, FCOM, FUCOM; SDM 1 8.5.4 "Numeric Overflow Exception (#O)" (massive overflow of FSCALE).
#include "cpu/softfloat80_parts.hpp"

namespace exeunt::softfloat80 {

Extended scale(const Extended& a, const Extended& b, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    Extended result;
    if (not_a_number(a, ka, b, kb, e, result)) return result;
    if (kb == Kind::infinity &&
        ((ka == Kind::infinity && is_negative(b)) || (ka == Kind::zero && !is_negative(b))))
        return invalid(e);
    if (!accept(ka, kb, e)) return default_nan;
    if (kb == Kind::infinity) return is_negative(b) ? zero(is_negative(a)) : infinity(is_negative(a));
    if (ka == Kind::infinity || ka == Kind::zero) return a;
    const Number n = unpack(a);
    int by = 0;
    if (kb == Kind::finite) {
        const Number m = unpack(b);
        static constexpr int beyond_all =
            0x2'0000; // whatever the exponent of `a`, and however it is adjusted
        if (m.exponent >= 17)
            by = beyond_all;
        else if (m.exponent >= 0)
            by = static_cast<int>(m.significand >> (63 - m.exponent));
        if (m.negative) by = -by;
    }
    return pack(n.negative, n.exponent + by, u128{n.significand} << 64, 64, e);
}

Extracted extract_exponent(const Extended& a, Environment& e) {
    const Kind k = kind(a);
    Extended result;
    if (not_a_number(a, k, e, result)) return {result, result};
    if (k == Kind::zero) {
        e.raise(FSW::ZE);
        return {infinity(true), a};
    }
    if (!accept(k, e)) return {default_nan, default_nan};
    if (k == Kind::infinity) return {infinity(false), a};
    const Number n = unpack(a);
    return {from_integer(n.exponent), packed(n.negative, 0, n.significand)};
}

namespace {

/// FPREM and FPREM1 of two numbers.
Remainder reduce(const Number& a, const Number& b, bool to_nearest, Environment& e) {
    Remainder result;
    result.numbers = true;
    const int difference = a.exponent - b.exponent;
    // Without a complete reduction the exponent goes down by 32 to 63.
    result.partial = difference >= 64;
    const int steps = result.partial ? 32 + difference % 32 : difference;
    const int exponent = a.exponent - steps; // of the remainder's leading place
    u128 rest = 0, quotient = 0;
    if (steps >= 0) {
        const u128 dividend = u128{a.significand} << steps;
        quotient = dividend / b.significand;
        rest = dividend % b.significand;
    }
    bool negative = a.negative;
    if (to_nearest && !result.partial) {
        // Twice the remainder against the divisor: the quotient is rounded to nearest, ties to even.
        const u128 twice = rest << 1;
        if (twice > b.significand || (twice == b.significand && (quotient & 1))) {
            rest = b.significand - rest;
            ++quotient;
            negative = !negative;
        }
    }
    if (!result.partial) result.quotient = static_cast<unsigned>(quotient & 7);
    if (rest == 0) {
        result.value = zero(a.negative);
        return result;
    }
    result.value = normalize_and_pack(negative, exponent + 64, rest, 64, e);
    return result;
}

} // namespace

Remainder remainder(const Extended& a, const Extended& b, bool to_nearest, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    Remainder result;
    if (not_a_number(a, ka, b, kb, e, result.value)) return result;
    if (ka == Kind::infinity || kb == Kind::zero) {
        result.value = invalid(e);
        return result;
    }
    if (!accept(ka, kb, e)) return {default_nan};
    result.value = a;
    result.numbers = true;
    if (ka == Kind::zero) return result;
    Number x = unpack(a), y{};
    if (kb != Kind::infinity) y = unpack(b);
    const int difference = x.exponent - y.exponent;
    if (kb == Kind::infinity || difference < -1 || (difference < 0 && !to_nearest)) {
        result.value = pack(x.negative, x.exponent, u128{x.significand} << 64, 64, e);
        return result;
    }
    if (difference == -1) { // |a| < |b|: the quotient is 0, or 1 when |a| > |b| / 2
        if (x.significand <= y.significand) {
            result.value = pack(x.negative, x.exponent, u128{x.significand} << 64, 64, e);
            return result;
        }
        result.quotient = 1;
        const u128 rest = (u128{y.significand} << 1) - x.significand;
        result.value = normalize_and_pack(!x.negative, x.exponent + 64, rest, 64, e);
        return result;
    }
    return reduce(x, y, to_nearest, e);
}

Relation compare(const Extended& a, const Extended& b, bool signals_quiet, Environment& e) {
    const Kind ka = kind(a), kb = kind(b);
    if (ka == Kind::unsupported || kb == Kind::unsupported || is_nan(ka) || is_nan(kb)) {
        const bool quiet = ka != Kind::unsupported && kb != Kind::unsupported && ka != Kind::signaling_nan &&
                           kb != Kind::signaling_nan;
        if (signals_quiet || !quiet) e.raise(FSW::IE);
        return Relation::unordered;
    }
    accept(ka, kb, e);
    if (ka == Kind::zero && kb == Kind::zero) return Relation::equal;
    if (is_negative(a) != is_negative(b)) return is_negative(a) ? Relation::less : Relation::greater;
    // The encodings are ordered as the numbers; a pseudo-denormal counts as the normal number that it equals.
    const auto key = [](const Extended& x) {
        unsigned field = exponent_field(x);
        if (field == 0 && x.significand & integer_bit) field = 1;
        return u128{field} << 64 | x.significand;
    };
    const u128 x = key(a), y = key(b);
    if (x == y) return Relation::equal;
    return (x < y) != is_negative(a) ? Relation::less : Relation::greater;
}

} // namespace exeunt::softfloat80
