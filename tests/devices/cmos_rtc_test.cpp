// The real-time clock: calendar, formats, interrupts, CMOS bytes.
#include "devices/cmos_rtc.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Tick second = ticks_per_second;

struct RtcHarness {
    FakeTime time;
    FakeLine irq;
    CmosRtc rtc;
    explicit RtcHarness(u64 start = CmosRtc::default_start) : rtc(time.clock, irq, start) {}
    u8 read(u8 index) {
        rtc.port_write(0x70, 1, index);
        return static_cast<u8>(rtc.port_read(0x71, 1));
    }
    void write(u8 index, u8 value) {
        rtc.port_write(0x70, 1, index);
        rtc.port_write(0x71, 1, value);
    }
    std::vector<unsigned> date() {
        return {read(0x32), read(9), read(8), read(7), read(4), read(2), read(0)};
    }
};

using Date = std::vector<unsigned>;

} // namespace

TEST_CASE("RTC: starts on 2020-01-01 00:00:00, a Wednesday, in BCD and 24 hours") {
    RtcHarness t;
    CHECK(t.date() == Date{0x20, 0x20, 1, 1, 0, 0, 0});
    CHECK(t.read(6) == 4);
    CHECK(t.read(0x0A) == 0x26);
    CHECK(t.read(0x0B) == 0x02);
    CHECK(t.read(0x0D) == 0x80);
}

