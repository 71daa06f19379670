// Architectural performance monitoring. SDM 3B 18.2; SDM 2B RDPMC; CPUID leaf 0AH.
#include "cpu/performance.hpp"

#include "cpu/cpuid.hpp"
#include "cpu/msrs.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 user = bit(16), supervisor = bit(17), edge = bit(18), interrupt = bit(20), enable = bit(22),
              invert = bit(23);
constexpr u64 cycles = 0x3C, reference_cycles = 0x13C, instructions = 0xC0;
constexpr u64 all_counters = 0x7'0000'000F;

/// Counts performance-monitoring interrupts, and where they came.
class PmiWitness final : public InterruptController {
public:
    explicit PmiWitness(Cpu& cpu) : cpu_(cpu) {}
    bool interrupt_pending() override { return false; }
    u8 acknowledge() override { return 0; }
    u8 cr8() override { return 0; }
    void set_cr8(u8) override {}
    bool read_msr(u32, u64&) override { return false; }
    bool write_msr(u32, u64) override { return false; }
    void performance_interrupt() override {
        ++count;
        rip = cpu_.rip;
    }

    unsigned count = 0;
    u64 rip = 0;

private:
    Cpu& cpu_;
};

struct Counters : Harness {
    Counters() { cpu.controller = &pmi; }

    u64 rdmsr(u32 index) { return cpu.msrs->read(cpu, index).value(); }
    bool wrmsr(u32 index, u64 value) { return cpu.msrs->write(cpu, index, value).ok(); }

    PmiWitness pmi{cpu};
};

const Code five_nops = code("90 90 90 90 90 f4", "nop; nop; nop; nop; nop; hlt");

} // namespace

TEST_CASE("CPUID.0AH: version 2, four general and three fixed counters of 48 bits [SDM 2A CPUID]") {
    Counters t;
    const CpuidResult r = cpuid(t.cpu, 0xA, 0);
    CHECK(r.eax == 0x0730'0402);
    CHECK(r.ebx == 0x78);
    CHECK(r.edx == (3 | 48 << 5));
    CHECK((t.rdmsr(Msr::IA32_MISC_ENABLE) & bit(7)) != 0);
    Harness without(Mode::long64, "nehalem");
    CHECK(cpuid(without.cpu, 0xA, 0).eax == 0);
}

TEST_CASE(
    "Performance MSRs at power-up: the general counters are enabled globally, nothing else [SDM 3B 18.2.2]") {
    Counters t;
    CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_CTRL) == 0xF);
    for (const u32 index : {Msr::IA32_PMC0, Msr::IA32_PERFEVTSEL0, Msr::IA32_FIXED_CTR0,
                            Msr::IA32_FIXED_CTR_CTRL, Msr::IA32_PERF_GLOBAL_STATUS})
        CHECK(t.rdmsr(index) == 0);
}

