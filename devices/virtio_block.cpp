#include "devices/virtio_block.hpp"

#include <algorithm>

namespace exeunt {

namespace {

// 4.1.4 "Virtio Structure PCI Capabilities": all in BAR 0, a page each; the MSI-X table is BAR 1.
constexpr unsigned structures_bar = 0, msix_bar = 1;
constexpr u64 common_offset = 0x0000, isr_offset = 0x1000, device_offset = 0x2000, notify_offset = 0x3000;
constexpr u64 structures_bytes = 0x4000, common_bytes = 0x38, device_bytes = 0x18;
constexpr u8 cap_vendor = 0x09;
constexpr u8 cfg_common = 1, cfg_notify = 2, cfg_isr = 3, cfg_device = 4, cfg_pci = 5;

constexpr u64 feature_size_max = bit(1), feature_seg_max = bit(2), feature_read_only = bit(5),
              feature_block_size = bit(6), feature_flush = bit(9), feature_version_1 = bit(32);
constexpr u8 status_driver_ok = 4, status_features_ok = 8, status_needs_reset = 0x40;
constexpr u16 descriptor_next = 1, descriptor_write = 2, available_no_interrupt = 1;
constexpr u8 isr_queue = 1, isr_configuration = 2;

// 5.2.6 "Device Operation".
constexpr u32 request_in = 0, request_out = 1, request_flush = 4, request_get_id = 8;
constexpr u8 request_ok = 0, request_error = 1, request_unsupported = 2;
constexpr u64 header_bytes = 16, sector_bytes = 512, id_bytes = 20;
constexpr u64 buffer_bytes = 64 * 1024;
constexpr char device_id[id_bytes] = "exeunt";

u64 little(const u8* bytes, unsigned count) {
    u64 value = 0;
    for (unsigned i = count; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

} // namespace

VirtioBlock::VirtioBlock(DmaMemory& memory, BlockBackend& backend)
    : PciDevice({.vendor = 0x1AF4,
                 .device = 0x1042,
                 .class_code = 0x01'00'00,
                 .revision = 1,
                 .subsystem_vendor = 0x1AF4,
                 .subsystem = 0x1100}),
      memory_(memory),
      backend_(backend) {
    set_interrupt_pin(1);
    add_bar(structures_bar, BarKind::memory32, structures_bytes);
    add_bar(msix_bar, BarKind::memory32, 0x1000);
    const auto structure = [this](u8 type, u64 offset, u64 bytes, u8 more) {
        const u8 at = add_capability(cap_vendor, 16u + more);
        set_capability_byte(at + 2u, static_cast<u8>(16 + more));
        set_capability_byte(at + 3u, type);
        set_capability_byte(at + 4u, structures_bar);
        for (unsigned i = 0; i < 4; ++i) {
            set_capability_byte(at + 8u + i, static_cast<u8>(offset >> (8 * i)));
            set_capability_byte(at + 12u + i, static_cast<u8>(bytes >> (8 * i)));
        }
        return at;
    };
    structure(cfg_common, common_offset, common_bytes, 0);
    structure(cfg_isr, isr_offset, 1, 0);
    structure(cfg_device, device_offset, device_bytes, 0);
    structure(cfg_notify, notify_offset, 2, 4); // notify_off_multiplier 0
    window_ = structure(cfg_pci, 0, 0, 4);
    add_register({window_ + 4u, "cap.bar", 1, 0, 0xFF});
    add_register({window_ + 8u, "cap.offset", 4, 0, 0xFFFF'FFFF});
    add_register({window_ + 12u, "cap.length", 4, 0, 0xFFFF'FFFF});
    add_register({window_ + 16u, "pci_cfg_data", 4, 0, 0xFFFF'FFFF});
    add_msix(vectors, msix_bar, 0, 0x800);
}

u64 VirtioBlock::offered_features() const {
    return feature_version_1 | feature_size_max | feature_seg_max | feature_block_size | feature_flush |
           (backend_.read_only() ? feature_read_only : 0);
}

void VirtioBlock::device_reset() {
    driver_features_ = 0;
    device_feature_select_ = driver_feature_select_ = 0;
    status_ = isr_ = 0;
    config_vector_ = queue_vector_ = no_vector;
    queue_select_ = 0;
    queue_size_ = queue_max;
    queue_enabled_ = false;
    descriptors_ = available_ = used_ = 0;
    next_available_ = next_used_ = 0;
}

// ---- Registers
// ------------------------------------------------------------------------------------------------

u64 VirtioBlock::bar_read(unsigned bar, u64 offset, unsigned size) {
    if (bar != structures_bar) return 0;
    if (offset < common_offset + common_bytes) return common_read(offset, size);
    if (offset >= device_offset && offset < device_offset + device_bytes)
        return device_config(offset - device_offset, size);
    if (offset == isr_offset) {
        const u8 value = isr_;
        isr_ = 0;
        set_intx(false);
        return value;
    }
    return 0;
}

void VirtioBlock::bar_write(unsigned bar, u64 offset, unsigned size, u64 value) {
    if (bar != structures_bar) return;
    if (offset < common_offset + common_bytes)
        common_write(offset, size, value);
    else if (offset == notify_offset && low32(value & 0xFFFF) == 0)
        notify();
}

// 4.1.4.7 "PCI configuration access capability": BAR 0 through four bytes of configuration space.
void VirtioBlock::config_reading(unsigned offset, unsigned size) {
    const u32 bytes = get(window_ + 12u, 4), at = get(window_ + 8u, 4);
    if (offset + size <= window_ + 16u || offset >= window_ + 20u || get(window_ + 4u, 1) != structures_bar ||
        (bytes != 1 && bytes != 2 && bytes != 4) || at % bytes != 0 || at >= structures_bytes)
        return;
    put(window_ + 16u, 4, low32(bar_read(structures_bar, at, bytes)));
}

void VirtioBlock::config_written(unsigned offset, unsigned size) {
    const u32 bytes = get(window_ + 12u, 4), at = get(window_ + 8u, 4);
    if (offset + size <= window_ + 16u || offset >= window_ + 20u || get(window_ + 4u, 1) != structures_bar ||
        (bytes != 1 && bytes != 2 && bytes != 4) || at % bytes != 0 || at >= structures_bytes)
        return;
    bar_write(structures_bar, at, bytes, get(window_ + 16u, bytes));
}

// 4.1.4.3 "Common configuration structure layout".
u64 VirtioBlock::common_read(u64 offset, unsigned size) const {
    const bool queue = queue_select_ == 0;
    const u64 first = offset & ~u64{7};
    const auto join = [](u64 a, u64 b) { return (a & 0xFFFF'FFFF) | b << 32; };
    const auto words = [](u64 a, u64 b, u64 c, u64 d) { return a | b << 16 | c << 32 | d << 48; };
    const auto features = [](u64 set, u32 select) {
        return select == 0 ? low32(set) : select == 1 ? high32(set) : 0;
    };
    u64 value = 0;
    switch (first) {
    case 0x00:
        value = join(device_feature_select_, features(offered_features(), device_feature_select_));
        break;
    case 0x08:
        value = join(driver_feature_select_, features(driver_features_, driver_feature_select_));
        break;
    case 0x10: value = words(config_vector_, 1, status_, queue_select_); break;
    case 0x18:
        value =
            queue ? words(queue_size_, queue_vector_, queue_enabled_ ? 1 : 0, 0) : words(0, no_vector, 0, 0);
        break;
    case 0x20: value = queue ? descriptors_ : 0; break;
    case 0x28: value = queue ? available_ : 0; break;
    case 0x30: value = queue ? used_ : 0; break;
    default: break;
    }
    return part(value, offset & 7, size);
}

void VirtioBlock::write_queue_address(u64& address, u64 offset, unsigned size, u64 value) {
    if (queue_select_ == 0 && !queue_enabled_) address = with_part(address, offset & 7, size, value);
}

void VirtioBlock::common_write(u64 offset, unsigned size, u64 value) {
    const u16 word = static_cast<u16>(value);
    const bool queue = queue_select_ == 0 && !queue_enabled_;
    switch (offset) {
    case 0x00: device_feature_select_ = low32(value); break;
    case 0x08: driver_feature_select_ = low32(value); break;
    case 0x0C:
        // The driver's choice stands once FEATURES_OK is set.
        if (!(status_ & status_features_ok) && driver_feature_select_ < 2)
            driver_features_ = with_part(driver_features_, 4 * driver_feature_select_, 4, value);
        break;
    case 0x10: config_vector_ = word < vectors ? word : no_vector; break;
    case 0x14: set_status(static_cast<u8>(value)); break;
    case 0x16: queue_select_ = word; break;
    case 0x18:
        if (queue && word != 0 && word <= queue_max && (word & (word - 1)) == 0) queue_size_ = word;
        break;
    case 0x1A:
        if (queue_select_ == 0) queue_vector_ = word < vectors ? word : no_vector;
        break;
    case 0x1C:
        if (queue && word == 1) queue_enabled_ = true;
        break;
    case 0x20:
    case 0x24: write_queue_address(descriptors_, offset, size, value); break;
    case 0x28:
    case 0x2C: write_queue_address(available_, offset, size, value); break;
    case 0x30:
    case 0x34: write_queue_address(used_, offset, size, value); break;
    default: break;
    }
}

// 2.1 "Device Status Field": FEATURES_OK stays clear when the device can not work with what the driver
// accepted.
void VirtioBlock::set_status(u8 value) {
    if (value == 0) {
        device_reset();
        set_intx(false);
        return;
    }
    const bool acceptable =
        (driver_features_ & ~offered_features()) == 0 && (driver_features_ & feature_version_1);
    if ((value & status_features_ok) && !(status_ & status_features_ok) && !acceptable)
        value = static_cast<u8>(value & ~status_features_ok);
    status_ = static_cast<u8>((value & ~status_needs_reset) | (status_ & status_needs_reset));
}

// 5.2.4 "Device configuration layout".
u64 VirtioBlock::device_config(u64 offset, unsigned size) const {
    const u64 words[3] = {backend_.sectors(), segment_max | u64{queue_max - 2} << 32, sector_bytes << 32};
    return part(words[offset / 8], offset & 7, size);
}

// ---- The queue
// --------------------------------------------------------------------------------------------------

u16 VirtioBlock::load16(u64 at) {
    u8 bytes[2];
    memory_.read(at, bytes, sizeof bytes);
    return static_cast<u16>(little(bytes, 2));
}

void VirtioBlock::broken() {
    status_ |= status_needs_reset;
    interrupt(true);
}

void VirtioBlock::notify() {
    if (!(status_ & status_driver_ok) || (status_ & status_needs_reset) || !queue_enabled_ || !bus_master())
        return;
    const u16 index = load16(available_ + 2);
    if (static_cast<u16>(index - next_available_) > queue_size_) {
        broken();
        return;
    }
    bool any = false;
    while (next_available_ != index) {
        const u16 head = load16(available_ + 4 + 2u * (next_available_ % queue_size_));
        if (!process(head)) {
            broken();
            return;
        }
        ++next_available_;
        any = true;
    }
    if (any && !(load16(available_) & available_no_interrupt)) interrupt(false);
}

/// Follows a descriptor chain: at most as many as the queue has, readable ones before writable ones.
bool VirtioBlock::gather(u16 head, Chain& chain) {
    u16 index = head;
    for (unsigned count = 0; count < queue_size_; ++count) {
        if (index >= queue_size_) return false;
        u8 descriptor[16];
        memory_.read(descriptors_ + 16u * index, descriptor, sizeof descriptor);
        const u64 address = little(descriptor, 8);
        const u32 bytes = static_cast<u32>(little(descriptor + 8, 4));
        const u16 flags = static_cast<u16>(little(descriptor + 12, 2));
        const bool writable = flags & descriptor_write;
        if ((flags & ~(descriptor_next | descriptor_write)) || address + bytes < address) return false;
        if (!writable && !chain.writable.empty()) return false;
        (writable ? chain.writable : chain.readable).push_back({address, bytes});
        if (!(flags & descriptor_next)) return true;
        index = static_cast<u16>(little(descriptor + 14, 2));
    }
    return false;
}

bool VirtioBlock::process(u16 head) {
    Chain chain;
    if (!gather(head, chain)) return false;
    u64 writable = 0, readable = 0;
    for (const Segment& segment : chain.writable) writable += segment.bytes;
    for (const Segment& segment : chain.readable) readable += segment.bytes;
    if (readable < header_bytes || writable < 1) return false;
    u64 written = 0;
    u8 status = execute(chain, written);
    copy(chain.writable, writable - 1, {&status, 1}, true);
    complete(head, static_cast<u32>(written + 1));
    return true;
}

/// Between the bytes of a request and `buffer`, `skip` bytes into the segments.
void VirtioBlock::copy(const std::vector<Segment>& segments, u64 skip, std::span<u8> buffer, bool to_guest) {
    for (const Segment& segment : segments) {
        if (buffer.empty()) return;
        if (skip >= segment.bytes) {
            skip -= segment.bytes;
            continue;
        }
        const u64 bytes = std::min<u64>(segment.bytes - skip, buffer.size());
        if (to_guest)
            memory_.write(segment.address + skip, buffer.data(), bytes);
        else
            memory_.read(segment.address + skip, buffer.data(), bytes);
        buffer = buffer.subspan(bytes);
        skip = 0;
    }
}

// 5.2.6: type, reserved, sector; data; status.
u8 VirtioBlock::execute(const Chain& chain, u64& written) {
    u8 header[header_bytes];
    copy(chain.readable, 0, header, false);
    const u32 type = static_cast<u32>(little(header, 4));
    const u64 sector = little(header + 8, 8);
    u64 in = 0, out = 0;
    bool oversized = false;
    for (const Segment& segment : chain.writable)
        in += segment.bytes, oversized |= segment.bytes > segment_max + 1;
    for (const Segment& segment : chain.readable)
        out += segment.bytes, oversized |= segment.bytes > segment_max + header_bytes;
    in -= 1;
    out -= header_bytes;
    if (oversized) return request_error;
    switch (type) {
    case request_in: {
        const u8 status = transfer(chain.writable, true, 0, in, sector);
        if (status == request_ok) written = in;
        return status;
    }
    case request_out:
        return backend_.read_only() ? request_error
                                    : transfer(chain.readable, false, header_bytes, out, sector);
    case request_flush: return backend_.flush() ? request_ok : request_error;
    case request_get_id: {
        u8 id[id_bytes] = {};
        std::copy_n(device_id, id_bytes, id);
        written = std::min(in, id_bytes);
        copy(chain.writable, 0, {id, static_cast<std::size_t>(written)}, true);
        return request_ok;
    }
    default: return request_unsupported;
    }
}

u8 VirtioBlock::transfer(const std::vector<Segment>& data, bool to_driver, u64 skip, u64 bytes, u64 sector) {
    const u64 sectors = backend_.sectors();
    if (bytes % sector_bytes != 0 || sector > sectors || bytes / sector_bytes > sectors - sector)
        return request_error;
    std::vector<u8> buffer(std::min(bytes, buffer_bytes));
    for (u64 done = 0; done < bytes;) {
        const std::span<u8> piece{buffer.data(),
                                  static_cast<std::size_t>(std::min(bytes - done, buffer_bytes))};
        const u64 at = sector + done / sector_bytes;
        if (!to_driver) copy(data, skip + done, piece, false);
        if (!(to_driver ? backend_.read(at, piece) : backend_.write(at, piece))) return request_error;
        if (to_driver) copy(data, skip + done, piece, true);
        done += piece.size();
    }
    return request_ok;
}

// 2.4.8 "The Virtqueue Used Ring".
void VirtioBlock::complete(u16 head, u32 written) {
    u8 element[8] = {static_cast<u8>(head), static_cast<u8>(head >> 8)};
    for (unsigned i = 0; i < 4; ++i) element[4 + i] = static_cast<u8>(written >> (8 * i));
    memory_.write(used_ + 4 + 8u * (next_used_ % queue_size_), element, sizeof element);
    ++next_used_;
    const u8 index[2] = {static_cast<u8>(next_used_), static_cast<u8>(next_used_ >> 8)};
    memory_.write(used_ + 2, index, sizeof index);
}

void VirtioBlock::interrupt(bool configuration) {
    if (msix_enabled()) {
        const u16 vector = configuration ? config_vector_ : queue_vector_;
        if (vector != no_vector) send_msix(vector);
        return;
    }
    isr_ |= configuration ? isr_configuration : isr_queue;
    set_intx(true);
}

void VirtioBlock::device_visit(StateVisitor& visitor) {
    visitor.value("driver_features", driver_features_);
    visitor.value("device_feature_select", device_feature_select_);
    visitor.value("driver_feature_select", driver_feature_select_);
    visitor.value("status", status_);
    visitor.value("isr", isr_);
    visitor.value("config_vector", config_vector_);
    visitor.value("queue_select", queue_select_);
    visitor.value("queue_size", queue_size_);
    visitor.value("queue_vector", queue_vector_);
    visitor.value("queue_enabled", queue_enabled_);
    visitor.value("descriptors", descriptors_);
    visitor.value("available", available_);
    visitor.value("used", used_);
    visitor.value("next_available", next_available_);
    visitor.value("next_used", next_used_);
}

} // namespace exeunt
