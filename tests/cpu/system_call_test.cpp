// SYSCALL, SYSRET, SYSENTER, SYSEXIT, as Intel and as AMD have them.
#include "tests/support/general.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
// Zydis disassembles SYSCALL and SYSRET in 64-bit mode only, SYSENTER not in real-address mode.
const Code syscall_code = code("0f 05");
const Code sysret32 = code("0f 07");
const Code sysret64 = code("48 0f 07", "sysret");
const Code sysenter = code("0f 34");
const Code sysexit32 = code("0f 35", "sysexit");
const Code sysexit64 = code("48 0f 35", "sysexit");

constexpr u32 flat = AR::P | AR::S | AR::G | AR::ACCESSED;
Segment code_segment(u16 selector, unsigned cpl, u32 width) {
    return {selector, flat | AR::CODE | AR::READABLE | (cpl << 5) | width, 0xFFFF'FFFF, 0};
}
Segment stack_segment(u16 selector, unsigned cpl) {
    return {selector, flat | AR::WRITABLE | (cpl << 5) | AR::DB, 0xFFFF'FFFF, 0};
}

void set_msrs(Harness& t) {
    t.cpu.star = u64{0x23} << 48 | u64{0x11} << 32 | 0x5678'9ABC;
    t.cpu.lstar = 0xFFFF'8000'0000'1000;
    t.cpu.cstar = 0xFFFF'8000'0000'2000;
    t.cpu.sfmask = RFLAGS::IF | RFLAGS::DF | RFLAGS::CF;
    t.cpu.sysenter_cs = 0x13;
    t.cpu.sysenter_esp = 0xFFFF'8000'0000'3000;
    t.cpu.sysenter_eip = 0xFFFF'8000'0000'4000;
}

} // namespace

TEST_CASE("SYSCALL: LSTAR, RCX, R11, SFMASK, fixed segments [SDM 2B SYSCALL]") {
    Harness t;
    t.enter_ring3();
    set_msrs(t);
    const u64 flags = RFLAGS::IF | RFLAGS::DF | RFLAGS::CF | RFLAGS::ZF | RFLAGS::AC | RFLAGS::FIXED1;
    t.cpu.set_rflags(flags | RFLAGS::RF);
    CHECK(general(t, syscall_code) == done);
    CHECK(t.cpu.rip == t.cpu.lstar);
    CHECK(t.cpu.r[RCX] == Harness::code_address + 2);
    CHECK(t.cpu.r[R11] == flags);
    CHECK(t.cpu.rflags() == (RFLAGS::ZF | RFLAGS::AC | RFLAGS::FIXED1));
    CHECK(t.cpu.cpl == 0);
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x10, 0, AR::L));
    CHECK(t.cpu.seg(Seg::SS) == stack_segment(0x18, 0));
    CHECK(t.cpu.r[RSP] == Harness::stack_top);
}

TEST_CASE("SYSRET: to 64-bit and to compatibility mode [SDM 2B SYSRET]") {
    Harness t;
    set_msrs(t);
    t.cpu.r[RCX] = 0x7FFF'1234'5678;
    t.cpu.r[R11] = ~u64{0};
    SUBCASE("64-bit") {
        CHECK(general(t, sysret64) == done);
        CHECK(t.cpu.rip == 0x7FFF'1234'5678);
        CHECK(t.cpu.seg(Seg::CS) == code_segment(0x33, 3, AR::L));
    }
    SUBCASE("32-bit") {
        CHECK(general(t, sysret32) == done);
        CHECK(t.cpu.rip == 0x1234'5678);
        CHECK(t.cpu.seg(Seg::CS) == code_segment(0x23, 3, AR::DB));
    }
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.seg(Seg::SS) == stack_segment(0x2B, 3));
    CHECK(t.cpu.rflags() == ((RFLAGS::all & ~(RFLAGS::RF | RFLAGS::VM)) | RFLAGS::FIXED1));
}

TEST_CASE("SYSCALL and SYSRET refuse: SCE, mode, CPL, RCX [SDM 2B SYSCALL, SYSRET]") {
    Harness t;
    set_msrs(t);
    SUBCASE("EFER.SCE = 0") {
        t.cpu.control.efer &= ~EFER::SCE;
        CHECK(general(t, syscall_code) == undefined_opcode());
        CHECK(general(t, sysret64) == undefined_opcode());
    }
    SUBCASE("CPL 3") {
        t.enter_ring3();
        CHECK(general(t, sysret64) == general_protection(0));
    }
    SUBCASE("a non-canonical RCX faults at CPL 0, and only with 64-bit operands") {
        t.cpu.r[RCX] = 0x8000'0000'0000;
        CHECK(general(t, sysret64) == general_protection(0));
        CHECK(t.cpu.cpl == 0);
        CHECK(general(t, sysret32) == done);
    }
    SUBCASE("compatibility mode on Intel") {
        Harness compatibility(Mode::compatibility);
        set_msrs(compatibility);
        CHECK(general(compatibility, syscall_code) == undefined_opcode());
    }
}