TEST_CASE(
    "Performance MSRs: reserved bits are #GP(0); a general counter takes 32 bits and extends their sign "
    "[SDM 3B 18.2.1.1, 18.2.2]") {
    Counters t;
    CHECK(!t.wrmsr(Msr::IA32_PERF_GLOBAL_CTRL, 0x10));
    CHECK(t.wrmsr(Msr::IA32_PERF_GLOBAL_CTRL, all_counters));
    CHECK(!t.wrmsr(Msr::IA32_FIXED_CTR_CTRL, 4)); // AnyThread is of version 3
    CHECK(!t.wrmsr(Msr::IA32_PERFEVTSEL0, bit(32)));
    CHECK(!t.wrmsr(Msr::IA32_PERFEVTSEL0, bit(21)));
    CHECK(!t.wrmsr(Msr::IA32_PERF_GLOBAL_STATUS, 0));
    CHECK(!t.wrmsr(Msr::IA32_PERF_GLOBAL_OVF_CTRL, 0x10));
    CHECK(!t.wrmsr(Msr::IA32_FIXED_CTR0, bit(48)));
    CHECK(t.wrmsr(Msr::IA32_PMC1, 0x1'8000'0000));
    CHECK(t.rdmsr(Msr::IA32_PMC1) == 0xFFFF'8000'0000);
    CHECK(t.wrmsr(Msr::IA32_PMC1, 0x7FFF'FFFF));
    CHECK(t.rdmsr(Msr::IA32_PMC1) == 0x7FFF'FFFF);
}

TEST_CASE("Fixed counters: instructions, core cycles, reference cycles, while enabled [SDM 3B 18.2.2]") {
    Counters t;
    t.wrmsr(Msr::IA32_FIXED_CTR_CTRL, 0x333);
    SUBCASE("globally off") {
        t.run(five_nops);
        CHECK(t.rdmsr(Msr::IA32_FIXED_CTR0) == 0);
    }
    SUBCASE("on") {
        t.wrmsr(Msr::IA32_PERF_GLOBAL_CTRL, all_counters);
        t.run(five_nops);
        CHECK(t.rdmsr(Msr::IA32_FIXED_CTR0) == 6);
        CHECK(t.rdmsr(Msr::IA32_FIXED_CTR1) == 6);
        CHECK(t.rdmsr(Msr::IA32_FIXED_CTR2) == 6);
        // A halted processor has no cycles.
        t.cpu.run(t.cpu.now() + 1000, t.cpu.now() + 2000);
        CHECK(t.rdmsr(Msr::IA32_FIXED_CTR2) == 6);
    }
}

TEST_CASE("General counters: the architectural events; others count nothing [SDM 3B Table 18-1]") {
    const struct {
        u64 select, expected;
    } cases[] = {
        {instructions | enable | supervisor, 6},
        {cycles | enable | supervisor, 6},
        {reference_cycles | enable | supervisor, 6},
        {0xC4 | enable | supervisor, 0},
        {instructions | enable, 0},        // at no privilege level
        {instructions | supervisor, 0},    // not enabled
        {instructions | enable | user, 0}, // CPL is 0
        {instructions | enable | supervisor | edge, 0},
        {instructions | enable | supervisor | 1 << 24, 6},          // cycles with at least one instruction
        {instructions | enable | supervisor | 2 << 24, 0},          // ... two
        {instructions | enable | supervisor | 2 << 24 | invert, 6}, // ... fewer than two
        {instructions | enable | supervisor | 1 << 24 | invert, 0},
    };
    for (const auto& c : cases) {
        CAPTURE(c.select);
        Counters t;
        REQUIRE(t.wrmsr(Msr::IA32_PERFEVTSEL0, c.select));
        t.run(five_nops);
        CHECK(t.rdmsr(Msr::IA32_PMC0) == c.expected);
    }
}

TEST_CASE("Counters: an instruction that faults does not retire, nor does the delivery of its exception") {
    Counters t;
    t.wrmsr(Msr::IA32_PERFEVTSEL0, instructions | enable | supervisor);
    t.wrmsr(Msr::IA32_PERFEVTSEL1, cycles | enable | supervisor);
    t.run(code("90 0f 0b", "nop; ud2"));
    REQUIRE(t.vector_reached() == 6);
    CHECK(t.rdmsr(Msr::IA32_PMC0) == 2); // NOP, and the handler's HLT
    CHECK(t.rdmsr(Msr::IA32_PMC1) == 3);
}

TEST_CASE("Counters: USR and OS by CPL [SDM 3B 18.2.1.1]") {
    Counters t;
    t.wrmsr(Msr::IA32_PERFEVTSEL0, instructions | enable | supervisor);
    t.wrmsr(Msr::IA32_PERFEVTSEL1, instructions | enable | user);
    t.wrmsr(Msr::IA32_PERFEVTSEL2, instructions | enable | user | supervisor);
    t.enter_ring3();
    t.write(Harness::tss_address + 4, Harness::stack_top - 0x800); // RSP0
    t.run(code("90 90 90 0f 0b", "nop; nop; nop; ud2"));
    REQUIRE(t.vector_reached() == 6);
    CHECK(t.rdmsr(Msr::IA32_PMC0) == 1);
    CHECK(t.rdmsr(Msr::IA32_PMC1) == 3);
    CHECK(t.rdmsr(Msr::IA32_PMC2) == 4);
}

TEST_CASE("Overflow: status, interrupt at the instruction, clearing [SDM 3B 18.2.2]") {
    Counters t;
    t.wrmsr(Msr::IA32_PMC0, 0xFFFF'FFFD);
    t.wrmsr(Msr::IA32_PERFEVTSEL0, instructions | enable | supervisor | interrupt);
    SUBCASE("general counter") {
        t.run(five_nops);
        CHECK(t.pmi.count == 1);
        CHECK(t.pmi.rip == Harness::code_address + 3);
        CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_STATUS) == 1);
        CHECK(t.rdmsr(Msr::IA32_PMC0) == 3);
        CHECK(t.wrmsr(Msr::IA32_PERF_GLOBAL_OVF_CTRL, 1));
        CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_STATUS) == 0);
    }
    SUBCASE("without INT there is no interrupt") {
        t.wrmsr(Msr::IA32_PERFEVTSEL0, instructions | enable | supervisor);
        t.run(five_nops);
        CHECK(t.pmi.count == 0);
        CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_STATUS) == 1);
    }
    SUBCASE("freeze on PMI: all counters stop [18.2.2.1]") {
        REQUIRE(t.wrmsr(Msr::IA32_DEBUGCTL, bit(12)));
        t.run(five_nops);
        CHECK(t.pmi.count == 1);
        CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_CTRL) == 0);
        CHECK(t.rdmsr(Msr::IA32_PMC0) == 0);
    }
    SUBCASE("fixed counter") {
        t.wrmsr(Msr::IA32_PERFEVTSEL0, 0);
        t.wrmsr(Msr::IA32_FIXED_CTR1, 0xFFFF'FFFF'FFFE);
        t.wrmsr(Msr::IA32_FIXED_CTR_CTRL, 0xB0);
        t.wrmsr(Msr::IA32_PERF_GLOBAL_CTRL, all_counters);
        t.run(five_nops);
        CHECK(t.pmi.count == 1);
        CHECK(t.pmi.rip == Harness::code_address + 2);
        CHECK(t.rdmsr(Msr::IA32_PERF_GLOBAL_STATUS) == bit(33));
    }
}

