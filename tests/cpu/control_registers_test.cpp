// Control and debug registers: what may be loaded, what follows, and how a guest's extension is asked.
#include "cpu/instructions/system.hpp"
#include "cpu/no_virtualization.hpp"
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
const Stop gp = general_protection(0);
const Stop ud = undefined_opcode();

Stop set_cr0(Harness& t, u64 value) {
    t.cpu.r[RAX] = value;
    return general(t, code("0f 22 c0"));
}
Stop set_cr3(Harness& t, u64 value) {
    t.cpu.r[RAX] = value;
    return general(t, code("0f 22 d8"));
}
Stop set_cr4(Harness& t, u64 value) {
    t.cpu.r[RAX] = value;
    return general(t, code("0f 22 e0"));
}

/// Answers the questions of a guest's control registers and remembers them.
class Guest : public NoVirtualization {
public:
    Result<void> instruction(Cpu&, const Insn&, Intercept what) override {
        asked = what;
        return stopped(Stop::Kind::world_switch);
    }
    Result<void> cr_write(Cpu&, const Insn&, unsigned cr, CrAccess access, u64& value) override {
        written = cr;
        how = access;
        asked_value = value;
        if (exits) return stopped(Stop::Kind::world_switch);
        value |= host_owned;
        return {};
    }
    Result<void> cr_read(Cpu&, const Insn&, unsigned cr, u64& value) override {
        if (cr == 0) value |= CR0::TS;
        return {};
    }
    Result<void> dr_access(Cpu&, const Insn&, unsigned, bool, unsigned) override {
        if (exits) return stopped(Stop::Kind::world_switch);
        return {};
    }
    Result<bool> rdmsr(Cpu&, const Insn&, u32, u64&) override { return stopped(Stop::Kind::world_switch); }
    Result<bool> cr8_write(Cpu&, const Insn&, u64 value) override {
        cr8 = value;
        return true;
    }
    bool cr0_allowed(const Cpu&, u64 value) override { return value & CR0::NE; }
    Intercept asked = Intercept::none;
    unsigned written = 99;
    CrAccess how = CrAccess::mov_from;
    u64 asked_value = 0, host_owned = 0, cr8 = 99;
    bool exits = false;
};

struct InGuest : Harness {
    explicit InGuest(Mode mode = Mode::long64) : Harness(mode) {
        cpu.virtualization = &guest;
        cpu.in_guest = true;
    }
    Guest guest;
};

} // namespace

// ---- Control registers
// -----------------------------------------------------------------------------------------

TEST_CASE("MOV CR: #GP(0) at CPL 3, #UD for a register that is not there [SDM 2B MOV - Move to/from Control "
          "Registers]") {
    Harness t;
    CHECK(general(t, code("0f 20 c0", "mov rax, cr0")) == done);
    CHECK(t.cpu.r[RAX] == t.cpu.control.cr0);
    t.enter_ring3();
    CHECK(general(t, code("0f 20 c0", "mov rax, cr0")) == gp);
    CHECK(set_cr3(t, 0) == gp);
    CHECK(t.cpu.control.cr3 == Harness::tables_address);
}

TEST_CASE("MOV CR0: combinations that can not be are #GP(0) [SDM 2B MOV - Move to/from Control Registers]") {
    Harness t;
    const u64 cr0 = t.cpu.control.cr0;
    CHECK(set_cr0(t, cr0 & ~CR0::PE) == gp);
    CHECK(set_cr0(t, cr0 | CR0::NW) == gp);
    CHECK(set_cr0(t, cr0 | CR0::NW | CR0::CD) == done);
    CHECK(set_cr0(t, cr0 | bit(32)) == gp);
    CHECK(set_cr0(t, cr0 & ~CR0::PG) == gp); // in 64-bit mode
    CHECK(set_cr0(t, (cr0 & ~CR0::ET) | bit(6) | bit(28)) == done);
    CHECK(t.cpu.control.cr0 == cr0); // ET is hardwired, reserved bits stay clear
}

