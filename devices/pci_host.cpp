#include "devices/pci_host.hpp"

#include "base/ensure.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u16 address_port = 0xCF8, data_port = 0xCFC;
constexpr u32 pciexbar = 0x60, pirq_a = 0x60, pirq_e = 0x68;
constexpr u8 pirq_disabled = 0x80;
/// 8259 inputs that PCI interrupts can be routed to.
constexpr u16 routable = 0xDEF8;

constexpr unsigned pirq_register(unsigned pirq) { return pirq < 4 ? pirq_a + pirq : pirq_e + pirq - 4; }

} // namespace

/// 82P35 memory controller hub, function 0.
class PciHost::HostBridge final : public PciDevice {
public:
    HostBridge() : PciDevice({.vendor = 0x8086, .device = 0x29C0, .class_code = 0x06'00'00, .revision = 2}) {
        add_register({pciexbar, "PCIEXBAR", 8, ecam_base | 1, 0x0000'000F'F000'0007});
        for (u32 n = 0; n < 7; ++n) add_register({0x90 + n, "PAM", 1, 0, 0x33});
    }
    u64 ecam_register() const { return get(pciexbar, 4) | u64{get(pciexbar + 4, 4)} << 32; }
};

/// ICH9 LPC interface bridge. The ACPI block is where AcpiPm::base says and does not move.
class PciHost::LpcBridge final : public PciDevice {
public:
    explicit LpcBridge(PciHost& host)
        : PciDevice({.vendor = 0x8086, .device = 0x2918, .class_code = 0x06'01'00, .revision = 2}),
          host_(host) {
        add_register({0x0E, "header type", 1, 0x80, 0});
        add_register({0x40, "PMBASE", 4, 0x601, 0});
        add_register({0x44, "ACPI_CNTL", 1, 0x80, 0});
        for (unsigned pirq = 0; pirq < 8; ++pirq)
            add_register({pirq_register(pirq), "PIRQ_ROUT", 1, pirq_disabled, 0x8F});
    }
    /// The 8259 input of a PIRQ, or 0.
    unsigned isa_irq(unsigned pirq) const {
        const u32 value = get(pirq_register(pirq), 1);
        return value & pirq_disabled || !test_bit(routable, value & 15) ? 0 : value & 15;
    }

protected:
    void config_written(unsigned, unsigned) override { host_.route(); }

private:
    PciHost& host_;
};

PciHost::PciHost(MessageSink& messages, const std::array<InterruptLine*, 8>& gsi,
                 const std::array<InterruptLine*, 16>& isa)
    : messages_(messages),
      gsi_(gsi),
      isa_(isa),
      host_bridge_(std::make_unique<HostBridge>()),
      lpc_bridge_(std::make_unique<LpcBridge>(*this)) {
    attach(*host_bridge_, 0);
    attach(*lpc_bridge_, lpc_device);
}

PciHost::~PciHost() = default;

void PciHost::attach(PciDevice& device, unsigned number, unsigned function) {
    ENSURE(number < 32 && function < 8 && !function_[number << 3 | function]);
    function_[number << 3 | function] = &device;
    attached_.push_back(&device);
    Intx& line = intx_.emplace_back();
    line.host = this;
    line.pirq = (number + std::max<unsigned>(device.interrupt_pin(), 1) - 1) % 8;
    device.connect(line, messages_);
    device.reset();
}

PciDevice* PciHost::device(unsigned number, unsigned function) const {
    return function_[(number & 31) << 3 | (function & 7)];
}

// ---- Interrupts
// -----------------------------------------------------------------------------------------------

void PciHost::Intx::set(bool value) {
    if (value == level) return;
    level = value;
    host->route();
}

void PciHost::route() {
    std::array<bool, 8> asserted{};
    for (const Intx& line : intx_) asserted[line.pirq] = asserted[line.pirq] || line.level;
    std::array<bool, 16> isa{};
    for (unsigned pirq = 0; pirq < 8; ++pirq) {
        if (gsi_[pirq]) gsi_[pirq]->set(asserted[pirq]);
        const unsigned irq = lpc_bridge_ ? lpc_bridge_->isa_irq(pirq) : 0;
        isa[irq] = isa[irq] || asserted[pirq];
    }
    for (unsigned irq = 1; irq < 16; ++irq)
        if (isa_[irq] && test_bit(routable, irq)) isa_[irq]->set(isa[irq]);
}

// What firmware does: PIRQs to interrupts 10 and 11 in turn, addresses to BARs in the order of the devices.
void PciHost::assign_resources() {
    for (unsigned pirq = 0; pirq < 8; ++pirq)
        lpc_bridge_->config_write(pirq_register(pirq), 1, 10 + pirq % 2);
    u64 memory = memory_base, io = io_base;
    for (unsigned devfn = 0; devfn < function_.size(); ++devfn) {
        PciDevice* device = function_[devfn];
        if (!device) continue;
        u32 command = 0;
        for (unsigned bar = 0; bar < PciDevice::bars; ++bar) {
            const PciDevice::BarKind kind = device->bar_kind(bar);
            if (kind == PciDevice::BarKind::none || kind == PciDevice::BarKind::upper) continue;
            const bool is_io = kind == PciDevice::BarKind::io;
            u64& next = is_io ? io : memory;
            const u64 at = align_up(next, std::max<u64>(device->bar_bytes(bar), is_io ? 4 : 4096));
            if (at + device->bar_bytes(bar) > (is_io ? io_end : memory_end)) continue;
            device->config_write(0x10 + 4 * bar, 4, low32(at));
            next = at + device->bar_bytes(bar);
            command |= is_io ? PciDevice::command_io : PciDevice::command_memory;
        }
        device->config_write(0x04, 2, command);
        if (const u8 pin = device->interrupt_pin())
            device->config_write(0x3C, 1, 10 + ((devfn >> 3) + pin - 1u) % 8 % 2);
    }
}

// ---- Configuration space
// ----------------------------------------------------------------------------------------

u32 PciHost::config_read(unsigned devfn, unsigned offset, unsigned size) {
    PciDevice* device = function_[devfn & 0xFF];
    return device ? device->config_read(offset, size) : low32(low_mask(8 * size));
}

void PciHost::config_write(unsigned devfn, unsigned offset, unsigned size, u32 value) {
    if (PciDevice* device = function_[devfn & 0xFF]) device->config_write(offset, size, value);
}

u32 PciHost::port_read(u16 port, unsigned size) {
    if (port == address_port && size == 4) return address_;
    const unsigned byte = port - u32{data_port};
    if (port < data_port || byte + size > 4 || !(address_ >> 31) || extract(address_, 23, 16) != 0)
        return low32(low_mask(8 * size));
    return config_read(extract(address_, 15, 8) & 0xFF, register_number() + byte, size);
}

void PciHost::port_write(u16 port, unsigned size, u32 value) {
    if (port == address_port && size == 4) {
        address_ = value & address_mask_;
        return;
    }
    const unsigned byte = port - u32{data_port};
    if (port < data_port || byte + size > 4 || !(address_ >> 31) || extract(address_, 23, 16) != 0) return;
    config_write(extract(address_, 15, 8) & 0xFF, register_number() + byte, size, value);
}

// PCI Express 7.2.2 "PCI Express Enhanced Configuration Access Mechanism (ECAM)"; the length field of
// PCIEXBAR is 256, 128 or 64 buses.
bool PciHost::ecam(u64 physical, EcamAddress& address) const {
    const u64 value = host_bridge_->ecam_register();
    const u64 length = extract(value, 2, 1);
    if (!(value & 1) || length == 3) return false;
    const u64 offset = physical - (value & 0x0000'000F'F000'0000);
    if (offset >= ecam_bytes >> length) return false;
    address = {static_cast<unsigned>(offset >> 20), static_cast<unsigned>(offset >> 12 & 0xFF),
               static_cast<unsigned>(offset & 0xFFF)};
    return true;
}

// ---- Memory and I/O space
// ---------------------------------------------------------------------------------------

PciDevice* PciHost::decoder(bool io, u64 address, PciDevice::Hit& hit) const {
    for (PciDevice* device : attached_)
        if (device->decodes(io, address, hit)) return device;
    return nullptr;
}

u64 PciHost::memory_read(u64 physical, unsigned size) {
    if (EcamAddress at; ecam(physical, at)) {
        if (at.bus != 0) return low_mask(8 * size);
        if (size < 8) return config_read(at.devfn, at.offset, size);
        return config_read(at.devfn, at.offset, 4) | u64{config_read(at.devfn, at.offset + 4, 4)} << 32;
    }
    PciDevice::Hit hit;
    PciDevice* device = decoder(false, physical, hit);
    return device ? device->region_read(hit, size) : low_mask(8 * size);
}

void PciHost::memory_write(u64 physical, unsigned size, u64 value) {
    if (EcamAddress at; ecam(physical, at)) {
        if (at.bus != 0) return;
        config_write(at.devfn, at.offset, std::min(size, 4u), low32(value));
        if (size == 8) config_write(at.devfn, at.offset + 4, 4, high32(value));
        return;
    }
    PciDevice::Hit hit;
    if (PciDevice* device = decoder(false, physical, hit)) device->region_write(hit, size, value);
}

u32 PciHost::io_read(u16 port, unsigned size) {
    PciDevice::Hit hit;
    PciDevice* device = decoder(true, port, hit);
    return low32(device ? device->region_read(hit, size) : low_mask(8 * size));
}

void PciHost::io_write(u16 port, unsigned size, u32 value) {
    PciDevice::Hit hit;
    if (PciDevice* device = decoder(true, port, hit)) device->region_write(hit, size, value);
}

void PciHost::reset() {
    address_ = 0;
    for (PciDevice* device : attached_) device->reset();
    route();
}

void PciHost::visit(StateVisitor& visitor) {
    visitor.value("address", address_);
    for (Intx& line : intx_) visitor.value("intx", line.level);
    for (unsigned devfn = 0; devfn < function_.size(); ++devfn) {
        if (!function_[devfn]) continue;
        visitor.enter("function_" + std::to_string(devfn >> 3) + "_" + std::to_string(devfn & 7));
        function_[devfn]->visit(visitor);
        visitor.leave();
    }
}

} // namespace exeunt
