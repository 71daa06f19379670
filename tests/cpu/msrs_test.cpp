// RDMSR and WRMSR: which MSRs there are, what they may hold, what writing does.
#include "cpu/msrs.hpp"

#include "cpu/cpuid.hpp"
#include "tests/support/general.hpp"

#include <map>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
const Stop gp = general_protection(0);

Stop rdmsr(Harness& t, u32 index) {
    t.cpu.r[RCX] = index;
    return general(t, code("0f 32", "rdmsr"));
}

u64 value(Harness& t, u32 index) {
    REQUIRE(rdmsr(t, index) == done);
    return t.cpu.r[RDX] << 32 | t.cpu.r[RAX];
}

Stop wrmsr(Harness& t, u32 index, u64 to) {
    t.cpu.r[RCX] = index;
    t.cpu.r[RAX] = 0xFFFF'FFFF'0000'0000 | low32(to); // upper halves are ignored
    t.cpu.r[RDX] = 0xFFFF'FFFF'0000'0000 | high32(to);
    return general(t, code("0f 30", "wrmsr"));
}

/// MSRs of a local APIC, as far as the core must pass them on.
class ApicMsrs : public InterruptController {
public:
    bool interrupt_pending() override { return false; }
    u8 acknowledge() override { return 0; }
    u8 cr8() override { return 0; }
    void set_cr8(u8) override {}
    bool read_msr(u32 index, u64& to) override {
        to = values[index];
        return true;
    }
    bool write_msr(u32 index, u64 to) override {
        values[index] = to;
        return to != 0xBAD;
    }
    std::map<u32, u64> values;
};

} // namespace

TEST_CASE("RDMSR, WRMSR: #GP(0) at CPL 3, before anything else [SDM 2B RDMSR, WRMSR]") {
    Harness t;
    t.enter_ring3();
    CHECK(rdmsr(t, Msr::IA32_EFER) == gp);
    CHECK(wrmsr(t, Msr::IA32_LSTAR, 1) == gp);
    CHECK(t.cpu.lstar == 0);
}

