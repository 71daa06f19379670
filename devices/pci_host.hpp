// PCI host bridge (configuration mechanism #1 and ECAM), root bus, and ISA bridge with interrupt routing, as
// Intel's Q35 (82P35 MCH) and ICH9 have them, so that operating systems and firmware know the machine.
// PCI Local Bus Specification 3.0 3.2.2.3; Intel 3 Series Express Chipset Family data sheet ch. 5; Intel I/O
// Controller Hub 9 data sheet 13.1.
//
// Wiring: ports CF8H and CFCH-CFFH (a byte access to CF9H is AcpiPm's). Everything in memory or I/O space
// that nothing else claims goes to memory_read()/memory_write() and io_read()/io_write(): they decode ECAM
// and BARs, and read all ones where nothing answers. `gsi[n]` are inputs of GSI 16+n; `isa[n]` an input of
// the 8259's IRQ n (null: not routable). attach() devices to bus 0. Where no firmware runs, call
// assign_resources() after reset: BARs, interrupt lines (10 and 11, which the 8259 must take as levels: ELCR
// 0C00H), decoding, as firmware would leave them.
// _PRT: device d, pin p (0 is INTA) is GSI 16 + (d + p) % 8; the interrupt line register says the same
// for software that uses the 8259.
// Not modelled: further buses and bridges; ROM shadowing (PAM registers are kept, RAM is always there).
#pragma once

#include "devices/lines.hpp"
#include "devices/pci_device.hpp"

#include <array>
#include <deque>
#include <memory>
#include <vector>

namespace exeunt {

class PciHost final : public PortDevice, public Device {
public:
    static constexpr u64 ecam_base = 0xE000'0000, ecam_bytes = 0x1000'0000;
    static constexpr unsigned ecam_buses = 256;
    /// Windows for BARs: what _CRS of the root bridge says.
    static constexpr u64 memory_base = 0xC000'0000, memory_end = 0xE000'0000;
    static constexpr u16 io_base = 0xC000, io_end = 0xFFFF;
    static constexpr unsigned lpc_device = 31;

    PciHost(MessageSink& messages, const std::array<InterruptLine*, 8>& gsi,
            const std::array<InterruptLine*, 16>& isa);
    PciHost(const PciHost&) = delete;
    PciHost& operator=(const PciHost&) = delete;
    ~PciHost() override;

    void attach(PciDevice& device, unsigned number, unsigned function = 0);
    PciDevice* device(unsigned number, unsigned function) const;
    void assign_resources();
    /// NB_CFG.EnableCf8ExtCfg of AMD's processors: bits 27:24 of the address port are bits 11:8 of the register.
    void set_extended_ports(bool extended) { address_mask_ = extended ? 0x8FFF'FFFC : 0x80FF'FFFC; }

    u64 memory_read(u64 physical, unsigned size);
    void memory_write(u64 physical, unsigned size, u64 value);
    u32 io_read(u16 port, unsigned size);
    void io_write(u16 port, unsigned size, u32 value);

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    class HostBridge;
    class LpcBridge;
    /// The INTx output of one device: drives the PIRQ that its slot and pin swizzle to.
    struct Intx final : InterruptLine {
        void set(bool value) override;
        PciHost* host = nullptr;
        unsigned pirq = 0;
        bool level = false;
    };

    void route();
    u32 config_read(unsigned devfn, unsigned offset, unsigned size);
    void config_write(unsigned devfn, unsigned offset, unsigned size, u32 value);
    struct EcamAddress {
        unsigned bus = 0, devfn = 0, offset = 0;
    };
    bool ecam(u64 physical, EcamAddress& address) const;
    PciDevice* decoder(bool io, u64 address, PciDevice::Hit& hit) const;

    MessageSink& messages_;
    std::array<InterruptLine*, 8> gsi_;
    std::array<InterruptLine*, 16> isa_;
    std::array<PciDevice*, 256> function_{};
    std::vector<PciDevice*> attached_;
    std::deque<Intx> intx_;
    std::unique_ptr<HostBridge> host_bridge_;
    std::unique_ptr<LpcBridge> lpc_bridge_;
    u32 address_mask_ = 0x80FF'FFFC;
    /// Register number in the address port.
    u32 register_number() const { return (address_ & 0xFC) | static_cast<u32>(extract(address_, 27, 24)) << 8; }
    u32 address_ = 0;
};

} // namespace exeunt
