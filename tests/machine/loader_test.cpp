#include "machine/loader.hpp"

#include "tests/machine/images.hpp"

#include <doctest/doctest.h>
#include <string>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 mib = u64{1} << 20;

/// A machine's memory, and an image loaded into it.
struct Loader {
    explicit Loader(u64 ram = 64 * mib)
        : memory(ram), map(memory_map(memory.low_ram_bytes(), memory.high_ram_bytes())) {}

    EntryState load(const std::vector<u8>& kernel, const std::string& append = "",
                    const std::vector<std::vector<u8>>& initrds = {}) {
        BootImages images{{"dir/kernel", kernel}, {}, append};
        for (const auto& initrd : initrds) images.initrds.push_back({"dir/initrd", initrd});
        return load_images(images, memory, map, rsdp);
    }
    /// The error of an image that must be refused.
    std::string refusal(const std::vector<u8>& kernel, const std::string& append = "",
                        const std::vector<std::vector<u8>>& initrds = {}) {
        try {
            load(kernel, append, initrds);
        } catch (const BadInput& error) {
            return error.what();
        }
        return "";
    }
    u8 byte(u64 at) { return memory.load<u8>(Physical{at}); }
    u32 dword(u64 at) { return memory.load<u32>(Physical{at}); }
    u64 qword(u64 at) { return memory.load<u64>(Physical{at}); }
    std::string string(u64 at) {
        std::string out;
        while (const u8 c = byte(at++)) out.push_back(static_cast<char>(c));
        return out;
    }

    PhysicalMemory memory;
    std::vector<MemoryRange> map;
    u64 rsdp = 0;
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Every shorter version of an image either loads or is refused; it must be refused below `needed` bytes.
void check_truncations(const std::vector<u8>& image, std::size_t needed) {
    Loader t;
    for (std::size_t size = 0; size < needed; ++size) {
        CAPTURE(size);
        const std::string error = t.refusal({image.begin(), image.begin() + static_cast<std::ptrdiff_t>(size)});
        CHECK(contains(error, "kernel: "));
        CHECK(contains(error, "expected "));
        CHECK(error.find('\n') == std::string::npos);
    }
    CHECK(t.refusal(image) == "");
}

}  // namespace

