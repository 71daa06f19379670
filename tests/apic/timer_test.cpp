// The APIC timer in its three modes, to the tick.
#include "tests/apic/apic_harness.hpp"

using namespace exeunt;
using namespace exeunt::test;
using Reg = LocalApic::Register;

TEST_CASE("APIC timer: one-shot counts down once and interrupts at zero [SDM 3A 10.5.4]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::DIVIDE_CONFIG, 0xB); // by 1: a count is 10 ticks
    t.write(Reg::LVT_TIMER, 0x50);
    t.write(Reg::INITIAL_COUNT, 100);
    CHECK(t.read(Reg::CURRENT_COUNT) == 100);
    t.time.run_to(9);
    CHECK(t.read(Reg::CURRENT_COUNT) == 100);
    t.time.run_to(10);
    CHECK(t.read(Reg::CURRENT_COUNT) == 99);
    t.time.run_to(999);
    CHECK_FALSE(t.request(0x50));
    t.time.run_to(1000);
    CHECK(t.request(0x50));
    CHECK(t.read(Reg::CURRENT_COUNT) == 0);
    CHECK(t.apic().acknowledge() == 0x50);
    t.write(Reg::EOI, 0);
    t.time.run(10'000);
    CHECK_FALSE(t.apic().interrupt_pending());
}

TEST_CASE("APIC timer: the divide configuration [SDM 3A Figure 10-10]") {
    const std::pair<u32, u32> settings[] = {{0x0, 2},  {0x1, 4},  {0x2, 8},   {0x3, 16},
                                            {0x8, 32}, {0x9, 64}, {0xA, 128}, {0xB, 1}};
    for (const auto& [code, divisor] : settings) {
        ApicHarness t;
        t.write(Reg::DIVIDE_CONFIG, code);
        t.write(Reg::INITIAL_COUNT, 1000);
        t.time.run(10 * divisor * 7);
        CHECK(t.read(Reg::CURRENT_COUNT) == 993);
    }
}

TEST_CASE("APIC timer: periodic reloads and never drifts [SDM 3A 10.5.4]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::DIVIDE_CONFIG, 0xB);
    t.write(Reg::LVT_TIMER, 0x2'0050);
    t.write(Reg::INITIAL_COUNT, 100);
    for (unsigned i = 1; i <= 5; ++i) {
        t.time.run_to(i * 1000 - 1);
        CHECK_FALSE(t.request(0x50));
        t.time.run_to(i * 1000);
        CHECK(t.request(0x50));
        CHECK(t.read(Reg::CURRENT_COUNT) == 100);
        t.apic().acknowledge();
        t.write(Reg::EOI, 0);
    }
    t.write(Reg::INITIAL_COUNT, 0);
    t.time.run(10'000);
    CHECK_FALSE(t.request(0x50));
    CHECK(t.read(Reg::CURRENT_COUNT) == 0);
}

TEST_CASE("APIC timer: masked it counts; an expiry while masked is lost [SDM 3A 10.5.4]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::DIVIDE_CONFIG, 0xB);
    t.write(Reg::INITIAL_COUNT, 100);
    t.time.run(500);
    CHECK(t.read(Reg::CURRENT_COUNT) == 50);
    t.time.run(1000);
    t.write(Reg::LVT_TIMER, 0x50);
    t.time.run(10'000);
    CHECK_FALSE(t.request(0x50));
    t.write(Reg::LVT_TIMER, 0x3'0050); // periodic and masked
    t.write(Reg::INITIAL_COUNT, 100);
    t.time.run(2500);
    CHECK(t.read(Reg::CURRENT_COUNT) == 50);
    t.write(Reg::LVT_TIMER, 0x2'0050);
    t.time.run(499);
    CHECK_FALSE(t.request(0x50));
    t.time.run(1);
    CHECK(t.request(0x50));
}

TEST_CASE("APIC timer: changing the divider keeps the count that is left [SDM 3A 10.5.4]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::DIVIDE_CONFIG, 0xB);
    t.write(Reg::LVT_TIMER, 0x50);
    t.write(Reg::INITIAL_COUNT, 100);
    t.time.run(500);
    t.write(Reg::DIVIDE_CONFIG, 0x0);
    t.time.run(999);
    CHECK_FALSE(t.request(0x50));
    t.time.run(1);
    CHECK(t.request(0x50));
}

TEST_CASE("APIC timer: TSC-deadline fires at the deadline and disarms itself [SDM 3A 10.5.4.1]") {
    ApicHarness t;
    t.tsc.offset = 1'000'000;
    t.enable();
    t.write(Reg::LVT_TIMER, 0x4'0050);
    CHECK(t.apic().write_msr(0x6E0, 1'005'000));
    CHECK(t.msr(0x6E0) == 1'005'000);
    t.write(Reg::INITIAL_COUNT, 7);
    CHECK(t.read(Reg::INITIAL_COUNT) == 0);
    CHECK(t.read(Reg::CURRENT_COUNT) == 0);
    t.time.run_to(4999);
    CHECK_FALSE(t.request(0x50));
    t.time.run_to(5000);
    CHECK(t.request(0x50));
    CHECK(t.msr(0x6E0) == 0);

    SUBCASE("a deadline in the past fires at once") {
        t.apic().acknowledge();
        t.apic().write_msr(0x6E0, 5);
        t.time.run(0);
        CHECK(t.request(0x50));
    }
    SUBCASE("writing 0 disarms") {
        t.apic().acknowledge();
        t.apic().write_msr(0x6E0, 1'100'000);
        t.apic().write_msr(0x6E0, 0);
        t.time.run(1'000'000);
        CHECK_FALSE(t.request(0x50));
    }
    SUBCASE("setting the TSC moves the deadline") {
        t.apic().acknowledge();
        t.apic().write_msr(0x6E0, 1'100'000);
        t.tsc.offset += 90'000;
        t.apic().tsc_offset_changed();
        t.time.run_to(10'000);
        CHECK(t.request(0x50));
    }
    SUBCASE("a TSC set past the deadline leaves it to fire, whoever looks") {
        t.apic().acknowledge();
        t.apic().write_msr(0x6E0, 1'100'000);
        t.tsc.offset += 200'000;
        CHECK(t.msr(0x6E0) == 1'100'000);
        t.apic().tsc_offset_changed();
        t.time.run(0);
        CHECK(t.request(0x50));
        CHECK(t.msr(0x6E0) == 0);
    }
    SUBCASE("masked, a deadline that passed is gone") {
        t.apic().acknowledge();
        t.write(Reg::LVT_TIMER, 0x5'0050);
        t.apic().write_msr(0x6E0, 1'010'000);
        CHECK(t.msr(0x6E0) == 1'010'000);
        t.time.run(100'000);
        CHECK(t.msr(0x6E0) == 0);
        t.write(Reg::LVT_TIMER, 0x4'0050);
        t.time.run(100'000);
        CHECK_FALSE(t.request(0x50));
    }
    SUBCASE("leaving the mode disarms") {
        t.apic().acknowledge();
        t.apic().write_msr(0x6E0, 1'100'000);
        t.write(Reg::LVT_TIMER, 0x50);
        CHECK(t.msr(0x6E0) == 0);
        t.time.run(1'000'000);
        CHECK_FALSE(t.request(0x50));
    }
}

TEST_CASE("APIC timer: IA32_TSC_DEADLINE outside its mode is ignored; without the feature it is #GP(0) [SDM "
          "3A 10.5.4.1]") {
    ApicHarness t;
    CHECK(t.apic().write_msr(0x6E0, 5));
    CHECK(t.msr(0x6E0) == 0);
    ApicHarness old(1, {.tsc_deadline = false});
    u64 value = 0;
    CHECK_FALSE(old.apic().write_msr(0x6E0, 5));
    CHECK_FALSE(old.apic().read_msr(0x6E0, value));
    old.enable();
    old.write(Reg::LVT_TIMER, 0x4'0050);
    CHECK(old.read(Reg::LVT_TIMER) == 0x50);
}

TEST_CASE("APIC timer: an interrupt in a count of one never starves the clock") {
    ApicHarness t;
    t.enable();
    t.write(Reg::DIVIDE_CONFIG, 0xB);
    t.write(Reg::LVT_TIMER, 0x2'0050);
    t.write(Reg::INITIAL_COUNT, 1);
    t.time.tick = 1'000'000; // late by many periods
    t.time.clock.run_due();
    CHECK(t.time.clock.next() == 1'000'010);
}
