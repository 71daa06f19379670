#include "machine/bus.hpp"

#include "base/bits.hpp"
#include "base/ensure.hpp"

#include <algorithm>

namespace exeunt {

void Bus::add_ports(u16 first, unsigned count, PortDevice& device) {
    ENSURE(first + count <= port_owner_.size());
    auto known = std::find(port_devices_.begin(), port_devices_.end(), &device);
    if (known == port_devices_.end()) {
        ENSURE(port_devices_.size() < 256);
        known = port_devices_.insert(known, &device);
    }
    std::fill_n(port_owner_.begin() + first, count, static_cast<u8>(known - port_devices_.begin()));
}

void Bus::add_mmio(u64 start, u64 bytes, MmioDevice& device) {
    for (const Range& range : ranges_) ENSURE(start + bytes <= range.start || range.start + range.bytes <= start);
    ranges_.push_back({start, bytes, &device});
}

bool Bus::uniform(u16 port, unsigned size) const {
    for (unsigned i = 1; i < size; ++i)
        if (port + i >= port_owner_.size() || port_owner_[port + i] != port_owner_[port]) return false;
    return true;
}

PortDevice* Bus::wide(u16 port, unsigned size) const {
    for (const WidePort& wide : wide_)
        if (wide.port == port && wide.size == size) return wide.device;
    return nullptr;
}

u32 Bus::port_read(u16 port, unsigned size) {
    const u32 mask = static_cast<u32>(low_mask(8 * size));
    if (size == 1 || uniform(port, size)) {
        if (PortDevice* device = port_devices_[port_owner_[port]]) return device->port_read(port, size) & mask;
        return port >= pci_first_port_ ? pci_->io_read(port, size) & mask : mask;
    }
    if (PortDevice* device = wide(port, size)) return device->port_read(port, size) & mask;
    u32 value = 0;
    for (unsigned i = 0; i < size; ++i) value |= port_read(static_cast<u16>(port + i), 1) << (8 * i);
    return value;
}

void Bus::port_write(u16 port, unsigned size, u32 value) {
    value &= static_cast<u32>(low_mask(8 * size));
    if (size == 1 || uniform(port, size)) {
        if (PortDevice* device = port_devices_[port_owner_[port]]) {
            device->port_write(port, size, value);
        } else if (port >= pci_first_port_) {
            pci_->io_write(port, size, value);
        }
        return;
    }
    if (PortDevice* device = wide(port, size)) {
        device->port_write(port, size, value);
        return;
    }
    for (unsigned i = 0; i < size; ++i) port_write(static_cast<u16>(port + i), 1, (value >> (8 * i)) & 0xFF);
}

Bus::Range Bus::find(u64 physical) {
    if (current_ < apics_.size()) {
        LocalApic& apic = *apics_[current_];
        if ((physical & ~u64{0xFFF}) == apic.apic_page() && apic.page_enabled())
            return {apic.apic_page(), 4096, &apic};
    }
    if (physical - last_.start < last_.bytes) return last_;
    for (const Range& range : ranges_)
        if (physical - range.start < range.bytes) return last_ = range;
    return {};
}

u64 Bus::mmio_read(u64 physical, unsigned size) {
    if ((physical & 7) + size > 8) {
        u64 value = 0;
        for (unsigned i = 0; i < size; ++i) value |= mmio_read(physical + i, 1) << (8 * i);
        return value;
    }
    const Range range = find(physical);
    const u64 mask = low_mask(8 * size);
    if (range.device) return range.device->mmio_read(physical - range.start, size) & mask;
    return pci_ ? pci_->memory_read(physical, size) & mask : mask;
}

void Bus::mmio_write(u64 physical, unsigned size, u64 value) {
    if ((physical & 7) + size > 8) {
        for (unsigned i = 0; i < size; ++i) mmio_write(physical + i, 1, (value >> (8 * i)) & 0xFF);
        return;
    }
    const Range range = find(physical);
    value &= low_mask(8 * size);
    if (range.device) {
        range.device->mmio_write(physical - range.start, size, value);
    } else if (pci_) {
        pci_->memory_write(physical, size, value);
    }
}

}  // namespace exeunt