TEST_CASE("MOV CR0: PG with IA32_EFER.LME activates IA-32e mode, and leaves it [SDM 3A 9.8.5]") {
    Harness t{Mode::protected32};
    t.cpu.control.cr3 = Harness::tables_address;
    t.cpu.control.efer = EFER::LME;
    const u64 cr0 = t.cpu.control.cr0;
    SUBCASE("without CR4.PAE: #GP(0)") { CHECK(set_cr0(t, cr0 | CR0::PG) == gp); }
    SUBCASE("with CS.L: #GP(0)") {
        t.cpu.control.cr4 |= CR4::PAE;
        t.cpu.seg(Seg::CS).access |= AR::L;
        CHECK(set_cr0(t, cr0 | CR0::PG) == gp);
    }
    SUBCASE("with a 16-bit TSS: #GP(0)") {
        t.cpu.control.cr4 |= CR4::PAE;
        t.cpu.seg(Seg::TR).access = AR::P | SystemType::tss16_busy;
        CHECK(set_cr0(t, cr0 | CR0::PG) == gp);
    }
    SUBCASE("otherwise LMA follows PG") {
        t.cpu.control.cr4 |= CR4::PAE;
        CHECK(set_cr0(t, cr0 | CR0::PG) == done);
        CHECK(t.cpu.long_mode_active());
        CHECK(!t.cpu.code64());
        CHECK(set_cr0(t, cr0) == done);
        CHECK(!t.cpu.long_mode_active());
        CHECK((t.cpu.control.efer & EFER::LME) != 0);
    }
}

TEST_CASE("MOV CR0, CR3, CR4: PAE paging loads and checks the PDPTEs [SDM 3A 4.4.1]") {
    Harness t{Mode::protected32};
    constexpr u64 pdptes = 0x7000;
    t.cpu.control.cr3 = pdptes;
    t.cpu.control.cr4 |= CR4::PAE;
    t.write(pdptes, (Harness::tables_address + 0x2000) | 1);
    for (unsigned i = 1; i < 4; ++i) t.write(pdptes + 8 * i, 0x1E0 & ~u64{1}); // not present: anything goes
    SUBCASE("a reserved bit in a present entry: #GP(0), nothing changes") {
        t.write(pdptes + 16, 1 | bit(1));
        CHECK(set_cr0(t, t.cpu.control.cr0 | CR0::PG) == gp);
        CHECK((t.cpu.control.cr0 & CR0::PG) == 0);
    }
    SUBCASE("they are read when paging starts, not when memory changes") {
        CHECK(set_cr0(t, t.cpu.control.cr0 | CR0::PG) == done);
        CHECK(t.cpu.control.pdpte[0] == ((Harness::tables_address + 0x2000) | 1));
        t.write(pdptes, 0);
        CHECK(t.cpu.control.pdpte[0] != 0);
        CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::TSD) == done);
        CHECK(t.cpu.control.pdpte[0] != 0);
        t.write(pdptes, (Harness::tables_address + 0x2000) | 1 | bit(3));
        CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::PGE) == done);
        CHECK((t.cpu.control.pdpte[0] & bit(3)) != 0);
        CHECK(set_cr3(t, pdptes) == done);
    }
}

TEST_CASE("MOV CR3: bits beyond MAXPHYADDR are #GP(0); bit 63 keeps translations with CR4.PCIDE [SDM 3A 4.5, "
          "4.10.4.1]") {
    Harness t;
    CHECK(set_cr3(t, Harness::tables_address | bit(46)) == gp);
    CHECK(set_cr3(t, Harness::tables_address | bit(63)) == gp);
    CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::PCIDE) == done);
    CHECK(set_cr3(t, Harness::tables_address | bit(63) | 5) == done);
    CHECK(t.cpu.control.cr3 == (Harness::tables_address | 5));
    CHECK(t.cpu.mmu.key().pcid == 5);
}

