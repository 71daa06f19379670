// PCI: configuration space by ports and ECAM, BARs, INTx routing, MSI and MSI-X.
#include "devices/pci_host.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

/// A function with one BAR of each kind, MSI and MSI-X.
class TestFunction final : public PciDevice {
public:
    TestFunction()
        : PciDevice({.vendor = 0x1234, .device = 0x5678, .class_code = 0xFF'00'00, .revision = 7}) {
        set_interrupt_pin(1);
        add_bar(0, BarKind::memory32, 0x2000);
        add_bar(1, BarKind::io, 0x20);
        add_bar(2, BarKind::memory64, 0x1'0000);
        add_msi();
        add_msix(3, 0, 0x1000, 0x1800);
    }
    u64 bar_read(unsigned bar, u64 offset, unsigned) override { return bar << 24 | offset; }
    void bar_write(unsigned bar, u64 offset, unsigned, u64 value) override {
        written.push_back({bar, offset, value});
    }
    using PciDevice::send_msi;
    using PciDevice::send_msix;
    using PciDevice::set_intx;
    struct Write {
        unsigned bar;
        u64 offset, value;
    };
    std::vector<Write> written;
};

struct PciHarness {
    FakeMessages messages;
    FakeLine gsi[8], isa[16];
    PciHost host{messages, lines<8>(gsi), lines<16>(isa)};
    TestFunction function;
    PciHarness() { host.attach(function, 2); }
    template <std::size_t N>
    static std::array<InterruptLine*, N> lines(FakeLine (&from)[N]) {
        std::array<InterruptLine*, N> result{};
        for (std::size_t i = 0; i < N; ++i) result[i] = &from[i];
        return result;
    }
    static u32 address(unsigned device, unsigned offset) {
        return 0x8000'0000 | device << 11 | (offset & 0xFC);
    }
    u32 read(unsigned device, unsigned offset, unsigned size = 4) {
        host.port_write(0xCF8, 4, address(device, offset));
        return host.port_read(static_cast<u16>(0xCFC + (offset & 3)), size);
    }
    void write(unsigned device, unsigned offset, u32 value, unsigned size = 4) {
        host.port_write(0xCF8, 4, address(device, offset));
        host.port_write(static_cast<u16>(0xCFC + (offset & 3)), size, value);
    }
    unsigned capability(u8 id) {
        for (unsigned at = read(2, 0x34, 1), n = 0; at != 0 && n < 16; at = read(2, at + 1, 1), ++n)
            if (read(2, at, 1) == id) return at;
        return 0;
    }
};

constexpr u64 ecam(unsigned device, unsigned offset) { return PciHost::ecam_base + (device << 15) + offset; }

} // namespace

