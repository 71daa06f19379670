// RCPPS and RSQRTPS. SDM 2B RCPPS, RSQRTPS: relative error at most 1.5 * 2^-12, denormal operands are zeros,
// tiny results are flushed to zero, no exceptions. Within that bound each processor has tables of its own;
// ours follow one rule: the operand is known by its first fraction bits (11, or 10 and whether the exponent
// is odd), and the result is that of the middle of what these bits leave open, rounded to 12 fraction bits.
// The error is below 1.25 * 2^-12.
#include "cpu/softfloat_parts.hpp"

namespace exeunt::softfloat {

namespace {

constexpr unsigned result_bits = 12;

/// floor(sqrt(square)) of a number below 2^28.
constexpr u32 root_of(u32 square) {
    u32 root = 0;
    for (u32 place = 1 << 14; place != 0; place >>= 1)
        if (const u32 tried = root | place; tried * tried <= square) root = tried;
    return root;
}

/// `digits` in [2^12, 2^13] as 2^exponent * digits / 2^12, flushed to zero below the normal range.
constexpr u32 compose(u32 sign, int exponent, u32 digits) {
    const int field = exponent + Format<u32>::bias;
    if (field < 1) return sign;
    return sign | static_cast<u32>(field) << 23 | ((digits << (23 - result_bits)) & fraction_mask<u32>);
}

} // namespace

u32 reciprocal(u32 a) {
    const u32 sign = a & sign_bit<u32>;
    if (is_nan(a)) return a | quiet_bit<u32>;
    if (is_infinite(a)) return sign;
    if (exponent_field(a) == 0) return sign | infinity<u32>;
    // 1 / ((2 * index + 1 + 2^12) / 2^12) in [1/2, 1).
    const u32 index = (a & fraction_mask<u32>) >> 12;
    const u32 divisor = 2 * index + 1 + (1 << 12);
    const u32 digits = ((1 << 25) + divisor / 2) / divisor;
    return compose(sign, -1 - unpack(a).exponent, digits);
}

u32 reciprocal_square_root(u32 a) {
    const u32 sign = a & sign_bit<u32>;
    if (is_nan(a)) return a | quiet_bit<u32>;
    if (exponent_field(a) == 0) return sign | infinity<u32>;
    if (is_negative(a)) return default_nan<u32>;
    if (is_infinite(a)) return 0;
    const Parts p = unpack(a);
    const bool odd = p.exponent & 1;
    // 1 / sqrt((2 * index + 1 + 2^11) / 2^11), of twice that when the exponent is odd; in (1/2, 1).
    const u32 index = (a & fraction_mask<u32>) >> 13;
    const u32 divisor = (2 * index + 1 + (1 << 11)) << (odd ? 1 : 0);
    const u32 square = static_cast<u32>((u64{1} << 39) / divisor); // of twice the digits
    const u32 digits = (root_of(square) + 1) / 2;
    return compose(0, -1 - (p.exponent - (odd ? 1 : 0)) / 2, digits);
}

} // namespace exeunt::softfloat
