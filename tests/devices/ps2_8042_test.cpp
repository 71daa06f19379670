// The keyboard controller and its keyboard.
#include "devices/ps2_8042.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct KeyboardHarness {
    FakeLine irq1;
    unsigned resets = 0;
    std::vector<bool> a20;
    Ps2Controller ps2{irq1, [this] { ++resets; }, [this](bool on) { a20.push_back(on); }};
    void out(u16 port, u8 value) { ps2.port_write(port, 1, value); }
    u8 in(u16 port) { return static_cast<u8>(ps2.port_read(port, 1)); }
    bool full() { return in(0x64) & 1; }
    std::vector<unsigned> drain() {
        std::vector<unsigned> bytes;
        while (full()) bytes.push_back(in(0x60));
        return bytes;
    }
};

using Bytes = std::vector<unsigned>;

} // namespace

TEST_CASE("8042: self-test, keyboard test, command byte") {
    KeyboardHarness t;
    CHECK(t.in(0x64) == 0x14);
    t.out(0x64, 0xAA);
    CHECK(t.drain() == Bytes{0x55});
    t.out(0x64, 0xAB);
    CHECK(t.drain() == Bytes{0x00});
    t.out(0x64, 0x60);
    t.out(0x60, 0x30);
    t.out(0x64, 0x20);
    CHECK(t.drain() == Bytes{0x30});
    t.out(0x64, 0x7F);
    t.out(0x60, 0x99);
    t.out(0x64, 0x3F);
    CHECK(t.drain() == Bytes{0x99});
}

TEST_CASE("8042: there is no auxiliary port") {
    KeyboardHarness t;
    t.out(0x64, 0xA9);
    CHECK(t.drain() == Bytes{0x01});
    t.out(0x64, 0xD3);
    t.out(0x60, 0x5A);
    CHECK((t.in(0x64) & 0x21) == 0x01); // not marked as auxiliary data
    CHECK(t.drain() == Bytes{0x5A});
    t.out(0x64, 0xD4);
    t.out(0x60, 0xF2);
    CHECK_FALSE(t.full());
}

TEST_CASE("8042: the keyboard answers its commands") {
    KeyboardHarness t;
    t.out(0x60, 0xFF);
    CHECK(t.drain() == Bytes{0xFA, 0xAA});
    t.out(0x60, 0xF2);
    CHECK(t.drain() == Bytes{0xFA, 0xAB, 0x83});
    t.out(0x60, 0xED);
    CHECK(t.drain() == Bytes{0xFA});
    t.out(0x60, 0x07);
    CHECK(t.drain() == Bytes{0xFA});
    t.out(0x60, 0xEE);
    CHECK(t.drain() == Bytes{0xEE});
    t.out(0x60, 0x01);
    CHECK(t.drain() == Bytes{0xFE});
}

TEST_CASE("8042: keys interrupt, one byte at a time; disabled they wait") {
    KeyboardHarness t;
    t.ps2.key(0x1E);
    t.ps2.key(0x9E);
    CHECK(t.irq1.level);
    CHECK(t.in(0x60) == 0x1E);
    CHECK(t.irq1.level);
    CHECK(t.in(0x60) == 0x9E);
    CHECK_FALSE(t.irq1.level);
    t.out(0x64, 0xAD);
    t.ps2.key(0x1F);
    CHECK_FALSE(t.full());
    t.out(0x64, 0xAE);
    CHECK(t.drain() == Bytes{0x1F});
    t.out(0x60, 0xF5);
    t.drain();
    t.ps2.key(0x20);
    CHECK_FALSE(t.full());
    t.out(0x60, 0xF4);
    for (unsigned i = 0; i < 1000; ++i) t.ps2.key(0x21);
    CHECK(t.drain().size() <= 17);
}

TEST_CASE("8042: the reset line and the A20 gate") {
    KeyboardHarness t;
    t.out(0x64, 0xFF);
    CHECK(t.resets == 0);
    t.out(0x64, 0xFE);
    CHECK(t.resets == 1);
    t.out(0x64, 0xD1);
    t.out(0x60, 0x01);
    CHECK(t.a20 == std::vector<bool>{false});
    CHECK(t.in(0x92) == 0);
    t.out(0x92, 0x02);
    CHECK(t.a20 == std::vector<bool>{false, true});
    t.out(0x92, 0x03);
    CHECK(t.resets == 2);
    CHECK((t.ps2.port_read(0x60, 2) >> 8) == 0xFF);
}

TEST_CASE("8042: every command byte is harmless; saved and restored, it is the same") {
    KeyboardHarness a, b;
    for (unsigned command = 0; command < 256; ++command)
        for (const u8 data : {u8{0x01}, u8{0xFF}, u8{0x33}}) {
            a.out(0x64, static_cast<u8>(command));
            a.out(0x60, data);
            a.out(0x60, static_cast<u8>(command));
        }
    const Saver saved = save(a.ps2);
    Restorer restorer(saved);
    b.ps2.visit(restorer);
    CHECK(save(b.ps2).values == saved.values);
}
