// Images made by hand for the tests of loaders: each is the smallest that its boot protocol allows.
#pragma once

#include "machine/loader_placement.hpp"

#include <vector>

namespace exeunt::test {

inline constexpr u64 code_address = 0x20'0000;

/// A multiboot 1 header with the given flags.
inline ByteWriter multiboot_header(u32 flags) {
    ByteWriter out;
    out.dword(0x1BAD'B002).dword(flags).dword(0u - (0x1BAD'B002u + flags));
    return out;
}

/// A multiboot 1 image that is no ELF: header with addresses, then `code`, entered at its start.
inline std::vector<u8> multiboot_flat(std::span<const u8> code, u32 bss = 0) {
    constexpr u32 header_bytes = 32;
    ByteWriter out = multiboot_header(1u << 16);
    const u32 load = static_cast<u32>(code_address);
    const u32 end = load + header_bytes + static_cast<u32>(code.size());
    out.dword(load).dword(load).dword(end).dword(end + bss).dword(load + header_bytes);
    return out.append(code).bytes();
}

struct ElfParts {
    bool is64 = true;
    u16 type = 2, machine = 62;
    u64 entry = code_address;
    u64 physical = code_address, virtual_address = code_address;
    u64 memory_bytes = 0;                ///< 0: as many as in the file
    std::vector<u8> contents{0xF4};      ///< of the one PT_LOAD segment
    std::vector<u8> note{};              ///< of a PT_NOTE segment, if any
};

inline std::vector<u8> elf(const ElfParts& parts) {
    const unsigned header = parts.is64 ? 64 : 52, entry_bytes = parts.is64 ? 56 : 32;
    const unsigned count = parts.note.empty() ? 1 : 2, word = parts.is64 ? 8 : 4;
    const u64 contents_at = header + count * entry_bytes, note_at = contents_at + parts.contents.size();
    ByteWriter out;
    const auto number = [&](u64 value) { word == 8 ? out.qword(value) : out.dword(value); };
    out.u8s({0x7F, 'E', 'L', 'F', parts.is64 ? 2u : 1u, 1, 1}).zeros(9);
    out.word(parts.type).word(parts.machine).dword(1);
    number(parts.entry);
    number(header);  // e_phoff
    number(0);
    out.dword(0).word(header).word(entry_bytes).word(count).word(0).word(0).word(0);
    const auto segment = [&](u32 type, u64 at, u64 address, u64 physical, u64 file, u64 memory) {
        out.dword(type);
        if (parts.is64) out.dword(7);
        number(at);
        number(address);
        number(physical);
        number(file);
        number(memory);
        if (!parts.is64) out.dword(7);
        number(0x1000);
    };
    const u64 bytes = parts.contents.size();
    segment(1, contents_at, parts.virtual_address, parts.physical, bytes,
            parts.memory_bytes == 0 ? bytes : parts.memory_bytes);
    if (count == 2) segment(4, note_at, 0, 0, parts.note.size(), parts.note.size());
    return out.append(parts.contents).append(parts.note).bytes();
}

/// A Xen note that names a PVH entry.
inline std::vector<u8> pvh_note(u32 entry) {
    ByteWriter out;
    out.dword(4).dword(4).dword(18).text("Xen").byte(0).dword(entry);
    return out.bytes();
}

struct BzImageParts {
    u16 version = 0x20F;
    u16 xloadflags = 1;  ///< XLF_KERNEL_64
    bool relocatable = true;
    u64 preferred = 0x100'0000;
    u32 init_size = 0x1'0000;
    u32 command_line_max = 255;
};

/// One setup sector and 32 bytes of protected-mode kernel.
inline std::vector<u8> bzimage(const BzImageParts& parts) {
    ByteWriter out;
    out.zeros(1024 + 32);
    out.patch(0x1F1, 1, 1);            // setup_sects
    out.patch(0x1F4, 2, 4);            // syssize
    out.patch(0x1FE, 0xAA55, 2);
    out.patch(0x200, 0x66EB, 2);       // jump: the header ends at 268H
    out.patch(0x202, 0x5372'6448, 4);  // HdrS
    out.patch(0x206, parts.version, 2);
    out.patch(0x211, 1, 1);            // LOADED_HIGH
    out.patch(0x22C, 0x7FFF'FFFF, 4);
    out.patch(0x230, 0x20'0000, 4);
    out.patch(0x234, parts.relocatable, 1);
    out.patch(0x236, parts.xloadflags, 2);
    out.patch(0x238, parts.command_line_max, 4);
    out.patch(0x258, parts.preferred, 8);
    out.patch(0x260, parts.init_size, 4);
    out.patch(1024, 0xC0DE, 2);
    return out.bytes();
}

/// A multiboot 2 ELF image with `tags` (without the end tag) in its header.
inline std::vector<u8> multiboot2(const ByteWriter& tags, ElfParts parts = {}) {
    ByteWriter out;
    const u32 length = 16 + static_cast<u32>(tags.size()) + 8;
    out.dword(0xE852'50D6).dword(0).dword(length).dword(0u - (0xE852'50D6u + length));
    out.append(tags.bytes()).word(0).word(0).dword(8);
    // The segment's contents start at a multiple of 8 in the file: 64 + 56.
    parts.contents = out.bytes();
    return elf(parts);
}

}  // namespace exeunt::test
