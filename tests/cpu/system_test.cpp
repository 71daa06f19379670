// System instructions: idling, time, extended control registers, chance, translations, access rights; reset.
#include "cpu/instructions/system.hpp"

#include "cpu/msrs.hpp"
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
const Stop gp = general_protection(0);
const Stop ud = undefined_opcode();

Stop set_cr4(Harness& t, u64 value) {
    t.cpu.r[RAX] = value;
    return general(t, code("0f 22 e0"));
}

} // namespace

// ---- Idling
// ------------------------------------------------------------------------------------------------------

TEST_CASE("HLT: privileged; the processor waits behind it [SDM 2A HLT]") {
    Harness t;
    CHECK(general(t, code("f4", "hlt")) == done);
    CHECK(t.cpu.activity == Activity::hlt);
    Harness user;
    user.enter_ring3();
    CHECK(general(user, code("f4", "hlt")) == gp);
    CHECK(user.cpu.activity == Activity::active);
}

TEST_CASE("MONITOR, MWAIT: #UD at CPL 3; hints that are not there #GP(0) [SDM 2B MONITOR, MWAIT]") {
    Harness t;
    t.cpu.r[RAX] = Harness::data_address + 0x47;
    t.cpu.r[RCX] = 0;
    SUBCASE("MWAIT without an armed line does not wait") {
        CHECK(general(t, code("0f 01 c9", "mwait")) == done);
        CHECK(t.cpu.activity == Activity::active);
    }
    SUBCASE("with one it does, until the line changes") {
        CHECK(general(t, code("0f 01 c8", "monitor")) == done);
        CHECK(t.cpu.monitor_address == Harness::data_address + 0x40);
        CHECK(general(t, code("0f 01 c9", "mwait")) == done);
        CHECK(t.cpu.activity == Activity::mwait);
    }
    SUBCASE("ECX") {
        t.cpu.r[RCX] = 1;
        CHECK(general(t, code("0f 01 c8", "monitor")) == gp);
        t.cpu.r[RCX] = 2;
        CHECK(general(t, code("0f 01 c9", "mwait")) == gp);
    }
    SUBCASE("an address that faults") {
        t.cpu.r[RAX] = u64{1} << 40;
        CHECK(general(t, code("0f 01 c8", "monitor")) == page_fault(0, u64{1} << 40));
    }
    SUBCASE("CPL 3") {
        t.enter_ring3();
        CHECK(general(t, code("0f 01 c8", "monitor")) == ud);
        CHECK(general(t, code("0f 01 c9", "mwait")) == ud);
    }
    SUBCASE("IA32_MISC_ENABLE's bit 18 clear") {
        t.cpu.misc_enable &= ~MiscEnable::MONITOR;
        CHECK(general(t, code("0f 01 c8", "monitor")) == ud);
    }
}

// ---- Time
// --------------------------------------------------------------------------------------------------------

TEST_CASE("RDTSC, RDTSCP: CR4.TSD makes them #GP(0) above CPL 0; RDTSCP gives IA32_TSC_AUX [SDM 2B RDTSC, "
          "RDTSCP]") {
    Harness t;
    t.cpu.tsc_aux = 0x1234;
    t.cpu.tsc_offset = 0x5'0000'0007 - t.cpu.now();
    t.cpu.r[RAX] = t.cpu.r[RDX] = t.cpu.r[RCX] = ~u64{0};
    CHECK(general(t, code("0f 01 f9", "rdtscp")) == done);
    CHECK(t.cpu.r[RAX] == 7);
    CHECK(t.cpu.r[RDX] == 5);
    CHECK(t.cpu.r[RCX] == 0x1234);
    CHECK(general(t, code("f3 0f c7 f8", "rdpid rax")) == done);
    CHECK(t.cpu.r[RAX] == 0x1234);
    t.cpu.control.cr4 |= CR4::TSD;
    CHECK(general(t, code("0f 31", "rdtsc")) == done);
    t.enter_ring3();
    CHECK(general(t, code("0f 31", "rdtsc")) == gp);
    CHECK(general(t, code("0f 01 f9", "rdtscp")) == gp);
}

TEST_CASE("RDPMC: without performance monitoring no counter exists [SDM 2B RDPMC]") {
    Harness t(Mode::long64, "skylake-server");
    CHECK(general(t, code("0f 33", "rdpmc")) == gp);
}

// ---- Extended control registers
// --------------------------------------------------------------------------------

