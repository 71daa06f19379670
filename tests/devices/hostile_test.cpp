// A guest that writes anything anywhere: no device may loop, leave its arrays, or depend on anything but its
// inputs. Built with sanitizers this is the test of bounds; two equal runs must end in equal states.
#include "apic/io_apic.hpp"
#include "apic/local_apic.hpp"
#include "base/random.hpp"
#include "devices/acpi_pm.hpp"
#include "devices/cmos_rtc.hpp"
#include "devices/fw_cfg.hpp"
#include "devices/hpet.hpp"
#include "devices/lines.hpp"
#include "devices/pc_testdev.hpp"
#include "devices/pci_host.hpp"
#include "devices/pic_8259.hpp"
#include "devices/pit_8254.hpp"
#include "devices/ps2_8042.hpp"
#include "devices/serial_16550.hpp"
#include "devices/vga_text.hpp"
#include "devices/virtio_block.hpp"
#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct NoTscOffset final : TscSource {
    u64 tsc_offset() const override { return 0; }
};

struct SmallDisk final : BlockBackend {
    std::vector<u8> bytes = std::vector<u8>(16 * 512);
    u64 sectors() const override { return 16; }
    bool read_only() const override { return false; }
    bool read(u64 sector, std::span<u8> to) override {
        for (std::size_t i = 0; i < to.size(); ++i) to[i] = bytes.at(sector * 512 + i);
        return true;
    }
    bool write(u64 sector, std::span<const u8> from) override {
        for (std::size_t i = 0; i < from.size(); ++i) bytes.at(sector * 512 + i) = from[i];
        return true;
    }
    bool flush() override { return true; }
};

struct WholePc {
    FakeTime time;
    FakeMemory memory{1 << 16};
    ApicBus bus;
    IoApic io_apic{bus, bus};
    SplitLine intr;
    Pic8259 pic{intr};
    FakeProcessor cpu[2];
    NoTscOffset tsc;
    LocalApic apic0{{.id = 0, .bootstrap = true}, bus, time.clock, cpu[0], tsc, &pic};
    LocalApic apic1{{.id = 1}, bus, time.clock, cpu[1], tsc, &pic};
    SharedLine isa0{pic.irq(0)}, isa8{pic.irq(8)};
    Hpet hpet{time.clock, {&io_apic.pin(20), &io_apic.pin(21)}, isa0.input(), isa8.input()};
    Pit8254 pit{time.clock, hpet.pit_input()};
    CmosRtc rtc{time.clock, hpet.rtc_input()};
    u64 sent = 0;
    Serial16550 serial{time.clock, pic.irq(4), [this](u8) { ++sent; }};
    AcpiPm pm{time.clock, io_apic.pin(9), [] {}, [] {}};
    Ps2Controller ps2{pic.irq(1), [] {}, [](bool) {}};
    PciHost pci{bus, {&io_apic.pin(16), &io_apic.pin(17)}, {}};
    SmallDisk disk;
    VirtioBlock block{memory, disk};
    FwCfg fw_cfg{memory, {.ram_bytes = 1 << 16}};
    PcTestdev testdev{{&io_apic.pin(3)}, [](u64) {}};
    VgaText vga{time.clock};

    WholePc() {
        intr.add(apic0.lint(0));
        pci.attach(block, 1);
        pci.assign_resources();
        fw_cfg.add_file("file", std::vector<u8>(100));
        apic0.enter_virtual_wire_mode();
    }