TEST_CASE("PCI: configuration mechanism #1 [PCI 3.0 3.2.2.3.2]") {
    PciHarness t;
    CHECK(t.read(0, 0) == 0x29C0'8086);
    CHECK(t.read(31, 0) == 0x2918'8086);
    CHECK(t.read(31, 0x0A, 2) == 0x0601);
    CHECK(t.read(2, 0) == 0x5678'1234);
    CHECK(t.read(2, 2, 2) == 0x5678);
    CHECK(t.read(2, 8, 1) == 7);
    CHECK(t.read(3, 0) == 0xFFFF'FFFF);
    CHECK(t.read(3, 0, 2) == 0xFFFF);
    t.host.port_write(0xCF8, 4, 0x0000'1000); // not enabled
    CHECK(t.host.port_read(0xCFC, 4) == 0xFFFF'FFFF);
    t.host.port_write(0xCF8, 4, 0x8001'1000); // bus 1
    CHECK(t.host.port_read(0xCFC, 4) == 0xFFFF'FFFF);
    CHECK(t.host.port_read(0xCF8, 4) == 0x8001'1000);
    t.host.port_write(0xCF8, 1, 0xFF); // only doublewords
    CHECK(t.host.port_read(0xCF8, 4) == 0x8001'1000);
    CHECK(t.host.port_read(0xCFE, 4) == 0xFFFF'FFFF);
}

TEST_CASE("PCI: bits 27:24 of the address port reach the extended space where the processor has NB_CFG [APM 2 App. A]") {
    PciHarness t;
    t.host.port_write(0xCF8, 4, 0x8F00'1000);
    CHECK(t.host.port_read(0xCF8, 4) == 0x8000'1000);
    CHECK(t.host.port_read(0xCFC, 4) == 0x5678'1234);
    t.host.set_extended_ports(true);
    t.host.port_write(0xCF8, 4, 0x8100'1000);
    CHECK(t.host.port_read(0xCF8, 4) == 0x8100'1000);
    CHECK(t.host.port_read(0xCFC, 4) == t.host.memory_read(ecam(2, 0x100), 4));
}

TEST_CASE("PCI: ECAM reaches the same space and what lies above 256 bytes [PCIe 7.2.2]") {
    PciHarness t;
    CHECK(t.host.memory_read(ecam(2, 0), 4) == 0x5678'1234);
    CHECK(t.host.memory_read(ecam(2, 0), 8) == (t.read(2, 0) | u64{t.read(2, 4)} << 32));
    CHECK(t.host.memory_read(ecam(2, 0x100), 4) == 0);
    CHECK(t.host.memory_read(ecam(2, 0) + 0x10'0000, 4) == 0xFFFF'FFFF);
    t.host.memory_write(ecam(2, 4), 2, 2);
    CHECK(t.read(2, 4, 2) == 2);
    SUBCASE("PCIEXBAR moves it") {
        t.write(0, 0x60, 0xB000'0001);
        CHECK(t.host.memory_read(0xB001'0000, 4) == 0x5678'1234);
        CHECK(t.host.memory_read(ecam(2, 0), 4) == 0xFFFF'FFFF);
        t.write(0, 0x60, 0xB000'0000);
        CHECK(t.host.memory_read(0xB001'0000, 4) == 0xFFFF'FFFF);
    }
}

TEST_CASE("PCI: header registers keep what their masks say; status bits clear by ones [PCI 3.0 6.2]") {
    PciHarness t;
    t.write(2, 0x00, 0xFFFF'FFFF);
    CHECK(t.read(2, 0) == 0x5678'1234);
    t.write(2, 0x04, 0xFFFF, 2);
    CHECK(t.read(2, 4, 2) == 0x0547);
    CHECK(t.read(2, 6, 2) == 0x0010);
    t.write(2, 0x3C, 0xFFFF, 2);
    CHECK(t.read(2, 0x3C, 2) == 0x01FF);
    t.host.reset();
    CHECK(t.read(2, 4, 2) == 0);
}

TEST_CASE("PCI: BARs tell their size and decode where they are put, when enabled [PCI 3.0 6.2.5.1]") {
    PciHarness t;
    for (const unsigned offset : {0x10u, 0x14u, 0x18u, 0x1Cu, 0x20u}) t.write(2, offset, 0xFFFF'FFFF);
    CHECK(t.read(2, 0x10) == 0xFFFF'E000);
    CHECK(t.read(2, 0x14) == 0xFFFF'FFE1);
    CHECK(t.read(2, 0x18) == 0xFFFF'0004);
    CHECK(t.read(2, 0x1C) == 0xFFFF'FFFF);
    CHECK(t.read(2, 0x20) == 0);
    t.write(2, 0x10, 0xC010'0000);
    t.write(2, 0x14, 0xC100);
    t.write(2, 0x18, 0x2000'0000);
    t.write(2, 0x1C, 0x8);
    CHECK(t.host.memory_read(0xC010'0010, 4) == 0xFFFF'FFFF);
    t.write(2, 4, 3, 2);
    CHECK(t.host.memory_read(0xC010'0010, 4) == 0x10);
    CHECK(t.host.memory_read(0xC010'2000, 4) == 0xFFFF'FFFF);
    CHECK(t.host.io_read(0xC11F, 1) == 0x100'001F);
    CHECK(t.host.io_read(0xC120, 1) == 0xFF);
    CHECK(t.host.memory_read(0x8'2000'0004, 4) == 0x200'0004);
    t.host.memory_write(0x8'2000'0008, 4, 99);
    REQUIRE(t.function.written.size() == 1);
    CHECK(t.function.written[0].offset == 8);
    t.write(2, 4, 1, 2);
    CHECK(t.host.memory_read(0xC010'0010, 4) == 0xFFFF'FFFF);
    CHECK(t.host.io_read(0xC100, 1) == 0x100'0000);
}

TEST_CASE("PCI: assign_resources leaves aligned, distinct, enabled BARs and routed interrupts") {
    PciHarness t;
    TestFunction second;
    t.host.attach(second, 3);
    t.host.assign_resources();
    const u64 a = t.function.bar_address(0), b = second.bar_address(0);
    CHECK(a % 0x2000 == 0);
    CHECK(a >= PciHost::memory_base);
    CHECK((b >= a + 0x2000 || a >= b + 0x2000));
    CHECK(t.host.memory_read(a + 4, 4) == 4);
    CHECK(t.host.memory_read(t.function.bar_address(2) + 4, 4) == 0x200'0004);
    CHECK(t.host.io_read(static_cast<u16>(t.function.bar_address(1)), 4) == 0x100'0000);
    CHECK(t.read(2, 0x3C, 1) == 10);
    CHECK(t.read(3, 0x3C, 1) == 11);
    t.function.set_intx(true);
    CHECK(t.isa[10].level);
}

TEST_CASE("PCI: INTx reaches its GSI, and the 8259 input that its PIRQ is routed to [ICH9 13.1.20]") {
    PciHarness t;
    t.function.set_intx(true);
    CHECK(t.gsi[2].level);
    CHECK((t.read(2, 6, 2) & 8) == 8);
    for (const FakeLine& line : t.isa) CHECK_FALSE(line.level);
    t.write(31, 0x62, 5, 1);
    CHECK(t.isa[5].level);
    t.write(31, 0x62, 2, 1); // not an input that can be chosen
    for (const FakeLine& line : t.isa) CHECK_FALSE(line.level);
    t.write(31, 0x62, 0x85, 1);
    CHECK_FALSE(t.isa[5].level);
    t.write(2, 4, 0x400, 2); // interrupt disable
    CHECK_FALSE(t.gsi[2].level);
    CHECK((t.read(2, 6, 2) & 8) == 8);
    t.write(2, 4, 0, 2);
    CHECK(t.gsi[2].level);
    t.host.reset();
    CHECK_FALSE(t.gsi[2].level);
}

TEST_CASE("PCI: MSI sends address and data, when enabled and bus master [PCI 3.0 6.8.1]") {
    PciHarness t;
    const unsigned msi = t.capability(5);
    REQUIRE(msi != 0);
    t.write(2, msi + 4, 0xFEE0'1007);
    t.write(2, msi + 8, 0x1);
    t.write(2, msi + 12, 0x4041, 2);
    t.function.send_msi();
    CHECK(t.messages.sent.empty());
    t.write(2, msi + 2, 0xFFFF, 2);
    CHECK(t.read(2, msi + 2, 2) == 0x0081);
    t.function.send_msi();
    CHECK(t.messages.sent.empty());
    t.write(2, 4, 4, 2);
    t.function.send_msi();
    CHECK(t.messages.sent == std::vector<FakeMessages::Message>{{0x1'FEE0'1004, 0x4041}});
}

TEST_CASE("PCI: MSI-X vectors, masks and pending bits [PCI 3.0 6.8.2]") {
    PciHarness t;
    const unsigned msix = t.capability(0x11);
    REQUIRE(msix != 0);
    CHECK(t.read(2, msix + 2, 2) == 2);
    CHECK(t.read(2, msix + 4) == 0x1000);
    t.write(2, 0x10, 0xC000'0000);
    t.write(2, 4, 6, 2);
    const u64 table = 0xC000'1000, pending = 0xC000'1800;
    CHECK(t.host.memory_read(table + 12, 4) == 1);
    t.host.memory_write(table + 16, 8, 0x0000'0002'FEE0'1003);
    t.host.memory_write(table + 24, 4, 0x42);
    CHECK(t.host.memory_read(table + 16, 8) == 0x0000'0002'FEE0'1000);
    t.write(2, msix + 2, 0x8000, 2);
    t.function.send_msix(1);
    CHECK(t.messages.sent.empty());
    CHECK(t.host.memory_read(pending, 8) == 2);
    t.host.memory_write(table + 28, 4, 0xFFFF'FFFE); // unmask
    CHECK(t.messages.sent == std::vector<FakeMessages::Message>{{0x2'FEE0'1000, 0x42}});
    CHECK(t.host.memory_read(pending, 8) == 0);
    t.write(2, msix + 2, 0xC000, 2); // function mask
    t.function.send_msix(1);
    CHECK(t.messages.sent.size() == 1);
    t.write(2, msix + 2, 0x8000, 2);
    CHECK(t.messages.sent.size() == 2);
    t.function.send_msix(3);
    t.function.send_msix(63);
    CHECK(t.messages.sent.size() == 2);
    t.host.memory_write(table + 2, 2, 0xFFFF); // not a doubleword
    CHECK(t.host.memory_read(table, 4) == 0);
    CHECK(t.host.memory_read(table + 0x30, 4) == 0x1030); // past the table: the device's own
}

TEST_CASE("PCI: any access to any configuration register neither traps nor changes identity") {
    PciHarness t;
    for (const unsigned device : {0u, 2u, 31u})
        for (unsigned offset = 0; offset < 0x1000; ++offset)
            for (const unsigned size : {1u, 2u, 4u, 8u}) {
                t.host.memory_write(ecam(device, offset), size, 0xFFFF'FFFF'FFFF'FFFF);
                if (device == 0) t.host.memory_write(ecam(0, 0x60), 8, ecam(0, 0) | 1);
                t.host.memory_read(ecam(device, offset), size);
            }
    t.write(0, 0x64, 0);
    t.write(0, 0x60, low32(PciHost::ecam_base) | 1);
    CHECK(t.read(0, 0) == 0x29C0'8086);
    CHECK(t.read(2, 0) == 0x5678'1234);
}

TEST_CASE("PCI: saved and restored, it is the same") {
    PciHarness a, b;
    a.host.assign_resources();
    a.function.set_intx(true);
    const Saver saved = save(a.host);
    Restorer restorer(saved);
    b.host.visit(restorer);
    CHECK(save(b.host).values == saved.values);
}