TEST_CASE("MOV CR3: drops translations, except with bit 63 [SDM 3A 4.10.4.1]") {
    Harness t;
    const u64 entry = Harness::tables_address + 0x2000 + 8 * 7; // maps 0xE00000
    const auto load = [&] { return t.cpu.load_linear(0xE0'0000, 8).value(); };
    CHECK(set_cr4(t, t.cpu.control.cr4 | CR4::PCIDE) == done);
    t.write(0xE0'0000, 1);
    t.write(0xC0'0000, 2);
    CHECK(load() == 1);
    t.write(entry, (u64{6} << 21) | 0x87);
    CHECK(set_cr3(t, Harness::tables_address | bit(63)) == done);
    CHECK(load() == 1);
    CHECK(set_cr3(t, Harness::tables_address) == done);
    CHECK(load() == 2);
}

TEST_CASE("MOV CR4: bits that the processor lacks are #GP(0) [SDM 3A 2.5]") {
    Harness t, old{Mode::long64, "nehalem"};
    const u64 cr4 = t.cpu.control.cr4;
    CHECK(set_cr4(t, cr4 | CR4::SMEP | CR4::SMAP | CR4::UMIP | CR4::FSGSBASE | CR4::OSXSAVE | CR4::PKE) ==
          done);
    for (const u64 bad : {CR4::SMXE, CR4::CET, bit(15), bit(25), bit(32), bit(63)})
        CHECK(set_cr4(t, cr4 | bad) == gp);
    for (const u64 bad : {CR4::SMEP, CR4::SMAP, CR4::UMIP, CR4::FSGSBASE, CR4::OSXSAVE, CR4::PKE, CR4::PCIDE})
        CHECK(set_cr4(old, old.cpu.control.cr4 | bad) == gp);
}

TEST_CASE("MOV CR4: what IA-32e mode and PCIDs demand [SDM 2B MOV - Move to/from Control Registers]") {
    Harness t, legacy{Mode::protected32};
    const u64 cr4 = t.cpu.control.cr4;
    CHECK(set_cr4(t, cr4 & ~CR4::PAE) == gp);
    CHECK(set_cr4(t, cr4 | CR4::LA57) == gp);
    CHECK(set_cr4(legacy, legacy.cpu.control.cr4 | CR4::LA57) == done);
    CHECK(set_cr4(legacy, legacy.cpu.control.cr4 | CR4::PCIDE) == gp);
    CHECK(set_cr3(t, Harness::tables_address | 8) == done);
    CHECK(set_cr4(t, cr4 | CR4::PCIDE) == gp); // CR3[11:0] is not 0
    CHECK(set_cr3(t, Harness::tables_address) == done);
    CHECK(set_cr4(t, cr4 | CR4::PCIDE) == done);
}

TEST_CASE("MOV CR8: four bits, by way of the local APIC [SDM 3A 10.8.6]") {
    Harness t;
    t.cpu.r[RAX] = 16;
    CHECK(general(t, code("44 0f 22 c0", "mov cr8, rax")) == gp);
    t.cpu.r[RAX] = 15;
    CHECK(general(t, code("44 0f 22 c0", "mov cr8, rax")) == done);
}

TEST_CASE("CLTS, LMSW: TS is cleared; LMSW sets PE but never clears it [SDM 2A CLTS, LMSW]") {
    Harness t{Mode::real};
    t.cpu.control.cr0 |= CR0::TS;
    CHECK(general(t, code("0f 06", "clts")) == done);
    CHECK((t.cpu.control.cr0 & CR0::TS) == 0);
    t.cpu.r[RAX] = CR0::PE | CR0::TS | CR0::EM | 0xFFF0;
    const u64 before = t.cpu.control.cr0;
    CHECK(general(t, code("0f 01 f0", "lmsw ax")) == done);
    CHECK(t.cpu.control.cr0 == (before | CR0::PE | CR0::TS | CR0::EM));
    t.cpu.r[RAX] = 0;
    CHECK(general(t, code("0f 01 f0", "lmsw ax")) == done);
    CHECK(t.cpu.control.cr0 == (before | CR0::PE));
}

TEST_CASE("SMSW: 16 bits to memory, all to a wide register; CR4.UMIP forbids it at CPL 3 [SDM 2B SMSW]") {
    Harness t;
    t.write(Harness::data_address, ~u64{0});
    t.cpu.r[RBX] = Harness::data_address;
    CHECK(general(t, code("0f 01 23", "smsw [rbx]")) == done);
    CHECK(t.read(Harness::data_address) == (0xFFFF'FFFF'FFFF'0000 | (t.cpu.control.cr0 & 0xFFFF)));
    CHECK(general(t, code("48 0f 01 e0", "smsw rax")) == done);
    CHECK(t.cpu.r[RAX] == t.cpu.control.cr0);
    t.enter_ring3();
    CHECK(general(t, code("48 0f 01 e0", "smsw rax")) == done);
    t.cpu.control.cr4 |= CR4::UMIP;
    CHECK(general(t, code("48 0f 01 e0", "smsw rax")) == gp);
}

TEST_CASE(
    "a guest's control registers: the extension is asked before values are checked [SDM 3C 25.1.1, 25.3]") {
    InGuest t;
    SUBCASE("it may exit, whatever the value") {
        t.guest.exits = true;
        CHECK(set_cr4(t, ~u64{0}).kind == Stop::Kind::world_switch);
        CHECK(t.guest.written == 4);
        CHECK(t.guest.asked_value == ~u64{0});
        CHECK(general(t, code("0f 21 e0", "mov rax, dr4")).kind == Stop::Kind::world_switch);
    }
    SUBCASE("but not at CPL 3") {
        t.guest.exits = true;
        t.enter_ring3();
        CHECK(set_cr4(t, 0) == gp);
        CHECK(t.guest.written == 99);
        // MOV DR is the exception: its exit outranks the privilege check.
        CHECK(general(t, code("0f 21 c0", "mov rax, dr0")).kind == Stop::Kind::world_switch);
    }
    SUBCASE("it keeps the bits that the host owns, and changes what is read") {
        t.guest.host_owned = CR0::NE;
        CHECK(set_cr0(t, t.cpu.control.cr0 & ~CR0::NE) == done);
        CHECK((t.cpu.control.cr0 & CR0::NE) != 0);
        CHECK(general(t, code("0f 20 c0", "mov rax, cr0")) == done);
        CHECK(t.cpu.r[RAX] == (t.cpu.control.cr0 | CR0::TS));
    }
    SUBCASE("what it does not allow is #GP(0)") { CHECK(set_cr0(t, t.cpu.control.cr0 & ~CR0::NE) == gp); }
    SUBCASE("CLTS and LMSW are told apart") {
        CHECK(general(t, code("0f 06", "clts")) == done);
        CHECK(t.guest.how == CrAccess::clts);
        t.cpu.r[RAX] = 1;
        CHECK(general(t, code("0f 01 f0", "lmsw ax")) == done);
        CHECK(t.guest.how == CrAccess::lmsw);
    }
    SUBCASE("CR8 may be virtual") {
        t.cpu.r[RAX] = 9;
        CHECK(general(t, code("44 0f 22 c0", "mov cr8, rax")) == done);
        CHECK(t.guest.cr8 == 9);
    }
    SUBCASE("RDMSR: privilege first, then the question, then whether the MSR is there") {
        t.cpu.r[RCX] = 0x4000'0000;
        CHECK(general(t, code("0f 32", "rdmsr")).kind == Stop::Kind::world_switch);
        t.enter_ring3();
        CHECK(general(t, code("0f 32", "rdmsr")) == gp);
    }
}

// ---- Debug registers
// -------------------------------------------------------------------------------------------

TEST_CASE("MOV DR: DR4 and DR5 are DR6 and DR7, or #UD with CR4.DE [SDM 3A 17.2.2]") {
    Harness t;
    CHECK(general(t, code("0f 21 e0", "mov rax, dr4")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'0FF0);
    t.cpu.control.cr4 |= CR4::DE;
    CHECK(general(t, code("0f 21 e0", "mov rax, dr4")) == ud);
    CHECK(general(t, code("0f 21 f0", "mov rax, dr6")) == done);
    t.enter_ring3();
    CHECK(general(t, code("0f 21 e0", "mov rax, dr4")) == ud);
    CHECK(general(t, code("0f 21 f0", "mov rax, dr6")) == gp);
}

TEST_CASE("MOV DR6, DR7: the upper half must be 0, reserved bits keep their values [SDM 3A 17.2.3, 17.2.4]") {
    Harness t;
    t.cpu.r[RAX] = bit(32);
    CHECK(general(t, code("0f 23 f0", "mov dr6, rax")) == gp);
    CHECK(general(t, code("0f 23 f8", "mov dr7, rax")) == gp);
    t.cpu.r[RAX] = 0xFFFF'FFFF;
    CHECK(general(t, code("0f 23 f0", "mov dr6, rax")) == done);
    CHECK(t.cpu.dr6 == 0xFFFF'EFFF);
    t.cpu.r[RAX] = 0xFFFF'DFFF;
    CHECK(general(t, code("0f 23 f8", "mov dr7, rax")) == done);
    CHECK(t.cpu.dr7 == 0xFFFF'07FF);
    t.cpu.r[RAX] = 0;
    CHECK(general(t, code("0f 23 f0", "mov dr6, rax")) == done);
    CHECK(t.cpu.dr6 == 0xFFFF'0FF0);
}

TEST_CASE("MOV DR: DR7.GD makes any access #DB with DR6.BD [SDM 3A 17.2.4]") {
    Harness t;
    t.cpu.dr7 |= DR7::GD;
    CHECK(general(t, code("0f 21 c0", "mov rax, dr0")) == debug_exception(DR6::BD));
}
