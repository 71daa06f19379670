// What is soldered to the machine's board beside processors and RAM, and how its interrupt lines run.
#pragma once

#include "apic/io_apic.hpp"
#include "apic/ipi.hpp"
#include "base/clock.hpp"
#include "devices/acpi_pm.hpp"
#include "devices/cmos_rtc.hpp"
#include "devices/debug_exit.hpp"
#include "devices/fw_cfg.hpp"
#include "devices/hpet.hpp"
#include "devices/lines.hpp"
#include "devices/pc_testdev.hpp"
#include "devices/pci_host.hpp"
#include "devices/pic_8259.hpp"
#include "devices/pit_8254.hpp"
#include "devices/ps2_8042.hpp"
#include "devices/serial_16550.hpp"
#include "devices/virtio_block.hpp"
#include "machine/bus.hpp"
#include "machine/drive.hpp"
#include "machine/firmware_tables.hpp"
#include "mmu/physical_memory.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace exeunt {

/// Guest RAM as bus masters see it: ROM and devices are not theirs to write.
class RamForDma final : public DmaMemory {
public:
    explicit RamForDma(PhysicalMemory& memory) : memory_(memory) {}
    void read(u64 at, void* to, u64 bytes) override { memory_.read_bytes(Physical{at}, to, bytes); }
    void write(u64 at, const void* from, u64 bytes) override;

private:
    PhysicalMemory& memory_;
};

/// What devices ask of the machine.
struct BoardHooks {
    std::function<void(u8)> serial_output;
    std::function<void(u32)> debug_exit;
    std::function<void()> power_off;
    std::function<void()> reset;
    std::function<void(bool)> a20;
};

class Board {
public:
    /// The number of the block device on PCI bus 0.
    static constexpr unsigned block_device_number = 1;

    /// `drive_path`: empty for none. Throws BadInput.
    Board(Clock& clock, PhysicalMemory& memory, unsigned cpus, const std::string& drive_path, BoardHooks hooks);
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    /// Claims ports and addresses.
    void connect(Bus& bus);
    void reset();
    /// What firmware programs before it hands over: 8259s masked and out of the exceptions' way, PCI resources.
    void program_as_firmware();
    FirmwareFacts facts() const;
    void visit(StateVisitor& visitor);

    ApicBus apic_bus;
    SplitLine intr;       ///< the 8259's output: LINT0 of the processors
    Pic8259 pic;
    IoApic io_apic;

private:
    struct Wires;

public:
    std::unique_ptr<Wires> wires;
    RamForDma dma;
    Hpet hpet;
    Pit8254 pit;
    CmosRtc rtc;
    Ps2Controller keyboard;
    Serial16550 serial;
    AcpiPm pm;
    PciHost pci;
    FwCfg fw_cfg;
    DebugExit debug_exit;
    PcTestdev test_device;
    std::unique_ptr<Drive> drive;
    std::unique_ptr<VirtioBlock> block;

    ~Board();

private:
    struct Named {
        const char* name;
        Device* device;
    };
    std::vector<Named> devices();
};

}  // namespace exeunt
