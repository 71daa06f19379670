// The machine's address map outside RAM and its I/O ports: who answers where. Ports and addresses that nobody
// claims read as all ones, and writes to them are dropped.
//
// Not modelled: a local APIC page (IA32_APIC_BASE) moved over RAM; RAM wins there.
#pragma once

#include "apic/local_apic.hpp"
#include "base/bus.hpp"
#include "devices/pci_host.hpp"

#include <array>
#include <vector>

namespace exeunt {

class Bus final : public IoBus {
public:
    /// Ports [first, first + count) go to `device`; what claimed them before loses them.
    void add_ports(u16 first, unsigned count, PortDevice& device);
    /// An access of exactly `size` bytes at `port` goes whole to `device`, whoever claims the ports one by one.
    void add_wide_port(u16 port, unsigned size, PortDevice& device) { wide_.push_back({port, size, &device}); }
    /// Whoever answers what nobody claims: BARs, which move. Ports only from `first_port` on.
    void set_pci(PciHost& pci, u16 first_port) {
        pci_ = &pci;
        pci_first_port_ = first_port;
    }
    /// Addresses [start, start + bytes) go to `device`. Ranges do not overlap.
    void add_mmio(u64 start, u64 bytes, MmioDevice& device);
    /// The local APIC of the next processor, in the order of their numbers.
    void add_local_apic(LocalApic& apic) { apics_.push_back(&apic); }
    /// Whose accesses follow.
    void set_current(unsigned cpu) { current_ = cpu; }
    unsigned current() const { return current_; }

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    u64 mmio_read(u64 physical, unsigned size) override;
    void mmio_write(u64 physical, unsigned size, u64 value) override;

private:
    struct Range {
        u64 start = 0, bytes = 0;
        MmioDevice* device = nullptr;
    };
    struct WidePort {
        u16 port;
        unsigned size;
        PortDevice* device;
    };
    PortDevice* wide(u16 port, unsigned size) const;
    /// Whether the `size` ports from `port` on are claimed as one (or not at all).
    bool uniform(u16 port, unsigned size) const;
    /// The device at an address, and the start of its range.
    Range find(u64 physical);

    std::array<u8, 65536> port_owner_{};  ///< index into `port_devices_`; 0 is nobody
    std::vector<PortDevice*> port_devices_{nullptr};
    std::vector<WidePort> wide_;
    PciHost* pci_ = nullptr;
    unsigned pci_first_port_ = 0x1'0000;
    std::vector<Range> ranges_;
    Range last_;
    std::vector<LocalApic*> apics_;
    unsigned current_ = 0;
};

}  // namespace exeunt
