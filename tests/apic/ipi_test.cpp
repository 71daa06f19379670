// Who receives an interprocessor interrupt or a message-signalled one.
#include "tests/apic/apic_harness.hpp"

using namespace exeunt;
using namespace exeunt::test;
using Reg = LocalApic::Register;

namespace {

/// Which of four processors have the vector in IRR, as a mask.
unsigned receivers(ApicHarness& t, u8 vector) {
    unsigned mask = 0;
    for (unsigned n = 0; n < t.apics.size(); ++n)
        if (t.request(vector, n)) mask |= 1u << n;
    return mask;
}

void send(ApicHarness& t, u32 low, u32 destination, unsigned from = 0) {
    t.write(Reg::ICR_HIGH, destination << 24, from);
    t.write(Reg::ICR_LOW, low, from);
}

} // namespace

TEST_CASE("IPI: physical destinations and broadcast [SDM 3A 10.6.2.1]") {
    ApicHarness t(4);
    t.enable_all();
    send(t, 0x4041, 2);
    CHECK(receivers(t, 0x41) == 0b0100);
    send(t, 0x4042, 0xFF);
    CHECK(receivers(t, 0x42) == 0b1111);
    send(t, 0x4043, 9);
    CHECK(receivers(t, 0x43) == 0);
    CHECK(t.read(Reg::ICR_LOW) == 0x4043);
    CHECK(t.read(Reg::ICR_HIGH) == 0x0900'0000);
}

TEST_CASE("IPI: logical destinations, flat and cluster model [SDM 3A 10.6.2.2]") {
    ApicHarness t(4);
    t.enable_all();
    for (unsigned n = 0; n < 4; ++n) t.write(Reg::LDR, 1u << (24 + n), n);
    send(t, 0x4841, 0b1010);
    CHECK(receivers(t, 0x41) == 0b1010);
    for (unsigned n = 0; n < 4; ++n) {
        t.write(Reg::DFR, 0, n);
        t.write(Reg::LDR, (n / 2 << 4 | 1u << (n % 2)) << 24, n); // two clusters of two
    }
    send(t, 0x4842, 0x12);
    CHECK(receivers(t, 0x42) == 0b1000);
    send(t, 0x4843, 0x03);
    CHECK(receivers(t, 0x43) == 0b0011);
}

TEST_CASE("IPI: shorthands and the modes that may use them [SDM 3A Table 10-4]") {
    ApicHarness t(4);
    t.enable_all();
    t.write(Reg::ICR_LOW, 0x4'4041, 1);
    CHECK(receivers(t, 0x41) == 0b0010);
    t.write(Reg::ICR_LOW, 0x8'4042, 1);
    CHECK(receivers(t, 0x42) == 0b1111);
    t.write(Reg::ICR_LOW, 0xC'4043, 1);
    CHECK(receivers(t, 0x43) == 0b1101);
    t.write(Reg::ICR_LOW, 0x4'4400, 1); // NMI to self and to all including self: invalid
    t.write(Reg::ICR_LOW, 0x8'4400, 1);
    CHECK(t.cpu[0].nmis == 0);
    CHECK(t.cpu[1].nmis == 0);
    t.write(Reg::ICR_LOW, 0xC'4400, 1);
    CHECK(t.cpu[0].nmis == 1);
    CHECK(t.cpu[1].nmis == 0);
}

TEST_CASE("IPI: INIT, start-up, NMI and SMI reach the processor; the INIT level de-assert does not [SDM 3A "
          "10.6.1]") {
    ApicHarness t(2);
    send(t, 0xC500, 1);
    CHECK(t.cpu[1].inits == 1);
    send(t, 0x8500, 1);
    CHECK(t.cpu[1].inits == 1);
    send(t, 0x4699, 1);
    CHECK(t.cpu[1].sipis == std::vector<u8>{0x99});
    send(t, 0x4400, 1);
    CHECK(t.cpu[1].nmis == 1);
    send(t, 0x4200, 1);
    CHECK(t.cpu[1].smis == 1);
    send(t, 0x4300, 1); // reserved
    send(t, 0x4700, 1); // reserved in the ICR
    CHECK_FALSE(t.apic(1).interrupt_pending());
}

TEST_CASE("IPI: lowest priority chooses the least loaded, and takes turns on ties [SDM 3A 10.6.2.4]") {
    ApicHarness t(3);
    t.enable_all();
    for (unsigned n = 0; n < 3; ++n) t.write(Reg::LDR, 1u << (24 + n), n);
    t.write(Reg::TPR, 0x60, 0);
    t.write(Reg::TPR, 0x20, 1);
    t.write(Reg::TPR, 0x40, 2);
    send(t, 0x4941, 0xFF);
    CHECK(receivers(t, 0x41) == 0b010);
    for (unsigned n = 0; n < 3; ++n) {
        t.write(Reg::TPR, 0, n);
        t.write(Reg::SVR, 0x3FF, n); // without focus checking
    }
    unsigned total = 0;
    for (const u8 vector : {u8{0x52}, u8{0x53}, u8{0x54}}) {
        send(t, 0x4900u | vector, 0xFF);
        const unsigned who = receivers(t, vector);
        CHECK((who & (who - 1)) == 0);
        total |= who;
    }
    CHECK(total == 0b111);
}

TEST_CASE("IPI: a focus processor gets the interrupt whatever its priority [SDM 3A 10.6.2.4]") {
    ApicHarness t(2);
    t.enable_all();
    t.fixed(0x41, 1);
    t.write(Reg::TPR, 0xF0, 1);
    send(t, 0x4141, 0xFF);
    CHECK(receivers(t, 0x41) == 0b10);
}

TEST_CASE("IPI: vectors below 16 are a send error [SDM 3A 10.5.3]") {
    ApicHarness t(2);
    t.enable_all();
    send(t, 0x400F, 1);
    t.write(Reg::ESR, 0);
    CHECK(t.read(Reg::ESR) == 0x20);
    t.write(Reg::ESR, 0, 1);
    CHECK(t.read(Reg::ESR, 1) == 0);
}

TEST_CASE("Notifications: fixed, to the APIC ID in bits 15:8 or to the x2APIC ID; the ICR stays [SDM 3C 29.6]") {
    ApicHarness t(4);
    t.enable_all();
    t.write(Reg::ICR_HIGH, 0x0900'0000);
    t.apic(0).send_notification(0x0000'0200, 0x41);
    CHECK(receivers(t, 0x41) == 0b0100);
    CHECK(t.read(Reg::ICR_LOW) == 0);
    CHECK(t.read(Reg::ICR_HIGH) == 0x0900'0000);
    CHECK(t.apic(0).write_msr(LocalApic::msr_apic_base, t.apic(0).apic_base() | bit(10)));
    t.apic(0).send_notification(3, 0x42);
    CHECK(receivers(t, 0x42) == 0b1000);
}

TEST_CASE("MSI: address and data name destination, vector and mode; other addresses are not messages [SDM 3A "
          "10.11]") {
    ApicHarness t(2);
    t.enable_all();
    t.bus.message(0xFEE0'1000, 0x0041);
    CHECK(receivers(t, 0x41) == 0b10);
    t.bus.message(0xFEE0'1000, 0x0400);
    CHECK(t.cpu[1].nmis == 1);
    t.bus.message(0x1'FEE0'1000, 0x42);
    t.bus.message(0xFED0'1000, 0x42);
    CHECK(receivers(t, 0x42) == 0);
    t.bus.message(0xFEE0'1000, 0xC043);
    CHECK(test_bit(t.read(Reg::TMR + 0x20, 1), 3));
}
