// Integer arithmetic as pure functions: values in, value and flags out. SDM 1 5.1, SDM 2 "Operation"
// sections.
//
// Every function exists for u8, u16, u32 and u64 and leaves Flags (cpu/state.hpp) as the instruction of its
// name does. The engine's fast handlers are instantiated from these, so each is meant to compile to the few
// instructions of the operation and its flags.
//
// Flags that the manual leaves undefined are fixed here, once, for every model:
//   AND OR XOR TEST             AF = 0
//   MUL IMUL                    SF and PF from the low half of the product, ZF = 0, AF = 0
//   DIV IDIV, BT BTS BTR BTC    not mentioned flags keep their values
//   shifts, SHLD SHRD           AF = 0; OF for every count as the last single-bit shift would leave it
//   rotates                     OF for every count, likewise
//   SHLD SHRD, 16-bit, count > 16  the destination's own bits follow the source's
//   (destination:source:destination) BSF BSR                     source 0: the destination keeps its value;
//   only ZF changes TZCNT LZCNT                 OF, SF, AF, PF keep their values ANDN BEXTR BZHI BLSx AF = 0;
//   SF and PF from the result AAA AAS                     SF, ZF, PF from AL, OF = 0;  DAA DAS: OF = 0;  AAM
//   AAD: OF = AF = CF = 0
#pragma once

#include "cpu/state.hpp"

#include <bit>
#include <concepts>
#include <type_traits>

