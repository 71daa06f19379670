// x87 instructions against the native processor: every encoding of D8 to DF, over random states with all
// special operands, rounding and precision controls, masks, tags and memory; and the native short way against
// the definition.
#include "cpu/x87_native.hpp"
#include "tests/cpu/x87_runner.hpp"

#if EXEUNT_X87_SILICON

#include <cpuid.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 seed = 0x8087;
constexpr int rounds = 1000;

/// Switches the native short way off or on for a while.
class NativeWay {
public:
    explicit NativeWay(bool on) : before_(x87_native::enabled) { x87_native::enabled = on; }
    ~NativeWay() { x87_native::enabled = before_; }
    NativeWay(const NativeWay&) = delete;
    NativeWay& operator=(const NativeWay&) = delete;

private:
    bool before_;
};

/// What the manual leaves undefined is done as on AMD's processors, so there everything is compared.
bool native_is_amd() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
}

void take_status(const X87Case& from, X87Case& to, u16 bits) {
    to.x87.status = static_cast<u16>((to.x87.status & ~bits) | (from.x87.status & bits));
}

/// What the manual says and AMD's processors do otherwise: an unmasked #I of a comparison leaves C3, C2 and
/// C0, or ZF, PF and CF, alone, and FCOMI clears C1 (SDM 2A FCOM, FCOMI).
void set_known_differences(const X87Instruction& i, const X87Case& ours, X87Case& theirs) {
    if (!i.starts("fcom") && !i.starts("fucom") && !i.starts("ficom") && !i.starts("ftst")) return;
    const bool invalid = theirs.x87.status & ~theirs.x87.control & FSW::IE;
    if (i.starts("fcomi") || i.starts("fucomi")) {
        static constexpr u64 result = RFLAGS::ZF | RFLAGS::PF | RFLAGS::CF;
        take_status(ours, theirs, FSW::C1);
        if (invalid) theirs.flags = (theirs.flags & ~result) | (ours.flags & result);
    } else if (invalid) {
        take_status(ours, theirs, FSW::C0 | FSW::C2 | FSW::C3);
    }
}

/// The condition codes that the manual leaves undefined, for processors other than AMD's.
void set_undefined(const X87Instruction& i, const X87Case& ours, X87Case& theirs) {
    for (const char* name : {"ffree", "fnop", "fcmov", "fstpnce", "fldcw", "fnclex"})
        if (i.starts(name)) take_status(ours, theirs, FSW::conditions);
    if (i.starts("fprem") && theirs.x87.status & FSW::IE) take_status(ours, theirs, FSW::conditions);
}

} // namespace

TEST_CASE("x87: every encoding does what it does on the native processor") {
    Harness t;
    const NativeWay off(false);
    const bool amd = native_is_amd();
    X87Generator g(seed);
    INFO("seed ", seed);
    for (const X87Instruction& i : all_x87_instructions(t)) {
        if (i.transcendental()) continue;
        const Silicon silicon(i.bytes);
        if (!silicon.works()) {
            MESSAGE("this system executes no generated code: not compared");
            return;
        }
        for (int n = 0; n < rounds; ++n) {
            X87Case before = g.whole_case();
            if (!amd) before.x87.control |= FCW::masks;
            X87Case ours = before, theirs = before;
            silicon.run(theirs);
            emulate(t, i, ours);
            set_known_differences(i, ours, theirs);
            if (!amd) set_undefined(i, ours, theirs);
            if (!(ours == theirs)) {
                FAIL_CHECK(describe(i, before, ours, theirs));
                break;
            }
        }
    }
}

namespace {

/// How many representable numbers lie between two of the same sign.
u128 distance(const X87Register& a, const X87Register& b) {
    const auto place = [](const X87Register& r) {
        return u128{r.sign_exponent} << 63 | (r.significand & ~softfloat80::integer_bit);
    };
    const u128 x = place(a), y = place(b);
    return x > y ? x - y : y - x;
}

/// F2XM1 and FYL2XP1 are defined for these operands only.
bool in_domain(const X87Instruction& i, const X87Register& top) {
    const unsigned field = softfloat80::exponent_field(top);
    if (i.starts("f2xm1")) return field < 0x3FFF || field == 0x7FFF;
    if (i.starts("fyl2xp1")) return field < 0x3FFD || (field == 0x7FFF && !softfloat80::is_negative(top));
    return true;
}

} // namespace

// SDM 1 8.3.10: processors are within 1 ulp of the exact result, 1.5 ulps when they do not round to nearest.
// Ours is rounded correctly, so that the last place may differ, C1 (which way it was rounded), and PE and
// with it UE where the result happens to be exact: processors do not notice.
TEST_CASE("x87: transcendental functions agree with the native processor to the last place [SDM 1 8.3.10]") {
    Harness t;
    X87Generator g(seed);
    INFO("seed ", seed);
    for (const X87Instruction& i : all_x87_instructions(t)) {
        if (!i.transcendental()) continue;
        const Silicon silicon(i.bytes);
        if (!silicon.works()) return;
        for (int n = 0; n < 4 * rounds; ++n) {
            X87Case before = g.whole_case();
            before.x87.status &= static_cast<u16>(~(FSW::SF | FSW::PE | FSW::UE));
            before.x87.control |= FSW::PE; // masked
            if (!in_domain(i, before.x87.st[before.x87.top()])) continue;
            X87Case ours = before, theirs = before;
            silicon.run(theirs);
            emulate(t, i, ours);
            const u128 tolerance = before.x87.control & FCW::RC ? 2 : 1;
            if (!(ours.x87.status & FSW::PE)) take_status(theirs, ours, FSW::PE | FSW::UE);
            if (!(theirs.x87.status & FSW::SF)) take_status(theirs, ours, FSW::C1);
            for (unsigned r = 0; r < 8; ++r)
                if (distance(ours.x87.st[r], theirs.x87.st[r]) <= tolerance)
                    ours.x87.st[r] = theirs.x87.st[r];
            if (!(ours == theirs)) {
                FAIL_CHECK(describe(i, before, ours, theirs));
                break;
            }
        }
    }
}

TEST_CASE("x87: the native short way gives what the definition gives") {
    Harness t;
    X87Generator g(seed + 1);
    INFO("seed ", seed + 1);
    if (!x87_native::enabled) return;
    for (const X87Instruction& i : all_x87_instructions(t)) {
        if (!i.starts("fadd") && !i.starts("fsub") && !i.starts("fmul") && !i.starts("fdiv") &&
            !i.starts("fsqrt") && !i.starts("fiadd") && !i.starts("fisub") && !i.starts("fimul") &&
            !i.starts("fidiv"))
            continue;
        for (int n = 0; n < 2 * rounds; ++n) {
            X87Case before = g.whole_case();
            if (n % 4 != 0) before.x87.control = 0x037F;
            X87Case defined = before, native = before;
            {
                const NativeWay off(false);
                emulate(t, i, defined);
            }
            emulate(t, i, native);
            if (!(defined == native)) {
                FAIL_CHECK(describe(i, before, defined, native));
                break;
            }
        }
    }
}

#endif
