// Floating-point arithmetic against known values, and against the native processor where it is x86-64.
#include "cpu/softfloat.hpp"

#include "base/random.hpp"
#include "cpu/softfloat_fast.hpp"
#include "tests/cpu/softfloat_silicon.hpp"

#include <bit>
#include <cmath>
#include <doctest/doctest.h>
#include <string>
#include <vector>

using namespace exeunt;
using softfloat::Environment;
using softfloat::Relation;

namespace {

constexpr u32 f32(float value) { return std::bit_cast<u32>(value); }
constexpr u64 f64(double value) { return std::bit_cast<u64>(value); }

} // namespace

TEST_CASE("softfloat: rounding control decides the last place [SDM 1 4.8.4]") {
    const auto third = [](u32 rc) {
        Environment e{MXCSR::at_reset | rc << 13};
        const u32 bits = softfloat::divide<u32>(f32(1), f32(3), e);
        CHECK(e.raised == MXCSR::PE);
        return bits;
    };
    CHECK(third(0) == 0x3EAA'AAAB);
    CHECK(third(1) == 0x3EAA'AAAA);
    CHECK(third(2) == 0x3EAA'AAAB);
    CHECK(third(3) == 0x3EAA'AAAA);
}

TEST_CASE("softfloat: of two NaNs the first is chosen and made quiet [SDM 1 Table 4-7]") {
    Environment e;
    CHECK(softfloat::add<u32>(0x7F80'0001, 0xFFC0'1234, e) == 0x7FC0'0001);
    CHECK(e.raised == MXCSR::IE);
    e.raised = 0;
    CHECK(softfloat::add<u32>(f32(1), 0xFFC0'1234, e) == 0xFFC0'1234);
    CHECK(e.raised == 0);
    CHECK(softfloat::subtract<u64>(f64(1), 0x7FF8'0000'0000'0001, e) == 0x7FF8'0000'0000'0001);
    CHECK(softfloat::divide<u64>(f64(0), f64(0), e) == softfloat::default_nan<u64>);
    CHECK(e.raised == MXCSR::IE);
}

TEST_CASE(
    "softfloat: tiny and exact is no masked underflow, unless results are flushed to zero [SDM 1 4.9.1.5]") {
    const u64 least = 1;
    Environment e;
    CHECK(softfloat::multiply<u64>(least, f64(2), e) == 2);
    CHECK(e.raised == MXCSR::DE);
    Environment flushing{MXCSR::at_reset | MXCSR::FZ};
    CHECK(softfloat::multiply<u64>(least, f64(-2), flushing) == softfloat::sign_bit<u64>);
    CHECK(flushing.raised == (MXCSR::DE | MXCSR::UE | MXCSR::PE));
    Environment unmasked{MXCSR::at_reset & ~MXCSR::UM};
    softfloat::multiply<u64>(least, f64(2), unmasked);
    CHECK(unmasked.unmasked() == MXCSR::UE);
    Environment daz{MXCSR::at_reset | MXCSR::DAZ};
    CHECK(softfloat::multiply<u64>(least, f64(-2), daz) == softfloat::sign_bit<u64>);
    CHECK(daz.raised == 0);
}

TEST_CASE(
    "softfloat: tiny is what would round to less than the least normal number if exponents had no bound "
    "[SDM 1 4.9.1.5]") {
    // 2^-126 * (1 - 2^-26) rounds to 2^-126 in 24 bits, 2^-126 * (1 - 2^-24) does not.
    Environment e;
    CHECK(softfloat::narrow(f64(0x1.ffffff8p-127), e) == 0x0080'0000);
    CHECK(e.raised == MXCSR::PE);
    e.raised = 0;
    CHECK(softfloat::narrow(f64(0x1.fffffep-127), e) == 0x0080'0000);
    CHECK(e.raised == (MXCSR::UE | MXCSR::PE));
}

TEST_CASE("softfloat: an integer that does not fit is the integer indefinite [SDM 1 11.5.2.1]") {
    Environment e;
    CHECK(softfloat::to_integer<i32>(f64(2147483647.0), e.rounding(), e) == 2147483647);
    CHECK(softfloat::to_integer<i32>(f64(-2147483648.0), e.rounding(), e) == -2147483647 - 1);
    CHECK(e.raised == 0);
    CHECK(softfloat::to_integer<i32>(f64(2147483647.5), e.rounding(), e) == -2147483647 - 1);
    CHECK(e.raised == MXCSR::IE);
}

TEST_CASE("softfloat: MIN and MAX give the second operand for NaNs and zeros [SDM 2B MINPS]") {
    Environment e;
    CHECK(softfloat::minimum<u32>(0x8000'0000, 0, e) == 0);
    CHECK(softfloat::maximum<u32>(0, 0x8000'0000, e) == 0x8000'0000);
    CHECK(e.raised == 0);
    CHECK(softfloat::minimum<u32>(softfloat::default_nan<u32>, f32(3), e) == f32(3));
    CHECK(e.raised == MXCSR::IE);
}

TEST_CASE("softfloat: RCP and RSQRT err by at most 1.5 * 2^-12 [SDM 1 10.4.1.2]") {
    const double bound = 1.5 / 4096;
    for (u32 bits = f32(1); bits < f32(4); bits += 977) {
        const double x = static_cast<double>(std::bit_cast<float>(bits));
        const double r = static_cast<double>(std::bit_cast<float>(softfloat::reciprocal(bits)));
        const double s = static_cast<double>(std::bit_cast<float>(softfloat::reciprocal_square_root(bits)));
        REQUIRE(std::abs(r * x - 1) < bound);
        REQUIRE(std::abs(s * std::sqrt(x) - 1) < bound);
    }
    CHECK(softfloat::reciprocal(f32(1)) == 0x3F7F'F000);
    CHECK(softfloat::reciprocal(1) == softfloat::infinity<u32>);
    CHECK(softfloat::reciprocal(0x7F00'0000) == 0);
    CHECK(softfloat::reciprocal_square_root(0x8000'0000) == 0xFF80'0000);
    CHECK(softfloat::reciprocal_square_root(f32(-1)) == softfloat::default_nan<u32>);
}

namespace {

/// Numbers near every boundary: zeros, denormals, the least and greatest normal ones, powers of two, NaNs.
template <class T>
T interesting(Random& random) {
    constexpr unsigned fraction_bits = softfloat::Format<T>::fraction_bits;
    constexpr unsigned exponents = 1u << softfloat::Format<T>::exponent_bits;
    const u64 chance = random.next();
    T fraction = static_cast<T>(random.next()) & softfloat::fraction_mask<T>;
    switch (chance & 7) {
    case 0: fraction = 0; break;
    case 1: fraction = softfloat::fraction_mask<T>; break;
    case 2: fraction = static_cast<T>(T{1} << ((chance >> 8) % fraction_bits)); break;
    case 3: fraction &= static_cast<T>(~T{0} << ((chance >> 8) % fraction_bits)); break;
    default: break;
    }
    u64 exponent = (chance >> 16) % exponents;
    switch ((chance >> 4) & 7) {
    case 0: exponent = 0; break;
    case 1: exponent = exponents - 1 - ((chance >> 32) & 3); break;
    case 2: exponent = (chance >> 32) & 3; break;
    case 3:
    case 4: exponent = exponents / 2 - 1 + ((chance >> 32) % 70); break;
    case 5: exponent = exponents / 2 - 1 - ((chance >> 32) % 40); break;
    default: break;
    }
    const T sign = chance >> 63 ? softfloat::sign_bit<T> : T{0};
    return static_cast<T>(sign | static_cast<T>(static_cast<T>(exponent) << fraction_bits) | fraction);
}

/// The fast ways on these operands, where they answer, against the definition.
template <class Op, class T>
void compare_fast_ways(Random& random) {
    int answers = 0, differences = 0;
    for (int i = 0; i < 60'000; ++i) {
        const T a = interesting<T>(random), b = random.next() % 16 == 0 ? a : interesting<T>(random);
        u32 mxcsr = static_cast<u32>(random.next()) & MXCSR::all;
        if (i & 1) mxcsr = (mxcsr & ~MXCSR::RC) | MXCSR::PM | MXCSR::PE | MXCSR::UM;
        Environment e{mxcsr};
        const T expected = Op::template soft<T>(a, b, e);
        T quick = 0;
        if (softfloat::quick<Op>(a, b, mxcsr, quick)) {
            ++answers;
            differences += quick != expected || (e.raised & ~mxcsr) != 0 || e.unmasked() != 0;
        }
        u64 lanes[2];
        u32 after = mxcsr;
        if (softfloat::by_silicon<Op, T, 1>({a, 0}, {b, 0}, after, lanes)) {
            ++answers;
            differences +=
                static_cast<T>(lanes[0]) != expected || after != (mxcsr | e.raised) || e.unmasked() != 0;
        }
        // The same number in every lane.
        const u64 wide_a = sizeof(T) == 8 ? a : u64{a} << 32 | a,
                  wide_b = sizeof(T) == 8 ? b : u64{b} << 32 | b;
        const u64 wide_expected = sizeof(T) == 8 ? expected : u64{expected} << 32 | expected;
        if (softfloat::quick_vector<Op, T>({wide_a, wide_a}, {wide_b, wide_b}, mxcsr, lanes)) {
            ++answers;
            differences += lanes[0] != wide_expected || lanes[1] != wide_expected ||
                           (e.raised & ~mxcsr) != 0 || e.unmasked() != 0;
        }
        after = mxcsr;
        if (softfloat::by_silicon<Op, T, 16 / sizeof(T)>({wide_a, wide_a}, {wide_b, wide_b}, after, lanes)) {
            differences +=
                lanes[0] != wide_expected || lanes[1] != wide_expected || after != (mxcsr | e.raised);
        }
    }
    CHECK(differences == 0);
    CHECK(answers > 1'000);
}

template <class Op>
void compare_fast_ways(const char* name) {
    CAPTURE(name);
    Random random(0x5EED'0003);
    compare_fast_ways<Op, u32>(random);
    compare_fast_ways<Op, u64>(random);
}

} // namespace

TEST_CASE("softfloat: the fast ways give its bits and flags, or nothing") {
    compare_fast_ways<softfloat::Add>("add");
    compare_fast_ways<softfloat::Subtract>("subtract");
    compare_fast_ways<softfloat::Multiply>("multiply");
    compare_fast_ways<softfloat::Divide>("divide");
    compare_fast_ways<softfloat::SquareRoot>("square root");
    compare_fast_ways<softfloat::Minimum>("minimum");
    compare_fast_ways<softfloat::Maximum>("maximum");
}

#if defined(__x86_64__)

namespace {

using test::Outcome;
namespace native = exeunt::test::native;

struct Operation {
    const char* name;
    Outcome (*silicon)(u64, u64, u32);
    u64 (*soft)(u64, u64, Environment&);
    unsigned bits; ///< of the operands
};

template <auto Function>
u64 single2(u64 a, u64 b, Environment& e) {
    // The instruction keeps the upper half of the first operand's quadword.
    return (a & ~u64{0xFFFF'FFFF}) | Function(static_cast<u32>(a), static_cast<u32>(b), e);
}
template <auto Function>
u64 single1(u64 a, u64, Environment& e) {
    return (a & ~u64{0xFFFF'FFFF}) | Function(static_cast<u32>(a), e);
}
template <auto Function>
u64 double2(u64 a, u64 b, Environment& e) {
    return Function(a, b, e);
}
template <auto Function>
u64 double1(u64 a, u64, Environment& e) {
    return Function(a, e);
}
template <class Integer, class T, bool truncated>
u64 integer_of(u64 a, u64, Environment& e) {
    const auto rounding = truncated ? softfloat::Rounding::zero : e.rounding();
    using Unsigned = std::make_unsigned_t<Integer>;
    return static_cast<Unsigned>(softfloat::to_integer<Integer>(static_cast<T>(a), rounding, e));
}
template <class T, class Integer>
u64 of_integer(u64 a, u64, Environment& e) {
    return softfloat::from_integer<T>(static_cast<Integer>(a), e);
}
template <class T, bool exact>
u64 integral(u64 a, u64, Environment& e) {
    const u64 upper = sizeof(T) == 4 ? a & ~u64{0xFFFF'FFFF} : 0;
    return upper | softfloat::round_to_integral(static_cast<T>(a), e.rounding(), exact, e);
}
template <class T, bool signals_quiet>
u64 flags_of(u64 a, u64 b, Environment& e) {
    switch (softfloat::compare(static_cast<T>(a), static_cast<T>(b), signals_quiet, e)) {
    case Relation::less: return 1;
    case Relation::equal: return 4;
    case Relation::greater: return 0;
    default: return 7;
    }
}
u64 narrowed(u64 a, u64, Environment& e) { return (a & ~u64{0xFFFF'FFFF}) | softfloat::narrow(a, e); }
u64 widened(u64 a, u64, Environment& e) { return softfloat::widen(static_cast<u32>(a), e); }

const std::vector<Operation> operations = {
    {"addss", native::addss, single2<softfloat::add<u32>>, 32},
    {"addsd", native::addsd, double2<softfloat::add<u64>>, 64},
    {"subss", native::subss, single2<softfloat::subtract<u32>>, 32},
    {"subsd", native::subsd, double2<softfloat::subtract<u64>>, 64},
    {"mulss", native::mulss, single2<softfloat::multiply<u32>>, 32},
    {"mulsd", native::mulsd, double2<softfloat::multiply<u64>>, 64},
    {"divss", native::divss, single2<softfloat::divide<u32>>, 32},
    {"divsd", native::divsd, double2<softfloat::divide<u64>>, 64},
    {"minss", native::minss, single2<softfloat::minimum<u32>>, 32},
    {"minsd", native::minsd, double2<softfloat::minimum<u64>>, 64},
    {"maxss", native::maxss, single2<softfloat::maximum<u32>>, 32},
    {"maxsd", native::maxsd, double2<softfloat::maximum<u64>>, 64},
    {"sqrtss", native::sqrtss, single1<softfloat::square_root<u32>>, 32},
    {"sqrtsd", native::sqrtsd, double1<softfloat::square_root<u64>>, 64},
    {"cvtss2sd", native::cvtss2sd, widened, 32},
    {"cvtsd2ss", native::cvtsd2ss, narrowed, 64},
    {"cvtss2si r32", native::cvtss2si32, integer_of<i32, u32, false>, 32},
    {"cvtsd2si r32", native::cvtsd2si32, integer_of<i32, u64, false>, 64},
    {"cvtss2si r64", native::cvtss2si64, integer_of<i64, u32, false>, 32},
    {"cvtsd2si r64", native::cvtsd2si64, integer_of<i64, u64, false>, 64},
    {"cvttss2si r32", native::cvttss2si32, integer_of<i32, u32, true>, 32},
    {"cvttsd2si r32", native::cvttsd2si32, integer_of<i32, u64, true>, 64},
    {"cvttss2si r64", native::cvttss2si64, integer_of<i64, u32, true>, 32},
    {"cvttsd2si r64", native::cvttsd2si64, integer_of<i64, u64, true>, 64},
    {"cvtsi2ss r32", native::cvtsi2ss32, of_integer<u32, i32>, 1},
    {"cvtsi2sd r32", native::cvtsi2sd32, of_integer<u64, i32>, 1},
    {"cvtsi2ss r64", native::cvtsi2ss64, of_integer<u32, i64>, 1},
    {"cvtsi2sd r64", native::cvtsi2sd64, of_integer<u64, i64>, 1},
    {"comiss", native::comiss, flags_of<u32, true>, 32},
    {"comisd", native::comisd, flags_of<u64, true>, 64},
    {"ucomiss", native::ucomiss, flags_of<u32, false>, 32},
    {"ucomisd", native::ucomisd, flags_of<u64, false>, 64},
    {"roundss", native::roundss, integral<u32, false>, 32},
    {"roundsd", native::roundsd, integral<u64, false>, 64},
    {"roundss (exact)", native::roundss_exact, integral<u32, true>, 32},
    {"roundsd (exact)", native::roundsd_exact, integral<u64, true>, 64},
};

u64 operand(unsigned bits, Random& random) {
    if (bits == 1) return random.next() >> (random.next() & 63);
    return bits == 32 ? interesting<u32>(random) : interesting<u64>(random);
}

Outcome soft_outcome(const Operation& operation, u64 a, u64 b, u32 mxcsr) {
    Environment e{mxcsr};
    const u64 bits = operation.soft(a, b, e);
    const bool trapped = e.unmasked() != 0;
    if (e.unmasked() & MXCSR::pre_computation) e.raised &= MXCSR::pre_computation;
    return {bits, e.raised, trapped};
}

std::string listing(const Operation& operation, u64 a, u64 b, u32 mxcsr, const Outcome& expected,
                    const Outcome& got) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "%s a=%llX b=%llX mxcsr=%X: silicon %llX flags %X %d, soft %llX flags %X %d",
                  operation.name, static_cast<unsigned long long>(a), static_cast<unsigned long long>(b),
                  mxcsr, static_cast<unsigned long long>(expected.bits), expected.flags, expected.trapped,
                  static_cast<unsigned long long>(got.bits), got.flags, got.trapped);
    return text;
}

} // namespace

TEST_CASE("softfloat: bits and flags are those of silicon, all exceptions masked") {
    const u64 seed = 0x5EED'0001;
    Random random(seed);
    INFO("seed " << seed);
    for (const Operation& operation : operations) {
        int differences = 0;
        for (int i = 0; i < 40'000; ++i) {
            const u64 a = operand(operation.bits, random);
            const u64 b = random.next() % 16 == 0 ? a : operand(operation.bits, random);
            const u64 control = random.next();
            const u32 mxcsr =
                MXCSR::at_reset | (static_cast<u32>(control) & (MXCSR::RC | MXCSR::FZ | MXCSR::DAZ));
            const Outcome expected = operation.silicon(a, b, mxcsr);
            const Outcome got = soft_outcome(operation, a, b, mxcsr);
            if (got == expected || ++differences > 5) continue;
            FAIL_CHECK(listing(operation, a, b, mxcsr, expected, got));
        }
        CHECK_MESSAGE(differences == 0, operation.name);
    }
}

TEST_CASE("softfloat: unmasked exceptions and their flags are those of silicon") {
    const u64 seed = 0x5EED'0002;
    Random random(seed);
    INFO("seed " << seed);
    for (const Operation& operation : operations) {
        int differences = 0;
        for (int i = 0; i < 3'000; ++i) {
            const u64 a = operand(operation.bits, random);
            const u64 b = operand(operation.bits, random);
            const u32 mxcsr = static_cast<u32>(random.next()) & MXCSR::all & ~MXCSR::flags;
            const Outcome expected = native::catching([&] { return operation.silicon(a, b, mxcsr); });
            const Outcome got = soft_outcome(operation, a, b, mxcsr);
            if (got == expected || ++differences > 5) continue;
            FAIL_CHECK(listing(operation, a, b, mxcsr, expected, got));
        }
        CHECK_MESSAGE(differences == 0, operation.name);
    }
}

#endif
