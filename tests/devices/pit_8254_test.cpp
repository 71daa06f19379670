// The 8254: six modes to the cycle, gates, latches, read-back; port 61H.
#include "devices/pit_8254.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct PitHarness {
    FakeTime time;
    FakeLine out0;
    Pit8254 pit{time.clock, out0};
    PitHarness() { out0.time = &time; }
    void out(u16 port, u8 value) { pit.port_write(port, 1, value); }
    u8 in(u16 port) { return static_cast<u8>(pit.port_read(port, 1)); }
    void program(unsigned channel, unsigned mode, u16 count, bool bcd = false) {
        out(0x43, static_cast<u8>(channel << 6 | 0x30 | mode << 1 | (bcd ? 1 : 0)));
        out(static_cast<u16>(0x40 + channel), static_cast<u8>(count));
        out(static_cast<u16>(0x40 + channel), static_cast<u8>(count >> 8));
    }
    /// To the first tick of a cycle counted from tick 0.
    void to_cycle(u64 cycle) {
        time.run_to((cycle * ticks_per_second + Pit8254::frequency - 1) / Pit8254::frequency);
    }
    u16 count(unsigned channel) {
        const u16 port = static_cast<u16>(0x40 + channel);
        out(0x43, static_cast<u8>(channel << 6));
        const u8 low = in(port);
        return static_cast<u16>(low | in(port) << 8);
    }
    u8 status(unsigned channel) {
        out(0x43, static_cast<u8>(0xE0 | 2u << channel));
        return in(static_cast<u16>(0x40 + channel));
    }
    bool out_pin(unsigned channel) { return status(channel) & 0x80; }
};

} // namespace

