// RAM, ROM and the way to MMIO: what stands at each physical address of the emulated machine.
//
// RAM is one sparse native mapping indexed by physical address, allocated as touched. A byte for each page says
// what it is; pages that hold decoded code carry a bitmap of their 64-byte lines, so that a store to one of them
// drops the decoded blocks.
#pragma once

#include "arch/address.hpp"
#include "base/bus.hpp"
#include "base/snapshot.hpp"

#include <cstring>
#include <bit>
#include <vector>

namespace exeunt {

/// Told when a page gains its first decoded line, and when bytes of decoded lines are overwritten.
class CodeListener {
public:
    virtual ~CodeListener() = default;
    /// Direct native pointers for writing to this page must be forgotten.
    virtual void code_page_added(Physical page) = 0;
    /// Decoded code in [start, start + size), within one page, is stale. Returns whether any is left on the page.
    virtual bool code_written(Physical start, u64 size) = 0;
};

class PhysicalMemory {
public:
    /// What is at a page.
    enum class Kind : u8 { mmio, ram, rom };

    /// `ram_bytes` (a multiple of 4096, at most 64 GiB) lie at [0, 3 GiB) and, the rest, from 4 GiB up.
    explicit PhysicalMemory(u64 ram_bytes);
    ~PhysicalMemory();
    PhysicalMemory(const PhysicalMemory&) = delete;
    PhysicalMemory& operator=(const PhysicalMemory&) = delete;

    u64 ram_bytes() const { return ram_bytes_; }
    /// Bytes of RAM below 4 GiB and above it.
    u64 low_ram_bytes() const;
    u64 high_ram_bytes() const { return ram_bytes_ - low_ram_bytes(); }

    /// Declares [start, start + bytes) to be RAM or ROM (page granular, below the end of the address map).
    void map(Physical start, u64 bytes, Kind kind);
    void set_bus(IoBus& bus) { bus_ = &bus; }
    void add_listener(CodeListener& listener) { listeners_.push_back(&listener); }

    Kind kind(Physical at) const {
        const u64 page = at.value >> 12;
        return page < pages_ ? static_cast<Kind>(kinds_[page]) : Kind::mmio;
    }
    /// The native address of a byte of RAM or ROM; nullptr for MMIO. Valid to the end of its 4-KByte page.
    u8* native(Physical at) { return kind(at) == Kind::mmio ? nullptr : base_ + at.value; }
    /// As native(), but nullptr where a direct write would be wrong (MMIO, ROM, pages with decoded code).
    u8* native_for_write(Physical at) {
        return kind(at) == Kind::ram && code_lines_[at.value >> 12] == 0 ? base_ + at.value : nullptr;
    }

    /// Loads and stores by value in little-endian order, RAM or MMIO, any size that does not cross a page.
    template <class T>
    T load(Physical at) {
        if (const u8* p = native(at)) [[likely]] {
            T value;
            std::memcpy(&value, p, sizeof value);
            return little_endian(value);
        }
        return static_cast<T>(bus_->mmio_read(at.value, sizeof(T)));
    }
    template <class T>
    void store(Physical at, T value) {
        if (u8* p = native_for_write(at)) [[likely]] {
            const T raw = little_endian(value);
            std::memcpy(p, &raw, sizeof raw);
        } else {
            store_slow(at, value, sizeof(T));
        }
    }
    /// Copies any range, page by page: DMA, loaders, dumps. Bytes outside RAM and ROM read as FFH and are not
    /// written. write_bytes() also writes ROM (it is how firmware gets there).
    void read_bytes(Physical at, void* to, u64 bytes);
    void write_bytes(Physical at, const void* from, u64 bytes);

    /// Marks [start, start + bytes), within one page, as decoded.
    void add_code(Physical start, u64 bytes);
    bool has_code(Physical at) const { return (at.value >> 12) < pages_ && code_lines_[at.value >> 12] != 0; }
    /// Whether any of these bytes, all within one page, lies in a decoded line.
    bool overwrites_code(Physical start, unsigned bytes) const {
        const u64 first = start.page_offset() / 64, last = (start.page_offset() + bytes - 1) / 64;
        return has_code(start) && (code_lines_[start.value >> 12] >> first << first << (63 - last)) != 0;
    }
    /// Must be called before RAM is changed by other means than store() or write_bytes().
    void about_to_write(Physical start, u64 bytes);
    /// All RAM and writable regions, for snapshots and the state hash.
    void visit(StateVisitor& visitor);

    template <class T>
    static T little_endian(T value) {
        if constexpr (std::endian::native == std::endian::big && sizeof(T) > 1) {
            u8 bytes[sizeof(T)], swapped[sizeof(T)];
            std::memcpy(bytes, &value, sizeof value);
            for (std::size_t i = 0; i < sizeof(T); ++i) swapped[i] = bytes[sizeof(T) - 1 - i];
            std::memcpy(&value, swapped, sizeof value);
        }
        return value;
    }

private:
    void store_slow(Physical at, u64 value, unsigned size);

    u64 ram_bytes_;
    u64 pages_ = 0;            ///< pages in the map (RAM's end, at least 4 GiB)
    u8* base_ = nullptr;       ///< native address of physical address 0
    u8* kinds_ = nullptr;      ///< a Kind for each page
    u64* code_lines_ = nullptr;  ///< a bit for each 64-byte line that was decoded, for each page
    IoBus* bus_ = nullptr;
    std::vector<CodeListener*> listeners_;
};

}  // namespace exeunt
