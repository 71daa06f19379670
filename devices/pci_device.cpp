#include "devices/pci_device.hpp"

#include "base/ensure.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u8 capability_msi = 0x05, capability_msix = 0x11;
constexpr unsigned status_byte = 0x06, capabilities_pointer = 0x34, first_bar = 0x10;
constexpr u8 status_interrupt = 0x08, status_capabilities = 0x10;

} // namespace

PciDevice::PciDevice(const PciIdentity& identity) {
    add_register({0x00, "vendor ID", 2, identity.vendor, 0});
    add_register({0x02, "device ID", 2, identity.device, 0});
    add_register({0x04, "command", 2, 0, 0x0547});
    add_register({0x06, "status", 2, 0, 0, 0xF900});
    add_register({0x08, "revision and class", 4, identity.class_code << 8 | identity.revision, 0});
    add_register({0x0C, "cache line size", 1, 0, 0xFF});
    add_register({0x2C, "subsystem vendor ID", 2, identity.subsystem_vendor, 0});
    add_register({0x2E, "subsystem ID", 2, identity.subsystem, 0});
    add_register({0x3C, "interrupt line", 1, 0, 0xFF});
}

void PciDevice::connect(InterruptLine& intx, MessageSink& messages) {
    intx_line_ = &intx;
    messages_ = &messages;
}

// ---- Declarations
// -----------------------------------------------------------------------------------------------

void PciDevice::add_register(const RegisterRow& row) {
    ENSURE(row.offset + row.bytes <= config_bytes);
    for (unsigned i = 0; i < row.bytes; ++i) {
        reset_[row.offset + i] = config_[row.offset + i] = static_cast<u8>(row.reset >> (8 * i));
        writable_[row.offset + i] = static_cast<u8>(row.writable >> (8 * i));
        clears_[row.offset + i] = static_cast<u8>(row.write_one_to_clear >> (8 * i));
    }
}