TEST_CASE("XSETBV, XGETBV: #UD without CR4.OSXSAVE; XCR0's rules [SDM 2C XSETBV; SDM 3A 2.6]") {
    Harness t;
    t.cpu.r[RCX] = t.cpu.r[RDX] = 0;
    t.cpu.r[RAX] = 3;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == ud);
    CHECK(general(t, code("0f 01 d0", "xgetbv")) == ud);
    t.cpu.control.cr4 |= CR4::OSXSAVE;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == done);
    CHECK(t.cpu.control.xcr0 == 3);
    t.cpu.r[RAX] = 0x203;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == done);
    t.cpu.r[RAX] = 7;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == done);
    t.cpu.r[RAX] = 0x203;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == done);
    for (const u64 bad : {u64{0}, u64{2}, u64{5}, u64{0xB}, u64{0x403}}) {
        t.cpu.r[RAX] = bad;
        CHECK(general(t, code("0f 01 d1", "xsetbv")) == gp);
    }
    t.cpu.r[RAX] = 3;
    t.cpu.r[RCX] = 1;
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == gp);
    t.cpu.r[RCX] = 0;
    t.enter_ring3();
    CHECK(general(t, code("0f 01 d1", "xsetbv")) == gp);
    CHECK(general(t, code("0f 01 d0", "xgetbv")) == done);
    CHECK(t.cpu.r[RAX] == 0x203);
}

TEST_CASE("XGETBV with ECX = 1: components in use [SDM 2C XGETBV]") {
    Harness t;
    t.cpu.control.cr4 |= CR4::OSXSAVE;
    t.cpu.control.xcr0 = XCR0::X87 | XCR0::SSE;
    t.cpu.x87 = X87State{};
    t.cpu.control.pkru = 1; // not in XCR0
    t.cpu.r[RCX] = 1;
    CHECK(general(t, code("0f 01 d0", "xgetbv")) == done);
    CHECK(t.cpu.r[RAX] == 0);
    t.cpu.vector[7].q[1] = 1;
    CHECK(general(t, code("0f 01 d0", "xgetbv")) == done);
    CHECK(t.cpu.r[RAX] == XCR0::SSE);
    t.cpu.r[RCX] = 2;
    CHECK(general(t, code("0f 01 d0", "xgetbv")) == gp);
}

// ---- Chance
// ------------------------------------------------------------------------------------------------------

TEST_CASE("RDRAND, RDSEED: CF = 1, other flags 0; a seed gives a stream [SDM 2B RDRAND]") {
    Harness t, again;
    t.cpu.flags.set_arithmetic(RFLAGS::OF | RFLAGS::ZF | RFLAGS::AF);
    CHECK(general(t, code("48 0f c7 f0", "rdrand rax")) == done);
    CHECK(arithmetic_flags(t) == RFLAGS::CF);
    CHECK(general(again, code("48 0f c7 f0", "rdrand rax")) == done);
    CHECK(t.cpu.r[RAX] == again.cpu.r[RAX]);
    t.cpu.r[RBX] = ~u64{0};
    CHECK(general(t, code("66 0f c7 fb", "rdseed bx")) == done);
    CHECK((t.cpu.r[RBX] >> 16) == 0xFFFF'FFFF'FFFF);
    CHECK(general(t, code("0f c7 fb", "rdseed ebx")) == done);
    CHECK(high32(t.cpu.r[RBX]) == 0);
}

// ---- Translations and access rights
// ----------------------------------------------------------------------------

