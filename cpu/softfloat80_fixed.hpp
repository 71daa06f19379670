// A shorter way to sine, cosine and logarithm: approximations in fixed point whose error is known. Where the
// error could change the rounding they say so (about once in 2^40 operands, and for tiny arguments), and the
// definition in cpu/softfloat80_transcendental.cpp decides. The tests compare both.
#pragma once

#include "cpu/softfloat80_parts.hpp"

#include <optional>

namespace exeunt::softfloat80 {

/// |x| less the nearest multiple of pi / 2, where pi has 66 bits (SDM 1 8.3.8 "Approximation of Pi"). Exact.
struct Angle {
    bool negative = false;
    int exponent = 0;
    u128 significand = 0;  ///< bit 127 leads
    unsigned quadrant = 0; ///< the multiple's number, modulo 4
};
/// For |x| < 2^63. The sign of `x` does not count.
Angle reduced(const Number& x);

namespace fixed {

/// Tests switch the short way off with it.
extern bool enabled;

/// A value other than 0 and its distance from the true one, which is irrational.
struct Approximation {
    bool negative = false;
    int exponent = 0;
    u128 significand = 0; ///< bit 127 leads
    u64 error = 0;        ///< in units of bit 0
};

/// Nothing: too small for this way. The angle counts as positive and below pi / 4.
std::optional<Approximation> sine(const Angle& angle);
std::optional<Approximation> cosine(const Angle& angle);
/// Of a positive number other than 1.
Approximation logarithm(const Number& x);
Approximation product(const Approximation& a, const Number& b);

/// The rounded result, where the error can not change it.
inline std::optional<Extended> rounded(const Approximation& a, Environment& e) {
    // A result below the normal range is rounded elsewhere.
    if (a.exponent < least_exponent) return std::nullopt;
    // Rounding looks at the low half: for what is halfway, or exact.
    const u64 low = static_cast<u64>(a.significand);
    if (((low + a.error) & ~integer_bit) <= 2 * a.error) return std::nullopt;
    return pack(a.negative, a.exponent, a.significand | 1, 64, e);
}

} // namespace fixed
} // namespace exeunt::softfloat80
