// IRET in and between all modes: SDM 2A IRET.
#include "cpu/no_virtualization.hpp"
#include "cpu/segmentation.hpp"
#include "tests/support/general.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
using Words = std::vector<u64>;
const Code iretd = code("cf", "iretd");
const Code iretq = code("48 cf", "iretq");
constexpr u64 fixed = RFLAGS::FIXED1;

void put_stack(Harness& t, const Words& words, unsigned bytes) {
    t.cpu.r[RSP] = t.cpu.seg(Seg::SS).base ? 0x8000 : Harness::stack_top - 0x100;
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::SS).base;
    for (unsigned i = 0; i < words.size(); ++i) t.write(base + t.cpu.r[RSP] + i * bytes, words[i], bytes);
}

Stop iret(Harness& t, const Code& instruction, const Words& words, unsigned bytes) {
    put_stack(t, words, bytes);
    return general(t, instruction);
}

} // namespace

TEST_CASE("IRET in real-address mode: VM, VIF and VIP stay [SDM 2A IRET]") {
    Harness t(Mode::real);
    CHECK(iret(t, code("cf", "iret"), {0x1234, 0x2000, 0xFFFF}, 2) == done);
    CHECK(t.cpu.rip == 0x1234);
    CHECK(t.cpu.seg(Seg::CS).base == 0x20000);
    CHECK(t.cpu.r[RSP] == 0x8006);
    CHECK(t.cpu.rflags() == 0x7FD7);
    t.cpu.rip = 0;
    t.write(0x20000, 0xCF66, 2);
    put_stack(t, {0x10, 0x1000, 0xFFFF'FFFF}, 4);
    CHECK(general(t) == done);
    CHECK(t.cpu.rflags() == 0x25'7FD7);
    t.cpu.set_rflags(fixed);
}

TEST_CASE("IRETD to the same level: which flags change at which privilege [SDM 2A IRET]") {
    Harness t(Mode::protected32);
    const u64 image = 0xFFFD'7FFF & ~RFLAGS::NT;
    CHECK(iret(t, iretd, {0x1000, Harness::code32_0, image}, 4) == done);
    CHECK(t.cpu.rip == 0x1000);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x100 + 12);
    CHECK(t.cpu.rflags() == ((RFLAGS::all & ~(RFLAGS::VM | RFLAGS::NT)) | fixed));
    Harness user(Mode::protected32);
    user.enter_ring3();
    CHECK(iret(user, iretd, {0x1000, Harness::code32_3, image}, 4) == done);
    CHECK(user.cpu.rflags() ==
          ((RFLAGS::arithmetic | RFLAGS::TF | RFLAGS::DF | RFLAGS::RF | RFLAGS::AC | RFLAGS::ID) | fixed));
    Harness small(Mode::protected32);
    CHECK(iret(small, code("66 cf", "iret"), {0x1000, Harness::code32_0, 0x7FFF & ~RFLAGS::NT}, 2) == done);
    CHECK(small.cpu.rflags() == 0x3FD7);
}

TEST_CASE("IRETD with IOPL 3 at CPL 3 may change IF, not IOPL [SDM 2A IRET]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    t.cpu.set_rflags(RFLAGS::IOPL);
    CHECK(iret(t, iretd, {0x1000, Harness::code32_3, RFLAGS::IF}, 4) == done);
    CHECK(t.cpu.rflags() == (RFLAGS::IOPL | RFLAGS::IF | fixed));
}

TEST_CASE("IRETD to an outer level: SS:ESP, and inner data segments become null [SDM 2A IRET]") {
    Harness t(Mode::protected32);
    const Words frame{0x1000, Harness::code32_3, RFLAGS::IF, 0x2'5000, Harness::data_3};
    CHECK(iret(t, iretd, frame, 4) == done);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.r[RSP] == 0x2'5000);
    CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_3);
    CHECK(t.cpu.seg(Seg::DS).unusable());
    CHECK(t.cpu.flag(RFLAGS::IF));
}

TEST_CASE("IRETD refuses and changes nothing [SDM 2A IRET]") {
    Harness t(Mode::protected32);
    const auto refused = [&](const Words& words) { return iret(t, iretd, words, 4); };
    CHECK(refused({0, 0, 2}) == general_protection(0));
    CHECK(refused({0, Harness::data_0, 2}) == general_protection(Harness::data_0));
    CHECK(refused({0, Harness::code32_0 | 1, 2}) == general_protection(Harness::code32_0));
    CHECK(refused({0, Harness::code32_3, 2, 0, 0}) == general_protection(0));
    CHECK(refused({0, Harness::code32_3, 2, 0, Harness::data_0 | 3}) == general_protection(Harness::data_0));
    t.cpu.seg(Seg::SS).limit = Harness::stack_top - 0x100 + 11;
    CHECK(refused({0, Harness::code32_3, 2}) == exception(Vector::SS, 0));
    CHECK(t.cpu.cpl == 0);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x100);
    CHECK(t.cpu.rip == Harness::code_address);
}

TEST_CASE("IRETD to virtual-8086 mode [SDM 3B 20.2.5]") {
    Harness t(Mode::protected32);
    const u64 flags = RFLAGS::VM | RFLAGS::IF | RFLAGS::IOPL | fixed;
    const Words frame{0x1234, 0x2000, flags, 0xFFF0, 0x3000, 0x11, 0x12, 0x13, 0x14};
    CHECK(iret(t, iretd, frame, 4) == done);
    CHECK(t.cpu.v8086());
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.rflags() == flags);
    CHECK(t.cpu.rip == 0x1234);
    CHECK(t.cpu.seg(Seg::CS) == Segment{0x2000, 0xF3, 0xFFFF, 0x20000});
    CHECK(t.cpu.seg(Seg::SS).base == 0x30000);
    CHECK(t.cpu.r[RSP] == 0xFFF0);
    CHECK(t.cpu.seg(Seg::ES).selector == 0x11);
    CHECK(t.cpu.seg(Seg::DS).selector == 0x12);
    CHECK(t.cpu.seg(Seg::FS).selector == 0x13);
    CHECK(t.cpu.seg(Seg::GS).selector == 0x14);
    Harness far(Mode::protected32);
    CHECK(iret(far, iretd, {0x1'0000, 0, flags, 0, 0, 0, 0, 0, 0}, 4) == general_protection(0));
    CHECK_FALSE(far.cpu.v8086());
}

TEST_CASE("IRET in virtual-8086 mode: IOPL, and VIF with CR4.VME [SDM 2A IRET; SDM 3B 20.2.7, 20.3.2]") {
    Harness t(Mode::v8086);
    const Code short_iret = code("cf", "iret");
    const Words frame{0x10, 0x1000, RFLAGS::IF | RFLAGS::IOPL | fixed};
    SUBCASE("IOPL < 3") { CHECK(iret(t, short_iret, frame, 2) == general_protection(0)); }
    SUBCASE("IOPL = 3: IF changes, IOPL does not") {
        t.cpu.set_rflags(RFLAGS::VM | RFLAGS::IOPL);
        CHECK(iret(t, short_iret, {0x10, 0x1000, RFLAGS::IF}, 2) == done);
        CHECK(t.cpu.rflags() == (RFLAGS::VM | RFLAGS::IOPL | RFLAGS::IF | fixed));
    }
    SUBCASE("VME: IF goes to VIF") {
        t.cpu.control.cr4 |= CR4::VME;
        CHECK(iret(t, short_iret, frame, 2) == done);
        CHECK(t.cpu.rflags() == (RFLAGS::VM | RFLAGS::VIF | fixed));
        t.place(short_iret);
        t.cpu.set_rflags(RFLAGS::VM | RFLAGS::VIP);
        put_stack(t, frame, 2);
        CHECK(general(t) == general_protection(0));
    }
}

TEST_CASE("IRETQ always takes SS:RSP; a null SS is for 64-bit code below CPL 3 [SDM 2A IRET]") {
    Harness t;
    const u64 rsp = 0x2'5008;
    SUBCASE("same level") {
        CHECK(iret(t, iretq, {0x1000, Harness::code64_0, fixed, rsp, Harness::data_0}, 8) == done);
        CHECK(t.cpu.r[RSP] == rsp);
        CHECK(t.cpu.rip == 0x1000);
    }
    SUBCASE("null SS") {
        CHECK(iret(t, iretq, {0x1000, Harness::code64_0, fixed, rsp, 0}, 8) == done);
        CHECK(t.cpu.seg(Seg::SS).unusable());
        CHECK(t.cpu.cpl == 0);
        Harness outer;
        CHECK(iret(outer, iretq, {0x1000, Harness::code64_3, fixed, rsp, 3}, 8) == general_protection(0));
        CHECK(iret(outer, iretq, {0x1000, Harness::code32_0, fixed, rsp, 0}, 8) == general_protection(0));
    }
    SUBCASE("to CPL 3, 64-bit") {
        t.cpu.seg(Seg::FS) = null_stack_segment(0, 0);
        t.cpu.seg(Seg::FS).base = 0x7777'0000'0000;
        CHECK(iret(t, iretq, {0x7FFF'FFFF'0000, Harness::code64_3, RFLAGS::IF, rsp, Harness::data_3}, 8) ==
              done);
        CHECK(t.cpu.cpl == 3);
        CHECK(t.cpu.rip == 0x7FFF'FFFF'0000);
        CHECK(t.cpu.seg(Seg::FS).base == 0x7777'0000'0000); // a null selector keeps the base that an MSR gave
    }
    SUBCASE("to compatibility mode") {
        CHECK(iret(t, iretq, {0x1000, Harness::code32_3, fixed, 0x1'0002'5000, Harness::data_3}, 8) == done);
        CHECK(t.cpu.code_bits() == 32);
        CHECK(t.cpu.r[RSP] == 0x2'5000);
    }
    SUBCASE("refusals") {
        CHECK(iret(t, iretq, {0x8000'0000'0000, Harness::code64_0, fixed, rsp, 0}, 8) ==
              general_protection(0));
        CHECK(iret(t, iretq, {0x1'0000'0000, Harness::code32_0, fixed, rsp, Harness::data_0}, 8) ==
              general_protection(0));
        t.cpu.flags.rest |= RFLAGS::NT;
        CHECK(iret(t, iretq, {0x1000, Harness::code64_0, fixed, rsp, 0}, 8) == general_protection(0));
    }
}

TEST_CASE("IRETD in compatibility mode takes SS:ESP only when CPL changes [SDM 2A IRET]") {
    Harness t(Mode::compatibility);
    CHECK(iret(t, iretd, {0x1000, Harness::code32_0, fixed, 0xDEAD, 0}, 4) == done);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x100 + 12);
}

TEST_CASE("IRET unblocks NMIs, also when it faults [SDM 3A 6.7.1]") {
    Harness t;
    t.cpu.nmi_blocked = true;
    CHECK(iret(t, iretq, {0x1000, 0, fixed, 0, 0}, 8) == general_protection(0));
    CHECK_FALSE(t.cpu.nmi_blocked);
}

TEST_CASE("IRET in a guest: intercepted before all else; NMI blocking is the extension's [SDM 3C 25.3]") {
    class Extension : public NoVirtualization {
    public:
        int irets = 0;
        void iret(Cpu&) override { ++irets; }
        Result<void> instruction(Cpu&, const Insn&, Intercept what) override {
            REQUIRE(what == Intercept::iret);
            return stopped(Stop::Kind::world_switch);
        }
    };
    Harness t;
    Extension extension;
    t.cpu.virtualization = &extension;
    t.cpu.in_guest = true;
    t.cpu.nmi_blocked = true;
    CHECK(iret(t, iretq, {0x1000, Harness::code64_0, fixed, 0x2'5000, 0}, 8) == done);
    CHECK(extension.irets == 1);
    CHECK(t.cpu.nmi_blocked);
    t.cpu.intercepted.set(static_cast<std::size_t>(Intercept::iret));
    CHECK(iret(t, iretq, {0x1000, 0, fixed, 0, 0}, 8) == stopped(Stop::Kind::world_switch));
    CHECK(extension.irets == 1);
}
