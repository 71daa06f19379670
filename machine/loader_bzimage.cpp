// Linux bzImage: The Linux/x86 Boot Protocol (Documentation/x86/boot.rst), versions 2.06 and later; the zero page
// (Documentation/x86/zero-page.rst). The kernel is entered in 64-bit mode where it can be, else in 32-bit mode.
//
// Not modelled: the real-mode entry, kernels that load low (zImage). The kernel gets no random seed
// (setup_data): all chance comes from the machine's own RDRAND.
#include "base/bits.hpp"
#include "machine/loader_placement.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

namespace {

/// Offsets in the setup header, which lies at the same place in the file and in the zero page.
namespace Setup {
constexpr u64 sects = 0x1F1, syssize = 0x1F4, boot_flag = 0x1FE, jump_length = 0x201, header = 0x202,
              version = 0x206, type_of_loader = 0x210, loadflags = 0x211, code32_start = 0x214,
              ramdisk_image = 0x218, ramdisk_size = 0x21C, cmd_line_ptr = 0x228, initrd_addr_max = 0x22C,
              kernel_alignment = 0x230, relocatable_kernel = 0x234, xloadflags = 0x236, cmdline_size = 0x238,
              setup_data = 0x250, pref_address = 0x258, init_size = 0x260;
}  // namespace Setup
namespace ZeroPage {
constexpr u64 acpi_rsdp_addr = 0x070, e820_entries = 0x1E8, e820_table = 0x2D0;
constexpr std::size_t bytes = 4096, e820_max = 128;
}  // namespace ZeroPage
constexpr u8 LOADED_HIGH = 1, unknown_loader = 0xFF;
constexpr u16 XLF_KERNEL_64 = 1;
constexpr u64 entry_64_offset = 0x200;

struct BzImage {
    u16 version = 0;
    u64 setup_bytes = 0;    ///< of the file before the protected-mode kernel
    u64 kernel_bytes = 0;   ///< of the protected-mode kernel
    u64 init_size = 0;      ///< RAM that it needs from its load address on
    u64 preferred = 0;
    u64 alignment = 0;
    bool relocatable = false;
    bool entry_64 = false;
    u64 initrd_max = 0;     ///< last address that an initrd may occupy
    u64 command_line_max = 0;
};

BzImage parse(const ImageReader& in) {
    BzImage out;
    out.version = in.word(Setup::version, "version");
    if (out.version < 0x206)
        in.refuse("version (offset 0x206)",
                  fmt::format("boot protocol 2.06 or later, not {}.{:02}", out.version >> 8, out.version & 0xFF));
    if (!(in.byte(Setup::loadflags, "loadflags") & LOADED_HIGH))
        in.refuse("loadflags (offset 0x211)", "LOADED_HIGH (a bzImage, not a zImage)");
    const u64 sectors = in.byte(Setup::sects, "setup_sects");
    out.setup_bytes = ((sectors == 0 ? 4 : sectors) + 1) * 512;
    out.kernel_bytes = u64{in.dword(Setup::syssize, "syssize")} * 16;
    if (out.kernel_bytes == 0) in.refuse("syssize (offset 0x1f4)", "a kernel of at least 16 bytes");
    in.slice(out.setup_bytes, out.kernel_bytes, "protected-mode kernel");
    out.initrd_max = in.dword(Setup::initrd_addr_max, "initrd_addr_max");
    out.alignment = in.dword(Setup::kernel_alignment, "kernel_alignment");
    out.relocatable = in.byte(Setup::relocatable_kernel, "relocatable_kernel") != 0;
    out.command_line_max = in.dword(Setup::cmdline_size, "cmdline_size");
    out.preferred = AddressMap::one_mib;
    out.init_size = out.kernel_bytes;
    if (out.version >= 0x20A) {
        out.preferred = in.qword(Setup::pref_address, "pref_address");
        out.init_size = std::max<u64>(in.dword(Setup::init_size, "init_size"), out.kernel_bytes);
    }
    if (out.relocatable && (out.alignment == 0 || (out.alignment & (out.alignment - 1)) != 0))
        in.refuse("kernel_alignment (offset 0x230)", "a power of two");
    out.entry_64 = out.version >= 0x20C && (in.word(Setup::xloadflags, "xloadflags") & XLF_KERNEL_64);
    return out;
}

/// The preferred address where it is free RAM; a relocatable kernel goes elsewhere when it is not.
u64 place_kernel(const Image& kernel, const BzImage& image, Placement& placement) {
    const auto code = kernel.bytes.subspan(image.setup_bytes, image.kernel_bytes);
    const u64 low_end = placement.memory().low_ram_bytes();
    u64 at = image.preferred;
    const bool fits = at >= AddressMap::one_mib && at <= low_end && image.init_size <= low_end - at;
    if (!fits && image.relocatable) {
        at = placement.allocate(image.init_size, image.alignment, AddressMap::one_mib, AddressMap::four_gib,
                                "kernel (init_size)");
        placement.memory().write_bytes(Physical{at}, code.data(), code.size());
    } else {
        placement.place(at, code, image.init_size, "kernel (init_size)");
    }
    return at;
}

/// All initrds, one after the other, as high as the kernel allows: it unpacks them in this order.
void place_initrds(const BootImages& images, const BzImage& image, Placement& placement, ByteWriter& zero_page) {
    u64 total = 0;
    for (const Image& initrd : images.initrds) total = align_up(total + initrd.bytes.size(), 4);
    if (total == 0) return;
    const u64 top = std::min(image.initrd_max + 1, AddressMap::four_gib);
    u64 at = placement.allocate_high(total, page_size, AddressMap::one_mib, top, "initrd");
    zero_page.patch(Setup::ramdisk_image, at, 4);
    zero_page.patch(Setup::ramdisk_size, total, 4);
    for (const Image& initrd : images.initrds) {
        placement.memory().write_bytes(Physical{at}, initrd.bytes.data(), initrd.bytes.size());
        at += align_up(initrd.bytes.size(), 4);
    }
}

void put_e820(const Placement& placement, ByteWriter& zero_page) {
    u64 at = ZeroPage::e820_table;
    const std::size_t count = std::min(placement.map().size(), ZeroPage::e820_max);
    for (std::size_t i = 0; i < count; ++i) {
        const MemoryRange& range = placement.map()[i];
        zero_page.patch(at, range.start, 8);
        zero_page.patch(at + 8, range.bytes, 8);
        zero_page.patch(at + 16, static_cast<u32>(range.type), 4);
        at += 20;
    }
    zero_page.patch(ZeroPage::e820_entries, count, 1);
}

}  // namespace

