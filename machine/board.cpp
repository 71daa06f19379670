#include "machine/board.hpp"

#include <algorithm>
#include <array>
#include <deque>

namespace exeunt {

void RamForDma::write(u64 at, const void* from, u64 bytes) {
    const u8* in = static_cast<const u8*>(from);
    while (bytes > 0) {
        const u64 chunk = std::min(page_size - at % page_size, bytes);
        if (memory_.kind(Physical{at}) == PhysicalMemory::Kind::ram) memory_.write_bytes(Physical{at}, in, chunk);
        at += chunk;
        in += chunk;
        bytes -= chunk;
    }
}

/// The interrupt lines. Whoever drives one takes an input of its own.
struct Board::Wires {
    Wires(Pic8259& pic, IoApic& io_apic) {
        for (unsigned n = 0; n < 16; ++n) {
            SharedLine& to_pic = pic_inputs.emplace_back(pic.irq(n));
            // IRQ 2 is the cascade; ISA interrupt 0 takes the I/O APIC's pin 2 instead of pin 0.
            std::vector<InterruptLine*> targets{&to_pic.input()};
            if (n != 2) targets.push_back(&io_apic.pin(n == 0 ? 2 : n));
            isa.emplace_back(splits.emplace_back(std::move(targets)));
        }
        for (unsigned n = 0; n < 8; ++n) pci.emplace_back(io_apic.pin(16 + n));
    }
    std::array<InterruptLine*, 8> pci_inputs() {
        std::array<InterruptLine*, 8> out{};
        for (unsigned n = 0; n < 8; ++n) out[n] = &pci[n].input();
        return out;
    }
    /// Where the ISA bridge may route PCI interrupts for software that uses the 8259.
    std::array<InterruptLine*, 16> routable() {
        std::array<InterruptLine*, 16> out{};
        for (const unsigned n : {3u, 4u, 5u, 6u, 7u, 9u, 10u, 11u, 12u, 14u, 15u}) out[n] = &pic_inputs[n].input();
        return out;
    }
    std::array<InterruptLine*, 32> hpet_routes() {
        std::array<InterruptLine*, 32> out{};
        for (unsigned n = 20; n < 24; ++n) out[n] = &pci[n - 16].input();
        return out;
    }
    std::array<InterruptLine*, 24> test_lines() {
        std::array<InterruptLine*, 24> out{};
        for (unsigned n = 0; n < 16; ++n) out[n] = &isa[n].input();
        for (unsigned n = 16; n < 24; ++n) out[n] = &pci[n - 16].input();
        return out;
    }

