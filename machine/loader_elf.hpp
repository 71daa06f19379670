// ELF executables for x86, as far as a loader needs them (System V ABI, "Object Files"): program headers, notes
// and the entry point.
//
// Not modelled: relocation (ET_DYN), sections, symbols.
#pragma once

#include "machine/loader_placement.hpp"

#include <optional>

namespace exeunt {

struct ElfSegment {
    u64 file_offset = 0, file_bytes = 0;
    u64 virtual_address = 0, physical_address = 0;
    u64 memory_bytes = 0;
};

struct Elf {
    bool is64 = false;
    u64 entry = 0;                     ///< e_entry
    std::vector<ElfSegment> segments;  ///< PT_LOAD with anything in them
    std::vector<ElfSegment> notes;     ///< PT_NOTE

    /// Where the entry point lies in physical memory.
    u64 physical_entry() const;
};

bool has_elf_magic(const Image& image);
/// Throws BadInput.
Elf parse_elf(const Image& image);
/// Copies the segments to their physical addresses.
void place_elf(const Image& image, const Elf& elf, Placement& placement);
/// The entry point of a Xen PVH note (XEN_ELFNOTE_PHYS32_ENTRY), if there is one.
std::optional<u64> pvh_entry(const Image& image, const Elf& elf);

}  // namespace exeunt
