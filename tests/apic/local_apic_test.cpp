// The local APIC: register rows, priorities, acceptance, LINT pins, errors, INIT.
#include "tests/apic/apic_harness.hpp"

using namespace exeunt;
using namespace exeunt::test;
using Reg = LocalApic::Register;

TEST_CASE("local APIC: every register resets and masks as its row says [SDM 3A Table 10-1]") {
    for (const LocalApic::Row& row : LocalApic::rows()) {
        ApicHarness t(1, {.cmci = true});
        CAPTURE(row.name);
        const bool computed = row.offset == Reg::VERSION || row.offset == Reg::ID;
        const bool readable =
            row.xapic != LocalApic::Access::absent && row.xapic != LocalApic::Access::write_only;
        if (readable && !computed) CHECK(t.read(row.offset) == row.reset);
        if (row.xapic != LocalApic::Access::read_write || row.offset == Reg::ESR) continue;
        t.enable(); // LVT mask bits are free only then
        if (row.offset == Reg::SVR || row.offset == Reg::ICR_LOW) continue;
        const u32 before = t.read(row.offset);
        t.write(row.offset, 0);
        CHECK(t.read(row.offset) == (before & ~row.writable));
        t.write(row.offset, 0xFFFF'FFFF);
        CHECK(t.read(row.offset) == ((before & ~row.writable) | row.writable));
    }
}

TEST_CASE("local APIC: state after power-up [SDM 3A 10.4.7.1]") {
    ApicHarness t(2);
    CHECK(t.apic(0).apic_base() == 0xFEE0'0900);
    CHECK(t.apic(1).apic_base() == 0xFEE0'0800);
    CHECK(t.read(Reg::ID, 1) == 0x0100'0000);
    CHECK(t.read(Reg::VERSION) == 0x0105'0015);
    CHECK(t.read(Reg::SVR) == 0xFF);
    CHECK(t.read(Reg::DFR) == 0xFFFF'FFFF);
}

TEST_CASE("local APIC: a fixed interrupt goes from IRR to ISR to EOI [SDM 3A 10.8.4]") {
    ApicHarness t;
    t.enable();
    CHECK_FALSE(t.apic().interrupt_pending());
    t.fixed(0x41);
    CHECK(t.request(0x41));
    CHECK(t.apic().interrupt_pending());
    CHECK(t.cpu[0].changes > 0);
    CHECK(t.apic().acknowledge() == 0x41);
    CHECK_FALSE(t.request(0x41));
    CHECK(t.in_service(0x41));
    CHECK(t.read(Reg::PPR) == 0x40);
    t.fixed(0x4F); // the same class waits
    CHECK_FALSE(t.apic().interrupt_pending());
    t.fixed(0x51); // a higher one nests
    CHECK(t.apic().interrupt_pending());
    CHECK(t.apic().acknowledge() == 0x51);
    t.write(Reg::EOI, 0);
    CHECK_FALSE(t.in_service(0x51));
    CHECK(t.in_service(0x41));
    t.write(Reg::EOI, 0);
    CHECK(t.apic().acknowledge() == 0x4F);
}

TEST_CASE("local APIC: the task priority holds back its class and those below [SDM 3A 10.8.3.1]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::TPR, 0x45);
    CHECK(t.read(Reg::PPR) == 0x45);
    CHECK(t.apic().cr8() == 4);
    t.fixed(0x4F);
    CHECK_FALSE(t.apic().interrupt_pending());
    CHECK(t.apic().acknowledge() == 0xFF); // spurious
    CHECK_FALSE(t.in_service(0xFF));
    t.apic().set_cr8(3);
    CHECK(t.read(Reg::TPR) == 0x30);
    CHECK(t.apic().interrupt_pending());
}

TEST_CASE("local APIC: software disabled, it accepts no fixed interrupts but NMI, SMI, INIT and SIPI [SDM 3A "
          "10.4.7.2]") {
    ApicHarness t;
    t.fixed(0x41);
    CHECK_FALSE(t.request(0x41));
    for (const u8 mode : {u8{2}, u8{4}, u8{5}, u8{6}})
        t.apic().accept({.vector = 0x9A, .delivery_mode = mode});
    CHECK(t.cpu[0].smis == 1);
    CHECK(t.cpu[0].nmis == 1);
    CHECK(t.cpu[0].inits == 1);
    CHECK(t.cpu[0].sipis == std::vector<u8>{0x9A});
    t.write(Reg::LVT_TIMER, 0x30);
    CHECK(t.read(Reg::LVT_TIMER) == 0x1'0030); // the mask bit can not be cleared
    t.enable();
    t.write(Reg::LVT_TIMER, 0x30);
    CHECK(t.read(Reg::LVT_TIMER) == 0x30);
    t.write(Reg::SVR, 0xFF);
    CHECK(t.read(Reg::LVT_TIMER) == 0x1'0030);
}

TEST_CASE("local APIC: illegal vectors and registers, ESR shows them after a write [SDM 3A 10.5.3]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::LVT_ERROR, 0x60);
    t.fixed(0x0F);
    CHECK_FALSE(t.request(0x0F));
    CHECK(t.request(0x60));
    CHECK(t.read(Reg::ESR) == 0);
    t.write(Reg::ESR, 0);
    CHECK(t.read(Reg::ESR) == 0x40);
    t.write(Reg::ICR_LOW, 0x4000F); // self, vector 0FH
    t.read(0x040);                  // reserved
    t.write(0x500, 1);
    t.write(Reg::ESR, 0);
    CHECK(t.read(Reg::ESR) == 0xA0);
    t.write(Reg::ESR, 0);
    CHECK(t.read(Reg::ESR) == 0);
}

TEST_CASE("local APIC: an illegal vector in LVT_ERROR itself is one more error and no endless one [SDM 3A "
          "10.5.3]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::LVT_ERROR, 0x03);
    t.read(0x040);
    t.write(Reg::ESR, 0);
    CHECK(t.read(Reg::ESR) == 0xC0);
}

TEST_CASE("local APIC: registers take aligned 32-bit stores only; loads may be narrower [SDM 3A 10.4.1]") {
    ApicHarness t;
    t.apic().mmio_write(Reg::TPR, 1, 0x55);
    t.apic().mmio_write(Reg::TPR, 8, 0x55);
    t.apic().mmio_write(Reg::TPR + 4, 4, 0x55);
    CHECK(t.read(Reg::TPR) == 0);
    CHECK(t.apic().mmio_read(Reg::VERSION + 2, 1) == 0x05);
    CHECK(t.apic().mmio_read(Reg::VERSION + 2, 2) == 0x0105);
    CHECK(t.apic().mmio_read(Reg::VERSION + 4, 4) == 0);
}

TEST_CASE("local APIC: ExtINT through LINT0 takes the 8259's vector and leaves ISR alone [SDM 3A 10.5.1]") {
    ApicHarness t;
    t.enable();
    t.apic().lint(0).set(true);
    CHECK_FALSE(t.apic().interrupt_pending()); // masked after reset
    t.write(Reg::LVT_LINT0, 0x700);
    CHECK(t.apic().interrupt_pending());
    t.write(Reg::TPR, 0xFF);
    CHECK(t.apic().interrupt_pending()); // priorities do not apply
    CHECK(t.apic().acknowledge() == 0x38);
    CHECK(t.pic.acknowledged == 1);
    CHECK_FALSE(t.in_service(0x38));
    t.apic().lint(0).set(false);
    CHECK_FALSE(t.apic().interrupt_pending());
}

TEST_CASE("local APIC: globally disabled, LINT0 is INTR and LINT1 is NMI [SDM 3A 10.4.3]") {
    ApicHarness t;
    CHECK(t.apic().write_msr(0x1B, 0xFEE0'0100));
    CHECK_FALSE(t.apic().page_enabled());
    t.apic().lint(0).set(true);
    CHECK(t.apic().interrupt_pending());
    CHECK(t.apic().acknowledge() == 0x38);
    t.apic().lint(1).set(true);
    CHECK(t.cpu[0].nmis == 1);
    t.fixed(0x41);
    t.apic().lint(0).set(false);
    CHECK_FALSE(t.apic().interrupt_pending());
}

TEST_CASE("local APIC: a level-triggered LINT0 sets remote IRR and comes again after EOI while asserted [SDM "
          "3A 10.5.1]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::LVT_LINT0, 0x8041);
    t.apic().lint(0).set(true);
    CHECK(t.read(Reg::LVT_LINT0) == 0xC041);
    CHECK(t.apic().acknowledge() == 0x41);
    t.write(Reg::EOI, 0);
    CHECK(t.request(0x41));
    CHECK(t.apic().acknowledge() == 0x41);
    t.apic().lint(0).set(false);
    t.write(Reg::EOI, 0);
    CHECK_FALSE(t.request(0x41));
    CHECK(t.read(Reg::LVT_LINT0) == 0x8041);
}

TEST_CASE("local APIC: LINT1 as NMI answers edges [SDM 3A 10.5.1]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::LVT_LINT1, 0x400);
    t.apic().lint(1).set(true);
    t.apic().lint(1).set(true);
    CHECK(t.cpu[0].nmis == 1);
    t.apic().lint(1).set(false);
    t.apic().lint(1).set(true);
    CHECK(t.cpu[0].nmis == 2);
}

TEST_CASE("local APIC: a performance-monitoring interrupt masks its own entry [SDM 3A 10.5.1]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::LVT_PERF, 0x400);
    t.apic().local_event(Reg::LVT_PERF);
    t.apic().local_event(Reg::LVT_PERF);
    CHECK(t.cpu[0].nmis == 1);
    CHECK(t.read(Reg::LVT_PERF) == 0x1'0400);
}

TEST_CASE("local APIC: INIT resets all but the ID and IA32_APIC_BASE [SDM 3A 10.4.7.3]") {
    ApicHarness t;
    t.enable();
    t.write(Reg::ID, 0x0700'0000);
    t.write(Reg::TPR, 0x20);
    t.fixed(0x41);
    CHECK(t.apic().write_msr(0x1B, 0xFED0'0900));
    t.apic().init();
    CHECK(t.apic().apic_base() == 0xFED0'0900);
    CHECK(t.read(Reg::ID) == 0x0700'0000);
    CHECK(t.read(Reg::TPR) == 0);
    CHECK(t.read(Reg::SVR) == 0xFF);
    CHECK_FALSE(t.request(0x41));
}

TEST_CASE("local APIC: virtual wire mode as firmware leaves it") {
    ApicHarness t;
    t.apic().enter_virtual_wire_mode();
    t.apic().lint(0).set(true);
    CHECK(t.apic().acknowledge() == 0x38);
    t.apic().lint(1).set(true);
    CHECK(t.cpu[0].nmis == 1);
}

TEST_CASE("local APIC: saved and restored, it is the same") {
    ApicHarness a, b;
    a.enable();
    a.write(Reg::LVT_TIMER, 0x2'0050);
    a.write(Reg::INITIAL_COUNT, 1000);
    a.fixed(0x41);
    a.apic().acknowledge();
    a.fixed(0x77);
    const Saver saved = save(a.apic());
    Restorer restorer(saved);
    b.apic().visit(restorer);
    CHECK(save(b.apic()).values == saved.values);
    CHECK(b.apic().acknowledge() == 0x77);
}
