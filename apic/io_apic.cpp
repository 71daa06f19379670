#include "apic/io_apic.hpp"

#include <algorithm>

namespace exeunt {

namespace {

// Offsets in the page: index register, data register, EOI register. Indices: ID, version, arbitration ID,
// then two for each redirection table entry.
constexpr u64 ioregsel = 0x00, iowin = 0x10, eoi_register = 0x40;
constexpr u8 ioapic_id = 0x00, ioapic_version = 0x01, ioapic_arb = 0x02, first_entry = 0x10;

} // namespace

IoApic::IoApic(MessageSink& sink, ApicBus& bus, u8 id) : sink_(sink), initial_id_(id) {
    for (unsigned n = 0; n < pins; ++n) {
        pin_[n].io_apic = this;
        pin_[n].index = n;
    }
    bus.attach(static_cast<EoiListener&>(*this));
    reset();
}

void IoApic::reset() {
    select_ = 0;
    id_ = u32{initial_id_} << 24 & 0x0F00'0000;
    std::fill(std::begin(entry_), std::end(entry_), entry_reset);
}

u64 IoApic::mmio_read(u64 offset, unsigned size) {
    u32 value = 0;
    if ((offset & ~u64{3}) == ioregsel)
        value = select_;
    else if ((offset & ~u64{3}) == iowin)
        value = read_indirect();
    const u64 shifted = u64{value} >> (8 * (offset & 3));
    return shifted & low_mask(8 * size);
}

// Only the low byte of IOREGSEL and of the EOI register means anything; IOWIN takes whole doublewords.
void IoApic::mmio_write(u64 offset, unsigned size, u64 value) {
    if (offset == ioregsel)
        select_ = static_cast<u8>(value);
    else if (offset == iowin && size >= 4)
        write_indirect(low32(value));
    else if (offset == eoi_register)
        eoi(static_cast<u8>(value));
}

u32 IoApic::read_indirect() const {
    switch (select_) {
    case ioapic_id:
    case ioapic_arb: return id_;
    case ioapic_version: return version;
    default: break;
    }
    const unsigned n = (select_ - first_entry) / 2u;
    if (select_ < first_entry || n >= pins) return 0;
    return select_ & 1 ? high32(entry_[n]) : low32(entry_[n]);
}

void IoApic::write_indirect(u32 value) {
    if (select_ == ioapic_id) id_ = value & 0x0F00'0000;
    const unsigned n = (select_ - first_entry) / 2u;
    if (select_ < first_entry || n >= pins) return;
    const u64 half = select_ & 1 ? u64{0xFFFF'FFFF} << 32 : u64{0xFFFF'FFFF};
    const u64 mask = entry_writable & half;
    const u64 wide = select_ & 1 ? u64{value} << 32 : value;
    entry_[n] = (entry_[n] & ~mask) | (wide & mask);
    // Remote IRR has no meaning for an edge-triggered entry, and becoming one clears it.
    if (!(entry_[n] & level_triggered)) entry_[n] &= ~remote_irr;
    deliver_if_level(n);
}

void IoApic::pin_changed(unsigned index, bool level) {
    const bool rising = level && !asserted_[index];
    asserted_[index] = level;
    if (entry_[index] & level_triggered)
        deliver_if_level(index);
    else if (rising && !(entry_[index] & masked))
        deliver(index); // an edge at a masked pin is lost
}

void IoApic::deliver_if_level(unsigned index) {
    u64& entry = entry_[index];
    if (!(entry & level_triggered) || !asserted_[index] || (entry & (masked | remote_irr))) return;
    entry |= remote_irr;
    deliver(index);
}

void IoApic::deliver(unsigned index) {
    const u64 entry = entry_[index];
    const ApicMessage message{.vector = static_cast<u8>(entry),
                              .delivery_mode = static_cast<u8>(extract(entry, 10, 8)),
                              .logical = test_bit(entry, 11),
                              .level = test_bit(entry, 15),
                              .wide = false,
                              .destination = static_cast<u32>(extract(entry, 63, 56))};
    sink_.message(msi::address_of(message), msi::data_of(message));
}

void IoApic::eoi(u8 vector) {
    for (unsigned n = 0; n < pins; ++n) {
        if (static_cast<u8>(entry_[n]) != vector || !(entry_[n] & level_triggered)) continue;
        entry_[n] &= ~remote_irr;
        deliver_if_level(n);
    }
}

void IoApic::visit(StateVisitor& visitor) {
    visitor.value("select", select_);
    visitor.value("id", id_);
    visitor.array("entry", entry_);
    visitor.array("asserted", asserted_);
}

} // namespace exeunt
