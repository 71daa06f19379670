// What starts on the machine: images are recognised by their contents, loaded as their boot protocol says, and
// the first processor is put into the state that the protocol promises.
#pragma once

#include "base/bad_input.hpp"
#include "machine/memory_map.hpp"
#include "mmu/physical_memory.hpp"

#include <span>
#include <string>
#include <vector>

namespace exeunt {

struct Cpu;

/// A file's contents and the name under which errors speak of it.
struct Image {
    std::string name;
    std::span<const u8> bytes;
    std::string text = {};  ///< the command line of a multiboot module
};

struct BootImages {
    Image kernel;
    std::vector<Image> initrds;
    std::string append;
};

/// The first processor's state at the kernel's first instruction. Interrupts are disabled, segments are flat.
struct EntryState {
    enum class Mode : u8 {
        protected32,  ///< 32-bit protected mode, paging off
        long64,       ///< 64-bit mode, the first 4 GiB mapped one to one by tables at `cr3`
    };
    Mode mode = Mode::protected32;
    u64 rip = 0;
    u64 rsp = 0;
    u64 rax = 0, rbx = 0, rsi = 0, rdi = 0;
    u64 cr3 = 0;
    u64 gdt = 0;  ///< of 5 entries: null, null, code, data, TSS
};

enum class ImageKind : u8 { bzimage, multiboot, multiboot2, pvh, elf };

/// What the file is. Throws BadInput for anything else.
ImageKind recognise(const Image& kernel);

/// Loads the images into memory. `rsdp` is the address of the ACPI tables' root. Throws BadInput; memory may then
/// hold a part of the images.
EntryState load_images(const BootImages& images, PhysicalMemory& memory, const std::vector<MemoryRange>& map,
                       u64 rsdp);

/// Puts a processor that was just reset into `state`.
void enter_image(Cpu& cpu, const EntryState& state);

/// The last component of a path: what the guest learns of a file's name.
std::string base_name(const std::string& path);

}  // namespace exeunt
