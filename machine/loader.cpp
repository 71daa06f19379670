#include "machine/loader.hpp"

#include "base/bits.hpp"
#include "machine/loader_elf.hpp"
#include "machine/loader_entry.hpp"
#include "machine/loader_placement.hpp"

#include <fmt/format.h>

namespace exeunt {

namespace {

using namespace LoaderSegments;

u64 descriptor(u32 access, u32 raw_limit) {
    return (u64{raw_limit} & 0xFFFF) | (u64{access} << 40) | ((u64{raw_limit} >> 16) << 48);
}

u64 put_gdt(Placement& placement, bool long_mode) {
    ByteWriter gdt;
    gdt.qword(0).qword(0).qword(descriptor(long_mode ? code64_access : code32_access, 0xFFFFF));
    gdt.qword(descriptor(data_access, 0xFFFFF)).qword(descriptor(tss_access, 0x67)).qword(0);
    return placement.put(gdt.bytes(), 16, "GDT");
}

/// Page tables that map the first 4 GiB one to one by 2-MByte pages (SDM 3A 4.5).
u64 put_identity_tables(Placement& placement) {
    constexpr u64 present_writable = 3, page = bit(7);
    const u64 tables = placement.allocate(6 * page_size, page_size, 0x1'0000, AddressMap::four_gib, "page tables");
    ByteWriter out;
    out.qword((tables + page_size) | present_writable).zeros(page_size - 8);
    for (u64 i = 0; i < 4; ++i) out.qword((tables + (2 + i) * page_size) | present_writable);
    out.zeros(page_size - 32);
    for (u64 i = 0; i < 4 * 512; ++i) out.qword((i << 21) | page | present_writable);
    placement.memory().write_bytes(Physical{tables}, out.bytes().data(), out.size());
    return tables;
}

}  // namespace

ImageKind recognise(const Image& kernel) {
    const ImageReader in(kernel);
    if (in.size() == 0) in.refuse("", "a kernel image, but the file is empty");
    if (is_bzimage(kernel)) return ImageKind::bzimage;
    if (is_multiboot2(kernel)) return ImageKind::multiboot2;
    if (is_multiboot(kernel)) return ImageKind::multiboot;
    if (has_elf_magic(kernel)) return is_pvh(kernel) ? ImageKind::pvh : ImageKind::elf;
    if (in.size() > 2 && kernel.bytes[0] == 0x1F && kernel.bytes[1] == 0x8B)
        in.refuse("offset 0x0", "a kernel image, not gzip data; unpack it first");
    in.refuse("", "a bzImage, a multiboot 1 or 2 image, or an ELF executable");
}

EntryState load_images(const BootImages& images, PhysicalMemory& memory, const std::vector<MemoryRange>& map,
                       u64 rsdp) {
    Placement placement(memory, map, images.kernel.name);
    EntryState state;
    switch (recognise(images.kernel)) {
        case ImageKind::bzimage: state = load_bzimage(images, placement, rsdp); break;
        case ImageKind::multiboot: state = load_multiboot(images, placement); break;
        case ImageKind::multiboot2: state = load_multiboot2(images, placement, rsdp); break;
        case ImageKind::pvh: state = load_pvh(images, placement, rsdp); break;
        case ImageKind::elf: state = load_plain_elf(images, placement); break;
    }
    const bool long_mode = state.mode == EntryState::Mode::long64;
    if (long_mode && state.rip >= AddressMap::four_gib)
        throw BadInput(images.kernel.name, "entry point",
                       fmt::format("an address below 4 GiB, not {:#x}", state.rip));
    state.gdt = put_gdt(placement, long_mode);
    if (long_mode) state.cr3 = put_identity_tables(placement);
    return state;
}

std::string base_name(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace exeunt
