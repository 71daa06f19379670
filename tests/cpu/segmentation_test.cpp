// Access checks, descriptors and loading of segment registers. SDM 3A ch. 3 and ch. 5.
#include "cpu/segmentation.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u16 slot = 0x60; // a free entry of the harness's GDT
constexpr u32 data = AR::P | AR::S | AR::WRITABLE;
constexpr u32 code_segment = AR::P | AR::S | AR::CODE;
constexpr u32 dpl3 = 3u << 5;

void describe(Harness& t, u16 selector, u32 access, u32 base = 0, u32 limit = 0xFFFF) {
    t.write(Harness::gdt_address + (selector & ~7u), descriptor(base, limit, access));
}

Stop load(Harness& t, Seg where, u16 selector) { return load_segment(t.cpu, where, selector).stop(); }
const Stop done{};

} // namespace

TEST_CASE("loading DS: a null selector loads, and its use is #GP(0) [SDM 2B MOV; SDM 3A 3.4.2]") {
    Harness t(Mode::protected32);
    CHECK(load(t, Seg::DS, 3) == done);
    CHECK(t.cpu.seg(Seg::DS).selector == 3);
    CHECK(t.cpu.seg(Seg::DS).unusable());
    CHECK(t.cpu.linear(Seg::DS, 0, 1, AccessType::read).stop() == general_protection(0));
    CHECK(t.cpu.linear(Seg::ES, 0, 1, AccessType::read).ok());
}

