// x2APIC: state transitions, MSRs row by row, ICR, SELF IPI.
#include "tests/apic/apic_harness.hpp"

using namespace exeunt;
using namespace exeunt::test;
using Reg = LocalApic::Register;

namespace {
constexpr u32 msr_of(u32 offset) { return 0x800 + offset / 16; }
} // namespace

TEST_CASE("x2APIC: transitions of IA32_APIC_BASE [SDM 3A 10.12.5]") {
    ApicHarness t;
    LocalApic& a = t.apic();
    constexpr u64 base = 0xFEE0'0100, en = bit(11), extd = bit(10);
    CHECK_FALSE(a.write_msr(0x1B, base | extd));      // invalid
    CHECK(a.write_msr(0x1B, base));                   // xAPIC to disabled
    CHECK_FALSE(a.write_msr(0x1B, base | en | extd)); // disabled to x2APIC
    CHECK(a.write_msr(0x1B, base | en));
    CHECK(a.write_msr(0x1B, base | en | extd));
    CHECK(a.x2apic_mode());
    CHECK_FALSE(a.page_enabled());
    CHECK(a.mmio_read(Reg::ID, 4) == 0xFFFF'FFFF);
    CHECK_FALSE(a.write_msr(0x1B, base | en)); // x2APIC to xAPIC
    CHECK(t.msr(0x1B) == (base | en | extd));
    CHECK(a.write_msr(0x1B, base)); // x2APIC to disabled
}

TEST_CASE("x2APIC: reserved bits of IA32_APIC_BASE are #GP(0) [SDM 3A 10.4.4]") {
    ApicHarness t(1, {.physical_address_bits = 40});
    CHECK_FALSE(t.apic().write_msr(0x1B, 0xFEE0'0801));
    CHECK_FALSE(t.apic().write_msr(0x1B, 0xFEE0'0A00));
    CHECK_FALSE(t.apic().write_msr(0x1B, bit(40) | 0x800));
    CHECK(t.apic().write_msr(0x1B, bit(39) | 0x800));
    CHECK(t.apic().apic_page() == bit(39));
    ApicHarness old(1, {.x2apic = false});
    CHECK_FALSE(old.apic().write_msr(0x1B, 0xFEE0'0D00));
}

TEST_CASE("x2APIC: every MSR reads, writes and faults as its row says [SDM 3A Table 10-6]") {
    for (u32 index = 0x800; index < 0x900; ++index) {
        ApicHarness t;
        CAPTURE(index);
        u64 value = 0;
        CHECK_FALSE(t.apic().read_msr(index, value)); // xAPIC mode has none
        t.enter_x2apic();
        CHECK(t.apic().write_msr(msr_of(Reg::SVR), 0x1FF));
        const u32 offset = (index - 0x800) * 16;
        const LocalApic::Row* row = nullptr;
        for (const auto& r : LocalApic::rows())
            if (r.offset == offset && r.offset != Reg::LVT_CMCI) row = &r;
        using enum LocalApic::Access;
        const bool vectors = offset >= Reg::ISR && offset < Reg::ESR;
        const bool readable = vectors || (row && (row->x2apic == read_only || row->x2apic == read_write));
        CHECK(t.apic().read_msr(index, value) == readable);
        if (!row || row->x2apic == absent || row->x2apic == read_only) {
            CHECK_FALSE(t.apic().write_msr(index, 0));
            continue;
        }
        if (offset == Reg::ICR_LOW) continue;
        CHECK_FALSE(t.apic().write_msr(index, bit(32)));
        for (unsigned n = 0; n < 32; ++n) {
            const bool read_only_bit = (offset >= Reg::LVT_TIMER && offset <= Reg::LVT_ERROR && n == 12) ||
                                       ((offset == Reg::LVT_LINT0 || offset == Reg::LVT_LINT1) && n == 14);
            CAPTURE(n);
            CHECK(t.apic().write_msr(index, bit(n)) == (test_bit(row->writable, n) || read_only_bit));
        }
    }
}

TEST_CASE("x2APIC: ID has 32 bits and the logical ID is derived from it [SDM 3A 10.12.10.2]") {
    FakeTime time;
    ApicBus bus;
    FakeProcessor cpu;
    FakeTsc tsc;
    LocalApic a({.id = 0x25}, bus, time.clock, cpu, tsc, nullptr);
    CHECK(a.write_msr(0x1B, a.apic_base() | bit(10)));
    u64 value = 0;
    CHECK(a.read_msr(0x802, value));
    CHECK(value == 0x25);
    CHECK(a.read_msr(0x80D, value));
    CHECK(value == 0x0002'0020);
    CHECK_FALSE(a.write_msr(0x802, 1));
}

TEST_CASE("x2APIC: EOI and ESR take only zero [SDM 3A 10.12.1.2]") {
    ApicHarness t;
    t.enable();
    t.fixed(0x41);
    t.apic().acknowledge();
    t.enter_x2apic();
    CHECK_FALSE(t.apic().write_msr(0x80B, 1));
    CHECK(t.msr(0x812) == bit(1));
    CHECK(t.apic().write_msr(0x80B, 0));
    CHECK(t.msr(0x812) == 0);
    CHECK_FALSE(t.apic().write_msr(0x828, 1));
    CHECK(t.apic().write_msr(0x828, 0));
}

TEST_CASE("x2APIC: ICR is one write of 64 bits; reserved bits are #GP(0) [SDM 3A 10.12.9]") {
    ApicHarness t(3);
    for (unsigned n = 0; n < 3; ++n) {
        t.enable(n);
        t.enter_x2apic(n);
    }
    CHECK(t.apic().write_msr(0x830, (u64{2} << 32) | 0x4041));
    CHECK(t.request(0x41, 2));
    CHECK_FALSE(t.request(0x41, 1));
    CHECK(t.msr(0x830) == ((u64{2} << 32) | 0x4041));
    CHECK(t.apic().write_msr(0x830,
                             (u64{0x0000'0006} << 32) | 0x4842)); // logical, cluster 0, processors 1 and 2
    CHECK(t.request(0x42, 1));
    CHECK(t.request(0x42, 2));
    CHECK_FALSE(t.request(0x42, 0));
    CHECK(t.apic().write_msr(0x830, (u64{0xFFFF'FFFF} << 32) | 0x4043)); // broadcast
    CHECK(t.request(0x43, 0));
    CHECK(t.request(0x43, 1));
    for (const unsigned n : {13u, 16u, 17u, 20u, 31u}) CHECK_FALSE(t.apic().write_msr(0x830, bit(n) | 0x44));
    CHECK_FALSE(t.request(0x44, 0));
    u64 value = 0;
    CHECK_FALSE(t.apic().read_msr(0x831, value));
}

TEST_CASE("x2APIC: SELF IPI [SDM 3A 10.12.11]") {
    ApicHarness t;
    t.enable();
    t.enter_x2apic();
    CHECK(t.apic().write_msr(0x83F, 0x77));
    CHECK(t.request(0x77));
    CHECK_FALSE(t.apic().write_msr(0x83F, 0x177));
    CHECK(t.apic().write_msr(0x83F, 5));
    CHECK(t.apic().write_msr(0x828, 0));
    CHECK(t.msr(0x828) == 0x20);
}

TEST_CASE("x2APIC: 8-bit destinations of I/O APIC and MSI reach cluster 0 [SDM 3A 10.12.10]") {
    ApicHarness t(2);
    for (unsigned n = 0; n < 2; ++n) {
        t.enable(n);
        t.enter_x2apic(n);
    }
    t.bus.message(0xFEE0'1000, 0x41); // physical, ID 1
    CHECK(t.request(0x41, 1));
    CHECK_FALSE(t.request(0x41, 0));
    t.bus.message(0xFEE0'2004, 0x42); // logical, bit 1
    CHECK(t.request(0x42, 1));
    CHECK_FALSE(t.request(0x42, 0));
}

TEST_CASE("x2APIC: disabling loses the registers [SDM 3A 10.4.3]") {
    ApicHarness t;
    t.enable();
    t.enter_x2apic();
    t.apic().write_msr(0x808, 0x40);
    t.apic().write_msr(0x1B, 0xFEE0'0100);
    t.apic().write_msr(0x1B, 0xFEE0'0900);
    CHECK(t.read(Reg::TPR) == 0);
    CHECK(t.read(Reg::SVR) == 0xFF);
}
