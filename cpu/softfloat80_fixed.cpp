#include "cpu/softfloat80_fixed.hpp"

#include <array>

#define MPFR_USE_INTMAX_T
#include <mpfr.h>

namespace exeunt::softfloat80 {

namespace {

/// Bits 255:128 of the product.
constexpr u128 multiply_high(u128 a, u128 b) {
    const u64 a1 = static_cast<u64>(a >> 64), a0 = static_cast<u64>(a);
    const u64 b1 = static_cast<u64>(b >> 64), b0 = static_cast<u64>(b);
    const u128 low = u128{a0} * b0, left = u128{a1} * b0, right = u128{a0} * b1;
    const u128 middle = (low >> 64) + static_cast<u64>(left) + static_cast<u64>(right);
    return u128{a1} * b1 + (left >> 64) + (right >> 64) + (middle >> 64);
}

constexpr int leading_zeros(u128 a) {
    const u64 high = static_cast<u64>(a >> 64);
    return high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<u64>(a));
}

/// pi / 2 in units of 2^-65: the 66 bits of 0C90FDAA22168C234CH without the two last, which are 0.
constexpr u128 half_pi = u128{0x3} << 64 | 0x243F'6A88'85A3'08D3;

/// floor(2^192 / half_pi).
constexpr u128 inverse_half_pi = [] {
    u128 quotient = 0, rest = 0;
    for (int i = 192; i >= 0; --i) {
        rest = rest << 1 | (i == 192);
        quotient <<= 1;
        if (rest >= half_pi) {
            rest -= half_pi;
            quotient |= 1;
        }
    }
    return quotient;
}();

} // namespace

Angle reduced(const Number& x) {
    if (x.exponent < -1) return {false, x.exponent, u128{x.significand} << 64, 0};
    const u128 value = u128{x.significand} << (x.exponent + 2);
    u64 multiple = static_cast<u64>(multiply_high(value, inverse_half_pi) >> 64); // at most 2 too small
    u128 rest = value - multiple * half_pi;
    while (rest >= half_pi) {
        rest -= half_pi;
        ++multiple;
    }
    Angle angle;
    if (rest > half_pi / 2) {
        rest = half_pi - rest;
        ++multiple;
        angle.negative = true;
    }
    const int shift = leading_zeros(rest); // never 0: 66 odd bits have no multiple of 64 bits
    angle.significand = rest << shift;
    angle.exponent = 127 - 65 - shift;
    angle.quadrant = multiple & 3;
    return angle;
}