    std::deque<SharedLine> pic_inputs;
    std::deque<SplitLine> splits;
    std::deque<SharedLine> isa;
    std::deque<SharedLine> pci;
};

Board::Board(Clock& clock, PhysicalMemory& memory, unsigned cpus, const std::string& drive_path, BoardHooks hooks)
    : pic(intr), io_apic(apic_bus, apic_bus), wires(std::make_unique<Wires>(pic, io_apic)), dma(memory),
      hpet(clock, wires->hpet_routes(), wires->isa[0].input(), wires->isa[8].input()),
      pit(clock, hpet.pit_input()), rtc(clock, hpet.rtc_input()),
      keyboard(wires->isa[1].input(), hooks.reset, hooks.a20),
      serial(clock, wires->isa[4].input(), hooks.serial_output),
      pm(clock, wires->isa[9].input(), hooks.power_off, hooks.reset),
      pci(apic_bus, wires->pci_inputs(), wires->routable()),
      fw_cfg(dma, {.ram_bytes = memory.ram_bytes(),
                   .cpus = static_cast<u16>(cpus),
                   .max_cpus = static_cast<u16>(cpus)}),
      debug_exit(hooks.debug_exit), test_device(wires->test_lines(), [](u64) {}) {
    intr.add(io_apic.pin(0));
    if (!drive_path.empty()) {
        drive = std::make_unique<Drive>(drive_path);
        block = std::make_unique<VirtioBlock>(dma, *drive);
        pci.attach(*block, block_device_number);
    }
    rtc.set_memory_size(memory.low_ram_bytes(), memory.high_ram_bytes());
}

Board::~Board() = default;

void Board::connect(Bus& bus) {
    bus.add_ports(0x20, 2, pic);
    bus.add_ports(0xA0, 2, pic);
    bus.add_ports(0x4D0, 2, pic);
    bus.add_ports(0x40, 4, pit);
    bus.add_ports(0x61, 1, pit);
    bus.add_ports(0x70, 2, rtc);
    bus.add_ports(0x60, 1, keyboard);
    bus.add_ports(0x64, 1, keyboard);
    bus.add_ports(0x92, 1, keyboard);
    bus.add_ports(serial.base(), 8, serial);
    bus.add_ports(AcpiPm::base, 0x80, pm);
    bus.add_ports(AcpiPm::smi_command, 2, pm);
    bus.add_ports(0xCF8, 8, pci);
    bus.add_ports(AcpiPm::reset_control, 1, pm);
    bus.add_wide_port(0xCF8, 4, pci);
    bus.add_ports(FwCfg::selector_port, 2, fw_cfg);
    bus.add_ports(FwCfg::dma_port, 8, fw_cfg);
    bus.add_ports(DebugExit::default_port, 4, debug_exit);
    bus.add_ports(0xE0, 12, test_device);
    bus.add_ports(PcTestdev::irq_base, 24, test_device);
    bus.add_mmio(IoApic::default_base, page_size, io_apic);
    bus.add_mmio(Hpet::default_base, 1024, hpet);
    bus.add_mmio(PcTestdev::mmio_base, PcTestdev::mmio_bytes, test_device);
    bus.set_pci(pci, PciHost::io_base);
}

std::vector<Board::Named> Board::devices() {
    std::vector<Named> out;
    for (auto* lines : {&wires->isa, &wires->pci, &wires->pic_inputs})
        for (SharedLine& line : *lines) out.push_back({"line", &line});
    for (const Named& named : {Named{"apic_bus", &apic_bus}, Named{"pic_8259", &pic}, Named{"io_apic", &io_apic},
                               Named{"hpet", &hpet}, Named{"pit_8254", &pit}, Named{"cmos_rtc", &rtc},
                               Named{"ps2_8042", &keyboard}, Named{"serial_16550", &serial}, Named{"acpi_pm", &pm},
                               Named{"pci_host", &pci}, Named{"fw_cfg", &fw_cfg}, Named{"debug_exit", &debug_exit},
                               Named{"pc_testdev", &test_device}})
        out.push_back(named);
    if (block) out.push_back({"virtio_block", block.get()});
    return out;
}

void Board::reset() {
    for (const Named& named : devices()) named.device->reset();
}

void Board::program_as_firmware() {
    // 8259s: vectors 8 and 70H, as the BIOS of the PC AT has them; all inputs masked.
    const auto start = [&](u16 port, u32 vector, u32 cascade) {
        pic.port_write(port, 1, 0x11);
        pic.port_write(static_cast<u16>(port + 1), 1, vector);
        pic.port_write(static_cast<u16>(port + 1), 1, cascade);
        pic.port_write(static_cast<u16>(port + 1), 1, 0x01);
        pic.port_write(static_cast<u16>(port + 1), 1, 0xFF);
    };
    start(0x20, 0x08, 0x04);
    start(0xA0, 0x70, 0x02);
    pci.assign_resources();
}

FirmwareFacts Board::facts() const {
    FirmwareFacts out;
    out.serial_port = serial.base();
    if (block) out.pci_devices.push_back(block_device_number);
    return out;
}

void Board::visit(StateVisitor& visitor) {
    visitor.enter("board");
    std::size_t number = 0;
    for (const Named& named : devices()) {
        visitor.enter(named.name + std::to_string(number++));
        named.device->visit(visitor);
        visitor.leave();
    }
    if (drive) {
        visitor.enter("drive");
        drive->visit(visitor);
        visitor.leave();
    }
    visitor.leave();
}

}  // namespace exeunt
