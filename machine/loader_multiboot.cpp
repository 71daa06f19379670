// Multiboot Specification 0.6.96 (multiboot 1).
//
// Not modelled: video modes (bit 2 of the header's flags is accepted; the information says that there is none),
// symbols, drives, APM and VBE tables.
#include "machine/loader_multiboot.hpp"

#include "base/bits.hpp"

#include <fmt/format.h>

namespace exeunt {

namespace {

constexpr u32 header_magic = 0x1BAD'B002, loader_magic = 0x2BAD'B002;
constexpr u64 search_bytes = 8192;  // 3.1 "OS image format"

namespace HeaderFlag {
constexpr u32 addresses = u32{1} << 16;
constexpr u32 known_requirements = 0x7;  // page-aligned modules, memory information, video mode
}  // namespace HeaderFlag

namespace InfoFlag {
constexpr u32 memory = 1u << 0, command_line = 1u << 2, modules = 1u << 3, memory_map = 1u << 6, loader = 1u << 9;
}  // namespace InfoFlag

constexpr u64 not_found = ~u64{0};

u64 find_header(const ImageReader& in) {
    for (u64 at = 0; at + 12 <= std::min(search_bytes, in.size()); at += 4) {
        if (in.dword(at, "multiboot header") != header_magic) continue;
        const u32 flags = in.dword(at + 4, "multiboot header");
        if (header_magic + flags + in.dword(at + 8, "multiboot header") == 0) return at;
    }
    return not_found;
}

u64 put_memory_map(Placement& placement, u32& bytes) {
    ByteWriter out;
    for (const MemoryRange& range : placement.map())
        out.dword(20).qword(range.start).qword(range.bytes).dword(static_cast<u32>(range.type));
    bytes = static_cast<u32>(out.size());
    return placement.put(out.bytes(), 16, "multiboot memory map");
}

u64 put_modules(const std::vector<MultibootModule>& modules, Placement& placement) {
    ByteWriter out;
    for (const MultibootModule& module : modules)
        out.dword(module.start).dword(module.end).dword(placement.put_string(module.text, "module string")).dword(0);
    return placement.put(out.bytes(), 16, "multiboot module list");
}

/// 3.3 "Boot information format".
u64 put_information(const BootImages& images, Placement& placement) {
    const auto modules = place_modules(images, placement);
    const u64 command_line = placement.put_string(multiboot_command_line(images), "command line");
    const u64 loader = placement.put_string(boot_loader_name, "boot loader name");
    const u64 module_list = modules.empty() ? 0 : put_modules(modules, placement);
    u32 map_bytes = 0;
    const u64 map = put_memory_map(placement, map_bytes);
    ByteWriter out;
    out.dword(InfoFlag::memory | InfoFlag::command_line | InfoFlag::modules | InfoFlag::memory_map |
              InfoFlag::loader);
    out.dword(AddressMap::low_ram_end / 1024);  // mem_lower, in KBytes
    out.dword((placement.memory().low_ram_bytes() - AddressMap::one_mib) / 1024);  // mem_upper
    out.dword(0).dword(command_line).dword(modules.size()).dword(module_list);
    out.zeros(16).dword(map_bytes).dword(map);  // syms
    out.zeros(12).dword(loader);                // drives, config_table
    out.zeros(116 - out.size());
    return placement.put(out.bytes(), 16, "multiboot information");
}

}  // namespace

u64 place_multiboot(const Image& kernel, const MultibootAddresses* addresses, Placement& placement) {
    if (!addresses) {
        const Elf elf = parse_elf(kernel);
        place_elf(kernel, elf, placement);
        return elf.physical_entry();
    }
    const ImageReader in(kernel);
    const MultibootAddresses& a = *addresses;
    if (a.header_addr < a.load_addr || a.header_addr - a.load_addr > a.header_offset)
        in.refuse("multiboot header",
                  fmt::format("load_addr at most header_addr, and by no more than the header's offset, not {:#x}",
                              a.load_addr));
    const u64 offset = a.header_offset - (a.header_addr - a.load_addr);
    if (a.load_end_addr != 0 && a.load_end_addr < a.load_addr)
        in.refuse("multiboot header", "load_end_addr 0 or not below load_addr");
    const u64 bytes = a.load_end_addr == 0 ? in.size() - offset : a.load_end_addr - a.load_addr;
    const u64 load_end = a.load_addr + bytes;
    const u64 total = std::max<u64>(load_end, a.bss_end_addr) - a.load_addr;
    placement.place(a.load_addr, in.slice(offset, bytes, "text and data"), total, "text, data and bss");
    return not_found;
}

std::vector<MultibootModule> place_modules(const BootImages& images, Placement& placement) {
    std::vector<MultibootModule> modules;
    u64 from = std::max(placement.end(), AddressMap::one_mib);
    for (const Image& initrd : images.initrds) {
        const u64 bytes = initrd.bytes.size();
        const u64 at = placement.allocate(std::max<u64>(bytes, 1), page_size, from, AddressMap::four_gib,
                                          "module " + initrd.name);
        placement.memory().write_bytes(Physical{at}, initrd.bytes.data(), bytes);
        const std::string name = base_name(initrd.name);
        modules.push_back({at, at + bytes, initrd.text.empty() ? name : name + " " + initrd.text});
        from = at;
    }
    return modules;
}

std::string multiboot_command_line(const BootImages& images) {
    const std::string name = base_name(images.kernel.name);
    return images.append.empty() ? name : name + " " + images.append;
}

bool is_multiboot(const Image& kernel) { return find_header(ImageReader(kernel)) != not_found; }

EntryState load_multiboot(const BootImages& images, Placement& placement) {
    const ImageReader in(images.kernel);
    const u64 at = find_header(in);
    const u32 flags = in.dword(at + 4, "multiboot header");
    if (const u32 unknown = flags & 0xFFFF & ~HeaderFlag::known_requirements)
        in.refuse(fmt::format("multiboot header at {:#x}", at),
                  fmt::format("no requirements beyond bits 2:0 of the flags, not {:#x}", unknown));
    u64 entry = 0;
    if (flags & HeaderFlag::addresses) {
        const MultibootAddresses addresses{
            at, in.dword(at + 12, "header_addr"), in.dword(at + 16, "load_addr"), in.dword(at + 20, "load_end_addr"),
            in.dword(at + 24, "bss_end_addr")};
        place_multiboot(images.kernel, &addresses, placement);
        entry = in.dword(at + 28, "entry_addr");
    } else {
        if (!has_elf_magic(images.kernel))
            in.refuse(fmt::format("multiboot header at {:#x}", at), "an ELF image, or bit 16 of the flags (addresses)");
        entry = place_multiboot(images.kernel, nullptr, placement);
    }
    EntryState state;
    state.rip = low32(entry);
    state.rax = loader_magic;
    state.rbx = put_information(images, placement);
    return state;
}

}  // namespace exeunt
