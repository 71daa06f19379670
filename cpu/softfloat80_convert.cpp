// Conversions between the 80-bit format and single and double precision, integers and packed BCD, and
// rounding to an integer. SDM 1 4.8.4 "Rounding", 4.9.1.4 and 4.9.1.5 (overflow, underflow), Table 8-10
// (masked responses to invalid operations); SDM 2A FLD, FST, FILD, FIST, FBLD, FBSTP, FRNDINT.
#include "cpu/softfloat80_parts.hpp"

namespace exeunt::softfloat80 {

namespace {

using softfloat::Format;

template <class T>
inline constexpr unsigned fraction_bits = Format<T>::fraction_bits;

template <class T>
constexpr T signed_bits(bool negative, T magnitude) {
    return static_cast<T>((negative ? softfloat::sign_bit<T> : T{0}) | magnitude);
}

template <class T>
T narrow_overflow(bool negative, Environment& e) {
    e.raise(FSW::OE);
    if (!e.masked(FSW::OE)) return 0; // nothing is stored
    e.raise(FSW::PE);
    const Rounding rounding = e.rounding();
    e.up = rounding == Rounding::nearest || rounding == (negative ? Rounding::down : Rounding::up);
    return signed_bits<T>(negative,
                          e.up ? softfloat::infinity<T> : static_cast<T>(softfloat::infinity<T> - 1));
}

template <class T>
T narrow_number(const Number& n, Environment& e) {
    constexpr unsigned precision = fraction_bits<T> + 1, drop = 64 - precision;
    const u128 significand = u128{n.significand} << 64;
    const Rounded r = round(significand, precision, n.negative, e.rounding());
    const int field = n.exponent + r.carry + Format<T>::bias;
    if (field >= (1 << Format<T>::exponent_bits) - 1) return narrow_overflow<T>(n.negative, e);
    if (field < 1) {
        if (!e.masked(FSW::UE)) {
            e.raise(FSW::UE);
            return 0;
        }
        const unsigned shift = static_cast<unsigned>(1 - Format<T>::bias - n.exponent);
        const Rounded d = round(shift_right_sticky(significand, shift), precision, n.negative, e.rounding());
        if (d.inexact) e.raise(FSW::UE | FSW::PE);
        e.up = d.up;
        return signed_bits<T>(n.negative, static_cast<T>(d.significand >> drop)); // a carry makes it normal
    }
    if (r.inexact) e.raise(FSW::PE);
    e.up = r.up;
    const T fraction = static_cast<T>((r.significand & ~integer_bit) >> drop);
    return signed_bits<T>(n.negative, static_cast<T>(static_cast<T>(field) << fraction_bits<T> | fraction));
}

} // namespace

template <class T>
Extended widen(T a, Environment& e) {
    const bool negative = softfloat::is_negative(a);
    const unsigned field = softfloat::exponent_field(a);
    const u64 fraction = u64{static_cast<T>(a & softfloat::fraction_mask<T>)} << (63 - fraction_bits<T>);
    constexpr unsigned all_ones = (1u << Format<T>::exponent_bits) - 1;
    if (field != 0 && field != all_ones) [[likely]]
        return packed(negative, static_cast<int>(field) - Format<T>::bias, fraction | integer_bit);
    if (field == all_ones) return {fraction | integer_bit, static_cast<u16>(negative ? 0xFFFF : 0x7FFF)};
    if (fraction == 0) return zero(negative);
    e.denormal_source = true;
    const int shift = std::countl_zero(fraction);
    return packed(negative, 1 - Format<T>::bias - shift, fraction << shift);
}

template <class T>
Extended load(T a, Environment& e) {
    const Extended value = widen(a, e);
    if (e.denormal_source) e.raise(FSW::DE);
    if (kind(value) != Kind::signaling_nan) return value;
    e.raise(FSW::IE);
    return quieted(value);
}

template <class T>
T narrow(const Extended& a, Environment& e) {
    const Kind k = kind(a);
    if (k == Kind::finite || k == Kind::denormal) [[likely]]
        return narrow_number<T>(unpack(a), e);
    if (k == Kind::unsupported) {
        e.raise(FSW::IE);
        return softfloat::default_nan<T>;
    }
    const bool negative = is_negative(a);
    if (k == Kind::zero) return signed_bits<T>(negative, 0);
    if (k == Kind::infinity) return signed_bits<T>(negative, softfloat::infinity<T>);
    if (k == Kind::signaling_nan) e.raise(FSW::IE);
    const T fraction = static_cast<T>((a.significand & ~integer_bit) >> (63 - fraction_bits<T>));
    return signed_bits<T>(negative,
                          static_cast<T>(softfloat::infinity<T> | softfloat::quiet_bit<T> | fraction));
}

template Extended widen(u32, Environment&);
template Extended widen(u64, Environment&);
template Extended load(u32, Environment&);
template Extended load(u64, Environment&);
template u32 narrow(const Extended&, Environment&);
template u64 narrow(const Extended&, Environment&);

// ---- Integers ---------------------------------------------------------------------------------------------

Extended from_integer(i64 value) {
    if (value == 0) return zero(false);
    const bool negative = value < 0;
    const u64 magnitude = negative ? u64{0} - static_cast<u64>(value) : static_cast<u64>(value);
    const int shift = std::countl_zero(magnitude);
    return packed(negative, 63 - shift, magnitude << shift);
}

namespace {

/// The magnitude rounded to an integer. False: it is 2^64 or more.
bool round_magnitude(const Number& n, Rounding rounding, Environment& e, u64& magnitude) {
    if (n.exponent > 63) return false;
    // A number below 1/2 counts as a quarter of one.
    const u128 fixed = n.exponent < -1 ? u128{1} << 62 : u128{n.significand} << 64 >> (63 - n.exponent);
    const u64 rest = static_cast<u64>(fixed);
    magnitude = static_cast<u64>(fixed >> 64);
    const bool up = rounds_up(magnitude & 1, rest >> 63, rest << 1 != 0, n.negative, rounding);
    if (up && magnitude == ~u64{0}) return false;
    magnitude += up;
    if (rest != 0) e.raise(FSW::PE);
    e.up = up;
    return true;
}

} // namespace

i64 to_integer(const Extended& a, unsigned bits, Rounding rounding, Environment& e) {
    const Kind k = kind(a);
    const u64 limit = u64{1} << (bits - 1);
    const i64 indefinite = static_cast<i64>(u64{0} - limit);
    if (k == Kind::zero) return 0;
    if (k != Kind::finite && k != Kind::denormal) {
        e.raise(FSW::IE);
        return indefinite;
    }
    const Number n = unpack(a);
    Environment trial = e;
    u64 magnitude = 0;
    if (!round_magnitude(n, rounding, trial, magnitude) || magnitude > limit - !n.negative) {
        e.raise(FSW::IE);
        return indefinite;
    }
    e = trial;
    return static_cast<i64>(n.negative ? u64{0} - magnitude : magnitude);
}

Extended round_to_integral(const Extended& a, Environment& e) {
    const Kind k = kind(a);
    Extended result;
    if (not_a_number(a, k, e, result)) return result;
    if (!accept(k, e)) return default_nan;
    if (k == Kind::zero || k == Kind::infinity) return a;
    const Number n = unpack(a);
    if (n.exponent >= 63) return a;
    u64 magnitude = 0;
    round_magnitude(n, e.rounding(), e, magnitude);
    if (magnitude == 0) return zero(n.negative);
    const int shift = std::countl_zero(magnitude);
    return packed(n.negative, 63 - shift, magnitude << shift);
}

// ---- Packed BCD -------------------------------------------------------------------------------------------

Extended from_decimal(const PackedDecimal& digits) {
    u64 value = 0;
    for (unsigned i = 9; i-- > 0;) value = value * 100 + (digits.byte[i] >> 4) * 10u + (digits.byte[i] & 15);
    Extended result = from_integer(static_cast<i64>(value));
    if (digits.byte[9] & 0x80) result.sign_exponent |= sign_bit;
    return result;
}

PackedDecimal to_decimal(const Extended& a, Environment& e) {
    static constexpr PackedDecimal indefinite{{0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF}};
    static constexpr u64 limit = 1'000'000'000'000'000'000;
    const Kind k = kind(a);
    PackedDecimal result;
    result.byte[9] = is_negative(a) ? 0x80 : 0;
    if (k == Kind::zero) return result;
    Environment trial = e;
    u64 magnitude = 0;
    if ((k != Kind::finite && k != Kind::denormal) ||
        !round_magnitude(unpack(a), e.rounding(), trial, magnitude) || magnitude >= limit) {
        e.raise(FSW::IE);
        return indefinite;
    }
    e = trial;
    for (unsigned i = 0; i < 9; ++i) {
        const unsigned pair = static_cast<unsigned>(magnitude % 100);
        result.byte[i] = static_cast<u8>(pair / 10 << 4 | pair % 10);
        magnitude /= 100;
    }
    return result;
}

} // namespace exeunt::softfloat80
