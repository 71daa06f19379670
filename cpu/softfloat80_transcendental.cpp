// Transcendental functions of the x87 FPU, correctly rounded to 64 bits for every rounding control. SDM
// 1 8.3.8 "Approximation of Pi", 8.3.10 "Transcendental Instruction Accuracy"; SDM 2A F2XM1, FYL2X, FYL2XP1,
// FPATAN, FSIN, FCOS, FSINCOS, FPTAN.
//
// Processors give results within 1 ulp of these (1.5 ulps when not rounding to nearest). As on processors,
// FSIN, FCOS, FSINCOS and FPTAN reduce their argument with a pi of 66 bits, so that of a large argument the
// result is not that of the mathematical function. Precision control has no effect. Outside the domains that
// the manual gives, where it leaves the result undefined, F2XM1 returns its argument and FYL2XP1 an invalid
// operation for x <= -1, otherwise the value of the function.
#include "cpu/softfloat80_fixed.hpp"

#define MPFR_USE_INTMAX_T
#include <mpfr.h>

namespace exeunt::softfloat80 {

namespace {

/// The bits that are handed to rounding; what lies beyond them is one sticky bit.
constexpr mpfr_prec_t kept = 100;

class Real {
public:
    explicit Real(mpfr_prec_t precision) { mpfr_init2(value_, precision); }
    ~Real() { mpfr_clear(value_); }
    Real(const Real&) = delete;
    Real& operator=(const Real&) = delete;
    operator mpfr_ptr() { return value_; }
    operator mpfr_srcptr() const { return value_; }

private:
    mpfr_t value_;
};

/// Exactly, where the precision of `to` allows.
void assign(Real& to, const Number& n) {
    mpfr_set_uj_2exp(to, n.significand, n.exponent - 63, MPFR_RNDZ);
    if (n.negative) mpfr_neg(to, to, MPFR_RNDZ);
}

/// Rounds a value of `kept` bits that was rounded towards zero; `inexact`: not all of it is there.
Extended rounded(Real& value, bool inexact, Environment& e) {
    // The significand as MPFR stores it: the leading bit is set, the least significant limb comes first.
    static constexpr unsigned limb_bits = 8 * sizeof(mp_limb_t);
    const auto* limb = static_cast<const mp_limb_t*>(mpfr_custom_get_significand(value));
    u128 significand = 0;
    for (unsigned i = 128 / limb_bits; i-- > 0;)
        significand = significand << limb_bits / 2 << limb_bits / 2 | limb[i];
    return pack(mpfr_signbit(value) != 0, static_cast<int>(mpfr_get_exp(value)) - 1, significand | inexact,
                64, e);
}

/// `compute(value)` gives an irrational number with a relative error below 2^(6 - its precision); it is
/// repeated with more bits until they decide.
template <class Compute>
Extended irrational(Compute compute, Environment& e) {
    // Two limbs at first, which is where MPFR is fastest: once in four million times they do not decide.
    for (mpfr_prec_t precision = 128;; precision *= 2) {
        Real value(precision);
        compute(value);
        if (!mpfr_can_round(value, precision - 6, MPFR_RNDN, MPFR_RNDZ, kept)) continue;
        mpfr_prec_round(value, kept, MPFR_RNDZ);
        return rounded(value, true, e);
    }
}

bool power_of_two(const Number& n) { return n.significand == integer_bit; }

/// y * k, for an integer k.
Extended times(const Number& y, int k, Environment& e) {
    const Number n = unpack(from_integer(k));
    return normalize_and_pack(y.negative != n.negative, y.exponent + n.exponent + 1,
                              u128{y.significand} * n.significand, 64, e);
}

} // namespace

Extended two_to_x_minus_1(const Extended& x, Environment& e) {
    const Kind k = kind(x);
    Extended result;
    if (not_a_number(x, k, e, result)) return result;
    if (!accept(k, e)) return default_nan;
    if (k == Kind::zero) return x;
    if (k == Kind::infinity) return is_negative(x) ? packed(true, 0, integer_bit) : x;
    const Number n = unpack(x);
    if (n.exponent >= 0)
        return n.negative && n.exponent == 0 && power_of_two(n) ? packed(true, -1, integer_bit) : x;
    return irrational(
        [&](Real& value) {
            Real log2(mpfr_get_prec(value));
            assign(value, n);
            mpfr_const_log2(log2, MPFR_RNDN);
            mpfr_mul(value, value, log2, MPFR_RNDN);
            mpfr_expm1(value, value, MPFR_RNDN);
        },
        e);
}

Extended y_log2_x(const Extended& y, const Extended& x, Environment& e) {
    const Kind ky = kind(y), kx = kind(x);
    Extended result;
    if (not_a_number(y, ky, x, kx, e, result)) return result;
    if (is_negative(x) && kx != Kind::zero) return invalid(e);
    const bool is_one = x.significand == one.significand && x.sign_exponent == one.sign_exponent;
    const bool below_one = exponent_field(x) < static_cast<unsigned>(bias);
    if ((ky == Kind::zero && (kx == Kind::zero || kx == Kind::infinity)) || (ky == Kind::infinity && is_one))
        return invalid(e);
    if (kx == Kind::zero && ky != Kind::infinity) {
        e.raise(FSW::ZE);
        return infinity(!is_negative(y));
    }
    if (!accept(ky, kx, e)) return default_nan;
    const bool negative = is_negative(y) != below_one;
    if (ky == Kind::infinity || kx == Kind::infinity) return infinity(negative);
    if (ky == Kind::zero || is_one) return zero(negative);
    const Number a = unpack(y), b = unpack(x);
    if (power_of_two(b)) return times(a, b.exponent, e);
    if (fixed::enabled)
        if (const auto short_way = fixed::rounded(fixed::product(fixed::logarithm(b), a), e))
            return *short_way;
    return irrational(
        [&](Real& value) {
            Real factor(64);
            assign(factor, b);
            mpfr_log2(value, factor, MPFR_RNDN);
            assign(factor, a);
            mpfr_mul(value, value, factor, MPFR_RNDN);
        },
        e);
}

Extended y_log2_x_plus_1(const Extended& y, const Extended& x, Environment& e) {
    const Kind ky = kind(y), kx = kind(x);
    Extended result;
    if (not_a_number(y, ky, x, kx, e, result)) return result;
    const bool at_most_minus_1 = is_negative(x) && exponent_field(x) >= static_cast<unsigned>(bias);
    if (at_most_minus_1 || (ky == Kind::infinity && kx == Kind::zero) ||
        (ky == Kind::zero && kx == Kind::infinity))
        return invalid(e);
    if (!accept(ky, kx, e)) return default_nan;
    const bool negative = is_negative(y) != is_negative(x);
    if (ky == Kind::infinity || kx == Kind::infinity) return infinity(negative);
    if (ky == Kind::zero || kx == Kind::zero) return zero(negative);
    const Number a = unpack(y), b = unpack(x);
    // 1 + x is a power of two for some x outside the domain.
    Real sum(128);
    assign(sum, b);
    if (b.exponent > -70 && mpfr_add_ui(sum, sum, 1, MPFR_RNDZ) == 0) {
        const auto exponent = mpfr_get_exp(sum) - 1;
        mpfr_set_exp(sum, 1);
        if (mpfr_cmp_ui(sum, 1) == 0) return times(a, static_cast<int>(exponent), e);
    }
    return irrational(
        [&](Real& value) {
            Real factor(64), log2(mpfr_get_prec(value));
            assign(factor, b);
            mpfr_log1p(value, factor, MPFR_RNDN);
            assign(factor, a);
            mpfr_mul(value, value, factor, MPFR_RNDN);
            mpfr_const_log2(log2, MPFR_RNDN);
            mpfr_div(value, value, log2, MPFR_RNDN);
        },
        e);
}

Extended arctangent(const Extended& y, const Extended& x, Environment& e) {
    const Kind ky = kind(y), kx = kind(x);
    Extended result;
    if (not_a_number(y, ky, x, kx, e, result)) return result;
    if (!accept(ky, kx, e)) return default_nan;
    if ((ky == Kind::zero || kx == Kind::infinity) && !is_negative(x) && ky != Kind::infinity)
        return zero(is_negative(y));
    Real value(kept), a(64), b(64);
    const auto set = [](Real& to, const Extended& from, Kind k) {
        const int sign = is_negative(from) ? -1 : 1;
        if (k == Kind::zero)
            mpfr_set_zero(to, sign);
        else if (k == Kind::infinity)
            mpfr_set_inf(to, sign);
        else
            assign(to, unpack(from));
    };
    set(a, y, ky);
    set(b, x, kx);
    const int inexact = mpfr_atan2(value, a, b, MPFR_RNDZ);
    return rounded(value, inexact != 0, e);
}

// ---- Sine, cosine, tangent --------------------------------------------------------------------------------

namespace {

/// What the quadrants have in common: a function of the reduced angle.
enum class Base : u8 { sine, cosine, tangent, cotangent };

Extended by_definition(Base base, bool negative, const Angle& angle, Environment& e) {
    Real argument(128), value(kept), low(64);
    assign(argument, {false, angle.exponent, static_cast<u64>(angle.significand >> 64)});
    mpfr_set_uj_2exp(low, static_cast<u64>(angle.significand), angle.exponent - 127, MPFR_RNDZ);
    mpfr_add(argument, argument, low, MPFR_RNDZ);
    int inexact = 0;
    switch (base) {
    case Base::sine: inexact = mpfr_sin(value, argument, MPFR_RNDZ); break;
    case Base::cosine: inexact = mpfr_cos(value, argument, MPFR_RNDZ); break;
    case Base::tangent: inexact = mpfr_tan(value, argument, MPFR_RNDZ); break;
    case Base::cotangent: inexact = mpfr_cot(value, argument, MPFR_RNDZ); break;
    }
    if (negative) mpfr_neg(value, value, MPFR_RNDZ);
    return rounded(value, inexact != 0, e);
}

Extended of_angle(Base base, bool negative, const Angle& angle, Environment& e) {
    if (fixed::enabled && base <= Base::cosine) {
        if (auto approximation = base == Base::sine ? fixed::sine(angle) : fixed::cosine(angle)) {
            approximation->negative = negative;
            if (const auto short_way = fixed::rounded(*approximation, e)) return *short_way;
        }
    }
    return by_definition(base, negative, angle, e);
}

/// sin(|x| + turned * pi / 2), negated or not.
Extended sine_of(const Angle& angle, unsigned turned, bool negate, Environment& e) {
    const unsigned quadrant = (angle.quadrant + turned) & 3;
    const bool odd = quadrant & 1;
    const bool negative = ((quadrant & 2) != 0) ^ (!odd && angle.negative) ^ negate;
    return of_angle(odd ? Base::cosine : Base::sine, negative, angle, e);
}

} // namespace

Trigonometric trigonometric(const Extended& x, Function what, Environment& e) {
    const Kind k = kind(x);
    Extended result;
    if (not_a_number(x, k, e, result)) return {result, result};
    if (k == Kind::infinity) {
        result = invalid(e);
        return {result, result};
    }
    if (k == Kind::zero) return {x, one};
    if (exponent_field(x) >= static_cast<unsigned>(bias + 63)) return {x, x, true};
    if (!accept(k, e)) return {default_nan, default_nan};
    const Angle angle = reduced(unpack(x));
    Trigonometric results{result, one};
    if (what == Function::tangent) { // tan(r + pi / 2) = -1 / tan(r)
        const bool odd = angle.quadrant & 1;
        const bool negative = angle.negative ^ odd ^ is_negative(x);
        results.sine = of_angle(odd ? Base::cotangent : Base::tangent, negative, angle, e);
        return results;
    }
    if (what != Function::cosine) results.sine = sine_of(angle, 0, is_negative(x), e);
    if (what != Function::sine) results.cosine = sine_of(angle, 1, false, e);
    return results;
}

} // namespace exeunt::softfloat80