TEST_CASE("RTC: the calendar carries through days, months, leap years and centuries") {
    RtcHarness t(CmosRtc::default_start + 58 * 86'400 + 86'399); // 2020-02-28 23:59:59
    CHECK(t.date() == Date{0x20, 0x20, 2, 0x28, 0x23, 0x59, 0x59});
    t.time.run(second);
    CHECK(t.date() == Date{0x20, 0x20, 2, 0x29, 0, 0, 0});
    t.time.run(86'400 * second);
    CHECK(t.date() == Date{0x20, 0x20, 3, 1, 0, 0, 0});
    RtcHarness u(4'102'444'799); // 2099-12-31 23:59:59
    u.time.run(second);
    CHECK(u.date() == Date{0x21, 0, 1, 1, 0, 0, 0});
    u.time.run(59 * 86'400 * second); // 2100 is no leap year
    CHECK(u.date() == Date{0x21, 0, 3, 1, 0, 0, 0});
}

TEST_CASE("RTC: update in progress before each second [MC146818A UIP]") {
    RtcHarness t;
    t.time.run_to(second - 244'001);
    CHECK((t.read(0x0A) & 0x80) == 0);
    t.time.run_to(second - 244'000);
    CHECK((t.read(0x0A) & 0x80) != 0);
    t.time.run_to(second);
    CHECK((t.read(0x0A) & 0x80) == 0);
}

TEST_CASE("RTC: SET stops the calendar; what was written goes on after it, in step with the divider "
          "[MC146818A SET]") {
    RtcHarness t;
    t.time.run_to(second / 4);
    t.write(0x0B, 0x82);
    t.time.run(10 * second);
    CHECK(t.read(0) == 0);
    t.write(0, 0x58);
    t.write(2, 0x59);
    t.write(4, 0x23);
    t.write(7, 0x31);
    t.write(8, 0x12);
    t.write(9, 0x99);
    t.write(0x32, 0x19);
    t.write(0x0B, 0x02);
    CHECK(t.date() == Date{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58});
    t.time.run(3 * second / 4);
    CHECK(t.read(0) == 0x59);
    t.time.run(second);
    CHECK(t.date() == Date{0x20, 0, 1, 1, 0, 0, 0});
    CHECK(t.read(6) == 7); // a Saturday
}

TEST_CASE("RTC: binary mode and 12 hours [MC146818A]") {
    RtcHarness t(CmosRtc::default_start + 13 * 3600 + 45 * 60);
    t.write(0x0B, 0x06);
    CHECK(t.read(4) == 13);
    CHECK(t.read(2) == 45);
    t.write(0x0B, 0x00);
    CHECK(t.read(4) == 0x81);
    t.write(0x0B, 0x04);
    t.write(4, 0x80 | 12); // noon
    t.write(0x0B, 0x06);
    CHECK(t.read(4) == 12);
    t.write(0x0B, 0x04);
    t.write(4, 12); // midnight
    t.write(0x0B, 0x06);
    CHECK(t.read(4) == 0);
}

TEST_CASE("RTC: the update-ended interrupt comes every second until C is read [MC146818A UIE]") {
    RtcHarness t;
    t.write(0x0B, 0x12);
    t.time.run_to(second - 1);
    CHECK_FALSE(t.irq.level);
    t.time.run_to(second);
    CHECK(t.irq.level);
    t.time.run(5 * second);
    CHECK(t.irq.rises == 1);
    CHECK((t.read(0x0C) & 0x90) == 0x90);
    CHECK_FALSE(t.irq.level);
    CHECK(t.read(0x0C) == 0);
    t.time.run(second);
    CHECK(t.irq.rises == 2);
    t.write(0x0B, 0x92); // SET clears UIE
    CHECK(t.read(0x0B) == 0x82);
}

TEST_CASE("RTC: the periodic interrupt at 1024 Hz does not drift [MC146818A PIE]") {
    RtcHarness t;
    t.irq.time = &t.time;
    t.write(0x0B, 0x42);
    for (unsigned i = 0; i < 1024; ++i) {
        while (!t.irq.level) t.time.run_to(t.time.clock.next());
        CHECK((t.read(0x0C) & 0xC0) == 0xC0);
    }
    CHECK(t.time.tick == second);
    t.write(0x0A, 0x2F); // 2 Hz
    t.irq.rise_ticks.clear();
    t.time.run(second);
    REQUIRE(t.irq.rise_ticks.size() == 1);
    CHECK(t.irq.rise_ticks[0] == second + second / 2);
}

TEST_CASE("RTC: the alarm matches, with wildcards [MC146818A AIE]") {
    RtcHarness t;
    t.write(1, 0x30);
    t.write(3, 0x02);
    t.write(5, 0x01);
    t.write(0x0B, 0x22);
    t.time.run_to(3749 * second);
    CHECK_FALSE(t.irq.level);
    t.time.run_to(3750 * second);
    CHECK(t.irq.level);
    CHECK((t.read(0x0C) & 0xA0) == 0xA0);
    t.write(3, 0xC0);
    t.write(5, 0xFF);
    t.time.run(60 * second);
    CHECK(t.irq.level);
    t.read(0x0C);
    t.write(1, 0x75); // no such second
    t.time.run(200'000 * second);
    CHECK_FALSE(t.irq.level);
}

TEST_CASE("RTC: flags are set without their enables [MC146818A register C]") {
    RtcHarness t;
    t.read(0x0C);
    t.time.run(second);
    CHECK(t.read(0x0C) == 0x50);
    CHECK(t.irq.rises == 0);
}

TEST_CASE("RTC: memory sizes where firmware and kernels look; checksum; port 70H masks NMI") {
    RtcHarness t;
    t.rtc.set_memory_size(u64{3} << 30, u64{5} << 30);
    CHECK(t.read(0x15) == 0x80);
    CHECK(t.read(0x16) == 0x02);
    CHECK(t.read(0x17) == 0xFF);
    CHECK(t.read(0x34) == 0x00);
    CHECK(t.read(0x35) == 0xBF);
    CHECK(t.read(0x5B) == 0x00);
    CHECK(t.read(0x5C) == 0x40);
    CHECK(t.read(0x5D) == 0x01);
    unsigned sum = 0;
    for (u8 i = 0x10; i <= 0x2D; ++i) sum += t.read(i);
    CHECK((t.read(0x2E) << 8 | t.read(0x2F)) == sum);
    t.rtc.port_write(0x70, 1, 0x8F);
    CHECK(t.rtc.nmi_masked());
    t.rtc.port_write(0x70, 2, 0xA50F);
    CHECK(t.read(0x0F) == 0xA5);
    CHECK_FALSE(t.rtc.nmi_masked());
}

TEST_CASE("RTC: any bytes in any register neither loop nor trap; RESET# disables interrupts") {
    for (unsigned value = 0; value < 256; value += 17)
        for (u8 index = 0; index < 14; ++index) {
            RtcHarness t;
            t.write(0x0B, 0x72);
            t.write(index, static_cast<u8>(value));
            t.write(0x32, static_cast<u8>(value));
            t.time.run(2 * second);
            t.date();
            t.rtc.reset();
            CHECK((t.read(0x0B) & 0x70) == 0);
            CHECK_FALSE(t.irq.level);
        }
}

TEST_CASE("RTC: saved and restored, it is the same") {
    RtcHarness a, b;
    a.write(0x0B, 0x12);
    a.time.run(12'345'678'901);
    const Saver saved = save(a.rtc);
    Restorer restorer(saved);
    b.rtc.visit(restorer);
    CHECK(save(b.rtc).values == saved.values);
}