TEST_CASE(
    "loading DS: what the descriptor says arrives, and its accessed bit is set [SDM 3A 3.4.3, 3.4.5.1]") {
    Harness t(Mode::protected32);
    describe(t, slot, data | AR::DB | AR::G | dpl3, 0x1234'5678, 0x0ABC'DFFF);
    CHECK(load(t, Seg::FS, slot | 3) == done);
    const Segment& fs = t.cpu.seg(Seg::FS);
    CHECK(fs.selector == (slot | 3));
    CHECK(fs.base == 0x1234'5678);
    CHECK(fs.limit == 0x0ABC'DFFF);
    CHECK(fs.access == (data | AR::ACCESSED | AR::DB | AR::G | dpl3));
    CHECK(t.read(Harness::gdt_address + slot + 5, 1) == (data | AR::ACCESSED | dpl3));
}

TEST_CASE("loading DS: every refusal has its exception [SDM 2B MOV, protected mode exceptions]") {
    Harness t(Mode::protected32);
    const Segment before = t.cpu.seg(Seg::DS);
    SUBCASE("outside the GDT") { CHECK(load(t, Seg::DS, 0x102) == general_protection(0x100)); }
    SUBCASE("the last byte counts") {
        t.cpu.gdtr.limit = slot + 6;
        CHECK(load(t, Seg::DS, slot) == general_protection(slot));
    }
    SUBCASE("no LDT") { CHECK(load(t, Seg::DS, 0x0C) == general_protection(0x0C)); }
    SUBCASE("system segment") {
        describe(t, slot, AR::P | SystemType::ldt);
        CHECK(load(t, Seg::DS, slot) == general_protection(slot));
    }
    SUBCASE("execute-only code") {
        describe(t, slot, code_segment);
        CHECK(load(t, Seg::DS, slot) == general_protection(slot));
    }
    SUBCASE("RPL above DPL") {
        CHECK(load(t, Seg::DS, Harness::data_0 | 1) == general_protection(Harness::data_0));
    }
    SUBCASE("not present comes last") {
        describe(t, slot, data & ~AR::P);
        CHECK(load(t, Seg::DS, slot) == exception(Vector::NP, slot));
        CHECK(load(t, Seg::DS, slot | 3) == general_protection(slot));
    }
    CHECK(t.cpu.seg(Seg::DS) == before);
    CHECK((t.read(Harness::gdt_address + slot + 5, 1) & AR::ACCESSED) == 0);
}

TEST_CASE("loading DS at CPL 3: DPL must be 3, unless the segment is conforming code [SDM 3A 5.6]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    CHECK(load(t, Seg::DS, Harness::data_0) == general_protection(Harness::data_0));
    CHECK(load(t, Seg::DS, Harness::data_3) == done);
    describe(t, slot, code_segment | AR::READABLE);
    CHECK(load(t, Seg::DS, slot) == general_protection(slot));
    describe(t, slot, code_segment | AR::READABLE | AR::CONFORMING);
    CHECK(load(t, Seg::DS, slot) == done);
}

TEST_CASE("loading through the LDT: its own base and limit [SDM 3A 3.5.1]") {
    Harness t(Mode::protected32);
    t.cpu.seg(Seg::LDTR) = {0x68, AR::P | SystemType::ldt, 15, 0x9000};
    t.write(0x9008, descriptor(0x777, 0xFF, data));
    CHECK(load(t, Seg::ES, 0x0C) == done);
    CHECK(t.cpu.seg(Seg::ES).base == 0x777);
    CHECK(load(t, Seg::ES, 0x14) == general_protection(0x14));
}

TEST_CASE("loading SS: its own rules and #SS for not present [SDM 3A 5.7; SDM 2B MOV]") {
    Harness t(Mode::protected32);
    CHECK(load(t, Seg::SS, 0) == general_protection(0));
    CHECK(load(t, Seg::SS, Harness::data_0 | 3) == general_protection(Harness::data_0));
    CHECK(load(t, Seg::SS, Harness::data_3) == general_protection(Harness::data_3 & ~3u));
    CHECK(load(t, Seg::SS, Harness::code32_0) == general_protection(Harness::code32_0));
    describe(t, slot, AR::P | AR::S); // read-only
    CHECK(load(t, Seg::SS, slot) == general_protection(slot));
    describe(t, slot, data & ~AR::P);
    CHECK(load(t, Seg::SS, slot) == exception(Vector::SS, slot));
    describe(t, slot, data);
    CHECK(load(t, Seg::SS, slot) == done);
    CHECK(t.cpu.stack_bytes() == 2);
}

TEST_CASE("loading SS in 64-bit mode: null below CPL 3 with RPL = CPL [SDM 2B MOV, 64-bit mode exceptions]") {
    Harness t;
    CHECK(load(t, Seg::SS, 0) == done);
    CHECK(t.cpu.seg(Seg::SS).unusable());
    CHECK(load(t, Seg::SS, 1) == general_protection(0));
    t.enter_ring3();
    CHECK(load(t, Seg::SS, 3) == general_protection(0));
    Harness compatibility(Mode::compatibility);
    CHECK(load(compatibility, Seg::SS, 0) == general_protection(0));
}

TEST_CASE("loading segments in real-address and virtual-8086 mode [SDM 3B 20.1.1, 20.2.1]") {
    Harness real(Mode::real);
    real.cpu.seg(Seg::DS).limit = 0xFFFF'FFFF; // left by protected mode
    CHECK(load(real, Seg::DS, 0x1234) == done);
    CHECK(real.cpu.seg(Seg::DS).base == 0x12340);
    CHECK(real.cpu.seg(Seg::DS).limit == 0xFFFF'FFFF);
    Harness v8086(Mode::v8086);
    v8086.cpu.seg(Seg::DS).limit = 0;
    CHECK(load(v8086, Seg::DS, 0) == done);
    CHECK(v8086.cpu.seg(Seg::DS) == Segment{0, 0xF3, 0xFFFF, 0});
}

TEST_CASE("a null selector and the base of FS: cleared, or kept by older AMD models [APM 2 4.5.1]") {
    for (const auto& [name, base] :
         {std::pair{"intel-max", u64{0}}, {"amd-max", u64{0}}, {"zen", u64{0x1234}}}) {
        CAPTURE(name);
        Harness t(Mode::long64, name);
        t.cpu.seg(Seg::FS).base = 0x1234;
        CHECK(load(t, Seg::FS, 0) == done);
        CHECK(t.cpu.seg(Seg::FS).base == base);
    }
}

TEST_CASE("limit checks: the last byte of the access counts [SDM 3A 5.3]") {
    Harness t(Mode::protected32);
    Segment& ds = t.cpu.seg(Seg::DS);
    const auto access = [&](u64 offset, unsigned bytes) {
        return t.cpu.linear(Seg::DS, offset, bytes, AccessType::write).stop();
    };
    SUBCASE("expand-up") {
        ds = {slot, data, 0xFFF, 0x5000};
        CHECK(access(0xFFC, 4) == done);
        CHECK(t.cpu.linear(Seg::DS, 0xFFC, 4, AccessType::read).value() == 0x5FFC);
        CHECK(access(0xFFD, 4) == general_protection(0));
        CHECK(access(0x1000, 1) == general_protection(0));
    }
    SUBCASE("expand-down, 16-bit: above the limit, up to FFFFH") {
        ds = {slot, data | AR::EXPAND_DOWN, 0xFFF, 0};
        CHECK(access(0xFFF, 1) == general_protection(0));
        CHECK(access(0x1000, 1) == done);
        CHECK(access(0xFFFC, 4) == done);
        CHECK(access(0xFFFD, 4) == general_protection(0));
    }
    SUBCASE("expand-down, 32-bit: up to FFFFFFFFH") {
        ds = {slot, data | AR::EXPAND_DOWN | AR::DB, 0xFFF, 0};
        CHECK(access(0xFFFF'FFFC, 4) == done);
        CHECK(access(0xFFFF'FFFD, 4) == general_protection(0));
    }
    SUBCASE("base plus offset is truncated to 32 bits") {
        ds = {slot, data, 0xFFFF'FFFF, 0xFFFF'F000};
        CHECK(t.cpu.linear(Seg::DS, 0x2000, 4, AccessType::read).value() == 0x1000);
    }
    SUBCASE("SS: #SS(0)") {
        t.cpu.seg(Seg::SS).limit = 0xFFF;
        CHECK(t.cpu.linear(Seg::SS, 0x1000, 1, AccessType::read).stop() == exception(Vector::SS, 0));
    }
}

TEST_CASE("type checks on access [SDM 3A 5.4.1]") {
    Harness t(Mode::protected32);
    const auto stop = [&](u32 access, AccessType type) {
        t.cpu.seg(Seg::ES) = {slot, access, 0xFFFF, 0};
        return t.cpu.linear(Seg::ES, 0, 1, type).stop();
    };
    CHECK(stop(AR::P | AR::S, AccessType::write) == general_protection(0));
    CHECK(stop(AR::P | AR::S, AccessType::read) == done);
    CHECK(stop(code_segment, AccessType::read) == general_protection(0));
    CHECK(stop(code_segment | AR::READABLE, AccessType::read) == done);
    CHECK(stop(code_segment | AR::READABLE, AccessType::write) == general_protection(0));
}

TEST_CASE("64-bit mode: bases of FS and GS only, no limits, canonical addresses [SDM 3A 3.4.4, 5.3.1]") {
    Harness t;
    t.cpu.seg(Seg::DS) = {0, AR::UNUSABLE, 0, 0x1000};
    t.cpu.seg(Seg::GS).base = 0xFFFF'8000'0000'0000;
    CHECK(t.cpu.linear(Seg::DS, 0x123456, 8, AccessType::write).value() == 0x123456);
    CHECK(t.cpu.linear(Seg::GS, 8, 8, AccessType::write).value() == 0xFFFF'8000'0000'0008);
    CHECK(t.cpu.linear(Seg::GS, ~u64{0}, 1, AccessType::read).stop() == general_protection(0));
    CHECK(t.cpu.linear(Seg::DS, 0x7FFF'FFFF'FFFF, 1, AccessType::read).ok());
    CHECK(t.cpu.linear(Seg::DS, 0x7FFF'FFFF'FFFF, 2, AccessType::read).stop() == general_protection(0));
    CHECK(t.cpu.linear(Seg::SS, 0x8000'0000'0000, 1, AccessType::read).stop() == exception(Vector::SS, 0));
    t.cpu.control.cr4 |= CR4::LA57;
    CHECK(t.cpu.linear(Seg::SS, 0x8000'0000'0000, 1, AccessType::read).ok());
}

TEST_CASE(
    "64-bit mode: a non-canonical address based on RSP or RBP is #SS(0), another #GP(0) [SDM 3A 6.15]") {
    Harness t;
    t.cpu.r[RBP] = t.cpu.r[RAX] = 0x8000'0000'0000;
    CHECK(t.step(code("8b 45 00", "mov eax, [rbp]")) == exception(Vector::SS, 0));
    t.cpu.r[RAX] = 0x8000'0000'0000;
    CHECK(t.step(code("8b 08", "mov ecx, [rax]")) == general_protection(0));
}

TEST_CASE("linear addresses for qualifications are computed without checks [SDM 3C 27.2.1]") {
    Harness t(Mode::protected32);
    t.cpu.seg(Seg::DS) = {slot, AR::UNUSABLE, 0, 0xFFFF'0000};
    CHECK(t.cpu.linear_unchecked(Seg::DS, 0x1'0002'0000, 4) == 0x1'0000);
    CHECK(t.cpu.linear_unchecked(Seg::DS, 0x1'2345, 2) == 0xFFFF'2345);
    Harness wide;
    wide.cpu.seg(Seg::FS).base = 0x10'0000'0000;
    CHECK(wide.cpu.linear_unchecked(Seg::FS, 0x20, 8) == 0x10'0000'0020);
}
