// The 8259 pair: priorities, EOI, modes, cascade, poll, ELCR.
#include "devices/pic_8259.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct PicHarness {
    FakeLine intr;
    Pic8259 pic{intr};
    PicHarness(u8 icw4 = 0x01) {
        for (const u16 base : {u16{0x20}, u16{0xA0}}) {
            out(base, 0x11);
            out(base + 1u, base == 0x20 ? 0x30 : 0x38);
            out(base + 1u, base == 0x20 ? 0x04 : 0x02);
            out(base + 1u, icw4);
        }
    }
    void out(unsigned port, u8 value) { pic.port_write(static_cast<u16>(port), 1, value); }
    u8 in(unsigned port) { return static_cast<u8>(pic.port_read(static_cast<u16>(port), 1)); }
    u8 isr(u16 base = 0x20) {
        out(base, 0x0B);
        return in(base);
    }
    u8 irr(u16 base = 0x20) {
        out(base, 0x0A);
        return in(base);
    }
    void raise(unsigned n) { pic.irq(n).set(true); }
    void lower(unsigned n) { pic.irq(n).set(false); }
};

} // namespace

TEST_CASE("8259: before initialization nothing is requested") {
    FakeLine intr;
    Pic8259 pic(intr);
    pic.irq(0).set(true);
    CHECK_FALSE(intr.level);
}

TEST_CASE("8259: an edge requests, INTA serves it, EOI ends it [8259A]") {
    PicHarness t;
    t.raise(4);
    CHECK(t.intr.level);
    CHECK(t.irr() == 0x10);
    CHECK(t.pic.acknowledge() == 0x34);
    CHECK_FALSE(t.intr.level);
    CHECK(t.irr() == 0);
    CHECK(t.isr() == 0x10);
    t.out(0x20, 0x20);
    CHECK(t.isr() == 0);
    CHECK_FALSE(t.intr.level); // still high is no new edge
    t.lower(4);
    t.raise(4);
    CHECK(t.intr.level);
}

TEST_CASE("8259: priorities nest; an equal or lower request waits [8259A Fully Nested Mode]") {
    PicHarness t;
    t.raise(4);
    t.pic.acknowledge();
    t.raise(5);
    CHECK_FALSE(t.intr.level);
    t.raise(1);
    CHECK(t.intr.level);
    CHECK(t.pic.acknowledge() == 0x31);
    CHECK(t.isr() == 0x12);
    t.out(0x20, 0x20); // the highest first
    CHECK(t.isr() == 0x10);
    t.out(0x20, 0x64); // specific EOI of 4
    CHECK(t.isr() == 0);
    CHECK(t.pic.acknowledge() == 0x35);
}

TEST_CASE("8259: masks hold a request back and do not forget it") {
    PicHarness t;
    t.out(0x21, 0x10);
    t.raise(4);
    CHECK_FALSE(t.intr.level);
    CHECK(t.in(0x21) == 0x10);
    t.out(0x21, 0);
    CHECK(t.intr.level);
}

TEST_CASE("8259: a request that went away gives the default vector 7 without in-service bit [8259A]") {
    PicHarness t;
    t.raise(4);
    t.lower(4);
    CHECK_FALSE(t.intr.level);
    CHECK(t.pic.acknowledge() == 0x37);
    CHECK(t.isr() == 0);
}

TEST_CASE("8259: the slave's interrupts come through IR2; each chip needs its EOI [8259A Cascade Mode]") {
    PicHarness t;
    t.raise(12);
    CHECK(t.intr.level);
    CHECK(t.pic.acknowledge() == 0x3C);
    CHECK(t.isr() == 0x04);
    CHECK(t.isr(0xA0) == 0x10);
    t.raise(3);
    CHECK_FALSE(t.intr.level);
    t.out(0xA0, 0x20);
    t.out(0x20, 0x20);
    CHECK(t.pic.acknowledge() == 0x33);
}

TEST_CASE("8259: a higher slave request during a slave service needs special fully nested mode [8259A]") {
    PicHarness plain, nested(0x11);
    for (PicHarness* t : {&plain, &nested}) {
        t->raise(12);
        t->pic.acknowledge();
        t->raise(8);
    }
    CHECK_FALSE(plain.intr.level);
    CHECK(nested.intr.level);
    CHECK(nested.pic.acknowledge() == 0x38);
}

