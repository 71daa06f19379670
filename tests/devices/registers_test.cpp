// Every register of the devices that have row tables: reset value, bits that stay, bits that a written one
// clears.
#include "devices/acpi_pm.hpp"
#include "devices/hpet.hpp"
#include "devices/pci_host.hpp"
#include "devices/serial_16550.hpp"
#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct SerialUnderTest {
    FakeTime time;
    FakeLine irq;
    Serial16550 device{time.clock, irq, [](u8) {}};
    static constexpr auto rows = Serial16550::rows;
    u64 read(const RegisterRow& row) {
        return device.port_read(static_cast<u16>(0x3F8 + row.offset), row.bytes);
    }
    void write(const RegisterRow& row, u64 value) {
        device.port_write(static_cast<u16>(0x3F8 + row.offset), row.bytes, static_cast<u32>(value));
    }
};

struct HpetUnderTest {
    FakeTime time;
    FakeLine line;
    Hpet device{time.clock, {&line}, line, line};
    static constexpr auto rows = Hpet::rows;
    u64 read(const RegisterRow& row) { return device.mmio_read(row.offset, row.bytes); }
    void write(const RegisterRow& row, u64 value) { device.mmio_write(row.offset, row.bytes, value); }
};

struct AcpiUnderTest {
    FakeTime time;
    FakeLine sci;
    AcpiPm device{time.clock, sci, [] {}, [] {}};
    static constexpr auto rows = AcpiPm::rows;
    u16 port(const RegisterRow& row, unsigned half) {
        return static_cast<u16>(AcpiPm::base + row.offset + 4 * half);
    }
    u64 read(const RegisterRow& row) {
        if (row.bytes < 8) return device.port_read(port(row, 0), row.bytes);
        return device.port_read(port(row, 0), 4) | u64{device.port_read(port(row, 1), 4)} << 32;
    }
    void write(const RegisterRow& row, u64 value) {
        device.port_write(port(row, 0), row.bytes < 4 ? row.bytes : 4, static_cast<u32>(value));
        if (row.bytes == 8) device.port_write(port(row, 1), 4, static_cast<u32>(value >> 32));
    }
};

} // namespace

TEST_CASE_TEMPLATE("every register resets and masks as its row says", Under, SerialUnderTest, HpetUnderTest,
                   AcpiUnderTest) {
    for (const RegisterRow& row : Under::rows) {
        Under t;
        CAPTURE(row.name);
        CHECK(t.read(row) == row.reset);
        t.write(row, row.mask());
        CHECK(t.read(row) == row.written(row.reset, row.mask()));
        t.write(row, 0);
        CHECK(t.read(row) == row.written(row.written(row.reset, row.mask()), 0));
        t.write(row, row.mask());
        t.device.reset();
        CHECK(t.read(row) == row.reset);
    }
}

TEST_CASE("register rows: offsets are unique and bits are not both writable and cleared by ones") {
    const auto check = [](const auto& rows) {
        for (const RegisterRow& a : rows) {
            CHECK((a.writable & a.write_one_to_clear) == 0);
            CHECK((a.reset & ~a.mask()) == 0);
            for (const RegisterRow& b : rows) CHECK((&a == &b || a.offset != b.offset));
        }
    };
    check(Serial16550::rows);
    check(Hpet::rows);
    check(AcpiPm::rows);
}
