#include "mmu/physical_memory.hpp"

#include "base/bits.hpp"
#include "base/ensure.hpp"

#include <algorithm>
#include <new>
#include <sys/mman.h>

namespace exeunt {

namespace {

constexpr u64 low_ram_limit = u64{3} << 30;
constexpr u64 four_gib = u64{4} << 30;

/// Zero pages that take no native memory until they are touched.
void* reserve(u64 bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return p;
}

}  // namespace

PhysicalMemory::PhysicalMemory(u64 ram_bytes) : ram_bytes_(align_up(ram_bytes, page_size)) {
    ENSURE(ram_bytes_ > 0 && ram_bytes_ <= u64{64} << 30);
    pages_ = (four_gib + high_ram_bytes()) / page_size;
    base_ = static_cast<u8*>(reserve(pages_ * page_size));
    kinds_ = static_cast<u8*>(reserve(pages_));
    code_lines_ = static_cast<u64*>(reserve(pages_ * sizeof(u64)));
    map(Physical{0}, low_ram_bytes(), Kind::ram);
    map(Physical{four_gib}, high_ram_bytes(), Kind::ram);
}

PhysicalMemory::~PhysicalMemory() {
    munmap(base_, pages_ * page_size);
    munmap(kinds_, pages_);
    munmap(code_lines_, pages_ * sizeof(u64));
}

u64 PhysicalMemory::low_ram_bytes() const { return std::min(ram_bytes_, low_ram_limit); }

void PhysicalMemory::map(Physical start, u64 bytes, Kind kind) {
    ENSURE(start.page_offset() == 0 && bytes % page_size == 0 && (start.value + bytes) / page_size <= pages_);
    std::fill_n(kinds_ + start.value / page_size, bytes / page_size, static_cast<u8>(kind));
}

void PhysicalMemory::about_to_write(Physical start, u64 bytes) {
    for (u64 at = start.value; at < start.value + bytes;) {
        const u64 chunk = std::min(page_size - (at & 0xFFF), start.value + bytes - at);
        const u64 page = at >> 12;
        if (page < pages_ && code_lines_[page] != 0) {
            const unsigned first = static_cast<unsigned>((at & 0xFFF) / 64);
            const unsigned last = static_cast<unsigned>(((at & 0xFFF) + chunk - 1) / 64);
            if (code_lines_[page] & (low_mask(last - first + 1) << first)) {
                bool left = false;
                for (CodeListener* listener : listeners_) left |= listener->code_written(Physical{at}, chunk);
                if (!left) code_lines_[page] = 0;
            }
        }
        at += chunk;
    }
}

void PhysicalMemory::store_slow(Physical at, u64 value, unsigned size) {
    switch (kind(at)) {
        case Kind::mmio: bus_->mmio_write(at.value, size, value); return;
        case Kind::rom: return;
        case Kind::ram: break;
    }
    about_to_write(at, size);
    for (unsigned i = 0; i < size; ++i) base_[at.value + i] = static_cast<u8>(value >> (8 * i));
}

void PhysicalMemory::read_bytes(Physical at, void* to, u64 bytes) {
    auto* out = static_cast<u8*>(to);
    while (bytes > 0) {
        const u64 chunk = std::min(page_size - at.page_offset(), bytes);
        if (const u8* p = native(at)) {
            std::memcpy(out, p, chunk);
        } else {
            std::memset(out, 0xFF, chunk);
        }
        at = at + chunk;
        out += chunk;
        bytes -= chunk;
    }
}

void PhysicalMemory::write_bytes(Physical at, const void* from, u64 bytes) {
    const auto* in = static_cast<const u8*>(from);
    while (bytes > 0) {
        const u64 chunk = std::min(page_size - at.page_offset(), bytes);
        if (u8* p = native(at)) {
            about_to_write(at, chunk);
            std::memcpy(p, in, chunk);
        }
        at = at + chunk;
        in += chunk;
        bytes -= chunk;
    }
}

void PhysicalMemory::add_code(Physical start, u64 bytes) {
    ENSURE(start.value / page_size < pages_ && start.page_offset() + bytes <= page_size && bytes > 0);
    u64& lines = code_lines_[start.value / page_size];
    const bool first_of_page = lines == 0;
    const unsigned first = static_cast<unsigned>(start.page_offset() / 64);
    const unsigned last = static_cast<unsigned>((start.page_offset() + bytes - 1) / 64);
    lines |= low_mask(last - first + 1) << first;
    if (first_of_page)
        for (CodeListener* listener : listeners_) listener->code_page_added(start.page());
}

void PhysicalMemory::visit(StateVisitor& visitor) {
    // One field for each run of RAM and ROM; visitors that hash or save skip zero pages themselves.
    visitor.enter("memory");
    for (u64 page = 0; page < pages_;) {
        const u8 kind = kinds_[page];
        u64 end = page;
        while (end < pages_ && kinds_[end] == kind) ++end;
        if (static_cast<Kind>(kind) != Kind::mmio)
            visitor.bytes(std::to_string(page * page_size), {base_ + page * page_size, (end - page) * page_size});
        page = end;
    }
    visitor.leave();
}

}  // namespace exeunt
