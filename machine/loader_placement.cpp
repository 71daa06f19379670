#include "machine/loader_placement.hpp"

#include "base/bits.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace exeunt {

bool Placement::usable(u64 start, u64 end) const {
    return std::any_of(map_.begin(), map_.end(), [&](const MemoryRange& range) {
        return range.type == MemoryType::usable && start >= range.start && end <= range.end();
    });
}

const Placement::Taken* Placement::conflict(u64 start, u64 end) const {
    for (const Taken& taken : taken_)
        if (start < taken.end && taken.start < end) return &taken;
    return nullptr;
}

void Placement::take(u64 start, u64 bytes, const std::string& what) {
    const Taken taken{start, start + bytes, what};
    taken_.insert(std::upper_bound(taken_.begin(), taken_.end(), taken,
                                   [](const Taken& a, const Taken& b) { return a.start < b.start; }),
                  taken);
    end_ = std::max(end_, taken.end);
}

void Placement::claim(u64 address, u64 bytes, const std::string& what) {
    if (bytes == 0) return;
    if (address + bytes < address || !usable(address, address + bytes))
        throw BadInput(image_, what,
                       fmt::format("a place in RAM, not {:#x} to {:#x}", address, address + bytes - 1));
    if (const Taken* other = conflict(address, address + bytes))
        throw BadInput(image_, what, fmt::format("no overlap with {} at {:#x}", other->what, other->start));
    take(address, bytes, what);
}

/// RAM is zero after power-up, but not after a reset: clears what is not, page by page, and so does not touch
/// native memory for nothing.
void Placement::clear(u64 start, u64 bytes) {
    static constexpr std::array<u8, page_size> zeros{};
    std::array<u8, page_size> page;
    for (u64 at = start; at < start + bytes;) {
        const u64 chunk = std::min(page_size - at % page_size, start + bytes - at);
        memory_.read_bytes(Physical{at}, page.data(), chunk);
        if (!std::equal(page.begin(), page.begin() + static_cast<std::ptrdiff_t>(chunk), zeros.begin()))
            memory_.write_bytes(Physical{at}, zeros.data(), chunk);
        at += chunk;
    }
}

void Placement::place(u64 address, std::span<const u8> bytes, u64 total, const std::string& what) {
    claim(address, total, what);
    memory_.write_bytes(Physical{address}, bytes.data(), bytes.size());
    clear(address + bytes.size(), total - bytes.size());
}

u64 Placement::allocate(u64 bytes, u64 alignment, u64 from, u64 to, const std::string& what) {
    for (const MemoryRange& range : map_) {
        if (range.type != MemoryType::usable) continue;
        u64 at = align_up(std::max(range.start, from), alignment);
        while (at + bytes <= std::min(range.end(), to)) {
            const Taken* other = conflict(at, at + bytes);
            if (!other) {
                take(at, bytes, what);
                clear(at, bytes);
                return at;
            }
            at = align_up(other->end, alignment);
        }
    }
    throw BadInput(image_, what, fmt::format("{} bytes of free RAM from {:#x} to {:#x}", bytes, from, to));
}

u64 Placement::allocate_high(u64 bytes, u64 alignment, u64 from, u64 to, const std::string& what) {
    for (auto range = map_.rbegin(); range != map_.rend(); ++range) {
        const u64 bottom = std::max(range->start, from);
        u64 top = std::min(range->end(), to);
        while (range->type == MemoryType::usable && top >= bytes && align_down(top - bytes, alignment) >= bottom) {
            const u64 at = align_down(top - bytes, alignment);
            const Taken* other = conflict(at, at + bytes);
            if (!other) {
                take(at, bytes, what);
                clear(at, bytes);
                return at;
            }
            top = other->start;
        }
    }
    throw BadInput(image_, what, fmt::format("{} bytes of free RAM from {:#x} to {:#x}", bytes, from, to));
}

u64 Placement::put(std::span<const u8> bytes, u64 alignment, const std::string& what) {
    // From 64 KiB up: below are the BIOS data area and the pages where kernels like to start other processors.
    const u64 at = allocate(std::max<u64>(bytes.size(), 1), alignment, 0x1'0000, AddressMap::four_gib, what);
    memory_.write_bytes(Physical{at}, bytes.data(), bytes.size());
    return at;
}

u64 Placement::put_string(std::string_view text, const std::string& what) {
    std::vector<u8> bytes(text.begin(), text.end());
    bytes.push_back(0);
    return put(bytes, 16, what);
}

std::span<const u8> ImageReader::slice(u64 at, u64 bytes, const char* what) const {
    if (at > size() || bytes > size() - at)
        refuse(fmt::format("offset {:#x}", at),
               fmt::format("{} bytes ({}), but the file ends at {:#x}", bytes, what, size()));
    return image_.bytes.subspan(at, bytes);
}

u64 ImageReader::number(u64 at, unsigned bytes, const char* what) const {
    u64 value = 0;
    const auto field = slice(at, bytes, what);
    for (unsigned i = 0; i < bytes; ++i) value |= u64{field[i]} << (8 * i);
    return value;
}

void ImageReader::refuse(const std::string& place, const std::string& expected) const {
    throw BadInput(image_.name, place, expected);
}

ByteWriter& ByteWriter::number(u64 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) bytes_.push_back(static_cast<u8>(value >> (8 * i)));
    return *this;
}

ByteWriter& ByteWriter::u8s(std::initializer_list<unsigned> values) {
    for (const unsigned value : values) bytes_.push_back(static_cast<u8>(value));
    return *this;
}

ByteWriter& ByteWriter::text(std::string_view value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
}

ByteWriter& ByteWriter::append(std::span<const u8> value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
}

ByteWriter& ByteWriter::zeros(std::size_t count) {
    bytes_.insert(bytes_.end(), count, 0);
    return *this;
}

ByteWriter& ByteWriter::align(std::size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back(0);
    return *this;
}

void ByteWriter::patch(std::size_t at, u64 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) bytes_[at + i] = static_cast<u8>(value >> (8 * i));
}

}  // namespace exeunt