TEST_CASE("recognise: an image is known by its contents; what is nothing is refused in one line") {
    CHECK(recognise({"k", bzimage({})}) == ImageKind::bzimage);
    const std::vector<u8> flat = multiboot_flat({});
    CHECK(recognise({"k", flat}) == ImageKind::multiboot);
    const std::vector<u8> two = multiboot2({});
    CHECK(recognise({"k", two}) == ImageKind::multiboot2);
    const std::vector<u8> plain = elf({});
    CHECK(recognise({"k", plain}) == ImageKind::elf);
    const std::vector<u8> pvh = elf({.note = pvh_note(0x20'0000)});
    CHECK(recognise({"k", pvh}) == ImageKind::pvh);
    Loader t;
    CHECK(contains(t.refusal({}), "the file is empty"));
    CHECK(contains(t.refusal({0x1F, 0x8B, 8}), "gzip"));
    CHECK(t.refusal(std::vector<u8>(100, 'x')) ==
          "dir/kernel: expected a bzImage, a multiboot 1 or 2 image, or an ELF executable");
}

TEST_CASE("multiboot: EAX, EBX, the entry and 32-bit protected mode [Multiboot 0.6.96 3.2]") {
    Loader t;
    const std::vector<u8> code{0xF4, 0xEB, 0xFD};
    const EntryState state = t.load(multiboot_flat(code, 0x1000), "div=3 x");
    CHECK(state.mode == EntryState::Mode::protected32);
    CHECK(state.rax == 0x2BAD'B002);
    CHECK(state.rip == code_address + 32);
    CHECK(t.byte(state.rip) == 0xF4);
    const u32 flags = t.dword(state.rbx);
    CHECK((flags & 0x245) == 0x245);
    CHECK(t.dword(state.rbx + 4) == 639);
    CHECK(t.dword(state.rbx + 8) == 63 * 1024);
    CHECK(t.string(t.dword(state.rbx + 16)) == "kernel div=3 x");
}

TEST_CASE("multiboot: the memory map has the machine's RAM, entry by entry [Multiboot 0.6.96 3.3]") {
    Loader t;
    const EntryState state = t.load(multiboot_flat({}));
    u64 at = t.dword(state.rbx + 48);
    const u64 end = at + t.dword(state.rbx + 44);
    u64 usable = 0;
    for (; at < end; at += t.dword(at) + 4)
        if (t.dword(at + 20) == 1) usable += t.qword(at + 12);
    CHECK(at == end);
    CHECK(usable == 63 * mib + 0x9FC00);
}

TEST_CASE("multiboot: each initrd is a module on a page of its own [Multiboot 0.6.96 3.3]") {
    Loader t;
    const EntryState state = t.load(multiboot_flat({}), "", {{1, 2, 3}, std::vector<u8>(5000, 9)});
    REQUIRE(t.dword(state.rbx + 20) == 2);
    const u64 list = t.dword(state.rbx + 24);
    const u64 first = t.dword(list), second = t.dword(list + 16);
    CHECK(first % 4096 == 0);
    CHECK(second % 4096 == 0);
    CHECK(t.dword(list + 4) - first == 3);
    CHECK(t.dword(list + 20) - second == 5000);
    CHECK(t.byte(first + 2) == 3);
    CHECK(t.byte(second + 4999) == 9);
    CHECK(t.string(t.dword(list + 8)) == "initrd");
}

TEST_CASE("multiboot: a module's command line follows its name [Multiboot 0.6.96 3.3]") {
    Loader t;
    const std::vector<u8> kernel = multiboot_flat({}), module(3, 1);
    const BootImages images{{"dir/kernel", kernel}, {{"dir/vmlinuz", module, "console=hvc0 ro"}}, ""};
    const EntryState state = load_images(images, t.memory, t.map, t.rsdp);
    CHECK(t.string(t.dword(t.dword(state.rbx + 24) + 8)) == "vmlinuz console=hvc0 ro");
}

TEST_CASE("multiboot: a header with a wrong checksum is none; requirements that are not known are refused") {
    Loader t;
    std::vector<u8> image = multiboot_flat({});
    image[8] ^= 1;
    CHECK(contains(t.refusal(image), "expected a bzImage"));
    CHECK(contains(t.refusal(multiboot_header(0x8).bytes()), "no requirements beyond bits 2:0"));
    CHECK(contains(t.refusal(multiboot_header(0).bytes()), "an ELF image, or bit 16"));
}

TEST_CASE("multiboot: bss is cleared, also where RAM had contents before") {
    Loader t;
    const std::vector<u8> old(0x3000, 0xAA);
    t.memory.write_bytes(Physical{code_address}, old.data(), old.size());
    const std::vector<u8> code{0xF4};
    t.load(multiboot_flat(code, 0x1800));
    CHECK(t.byte(code_address + 33) == 0);
    CHECK(t.byte(code_address + 32 + 0x1800) == 0);
    CHECK(t.byte(code_address + 33 + 0x1800) == 0xAA);
}

TEST_CASE("multiboot: addresses that contradict one another or leave RAM are refused") {
    Loader t;
    const auto image = [](u32 header, u32 load, u32 load_end, u32 bss_end) {
        ByteWriter out = multiboot_header(1u << 16);
        return out.dword(header).dword(load).dword(load_end).dword(bss_end).dword(load).zeros(100).bytes();
    };
    CHECK(t.refusal(image(0x20'0000, 0x20'0000, 0, 0)) == "");
    CHECK(contains(t.refusal(image(0x20'0000, 0x20'0001, 0, 0)), "load_addr"));
    CHECK(contains(t.refusal(image(0x20'0010, 0x20'0000, 0, 0)), "load_addr"));
    CHECK(contains(t.refusal(image(0x20'0000, 0x20'0000, 0x1F'0000, 0)), "load_end_addr"));
    CHECK(contains(t.refusal(image(0x20'0000, 0x20'0000, 0x30'0000, 0)), "the file ends"));
    CHECK(contains(t.refusal(image(0x20'0000, 0x20'0000, 0, 0xFFFF'FFFF)), "a place in RAM"));
    CHECK(contains(t.refusal(image(0x9'F000, 0x9'F000, 0, 0xA'0000)), "a place in RAM"));
}

TEST_CASE("multiboot: every truncation of a flat image ends with one line") {
    const std::vector<u8> code(40, 0x90);
    check_truncations(multiboot_flat(code), 32 + 40);
}

TEST_CASE("multiboot 2: magic, tags and their order of 8 bytes [Multiboot2 2.0 3.6]") {
    Loader t;
    const EntryState state = t.load(multiboot2({}), "quiet", {{7}});
    CHECK(state.mode == EntryState::Mode::protected32);
    CHECK(state.rax == 0x36D7'6289);
    CHECK(state.rbx % 8 == 0);
    const u64 end = state.rbx + t.dword(state.rbx);
    std::vector<u32> types;
    for (u64 at = state.rbx + 8; at < end;) {
        types.push_back(t.dword(at));
        if (types.back() == 1) CHECK(t.string(at + 8) == "kernel quiet");
        if (types.back() == 3) CHECK(t.byte(t.dword(at + 8)) == 7);
        at += (t.dword(at + 4) + 7) & ~7u;
        if (types.back() == 0) CHECK(at == end);
    }
    CHECK(types == std::vector<u32>{1, 2, 3, 4, 6, 0});
}

TEST_CASE("multiboot 2: an entry address tag wins over the ELF entry; unknown tags must be optional") {
    Loader t;
    ByteWriter entry;
    entry.word(3).word(0).dword(12).dword(0x20'0008).dword(0);
    CHECK(t.load(multiboot2(entry)).rip == 0x20'0008);
    ByteWriter unknown;
    unknown.word(99).word(0).dword(8);
    CHECK(contains(t.refusal(multiboot2(unknown)), "a tag that exeunt knows, not 99"));
    unknown.patch(2, 1, 2);
    CHECK(t.refusal(multiboot2(unknown)) == "");
    ByteWriter small;
    small.word(1).word(0).dword(4);
    CHECK(contains(t.refusal(multiboot2(small)), "a size of at least 8"));
    ByteWriter request;
    request.word(1).word(0).dword(12).dword(8).dword(0);
    CHECK(contains(t.refusal(multiboot2(request)), "not tag 8"));
}

TEST_CASE("PVH: EBX points to the start information [x86/HVM direct boot ABI]") {
    Loader t;
    t.rsdp = 0xF'0000;
    const EntryState state = t.load(elf({.note = pvh_note(0x20'0000)}), "root=x", {{5, 6}});
    CHECK(state.mode == EntryState::Mode::protected32);
    CHECK(state.rip == 0x20'0000);
    CHECK(t.dword(state.rbx) == 0x336E'C578);
    CHECK(t.dword(state.rbx + 4) == 1);
    CHECK(t.dword(state.rbx + 12) == 1);
    const u64 module = t.qword(state.rbx + 16);
    CHECK(t.byte(t.qword(module) + 1) == 6);
    CHECK(t.qword(module + 8) == 2);
    CHECK(t.string(t.qword(state.rbx + 24)) == "root=x");
    CHECK(t.qword(state.rbx + 32) == 0xF'0000);
    CHECK(t.dword(state.rbx + 48) == t.map.size());
}

TEST_CASE("ELF: a 64-bit image starts in 64-bit mode with 4 GiB mapped one to one") {
    Loader t;
    const EntryState state = t.load(elf({}));
    CHECK(state.mode == EntryState::Mode::long64);
    CHECK(state.rip == code_address);
    const u64 pdpt = t.qword(state.cr3) & ~u64{0xFFF};
    for (unsigned i = 0; i < 4; ++i) {
        const u64 directory = t.qword(pdpt + 8 * i) & ~u64{0xFFF};
        for (const unsigned j : {0u, 511u}) CHECK(t.qword(directory + 8 * j) == ((u64{i} * 512 + j) << 21 | 0x83));
    }
    CHECK(t.qword(pdpt + 32) == 0);
}

TEST_CASE("ELF: a 32-bit image starts in 32-bit mode; the entry follows the segment's physical address") {
    Loader t;
    const EntryState state = t.load(elf({.is64 = false,
                                         .machine = 3,
                                         .entry = 0xC020'0004,
                                         .virtual_address = 0xC020'0000,
                                         .contents = std::vector<u8>(16, 0x90)}));
    CHECK(state.mode == EntryState::Mode::protected32);
    CHECK(state.rip == code_address + 4);
}

TEST_CASE("ELF: what can not be loaded is refused with its place") {
    Loader t;
    CHECK(contains(t.refusal(elf({.type = 3})), "e_type"));
    CHECK(contains(t.refusal(elf({.machine = 183})), "e_machine"));
    CHECK(contains(t.refusal(elf({.physical = 0xFFFF'FFFF'FFFF'F000})), "a place in RAM"));
    CHECK(contains(t.refusal(elf({.physical = 64 * mib})), "a place in RAM"));
    CHECK(contains(t.refusal(elf({.memory_bytes = ~u64{0}})), "a place in RAM"));
    CHECK(contains(t.refusal(elf({.physical = 0xF'0000})), "a place in RAM"));
    CHECK(contains(t.refusal(elf({}), "", {{1}}), "no initrd"));
    std::vector<u8> image = elf({});
    image[56] = 0;  // e_phnum
    CHECK(contains(t.refusal(image), "program headers"));
    image[56] = 0xFF;
    CHECK(contains(t.refusal(image), "the file ends"));
}

TEST_CASE("ELF: every truncation of a small image ends with one line") {
    check_truncations(elf({}), elf({}).size());
    check_truncations(elf({.note = pvh_note(0x20'0000)}), elf({.note = pvh_note(0x20'0000)}).size());
}

TEST_CASE("bzImage: entered at 200H in 64-bit mode with RSI at the zero page [boot.rst 1.13]") {
    Loader t;
    t.rsdp = 0xF'0000;
    const EntryState state = t.load(bzimage({}), "console=ttyS0", {{1, 2, 3}});
    CHECK(state.mode == EntryState::Mode::long64);
    CHECK(state.rip == 0x100'0200);
    CHECK(t.dword(0x100'0000) == 0xC0DE);
    const u64 zero_page = state.rsi;
    CHECK(t.dword(zero_page + 0x202) == 0x5372'6448);
    CHECK(t.byte(zero_page + 0x210) == 0xFF);
    CHECK(t.string(t.dword(zero_page + 0x228)) == "console=ttyS0");
    CHECK(t.qword(zero_page + 0x70) == 0xF'0000);
    CHECK(t.byte(zero_page + 0x1EF) == 0);
    CHECK(t.qword(zero_page + 0x250) == 0);  // setup_data: nothing native reaches the guest
    const u64 initrd = t.dword(zero_page + 0x218);
    CHECK(t.dword(zero_page + 0x21C) == 4);
    CHECK(initrd % 4096 == 0);
    CHECK(initrd == 64 * mib - 4096);
    CHECK(t.byte(initrd + 2) == 3);
    REQUIRE(t.byte(zero_page + 0x1E8) == t.map.size());
    CHECK(t.qword(zero_page + 0x2D0 + 3 * 20) == mib);
    CHECK(t.qword(zero_page + 0x2D0 + 3 * 20 + 8) == 63 * mib);
}

TEST_CASE("bzImage: without XLF_KERNEL_64, or before 2.12, in 32-bit mode at its start [boot.rst 1.12]") {
    Loader t;
    CHECK(t.load(bzimage({.xloadflags = 0})).mode == EntryState::Mode::protected32);
    const EntryState state = t.load(bzimage({.version = 0x20A}));
    CHECK(state.mode == EntryState::Mode::protected32);
    CHECK(state.rip == 0x100'0000);
}

TEST_CASE("bzImage: a relocatable kernel goes where there is room, another one is refused") {
    Loader t(16 * mib);
    const EntryState state = t.load(bzimage({.init_size = 4 * mib}));
    CHECK(state.rip == 2 * mib + 0x200);
    CHECK(contains(t.refusal(bzimage({.relocatable = false, .init_size = 4 * mib})), "a place in RAM"));
    CHECK(contains(t.refusal(bzimage({.init_size = 0xFFFF'FFFF})), "of free RAM"));
}

TEST_CASE("bzImage: old protocols, long command lines and truncated files are refused") {
    Loader t;
    CHECK(contains(t.refusal(bzimage({.version = 0x205})), "boot protocol 2.06"));
    CHECK(contains(t.refusal(bzimage({.command_line_max = 4}), "12345"), "at most 4 characters"));
    check_truncations(bzimage({}), 1024 + 32);
}

TEST_CASE("placement: parts of an image do not overlap") {
    Loader t;
    const std::vector<u8> bytes(0x1000, 1);
    Placement placement(t.memory, t.map, "image");
    placement.place(mib, bytes, 0x2000, "first");
    CHECK_THROWS_WITH_AS(placement.place(mib + 0x1FFF, bytes, 0x1000, "second"),
                         "image: second: expected no overlap with first at 0x100000", BadInput);
    CHECK(placement.allocate(0x1000, 0x1000, mib, ~u64{0}, "third") == mib + 0x2000);
    CHECK(placement.allocate_high(0x800, 0x1000, mib, ~u64{0}, "fourth") == 64 * mib - 0x1000);
    CHECK(placement.end() == 64 * mib - 0x800);
}
