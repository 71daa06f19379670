#include "devices/pc_testdev.hpp"

#include "devices/register_file.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u16 flush_port = 0xE4;
constexpr bool is_latch(u16 port) { return (port & ~0x0B) == 0xE0; }

} // namespace

PcTestdev::PcTestdev(const std::array<InterruptLine*, 24>& lines, std::function<void(u64)> flush)
    : lines_(lines), flush_(std::move(flush)), memory_(mmio_bytes) {}

u32 PcTestdev::port_read(u16 port, unsigned size) {
    if (port == flush_port) return 0;
    return read_bytewise(port, size, [this](u16 p) { return is_latch(p) ? latch_[p & 3] : u8{0xFF}; });
}

void PcTestdev::port_write(u16 port, unsigned size, u32 value) {
    if (port == flush_port) {
        flush_(value & ~u32{0xFFF});
    } else if (port >= irq_base && port < irq_base + lines_.size()) {
        if (InterruptLine* line = lines_[port - irq_base]) line->set(value != 0);
    } else {
        write_bytewise(port, size, value, [this](u16 p, u8 v) {
            if (is_latch(p)) latch_[p & 3] = v;
        });
    }
}

u64 PcTestdev::mmio_read(u64 offset, unsigned size) {
    u64 value = 0;
    for (unsigned i = 0; i < size && i < 8; ++i) value |= u64{memory_[(offset + i) % mmio_bytes]} << (8 * i);
    return value;
}

void PcTestdev::mmio_write(u64 offset, unsigned size, u64 value) {
    for (unsigned i = 0; i < size && i < 8; ++i)
        memory_[(offset + i) % mmio_bytes] = static_cast<u8>(value >> (8 * i));
}

void PcTestdev::reset() {
    std::fill(std::begin(latch_), std::end(latch_), 0);
    std::fill(memory_.begin(), memory_.end(), 0);
    for (InterruptLine* line : lines_)
        if (line) line->set(false);
}

void PcTestdev::visit(StateVisitor& visitor) {
    visitor.bytes("latch", latch_);
    visitor.bytes("memory", memory_);
}

} // namespace exeunt
