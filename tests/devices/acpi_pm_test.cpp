// ACPI fixed hardware: timer, SCI, power button, S5, reset register.
#include "devices/acpi_pm.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct AcpiHarness {
    explicit AcpiHarness(AcpiPmOptions options = {})
        : pm(
              time.clock, sci, [this] { ++offs; }, [this] { ++resets; }, options) {}
    FakeTime time;
    FakeLine sci;
    unsigned offs = 0, resets = 0;
    AcpiPm pm;
    void out(u16 port, unsigned size, u32 value) { pm.port_write(port, size, value); }
    u32 in(u16 port, unsigned size) { return pm.port_read(port, size); }
};

} // namespace

TEST_CASE("ACPI timer: 3.579545 MHz, 32 or 24 bits [ACPI 4.8.3.3]") {
    AcpiHarness t, old({.timer_32bit = false});
    for (AcpiHarness* h : {&t, &old}) {
        CHECK(h->in(0x608, 4) == 0);
        h->time.run_to(ticks_per_second);
        CHECK(h->in(0x608, 4) == 3'579'545);
        h->time.run_to(10 * ticks_per_second);
    }
    CHECK(t.in(0x608, 4) == 35'795'450);
    CHECK(old.in(0x608, 4) == 35'795'450 % (1 << 24));
}

TEST_CASE("ACPI timer: its top bit sets TMR_STS and, enabled, raises SCI [ACPI 4.8.3.3]") {
    AcpiHarness t({.timer_32bit = false});
    t.out(0x602, 2, 0x0001);
    const Tick change = (u64{1} << 23) * ticks_per_second / AcpiPm::timer_frequency + 1;
    t.time.run_to(change - 1);
    CHECK_FALSE(t.sci.level);
    t.time.run_to(change);
    CHECK(t.sci.level);
    CHECK((t.in(0x600, 2) & 1) == 1);
    t.out(0x600, 2, 1);
    CHECK_FALSE(t.sci.level);
    t.time.run_to(2 * change);
    CHECK(t.sci.level);
}

TEST_CASE("ACPI: the power button sets its status bit and raises SCI when enabled [ACPI 4.8.3.1.1]") {
    AcpiHarness t;
    t.pm.press_power_button();
    CHECK_FALSE(t.sci.level);
    t.out(0x602, 2, 0x0100);
    CHECK(t.sci.level);
    t.out(0x600, 4, 0x0100'0100); // status and enable in one access
    CHECK_FALSE(t.sci.level);
    CHECK(t.in(0x600, 4) == 0x0100'0000);
}

TEST_CASE("ACPI: SLP_EN with the type of S5 powers off; other types do nothing [ACPI 16.1]") {
    AcpiHarness t;
    t.out(0x604, 2, 0x0401);
    t.out(0x604, 2, 0x2401);
    CHECK(t.offs == 0);
    t.out(0x604, 2, 0x0001);
    CHECK(t.offs == 0);
    t.out(0x604, 2, 0x2001);
    CHECK(t.offs == 1);
    CHECK((t.in(0x604, 2) & 0x2000) == 0); // write only
}

TEST_CASE("ACPI: SCI_EN through the SMI command port [ACPI 4.8.2.5]") {
    AcpiHarness t({.sci_enabled = false});
    t.out(0x602, 2, 0x0100);
    t.pm.press_power_button();
    CHECK((t.in(0x604, 2) & 1) == 0);
    CHECK_FALSE(t.sci.level);
    t.out(0xB2, 1, 2);
    CHECK((t.in(0x604, 2) & 1) == 1);
    CHECK(t.sci.level);
    t.out(0x604, 2, 0); // not for software to change
    CHECK((t.in(0x604, 2) & 1) == 1);
    t.out(0xB2, 1, 3);
    CHECK_FALSE(t.sci.level);
}

TEST_CASE("reset control register: RST_CPU from 0 to 1 resets [ICH9 13.7.5]") {
    AcpiHarness t;
    t.out(0xCF9, 1, 0x02);
    CHECK(t.resets == 0);
    CHECK(t.in(0xCF9, 1) == 0x02);
    t.out(0xCF9, 1, 0x06);
    CHECK(t.resets == 1);
}

TEST_CASE("ACPI: saved and restored, it is the same") {
    AcpiHarness a, b;
    a.out(0x602, 2, 0x0101);
    a.out(0x628, 4, 0x1234);
    a.time.run(12'345'678);
    const Saver saved = save(a.pm);
    Restorer restorer(saved);
    b.pm.visit(restorer);
    CHECK(save(b.pm).values == saved.values);
}