TEST_CASE("8259: a slave request that goes away is the slave's vector 7, with IR2 in service [8259A]") {
    PicHarness t;
    t.out(0xA1, 0);
    t.raise(12);
    t.out(0xA1, 0xFF);
    CHECK_FALSE(t.intr.level);
    CHECK(t.pic.acknowledge() == 0x37); // here the master has nothing either
}

TEST_CASE("8259: automatic EOI leaves nothing in service") {
    PicHarness t(0x03);
    t.raise(4);
    CHECK(t.pic.acknowledge() == 0x34);
    CHECK(t.isr() == 0);
}

TEST_CASE("8259: rotation and set priority [8259A Automatic Rotation, Specific Rotation]") {
    PicHarness t;
    t.raise(0);
    t.raise(1);
    CHECK(t.pic.acknowledge() == 0x30);
    t.out(0x20, 0xA0); // rotate on non-specific EOI: 0 is lowest now
    t.lower(0);
    t.raise(0);
    CHECK(t.pic.acknowledge() == 0x31);
    t.out(0x20, 0x20);
    t.out(0x20, 0xC4); // 4 is lowest, 5 highest
    t.raise(5);
    CHECK(t.pic.acknowledge() == 0x35);
}

TEST_CASE("8259: special mask mode lets lower requests through a masked service [8259A Special Mask Mode]") {
    PicHarness t;
    t.raise(1);
    t.pic.acknowledge();
    t.raise(6);
    CHECK_FALSE(t.intr.level);
    t.out(0x21, 0x02);
    CHECK_FALSE(t.intr.level);
    t.out(0x20, 0x68);
    CHECK(t.intr.level);
    CHECK(t.pic.acknowledge() == 0x36);
    t.out(0x20, 0x20); // leaves the masked level in service
    CHECK(t.isr() == 0x02);
}

TEST_CASE("8259: poll [8259A Poll Command]") {
    PicHarness t;
    t.out(0x20, 0x0C);
    CHECK(t.in(0x20) == 0);
    t.raise(3);
    t.out(0x20, 0x0C);
    CHECK(t.in(0x20) == 0x83);
    CHECK(t.isr() == 0x08);
}

TEST_CASE("8259: level-triggered inputs by ELCR; 0, 1, 2, 8 and 13 stay edges [ICH9 13.4.7]") {
    PicHarness t;
    t.pic.port_write(0x4D0, 2, 0xFFFF);
    CHECK(t.pic.port_read(0x4D0, 2) == 0xDEF8);
    t.raise(5);
    CHECK(t.pic.acknowledge() == 0x35);
    t.out(0x20, 0x20);
    CHECK(t.intr.level);
    t.lower(5);
    CHECK_FALSE(t.intr.level);
}

TEST_CASE("8259: ICW1 forgets edges and clears masks [8259A Initialization Command Words]") {
    PicHarness t;
    t.out(0x21, 0xFF);
    t.raise(4);
    for (const u8 value : {u8{0x11}}) t.out(0x20, value);
    CHECK_FALSE(t.intr.level);
    CHECK(t.in(0x21) == 0);
    t.out(0x21, 0x40);
    t.out(0x21, 0x04);
    t.out(0x21, 0x01);
    CHECK_FALSE(t.intr.level);
    t.lower(4);
    t.raise(4);
    CHECK(t.pic.acknowledge() == 0x44);
}

TEST_CASE("8259: a word access reaches both ports of a chip") {
    PicHarness t;
    t.pic.port_write(0x20, 2, 0x5A0B);
    CHECK(t.in(0x21) == 0x5A);
    CHECK(t.pic.port_read(0x20, 2) == 0x5A00);
}

TEST_CASE("8259: saved and restored, it is the same") {
    PicHarness a;
    a.raise(12);
    a.raise(4);
    a.pic.acknowledge();
    FakeLine line;
    Pic8259 b(line);
    const Saver saved = save(a.pic);
    Restorer restorer(saved);
    b.visit(restorer);
    CHECK(save(b).values == saved.values);
    CHECK(b.interrupt_requested() == a.pic.interrupt_requested());
}
