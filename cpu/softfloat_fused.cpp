// Fused multiply-add: the exact product and the addend are added in 128 bits, and rounded once. SDM 1 14.5.2
// "Fused-Multiply-ADD (FMA) Numeric Behavior".
#include "cpu/softfloat_parts.hpp"

#include <utility>

namespace exeunt::softfloat {

namespace {

/// As Parts: significand / 2^127 * 2^exponent, bit 127 set.
struct WideParts {
    bool negative;
    int exponent;
    u128 significand;
};

WideParts widened(const Parts& p) { return {p.negative, p.exponent, u128{p.significand} << 64}; }

int leading_zeros(u128 value) {
    const u64 high = static_cast<u64>(value >> 64);
    return high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<u64>(value));
}

WideParts product_of(const Parts& a, const Parts& b) {
    const u128 product = u128{a.significand} * b.significand; // bit 126 or 127 is the highest
    const int carry = static_cast<int>(product >> 127);
    return {a.negative != b.negative, a.exponent + b.exponent + carry, product << (1 - carry)};
}

u128 shift_right_sticky(u128 value, unsigned count) {
    if (count == 0) return value;
    if (count > 127) return value != 0;
    return value >> count | u128{(value << (128 - count)) != 0};
}

template <class T>
T pack_wide(const WideParts& p, Environment& e) {
    const u64 significand = static_cast<u64>(p.significand >> 64) | u64{static_cast<u64>(p.significand) != 0};
    return pack<T>({p.negative, p.exponent, significand}, e);
}

/// A product has at most 106 bits: where two numbers are close enough to cancel, nothing has been cut off.
template <class T>
T add_wide(WideParts a, WideParts b, Environment& e) {
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand))
        std::swap(a, b);
    u128 x = a.significand >> 1; // room for the carry
    const u128 y = shift_right_sticky(b.significand >> 1, static_cast<unsigned>(a.exponent - b.exponent));
    x = a.negative == b.negative ? x + y : x - y;
    if (x == 0) return e.rounding() == Rounding::down ? sign_bit<T> : T{0};
    const int shift = leading_zeros(x);
    return pack_wide<T>({a.negative, a.exponent + 1 - shift, x << shift}, e);
}

} // namespace

template <class T>
T fuse(T first, T second, T third, bool negate_product, bool negate_addend, Environment& e) {
    const T a = flush_operand(first, e), b = flush_operand(second, e), c = flush_operand(third, e);
    if (is_nan(a) || is_nan(b) || is_nan(c)) {
        if (is_signaling(c)) e.raise(MXCSR::IE);
        if (!is_nan(a) && !is_nan(b)) return static_cast<T>(c | quiet_bit<T>);
        return choose_nan(a, b, e);
    }
    const bool infinite = is_infinite(a) || is_infinite(b), zero = is_zero(a) || is_zero(b);
    const T sign = static_cast<T>((a ^ b ^ (negate_product ? sign_bit<T> : T{0})) & sign_bit<T>);
    const T addend = static_cast<T>(c ^ (negate_addend ? sign_bit<T> : T{0}));
    if (infinite && zero) return invalid<T>(e);
    if (infinite && is_infinite(c) && sign != (addend & sign_bit<T>)) return invalid<T>(e);
    if (is_denormal(a) || is_denormal(b) || is_denormal(c)) e.raise(MXCSR::DE);
    if (infinite) return static_cast<T>(sign | infinity<T>);
    if (is_infinite(c)) return addend;
    if (zero && is_zero(c)) {
        if (sign == addend) return sign;
        return e.rounding() == Rounding::down ? sign_bit<T> : T{0};
    }
    if (zero) return pack<T>(unpack(addend), e); // exact, but it may be tiny
    WideParts product = product_of(unpack(a), unpack(b));
    product.negative = sign != 0;
    if (is_zero(c)) return pack_wide<T>(product, e);
    return add_wide<T>(product, widened(unpack(addend)), e);
}

template u32 fuse(u32, u32, u32, bool, bool, Environment&);
template u64 fuse(u64, u64, u64, bool, bool, Environment&);

} // namespace exeunt::softfloat
