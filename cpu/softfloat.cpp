#include "cpu/softfloat.hpp"

#include "cpu/softfloat_parts.hpp"

#include <utility>

namespace exeunt::softfloat {

namespace {

/// Operands with DAZ applied. After NaNs and invalid operations, which come first (SDM 1 4.9.2), a denormal
/// operand is an exception of its own.
template <class T>
struct Operands {
    T a, b;
    Operands(T first, T second, const Environment& e)
        : a(flush_operand(first, e)), b(flush_operand(second, e)) {}
    bool any_nan() const { return is_nan(a) || is_nan(b); }
    void note_denormals(Environment& e) const {
        if (is_denormal(a) || is_denormal(b)) e.raise(MXCSR::DE);
    }
};

/// The sum of two finite numbers, neither of them zero.
template <class T>
T add_parts(Parts a, Parts b, Environment& e) {
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand))
        std::swap(a, b);
    // One bit above for the carry; below remain more than the guard, round and sticky bits that are needed.
    u64 x = a.significand >> 1;
    const u64 y = shift_right_sticky(b.significand >> 1, static_cast<unsigned>(a.exponent - b.exponent));
    x = a.negative == b.negative ? x + y : x - y;
    if (x == 0) return e.rounding() == Rounding::down ? sign_bit<T> : T{0};
    const int shift = std::countl_zero(x);
    return pack<T>({a.negative, a.exponent + 1 - shift, x << shift}, e);
}

template <class T>
T add_numbers(T a, T b, Environment& e) {
    if (is_infinite(a) || is_infinite(b)) {
        if (is_infinite(a) && is_infinite(b) && a != b) return invalid<T>(e);
        Operands<T>(a, b, e).note_denormals(e);
        return is_infinite(a) ? a : b;
    }
    Operands<T>(a, b, e).note_denormals(e);
    if (is_zero(a) && is_zero(b)) {
        if (a == b) return a;
        return e.rounding() == Rounding::down ? sign_bit<T> : T{0};
    }
    if (is_zero(a)) return pack<T>(unpack(b), e); // exact, but it may be tiny
    if (is_zero(b)) return pack<T>(unpack(a), e);
    return add_parts<T>(unpack(a), unpack(b), e);
}

/// The integer square root of [2^126, 2^128), its last bit sticky.
u64 root_of(u128 square) {
    u64 root = 0;
    for (u64 place = u64{1} << 63; place != 0; place >>= 1)
        if (const u64 tried = root | place; u128{tried} * tried <= square) root = tried;
    return u128{root} * root == square ? root : root | 1;
}

template <class T>
T extreme(T first, T second, bool want_less, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) {
        e.raise(MXCSR::IE);
        return o.b;
    }
    const Relation r = compare(o.a, o.b, true, e);
    return r == (want_less ? Relation::less : Relation::greater) ? o.a : o.b;
}

} // namespace

template <class T>
T add(T first, T second, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) return choose_nan(o.a, o.b, e);
    return add_numbers(o.a, o.b, e);
}

template <class T>
T subtract(T first, T second, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) return choose_nan(o.a, o.b, e);
    return add_numbers(o.a, static_cast<T>(o.b ^ sign_bit<T>), e);
}

template <class T>
T multiply(T first, T second, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) return choose_nan(o.a, o.b, e);
    const T sign = static_cast<T>((o.a ^ o.b) & sign_bit<T>);
    const bool infinite = is_infinite(o.a) || is_infinite(o.b);
    const bool zero = is_zero(o.a) || is_zero(o.b);
    if (infinite && zero) return invalid<T>(e);
    o.note_denormals(e);
    if (infinite) return static_cast<T>(sign | infinity<T>);
    if (zero) return sign;
    const Parts a = unpack(o.a), b = unpack(o.b);
    const u128 product = u128{a.significand} * b.significand; // bit 126 or 127 is the highest
    const unsigned carry = static_cast<unsigned>(product >> 127);
    const u128 aligned = product << (1 - carry);
    const u64 significand = static_cast<u64>(aligned >> 64) | (static_cast<u64>(aligned) != 0);
    return pack<T>({sign != 0, a.exponent + b.exponent + static_cast<int>(carry), significand}, e);
}

template <class T>
T divide(T first, T second, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) return choose_nan(o.a, o.b, e);
    const T sign = static_cast<T>((o.a ^ o.b) & sign_bit<T>);
    if ((is_infinite(o.a) && is_infinite(o.b)) || (is_zero(o.a) && is_zero(o.b))) return invalid<T>(e);
    if (is_zero(o.b)) {
        if (!is_infinite(o.a)) e.raise(MXCSR::ZE);
        return static_cast<T>(sign | infinity<T>);
    }
    o.note_denormals(e);
    if (is_infinite(o.a)) return static_cast<T>(sign | infinity<T>);
    if (is_infinite(o.b) || is_zero(o.a)) return sign;
    const Parts a = unpack(o.a), b = unpack(o.b);
    const bool below = a.significand < b.significand;
    const u128 dividend = u128{a.significand} << (below ? 64 : 63);
    const u64 quotient = static_cast<u64>(dividend / b.significand);
    const bool rest = u128{quotient} * b.significand != dividend;
    return pack<T>({sign != 0, a.exponent - b.exponent - (below ? 1 : 0), quotient | u64{rest}}, e);
}

template <class T>
T square_root(T operand, Environment& e) {
    const T a = flush_operand(operand, e);
    if (is_nan(a)) return choose_nan(a, a, e);
    if (is_zero(a)) return a;
    if (is_negative(a)) return invalid<T>(e);
    if (is_infinite(a)) return a;
    if (is_denormal(a)) e.raise(MXCSR::DE);
    const Parts p = unpack(a);
    const bool odd = p.exponent & 1;
    return pack<T>({false, (p.exponent - (odd ? 1 : 0)) / 2, root_of(u128{p.significand} << (odd ? 64 : 63))},
                   e);
}

template <class T>
T minimum(T a, T b, Environment& e) {
    return extreme(a, b, true, e);
}

template <class T>
T maximum(T a, T b, Environment& e) {
    return extreme(a, b, false, e);
}

template <class T>
Relation compare(T first, T second, bool signals_quiet, Environment& e) {
    const Operands<T> o(first, second, e);
    if (o.any_nan()) {
        if (signals_quiet || is_signaling(o.a) || is_signaling(o.b)) e.raise(MXCSR::IE);
        return Relation::unordered;
    }
    o.note_denormals(e);
    if (o.a == o.b || (is_zero(o.a) && is_zero(o.b))) return Relation::equal;
    if (is_negative(o.a) != is_negative(o.b)) return is_negative(o.a) ? Relation::less : Relation::greater;
    return (o.a < o.b) != is_negative(o.a) ? Relation::less : Relation::greater;
}

#define FOR_FORMAT(T)                        \
    template T add(T, T, Environment&);      \
    template T subtract(T, T, Environment&); \
    template T multiply(T, T, Environment&); \
    template T divide(T, T, Environment&);   \
    template T square_root(T, Environment&); \
    template T minimum(T, T, Environment&);  \
    template T maximum(T, T, Environment&);  \
    template Relation compare(T, T, bool, Environment&);
FOR_FORMAT(u32)
FOR_FORMAT(u64)
#undef FOR_FORMAT

} // namespace exeunt::softfloat
