// Where the parts of an image go in guest RAM: every copy is checked against the memory map and against what was
// placed before; what the loader itself needs finds room beside them.
#pragma once

#include "machine/loader.hpp"

#include <string_view>

namespace exeunt {

class Placement {
public:
    Placement(PhysicalMemory& memory, const std::vector<MemoryRange>& map, std::string image)
        : memory_(memory), map_(map), image_(std::move(image)) {}

    /// Copies `bytes` to `address` and clears what follows up to `total` bytes. `what` names the part in errors.
    void place(u64 address, std::span<const u8> bytes, u64 total, const std::string& what);
    /// Marks RAM as taken without writing it.
    void claim(u64 address, u64 bytes, const std::string& what);
    /// The lowest free `bytes` at or above `from` that end at or below `to`; claimed and cleared.
    u64 allocate(u64 bytes, u64 alignment, u64 from, u64 to, const std::string& what);
    /// The highest such place.
    u64 allocate_high(u64 bytes, u64 alignment, u64 from, u64 to, const std::string& what);

    /// The same for data whose place does not matter (in the first MiB where it fits, else below 4 GiB).
    u64 put(std::span<const u8> bytes, u64 alignment, const std::string& what);
    u64 put_string(std::string_view text, const std::string& what);

    /// The end of the highest part placed so far.
    u64 end() const { return end_; }
    const std::vector<MemoryRange>& map() const { return map_; }
    const std::string& image() const { return image_; }
    PhysicalMemory& memory() { return memory_; }

private:
    struct Taken {
        u64 start, end;
        std::string what;
    };
    bool usable(u64 start, u64 end) const;
    const Taken* conflict(u64 start, u64 end) const;
    void take(u64 start, u64 bytes, const std::string& what);
    void clear(u64 start, u64 bytes);

    PhysicalMemory& memory_;
    const std::vector<MemoryRange>& map_;
    std::string image_;
    std::vector<Taken> taken_;  ///< sorted by start
    u64 end_ = 0;
};

/// Little-endian fields of an image, with the bounds checked.
class ImageReader {
public:
    explicit ImageReader(const Image& image) : image_(image) {}
    u8 byte(u64 at, const char* what) const { return static_cast<u8>(number(at, 1, what)); }
    u16 word(u64 at, const char* what) const { return static_cast<u16>(number(at, 2, what)); }
    u32 dword(u64 at, const char* what) const { return static_cast<u32>(number(at, 4, what)); }
    u64 qword(u64 at, const char* what) const { return number(at, 8, what); }
    /// `bytes` bytes from `at` on. Throws BadInput when the image ends before.
    std::span<const u8> slice(u64 at, u64 bytes, const char* what) const;
    u64 size() const { return image_.bytes.size(); }
    /// Refuses the image.
    [[noreturn]] void refuse(const std::string& place, const std::string& expected) const;

private:
    u64 number(u64 at, unsigned bytes, const char* what) const;

    const Image& image_;
};

/// Little-endian bytes, one after the other: tables and structures for the guest.
class ByteWriter {
public:
    ByteWriter& u8s(std::initializer_list<unsigned> values);
    ByteWriter& byte(u64 value) { return number(value, 1); }
    ByteWriter& word(u64 value) { return number(value, 2); }
    ByteWriter& dword(u64 value) { return number(value, 4); }
    ByteWriter& qword(u64 value) { return number(value, 8); }
    ByteWriter& text(std::string_view value);
    ByteWriter& append(std::span<const u8> value);
    ByteWriter& zeros(std::size_t count);
    ByteWriter& align(std::size_t alignment);
    /// Overwrites `bytes` bytes at `at`.
    void patch(std::size_t at, u64 value, unsigned bytes);
    std::size_t size() const { return bytes_.size(); }
    const std::vector<u8>& bytes() const { return bytes_; }
    std::vector<u8>& bytes() { return bytes_; }

private:
    ByteWriter& number(u64 value, unsigned bytes);

    std::vector<u8> bytes_;
};

// The loaders, one for each kind of image (loader_*.cpp).
bool is_bzimage(const Image& kernel);
EntryState load_bzimage(const BootImages& images, Placement& placement, u64 rsdp);
bool is_multiboot(const Image& kernel);
EntryState load_multiboot(const BootImages& images, Placement& placement);
bool is_multiboot2(const Image& kernel);
EntryState load_multiboot2(const BootImages& images, Placement& placement, u64 rsdp);
bool is_pvh(const Image& kernel);
EntryState load_pvh(const BootImages& images, Placement& placement, u64 rsdp);
EntryState load_plain_elf(const BootImages& images, Placement& placement);

}  // namespace exeunt