TEST_CASE("INVLPG, INVPCID: privileged; a stale translation goes [SDM 2A INVLPG, INVPCID]") {
    Harness t;
    const u64 entry = Harness::tables_address + 0x2000 + 8 * 7; // maps 0xE00000
    const auto load = [&] { return t.cpu.load_linear(0xE0'0000, 8).value(); };
    t.write(0xE0'0000, 1);
    t.write(0xC0'0000, 2);
    CHECK(load() == 1);
    t.write(entry, (u64{6} << 21) | 0x87);
    CHECK(load() == 1);
    t.cpu.r[RBX] = 0xE0'0000;
    SUBCASE("INVLPG") { CHECK(general(t, code("0f 01 3b", "invlpg [rbx]")) == done); }
    for (u64 type = 0; type < 4; ++type) {
        SUBCASE("INVPCID") {
            t.cpu.r[RBX] = Harness::data_address;
            t.cpu.r[RAX] = type;
            t.write(Harness::data_address, 0);
            t.write(Harness::data_address + 8, 0xE0'0000);
            CHECK(general(t, code("66 0f 38 82 03", "invpcid rax, xmmword ptr [rbx]")) == done);
        }
    }
    CHECK(load() == 2);
}

TEST_CASE("INVLPG: a non-canonical address does nothing; CPL 3 is #GP(0) [SDM 2A INVLPG]") {
    Harness t;
    t.cpu.r[RBX] = u64{1} << 60;
    CHECK(general(t, code("0f 01 3b", "invlpg [rbx]")) == done);
    t.enter_ring3();
    CHECK(general(t, code("0f 01 3b", "invlpg [rbx]")) == gp);
}

TEST_CASE("INVPCID: descriptors that can not be are #GP(0) [SDM 2A INVPCID]") {
    Harness t;
    t.cpu.r[RBX] = Harness::data_address;
    const auto invpcid = [&](u64 type, u64 low, u64 linear) {
        t.cpu.r[RAX] = type;
        t.write(Harness::data_address, low);
        t.write(Harness::data_address + 8, linear);
        return general(t, code("66 0f 38 82 03"));
    };
    CHECK(invpcid(4, 0, 0) == gp);
    CHECK(invpcid(2, 0x1000, 0) == gp);
    CHECK(invpcid(0, 1, 0) == gp); // CR4.PCIDE = 0
    CHECK(invpcid(2, 1, 0) == done);
    CHECK(invpcid(0, 0, u64{1} << 50) == gp);
    t.cpu.control.cr4 |= CR4::PCIDE;
    CHECK(invpcid(0, 1, 0) == done);
    CHECK(invpcid(1, 0xFFF, 0) == done);
}

TEST_CASE("CLFLUSH and its like are checked as loads [SDM 2A CLFLUSH]") {
    Harness t;
    t.cpu.r[RBX] = u64{1} << 40;
    CHECK(general(t, code("0f ae 3b", "clflush [rbx]")) == page_fault(0, u64{1} << 40));
    CHECK(general(t, code("66 0f ae 3b", "clflushopt [rbx]")) == page_fault(0, u64{1} << 40));
    CHECK(general(t, code("66 0f ae 33", "clwb [rbx]")) == page_fault(0, u64{1} << 40));
    t.cpu.r[RBX] = u64{1} << 60;
    CHECK(general(t, code("0f ae 3b", "clflush [rbx]")) == gp);
    t.cpu.r[RBX] = Harness::data_address;
    CHECK(general(t, code("0f ae 3b", "clflush [rbx]")) == done);
}

TEST_CASE("LFENCE, MFENCE, SFENCE, SERIALIZE complete at every CPL and change nothing [SDM 2A LFENCE]") {
    Harness t;
    t.enter_ring3();
    const u64 rflags = t.cpu.rflags();
    CHECK(general(t, code("0f ae e8", "lfence")) == done);
    CHECK(general(t, code("0f ae f0", "mfence")) == done);
    CHECK(general(t, code("0f ae f8", "sfence")) == done);
    CHECK(general(t, code("0f 01 e8", "serialize")) == done);
    CHECK(t.cpu.rflags() == rflags);
}

TEST_CASE("CLZERO: the line that RAX points into becomes 0 [APM 3 CLZERO]") {
    Harness t{Mode::long64, "zen"};
    for (u64 at = 0; at < 256; at += 8) t.write(Harness::data_address + at, ~u64{0});
    t.cpu.r[RAX] = Harness::data_address + 0x7F;
    CHECK(general(t, code("0f 01 fc", "clzero rax")) == done);
    for (u64 at = 0; at < 256; at += 8)
        CHECK(t.read(Harness::data_address + at) == (at >= 0x40 && at < 0x80 ? 0 : ~u64{0}));
}

TEST_CASE("CLAC, STAC: RFLAGS.AC at CPL 0, else #UD [SDM 2A CLAC, STAC]") {
    Harness t;
    CHECK(general(t, code("0f 01 cb", "stac")) == done);
    CHECK(t.cpu.flag(RFLAGS::AC));
    CHECK(general(t, code("0f 01 ca", "clac")) == done);
    CHECK(!t.cpu.flag(RFLAGS::AC));
    t.enter_ring3();
    CHECK(general(t, code("0f 01 cb", "stac")) == ud);
}

TEST_CASE("STAC lets CPL 0 reach user pages under CR4.SMAP [SDM 3A 4.6.1]") {
    Harness t;
    t.cpu.control.cr3 = Harness::tables_address;
    CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::SMAP) == done);
    CHECK(t.cpu.load_linear(Harness::data_address, 8).stop() == page_fault(1, Harness::data_address));
    CHECK(general(t, code("0f 01 cb", "stac")) == done);
    CHECK(t.cpu.load_linear(Harness::data_address, 8).ok());
}

TEST_CASE("RDPKRU, WRPKRU: #UD without CR4.PKE, ECX and EDX must be 0; rights hold at once [SDM 2B RDPKRU, "
          "WRPKRU]") {
    Harness t;
    t.cpu.r[RCX] = t.cpu.r[RDX] = 0;
    t.cpu.r[RAX] = 2;
    CHECK(general(t, code("0f 01 ef", "wrpkru")) == ud);
    CHECK(general(t, code("0f 01 ee", "rdpkru")) == ud);
    CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::PKE) == done);
    t.enter_ring3();
    CHECK(t.cpu.store_linear(Harness::data_address, 8, 1).ok());
    t.cpu.r[RAX] = 2; // writes with key 0 are not allowed
    CHECK(general(t, code("0f 01 ef", "wrpkru")) == done);
    CHECK(t.cpu.store_linear(Harness::data_address, 8, 1).stop() ==
          page_fault(PFEC::P | PFEC::W | PFEC::U | PFEC::PK, Harness::data_address));
    t.cpu.r[RDX] = 5;
    CHECK(general(t, code("0f 01 ef", "wrpkru")) == gp);
    CHECK(general(t, code("0f 01 ee", "rdpkru")) == done);
    CHECK(t.cpu.r[RAX] == 2);
    CHECK(t.cpu.r[RDX] == 0);
    t.cpu.r[RCX] = 1;
    CHECK(general(t, code("0f 01 ee", "rdpkru")) == gp);
}

TEST_CASE("GETSEC and RSM: #UD where their modes can not be [SDM 2D GETSEC; SDM 2B RSM]") {
    Harness t;
    CHECK(general(t, code("0f aa", "rsm")) == ud);
    CHECK(general(t, code("0f 37", "getsec")) == ud);
}

TEST_CASE("WBINVD, INVD: privileged [SDM 2A INVD, 2C WBINVD]") {
    Harness t;
    CHECK(general(t, code("0f 09", "wbinvd")) == done);
    CHECK(general(t, code("0f 08", "invd")) == done);
    t.enter_ring3();
    CHECK(general(t, code("0f 09", "wbinvd")) == gp);
    CHECK(general(t, code("0f 08", "invd")) == gp);
}

// ---- Reset
// -------------------------------------------------------------------------------------------------------

TEST_CASE("RESET and INIT: registers [SDM 3A Table 9-1]") {
    Harness t;
    t.cpu.vector[3].q[0] = 7;
    t.cpu.mxcsr = 0x1FBF;
    t.cpu.tsc_offset = 1000;
    t.cpu.control.cr2 = 5;
    t.cpu.dr[1] = 9;
    t.cpu.r[RBX] = 3;
    SUBCASE("INIT keeps x87, SSE, the TSC, and CD and NW") {
        t.cpu.reset(true);
        CHECK(t.cpu.control.cr0 == CR0::ET);
        CHECK(t.cpu.vector[3].q[0] == 7);
        CHECK(t.cpu.mxcsr == 0x1FBF);
        CHECK(t.cpu.tsc_offset == 1000);
    }
    SUBCASE("RESET does not") {
        t.cpu.reset(false);
        CHECK(t.cpu.control.cr0 == (CR0::ET | CR0::CD | CR0::NW));
        CHECK(t.cpu.vector[3].q[0] == 0);
        CHECK(t.cpu.mxcsr == 0x1F80);
        CHECK(t.cpu.tsc() == 0);
        CHECK(t.cpu.x87.control == 0x40);
        CHECK(t.cpu.control.xcr0 == 1);
    }
    CHECK(t.cpu.rip == 0xFFF0);
    CHECK(t.cpu.seg(Seg::CS).base == 0xFFFF'0000);
    CHECK(t.cpu.seg(Seg::CS).selector == 0xF000);
    CHECK(t.cpu.r[RDX] == 0x000F06E1);
    CHECK(t.cpu.r[RBX] == 0);
    CHECK(t.cpu.rflags() == 2);
    CHECK(t.cpu.control.cr2 == 0);
    CHECK(t.cpu.control.cr4 == 0);
    CHECK(t.cpu.dr[1] == 0);
    CHECK(t.cpu.dr7 == 0x400);
    CHECK(t.cpu.idtr.limit == 0xFFFF);
    CHECK(!t.cpu.code64());
}
