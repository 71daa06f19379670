// The pure functions of cpu/alu.hpp: values that the manual fixes, and, where the native machine is an
// x86-64, every 8-bit and many wider operands against the silicon. Flags that the manual leaves undefined are
// not compared there.
#include "cpu/alu.hpp"

#include "base/random.hpp"

#include <doctest/doctest.h>

using namespace exeunt;

namespace {

constexpr u64 arithmetic = RFLAGS::arithmetic;

Flags flags_of(u64 rflags) {
    Flags f;
    f.set_arithmetic(rflags);
    return f;
}

} // namespace

TEST_CASE("ALU: ADD and SUB set all six flags [SDM 2A ADD, 2B SUB]") {
    Flags f;
    CHECK(alu::add<u8>(f, 0x7F, 0x01) == 0x80);
    CHECK(f.arithmetic() == (RFLAGS::OF | RFLAGS::SF | RFLAGS::AF));
    CHECK(alu::add<u8>(f, 0xFF, 0x01) == 0);
    CHECK(f.arithmetic() == (RFLAGS::ZF | RFLAGS::PF | RFLAGS::AF | RFLAGS::CF));
    CHECK(alu::sub<u32>(f, 0, 1) == 0xFFFF'FFFF);
    CHECK(f.arithmetic() == (RFLAGS::CF | RFLAGS::SF | RFLAGS::AF | RFLAGS::PF));
    CHECK(alu::sub<u64>(f, bit(63), 1) == bit(63) - 1);
    CHECK(f.arithmetic() == (RFLAGS::OF | RFLAGS::AF | RFLAGS::PF));
}

TEST_CASE("ALU: ADC and SBB take the carry in and give it out [SDM 2A ADC, 2B SBB]") {
    Flags f = flags_of(RFLAGS::CF);
    CHECK(alu::adc<u64>(f, ~u64{0}, 0) == 0);
    CHECK(f.cf == 1);
    CHECK(alu::adc<u64>(f, ~u64{0}, ~u64{0}) == ~u64{0});
    CHECK(f.cf == 1);
    CHECK(alu::sbb<u16>(f, 0, 0xFFFF) == 0);
    CHECK(f.cf == 1);
    CHECK(alu::sbb<u16>(f, 5, 3) == 1);
    CHECK(f.cf == 0);
}

TEST_CASE("ALU: INC and DEC keep CF [SDM 2A INC, DEC]") {
    for (const u64 carry : {u64{0}, RFLAGS::CF}) {
        Flags f = flags_of(carry);
        CHECK(alu::inc<u32>(f, 0x7FFF'FFFF) == 0x8000'0000);
        CHECK(f.arithmetic() == (carry | RFLAGS::OF | RFLAGS::SF | RFLAGS::AF | RFLAGS::PF));
        CHECK(alu::dec<u32>(f, 0x8000'0000) == 0x7FFF'FFFF);
        CHECK(f.arithmetic() == (carry | RFLAGS::OF | RFLAGS::AF | RFLAGS::PF));
    }
}

TEST_CASE("ALU: a shift by a masked count of 0 changes no flag [SDM 2B SAL/SAR/SHL/SHR]") {
    Flags f = flags_of(arithmetic);
    CHECK(alu::shl<u32>(f, 5, 32) == 5);
    CHECK(alu::shr<u64>(f, 5, 64) == 5);
    CHECK(alu::sar<u8>(f, 5, 0) == 5);
    CHECK(alu::rol<u16>(f, 5, 32) == 5);
    CHECK(alu::rcl<u8>(f, 5, 9) == 5);
    CHECK(alu::shld<u16>(f, 5, 1, 0) == 5);
    CHECK(f.arithmetic() == arithmetic);
}

TEST_CASE("ALU: DIV and IDIV refuse what does not fit [SDM 2A DIV, IDIV]") {
    u64 q = 0, r = 0;
    CHECK_FALSE(alu::div<u64>(0, 1, 0, q, r));
    CHECK_FALSE(alu::div<u64>(2, 0, 2, q, r));
    CHECK(alu::div<u64>(1, 0, 2, q, r));
    CHECK(q == bit(63));
    CHECK(alu::idiv<u64>(~u64{0}, bit(63), 1, q, r)); // the most negative quotient fits
    CHECK(q == bit(63));
    CHECK_FALSE(alu::idiv<u64>(~u64{0}, bit(63), ~u64{0}, q, r)); // its negation does not
    CHECK(alu::idiv<u64>(~u64{0}, static_cast<u64>(-7), 2, q, r));
    CHECK(static_cast<i64>(q) == -3);
    CHECK(static_cast<i64>(r) == -1);
    u8 q8 = 0, r8 = 0;
    CHECK_FALSE(alu::idiv<u8>(0xC0, 0x00, 0x80, q8, r8)); // -16384 / -128 = 128
    CHECK(alu::idiv<u8>(0x40, 0x00, 0x80, q8, r8));       // 16384 / -128 = -128
    CHECK(q8 == 0x80);
}

TEST_CASE("ALU: the sixteen conditions [SDM 1 App. B]") {
    for (u64 n = 0; n < 64; ++n) {
        const u64 raw =
            (n & 1) | ((n & 2) << 1) | ((n & 4) << 2) | ((n & 8) << 3) | ((n & 16) << 3) | ((n & 32) << 6);
        const Flags f = flags_of(raw);
        REQUIRE(f.arithmetic() == raw);
        const bool cf = raw & RFLAGS::CF, zf = raw & RFLAGS::ZF, sf = raw & RFLAGS::SF, of = raw & RFLAGS::OF;
        const bool expected[8] = {
            of, cf, zf, cf || zf, sf, (raw & RFLAGS::PF) != 0, sf != of, zf || sf != of};
        for (unsigned cc = 0; cc < 16; ++cc)
            CHECK(alu::condition(f, cc) == (expected[cc >> 1] != ((cc & 1) != 0)));
    }
}

#if defined(__x86_64__)

namespace {

struct Outcome {
    u64 value, flags;
};

/// Runs one instruction natively on `a`, `b` and CL with the given flags. The red zone is stepped over.
#define NATIVE(name, instruction)                                               \
    template <class T>                                                          \
    Outcome name(T a, T b, u8 count, u64 flags) {                               \
        u64 out = (flags & arithmetic) | RFLAGS::FIXED1 | RFLAGS::IF;           \
        __asm__ volatile("lea -128(%%rsp), %%rsp; push %1; popfq; " instruction \
                         "; pushfq; pop %1; lea 128(%%rsp), %%rsp"              \
                         : "+q"(a), "+r"(out)                                   \
                         : "q"(b), "c"(count)                                   \
                         : "cc");                                               \
        return {a, out & arithmetic};                                           \
    }
NATIVE(native_add, "add %2, %0")
NATIVE(native_adc, "adc %2, %0")
NATIVE(native_sub, "sub %2, %0")
NATIVE(native_sbb, "sbb %2, %0")
NATIVE(native_and, "and %2, %0")
NATIVE(native_or, "or %2, %0")
NATIVE(native_xor, "xor %2, %0")
NATIVE(native_inc, "inc %0")
NATIVE(native_dec, "dec %0")
NATIVE(native_neg, "neg %0")
NATIVE(native_shl, "shl %%cl, %0")
NATIVE(native_shr, "shr %%cl, %0")
NATIVE(native_sar, "sar %%cl, %0")
NATIVE(native_rol, "rol %%cl, %0")
NATIVE(native_ror, "ror %%cl, %0")
NATIVE(native_rcl, "rcl %%cl, %0")
NATIVE(native_rcr, "rcr %%cl, %0")
NATIVE(native_shld, "shld %%cl, %2, %0")
NATIVE(native_shrd, "shrd %%cl, %2, %0")
NATIVE(native_imul, "imul %2, %0")
NATIVE(native_bt, "bt %2, %0")
NATIVE(native_bts, "bts %2, %0")
NATIVE(native_btr, "btr %2, %0")
NATIVE(native_btc, "btc %2, %0")
NATIVE(native_bsf, "bsf %2, %0")
NATIVE(native_bsr, "bsr %2, %0")
NATIVE(native_popcnt, "popcnt %2, %0")
#undef NATIVE

struct Sample {
    u64 a, b;
    u8 count;
    u64 flags;
};

/// Compares one operation; `defined` gives the flags that the manual defines for these operands.
template <class T, class Native, class Ours, class Defined>
void compare(const char* name, const Sample& s, Native native, Ours ours, Defined defined) {
    const T a = static_cast<T>(s.a), b = static_cast<T>(s.b);
    const Outcome expected = native(a, b, s.count, s.flags);
    Flags f = flags_of(s.flags);
    const u64 value = ours(f, a, b, s.count);
    const u64 mask = defined(s.count & (sizeof(T) == 8 ? 63u : 31u), b);
    if (value != expected.value || (f.arithmetic() & mask) != (expected.flags & mask)) {
        FAIL_CHECK(name, " of ", sizeof(T), " bytes: a=", u64{a}, " b=", u64{b}, " count=", unsigned{s.count},
                   " flags=", s.flags, ": got ", value, "/", f.arithmetic(), ", silicon ", expected.value,
                   "/", expected.flags, ", compared flags ", mask);
    }
}

constexpr auto all_flags = [](unsigned, u64) { return arithmetic; };
constexpr auto logic_flags = [](unsigned, u64) { return arithmetic & ~RFLAGS::AF; };
constexpr auto product_flags = [](unsigned, u64) { return RFLAGS::CF | RFLAGS::OF; };
constexpr auto bit_flags = [](unsigned, u64) { return RFLAGS::CF | RFLAGS::ZF; };
constexpr auto scan_flags = [](unsigned, u64) { return u64{RFLAGS::ZF}; };

/// Shifts: AF is undefined, OF is defined for a count of 1, CF up to the operand's width.
template <class T>
constexpr auto shift_flags = [](unsigned n, u64) {
    if (n == 0) return arithmetic;
    u64 mask = arithmetic & ~RFLAGS::AF;
    if (n != 1) mask &= ~RFLAGS::OF;
    if (n > 8 * sizeof(T)) mask &= ~RFLAGS::CF;
    return mask;
};
template <class T>
constexpr auto rotate_flags = [](unsigned n, u64) { return n > 1 ? arithmetic & ~RFLAGS::OF : arithmetic; };

template <class T>
void compare_arithmetic(const Sample& s) {
    compare<T>(
        "add", s, native_add<T>, [](Flags& f, T a, T b, u8) { return alu::add(f, a, b); }, all_flags);
    compare<T>(
        "adc", s, native_adc<T>, [](Flags& f, T a, T b, u8) { return alu::adc(f, a, b); }, all_flags);
    compare<T>(
        "sub", s, native_sub<T>, [](Flags& f, T a, T b, u8) { return alu::sub(f, a, b); }, all_flags);
    compare<T>(
        "sbb", s, native_sbb<T>, [](Flags& f, T a, T b, u8) { return alu::sbb(f, a, b); }, all_flags);
    compare<T>(
        "inc", s, native_inc<T>, [](Flags& f, T a, T, u8) { return alu::inc(f, a); }, all_flags);
    compare<T>(
        "dec", s, native_dec<T>, [](Flags& f, T a, T, u8) { return alu::dec(f, a); }, all_flags);
    compare<T>(
        "neg", s, native_neg<T>, [](Flags& f, T a, T, u8) { return alu::neg(f, a); }, all_flags);
    compare<T>(
        "and", s, native_and<T>, [](Flags& f, T a, T b, u8) { return alu::and_(f, a, b); }, logic_flags);
    compare<T>(
        "or", s, native_or<T>, [](Flags& f, T a, T b, u8) { return alu::or_(f, a, b); }, logic_flags);
    compare<T>(
        "xor", s, native_xor<T>, [](Flags& f, T a, T b, u8) { return alu::xor_(f, a, b); }, logic_flags);
}

template <class T>
void compare_shifts(const Sample& s) {
    constexpr auto shifted = shift_flags<T>;
    constexpr auto rotated = rotate_flags<T>;
    compare<T>(
        "shl", s, native_shl<T>, [](Flags& f, T a, T, u8 n) { return alu::shl(f, a, n); }, shifted);
    compare<T>(
        "shr", s, native_shr<T>, [](Flags& f, T a, T, u8 n) { return alu::shr(f, a, n); }, shifted);
    compare<T>(
        "sar", s, native_sar<T>, [](Flags& f, T a, T, u8 n) { return alu::sar(f, a, n); }, shifted);
    compare<T>(
        "rol", s, native_rol<T>, [](Flags& f, T a, T, u8 n) { return alu::rol(f, a, n); }, rotated);
    compare<T>(
        "ror", s, native_ror<T>, [](Flags& f, T a, T, u8 n) { return alu::ror(f, a, n); }, rotated);
    compare<T>(
        "rcl", s, native_rcl<T>, [](Flags& f, T a, T, u8 n) { return alu::rcl(f, a, n); }, rotated);
    compare<T>(
        "rcr", s, native_rcr<T>, [](Flags& f, T a, T, u8 n) { return alu::rcr(f, a, n); }, rotated);
    if constexpr (sizeof(T) > 1) {
        if ((s.count & 31) > 8 * sizeof(T)) return; // the result itself is undefined
        compare<T>(
            "shld", s, native_shld<T>, [](Flags& f, T a, T b, u8 n) { return alu::shld(f, a, b, n); },
            shifted);
        compare<T>(
            "shrd", s, native_shrd<T>, [](Flags& f, T a, T b, u8 n) { return alu::shrd(f, a, b, n); },
            shifted);
    }
}

template <class T>
void compare_bits(const Sample& s) {
    const auto n = [](T b) { return static_cast<unsigned>(b % (8 * sizeof(T))); };
    compare<T>(
        "imul", s, native_imul<T>, [](Flags& f, T a, T b, u8) { return alu::imul(f, a, b); }, product_flags);
    compare<T>(
        "bt", s, native_bt<T>, [n](Flags& f, T a, T b, u8) { return alu::bt(f, a, n(b)), a; }, bit_flags);
    compare<T>(
        "bts", s, native_bts<T>, [n](Flags& f, T a, T b, u8) { return alu::bts(f, a, n(b)); }, bit_flags);
    compare<T>(
        "btr", s, native_btr<T>, [n](Flags& f, T a, T b, u8) { return alu::btr(f, a, n(b)); }, bit_flags);
    compare<T>(
        "btc", s, native_btc<T>, [n](Flags& f, T a, T b, u8) { return alu::btc(f, a, n(b)); }, bit_flags);
    compare<T>(
        "popcnt", s, native_popcnt<T>, [](Flags& f, T, T b, u8) { return alu::popcnt(f, b); }, all_flags);
    if (static_cast<T>(s.b) == 0) return; // the destination of a scan is undefined
    compare<T>(
        "bsf", s, native_bsf<T>, [](Flags& f, T a, T b, u8) { return alu::bsf(f, a, b); }, scan_flags);
    compare<T>(
        "bsr", s, native_bsr<T>, [](Flags& f, T a, T b, u8) { return alu::bsr(f, a, b); }, scan_flags);
}

/// A value in which long runs of equal bits are frequent.
u64 interesting(Random& random) {
    u64 value = random.next();
    const u64 shape = random.next();
    if (shape & 1) value &= random.next() & random.next();
    if (shape & 2) value |= random.next() | random.next();
    if (shape & 4) value = sign_extend(value, 1 + (shape >> 8) % 64);
    if (shape & 8) value = u64{1} << (value & 63);
    return shape & 16 ? value - ((shape >> 5) & 3) : value;
}

Sample sample(Random& random) {
    Sample s{interesting(random), interesting(random), 0, 0};
    s.count = static_cast<u8>(random.next() & 1 ? random.next() % 4 : random.next());
    s.flags = random.next() & arithmetic;
    return s;
}

} // namespace

TEST_CASE("ALU: every pair of 8-bit operands agrees with the silicon") {
    Random random{1};
    for (u64 a = 0; a < 256; ++a)
        for (u64 b = 0; b < 256; ++b) {
            const Sample s{a, b, static_cast<u8>(b), random.next() & arithmetic};
            compare_arithmetic<u8>(s);
            compare_shifts<u8>(s);
        }
}

TEST_CASE("ALU: random wider operands agree with the silicon") {
    Random random{2};
    for (unsigned i = 0; i < 30000; ++i) {
        const Sample s = sample(random);
        INFO("seed 2, round ", i);
        compare_arithmetic<u16>(s);
        compare_arithmetic<u32>(s);
        compare_arithmetic<u64>(s);
        compare_shifts<u16>(s);
        compare_shifts<u32>(s);
        compare_shifts<u64>(s);
        compare_bits<u16>(s);
        compare_bits<u32>(s);
        compare_bits<u64>(s);
    }
}

TEST_CASE("ALU: products and quotients agree with native 128-bit arithmetic") {
    Random random{3};
    for (unsigned i = 0; i < 30000; ++i) {
        const u64 a = interesting(random), b = interesting(random), c = interesting(random);
        Flags f;
        u64 high = 0, low = 0;
        __asm__("mulq %3" : "=a"(low), "=d"(high) : "a"(a), "r"(b) : "cc");
        u64 ours = 0;
        CHECK(alu::mul<u64>(f, a, b, ours) == low);
        CHECK(ours == high);
        CHECK(f.cf == (high != 0));
        __asm__("imulq %3" : "=a"(low), "=d"(high) : "a"(a), "r"(b) : "cc");
        CHECK(alu::imul<u64>(f, a, b, ours) == low);
        CHECK(ours == high);
        CHECK(f.of == (high != (low >> 63 ? ~u64{0} : 0)));
        u64 quotient = 0, remainder = 0;
        if (alu::div<u64>(a, b, c, quotient, remainder)) {
            __asm__("divq %4" : "=a"(low), "=d"(high) : "a"(b), "d"(a), "r"(c) : "cc");
            CHECK(quotient == low);
            CHECK(remainder == high);
        } else {
            CHECK(a >= c);
        }
        if (alu::idiv<u64>(a, b, c, quotient, remainder)) {
            __asm__("idivq %4" : "=a"(low), "=d"(high) : "a"(b), "d"(a), "r"(c) : "cc");
            CHECK(quotient == low);
            CHECK(remainder == high);
        } else if (c != 0) {
            const i128 dividend = static_cast<i128>((static_cast<u128>(a) << 64) | b);
            const i128 exact = dividend / static_cast<i64>(c);
            CHECK(exact != static_cast<i64>(exact));
        }
    }
}

#endif
