#include "devices/vga_text.hpp"

#include "devices/register_file.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u8 start_address_high = 0x0C, start_address_low = 0x0D, vertical_retrace_end = 0x11;
constexpr u8 protect_0_to_7 = 0x80;
/// 31.5 kHz lines, 70 Hz frames: how long they last, and how much of each is retrace.
constexpr u64 line_ticks = 31'778, line_retrace = 6'356, frame_ticks = 449 * line_ticks,
              frame_retrace = 2 * line_ticks;
constexpr u8 blank_text = ' ', blank_attribute = 0x07;

} // namespace

void VgaText::reset() {
    index_ = 0;
    std::fill(std::begin(crtc_), std::end(crtc_), 0);
    for (std::size_t i = 0; i < memory_.size(); ++i) memory_[i] = i % 2 == 0 ? blank_text : blank_attribute;
}

std::vector<std::string> VgaText::screen() const {
    std::vector<std::string> result;
    const u64 start = 2 * (u64{crtc_[start_address_high]} << 8 | crtc_[start_address_low]);
    for (unsigned line = 0; line < lines; ++line) {
        std::string& text = result.emplace_back();
        for (unsigned column = 0; column < columns; ++column) {
            const u8 code = memory_[(start + 2u * (line * columns + column)) % memory_bytes];
            text.push_back(code >= 0x20 && code < 0x7F ? static_cast<char>(code) : ' ');
        }
    }
    return result;
}

u32 VgaText::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) -> u8 {
        switch (p) {
        case crtc_index: return index_;
        case crtc_data: return index_ < crtc_registers ? crtc_[index_] : 0;
        case input_status: {
            const u64 now = clock_.now();
            const bool vertical = now % frame_ticks >= frame_ticks - frame_retrace;
            const bool horizontal = now % line_ticks >= line_ticks - line_retrace;
            return static_cast<u8>((vertical ? 8 : 0) | (vertical || horizontal ? 1 : 0));
        }
        default: return 0xFF;
        }
    });
}

void VgaText::port_write(u16 port, unsigned size, u32 value) {
    write_bytewise(port, size, value, [this](u16 p, u8 v) {
        if (p == crtc_index) index_ = v;
        if (p != crtc_data || index_ >= crtc_registers) return;
        if (index_ <= 7 && (crtc_[vertical_retrace_end] & protect_0_to_7)) return;
        crtc_[index_] = v;
    });
}

u64 VgaText::mmio_read(u64 offset, unsigned size) {
    u64 value = 0;
    for (unsigned i = 0; i < size && i < 8; ++i)
        value |= u64{memory_[(offset + i) % memory_bytes]} << (8 * i);
    return value;
}

void VgaText::mmio_write(u64 offset, unsigned size, u64 value) {
    for (unsigned i = 0; i < size && i < 8; ++i)
        memory_[(offset + i) % memory_bytes] = static_cast<u8>(value >> (8 * i));
}

void VgaText::visit(StateVisitor& visitor) {
    visitor.value("index", index_);
    visitor.bytes("crtc", crtc_);
    visitor.bytes("memory", memory_);
}

} // namespace exeunt