bool is_bzimage(const Image& kernel) {
    const ImageReader in(kernel);
    return in.size() >= Setup::version + 2 && in.word(Setup::boot_flag, "boot_flag") == 0xAA55 &&
           in.dword(Setup::header, "header") == 0x5372'6448;  // "HdrS"
}

EntryState load_bzimage(const BootImages& images, Placement& placement, u64 rsdp) {
    const ImageReader in(images.kernel);
    const BzImage image = parse(in);
    if (images.append.size() > image.command_line_max)
        throw BadInput("--append", "", fmt::format("at most {} characters for this kernel, not {}",
                                                   image.command_line_max, images.append.size()));
    const u64 kernel = place_kernel(images.kernel, image, placement);

    // 1.8 "32-bit Boot Protocol": all zeros but for the setup header, which is copied from the image.
    ByteWriter zero_page;
    zero_page.zeros(ZeroPage::bytes);
    const u64 header_end = Setup::header + in.byte(Setup::jump_length, "jump");
    const auto header = in.slice(Setup::sects, header_end - Setup::sects, "setup header");
    std::copy(header.begin(), header.end(), zero_page.bytes().begin() + Setup::sects);
    zero_page.patch(Setup::type_of_loader, unknown_loader, 1);
    zero_page.patch(Setup::code32_start, kernel, 4);
    zero_page.patch(Setup::cmd_line_ptr, placement.put_string(images.append, "command line"), 4);
    zero_page.patch(Setup::ramdisk_image, 0, 4);
    zero_page.patch(Setup::ramdisk_size, 0, 4);
    if (image.version >= 0x209) zero_page.patch(Setup::setup_data, 0, 8);
    zero_page.patch(ZeroPage::acpi_rsdp_addr, rsdp, 8);
    place_initrds(images, image, placement, zero_page);
    put_e820(placement, zero_page);

    EntryState state;
    state.mode = image.entry_64 ? EntryState::Mode::long64 : EntryState::Mode::protected32;
    state.rip = image.entry_64 ? kernel + entry_64_offset : kernel;
    state.rsi = placement.put(zero_page.bytes(), page_size, "zero page");
    return state;
}

}  // namespace exeunt
