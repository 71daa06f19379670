// FXSAVE, FXRSTOR and the XSAVE family: layouts, headers, faults.
#include "cpu/instructions/xsave.hpp"

#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
const Stop gp = general_protection(0);
constexpr u64 area = Harness::data_address; // a multiple of 64
constexpr u64 compacted = u64{1} << 63;

/// Everything that the components hold, with a value of its own in each field.
void fill(Cpu& cpu) {
    cpu.x87 = X87State{};
    cpu.x87.control = 0x027F;
    cpu.x87.status = 0x4100;
    cpu.x87.set_top(6);
    cpu.x87.empty = 0x3F;
    cpu.x87.opcode = 0x123;
    cpu.x87.instruction_pointer = 0x1111'2222'3333'4444;
    cpu.x87.data_pointer = 0x5555'6666'7777'8888;
    cpu.x87.instruction_selector = 0x23;
    cpu.x87.data_selector = 0x2B;
    for (unsigned i = 0; i < 8; ++i)
        cpu.x87.st[i] = {0x8000'0000'0000'0000 + i, static_cast<u16>(0x3FFF + i)};
    for (unsigned i = 0; i < 16; ++i) cpu.vector[i] = {{i + 1u, 0x100u + i, 0x200u + i, 0x300u + i}};
    cpu.mxcsr = 0x1FA0;
    cpu.control.pkru = 0x5555'5554;
}

void clear(Cpu& cpu) {
    cpu.x87 = X87State{};
    for (VectorRegister& v : cpu.vector) v = {};
    cpu.mxcsr = 0x1F80;
    cpu.control.pkru = 0;
}

void check_filled(const Cpu& cpu) {
    CHECK(cpu.x87.control == 0x027F);
    CHECK(cpu.x87.status == 0x7100);
    CHECK(cpu.x87.empty == 0x3F);
    CHECK(cpu.x87.opcode == 0x123);
    for (unsigned i = 0; i < 8; ++i) {
        CHECK(cpu.x87.st[i].significand == 0x8000'0000'0000'0000 + i);
        CHECK(cpu.x87.st[i].sign_exponent == 0x3FFF + i);
    }
    for (unsigned i = 0; i < 16; ++i) {
        CHECK(cpu.vector[i].q[0] == i + 1);
        CHECK(cpu.vector[i].q[1] == 0x100 + i);
    }
    CHECK(cpu.mxcsr == 0x1FA0);
}
bool upper_halves_filled(const Cpu& cpu) {
    for (unsigned i = 0; i < 16; ++i)
        if (cpu.vector[i].q[2] != 0x200 + i || cpu.vector[i].q[3] != 0x300 + i) return false;
    return true;
}

constexpr u64 all_components = XCR0::X87 | XCR0::SSE | XCR0::AVX | XCR0::PKRU;

struct Xsave : Harness {
    explicit Xsave(const std::string& name = "intel-max") : Harness(Mode::long64, name) {
        cpu.control.cr4 |= CR4::OSXSAVE;
        cpu.control.xcr0 = xcr0_supported(model);
        cpu.r[RBX] = area;
        for (u64 at = 0; at < 4096; at += 8) write(area + at, 0xCCCC'CCCC'CCCC'CCCC);
        for (u64 at = 512; at < 576; at += 8) write(area + at, 0);
        fill(cpu);
        ask_for(~u64{0});
    }
    void ask_for(u64 mask) {
        cpu.r[RAX] = low32(mask);
        cpu.r[RDX] = high32(mask);
    }
    u64 xstate_bv() { return read(area + 512); }
    u64 xcomp_bv() { return read(area + 520); }
    Stop xsave() { return general(*this, code("48 0f ae 23", "xsave64 [rbx]")); }
    Stop xsaveopt() { return general(*this, code("48 0f ae 33", "xsaveopt64 [rbx]")); }
    Stop xsavec() { return general(*this, code("48 0f c7 23", "xsavec64 [rbx]")); }
    Stop xsaves() { return general(*this, code("48 0f c7 2b", "xsaves64 [rbx]")); }
    Stop xrstor() { return general(*this, code("48 0f ae 2b", "xrstor64 [rbx]")); }
    Stop xrstors() { return general(*this, code("48 0f c7 1b", "xrstors64 [rbx]")); }
};

} // namespace

TEST_CASE("FXSAVE: where everything lies [SDM 2A FXSAVE, Table 3-44]") {
    Harness t;
    fill(t.cpu);
    t.cpu.r[RBX] = area;
    for (u64 at = 0; at < 512; at += 8) t.write(area + at, 0xCCCC'CCCC'CCCC'CCCC);
    SUBCASE("with REX.W, pointers have 64 bits") {
        CHECK(general(t, code("48 0f ae 03", "fxsave64 [rbx]")) == done);
        CHECK(t.read(area + 8) == 0x1111'2222'3333'4444);
        CHECK(t.read(area + 16) == 0x5555'6666'7777'8888);
    }
    SUBCASE("without, 32 and a selector") {
        CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == done);
        CHECK(t.read(area + 8) == 0x0000'0023'3333'4444);
        CHECK(t.read(area + 16) == 0x0000'002B'7777'8888);
    }
    CHECK(t.read(area, 2) == 0x027F);
    CHECK(t.read(area + 2, 2) == 0x7100);
    CHECK(t.read(area + 4, 1) == 0xC0); // a bit for each register that is not empty
    CHECK(t.read(area + 6, 2) == 0x123);
    CHECK(t.read(area + 24) == 0x0000'FFFF'0000'1FA0);
    CHECK(t.read(area + 32) == 0x8000'0000'0000'0006); // ST(0), for TOP is 6
    CHECK(t.read(area + 40) == 0x4005);
    CHECK(t.read(area + 160 + 16 * 15) == 16);
    CHECK(t.read(area + 160 + 16 * 15 + 8) == 0x10F);
    CHECK(t.read(area + 416) == 0xCCCC'CCCC'CCCC'CCCC);
}

TEST_CASE("FXSAVE outside 64-bit mode: XMM8 to XMM15 are left alone in the area [SDM 2A FXSAVE]") {
    Harness t{Mode::protected32};
    fill(t.cpu);
    t.cpu.r[RBX] = area;
    t.write(area + 160 + 16 * 8, 0xCCCC);
    CHECK(general(t, code("0f ae 03", "fxsave [ebx]")) == done);
    CHECK(t.read(area + 160 + 16 * 7) == 8);
    CHECK(t.read(area + 160 + 16 * 8) == 0xCCCC);
}

TEST_CASE("FXRSTOR brings back what FXSAVE saved; TOP and the tag word too [SDM 2A FXRSTOR]") {
    Harness t;
    fill(t.cpu);
    t.cpu.r[RBX] = area;
    CHECK(general(t, code("48 0f ae 03", "fxsave64 [rbx]")) == done);
    clear(t.cpu);
    CHECK(general(t, code("48 0f ae 0b", "fxrstor64 [rbx]")) == done);
    check_filled(t.cpu);
    CHECK(t.cpu.x87.instruction_pointer == 0x1111'2222'3333'4444);
    SUBCASE("ES and B follow the exceptions that are not masked") {
        t.write(area, 0x0340, 2);
        t.write(area + 2, 0x0001, 2);
        CHECK(general(t, code("48 0f ae 0b", "fxrstor64 [rbx]")) == done);
        CHECK(t.cpu.x87.status == 0x8081);
    }
    SUBCASE("a reserved bit of MXCSR: #GP(0), nothing changes") {
        clear(t.cpu);
        t.write(area + 24, 0x1'1F80, 4);
        CHECK(general(t, code("48 0f ae 0b", "fxrstor64 [rbx]")) == gp);
        CHECK(t.cpu.x87.control == 0x037F);
        CHECK(t.cpu.vector[1].q[0] == 0);
    }
}

TEST_CASE("FXSAVE, FXRSTOR: #NM with CR0.TS or EM, #GP(0) when not aligned, #PF [SDM 2A FXSAVE, FXRSTOR]") {
    Harness t;
    t.cpu.r[RBX] = area + 8;
    CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == gp);
    CHECK(general(t, code("0f ae 0b", "fxrstor [rbx]")) == gp);
    t.cpu.r[RBX] = u64{1} << 40;
    CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == page_fault(PFEC::W, u64{1} << 40));
    CHECK(general(t, code("0f ae 0b", "fxrstor [rbx]")) == page_fault(0, u64{1} << 40));
    t.cpu.control.cr0 |= CR0::TS;
    CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == exception(Vector::NM));
    t.cpu.control.cr0 ^= CR0::TS | CR0::EM;
    CHECK(general(t, code("0f ae 0b", "fxrstor [rbx]")) == exception(Vector::NM));
}

TEST_CASE("FXSAVE with EFER.FFXSR at CPL 0 leaves XMM registers out [APM 2 3.1.7]") {
    Harness t{Mode::long64, "zen"};
    fill(t.cpu);
    t.cpu.control.efer |= EFER::FFXSR;
    t.cpu.r[RBX] = area;
    t.write(area + 160, 0xCCCC);
    CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == done);
    CHECK(t.read(area + 160) == 0xCCCC);
    t.enter_ring3();
    CHECK(general(t, code("0f ae 03", "fxsave [rbx]")) == done);
    CHECK(t.read(area + 160) == 1);
}

TEST_CASE("XSAVE, XRSTOR: #UD, #NM, #GP(0) for what they are not ready for [SDM 2C XSAVE, XRSTOR]") {
    Xsave t;
    t.cpu.r[RBX] = area + 32;
    CHECK(t.xsave() == gp);
    CHECK(t.xrstor() == gp);
    CHECK(t.xsavec() == gp);
    t.cpu.r[RBX] = area;
    t.cpu.control.cr0 |= CR0::TS;
    CHECK(t.xsave() == exception(Vector::NM));
    t.cpu.control.cr4 &= ~CR4::OSXSAVE;
    CHECK(t.xsave() == undefined_opcode());
    CHECK(t.xrstor() == undefined_opcode());
    CHECK(t.xsaves() == undefined_opcode());
    t.cpu.control.cr4 |= CR4::OSXSAVE;
    t.enter_ring3();
    CHECK(t.xsaves() == gp);
    CHECK(t.xrstors() == gp);
}

TEST_CASE("XSAVE and XRSTOR: the standard form [SDM 1 13.7, 13.8.1]") {
    Xsave t;
    t.write(area + 512, bit(40) | XCR0::SSE); // bits that are not asked for stay
    CHECK(t.xsave() == done);
    CHECK(t.xstate_bv() == (bit(40) | all_components));
    CHECK(t.xcomp_bv() == 0);
    CHECK(t.read(area + 2688) == 0x5555'5554);
    CHECK(t.read(area + 576) == 0x200);
    CHECK(t.read(area + 576 + 16 * 15 + 8) == 0x30F);
    CHECK(t.read(area + 832) == 0xCCCC'CCCC'CCCC'CCCC);
    CHECK(t.read(area + 416) == 0xCCCC'CCCC'CCCC'CCCC);
    clear(t.cpu);
    SUBCASE("everything comes back") {
        t.write(area + 512, t.xstate_bv() & ~bit(40));
        CHECK(t.xrstor() == done);
        check_filled(t.cpu);
        CHECK(upper_halves_filled(t.cpu));
        CHECK(t.cpu.control.pkru == 0x5555'5554);
    }
    SUBCASE("the upper halves alone, and MXCSR with them") {
        t.write(area + 512, XCR0::AVX);
        t.ask_for(XCR0::AVX);
        CHECK(t.xrstor() == done);
        CHECK(upper_halves_filled(t.cpu));
        CHECK(t.cpu.vector[1].q[0] == 0);
        CHECK(t.cpu.mxcsr == 0x1FA0);
        t.write(area + 512, 0);
        t.cpu.vector[1].q[0] = 7;
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.vector[1].q[0] == 7);
        CHECK(t.cpu.vector[1].q[2] == 0);
    }
    SUBCASE("a component that XCR0 lacks: #GP(0)") { CHECK(t.xrstor() == gp); }
    SUBCASE("only what is asked for") {
        t.write(area + 512, t.xstate_bv() & ~bit(40));
        t.ask_for(XCR0::PKRU);
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.control.pkru == 0x5555'5554);
        CHECK(t.cpu.vector[1].q[0] == 0);
        CHECK(t.cpu.mxcsr == 0x1F80);
        CHECK(t.cpu.x87.control == 0x037F);
    }
    SUBCASE("what XSTATE_BV lacks is initialised, but MXCSR is loaded") {
        fill(t.cpu);
        t.cpu.mxcsr = 0x1F80;
        t.write(area + 512, 0);
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.x87.control == 0x037F);
        CHECK(t.cpu.x87.empty == 0xFF);
        CHECK(t.cpu.vector[1].q[0] == 0);
        CHECK(t.cpu.control.pkru == 0);
        CHECK(t.cpu.mxcsr == 0x1FA0);
    }
}

TEST_CASE("XRSTOR: header and MXCSR are checked before anything is loaded [SDM 1 13.8]") {
    Xsave t;
    CHECK(t.xsave() == done);
    clear(t.cpu);
    SUBCASE("bytes 23:8 of the header") {
        t.write(area + 520, 1);
        CHECK(t.xrstor() == gp);
        t.write(area + 520, 0);
        t.write(area + 528, 1);
        CHECK(t.xrstor() == gp);
        t.write(area + 528, 0);
        t.write(area + 536, 1); // only the compacted form looks at these
        CHECK(t.xrstor() == done);
    }
    SUBCASE("MXCSR, if SSE is asked for") {
        t.write(area + 24, bit(16), 4);
        CHECK(t.xrstor() == gp);
        CHECK(t.cpu.x87.control == 0x037F);
        t.ask_for(XCR0::X87);
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.x87.control == 0x027F);
    }
    SUBCASE("the compacted form: XCOMP_BV covers XSTATE_BV, bytes 63:16 are 0") {
        t.write(area + 520, compacted | 3);
        CHECK(t.xrstor() == gp);
        t.write(area + 512, 3);
        CHECK(t.xrstor() == done);
        t.write(area + 568, 1);
        CHECK(t.xrstor() == gp);
        t.write(area + 568, 0);
        t.cpu.control.xcr0 &= ~XCR0::AVX;
        t.write(area + 520, compacted | 3 | XCR0::AVX); // which XCR0 lacks
        CHECK(t.xrstor() == gp);
    }
    SUBCASE("XRSTORS takes only the compacted form") {
        CHECK(t.xrstors() == gp);
        t.write(area + 520, compacted | 3);
        t.write(area + 512, 3);
        CHECK(t.xrstors() == done);
    }
}

TEST_CASE("XSAVEOPT and XSAVEC do not write what is in its initial configuration [SDM 1 13.6, 13.9, 13.10]") {
    Xsave t;
    clear(t.cpu);
    t.cpu.control.pkru = 9;
    SUBCASE("XSAVEOPT") {
        CHECK(t.xsaveopt() == done);
        CHECK(t.xstate_bv() == XCR0::PKRU);
        CHECK(t.read(area) == 0xCCCC'CCCC'CCCC'CCCC);
        CHECK(t.read(area + 24, 4) == 0x1F80); // MXCSR is written whenever SSE is asked for
        CHECK(t.read(area + 160) == 0xCCCC'CCCC'CCCC'CCCC);
        CHECK(t.read(area + 2688) == 9);
    }
    SUBCASE("XSAVEC: components lie one behind the other") {
        CHECK(t.xsavec() == done);
        CHECK(t.xstate_bv() == XCR0::PKRU);
        CHECK(t.xcomp_bv() == (compacted | all_components));
        CHECK(t.read(area + 24) == 0xCCCC'CCCC'CCCC'CCCC);
        CHECK(t.read(area + 576) == 0xCCCC'CCCC'CCCC'CCCC);
        CHECK(t.read(area + 576 + 256) == 9); // AVX keeps its place
        t.cpu.control.pkru = 0;
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.control.pkru == 9);
    }
    SUBCASE("XSAVEOPT, XSAVEC: upper halves of zero are not in use") {
        t.cpu.vector[3].q[0] = 5;
        CHECK(t.xsavec() == done);
        CHECK(t.xstate_bv() == (XCR0::SSE | XCR0::PKRU));
        t.cpu.vector[15].q[3] = 1;
        CHECK(t.xsavec() == done);
        CHECK(t.xstate_bv() == (XCR0::SSE | XCR0::AVX | XCR0::PKRU));
        CHECK(t.read(area + 576 + 16 * 15 + 8) == 1);
    }
    SUBCASE("without AVX asked for, PKRU comes first") {
        t.ask_for(XCR0::PKRU);
        CHECK(t.xsavec() == done);
        CHECK(t.read(area + 576) == 9);
    }
    SUBCASE("XSAVEC: MXCSR alone makes SSE in use, and comes back") {
        t.cpu.mxcsr = 0x1FA0;
        CHECK(t.xsavec() == done);
        CHECK(t.xstate_bv() == (XCR0::SSE | XCR0::PKRU));
        t.cpu.mxcsr = 0x1F80;
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.mxcsr == 0x1FA0);
    }
    SUBCASE("XRSTOR of the compacted form initialises MXCSR") {
        CHECK(t.xsavec() == done);
        t.cpu.mxcsr = 0x1FA0;
        CHECK(t.xrstor() == done);
        CHECK(t.cpu.mxcsr == 0x1F80);
    }
    SUBCASE("XSAVES and XRSTORS are the same without supervisor components") {
        fill(t.cpu);
        CHECK(t.xsaves() == done);
        CHECK(t.xcomp_bv() == (compacted | all_components));
        CHECK(t.read(area + 576 + 16) == 0x201);
        clear(t.cpu);
        CHECK(t.xrstors() == done);
        check_filled(t.cpu);
        CHECK(upper_halves_filled(t.cpu));
    }
}

TEST_CASE("XSAVE: a fault on any part writes nothing [SDM 2C XSAVE]") {
    Xsave t;
    // The second page of the area, where PKRU lies, is read-only: 4-KByte tables for the first 2 MBytes.
    constexpr u64 table = 0x20'0000, last = Harness::data_address + 0x3000;
    for (u64 i = 0; i < 512; ++i) t.write(table + 8 * i, i << 12 | 7);
    t.write(Harness::tables_address + 0x2000, table | 7);
    const u64 start = last - 2688 + 64 * 10; // PKRU in the last page
    t.write(table + 8 * (last >> 12), last | 5);
    t.cpu.context_changed(true);
    t.cpu.r[RBX] = start & ~u64{63};
    t.write(t.cpu.r[RBX] + 512, 0);
    t.write(t.cpu.r[RBX], 0x1234);
    CHECK(t.xsave() == page_fault(PFEC::P | PFEC::W, t.cpu.r[RBX] + 2688));
    CHECK(t.read(t.cpu.r[RBX]) == 0x1234);
    CHECK(t.read(t.cpu.r[RBX] + 512) == 0);
}