void PciDevice::add_bar(unsigned bar, BarKind kind, u64 bytes) {
    ENSURE(bar < bars && (bytes & (bytes - 1)) == 0);
    bar_[bar] = {kind, bytes};
    const u32 offset = first_bar + 4 * bar;
    switch (kind) {
    case BarKind::io: add_register({offset, "BAR", 4, 1, ~(bytes - 1) & 0xFFFF'FFFC}); break;
    case BarKind::memory32: add_register({offset, "BAR", 4, 0, ~(bytes - 1) & 0xFFFF'FFF0}); break;
    case BarKind::memory64:
        ENSURE(bar + 1 < bars);
        bar_[bar + 1] = {BarKind::upper, 0};
        add_register({offset, "BAR", 8, 4, ~(bytes - 1) & ~u64{0xF}});
        break;
    default: break;
    }
}

void PciDevice::set_interrupt_pin(u8 pin) { add_register({0x3D, "interrupt pin", 1, pin, 0}); }

u8 PciDevice::add_capability(u8 id, unsigned bytes) {
    const u8 at = next_free_;
    ENSURE(at + bytes <= 0x100);
    reset_[status_byte] = config_[status_byte] = config_[status_byte] | status_capabilities;
    const unsigned link = last_capability_ ? last_capability_ + 1u : capabilities_pointer;
    reset_[link] = config_[link] = at;
    reset_[at] = config_[at] = id;
    last_capability_ = at;
    next_free_ = static_cast<u8>(align_up(at + bytes, 4));
    return at;
}

void PciDevice::add_msi() {
    msi_ = add_capability(capability_msi, 14);
    add_register({msi_ + 2u, "message control", 2, 0x0080, 0x0001});
    add_register({msi_ + 4u, "message address", 8, 0, ~u64{3}});
    add_register({msi_ + 12u, "message data", 2, 0, 0xFFFF});
}

void PciDevice::add_msix(unsigned vectors, unsigned bar, u32 table_offset, u32 pending_offset) {
    ENSURE(vectors >= 1 && vectors <= max_vectors && bar < bars);
    msix_ = add_capability(capability_msix, 12);
    add_register({msix_ + 2u, "message control", 2, vectors - 1, 0xC000});
    add_register({msix_ + 4u, "table offset", 4, table_offset | bar, 0});
    add_register({msix_ + 8u, "PBA offset", 4, pending_offset | bar, 0});
    msix_vectors_ = vectors;
    msix_bar_ = bar;
    msix_table_ = table_offset;
    msix_pending_offset_ = pending_offset;
}

// ---- Configuration space
// ------------------------------------------------------------------------------------------

u32 PciDevice::get(unsigned offset, unsigned bytes) const {
    u32 value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= u32{config_[(offset + i) % config_bytes]} << (8 * i);
    return value;
}

void PciDevice::put(unsigned offset, unsigned bytes, u32 value) {
    for (unsigned i = 0; i < bytes; ++i)
        config_[(offset + i) % config_bytes] = static_cast<u8>(value >> (8 * i));
}

u32 PciDevice::config_read(unsigned offset, unsigned size) {
    if (offset + size > config_bytes || size > 4) return ~u32{0};
    config_reading(offset, size);
    return get(offset, size);
}

void PciDevice::config_write(unsigned offset, unsigned size, u32 value) {
    if (offset + size > config_bytes || size > 4) return;
    for (unsigned i = 0; i < size; ++i) {
        const unsigned at = offset + i;
        const u8 byte = static_cast<u8>(value >> (8 * i));
        config_[at] = static_cast<u8>(((config_[at] & ~writable_[at]) | (byte & writable_[at])) &
                                      ~(byte & clears_[at]));
    }
    update_intx();
    if (msix_) send_pending();
    config_written(offset, size);
}

u64 PciDevice::bar_read(unsigned, u64, unsigned size) { return low_mask(8 * size); }
void PciDevice::bar_write(unsigned, u64, unsigned, u64) {}
void PciDevice::config_reading(unsigned, unsigned) {}
void PciDevice::config_written(unsigned, unsigned) {}

// ---- Base address registers
// ---------------------------------------------------------------------------------------

u64 PciDevice::bar_address(unsigned bar) const {
    const u64 low = get(first_bar + 4 * bar, 4);
    switch (bar_[bar].kind) {
    case BarKind::io: return low & ~u64{3};
    case BarKind::memory32: return low & ~u64{0xF};
    case BarKind::memory64: return (low & ~u64{0xF}) | u64{get(first_bar + 4 * bar + 4, 4)} << 32;
    default: return 0;
    }
}

bool PciDevice::decodes(bool io, u64 address, Hit& hit) const {
    if (!(command() & (io ? command_io : command_memory))) return false;
    for (unsigned n = 0; n < bars; ++n) {
        const Bar& bar = bar_[n];
        if (bar.kind == BarKind::none || bar.kind == BarKind::upper || (bar.kind == BarKind::io) != io)
            continue;
        const u64 offset = address - bar_address(n);
        if (offset >= bar.bytes) continue;
        hit = {n, offset};
        return true;
    }
    return false;
}

u64 PciDevice::region_read(const Hit& hit, unsigned size) {
    if (msix_ && hit.bar == msix_bar_) {
        if (hit.offset - msix_table_ < u64{msix_vectors_} * 16)
            return msix_read(static_cast<u32>(hit.offset - msix_table_), size);
        if (hit.offset - msix_pending_offset_ < 8)
            return part(msix_pending_, static_cast<unsigned>(hit.offset - msix_pending_offset_), size);
    }
    return bar_read(hit.bar, hit.offset, size);
}

void PciDevice::region_write(const Hit& hit, unsigned size, u64 value) {
    if (msix_ && hit.bar == msix_bar_) {
        if (hit.offset - msix_table_ < u64{msix_vectors_} * 16) {
            msix_write(static_cast<u32>(hit.offset - msix_table_), size, value);
            return;
        }
        if (hit.offset - msix_pending_offset_ < 8) return;
    }
    bar_write(hit.bar, hit.offset, size, value);
}

// ---- Interrupts
// ---------------------------------------------------------------------------------------------------

void PciDevice::set_intx(bool level) {
    intx_ = level;
    update_intx();
}

void PciDevice::update_intx() {
    config_[status_byte] =
        static_cast<u8>((config_[status_byte] & ~status_interrupt) | (intx_ ? status_interrupt : 0));
    if (intx_line_) intx_line_->set(intx_ && !(command() & command_intx_disable));
}

bool PciDevice::msi_enabled() const { return msi_ && (get(msi_ + 2u, 2) & 1); }
bool PciDevice::msix_enabled() const { return msix_ && (get(msix_ + 2u, 2) & 0x8000); }

void PciDevice::send_msi() {
    if (!msi_enabled() || !bus_master() || !messages_) return;
    messages_->message(get(msi_ + 4u, 4) | u64{get(msi_ + 8u, 4)} << 32, get(msi_ + 12u, 2));
}

void PciDevice::send_msix(unsigned n) {
    if (!msix_enabled() || n >= msix_vectors_) return;
    const bool masked = (get(msix_ + 2u, 2) & 0x4000) || (msix_entry_[n][3] & 1);
    if (masked)
        msix_pending_ |= bit(n);
    else
        fire(n);
}

void PciDevice::fire(unsigned n) {
    msix_pending_ &= ~bit(n);
    if (!bus_master() || !messages_) return;
    const u32* entry = msix_entry_[n];
    messages_->message(entry[0] | u64{entry[1]} << 32, entry[2]);
}

/// Sends what became pending while masked and no longer is.
void PciDevice::send_pending() {
    if (!msix_enabled() || (get(msix_ + 2u, 2) & 0x4000)) return;
    for (unsigned n = 0; n < msix_vectors_; ++n)
        if (test_bit(msix_pending_, n) && !(msix_entry_[n][3] & 1)) fire(n);
}

u64 PciDevice::msix_read(u32 offset, unsigned size) {
    const u32* words = msix_entry_[offset / 16];
    const unsigned word = offset / 4 % 4;
    const u64 value = words[word] | (word < 3 ? u64{words[word + 1]} << 32 : 0);
    return part(value, offset & 3, size);
}

// Software uses full aligned doublewords and quadwords; anything else has undefined effect, here none.
void PciDevice::msix_write(u32 offset, unsigned size, u64 value) {
    if ((size != 4 && size != 8) || offset % size != 0) return;
    for (unsigned i = 0; i < size / 4; ++i) {
        const unsigned word = (offset / 4 + i) % 4;
        constexpr u32 writable[4] = {~u32{3}, ~u32{0}, ~u32{0}, 1};
        msix_entry_[offset / 16][word] = static_cast<u32>(value >> (32 * i)) & writable[word];
    }
    send_pending();
}

// ---- State
// --------------------------------------------------------------------------------------------------------

void PciDevice::reset() {
    config_ = reset_;
    for (auto& entry : msix_entry_) {
        std::fill(std::begin(entry), std::end(entry), 0);
        entry[3] = 1;
    }
    msix_pending_ = 0;
    device_reset();
    set_intx(false);
}

void PciDevice::visit(StateVisitor& visitor) {
    visitor.bytes("config", config_);
    visitor.value("intx", intx_);
    visitor.value("msix_pending", msix_pending_);
    for (unsigned n = 0; n < msix_vectors_; ++n) visitor.array("msix_" + std::to_string(n), msix_entry_[n]);
    device_visit(visitor);
}

} // namespace exeunt
