// LDS to LSS, LAR to ARPL, descriptor-table and task registers, bases of FS and GS.
#include "cpu/no_virtualization.hpp"
#include "cpu/segmentation.hpp"
#include "tests/support/general.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
constexpr u16 slot = 0x60;
constexpr u64 at_rax = Harness::data_address;

void describe(Harness& t, u32 access, u32 base = 0, u32 limit = 0xFFFF) {
    t.write(Harness::gdt_address + slot, descriptor(base, limit, access));
    t.write(Harness::gdt_address + slot + 8, 0);
}

bool zf(const Harness& t) { return t.cpu.flags.zf(); }

} // namespace

TEST_CASE("LSS, LDS, LFS: offset and selector; a refused selector leaves the register [SDM 2A LDS]") {
    Harness t(Mode::protected32);
    t.write(at_rax, u64{Harness::data_0} << 32 | 0x1234'5678, 6);
    t.cpu.r[RAX] = at_rax;
    CHECK(general(t, code("0f b2 20", "lss esp, fword ptr [eax]")) == done);
    CHECK(t.cpu.r[RSP] == 0x1234'5678);
    CHECK(general(t, code("66 c5 18", "lds bx, dword ptr [eax]")) == general_protection(0x1234));
    t.write(at_rax + 4, 0x200, 2);
    CHECK(general(t, code("c5 18", "lds ebx, fword ptr [eax]")) == general_protection(0x200));
    CHECK(t.cpu.r[RBX] == 0);
    Harness wide;
    wide.write(at_rax, 0x1'2345'6789);
    wide.write(at_rax + 8, Harness::data_0, 2);
    wide.cpu.r[RAX] = at_rax;
    CHECK(general(wide, code("48 0f b4 18", "lfs rbx, tbyte ptr [rax]")) == done);
    CHECK(wide.cpu.r[RBX] == 0x1'2345'6789);
    CHECK(wide.cpu.seg(Seg::FS).selector == Harness::data_0);
}

TEST_CASE("LAR and LSL: which descriptors may be looked at, and what comes out [SDM 2A LAR, LSL]") {
    Harness t(Mode::protected32);
    const auto lar = [&](u16 selector) {
        t.cpu.r[RAX] = selector;
        t.cpu.r[RBX] = 0xDEAD;
        REQUIRE(general(t, code("0f 02 d8", "lar ebx, eax")) == done);
        return zf(t) ? t.cpu.r[RBX] : 0;
    };
    const auto lsl = [&](u16 selector) {
        t.cpu.r[RAX] = selector;
        t.cpu.r[RBX] = 0xDEAD;
        REQUIRE(general(t, code("0f 03 d8", "lsl ebx, eax")) == done);
        return zf(t) ? t.cpu.r[RBX] : 0;
    };
    CHECK(lar(Harness::code32_0) == 0x00C0'9B00);
    CHECK(lsl(Harness::code32_0) == 0xFFFF'FFFF);
    CHECK(lsl(Harness::tss) == 0x2067);
    CHECK(lar(0) == 0);
    CHECK(t.cpu.r[RBX] == 0xDEAD);
    CHECK(lar(0x200) == 0);
    CHECK(lar(Harness::data_0 | 3) == 0);
    describe(t, AR::P | SystemType::call_gate);
    CHECK(lar(slot) == 0x8C00);
    CHECK(lsl(slot) == 0);
    describe(t, AR::P | SystemType::interrupt_gate);
    CHECK(lar(slot) == 0);
    describe(t, AR::S | AR::WRITABLE); // not present is no obstacle
    CHECK(lar(slot) == 0x1200);
    t.cpu.cpl = 3;
    CHECK(lar(Harness::data_0) == 0);
    describe(t, AR::P | AR::S | AR::CODE | AR::CONFORMING);
    CHECK(lar(slot) == 0x9C00);
}

TEST_CASE("LAR and LSL in IA-32e mode: fewer types, sixteen bytes [SDM 2A LAR Table 3-53, LSL Table 3-56]") {
    Harness t;
    const auto valid = [&](u32 type, const Code& instruction) {
        describe(t, AR::P | type);
        t.cpu.r[RAX] = slot;
        REQUIRE(general(t, instruction) == done);
        return zf(t);
    };
    const Code lar = code("0f 02 d8", "lar ebx, eax"), lsl = code("0f 03 d8", "lsl ebx, eax");
    for (const u32 type : {1u, 3u, 4u, 5u}) CHECK_FALSE(valid(type, lar));
    for (const u32 type : {2u, 9u, 11u, 12u}) CHECK(valid(type, lar));
    for (const u32 type : {2u, 9u, 11u}) CHECK(valid(type, lsl));
    CHECK_FALSE(valid(12, lsl));
    t.cpu.gdtr.limit = slot + 14;
    CHECK_FALSE(valid(9, lar));
}

TEST_CASE("VERR and VERW [SDM 2B VERR]") {
    Harness t(Mode::protected32);
    const auto verify = [&](u32 access, u16 rpl = 0) {
        describe(t, access);
        t.cpu.r[RAX] = slot | rpl;
        REQUIRE(general(t, code("0f 00 e0", "verr ax")) == done);
        const bool readable = zf(t);
        REQUIRE(general(t, code("0f 00 e8", "verw ax")) == done);
        return std::pair{readable, zf(t)};
    };
    CHECK(verify(AR::P | AR::S | AR::WRITABLE) == std::pair{true, true});
    CHECK(verify(AR::P | AR::S) == std::pair{true, false});
    CHECK(verify(AR::P | AR::S | AR::CODE) == std::pair{false, false});
    CHECK(verify(AR::P | AR::S | AR::CODE | AR::READABLE) == std::pair{true, false});
    CHECK(verify(AR::P | SystemType::ldt) == std::pair{false, false});
    CHECK(verify(AR::P | AR::S | AR::WRITABLE, 1) == std::pair{false, false});
    CHECK(verify(AR::P | AR::S | AR::CODE | AR::READABLE | AR::CONFORMING, 3) == std::pair{true, false});
}

TEST_CASE("ARPL raises the RPL of the destination to that of the source [SDM 2A ARPL]") {
    Harness t(Mode::protected32);
    t.cpu.r[RAX] = 0x10;
    t.cpu.r[RCX] = 0x2B;
    CHECK(general(t, code("63 c8", "arpl ax, cx")) == done);
    CHECK(t.cpu.r[RAX] == 0x13);
    CHECK(zf(t));
    CHECK(general(t, code("63 c8", "arpl ax, cx")) == done);
    CHECK(t.cpu.r[RAX] == 0x13);
    CHECK_FALSE(zf(t));
}

TEST_CASE(
    "protected-mode instructions are #UD in real-address and virtual-8086 mode [SDM 2A LAR, LLDT, ...]") {
    for (const Mode mode : {Mode::real, Mode::v8086}) {
        for (const std::string hex : {"0f 02 c0", "0f 03 c0", "0f 00 e0", "0f 00 e8", "63 c0", "0f 00 d0",
                                      "0f 00 d8", "0f 00 c0", "0f 00 c8"}) {
            CAPTURE(hex);
            Harness t(mode);
            t.place(code(hex));
            CHECK(t.step() == undefined_opcode());
        }
    }
}

TEST_CASE("LGDT and LIDT: 24, 32 and 64 bits of base [SDM 2A LGDT]") {
    Harness t(Mode::protected32);
    t.write(at_rax, 0x1234'5678'ABCD);
    t.cpu.r[RAX] = at_rax;
    CHECK(general(t, code("0f 01 10", "lgdt [eax]")) == done);
    CHECK(t.cpu.gdtr.limit == 0xABCD);
    CHECK(t.cpu.gdtr.base == 0x1234'5678);
    CHECK(general(t, code("66 0f 01 18", "lidt [eax]")) == done);
    CHECK(t.cpu.idtr.base == 0x34'5678);
    Harness wide;
    wide.cpu.r[RAX] = at_rax;
    wide.write(at_rax, 0x0FFF, 2);
    wide.write(at_rax + 2, 0xFFFF'8000'0000'1000);
    CHECK(general(wide, code("0f 01 18", "lidt [rax]")) == done);
    CHECK(wide.cpu.idtr.base == 0xFFFF'8000'0000'1000);
    wide.write(at_rax + 2, 0x8000'0000'1000);
    CHECK(general(wide, code("0f 01 10", "lgdt [rax]")) == general_protection(0));
    CHECK(wide.cpu.gdtr.base == Harness::gdt_address);
    wide.enter_ring3();
    CHECK(general(wide, code("0f 01 10", "lgdt [rax]")) == general_protection(0));
}

TEST_CASE("SGDT and SIDT: six bytes, ten in 64-bit mode [SDM 2B SGDT, SIDT]") {
    Harness t;
    t.cpu.idtr = {0xFFFF'8000'1234'5678, 0x0ABC};
    t.cpu.r[RAX] = at_rax;
    CHECK(general(t, code("0f 01 08", "sidt [rax]")) == done);
    CHECK(t.read(at_rax, 2) == 0x0ABC);
    CHECK(t.read(at_rax + 2) == 0xFFFF'8000'1234'5678);
    Harness narrow(Mode::protected32);
    narrow.cpu.gdtr.base = 0x1234'5678;
    narrow.write(at_rax + 6, 0xFFFF, 2);
    narrow.cpu.r[RAX] = at_rax;
    CHECK(general(narrow, code("66 0f 01 00", "sgdt [eax]")) == done);
    CHECK(narrow.read(at_rax + 2, 4) == 0x1234'5678);
    CHECK(narrow.read(at_rax + 6, 2) == 0xFFFF);
}

TEST_CASE("UMIP: SGDT, SIDT, SLDT, STR are #GP(0) above CPL 0, before an exit [SDM 2B SGDT; SDM 3C 25.1.1]") {
    class Extension : public NoVirtualization {
    public:
        Result<void> instruction(Cpu&, const Insn&, Intercept) override {
            return stopped(Stop::Kind::world_switch);
        }
    };
    Harness t;
    Extension extension;
    t.cpu.virtualization = &extension;
    t.cpu.in_guest = true;
    t.cpu.intercepted.set();
    t.cpu.control.cr4 |= CR4::UMIP;
    t.cpu.r[RAX] = at_rax;
    for (const std::string hex : {"0f 01 00", "0f 01 08", "0f 00 00", "0f 00 08"}) {
        CAPTURE(hex);
        t.cpu.cpl = 0;
        CHECK(general(t, code(hex)) == stopped(Stop::Kind::world_switch));
        t.cpu.cpl = 3;
        CHECK(general(t, code(hex)) == general_protection(0));
    }
}

TEST_CASE("LLDT [SDM 2A LLDT]") {
    Harness t(Mode::protected32);
    const auto lldt = [&](u16 selector) {
        t.cpu.r[RAX] = selector;
        return general(t, code("0f 00 d0", "lldt ax"));
    };
    describe(t, AR::P | SystemType::ldt, 0x9000, 0x7F);
    CHECK(lldt(slot) == done);
    CHECK(t.cpu.seg(Seg::LDTR) == Segment{slot, AR::P | SystemType::ldt, 0x7F, 0x9000});
    CHECK(lldt(0) == done);
    CHECK(t.cpu.seg(Seg::LDTR).unusable());
    CHECK(lldt(slot | 4) == general_protection(slot | 4));
    CHECK(lldt(Harness::data_0) == general_protection(Harness::data_0));
    describe(t, SystemType::ldt);
    CHECK(lldt(slot) == exception(Vector::NP, slot));
    t.enter_ring3();
    CHECK(lldt(0) == general_protection(0));
}

TEST_CASE("LTR marks the TSS busy; STR and SLDT give the selectors [SDM 2A LTR, SLDT, 2B STR]") {
    Harness t(Mode::protected32);
    const auto ltr = [&](u16 selector) {
        t.cpu.r[RAX] = selector;
        return general(t, code("0f 00 d8", "ltr ax"));
    };
    CHECK(ltr(0) == general_protection(0));
    CHECK(ltr(Harness::tss) == general_protection(Harness::tss)); // busy already
    describe(t, AR::P | SystemType::tss16_available, 0x9000, 0x2B);
    CHECK(ltr(slot) == done);
    CHECK(t.read(Harness::gdt_address + slot + 5, 1) == (AR::P | SystemType::tss16_busy));
    CHECK(t.cpu.seg(Seg::TR) == Segment{slot, AR::P | SystemType::tss16_busy, 0x2B, 0x9000});
    t.cpu.r[RBX] = ~u64{0};
    CHECK(general(t, code("0f 00 cb", "str ebx")) == done);
    CHECK(t.cpu.r[RBX] == slot);
    t.cpu.r[RAX] = at_rax;
    t.write(at_rax, 0xFFFF'FFFF, 4);
    CHECK(general(t, code("0f 00 00", "sldt [eax]")) == done);
    CHECK(t.read(at_rax, 4) == 0xFFFF'0000);
}

TEST_CASE("LTR and LLDT in IA-32e mode: 64-bit bases [SDM 3A 7.2.3, 3.5.2]") {
    Harness t;
    const auto ltr = [&] {
        t.cpu.r[RAX] = slot;
        return general(t, code("0f 00 d8", "ltr ax"));
    };
    describe(t, AR::P | SystemType::tss16_available);
    CHECK(ltr() == general_protection(slot));
    describe(t, AR::P | SystemType::tss_available, 0x1234'5678, 0x67);
    t.write(Harness::gdt_address + slot + 8, 0x8000, 4);
    CHECK(ltr() == general_protection(slot)); // not canonical
    t.write(Harness::gdt_address + slot + 8, 0xFFFF'8000, 4);
    t.write(Harness::gdt_address + slot + 13, 1, 1);
    CHECK(ltr() == general_protection(slot));
    t.write(Harness::gdt_address + slot + 13, 0, 1);
    CHECK(ltr() == done);
    CHECK(t.cpu.seg(Seg::TR).base == 0xFFFF'8000'1234'5678);
}

TEST_CASE("SWAPGS and the FS and GS base instructions [SDM 2B SWAPGS, RDFSBASE, 2C WRFSBASE]") {
    Harness t;
    t.cpu.seg(Seg::GS).base = 1;
    t.cpu.kernel_gs_base = 2;
    CHECK(general(t, code("0f 01 f8", "swapgs")) == done);
    CHECK(t.cpu.seg(Seg::GS).base == 2);
    CHECK(t.cpu.kernel_gs_base == 1);
    t.cpu.r[RAX] = 0xFFFF'8000'1234'5678;
    const Code write_fs = code("f3 48 0f ae d0", "wrfsbase rax");
    CHECK(general(t, write_fs) == undefined_opcode());
    t.cpu.control.cr4 |= CR4::FSGSBASE;
    CHECK(general(t, write_fs) == done);
    CHECK(t.cpu.seg(Seg::FS).base == 0xFFFF'8000'1234'5678);
    CHECK(general(t, code("f3 0f ae c3", "rdfsbase ebx")) == done);
    CHECK(t.cpu.r[RBX] == 0x1234'5678);
    CHECK(general(t, code("f3 0f ae d8", "wrgsbase eax")) == done);
    CHECK(t.cpu.seg(Seg::GS).base == 0x1234'5678);
    CHECK(general(t, code("f3 48 0f ae cb", "rdgsbase rbx")) == done);
    CHECK(t.cpu.r[RBX] == 0x1234'5678);
    t.cpu.r[RAX] = 0x8000'0000'0000;
    CHECK(general(t, write_fs) == general_protection(0));
    t.enter_ring3();
    CHECK(general(t, code("0f 01 f8", "swapgs")) == general_protection(0));
}