TEST_CASE("RDPMC: general and fixed counters; CR4.PCE; counters that are not there [SDM 2B RDPMC]") {
    Counters t;
    t.wrmsr(Msr::IA32_PMC3, 0x8765'4321);
    t.wrmsr(Msr::IA32_FIXED_CTR2, 0x1234'5678'9ABC);
    const Code rdpmc = code("0f 33", "rdpmc");
    t.cpu.r[RCX] = 3;
    CHECK(t.step(rdpmc) == Stop{});
    CHECK(t.cpu.r[RAX] == 0x8765'4321);
    CHECK(t.cpu.r[RDX] == 0xFFFF);
    t.cpu.r[RCX] = 0x4000'0002;
    CHECK(t.step(rdpmc) == Stop{});
    CHECK(t.cpu.r[RAX] == 0x5678'9ABC);
    CHECK(t.cpu.r[RDX] == 0x1234);
    for (const u64 index : {u64{4}, u64{0x4000'0003}, u64{0x8000'0000}}) {
        t.cpu.r[RCX] = index;
        CHECK(t.step(rdpmc) == general_protection(0));
    }
    Counters ring3;
    ring3.enter_ring3();
    CHECK(ring3.step(rdpmc) == general_protection(0));
    Counters allowed;
    allowed.enter_ring3();
    allowed.cpu.control.cr4 |= CR4::PCE;
    CHECK(allowed.step(rdpmc) == Stop{});
}
