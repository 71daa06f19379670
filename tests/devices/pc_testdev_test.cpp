// The test device, isa-debug-exit, and lines that join.
#include "devices/debug_exit.hpp"
#include "devices/lines.hpp"
#include "devices/pc_testdev.hpp"
#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct TestdevHarness {
    FakeLine line3;
    std::vector<u64> flushed;
    PcTestdev device{lines(), [this](u64 page) { flushed.push_back(page); }};
    std::array<InterruptLine*, 24> lines() {
        std::array<InterruptLine*, 24> result{};
        result[3] = &line3;
        return result;
    }
};

} // namespace

TEST_CASE("pc-testdev: one latch, seen at E0H and E8H in all sizes") {
    TestdevHarness t;
    t.device.port_write(0xE0, 4, 0x1234'5678);
    CHECK(t.device.port_read(0xE0, 4) == 0x1234'5678);
    CHECK(t.device.port_read(0xE8, 4) == 0x1234'5678);
    t.device.port_write(0xE9, 1, 0xAB);
    CHECK(t.device.port_read(0xE0, 4) == 0x1234'AB78);
    CHECK(t.device.port_read(0xE2, 2) == 0x1234);
    CHECK(t.device.port_read(0xE3, 4) == 0xFFFF'FF12);
}

TEST_CASE("pc-testdev: flush and interrupt lines") {
    TestdevHarness t;
    t.device.port_write(0xE4, 4, 0x0012'3456);
    CHECK(t.flushed == std::vector<u64>{0x0012'3000});
    t.device.port_write(0x2003, 1, 1);
    CHECK(t.line3.level);
    t.device.port_write(0x2003, 4, 0);
    CHECK_FALSE(t.line3.level);
    t.device.port_write(0x2004, 1, 1); // no such line
    t.device.port_write(0x2017, 4, 1);
    t.device.port_write(0x2018, 1, 1);
}

TEST_CASE("pc-testdev: 64 KBytes of memory that are a device; saved and restored") {
    TestdevHarness a, b;
    a.device.mmio_write(0, 8, 0x1122'3344'5566'7788);
    a.device.mmio_write(0xFFFF, 8, 0x99);
    CHECK(a.device.mmio_read(2, 2) == 0);
    CHECK(a.device.mmio_read(0xFFFF, 1) == 0x99);
    a.device.mmio_write(8, 4, 0xCAFE'F00D);
    CHECK(a.device.mmio_read(8, 8) == 0xCAFE'F00D);
    const Saver saved = save(a.device);
    Restorer restorer(saved);
    b.device.visit(restorer);
    CHECK(b.device.mmio_read(8, 4) == 0xCAFE'F00D);
    a.device.reset();
    CHECK(a.device.mmio_read(8, 4) == 0);
}

TEST_CASE("isa-debug-exit: the value goes to the machine") {
    std::vector<u32> values;
    DebugExit device([&](u32 value) { values.push_back(value); });
    device.port_write(0xF4, 4, 0x21);
    CHECK(values == std::vector<u32>{0x21});
}

TEST_CASE("lines: shared is the or of its inputs, split reaches all") {
    FakeLine out, other;
    SplitLine split({&out});
    split.add(other);
    SharedLine shared(split);
    InterruptLine& a = shared.input();
    InterruptLine& b = shared.input();
    a.set(true);
    b.set(true);
    a.set(false);
    CHECK(out.level);
    CHECK(other.level);
    b.set(false);
    CHECK_FALSE(out.level);
    CHECK(out.rises == 1);
}