TEST_CASE("8254 mode 0: OUT goes high when the count ends, once [8254 Mode 0]") {
    PitHarness t;
    t.program(0, 0, 100);
    CHECK_FALSE(t.out0.level);
    t.to_cycle(1);
    CHECK(t.count(0) == 100);
    t.to_cycle(51);
    CHECK(t.count(0) == 50);
    t.to_cycle(100);
    CHECK_FALSE(t.out0.level);
    t.to_cycle(101);
    CHECK(t.out0.level);
    t.to_cycle(103);
    CHECK(t.count(0) == 0xFFFE);
    t.to_cycle(200'000);
    CHECK(t.out0.rises == 1);
    t.out(0x40, 10); // the first byte of a new count lowers OUT
    CHECK_FALSE(t.out0.level);
}

TEST_CASE("8254 mode 2: one pulse in every period; the first and the millionth are on time [8254 Mode 2]") {
    PitHarness t;
    t.program(0, 2, 11932);
    CHECK(t.out0.level);
    t.to_cycle(11932);
    CHECK_FALSE(t.out0.level);
    t.to_cycle(11933);
    CHECK(t.out0.level);
    t.out0.rise_ticks.clear();
    t.to_cycle(1 + 11932 * 1000);
    REQUIRE(t.out0.rise_ticks.size() == 999);
    for (u64 k = 2; k <= 1000; ++k) {
        const u64 cycle = 1 + 11932 * k;
        CHECK(t.out0.rise_ticks[k - 2] ==
              (cycle * ticks_per_second + Pit8254::frequency - 1) / Pit8254::frequency);
    }
}

TEST_CASE("8254 mode 2: a new count is taken at the end of the period [8254 Mode 2]") {
    PitHarness t;
    t.program(0, 2, 100);
    t.to_cycle(51);
    t.out(0x40, 10);
    t.out(0x40, 0);
    CHECK(t.count(0) == 50);
    CHECK((t.status(0) & 0x40) != 0);
    t.to_cycle(101);
    CHECK(t.count(0) == 10);
    CHECK((t.status(0) & 0x40) == 0);
    t.to_cycle(110);
    CHECK_FALSE(t.out0.level);
    t.to_cycle(111);
    CHECK(t.out0.level);
}

TEST_CASE("8254 mode 3: a square wave; an odd count is high one cycle longer [8254 Mode 3]") {
    PitHarness t;
    t.program(0, 3, 7);
    const bool expected[7] = {true, true, true, true, false, false, false};
    const u16 counts[7] = {6, 4, 2, 0, 6, 4, 2};
    for (unsigned i = 0; i < 21; ++i) {
        t.to_cycle(1 + i);
        CAPTURE(i);
        CHECK(t.out0.level == expected[i % 7]);
        CHECK(t.count(0) == counts[i % 7]);
    }
}

TEST_CASE("8254 modes 0 and 4 stop with the gate, modes 2 and 3 start again with it [8254 Gate]") {
    PitHarness t;
    t.out(0x61, 1);
    t.program(2, 0, 1000);
    t.to_cycle(101);
    t.out(0x61, 0);
    CHECK(t.count(2) == 900);
    t.to_cycle(500);
    CHECK(t.count(2) == 900);
    t.out(0x61, 1);
    t.to_cycle(600);
    CHECK(t.count(2) == 800);

    t.program(2, 2, 1000);
    t.to_cycle(701);
    CHECK(t.count(2) == 900);
    t.out(0x61, 0);
    CHECK(t.out_pin(2));
    t.to_cycle(800);
    t.out(0x61, 1);
    t.to_cycle(801);
    CHECK(t.count(2) == 1000);
}

TEST_CASE("8254 modes 1 and 5: the rising gate triggers [8254 Mode 1, Mode 5]") {
    PitHarness t;
    t.program(2, 1, 100);
    t.to_cycle(50);
    CHECK(t.out_pin(2));
    t.out(0x61, 1);
    t.to_cycle(51);
    CHECK_FALSE(t.out_pin(2));
    t.to_cycle(150);
    CHECK_FALSE(t.out_pin(2));
    t.to_cycle(151);
    CHECK(t.out_pin(2));
    t.out(0x61, 0);
    t.out(0x61, 1);
    t.to_cycle(200);
    t.out(0x61, 0);
    t.out(0x61, 1); // retriggered
    t.to_cycle(300);
    CHECK_FALSE(t.out_pin(2));
    t.to_cycle(301);
    CHECK(t.out_pin(2));

    t.program(2, 5, 100);
    t.to_cycle(400);
    t.out(0x61, 0);
    t.out(0x61, 1);
    t.to_cycle(500);
    CHECK(t.out_pin(2));
    t.to_cycle(501);
    CHECK_FALSE(t.out_pin(2));
    t.to_cycle(502);
    CHECK(t.out_pin(2));
}

TEST_CASE("8254 mode 4: a strobe of one cycle [8254 Mode 4]") {
    PitHarness t;
    t.program(0, 4, 100);
    CHECK(t.out0.level);
    t.to_cycle(101);
    CHECK_FALSE(t.out0.level);
    t.to_cycle(102);
    CHECK(t.out0.level);
    t.to_cycle(100'000);
    CHECK(t.out0.rises == 2); // at the control word, and after the strobe
}

TEST_CASE("8254: BCD counts, and 0 is the largest [8254 Operation]") {
    PitHarness t;
    t.program(0, 0, 0x1000, true);
    t.to_cycle(2);
    CHECK(t.count(0) == 0x0999);
    t.program(0, 0, 0, true);
    t.to_cycle(5);
    CHECK(t.count(0) == 0x9998);
    t.program(0, 0, 0);
    t.to_cycle(9);
    CHECK(t.count(0) == 0xFFFD);
}

TEST_CASE("8254: one-byte access, latches and read-back [8254 Read-Back Command]") {
    PitHarness t;
    t.out(0x43, 0x14); // channel 0, low byte only, mode 2
    t.out(0x40, 200);
    t.to_cycle(51);
    CHECK(t.in(0x40) == 150);
    t.out(0x43, 0x00); // latch
    t.to_cycle(61);
    CHECK(t.in(0x40) == 150);
    CHECK(t.in(0x40) == 140);
    t.out(0x43, 0xC2); // read back count and status of channel 0: status first
    CHECK(t.in(0x40) == 0x94);
    CHECK(t.in(0x40) == 140);
    t.program(1, 2, 0x1234);
    t.to_cycle(62);
    t.out(0x43, 0x40);
    t.to_cycle(100);
    CHECK(t.in(0x41) == 0x34);
    CHECK(t.in(0x41) == 0x12);
}

TEST_CASE("port 61H: gate and OUT of channel 2, the refresh toggle [ICH9 13.7.1]") {
    PitHarness t;
    t.out(0x61, 0xFF);
    CHECK((t.in(0x61) & 0x0F) == 0x0F);
    t.program(2, 0, 10);
    CHECK((t.in(0x61) & 0x20) == 0);
    t.to_cycle(20);
    CHECK((t.in(0x61) & 0x20) != 0);
    const u8 before = t.in(0x61) & 0x10;
    t.time.run(15'085);
    CHECK((t.in(0x61) & 0x10) != before);
}

TEST_CASE("8254: every count in every mode neither loops nor traps") {
    for (unsigned mode = 0; mode < 8; ++mode)
        for (const u32 count : {0u, 1u, 2u, 3u, 0xFFFFu, 0x9999u, 0xABCDu})
            for (const bool bcd : {false, true}) {
                PitHarness t;
                t.program(0, mode, static_cast<u16>(count), bcd);
                t.time.run(1'000'000);
                CHECK(t.out0.rises < 1'200'000);
                t.count(0);
            }
}

TEST_CASE("8254: saved and restored, it is the same") {
    PitHarness a, b;
    a.program(0, 2, 1000);
    a.program(2, 3, 55);
    a.time.run(12'345);
    a.out(0x43, 0xC4);
    const Saver saved = save(a.pit);
    Restorer restorer(saved);
    b.pit.visit(restorer);
    CHECK(save(b.pit).values == saved.values);
}
