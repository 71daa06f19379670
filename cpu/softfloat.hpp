// IEEE 754 arithmetic as SSE does it, in integer arithmetic: the definition of what floating-point
// instructions compute, the same on every native machine. A value is its bits: u32 for single, u64 for double
// precision. SDM 1 4.8.3 "Real Number and Non-number Encodings", Table 4-7 (which NaN an operation
// gives), 4.9 "Overview of Floating-Point Exceptions", 10.2.3 "MXCSR Control and Status Register", 11.5 "SSE,
// SSE2, and SSE3 Exceptions", 14.4 half precision (conversions only), 14.5 fused multiply-add. x87 has
// arithmetic of its own.
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// SDM 1 10.2.3 "MXCSR Control and Status Register".
namespace MXCSR {
inline constexpr u32 IE = 1 << 0, DE = 1 << 1, ZE = 1 << 2, OE = 1 << 3, UE = 1 << 4, PE = 1 << 5,
                     DAZ = 1 << 6, IM = 1 << 7, DM = 1 << 8, ZM = 1 << 9, OM = 1 << 10, UM = 1 << 11,
                     PM = 1 << 12, RC = 3 << 13, FZ = 1 << 15;
inline constexpr u32 flags = IE | DE | ZE | OE | UE | PE;
/// What is found before anything is computed; the other flags come out of the result.
inline constexpr u32 pre_computation = IE | DE | ZE;
inline constexpr u32 masks = flags << 7;
inline constexpr u32 at_reset = masks;
/// The bits that exist (MXCSR_MASK of FXSAVE); setting another is #GP(0).
inline constexpr u32 all = 0xFFFF;
} // namespace MXCSR

} // namespace exeunt

namespace exeunt::softfloat {

/// MXCSR.RC. SDM 1 Table 4-8.
enum class Rounding : u8 { nearest = 0, down = 1, up = 2, zero = 3 };

/// What one instruction's arithmetic is steered by, and the exceptions that it found.
struct Environment {
    u32 mxcsr = MXCSR::at_reset;
    u32 raised = 0; ///< MXCSR flags

    constexpr Rounding rounding() const { return static_cast<Rounding>((mxcsr >> 13) & 3); }
    constexpr bool daz() const { return mxcsr & MXCSR::DAZ; }
    /// Flushing to zero is the masked response to underflow: it is off while underflow is not masked.
    constexpr bool flush_to_zero() const {
        return (mxcsr & (MXCSR::FZ | MXCSR::UM)) == (MXCSR::FZ | MXCSR::UM);
    }
    constexpr bool masked(u32 flag) const { return mxcsr & (flag << 7); }
    /// The exceptions found so far that are not masked.
    constexpr u32 unmasked() const { return raised & ~(mxcsr >> 7); }
    constexpr void raise(u32 flag) { raised |= flag; }
};

template <class T>
struct Format;
template <>
struct Format<u16> { // half precision: only converted
    static constexpr unsigned fraction_bits = 10, exponent_bits = 5;
    static constexpr int bias = 15;
};
template <>
struct Format<u32> {
    using Native = float;
    static constexpr unsigned fraction_bits = 23, exponent_bits = 8;
    static constexpr int bias = 127;
};
template <>
struct Format<u64> {
    using Native = double;
    static constexpr unsigned fraction_bits = 52, exponent_bits = 11;
    static constexpr int bias = 1023;
};

template <class T>
inline constexpr T sign_bit = static_cast<T>(T{1} << (8 * sizeof(T) - 1));
template <class T>
inline constexpr T fraction_mask = static_cast<T>((T{1} << Format<T>::fraction_bits) - 1);
template <class T>
inline constexpr T infinity = static_cast<T>(sign_bit<T> - (T{1} << Format<T>::fraction_bits));
template <class T>
inline constexpr T quiet_bit = static_cast<T>(T{1} << (Format<T>::fraction_bits - 1));
/// The QNaN floating-point indefinite.
template <class T>
inline constexpr T default_nan = static_cast<T>(sign_bit<T> | infinity<T> | quiet_bit<T>);

template <class T>
constexpr T magnitude(T a) {
    return static_cast<T>(a & ~sign_bit<T>);
}
template <class T>
constexpr bool is_negative(T a) {
    return a & sign_bit<T>;
}
template <class T>
constexpr bool is_nan(T a) {
    return magnitude(a) > infinity<T>;
}
template <class T>
constexpr bool is_signaling(T a) {
    return is_nan(a) && !(a & quiet_bit<T>);
}
template <class T>
constexpr bool is_infinite(T a) {
    return magnitude(a) == infinity<T>;
}
template <class T>
constexpr bool is_zero(T a) {
    return magnitude(a) == 0;
}
template <class T>
constexpr bool is_denormal(T a) {
    return static_cast<T>(magnitude(a) - 1) < fraction_mask<T>;
}
/// The biased exponent.
template <class T>
constexpr unsigned exponent_field(T a) {
    return static_cast<unsigned>(magnitude(a) >> Format<T>::fraction_bits);
}

// ---- Arithmetic (T is u32 or u64)
// ------------------------------------------------------------------------------
template <class T>
T add(T a, T b, Environment& e);
template <class T>
T subtract(T a, T b, Environment& e);
template <class T>
T multiply(T a, T b, Environment& e);
template <class T>
T divide(T a, T b, Environment& e);
template <class T>
T square_root(T a, Environment& e);
/// a * b + c, rounded once; the product, the addend or both with their signs changed.
template <class T>
T fuse(T a, T b, T c, bool negate_product, bool negate_addend, Environment& e);
/// MINPS and its like: of two zeros, and when either is a NaN, the second operand.
template <class T>
T minimum(T a, T b, Environment& e);
template <class T>
T maximum(T a, T b, Environment& e);

enum class Relation : u8 { less, equal, greater, unordered };
/// `signals_quiet`: a QNaN is an invalid operand, too.
template <class T>
Relation compare(T a, T b, bool signals_quiet, Environment& e);

// ---- Conversions
// -----------------------------------------------------------------------------------------------
/// To a signed integer of 32 or 64 bits; the integer indefinite where it does not fit.
template <class Integer, class T>
Integer to_integer(T a, Rounding rounding, Environment& e);
template <class T>
T from_integer(i64 value, Environment& e);
u64 widen(u32 a, Environment& e);  ///< single to double precision
u32 narrow(u64 a, Environment& e); ///< double to single precision
u32 widen_half(u16 a, Environment& e);
u16 narrow_to_half(u32 a, Environment& e);
/// ROUNDPS and its like. `exact`: MXCSR.PE is not set.
template <class T>
T round_to_integral(T a, Rounding rounding, bool exact, Environment& e);

// ---- Approximations
// --------------------------------------------------------------------------------------------
/// RCPPS, RSQRTPS: no exceptions, no rounding control. SDM 1 10.4.1.2 bounds the relative error by 1.5 *
/// 2^-12; within it every processor has its own table. Ours is defined by one rule, see
/// softfloat_approximations.cpp.
u32 reciprocal(u32 a);
u32 reciprocal_square_root(u32 a);

} // namespace exeunt::softfloat
