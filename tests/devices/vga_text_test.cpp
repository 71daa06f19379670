// VGA text memory, CRT controller registers, retrace bits.
#include "devices/vga_text.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

TEST_CASE("VGA text: what is written is on the screen, from the start address on") {
    FakeTime time;
    VgaText vga(time.clock);
    CHECK(vga.screen()[0] == std::string(80, ' '));
    vga.mmio_write(0, 8, 0x0721'0721'0769'0748);
    CHECK(vga.screen()[0].substr(0, 5) == "Hi!! ");
    CHECK(vga.mmio_read(2, 2) == 0x0769);
    vga.port_write(0x3D4, 2, 0x010D);
    CHECK(vga.screen()[0].substr(0, 4) == "i!! ");
    vga.port_write(0x3D4, 2, 0xFF0C);
    vga.mmio_write(0x7FFF, 8, ~u64{0});
    CHECK(vga.screen().size() == 25);
}

TEST_CASE("VGA text: CRT controller registers, and the lock of 0 to 7") {
    FakeTime time;
    VgaText vga(time.clock);
    vga.port_write(0x3D4, 2, 0x340E);
    CHECK(vga.port_read(0x3D4, 2) == 0x340E);
    vga.port_write(0x3D4, 2, 0x8011);
    vga.port_write(0x3D4, 2, 0x5500);
    CHECK(vga.port_read(0x3D5, 1) == 0);
    vga.port_write(0x3D4, 2, 0x55FF);
    CHECK(vga.port_read(0x3D5, 1) == 0);
}

TEST_CASE("VGA text: the retrace bit comes and goes") {
    FakeTime time;
    VgaText vga(time.clock);
    unsigned seen = 0;
    for (unsigned i = 0; i < 1000; ++i) {
        time.run(20'000);
        seen |= 1u << (vga.port_read(0x3DA, 1) & 9);
    }
    CHECK(seen == ((1u << 0) | (1u << 1) | (1u << 9)));
}
