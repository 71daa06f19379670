// The I/O APIC: redirection entries, edges and levels, remote IRR, EOI.
#include "tests/apic/apic_harness.hpp"

using namespace exeunt;
using namespace exeunt::test;
using Reg = LocalApic::Register;

namespace {

struct IoApicHarness : ApicHarness {
    IoApicHarness() : ApicHarness(2) { enable_all(); }
    IoApic io{bus, bus};
    u32 get(u8 index) {
        io.mmio_write(0, 4, index);
        return static_cast<u32>(io.mmio_read(0x10, 4));
    }
    void put(u8 index, u32 value) {
        io.mmio_write(0, 4, index);
        io.mmio_write(0x10, 4, value);
    }
    u64 entry(unsigned n) {
        return get(static_cast<u8>(0x10 + 2 * n)) | u64{get(static_cast<u8>(0x11 + 2 * n))} << 32;
    }
    void set_entry(unsigned n, u64 value) {
        put(static_cast<u8>(0x11 + 2 * n), high32(value));
        put(static_cast<u8>(0x10 + 2 * n), low32(value));
    }
};

} // namespace

TEST_CASE("I/O APIC: registers reset and mask [82093AA 3.2]") {
    IoApicHarness t;
    CHECK(t.get(0) == 0);
    CHECK(t.get(1) == 0x0017'0020);
    t.put(0, 0xFFFF'FFFF);
    CHECK(t.get(0) == 0x0F00'0000);
    t.put(1, 0);
    CHECK(t.get(1) == 0x0017'0020);
    for (unsigned n = 0; n < IoApic::pins; ++n) {
        CHECK(t.entry(n) == IoApic::entry_reset);
        t.set_entry(n, ~u64{0});
        CHECK(t.entry(n) == IoApic::entry_writable);
        t.set_entry(n, 0);
        CHECK(t.entry(n) == 0);
    }
    for (unsigned index = 3; index < 256; ++index)
        if (index < 0x10 || index >= 0x40) CHECK(t.get(static_cast<u8>(index)) == 0);
}

TEST_CASE("I/O APIC: an edge sends one message to the destination; masked it is lost [82093AA 3.2.4]") {
    IoApicHarness t;
    t.set_entry(4, u64{1} << 56 | 0x41);
    t.io.pin(4).set(true);
    CHECK(t.request(0x41, 1));
    CHECK_FALSE(t.request(0x41, 0));
    CHECK(t.apic(1).acknowledge() == 0x41);
    t.io.pin(4).set(true);
    t.write(Reg::EOI, 0, 1);
    CHECK_FALSE(t.request(0x41, 1));
    t.io.pin(4).set(false);
    t.set_entry(4, u64{1} << 56 | 0x1'0041);
    t.io.pin(4).set(true);
    t.set_entry(4, u64{1} << 56 | 0x41);
    CHECK_FALSE(t.request(0x41, 1));
}

TEST_CASE(
    "I/O APIC: a level sets remote IRR, is sent once, and again after EOI while asserted [82093AA 3.2.4]") {
    IoApicHarness t;
    t.set_entry(9, 0x8041);
    t.io.pin(9).set(true);
    CHECK(t.entry(9) == 0xC041);
    CHECK(t.apic().acknowledge() == 0x41);
    t.io.pin(9).set(false);
    t.io.pin(9).set(true);
    CHECK_FALSE(t.request(0x41));
    t.write(Reg::EOI, 0);
    CHECK(t.request(0x41));
    CHECK(t.apic().acknowledge() == 0x41);
    t.io.pin(9).set(false);
    t.write(Reg::EOI, 0);
    CHECK_FALSE(t.request(0x41));
    CHECK(t.entry(9) == 0x8041);
}

TEST_CASE("I/O APIC: a level that waited masked is sent when unmasked") {
    IoApicHarness t;
    t.set_entry(9, 0x1'8041);
    t.io.pin(9).set(true);
    CHECK_FALSE(t.request(0x41));
    t.set_entry(9, 0x8041);
    CHECK(t.request(0x41));
}

TEST_CASE("I/O APIC: its own EOI register, and suppressed broadcasts [SDM 3A 10.8.5]") {
    IoApicHarness t;
    t.write(Reg::SVR, 0x11FF);
    t.set_entry(9, 0x8041);
    t.io.pin(9).set(true);
    t.apic().acknowledge();
    t.io.pin(9).set(false);
    t.write(Reg::EOI, 0);
    CHECK(t.entry(9) == 0xC041);
    t.io.mmio_write(0x40, 4, 0x42);
    CHECK(t.entry(9) == 0xC041);
    t.io.mmio_write(0x40, 4, 0x41);
    CHECK(t.entry(9) == 0x8041);
}

TEST_CASE("I/O APIC: a pin as ExtINT makes the processor ask the 8259 [82093AA 3.2.4]") {
    IoApicHarness t;
    t.set_entry(0, 0x700);
    t.io.pin(0).set(true);
    CHECK(t.apic().interrupt_pending());
    CHECK(t.apic().acknowledge() == 0x38);
    CHECK_FALSE(t.apic().interrupt_pending());
}

TEST_CASE("I/O APIC: saved and restored, it is the same") {
    IoApicHarness a, b;
    a.set_entry(9, 0x8041);
    a.io.pin(9).set(true);
    const Saver saved = save(a.io);
    Restorer restorer(saved);
    b.io.visit(restorer);
    CHECK(save(b.io).values == saved.values);
    CHECK(b.entry(9) == 0xC041);
}
