#include "machine/loader_elf.hpp"

#include "base/bits.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

namespace {

constexpr u32 PT_LOAD = 1, PT_NOTE = 4;
constexpr u16 ET_EXEC = 2, EM_386 = 3, EM_X86_64 = 62;
constexpr u16 max_program_headers = 256;
/// xen/include/public/elfnote.h: the entry point of PVH, for 32-bit protected mode without paging.
constexpr u32 XEN_ELFNOTE_PHYS32_ENTRY = 18;

/// Sizes and places that differ between the two classes.
struct Layout {
    u64 entry, phoff, phentsize, phnum, header_bytes;
};
constexpr Layout layout32{24, 28, 42, 44, 32};
constexpr Layout layout64{24, 32, 54, 56, 56};

ElfSegment read_segment(const ImageReader& in, u64 at, bool is64) {
    ElfSegment segment;
    if (is64) {
        segment.file_offset = in.qword(at + 8, "p_offset");
        segment.virtual_address = in.qword(at + 16, "p_vaddr");
        segment.physical_address = in.qword(at + 24, "p_paddr");
        segment.file_bytes = in.qword(at + 32, "p_filesz");
        segment.memory_bytes = in.qword(at + 40, "p_memsz");
    } else {
        segment.file_offset = in.dword(at + 4, "p_offset");
        segment.virtual_address = in.dword(at + 8, "p_vaddr");
        segment.physical_address = in.dword(at + 12, "p_paddr");
        segment.file_bytes = in.dword(at + 16, "p_filesz");
        segment.memory_bytes = in.dword(at + 20, "p_memsz");
    }
    return segment;
}

}  // namespace

bool has_elf_magic(const Image& image) {
    return image.bytes.size() >= 16 && image.bytes[0] == 0x7F && image.bytes[1] == 'E' && image.bytes[2] == 'L' &&
           image.bytes[3] == 'F';
}

Elf parse_elf(const Image& image) {
    const ImageReader in(image);
    in.slice(0, 16, "ELF identification");
    if (const u8 kind = in.byte(4, "EI_CLASS"); kind != 1 && kind != 2)
        in.refuse("EI_CLASS (offset 0x4)", fmt::format("1 (32-bit) or 2 (64-bit), not {}", kind));
    if (in.byte(5, "EI_DATA") != 1) in.refuse("EI_DATA (offset 0x5)", "1 (little-endian)");
    Elf elf;
    elf.is64 = in.byte(4, "EI_CLASS") == 2;
    const Layout& layout = elf.is64 ? layout64 : layout32;
    if (const u16 type = in.word(16, "e_type"); type != ET_EXEC)
        in.refuse("e_type (offset 0x10)", fmt::format("2 (an executable at fixed addresses), not {}", type));
    if (const u16 machine = in.word(18, "e_machine"); machine != EM_386 && machine != EM_X86_64)
        in.refuse("e_machine (offset 0x12)", fmt::format("3 (x86) or 62 (x86-64), not {}", machine));
    elf.entry = elf.is64 ? in.qword(layout.entry, "e_entry") : in.dword(layout.entry, "e_entry");
    const u64 table = elf.is64 ? in.qword(layout.phoff, "e_phoff") : in.dword(layout.phoff, "e_phoff");
    const u16 entry_bytes = in.word(layout.phentsize, "e_phentsize");
    const u16 count = in.word(layout.phnum, "e_phnum");
    if (count == 0 || count > max_program_headers)
        in.refuse("e_phnum", fmt::format("1 to {} program headers, not {}", max_program_headers, count));
    if (entry_bytes < layout.header_bytes)
        in.refuse("e_phentsize", fmt::format("at least {}, not {}", layout.header_bytes, entry_bytes));
    if (table > in.size()) in.refuse("e_phoff", fmt::format("an offset within the file, not {:#x}", table));
    for (u64 i = 0; i < count; ++i) {
        const u64 at = table + i * entry_bytes;
        const u32 type = in.dword(at, "program header");
        const ElfSegment segment = read_segment(in, at, elf.is64);
        if (type != PT_LOAD && type != PT_NOTE) continue;
        in.slice(segment.file_offset, segment.file_bytes, "segment");
        if (type == PT_NOTE) {
            elf.notes.push_back(segment);
            continue;
        }
        if (segment.memory_bytes < segment.file_bytes)
            in.refuse(fmt::format("program header {}", i), "p_memsz not smaller than p_filesz");
        if (segment.memory_bytes != 0) elf.segments.push_back(segment);
    }
    if (elf.segments.empty()) in.refuse("program headers", "a PT_LOAD segment that is not empty");
    return elf;
}

void place_elf(const Image& image, const Elf& elf, Placement& placement) {
    for (std::size_t i = 0; i < elf.segments.size(); ++i) {
        const ElfSegment& segment = elf.segments[i];
        placement.place(segment.physical_address, image.bytes.subspan(segment.file_offset, segment.file_bytes),
                        segment.memory_bytes, fmt::format("PT_LOAD segment {}", i));
    }
}

u64 Elf::physical_entry() const {
    for (const ElfSegment& segment : segments)
        if (entry - segment.virtual_address < segment.memory_bytes)
            return entry - segment.virtual_address + segment.physical_address;
    return entry;
}

std::optional<u64> pvh_entry(const Image& image, const Elf& elf) {
    const ImageReader in(image);
    for (const ElfSegment& segment : elf.notes) {
        const u64 end = segment.file_offset + segment.file_bytes;
        for (u64 at = segment.file_offset; at + 12 <= end;) {
            const u64 name_bytes = in.dword(at, "note"), desc_bytes = in.dword(at + 4, "note");
            const u32 type = in.dword(at + 8, "note");
            const u64 name = at + 12, desc = name + align_up(name_bytes, 4);
            const u64 next = desc + align_up(desc_bytes, 4);
            if (name + name_bytes > end || desc + desc_bytes > end) break;
            const auto owner = in.slice(name, name_bytes, "note name");
            const bool xen = name_bytes == 4 && owner[0] == 'X' && owner[1] == 'e' && owner[2] == 'n' && owner[3] == 0;
            if (xen && type == XEN_ELFNOTE_PHYS32_ENTRY && (desc_bytes == 4 || desc_bytes == 8))
                return desc_bytes == 8 ? in.qword(desc, "PVH entry") : in.dword(desc, "PVH entry");
            at = next;
        }
    }
    return std::nullopt;
}

EntryState load_plain_elf(const BootImages& images, Placement& placement) {
    const Elf elf = parse_elf(images.kernel);
    if (!images.initrds.empty())
        throw BadInput(images.initrds.front().name, "", "no initrd: a plain ELF image has no way to receive one");
    place_elf(images.kernel, elf, placement);
    EntryState state;
    state.mode = elf.is64 ? EntryState::Mode::long64 : EntryState::Mode::protected32;
    state.rip = elf.physical_entry();
    // A stack of 64 KiB, so that the first PUSH of a small guest works.
    state.rsp = placement.allocate(0x1'0000, 16, 0x1'0000, AddressMap::four_gib, "stack") + 0x1'0000;
    return state;
}

}  // namespace exeunt
