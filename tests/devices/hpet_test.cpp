// The HPET: counter, comparators, periodic mode, legacy replacement.
#include "devices/hpet.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct HpetHarness {
    FakeTime time;
    FakeLine irq0, irq8, gsi20, gsi23;
    Hpet hpet{time.clock, routes(), irq0, irq8};
    std::array<InterruptLine*, 32> routes() {
        std::array<InterruptLine*, 32> result{};
        result[20] = &gsi20;
        result[23] = &gsi23;
        return result;
    }
    u64 read(u64 offset, unsigned size = 8) { return hpet.mmio_read(offset, size); }
    void write(u64 offset, u64 value, unsigned size = 8) { hpet.mmio_write(offset, size, value); }
};

constexpr u64 to_gsi20 = 20 << 9, to_gsi23 = 23 << 9, enable = 4, level = 2, periodic = 8, set_value = 0x40,
              bits32 = 0x100;

} // namespace

TEST_CASE("HPET: capabilities: 100 ns, three comparators of 64 bits, legacy replacement [HPET 2.3.4]") {
    HpetHarness t;
    CHECK(t.read(0) == 0x05F5'E100'8086'A201);
    CHECK(t.read(4, 4) == 100'000'000);
    CHECK(t.read(0x100) == (u64{0x90'0000} << 32 | 0x30));
}

TEST_CASE("HPET: the counter runs while enabled, and can be set while it stands [HPET 2.3.7]") {
    HpetHarness t;
    t.time.run(1000);
    CHECK(t.read(0xF0) == 0);
    t.write(0x10, 1);
    t.time.run(1'000'050);
    CHECK(t.read(0xF0) == 10'000);
    t.write(0x10, 0);
    t.time.run(1'000'000);
    CHECK(t.read(0xF0) == 10'000);
    t.write(0xF0, 0xFFFF'FFFF);
    t.write(0x10, 1);
    t.time.run(100);
    CHECK(t.read(0xF0) == 0x1'0000'0000);
    CHECK(t.read(0xF4, 4) == 1);
}

TEST_CASE("HPET: one-shot, edge-triggered, at its exact tick [HPET 2.3.9.2.1]") {
    HpetHarness t;
    t.gsi20.time = &t.time;
    t.write(0x100, to_gsi20 | enable);
    t.write(0x108, 500);
    t.write(0x10, 1);
    t.time.run(1'000'000);
    CHECK(t.gsi20.rise_ticks == std::vector<Tick>{50'000});
    CHECK(t.read(0x20) == 0);
    t.write(0x108, 20'000);
    t.time.run(2'000'000);
    CHECK(t.gsi20.rise_ticks == std::vector<Tick>{50'000, 2'000'000});
}

TEST_CASE("HPET: level-triggered, the line stays until its status bit is cleared [HPET 2.3.6]") {
    HpetHarness t;
    t.write(0x120, to_gsi23 | enable | level);
    t.write(0x128, 500);
    t.write(0x10, 1);
    t.time.run(60'000);
    CHECK(t.gsi23.level);
    CHECK(t.read(0x20) == 2);
    t.write(0x20, 1);
    CHECK(t.gsi23.level);
    t.write(0x20, 2);
    CHECK_FALSE(t.gsi23.level);
    CHECK(t.read(0x20) == 0);
}

TEST_CASE("HPET: disabled, a level comparator sets status and drives nothing until enabled [HPET 2.3.8]") {
    HpetHarness t;
    t.write(0x120, to_gsi23 | level);
    t.write(0x128, 500);
    t.write(0x10, 1);
    t.time.run(60'000);
    CHECK(t.read(0x20) == 2);
    CHECK_FALSE(t.gsi23.level);
    t.write(0x120, to_gsi23 | level | enable);
    CHECK(t.gsi23.level);
    t.write(0x120, to_gsi20 | level | enable);
    CHECK_FALSE(t.gsi23.level);
    CHECK(t.gsi20.level);
}

TEST_CASE("HPET: periodic, started through the accumulator, does not drift [HPET 2.3.9.2.2]") {
    HpetHarness t;
    t.gsi20.time = &t.time;
    t.write(0x10, 1);
    t.write(0x100, to_gsi20 | enable | periodic | set_value | bits32, 4);
    t.write(0x108, 1000, 4);
    t.write(0x108, 300, 4);
    CHECK(t.read(0x108) == 1000);
    CHECK((t.read(0x100) & set_value) == 0);
    t.time.run_to(1'000'000);
    REQUIRE(t.gsi20.rise_ticks.size() == 31);
    for (u64 n = 0; n < 31; ++n) CHECK(t.gsi20.rise_ticks[n] == 100'000 + n * 30'000);
    CHECK(t.read(0x108) == 1000 + 31 * 300);
}

TEST_CASE("HPET: a 32-bit comparator matches modulo 2^32 [HPET 2.3.8]") {
    HpetHarness t;
    t.write(0xF0, 0x5'FFFF'FFF0);
    t.write(0x100, to_gsi20 | enable | bits32);
    t.write(0x108, 0x10);
    CHECK(t.read(0x108) == 0x10);
    t.write(0x10, 1);
    t.time.run(31 * 100);
    CHECK(t.gsi20.rises == 0);
    t.time.run(100);
    CHECK(t.gsi20.rises == 1);
}

TEST_CASE("HPET: legacy replacement takes interrupts 0 and 8 from PIT and RTC [HPET 2.4.1]") {
    HpetHarness t;
    t.hpet.pit_input().set(true);
    CHECK(t.irq0.level);
    t.write(0x10, 3);
    CHECK_FALSE(t.irq0.level);
    t.hpet.pit_input().set(false);
    t.hpet.pit_input().set(true);
    t.hpet.rtc_input().set(true);
    CHECK_FALSE(t.irq0.level);
    CHECK_FALSE(t.irq8.level);
    t.write(0x100, to_gsi20 | enable);
    t.write(0x108, 100);
    t.write(0x120, enable);
    t.write(0x128, 200);
    t.time.run(15'000);
    CHECK(t.irq0.rises == 2);
    CHECK(t.gsi20.rises == 0);
    CHECK_FALSE(t.irq8.level);
    t.time.run(10'000);
    CHECK(t.irq8.level);
    t.write(0x10, 1);
    CHECK(t.irq0.level); // the PIT again
    CHECK(t.irq8.level);
}

TEST_CASE("HPET: any values in any register neither loop nor trap") {
    for (const u64 value : {u64{0}, u64{1}, ~u64{0}, u64{0x14E}, u64{0x3F0C}, u64{1} << 63})
        for (u64 offset = 0; offset < 0x400; offset += 4) {
            HpetHarness t;
            t.write(0x10, 3);
            t.write(0x100, enable | periodic | bits32 | set_value);
            t.write(0x108, 1);
            t.write(offset, value, 4);
            t.write(offset & ~u64{7}, value);
            t.time.run(1000);
            t.read(offset, 4);
        }
}

TEST_CASE("HPET: saved and restored, it is the same") {
    HpetHarness a, b;
    a.write(0x10, 1);
    a.write(0x100, to_gsi20 | enable | periodic | set_value);
    a.write(0x108, 1000);
    a.time.run(123'456);
    const Saver saved = save(a.hpet);
    Restorer restorer(saved);
    b.hpet.visit(restorer);
    CHECK(save(b.hpet).values == saved.values);
}
