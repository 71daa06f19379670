// PVH: an ELF image whose note names an entry point in 32-bit protected mode, and the start information that it
// gets (Xen, docs/misc/pvh.pandoc "x86/HVM direct boot ABI"; public/arch-x86/hvm/start_info.h).
#include "base/bits.hpp"
#include "machine/loader_elf.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

namespace {

constexpr u32 start_info_magic = 0x336E'C578;

}  // namespace

bool is_pvh(const Image& kernel) { return has_elf_magic(kernel) && pvh_entry(kernel, parse_elf(kernel)).has_value(); }

EntryState load_pvh(const BootImages& images, Placement& placement, u64 rsdp) {
    const Elf elf = parse_elf(images.kernel);
    place_elf(images.kernel, elf, placement);
    ByteWriter modules;
    for (const Image& initrd : images.initrds) {
        const u64 bytes = initrd.bytes.size();
        const u64 at =
            placement.allocate_high(std::max<u64>(bytes, 1), page_size, AddressMap::one_mib, AddressMap::four_gib,
                                    "initrd " + initrd.name);
        placement.memory().write_bytes(Physical{at}, initrd.bytes.data(), bytes);
        modules.qword(at).qword(bytes).qword(0).qword(0);
    }
    ByteWriter map;
    for (const MemoryRange& range : placement.map())
        map.qword(range.start).qword(range.bytes).dword(static_cast<u32>(range.type)).dword(0);
    const u64 module_list = placement.put(modules.bytes(), 8, "PVH module list");
    const u64 map_address = placement.put(map.bytes(), 8, "PVH memory map");
    const u64 command_line = placement.put_string(images.append, "command line");

    ByteWriter info;
    info.dword(start_info_magic).dword(1).dword(0).dword(images.initrds.size());
    info.qword(module_list).qword(command_line).qword(rsdp).qword(map_address);
    info.dword(placement.map().size()).dword(0);
    EntryState state;
    state.rip = *pvh_entry(images.kernel, elf);
    if (state.rip >= AddressMap::four_gib)
        throw BadInput(images.kernel.name, "PVH note", fmt::format("an entry below 4 GiB, not {:#x}", state.rip));
    state.rbx = placement.put(info.bytes(), 8, "PVH start information");
    return state;
}

}  // namespace exeunt
