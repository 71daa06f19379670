// Arithmetic of the x87 FPU in the 80-bit format (double extended precision), in integers: the definition of
// what x87 instructions compute, the same on every native machine. SDM 1 4.2.2 "Floating-Point Data Types",
// Table 8-3 "Unsupported Double Extended-Precision Floating-Point Encodings and Pseudo-Denormals", 4.8
// and 8.1.5.2, 8.1.5.3 (precision and rounding control), 4.9 and 8.5 (exceptions and the responses to them).
//
// Every function raises what it found in its Environment, whether masked or not. When an unmasked #IA, #D or
// #Z was raised (Environment::stops), the result means nothing and the instruction must not store it; after
// an unmasked #O or #U the result is the one with the adjusted exponent, for a register, and not to be stored
// in memory.
#pragma once

#include "cpu/softfloat.hpp"
#include "cpu/state.hpp"
#include "cpu/x87_words.hpp"

namespace exeunt::softfloat80 {

using Extended = X87Register;
using softfloat::Relation;
using softfloat::Rounding;

struct Environment {
    u16 control = FCW::at_reset;
    u16 raised = 0;               ///< flags of the status word
    bool up = false;              ///< C1: the last rounding increased the magnitude
    bool denormal_source = false; ///< an operand from memory is a denormal of its own format

    constexpr Rounding rounding() const { return static_cast<Rounding>((control >> 10) & 3); }
    /// Bits of the significand that addition, subtraction, multiplication, division and square root round to.
    constexpr unsigned precision() const {
        const unsigned pc = (control >> 8) & 3;
        return pc == 0 ? 24 : pc == 2 ? 53 : 64;
    }
    constexpr bool masked(u16 flag) const { return control & flag; }
    constexpr u16 unmasked() const { return static_cast<u16>(raised & ~control & FSW::exceptions); }
    constexpr bool stops() const { return unmasked() & FSW::pre_computation; }
    constexpr void raise(u16 flags) { raised = static_cast<u16>(raised | flags); }
};

inline constexpr u16 sign_bit = 0x8000, exponent_mask = 0x7FFF;
inline constexpr int bias = 16383;
inline constexpr u64 integer_bit = u64{1} << 63, quiet_bit = u64{1} << 62;
inline constexpr Extended default_nan{integer_bit | quiet_bit,
                                      0xFFFF}; ///< the QNaN floating-point indefinite
inline constexpr Extended one{integer_bit, bias};

constexpr Extended zero(bool negative) { return {0, negative ? sign_bit : u16{0}}; }
constexpr Extended infinity(bool negative) {
    return {integer_bit, static_cast<u16>(negative ? 0xFFFF : 0x7FFF)};
}
constexpr bool is_negative(const Extended& a) { return a.sign_exponent & sign_bit; }
constexpr unsigned exponent_field(const Extended& a) { return a.sign_exponent & exponent_mask; }

enum class Kind : u8 { zero, finite, denormal, infinity, quiet_nan, signaling_nan, unsupported };

constexpr Kind kind(const Extended& a) {
    const unsigned field = exponent_field(a);
    if (field == 0) return a.significand == 0 ? Kind::zero : Kind::denormal; // pseudo-denormals are denormals
    if (!(a.significand & integer_bit)) return Kind::unsupported; // unnormal, pseudo-NaN, pseudo-infinity
    if (field != exponent_mask) return Kind::finite;
    if (a.significand << 1 == 0) return Kind::infinity;
    return a.significand & quiet_bit ? Kind::quiet_nan : Kind::signaling_nan;
}
constexpr bool is_nan(Kind k) { return k == Kind::quiet_nan || k == Kind::signaling_nan; }

// ---- Arithmetic: rounding and precision control apply -----------------------------------------------------
Extended add(const Extended& a, const Extended& b, Environment& e);
Extended subtract(const Extended& a, const Extended& b, Environment& e);
Extended multiply(const Extended& a, const Extended& b, Environment& e);
Extended divide(const Extended& a, const Extended& b, Environment& e);
Extended square_root(const Extended& a, Environment& e);

// ---- Without precision control ----------------------------------------------------------------------------
Extended round_to_integral(const Extended& a, Environment& e);
/// a * 2^(b rounded towards zero).
Extended scale(const Extended& a, const Extended& b, Environment& e);
/// FXTRACT: the exponent of `a` as a number, and its significand with the exponent 0.
struct Extracted {
    Extended exponent, significand;
};
Extracted extract_exponent(const Extended& a, Environment& e);
/// FPREM and FPREM1.
struct Remainder {
    Extended value;
    unsigned quotient = 0; ///< its low three bits
    bool partial = false;  ///< the reduction is not complete (C2), and `quotient` is 0
    bool numbers = false;  ///< neither NaN nor invalid operation: there is a quotient
};
Remainder remainder(const Extended& a, const Extended& b, bool to_nearest, Environment& e);
/// `signals_quiet`: a QNaN is an invalid operand, too (FCOM, not FUCOM).
Relation compare(const Extended& a, const Extended& b, bool signals_quiet, Environment& e);

// ---- Conversions (T is u32 or u64, a single or double precision number) -----------------------------------
/// The value itself; a signaling NaN stays one. Notes a denormal in `denormal_source`.
template <class T>
Extended widen(T a, Environment& e);
/// FLD: as above, but with the exceptions of a conversion.
template <class T>
Extended load(T a, Environment& e);
template <class T>
T narrow(const Extended& a, Environment& e);
Extended from_integer(i64 value);
/// To a signed integer of 16, 32 or 64 bits; the integer indefinite where it does not fit.
i64 to_integer(const Extended& a, unsigned bits, Rounding rounding, Environment& e);
/// Packed BCD: 18 digits, the least significant first, and the sign in bit 7 of byte 9. SDM 1 4.7.
struct PackedDecimal {
    u8 byte[10] = {};
};
Extended from_decimal(const PackedDecimal& digits);
PackedDecimal to_decimal(const Extended& a, Environment& e);

// ---- Transcendental functions, correctly rounded (cpu/softfloat80_transcendental.cpp) ------------------------
Extended two_to_x_minus_1(const Extended& x, Environment& e);                   ///< F2XM1
Extended y_log2_x(const Extended& y, const Extended& x, Environment& e);        ///< FYL2X
Extended y_log2_x_plus_1(const Extended& y, const Extended& x, Environment& e); ///< FYL2XP1
Extended arctangent(const Extended& y, const Extended& x, Environment& e);      ///< FPATAN
/// `out_of_range`: |x| >= 2^63; nothing was computed (C2).
struct Trigonometric {
    Extended sine, cosine; ///< Function::tangent: the tangent, and what FPTAN pushes
    bool out_of_range = false;
};
enum class Function : u8 { sine, cosine, both, tangent };
Trigonometric trigonometric(const Extended& x, Function what, Environment& e);

} // namespace exeunt::softfloat80