TEST_CASE("RDMSR, WRMSR: an MSR that is not there is #GP(0) [SDM 2B RDMSR, WRMSR]") {
    Harness t;
    for (const u32 index : {0xC5u, 0x391u, 0x4000'0000u, 0xC000'0085u, 0xFFFF'FFFFu, 0x800u, 0x1Bu, 0x6E0u}) {
        CHECK(rdmsr(t, index) == gp);
        CHECK(wrmsr(t, index, 0) == gp);
    }
}

TEST_CASE("MSRs: each model has those that its features imply, and no others [SDM 3C ch. 35; APM 2 App. A]") {
    Harness intel, amd{Mode::long64, "zen"}, old{Mode::long64, "nehalem"};
    CHECK(rdmsr(amd, Msr::IA32_MISC_ENABLE) == gp);
    CHECK(rdmsr(intel, Msr::HWCR) == gp);
    CHECK(value(amd, Msr::HWCR) == u64{1} << 24); // TscFreqSel: the TSC counts at the P0 frequency
    CHECK(value(amd, Msr::PATCH_LEVEL) == 0x8001250);
    CHECK(wrmsr(amd, Msr::PATCH_LEVEL, 0) == gp);
    CHECK(rdmsr(amd, Msr::SYSCFG) == done);
    CHECK(rdmsr(old, Msr::IA32_TSC_ADJUST) == gp);
    CHECK(rdmsr(old, Msr::IA32_ARCH_CAPABILITIES) == gp);
    CHECK(rdmsr(old, Msr::IA32_PKRS) == gp);
    CHECK((value(intel, Msr::IA32_ARCH_CAPABILITIES) & ARCH_CAPABILITIES::RDCL_NO) != 0);
    CHECK(wrmsr(intel, Msr::IA32_ARCH_CAPABILITIES, 0) == gp);
}

TEST_CASE("IA32_MISC_ENABLE: fast strings are on at reset [SDM 3C Table 35-2]") {
    Harness t;
    CHECK((value(t, Msr::IA32_MISC_ENABLE) & 1) == 1);
    CHECK((value(t, Msr::IA32_MISC_ENABLE) >> 11 & 3) == 3); // no BTS, no PEBS
    SUBCASE("and can be turned off, and CPUID keeps what is not bound to them") {
        CHECK(wrmsr(t, Msr::IA32_MISC_ENABLE, t.cpu.misc_enable & ~u64{1}) == done);
        CHECK((value(t, Msr::IA32_MISC_ENABLE) & 1) == 0);
    }
    SUBCASE("XD bit disable makes EFER.NXE reserved") {
        CHECK(wrmsr(t, Msr::IA32_EFER, EFER::LME | EFER::SCE) == done);
        CHECK(wrmsr(t, Msr::IA32_MISC_ENABLE, t.cpu.misc_enable | u64{1} << 34) == done);
        CHECK(wrmsr(t, Msr::IA32_EFER, EFER::LME | EFER::SCE | EFER::NXE) == gp);
    }
    SUBCASE("read-only and reserved bits are #GP(0)") {
        CHECK(wrmsr(t, Msr::IA32_MISC_ENABLE, t.cpu.misc_enable ^ u64{1} << 11) == gp);
        CHECK(wrmsr(t, Msr::IA32_MISC_ENABLE, t.cpu.misc_enable | u64{1} << 16) == gp);
    }
}

TEST_CASE("IA32_EFER: LMA is read-only, LME is fixed while paging, reserved bits are #GP(0) [SDM 3A 2.2.1]") {
    Harness t;
    const u64 efer = t.cpu.control.efer;
    CHECK(wrmsr(t, Msr::IA32_EFER, efer & ~EFER::LMA) == done);
    CHECK(t.cpu.control.efer == efer);
    CHECK(wrmsr(t, Msr::IA32_EFER, efer & ~EFER::LME) == gp);
    CHECK(wrmsr(t, Msr::IA32_EFER, efer | bit(1)) == gp);
    CHECK(wrmsr(t, Msr::IA32_EFER, efer | EFER::SVME) == gp);
    CHECK(wrmsr(t, Msr::IA32_EFER, efer | EFER::FFXSR) == gp);
    CHECK(wrmsr(t, Msr::IA32_EFER, efer & ~EFER::SCE) == done);
    CHECK(t.cpu.control.efer == (efer & ~EFER::SCE));
    Harness amd{Mode::long64, "zen"};
    CHECK(wrmsr(amd, Msr::IA32_EFER, amd.cpu.control.efer | EFER::FFXSR) == done);
    CHECK(wrmsr(amd, Msr::IA32_EFER, amd.cpu.control.efer | EFER::LMSLE).kind == Stop::Kind::unmodelled);
    CHECK(wrmsr(amd, Msr::IA32_EFER, amd.cpu.control.efer | bit(21)) == gp);
}

TEST_CASE("WRMSR of an address: canonical for the widest linear address of the model [SDM 2B WRMSR]") {
    constexpr u64 canonical57 = 0x00FF'0000'0000'0000, never_canonical = 0x1000'0000'0000'0000;
    Harness wide, narrow{Mode::long64, "nehalem"};
    for (const u32 index : {Msr::IA32_LSTAR, Msr::IA32_CSTAR, Msr::IA32_FS_BASE, Msr::IA32_GS_BASE,
                            Msr::IA32_KERNEL_GS_BASE, Msr::IA32_SYSENTER_ESP, Msr::IA32_SYSENTER_EIP}) {
        CAPTURE(index);
        CHECK(wrmsr(wide, index, canonical57) == done); // whatever CR4.LA57 says
        CHECK(value(wide, index) == canonical57);
        CHECK(wrmsr(wide, index, never_canonical) == gp);
        CHECK(value(wide, index) == canonical57);
        CHECK(wrmsr(narrow, index, canonical57) == gp);
        CHECK(wrmsr(narrow, index, 0xFFFF'8000'0000'0000) == done);
    }
    CHECK(wide.cpu.seg(Seg::FS).base == canonical57);
    Harness amd{Mode::long64, "zen"};
    CHECK(wrmsr(amd, Msr::IA32_SYSENTER_EIP, never_canonical) == done); // APM 2 A.1
    CHECK(wrmsr(amd, Msr::IA32_LSTAR, never_canonical) == gp);
}

TEST_CASE("IA32_TIME_STAMP_COUNTER and IA32_TSC_ADJUST move together [SDM 3B 17.15.3]") {
    Harness t;
    CHECK(wrmsr(t, Msr::IA32_TIME_STAMP_COUNTER, 1'000'000) == done);
    CHECK(value(t, Msr::IA32_TIME_STAMP_COUNTER) == 1'000'000 + 0 * t.cpu.now());
    const u64 adjust = value(t, Msr::IA32_TSC_ADJUST);
    CHECK(adjust == 1'000'000);
    CHECK(wrmsr(t, Msr::IA32_TSC_ADJUST, adjust + 500) == done);
    CHECK(value(t, Msr::IA32_TIME_STAMP_COUNTER) == 1'000'500);
    CHECK(wrmsr(t, Msr::IA32_TSC_ADJUST, 0) == done);
    CHECK(value(t, Msr::IA32_TIME_STAMP_COUNTER) == 0);
    CHECK(wrmsr(t, Msr::IA32_TSC_AUX, 0x1'0000'0000) == gp);
}

TEST_CASE("IA32_PAT: every field holds a memory type that exists [SDM 3A 11.12.2]") {
    Harness t;
    CHECK(value(t, Msr::IA32_PAT) == 0x0007'0406'0007'0406);
    CHECK(wrmsr(t, Msr::IA32_PAT, 0x0007'0506'0107'0406) == done);
    for (const u64 bad : {u64{2}, u64{3}, u64{8}, u64{0x86}, u64{2} << 56})
        CHECK(wrmsr(t, Msr::IA32_PAT, bad) == gp);
    CHECK(value(t, Msr::IA32_PAT) == 0x0007'0506'0107'0406);
}

TEST_CASE("MTRRs: types and reserved bits are checked [SDM 3A 11.11.2]") {
    Harness t;
    CHECK(value(t, Msr::IA32_MTRRCAP) == 0x508);
    CHECK(wrmsr(t, Msr::IA32_MTRRCAP, 0x508) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_DEF_TYPE, 0xC06) == done);
    CHECK(wrmsr(t, Msr::IA32_MTRR_DEF_TYPE, 0xC07) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_DEF_TYPE, 0x1C06) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSBASE0, 0xC000'0000) == done);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSBASE0, 0xC000'0002) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSBASE0, 0xC000'0106) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSBASE0, u64{1} << 46) == gp);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSMASK7, 0x3FFF'C000'0800) == done);
    CHECK(wrmsr(t, Msr::IA32_MTRR_PHYSMASK7, 0x3FFF'C000'0801) == gp);
    CHECK(rdmsr(t, 0x210) == gp); // VCNT is 8
    CHECK(wrmsr(t, Msr::IA32_MTRR_FIX4K_F8000, 0x0606'0606'0606'0605) == done);
    CHECK(wrmsr(t, Msr::IA32_MTRR_FIX4K_F8000, 0x0606'0706'0606'0606) == gp);
    SUBCASE("what firmware leaves is itself valid") {
        set_firmware_mtrrs(t.cpu);
        for (const u32 index : {Msr::IA32_MTRR_DEF_TYPE, Msr::IA32_MTRR_PHYSBASE0, Msr::IA32_MTRR_PHYSMASK0,
                                Msr::IA32_MTRR_FIX64K_00000, Msr::IA32_MTRR_FIX4K_C8000})
            CHECK(wrmsr(t, index, value(t, index)) == done);
        CHECK(value(t, Msr::IA32_MTRR_DEF_TYPE) == 0xC06);
    }
    SUBCASE("AMD: RdMem and WrMem while SYSCFG.MtrrFixDramModEn is set [APM 2 7.9.1]") {
        Harness amd{Mode::long64, "zen"};
        CHECK(wrmsr(amd, Msr::IA32_MTRR_FIX4K_F8000, 0x1E) == gp);
        CHECK(wrmsr(amd, Msr::SYSCFG, u64{1} << 19) == done);
        CHECK(wrmsr(amd, Msr::IA32_MTRR_FIX4K_F8000, 0x1E) == done);
    }
}

TEST_CASE("IA32_BIOS_SIGN_ID: CPUID leaf 1 puts the update revision there [SDM 3A 9.11.7.1]") {
    Harness t{Mode::long64, "nehalem"};
    CHECK(wrmsr(t, Msr::IA32_BIOS_SIGN_ID, 0) == done);
    CHECK(value(t, Msr::IA32_BIOS_SIGN_ID) == 0);
    t.cpu.r[RAX] = 1;
    CHECK(general(t, code("0f a2", "cpuid")) == done);
    CHECK(value(t, Msr::IA32_BIOS_SIGN_ID) == u64{0x1D} << 32);
    CHECK(wrmsr(t, Msr::IA32_BIOS_UPDT_TRIG, 0x1000).kind == Stop::Kind::unmodelled);
}

TEST_CASE("command MSRs can only be written [SDM 3C Table 35-2]") {
    Harness t;
    CHECK(rdmsr(t, Msr::IA32_PRED_CMD) == gp);
    CHECK(wrmsr(t, Msr::IA32_PRED_CMD, 1) == done);
    CHECK(wrmsr(t, Msr::IA32_PRED_CMD, 2) == gp);
    CHECK(rdmsr(t, Msr::IA32_FLUSH_CMD) == gp);
    CHECK(wrmsr(t, Msr::IA32_FLUSH_CMD, 1) == done);
    CHECK(wrmsr(t, Msr::IA32_SPEC_CTRL, 7) == done);
    CHECK(value(t, Msr::IA32_SPEC_CTRL) == 7);
    CHECK(wrmsr(t, Msr::IA32_SPEC_CTRL, 8) == gp);
}

TEST_CASE("IA32_MCi_STATUS takes only 0, unless HWCR.McStatusWrEn is set [SDM 3B 15.3.2.2; APM 2 9.3.2.1]") {
    Harness t, amd{Mode::long64, "zen"};
    CHECK((value(t, Msr::IA32_MCG_CAP) & 0xFF) == 5);
    CHECK(wrmsr(t, Msr::IA32_MC4_STATUS, 0) == done);
    CHECK(wrmsr(t, Msr::IA32_MC4_STATUS, 1) == gp);
    CHECK(rdmsr(t, Msr::IA32_MC4_MISC + 1) == gp);
    CHECK(wrmsr(amd, Msr::IA32_MC0_STATUS, 1) == gp);
    CHECK(wrmsr(amd, Msr::HWCR, u64{1} << 24 | u64{1} << 18) == done);
    CHECK(wrmsr(amd, Msr::IA32_MC0_STATUS, 1) == done);
}

TEST_CASE("IA32_DEBUGCTL: BTF is there, what is not modelled stops the machine [SDM 3B 17.4.1]") {
    Harness t;
    CHECK(wrmsr(t, Msr::IA32_DEBUGCTL, 2) == done);
    CHECK(t.cpu.debugctl == 2);
    CHECK(wrmsr(t, Msr::IA32_DEBUGCTL, 1).kind == Stop::Kind::unmodelled);
    CHECK(wrmsr(t, Msr::IA32_DEBUGCTL, 0x40) == gp);
}

TEST_CASE("IA32_XSS has no component to enable; IA32_PKRS has 32 bits [SDM 3C Table 35-2]") {
    Harness t;
    CHECK(wrmsr(t, Msr::IA32_XSS, 0) == done);
    CHECK(wrmsr(t, Msr::IA32_XSS, bit(8)) == gp);
    CHECK(wrmsr(t, Msr::IA32_PKRS, 0xFFFF'FFFF) == done);
    CHECK(t.cpu.control.pkrs == 0xFFFF'FFFF);
    CHECK(wrmsr(t, Msr::IA32_PKRS, 0x1'0000'0000) == gp);
}

TEST_CASE(
    "the local APIC answers for its own MSRs, as far as the model has them [SDM 3A 10.4.4, 10.12.1.2]") {
    Harness t, old{Mode::long64, "nehalem"};
    ApicMsrs apic;
    t.cpu.controller = old.cpu.controller = &apic;
    for (const u32 index : {0x1Bu, 0x6E0u, 0x800u, 0x83Fu, 0x8FFu}) {
        CHECK(wrmsr(t, index, index + 5) == done);
        CHECK(value(t, index) == index + 5);
        CHECK(wrmsr(t, index, 0xBAD) == gp);
    }
    CHECK(rdmsr(t, 0x900) == gp);
    CHECK(rdmsr(old, 0x1B) == done);
    CHECK(rdmsr(old, 0x802) == gp);
    CHECK(rdmsr(old, 0x6E0) == gp);
}

TEST_CASE("RESET gives MSRs their reset values, INIT leaves them [SDM 3A Table 9-1]") {
    Harness t;
    CHECK(wrmsr(t, Msr::IA32_MTRR_DEF_TYPE, 0xC06) == done);
    CHECK(wrmsr(t, Msr::IA32_PAT, 0) == done);
    t.cpu.reset(true);
    CHECK(t.cpu.msrs->stored(Msr::IA32_MTRR_DEF_TYPE) == 0xC06);
    CHECK(t.cpu.pat == 0);
    CHECK(t.cpu.control.efer == 0);
    t.cpu.reset(false);
    CHECK(t.cpu.msrs->stored(Msr::IA32_MTRR_DEF_TYPE) == 0);
    CHECK(t.cpu.pat == 0x0007'0406'0007'0406);
}

TEST_CASE("MSRs of other folders: rows are added when the model has their feature") {
    static constexpr MsrRow rows[] = {
        {0x480, "ONE", Feature::VMX, 7, 0, nullptr, nullptr},
        {0x481, "OTHER", Feature::SVM, 7, 0, nullptr, nullptr},
        {0x482, "WRITTEN", Feature::VMX, 0, 0xF0, nullptr,
         [](Cpu&, u64, u64 value) { return Result<u64>(value | 1); }},
    };
    Harness t;
    Msrs msrs(t.cpu);
    msrs.add(rows);
    CHECK(msrs.read(t.cpu, 0x480).value() == 7);
    CHECK(msrs.write(t.cpu, 0x480, 7).stop() == gp);
    CHECK(msrs.read(t.cpu, 0x481).stop() == gp);
    CHECK(msrs.write(t.cpu, 0x482, 0x30).ok());
    CHECK(msrs.read(t.cpu, 0x482).value() == 0x31);
    CHECK(msrs.write(t.cpu, 0x482, 0x131).stop() == gp);
    CHECK(msrs.has(0x482));
    CHECK(!msrs.has(0x481));
}