TEST_CASE("AMD: SYSCALL in compatibility mode goes to CSTAR [APM 3 SYSCALL]") {
    Harness t(Mode::compatibility, "amd-max");
    t.enter_ring3();
    set_msrs(t);
    CHECK(general(t, syscall_code) == done);
    CHECK(t.cpu.rip == t.cpu.cstar);
    CHECK(t.cpu.r[RCX] == Harness::code_address + 2);
    CHECK(t.cpu.code64());
}

TEST_CASE("AMD: legacy SYSCALL and SYSRET with STAR alone [APM 3 SYSCALL, SYSRET]") {
    Harness t(Mode::protected32, "amd-max");
    t.enter_ring3();
    set_msrs(t);
    t.cpu.control.efer |= EFER::SCE;
    t.cpu.set_rflags(RFLAGS::IF | RFLAGS::DF);
    CHECK(general(t, syscall_code) == done);
    CHECK(t.cpu.rip == 0x5678'9ABC);
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x10, 0, AR::DB));
    CHECK(t.cpu.rflags() == (RFLAGS::DF | RFLAGS::FIXED1));
    t.cpu.r[RCX] = 0x1234;
    CHECK(general(t, sysret32) == done);
    CHECK(t.cpu.rip == 0x1234);
    CHECK(t.cpu.flag(RFLAGS::IF));
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x23, 3, AR::DB));
}

TEST_CASE("AMD: SYSRET keeps the attributes of SS and does not look at RCX [APM 3 SYSRET]") {
    Harness t(Mode::long64, "amd-max");
    set_msrs(t);
    t.cpu.seg(Seg::SS).limit = 0x777;
    t.cpu.r[RCX] = 0x8000'0000'0000;
    CHECK(general(t, sysret64) == done);
    CHECK(t.cpu.seg(Seg::SS).limit == 0x777);
    CHECK(t.cpu.seg(Seg::SS).selector == 0x2B);
    CHECK(t.cpu.rip == 0x8000'0000'0000);
}

TEST_CASE("SYSENTER and SYSEXIT in protected mode [SDM 2B SYSENTER, SYSEXIT]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    set_msrs(t);
    t.cpu.set_rflags(RFLAGS::IF | RFLAGS::DF);
    CHECK(general(t, sysenter) == done);
    CHECK(t.cpu.cpl == 0);
    CHECK(t.cpu.rip == 0x4000);
    CHECK(t.cpu.r[RSP] == 0x3000);
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x10, 0, AR::DB));
    CHECK(t.cpu.seg(Seg::SS) == stack_segment(0x18, 0));
    CHECK(t.cpu.rflags() == (RFLAGS::DF | RFLAGS::FIXED1));
    t.cpu.r[RDX] = 0x1111;
    t.cpu.r[RCX] = 0x2222;
    CHECK(general(t, sysexit32) == done);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.rip == 0x1111);
    CHECK(t.cpu.r[RSP] == 0x2222);
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x23, 3, AR::DB));
    CHECK(t.cpu.seg(Seg::SS) == stack_segment(0x2B, 3));
}

TEST_CASE("SYSENTER and SYSEXIT in IA-32e mode on Intel; on AMD they are #UD there [SDM 2B SYSENTER; APM 3 "
          "SYSENTER]") {
    Harness t;
    t.enter_ring3();
    set_msrs(t);
    CHECK(general(t, sysenter) == done);
    CHECK(t.cpu.rip == t.cpu.sysenter_eip);
    CHECK(t.cpu.r[RSP] == t.cpu.sysenter_esp);
    CHECK(t.cpu.seg(Seg::CS) == code_segment(0x10, 0, AR::L));
    t.cpu.r[RDX] = 0x7000'0000'0000;
    t.cpu.r[RCX] = 0x6000'0000'0000;
    SUBCASE("SYSEXIT with REX.W") {
        CHECK(general(t, sysexit64) == done);
        CHECK(t.cpu.rip == 0x7000'0000'0000);
        CHECK(t.cpu.r[RSP] == 0x6000'0000'0000);
        CHECK(t.cpu.seg(Seg::CS) == code_segment(0x33, 3, AR::L));
        CHECK(t.cpu.seg(Seg::SS) == stack_segment(0x3B, 3));
    }
    SUBCASE("non-canonical") {
        t.cpu.r[RCX] = 0x8000'0000'0000;
        CHECK(general(t, sysexit64) == general_protection(0));
        CHECK(t.cpu.cpl == 0);
    }
    Harness amd(Mode::long64, "amd-max");
    set_msrs(amd);
    CHECK(general(amd, sysenter) == undefined_opcode());
    CHECK(general(amd, sysexit64) == undefined_opcode());
}

TEST_CASE(
    "SYSENTER and SYSEXIT refuse: null IA32_SYSENTER_CS, real-address mode, CPL [SDM 2B SYSENTER, SYSEXIT]") {
    Harness t(Mode::protected32);
    CHECK(general(t, sysenter) == general_protection(0));
    CHECK(general(t, sysexit32) == general_protection(0));
    set_msrs(t);
    t.enter_ring3();
    CHECK(general(t, sysexit32) == general_protection(0));
    Harness real(Mode::real);
    set_msrs(real);
    CHECK(general(real, sysenter) == general_protection(0));
}
