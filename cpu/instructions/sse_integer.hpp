// Packed integer operations as pure functions: of lanes, then of vectors (8 bytes for MMX, 16 for XMM
// registers and each half of a YMM register). SDM 1 9.4 "MMX Instructions", 10.4.4, 11.4.2, 12.6 "SSSE3
// Instructions", 12.10 "SSE4.1 Instruction Set"; the "Operation" sections of the instruction reference.
#pragma once

#include "cpu/instructions/sse.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace exeunt::sse {

// ---- Of lanes
// --------------------------------------------------------------------------------------------------

template <class T>
constexpr T saturate(i32 value) {
    return static_cast<T>(
        std::clamp<i32>(value, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

inline constexpr auto add = [](auto a, auto b) { return static_cast<decltype(a)>(a + b); };
inline constexpr auto subtract = [](auto a, auto b) { return static_cast<decltype(a)>(a - b); };
inline constexpr auto add_saturated = [](auto a, auto b) { return saturate<decltype(a)>(a + b); };
inline constexpr auto subtract_saturated = [](auto a, auto b) { return saturate<decltype(a)>(a - b); };
inline constexpr auto average = [](auto a, auto b) { return static_cast<decltype(a)>((a + b + 1) >> 1); };
inline constexpr auto equal = [](auto a, auto b) { return static_cast<decltype(a)>(a == b ? -1 : 0); };
inline constexpr auto greater = [](auto a, auto b) { return static_cast<decltype(a)>(a > b ? -1 : 0); };
inline constexpr auto lesser_of = [](auto a, auto b) { return b < a ? b : a; };
inline constexpr auto greater_of = [](auto a, auto b) { return b > a ? b : a; };
inline constexpr auto multiply_low = [](auto a, auto b) { return static_cast<decltype(a)>(u64{a} * b); };
inline constexpr auto multiply_high = [](auto a, auto b) {
    using Wide = std::conditional_t<std::is_signed_v<decltype(a)>, i32, u32>;
    return static_cast<decltype(a)>((Wide{a} * Wide{b}) >> 16);
};
/// PMULHRSW: the product of two fractions, rounded.
inline constexpr auto multiply_high_rounded = [](i16 a, i16 b) {
    return static_cast<i16>(((i32{a} * b >> 14) + 1) >> 1);
};
/// PSIGNx: a, negated or cleared by the sign of b.
inline constexpr auto sign = [](auto a, auto b) {
    return static_cast<decltype(a)>(b == 0 ? 0 : b < 0 ? 0 - static_cast<u32>(a) : static_cast<u32>(a));
};
inline constexpr auto absolute = [](auto a) {
    return static_cast<decltype(a)>(a < 0 ? 0 - static_cast<u32>(a) : static_cast<u32>(a));
};
inline constexpr auto bit_and = [](u64 a, u64 b) { return a & b; };
inline constexpr auto bit_and_not = [](u64 a, u64 b) { return ~a & b; };
inline constexpr auto bit_or = [](u64 a, u64 b) { return a | b; };
inline constexpr auto bit_xor = [](u64 a, u64 b) { return a ^ b; };
/// PMULUDQ, PMULDQ: the low halves of quadwords.
inline constexpr auto multiply_doublewords = [](u64 a, u64 b) { return u64{low32(a)} * low32(b); };
inline constexpr auto multiply_signed_doublewords = [](u64 a, u64 b) {
    return static_cast<u64>(i64{static_cast<i32>(low32(a))} * static_cast<i32>(low32(b)));
};

// ---- Of vectors
// --------------------------------------------------------------------------------------------------

/// Lane i of the result is f(lanes 2i and 2i + 1), first of `a`, then of `b`.
template <class T, class V, class F>
constexpr V horizontal(const V& a, const V& b, F f) {
    const auto x = split<T>(a), y = split<T>(b);
    auto r = x;
    constexpr std::size_t half = r.size() / 2;
    for (unsigned i = 0; i < half; ++i) {
        r[i] = f(x[2 * i], x[2 * i + 1]);
        r[half + i] = f(y[2 * i], y[2 * i + 1]);
    }
    return join(r);
}

template <class T, class V>
constexpr V horizontal_add(const V& a, const V& b) {
    return horizontal<T>(a, b, add);
}
template <class T, class V>
constexpr V horizontal_add_saturated(const V& a, const V& b) {
    return horizontal<T>(a, b, add_saturated);
}
template <class T, class V>
constexpr V horizontal_subtract(const V& a, const V& b) {
    return horizontal<T>(a, b, subtract);
}
template <class T, class V>
constexpr V horizontal_subtract_saturated(const V& a, const V& b) {
    return horizontal<T>(a, b, subtract_saturated);
}

template <class V>
constexpr V multiply_add_words(const V& a, const V& b) { // PMADDWD
    const auto x = split<i16>(a), y = split<i16>(b);
    Lanes<u32, V::bytes> r{};
    for (unsigned i = 0; i < r.size(); ++i) {
        const i32 low = i32{x[2 * i]} * y[2 * i], high = i32{x[2 * i + 1]} * y[2 * i + 1];
        r[i] = static_cast<u32>(low) + static_cast<u32>(high);
    }
    return join(r);
}

template <class V>
constexpr V multiply_add_bytes(const V& a, const V& b) { // PMADDUBSW: a unsigned, b signed
    const auto x = split<u8>(a);
    const auto y = split<i8>(b);
    Lanes<i16, V::bytes> r{};
    for (unsigned i = 0; i < r.size(); ++i)
        r[i] = saturate<i16>(x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]);
    return join(r);
}

template <class V>
constexpr V sum_of_differences(const V& a, const V& b) { // PSADBW
    const auto x = split<u8>(a), y = split<u8>(b);
    V r;
    for (unsigned i = 0; i < V::bytes; ++i)
        r.q[i / 8] += static_cast<u64>(x[i] > y[i] ? x[i] - y[i] : y[i] - x[i]);
    return r;
}

/// PSHUFB: each byte of `b` chooses a byte of `a`, or zero.
template <class V>
constexpr V shuffle_bytes(const V& a, const V& b) {
    const auto x = split<u8>(a), control = split<u8>(b);
    Lanes<u8, V::bytes> r{};
    for (unsigned i = 0; i < V::bytes; ++i) r[i] = control[i] & 0x80 ? u8{0} : x[control[i] & (V::bytes - 1)];
    return join(r);
}

/// PACKxSxx: the lanes of `a`, then of `b`, saturated to half their width.
template <class From, class To, class V>
constexpr V pack(const V& a, const V& b) {
    const auto x = split<From>(a), y = split<From>(b);
    Lanes<To, V::bytes> r{};
    for (unsigned i = 0; i < x.size(); ++i) {
        r[i] = saturate<To>(x[i]);
        r[x.size() + i] = saturate<To>(y[i]);
    }
    return join(r);
}

/// PUNPCKLxx, PUNPCKHxx: lanes of the low or high halves, in turns.
template <class T, bool high, class V>
constexpr V unpack(const V& a, const V& b) {
    const auto x = split<T>(a), y = split<T>(b);
    auto r = x;
    constexpr std::size_t from = high ? r.size() / 2 : 0;
    for (unsigned i = 0; i < r.size() / 2; ++i) {
        r[2 * i] = x[from + i];
        r[2 * i + 1] = y[from + i];
    }
    return join(r);
}

/// PALIGNR: `b` below `a`, shifted right by `count` bytes.
template <class V>
constexpr V align_right(const V& a, const V& b, u8 count) {
    const auto x = split<u8>(a), y = split<u8>(b);
    Lanes<u8, V::bytes> r{};
    for (unsigned i = 0; i < V::bytes; ++i) {
        const unsigned from = i + count;
        r[i] = from < V::bytes ? y[from] : from < 2 * V::bytes ? x[from - V::bytes] : u8{0};
    }
    return join(r);
}

/// Each lane of the result is chosen by two bits of `order`, among four lanes from `first` on; others are
/// copied.
template <class T, class V>
constexpr V shuffle_four(const V& a, u8 order, unsigned first) {
    const auto x = split<T>(a);
    auto r = x;
    for (unsigned i = 0; i < 4; ++i) r[first + i] = x[first + ((order >> (2 * i)) & 3)];
    return join(r);
}
constexpr u64 choose_doubleword(const Xmm& a, unsigned i) {
    return low32((i & 2 ? a.q[1] : a.q[0]) >> (i & 1 ? 32 : 0));
}

constexpr Xmm shuffle_doublewords(const Xmm& a, u8 order) {
    return {{choose_doubleword(a, order) | choose_doubleword(a, order >> 2) << 32,
             choose_doubleword(a, order >> 4) | choose_doubleword(a, order >> 6) << 32}};
}
constexpr Xmm shuffle_low_words(const Xmm& a, u8 order) { return shuffle_four<u16>(a, order, 0); }
constexpr Xmm shuffle_high_words(const Xmm& a, u8 order) { return shuffle_four<u16>(a, order, 4); }

constexpr Xmm shuffle_singles(const Xmm& a, const Xmm& b, u8 order) { // SHUFPS
    const auto x = split<u32>(a), y = split<u32>(b);
    return join(std::array<u32, 4>{x[order & 3], x[order >> 2 & 3], y[order >> 4 & 3], y[order >> 6]});
}
constexpr Xmm shuffle_doubles(const Xmm& a, const Xmm& b, u8 order) { // SHUFPD
    return {{a.q[order & 1], b.q[order >> 1 & 1]}};
}

/// BLENDVPS, BLENDVPD, PBLENDVB: the sign of a mask's lane chooses the lane of `b`.
template <class T>
constexpr Xmm blend_by_sign(const Xmm& a, const Xmm& b, const Xmm& mask) {
    auto r = split<T>(a);
    const auto y = split<T>(b), m = split<T>(mask);
    for (unsigned i = 0; i < r.size(); ++i)
        if (m[i] >> (8 * sizeof(T) - 1)) r[i] = y[i];
    return join(r);
}
/// BLENDPS, BLENDPD, PBLENDW: bit i chooses lane i of `b`.
template <class T>
constexpr Xmm blend(const Xmm& a, const Xmm& b, u8 choice) {
    auto r = split<T>(a);
    const auto y = split<T>(b);
    for (unsigned i = 0; i < r.size(); ++i)
        if (choice >> i & 1) r[i] = y[i];
    return join(r);
}

/// MPSADBW: sums of absolute differences of four bytes of `b` with eight windows of `a`.
constexpr Xmm multiple_sums_of_differences(const Xmm& a, const Xmm& b, u8 select) {
    const auto x = split<u8>(a), y = split<u8>(b);
    const unsigned window = (select >> 2 & 1) * 4, block = (select & 3) * 4;
    std::array<u16, 8> r{};
    for (unsigned i = 0; i < 8; ++i)
        for (unsigned k = 0; k < 4; ++k)
            r[i] = static_cast<u16>(r[i] + std::abs(i32{x[window + i + k]} - y[block + k]));
    return join(r);
}

/// PHMINPOSUW: the least word, and where it is first.
constexpr Xmm least_word(const Xmm& a) {
    const auto x = split<u16>(a);
    const auto least = std::min_element(x.begin(), x.end());
    return {{u64{*least} | static_cast<u64>(least - x.begin()) << 16, 0}};
}

/// PMOVSXxx, PMOVZXxx: the lowest lanes, as many as the result has, sign- or zero-extended.
template <class From, class To, class V>
constexpr V extend(const V& a) {
    Lanes<To, V::bytes> r{};
    for (unsigned i = 0; i < r.size(); ++i) r[i] = static_cast<To>(static_cast<From>(lane<From>(a, i)));
    return join(r);
}

// Shifts: a count above the lane's width gives zero, or copies of the sign.
template <class T>
inline constexpr auto shift_left =
    [](T a, u64 count) { return count < 8 * sizeof(T) ? static_cast<T>(a << count) : T{0}; };
template <class T>
inline constexpr auto shift_right =
    [](T a, u64 count) { return count < 8 * sizeof(T) ? static_cast<T>(a >> count) : T{0}; };
template <class T>
inline constexpr auto shift_right_arithmetic = [](T a, u64 count) {
    using Signed = std::make_signed_t<T>;
    return static_cast<T>(static_cast<Signed>(a) >> (count < 8 * sizeof(T) ? count : 8 * sizeof(T) - 1));
};

constexpr Xmm shift_bytes_left(const Xmm& a, u8 count) {
    return align_right(a, Xmm{}, count < 16 ? static_cast<u8>(16 - count) : u8{0});
}
constexpr Xmm shift_bytes_right(const Xmm& a, u8 count) { return align_right(Xmm{}, a, count); }

} // namespace exeunt::sse
