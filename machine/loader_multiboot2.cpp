// Multiboot2 Specification 2.0.
//
// Not modelled: EFI tags (the machine has no EFI; an image that insists on it is refused), framebuffer, symbols,
// relocation (a relocatable image goes where it was linked).
#include "base/bits.hpp"
#include "machine/loader_multiboot.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>

namespace exeunt {

namespace {

constexpr u32 header_magic = 0xE852'50D6, loader_magic = 0x36D7'6289;
constexpr u64 search_bytes = 32768;  // 3.1 "OS image format"
constexpr u64 not_found = ~u64{0};

/// 3.1.3 "General tag structure" and what follows: tags of the header.
enum class HeaderTag : u16 {
    end = 0, information_request = 1, address = 2, entry_address = 3, console = 4, framebuffer = 5,
    module_alignment = 6, efi_boot_services = 7, entry_address_efi_i386 = 8, entry_address_efi_amd64 = 9,
    relocatable = 10,
};

/// 3.6 "Boot information": tags that the kernel gets.
namespace Tag {
constexpr u32 end = 0, command_line = 1, loader = 2, module = 3, memory = 4, memory_map = 6, acpi_old = 14,
              acpi_new = 15, load_base = 21;
/// Those that the information can have, for information requests.
constexpr std::array given = {command_line, loader, module, memory, memory_map, acpi_old, acpi_new, load_base};
}  // namespace Tag

u64 find_header(const ImageReader& in) {
    for (u64 at = 0; at + 16 <= std::min(search_bytes, in.size()); at += 8) {
        if (in.dword(at, "multiboot2 header") != header_magic) continue;
        const u32 architecture = in.dword(at + 4, "multiboot2 header"), length = in.dword(at + 8, "multiboot2 header");
        if (header_magic + architecture + length + in.dword(at + 12, "multiboot2 header") == 0) return at;
    }
    return not_found;
}

struct Header {
    std::optional<MultibootAddresses> addresses;
    std::optional<u64> entry;
    bool relocatable = false;
};

/// A request that is not optional must be fulfilled, 3.1.4 "Multiboot2 information request".
void check_requests(const ImageReader& in, u64 at, u32 size) {
    for (u64 i = 8; i + 4 <= size; i += 4) {
        const u32 type = in.dword(at + i, "information request");
        if (std::find(Tag::given.begin(), Tag::given.end(), type) == Tag::given.end())
            in.refuse(fmt::format("multiboot2 information request at {:#x}", at),
                      fmt::format("only tags that exeunt gives, not tag {}", type));
    }
}

Header parse_header(const ImageReader& in, u64 header) {
    Header out;
    const u64 end = header + in.dword(header + 8, "header_length");
    if (in.dword(header + 4, "architecture") != 0)
        in.refuse(fmt::format("multiboot2 header at {:#x}", header), "architecture 0 (i386)");
    for (u64 at = header + 16; at < end;) {
        const u16 type = in.word(at, "header tag"), flags = in.word(at + 2, "header tag");
        const u32 size = in.dword(at + 4, "header tag");
        const std::string place = fmt::format("multiboot2 header tag at {:#x}", at);
        if (size < 8) in.refuse(place, fmt::format("a size of at least 8, not {}", size));
        const bool optional = flags & 1;
        switch (static_cast<HeaderTag>(type)) {
            case HeaderTag::end: return out;
            case HeaderTag::information_request:
                if (!optional) check_requests(in, at, size);
                break;
            case HeaderTag::address:
                out.addresses = MultibootAddresses{header, in.dword(at + 8, "header_addr"),
                                                   in.dword(at + 12, "load_addr"), in.dword(at + 16, "load_end_addr"),
                                                   in.dword(at + 20, "bss_end_addr")};
                break;
            case HeaderTag::entry_address: out.entry = in.dword(at + 8, "entry_addr"); break;
            case HeaderTag::relocatable: out.relocatable = true; break;
            case HeaderTag::console:
            case HeaderTag::framebuffer:
            case HeaderTag::module_alignment:
            case HeaderTag::efi_boot_services:
            case HeaderTag::entry_address_efi_i386:
            case HeaderTag::entry_address_efi_amd64: break;
            default:
                if (!optional) in.refuse(place, fmt::format("a tag that exeunt knows, not {}", type));
                break;
        }
        at += align_up(size, 8);
    }
    in.refuse(fmt::format("multiboot2 header at {:#x}", header), "an end tag");
}

/// Writes one tag: header, contents, padding to 8 bytes.
void tag(ByteWriter& out, u32 type, const ByteWriter& contents) {
    out.dword(type).dword(8 + contents.size()).append(contents.bytes()).align(8);
}

ByteWriter string_contents(std::string_view text) {
    ByteWriter out;
    out.text(text).byte(0);
    return out;
}

void put_tags(ByteWriter& out, const BootImages& images, Placement& placement, u64 rsdp) {
    tag(out, Tag::command_line, string_contents(multiboot_command_line(images)));
    tag(out, Tag::loader, string_contents(boot_loader_name));
    for (const MultibootModule& module : place_modules(images, placement))
        tag(out, Tag::module, ByteWriter().dword(module.start).dword(module.end).text(module.text).byte(0));
    tag(out, Tag::memory,
        ByteWriter()
            .dword(AddressMap::low_ram_end / 1024)
            .dword((placement.memory().low_ram_bytes() - AddressMap::one_mib) / 1024));
    ByteWriter map;
    map.dword(24).dword(0);  // entry size and version
    for (const MemoryRange& range : placement.map())
        map.qword(range.start).qword(range.bytes).dword(static_cast<u32>(range.type)).dword(0);
    tag(out, Tag::memory_map, map);
    if (rsdp != 0) {
        std::array<u8, 36> root{};
        placement.memory().read_bytes(Physical{rsdp}, root.data(), root.size());
        tag(out, Tag::acpi_old, ByteWriter().append(std::span(root).first(20)));
        tag(out, Tag::acpi_new, ByteWriter().append(root));
    }
}

}  // namespace

bool is_multiboot2(const Image& kernel) { return find_header(ImageReader(kernel)) != not_found; }

EntryState load_multiboot2(const BootImages& images, Placement& placement, u64 rsdp) {
    const ImageReader in(images.kernel);
    const u64 at = find_header(in);
    const Header header = parse_header(in, at);
    if (!header.addresses && !has_elf_magic(images.kernel))
        in.refuse(fmt::format("multiboot2 header at {:#x}", at), "an ELF image, or an address tag");
    if (header.addresses && !header.entry)
        in.refuse(fmt::format("multiboot2 header at {:#x}", at), "an entry address tag beside the address tag");
    u64 entry = place_multiboot(images.kernel, header.addresses ? &*header.addresses : nullptr, placement);
    if (header.entry) entry = *header.entry;

    ByteWriter out;
    out.dword(0).dword(0);
    if (header.relocatable) {
        u64 base = AddressMap::four_gib;
        if (header.addresses) base = header.addresses->load_addr;
        else
            for (const ElfSegment& segment : parse_elf(images.kernel).segments)
                base = std::min(base, segment.physical_address);
        tag(out, Tag::load_base, ByteWriter().dword(base));
    }
    put_tags(out, images, placement, rsdp);
    tag(out, Tag::end, {});
    out.patch(0, out.size(), 4);

    EntryState state;
    state.rip = low32(entry);
    state.rax = loader_magic;
    state.rbx = placement.put(out.bytes(), 8, "multiboot2 information");
    return state;
}

}  // namespace exeunt