namespace fixed {

bool enabled = true;

namespace {

// Sine and cosine. With z = r^2 <= (pi / 4)^2 = 0.617 as a fraction of 128 bits,
//   sin(r) / r = 1 - z / 3! + z^2 / 5! - ..., to z^15 / 31!; the next term is below 2^-133
//   cos(r)     = 1 - z / 2! + z^2 / 4! - ..., to z^16 / 32!; the next term is below 2^-139
// Each step of Horner's scheme adds an error below 3 units of 2^-128 (coefficient and product are cut off) to
// 0.617 times the error before it: the sum stays below 8, to which the error of z, below 2, adds at most 1.

/// 1/2!, 1/3!, ... 1/32!.
constexpr auto inverse_factorials = [] {
    std::array<u128, 33> values{};
    values[2] = u128{1} << 127;
    for (unsigned n = 3; n < values.size(); ++n) values[n] = values[n - 1] / n;
    return values;
}();

/// z (1 / first! - z (1 / (first + 2)! - ...)), to the term with 1 / last!.
u128 series(u128 z, unsigned first, unsigned last) {
    u128 sum = inverse_factorials[last];
    for (unsigned n = last; n > first; n -= 2) sum = inverse_factorials[n - 2] - multiply_high(z, sum);
    return multiply_high(z, sum);
}

u128 square(const Angle& angle) {
    return multiply_high(angle.significand, angle.significand) >> (-2 * angle.exponent - 2);
}

/// Below this the result is too close to its argument, or to 1, to be decided.
constexpr int least_angle = -32;

Approximation normalized(bool negative, int exponent, u128 significand, u64 error) {
    const int shift = leading_zeros(significand);
    return {negative, exponent - shift, significand << shift, error << shift};
}

} // namespace

std::optional<Approximation> sine(const Angle& angle) {
    if (angle.exponent < least_angle) return std::nullopt;
    const u128 factor = u128{0} - series(square(angle), 3, 31); // 1 - ...
    return normalized(false, angle.exponent, multiply_high(angle.significand, factor), 16);
}

std::optional<Approximation> cosine(const Angle& angle) {
    if (angle.exponent < least_angle) return std::nullopt;
    return normalized(false, -1, u128{0} - series(square(angle), 2, 32), 16);
}

namespace {

// Logarithm. m in [0.707, 1.414) is multiplied by a c_j close to 128 / j = 1 / m, of ten bits, which gives 1
// + r exactly, with |r| < 0.007. log2(m) = log2(1 + r) - log2(c_j), and ln(1 + r) / r = 1 - r / 2 + r^2 / 3 -
// ..., to r^17 / 18; the next term is below 2^-133. For m within 1/256 of 1, c_j is 1 and the result is a
// multiple of r, of full precision.
constexpr unsigned first_j = 90, last_j = 181, terms = 18;

struct Tables {
    u128 log2_e = 0;                                ///< in units of 2^-127
    std::array<u128, terms> inverse{};              ///< 1 / (n + 1), in units of 2^-127
    std::array<u64, last_j - first_j + 1> factor{}; ///< c_j, in units of 2^-9
    std::array<i128, last_j - first_j + 1> log2{};  ///< -log2(c_j), in units of 2^-126
};

/// A number in [0, 4) in units of 2^-126, cut off.
u128 units(mpfr_ptr value) {
    u128 result = 0;
    mpfr_mul_2ui(value, value, 30, MPFR_RNDZ); // 32 bits before the point
    for (int i = 0; i < 4; ++i) {
        const unsigned long piece = mpfr_get_ui(value, MPFR_RNDZ);
        result = result << 32 | piece;
        mpfr_sub_ui(value, value, piece, MPFR_RNDZ);
        mpfr_mul_2ui(value, value, 32, MPFR_RNDZ);
    }
    return result;
}

Tables make_tables() {
    Tables t;
    mpfr_t value;
    mpfr_init2(value, 200);
    mpfr_const_log2(value, MPFR_RNDN);
    mpfr_ui_div(value, 2, value, MPFR_RNDN);
    t.log2_e = units(value); // twice as many of 2^-126 are as many of 2^-127
    for (unsigned n = 0; n < terms; ++n) t.inverse[n] = (u128{1} << 127) / (n + 1);
    for (unsigned j = first_j; j <= last_j; ++j) {
        const unsigned c = (128 * 512 + j / 2) / j;
        t.factor[j - first_j] = c;
        mpfr_set_ui(value, c, MPFR_RNDN);
        mpfr_div_2ui(value, value, 9, MPFR_RNDN);
        mpfr_log2(value, value, MPFR_RNDN);
        const bool negative = mpfr_signbit(value) != 0;
        mpfr_abs(value, value, MPFR_RNDN);
        const i128 magnitude = static_cast<i128>(units(value));
        t.log2[j - first_j] = negative ? magnitude : -magnitude;
    }
    mpfr_clear(value);
    return t;
}

const Tables& tables() {
    static const Tables t = make_tables();
    return t;
}

} // namespace

Approximation logarithm(const Number& x) {
    const Tables& t = tables();
    static constexpr u64 root_2 = 0xB504'F333'F9DE'6484;
    const bool halved = x.significand >= root_2;
    const int exponent = x.exponent + halved;
    const u128 m = u128{x.significand} << (halved ? 0 : 1); // in units of 2^-64
    const auto j = static_cast<unsigned>((m + (u128{1} << 56)) >> 57);
    const u128 scaled = m * t.factor[j - first_j], unit = u128{1} << 73; // 1 + r, in units of 2^-73
    const bool below = scaled < unit;
    const u128 r = (below ? unit - scaled : scaled - unit) << 55; // |r|, in units of 2^-128
    u128 sum = t.inverse[terms - 1];
    for (unsigned n = terms - 1; n-- > 0;) {
        const u128 rest = multiply_high(r, sum);
        sum = below ? t.inverse[n] + rest : t.inverse[n] - rest;
    }
    const u128 slope = multiply_high(sum, t.log2_e); // log2(1 + r) / r, in units of 2^-126, within 4 of them
    if (exponent == 0 && j == 128) {
        const int shift = leading_zeros(r);
        return normalized(below, 1 - shift, multiply_high(r << shift, slope), 8);
    }
    const auto small = static_cast<i128>(multiply_high(r, slope));
    const i128 fraction = t.log2[j - first_j] + (below ? -small : small); // within 4 units of 2^-126
    if (exponent == 0) {
        const bool negative = fraction < 0;
        return normalized(negative, 1, static_cast<u128>(negative ? -fraction : fraction), 4);
    }
    // 16 bits before the point hold every exponent.
    const i128 total = (i128{exponent} << 112) + (fraction >> 14);
    const bool negative = total < 0;
    return normalized(negative, 15, static_cast<u128>(negative ? -total : total), 2);
}

Approximation product(const Approximation& a, const Number& b) {
    return normalized(a.negative != b.negative, a.exponent + b.exponent + 1,
                      multiply_high(a.significand, u128{b.significand} << 64), a.error + 1);
}

} // namespace fixed
} // namespace exeunt::softfloat80