namespace exeunt::alu {

template <class T>
concept Word = std::same_as<T, u8> || std::same_as<T, u16> || std::same_as<T, u32> || std::same_as<T, u64>;

template <Word T>
using Signed = std::make_signed_t<T>;
template <Word T>
inline constexpr unsigned width = 8 * sizeof(T);

/// The next wider pair of integers, for products and dividends.
template <Word T>
struct Wide {
    using Unsigned = u64;
    using Integer = i64;
};
template <>
struct Wide<u64> {
    using Unsigned = u128;
    using Integer = i128;
};

/// The value sign-extended to 64 bits: what Flags keeps of a result.
template <Word T>
[[gnu::always_inline]] constexpr u64 extended(T value) {
    return static_cast<u64>(static_cast<i64>(static_cast<Signed<T>>(value)));
}
template <Word T>
[[gnu::always_inline]] constexpr u8 msb(T value) {
    return static_cast<u8>(value >> (width<T> - 1));
}
/// ZF, SF and PF of a result.
template <Word T>
[[gnu::always_inline]] constexpr void set_result(Flags& f, T result) {
    f.zf_value = f.sp_value = extended(result);
}
template <Word T>
[[gnu::always_inline]] constexpr void set_af(Flags& f, T a, T b, T result) {
    f.af = static_cast<u8>(a ^ b ^ result);
}

// ---- Addition and subtraction ----------------------------------------------------------------------------

template <Word T>
[[gnu::always_inline]] constexpr T add(Flags& f, T a, T b) {
    T r{};
    Signed<T> s{};
    f.cf = __builtin_add_overflow(a, b, &r);
    f.of = __builtin_add_overflow(static_cast<Signed<T>>(a), static_cast<Signed<T>>(b), &s);
    set_af(f, a, b, r);
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T sub(Flags& f, T a, T b) {
    Signed<T> s{};
    const T r = static_cast<T>(a - b);
    f.cf = a < b;
    f.of = __builtin_sub_overflow(static_cast<Signed<T>>(a), static_cast<Signed<T>>(b), &s);
    set_af(f, a, b, r);
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr void cmp(Flags& f, T a, T b) {
    sub(f, a, b);
}

/// a + b + carry with the carry out; sets nothing but `carry`.
template <Word T>
[[gnu::always_inline]] constexpr T add_with_carry(T a, T b, u8& carry) {
    T partial{}, r{};
    const bool first = __builtin_add_overflow(a, b, &partial);
    const bool second = __builtin_add_overflow(partial, static_cast<T>(carry), &r);
    carry = static_cast<u8>(first | second);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T adc(Flags& f, T a, T b) {
    const T r = add_with_carry(a, b, f.cf);
    f.of = msb(static_cast<T>((a ^ r) & (b ^ r)));
    set_af(f, a, b, r);
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T sbb(Flags& f, T a, T b) {
    const T partial = static_cast<T>(a - b);
    const T r = static_cast<T>(partial - f.cf);
    f.cf = static_cast<u8>((a < b) | (partial < f.cf));
    f.of = msb(static_cast<T>((a ^ b) & (a ^ r)));
    set_af(f, a, b, r);
    set_result(f, r);
    return r;
}

/// CF is unchanged.
template <Word T>
[[gnu::always_inline]] constexpr T inc(Flags& f, T a) {
    const T r = static_cast<T>(a + 1);
    f.of = r == static_cast<T>(T{1} << (width<T> - 1));
    f.af = static_cast<u8>(a ^ r);
    set_result(f, r);
    return r;
}

/// CF is unchanged.
template <Word T>
[[gnu::always_inline]] constexpr T dec(Flags& f, T a) {
    const T r = static_cast<T>(a - 1);
    f.of = a == static_cast<T>(T{1} << (width<T> - 1));
    f.af = static_cast<u8>(a ^ r);
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T neg(Flags& f, T a) {
    const T r = static_cast<T>(0 - a);
    f.cf = a != 0;
    f.of = a == static_cast<T>(T{1} << (width<T> - 1));
    f.af = static_cast<u8>(a ^ r);
    set_result(f, r);
    return r;
}

// ---- Logic -----------------------------------------------------------------------------------------------

/// The flags of AND, OR, XOR and TEST, whose result this is.
template <Word T>
[[gnu::always_inline]] constexpr T logic(Flags& f, T result) {
    f.cf = f.of = f.af = 0;
    set_result(f, result);
    return result;
}
template <Word T>
[[gnu::always_inline]] constexpr T and_(Flags& f, T a, T b) {
    return logic(f, static_cast<T>(a & b));
}
template <Word T>
[[gnu::always_inline]] constexpr T or_(Flags& f, T a, T b) {
    return logic(f, static_cast<T>(a | b));
}
template <Word T>
[[gnu::always_inline]] constexpr T xor_(Flags& f, T a, T b) {
    return logic(f, static_cast<T>(a ^ b));
}
template <Word T>
[[gnu::always_inline]] constexpr void test(Flags& f, T a, T b) {
    logic(f, static_cast<T>(a & b));
}
/// NOT changes no flag.
template <Word T>
[[gnu::always_inline]] constexpr T not_(T a) {
    return static_cast<T>(~a);
}

// ---- Multiplication and division
// ----------------------------------------------------------------------------

template <Word T>
[[gnu::always_inline]] constexpr void set_product(Flags& f, T low, bool overflow) {
    f.cf = f.of = overflow;
    f.af = 0;
    f.zf_value = 1;
    f.sp_value = extended(low);
}

/// One-operand MUL: the low half is returned, the high half left in `high`.
template <Word T>
[[gnu::always_inline]] constexpr T mul(Flags& f, T a, T b, T& high) {
    using U = typename Wide<T>::Unsigned;
    const U product = static_cast<U>(a) * b;
    const T low = static_cast<T>(product);
    high = static_cast<T>(product >> width<T>);
    set_product(f, low, high != 0);
    return low;
}

/// One-operand IMUL.
template <Word T>
[[gnu::always_inline]] constexpr T imul(Flags& f, T a, T b, T& high) {
    using I = typename Wide<T>::Integer;
    const I product = static_cast<I>(static_cast<Signed<T>>(a)) * static_cast<Signed<T>>(b);
    const T low = static_cast<T>(product);
    high = static_cast<T>(product >> width<T>);
    set_product(f, low, static_cast<I>(static_cast<Signed<T>>(low)) != product);
    return low;
}

/// IMUL with two and three operands: the truncated product.
template <Word T>
[[gnu::always_inline]] constexpr T imul(Flags& f, T a, T b) {
    Signed<T> r{};
    const bool overflow = __builtin_mul_overflow(static_cast<Signed<T>>(a), static_cast<Signed<T>>(b), &r);
    set_product(f, static_cast<T>(r), overflow);
    return static_cast<T>(r);
}

/// high:low / divisor. False: #DE (divisor 0, or the quotient does not fit). No flag changes.
template <Word T>
[[gnu::always_inline]] constexpr bool div(T high, T low, T divisor, T& quotient, T& remainder) {
    using U = typename Wide<T>::Unsigned;
    if (high >= divisor) return false; // covers a divisor of 0
    if (sizeof(T) == 8 && high == 0) { // the common case without the 128-bit division
        quotient = static_cast<T>(low / divisor);
        remainder = static_cast<T>(low % divisor);
        return true;
    }
    const U dividend = (static_cast<U>(high) << width<T>) | low;
    quotient = static_cast<T>(dividend / divisor);
    remainder = static_cast<T>(dividend % divisor);
    return true;
}

/// Signed; the quotient is rounded towards zero and the remainder has the dividend's sign.
template <Word T>
[[gnu::always_inline]] constexpr bool idiv(T high, T low, T divisor, T& quotient, T& remainder) {
    const bool negative = msb(high) != 0, divisor_negative = msb(divisor) != 0;
    T magnitude_high = high, magnitude_low = low;
    if (negative) {
        magnitude_low = static_cast<T>(0 - low);
        magnitude_high = static_cast<T>(~high + (low == 0));
    }
    const T magnitude = divisor_negative ? static_cast<T>(0 - divisor) : divisor;
    T q{}, r{};
    if (!div(magnitude_high, magnitude_low, magnitude, q, r)) return false;
    const T limit = static_cast<T>(T{1} << (width<T> - 1));
    const bool quotient_negative = negative != divisor_negative;
    if (quotient_negative ? q > limit : q >= limit) return false;
    quotient = quotient_negative ? static_cast<T>(0 - q) : q;
    remainder = negative ? static_cast<T>(0 - r) : r;
    return true;
}

// ---- Shifts and rotates: `count` as the instruction gives it, masked here
// -----------------------------------

template <Word T>
[[gnu::always_inline]] constexpr unsigned masked_count(unsigned count) {
    return count & (sizeof(T) == 8 ? 63 : 31);
}

template <Word T>
[[gnu::always_inline]] constexpr T shl(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    T r{};
    if constexpr (sizeof(T) == 8) {
        r = a << n;
        f.cf = static_cast<u8>((a >> (64 - n)) & 1);
    } else {
        const u64 wide = u64{a} << n;
        r = static_cast<T>(wide);
        f.cf = static_cast<u8>((wide >> width<T>)&1);
    }
    f.of = static_cast<u8>(msb(r) ^ f.cf);
    f.af = 0;
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T shr(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    const u64 before = u64{a} >> (n - 1); // all but the last step
    const T r = static_cast<T>(before >> 1);
    f.cf = static_cast<u8>(before & 1);
    f.of = static_cast<u8>((before >> (width<T> - 1)) & 1);
    f.af = 0;
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T sar(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    const i64 before = static_cast<i64>(static_cast<Signed<T>>(a)) >> (n - 1);
    const T r = static_cast<T>(before >> 1);
    f.cf = static_cast<u8>(before & 1);
    f.of = f.af = 0;
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T rol(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    const T r = std::rotl(a, static_cast<int>(n % width<T>));
    f.cf = static_cast<u8>(r & 1);
    f.of = static_cast<u8>(msb(r) ^ f.cf);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T ror(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    const T r = std::rotr(a, static_cast<int>(n % width<T>));
    f.cf = msb(r);
    f.of = static_cast<u8>(f.cf ^ ((r >> (width<T> - 2)) & 1));
    return r;
}

/// Rotates through CF: 9, 17, 33 or 65 bits. SDM 2B RCL: the count is also taken modulo 9 or 17.
template <Word T>
[[gnu::always_inline]] constexpr T rcl(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count) % (width<T> + 1);
    if (n == 0) return a;
    // Bit n-1 of the result is the old CF; below it come the bits that left at the top, from the second on.
    T r = static_cast<T>(static_cast<T>(f.cf) << (n - 1));
    if (n < width<T>) r = static_cast<T>(r | (a << n));
    if (n > 1) r = static_cast<T>(r | (a >> (width<T> + 1 - n)));
    f.cf = static_cast<u8>((a >> (width<T> - n)) & 1);
    f.of = static_cast<u8>(msb(r) ^ f.cf);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T rcr(Flags& f, T a, unsigned count) {
    const unsigned n = masked_count<T>(count) % (width<T> + 1);
    if (n == 0) return a;
    T r = static_cast<T>(static_cast<T>(f.cf) << (width<T> - n));
    if (n < width<T>) r = static_cast<T>(r | (a >> n));
    if (n > 1) r = static_cast<T>(r | (a << (width<T> + 1 - n)));
    f.cf = static_cast<u8>((a >> (n - 1)) & 1);
    f.of = static_cast<u8>(msb(r) ^ ((r >> (width<T> - 2)) & 1));
    return r;
}

/// 16, 32 and 64 bits only.
template <Word T>
[[gnu::always_inline]] constexpr T shld(Flags& f, T a, T b, unsigned count) {
    static_assert(sizeof(T) > 1);
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    T before{}; // all but the last step
    T r{};
    if constexpr (sizeof(T) == 2) {
        const u64 chain = (u64{a} << 32) | (u64{b} << 16) | a;
        before = static_cast<T>((chain << (n - 1)) >> 32);
        r = static_cast<T>((chain << n) >> 32);
    } else {
        before = n == 1 ? a : static_cast<T>((a << (n - 1)) | (b >> (width<T> + 1 - n)));
        r = static_cast<T>((a << n) | (b >> (width<T> - n)));
    }
    f.cf = msb(before);
    f.of = static_cast<u8>(msb(r) ^ f.cf);
    f.af = 0;
    set_result(f, r);
    return r;
}

template <Word T>
[[gnu::always_inline]] constexpr T shrd(Flags& f, T a, T b, unsigned count) {
    static_assert(sizeof(T) > 1);
    const unsigned n = masked_count<T>(count);
    if (n == 0) return a;
    T before{};
    T r{};
    if constexpr (sizeof(T) == 2) {
        const u64 chain = (u64{a} << 32) | (u64{b} << 16) | a;
        before = static_cast<T>(chain >> (n - 1));
        r = static_cast<T>(chain >> n);
    } else {
        before = n == 1 ? a : static_cast<T>((a >> (n - 1)) | (b << (width<T> + 1 - n)));
        r = static_cast<T>((a >> n) | (b << (width<T> - n)));
    }
    f.cf = static_cast<u8>(before & 1);
    f.of = static_cast<u8>(msb(r) ^ msb(before));
    f.af = 0;
    set_result(f, r);
    return r;
}

// ---- Bits ------------------------------------------------------------------------------------------------

/// BT: CF = bit `n` (taken modulo the width); no other flag changes.
template <Word T>
[[gnu::always_inline]] constexpr void bt(Flags& f, T a, unsigned n) {
    f.cf = static_cast<u8>((a >> (n % width<T>)) & 1);
}
template <Word T>
[[gnu::always_inline]] constexpr T bts(Flags& f, T a, unsigned n) {
    bt(f, a, n);
    return static_cast<T>(a | (T{1} << (n % width<T>)));
}
template <Word T>
[[gnu::always_inline]] constexpr T btr(Flags& f, T a, unsigned n) {
    bt(f, a, n);
    return static_cast<T>(a & ~(T{1} << (n % width<T>)));
}
template <Word T>
[[gnu::always_inline]] constexpr T btc(Flags& f, T a, unsigned n) {
    bt(f, a, n);
    return static_cast<T>(a ^ (T{1} << (n % width<T>)));
}

/// BSF: `old` is the destination's value, kept when the source is 0.
template <Word T>
[[gnu::always_inline]] constexpr T bsf(Flags& f, T old, T source) {
    f.zf_value = source;
    return source ? static_cast<T>(std::countr_zero(source)) : old;
}
template <Word T>
[[gnu::always_inline]] constexpr T bsr(Flags& f, T old, T source) {
    f.zf_value = source;
    return source ? static_cast<T>(static_cast<int>(width<T>) - 1 - std::countl_zero(source)) : old;
}
template <Word T>
[[gnu::always_inline]] constexpr T tzcnt(Flags& f, T source) {
    const T r = static_cast<T>(std::countr_zero(source));
    f.cf = source == 0;
    f.zf_value = r;
    return r;
}
template <Word T>
[[gnu::always_inline]] constexpr T lzcnt(Flags& f, T source) {
    const T r = static_cast<T>(std::countl_zero(source));
    f.cf = source == 0;
    f.zf_value = r;
    return r;
}
/// POPCNT clears every arithmetic flag but ZF.
template <Word T>
[[gnu::always_inline]] constexpr T popcnt(Flags& f, T source) {
    f.cf = f.of = f.af = 0;
    f.zf_value = source;
    f.sp_value = 1; // SF = 0, PF = 0
    return static_cast<T>(std::popcount(source));
}

// ---- Conditions ------------------------------------------------------------------------------------------

/// The condition `cc` of Jcc, SETcc and CMOVcc: the low four bits of their opcodes. SDM 1 App. B.
[[gnu::always_inline]] constexpr bool condition(const Flags& f, unsigned cc) {
    bool met = false;
    switch ((cc >> 1) & 7) {
    case 0: met = f.of; break;
    case 1: met = f.cf; break;
    case 2: met = f.zf(); break;
    case 3: met = f.cf || f.zf(); break;
    case 4: met = f.sf(); break;
    case 5: met = f.pf(); break;
    case 6: met = f.sf() != (f.of != 0); break;
    case 7: met = f.zf() || f.sf() != (f.of != 0); break;
    }
    return met != ((cc & 1) != 0);
}

} // namespace exeunt::alu
