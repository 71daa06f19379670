// What multiboot 1 and 2 have in common: segments by addresses in the header, modules, the command line.
#pragma once

#include "machine/loader_elf.hpp"

namespace exeunt {

/// The address fields of a header, for images that are not ELF ("a.out kludge").
struct MultibootAddresses {
    u64 header_offset = 0;  ///< of the multiboot header in the file
    u32 header_addr = 0, load_addr = 0, load_end_addr = 0, bss_end_addr = 0;
};

/// Loads the image as ELF, or as `addresses` say, and returns its entry point (of ELF: physical).
u64 place_multiboot(const Image& kernel, const MultibootAddresses* addresses, Placement& placement);

struct MultibootModule {
    u64 start = 0, end = 0;
    std::string text;
};

/// Loads the initrds as modules, page by page after the kernel.
std::vector<MultibootModule> place_modules(const BootImages& images, Placement& placement);

/// The command line: the kernel's file name, as boot loaders give it, and what the user appended.
std::string multiboot_command_line(const BootImages& images);

inline constexpr char boot_loader_name[] = "exeunt";

}  // namespace exeunt