    struct Ports {
        PortDevice* device;
        u16 first, count;
    };
    std::vector<Ports> ports() {
        return {{&pic, 0x20, 2},  {&pic, 0xA0, 2},      {&pic, 0x4D0, 2},     {&pit, 0x40, 4},
                {&pit, 0x61, 1},  {&rtc, 0x70, 2},      {&serial, 0x3F8, 8},  {&pm, 0x600, 0x80},
                {&pm, 0xB2, 2},   {&pm, 0xCF9, 1},      {&ps2, 0x60, 5},      {&ps2, 0x92, 1},
                {&pci, 0xCF8, 8}, {&fw_cfg, 0x510, 12}, {&testdev, 0xE0, 12}, {&testdev, 0x2000, 24},
                {&vga, 0x3D4, 8}};
    }
    struct Memory {
        MmioDevice* device;
        u64 bytes;
    };
    std::vector<Memory> mmio() {
        return {{&apic0, 0x400}, {&apic1, 0x400},      {&io_apic, 0x50},
                {&hpet, 0x180},  {&testdev, 0x1'0000}, {&vga, 0x8000}};
    }

    void step(Random& random) {
        const u64 choice = random.next(), value = random.next() >> (random.next() % 64);
        const unsigned size = 1u << (choice >> 8 & 3);
        const u64 where = random.next();
        switch (choice & 7) {
        case 0:
        case 1:
        case 2: {
            const auto all = ports();
            const Ports& p = all[where % all.size()];
            const u16 port = static_cast<u16>(p.first + (where >> 32) % p.count);
            const unsigned bytes = size > 4 ? 1 : size;
            if (choice & 0x80)
                p.device->port_write(port, bytes, static_cast<u32>(value));
            else
                p.device->port_read(port, bytes);
            break;
        }
        case 3:
        case 4: {
            const auto all = mmio();
            const Memory& m = all[where % all.size()];
            const u64 offset = (where >> 32) % m.bytes & ~u64{size - 1};
            if (choice & 0x80)
                m.device->mmio_write(offset, size, value);
            else
                m.device->mmio_read(offset, size);
            break;
        }
        case 5: pci_access(choice, value, where, size); break;
        case 6: {
            u64 old = 0;
            LocalApic& apic = choice & 0x80 ? apic0 : apic1;
            const u32 msr = choice & 0x1000 ? 0x800 + (where & 0x3F) : choice & 0x2000 ? 0x6E0 : 0x1B;
            if (choice & 0x4000)
                apic.read_msr(msr, old);
            else
                apic.write_msr(msr, value);
            if (apic.interrupt_pending()) apic.acknowledge();
            break;
        }
        default:
            time.run(where % 20'000);
            ps2.key(static_cast<u8>(value));
            const u8 byte = static_cast<u8>(value);
            if (where & bit(40)) serial.receive({&byte, 1});
            break;
        }
    }

    void pci_access(u64 choice, u64 value, u64 where, unsigned size) {
        const u64 bar = block.bar_address(choice & 0x1000 ? 0 : 1);
        const u64 config = PciHost::ecam_base + (choice & 0x2000 ? 0x8000 : 0xF'8000) + (where & 0xFFF);
        const u64 at = choice & 0x4000 ? config : bar + (where & 0x3FFF) % (choice & 0x8000 ? 0x40 : 0x4000);
        // Rings that are sometimes plausible.
        if (choice & 0x1'0000) memory.put((where >> 20) % 0xFF00, value % 300, 8);
        if (choice & 0x80)
            pci.memory_write(at & ~u64{size - 1}, size, choice & 0x2'0000 ? value % 0x1'0000 : value);
        else
            pci.memory_read(at & ~u64{size - 1}, size);
        if (choice & 0x4'0000) block.config_write(4, 2, 7);
    }

    std::vector<std::vector<u8>> state() {
        Saver saver;
        for (Device* device :
             std::initializer_list<Device*>{&bus, &io_apic, &pic, &apic0, &apic1, &isa0, &isa8, &hpet, &pit,
                                            &rtc, &serial, &pm, &ps2, &pci, &fw_cfg, &testdev, &vga})
            device->visit(saver);
        time.clock.visit(saver);
        saver.values.push_back(memory.ram);
        saver.values.push_back(disk.bytes);
        return saver.values;
    }
};

} // namespace

TEST_CASE("a hostile guest breaks no device, and equal runs end equal") {
    for (const u64 seed : {u64{1}, u64{2}, u64{3}, u64{4}}) {
        CAPTURE(seed);
        WholePc first, second;
        Random a(seed), b(seed);
        for (unsigned i = 0; i < 50'000; ++i) first.step(a);
        for (unsigned i = 0; i < 50'000; ++i) second.step(b);
        CHECK(first.state() == second.state());
        CHECK(first.time.tick == second.time.tick);
    }
}
