// CPUID: what software is told of the processor.
#include "cpu/cpuid.hpp"

#include "cpu/xsave_layout.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

u32 reported(const Harness& t, const FeatureRow& row) {
    const CpuidResult r = cpuid(t.cpu, row.leaf, row.subleaf);
    const u32 registers[] = {r.eax, r.ebx, r.ecx, r.edx};
    return registers[static_cast<unsigned>(row.reg)] >> row.bit & 1;
}

std::string text(std::initializer_list<u32> registers) {
    std::string result;
    for (u32 value : registers)
        for (unsigned i = 0; i < 4; ++i, value >>= 8)
            if (value & 0xFF) result += static_cast<char>(value & 0xFF);
    return result;
}

/// A local APIC that is only there to be enabled or not.
class ApicBase : public InterruptController {
public:
    bool interrupt_pending() override { return false; }
    u8 acknowledge() override { return 0; }
    u8 cr8() override { return 0; }
    void set_cr8(u8) override {}
    bool read_msr(u32 index, u64& value) override {
        value = base;
        return index == 0x1B;
    }
    bool write_msr(u32, u64) override { return false; }
    u64 base = 0xFEE0'0900;
};

} // namespace

TEST_CASE(
    "CPUID: each feature row is reported at its bit when the model has it, and only then [SDM 2A CPUID]") {
    for (const std::string& name : CpuModel::built_in()) {
        CAPTURE(name);
        Harness t{Mode::long64, name};
        ApicBase apic;
        t.cpu.controller = &apic;
        for (const FeatureRow& row : feature_rows()) {
            CAPTURE(row.name);
            const bool in_range =
                row.leaf <= (row.leaf & 0x8000'0000 ? t.model.max_extended_leaf : t.model.max_basic_leaf);
            if (in_range) CHECK(reported(t, row) == (t.model.has(row.feature) ? 1 : 0));
        }
    }
}

TEST_CASE("CPUID.01H:EAX: family, model and stepping [SDM 2A Figure 3-6]") {
    const auto eax = [](const char* name) { return cpuid(Harness{Mode::long64, name}.cpu, 1, 0).eax; };
    CHECK(eax("nehalem") == 0x000106A5);
    CHECK(eax("skylake-server") == 0x00050654);
    CHECK(eax("zen") == 0x00800F12);
    CHECK(eax("amd-max") == 0x00A50FF1);
    CHECK(eax("intel-max") == 0x000F06E1);
}

TEST_CASE("CPUID.00H and 8000_0002H: vendor and brand") {
    const Harness intel{Mode::long64, "nehalem"}, amd{Mode::long64, "zen"};
    const CpuidResult i = cpuid(intel.cpu, 0, 0), a = cpuid(amd.cpu, 0, 0);
    CHECK(text({i.ebx, i.edx, i.ecx}) == "GenuineIntel");
    CHECK(text({a.ebx, a.edx, a.ecx}) == "AuthenticAMD");
    CHECK(i.eax == 0xB);
    CHECK(a.eax == 0xD);
    CHECK(cpuid(amd.cpu, 0x8000'0000, 0).ebx == a.ebx);
    CHECK(cpuid(intel.cpu, 0x8000'0000, 0).ebx == 0);
    std::string brand;
    for (u32 leaf = 0x8000'0002; leaf <= 0x8000'0004; ++leaf) {
        const CpuidResult r = cpuid(amd.cpu, leaf, 0);
        brand += text({r.eax, r.ebx, r.ecx, r.edx});
    }
    CHECK(brand == "AMD EPYC 7601 32-Core Processor");
}

TEST_CASE(
    "CPUID: beyond the range, Intel gives the highest basic leaf, AMD zeros [SDM 2A CPUID; APM 3 CPUID]") {
    const Harness intel, amd{Mode::long64, "zen"};
    const CpuidResult highest = cpuid(intel.cpu, 0x16, 0);
    CHECK(highest.eax == 1000);
    for (const u32 leaf : {0x17u, 0x4000'0000u, 0x7FFF'FFFFu, 0x8000'0009u, 0xFFFF'FFFFu}) {
        CHECK(cpuid(intel.cpu, leaf, 0) == highest);
        if (leaf != 0x8000'0009u) CHECK(cpuid(amd.cpu, leaf, 0) == CpuidResult{});
    }
}

TEST_CASE("CPUID.01H:ECX.OSXSAVE and CPUID.07H:ECX.OSPKE follow CR4 [SDM 2A CPUID]") {
    Harness t;
    CHECK((cpuid(t.cpu, 1, 0).ecx >> 27 & 1) == 0);
    CHECK((cpuid(t.cpu, 7, 0).ecx >> 4 & 1) == 0);
    t.cpu.control.cr4 |= CR4::OSXSAVE | CR4::PKE;
    CHECK((cpuid(t.cpu, 1, 0).ecx >> 27 & 1) == 1);
    CHECK((cpuid(t.cpu, 7, 0).ecx >> 4 & 1) == 1);
}

TEST_CASE("CPUID.01H:EDX.APIC is clear while the local APIC is disabled [SDM 3A 10.4.3]") {
    Harness t;
    ApicBase apic;
    t.cpu.controller = &apic;
    CHECK((cpuid(t.cpu, 1, 0).edx >> 9 & 1) == 1);
    apic.base = 0xFEE0'0100;
    CHECK((cpuid(t.cpu, 1, 0).edx >> 9 & 1) == 0);
}

TEST_CASE("CPUID.80000001H:EDX.SYSCALL is reported in 64-bit mode only on Intel [SDM 2A CPUID]") {
    CHECK((cpuid(Harness{Mode::long64}.cpu, 0x8000'0001, 0).edx >> 11 & 1) == 1);
    CHECK((cpuid(Harness{Mode::compatibility}.cpu, 0x8000'0001, 0).edx >> 11 & 1) == 0);
    CHECK((cpuid(Harness{Mode::protected32, "zen"}.cpu, 0x8000'0001, 0).edx >> 11 & 1) == 1);
}

TEST_CASE("CPUID.80000001H:EDX repeats leaf 1 on AMD only [APM 3 E.4.2]") {
    const Harness amd{Mode::long64, "zen"}, intel;
    CHECK((cpuid(amd.cpu, 0x8000'0001, 0).edx & 0x0183'F1FF) == (cpuid(amd.cpu, 1, 0).edx & 0x0183'F1FF));
    CHECK((cpuid(intel.cpu, 0x8000'0001, 0).edx & 0x0183'F1FF) == 0);
}

TEST_CASE("CPUID: processors and their APIC IDs [SDM 3A 8.9]") {
    Harness t;
    SUBCASE("alone") {
        CHECK((cpuid(t.cpu, 1, 0).edx >> 28 & 1) == 0);
        CHECK(cpuid(t.cpu, 0xB, 1).ebx == 1);
    }
    SUBCASE("one of six: IDs have three bits") {
        t.cpu.cpu_count = 6;
        const CpuidResult one = cpuid(t.cpu, 1, 0);
        CHECK((one.edx >> 28 & 1) == 1);
        CHECK((one.ebx >> 16 & 0xFF) == 8);
        CHECK((one.ebx >> 24) == 0);
        CHECK(cpuid(t.cpu, 0xB, 0).ecx == 0x100);
        CHECK(cpuid(t.cpu, 0xB, 1).eax == 3);
        CHECK(cpuid(t.cpu, 0xB, 1).ebx == 6);
        CHECK(cpuid(t.cpu, 0xB, 1).ecx == 0x201);
        CHECK(cpuid(t.cpu, 0xB, 2).eax == 0);
        CHECK(cpuid(t.cpu, 0xB, 2).ecx == 2);
        CHECK((cpuid(t.cpu, 4, 3).eax >> 14 & 0xFFF) == 7); // the third-level cache is shared by all
        CHECK((cpuid(t.cpu, 4, 0).eax >> 14 & 0xFFF) == 0);
    }
    SUBCASE("AMD: 8000_0008H:ECX") {
        Harness amd{Mode::long64, "zen"};
        amd.cpu.cpu_count = 6;
        CHECK(cpuid(amd.cpu, 0x8000'0008, 0).ecx == (5 | 3 << 12));
        CHECK((cpuid(amd.cpu, 0x8000'0001, 0).ecx >> 1 & 1) == 1);
    }
}

TEST_CASE("CPUID.04H: sizes multiply to those of the processor [SDM 2A CPUID]") {
    const Harness t{Mode::long64, "skylake-server"};
    const auto bytes = [&](u32 subleaf) {
        const CpuidResult r = cpuid(t.cpu, 4, subleaf);
        return u64{(r.ebx >> 22) + 1} * ((r.ebx >> 12 & 0x3FF) + 1) * ((r.ebx & 0xFFF) + 1) * (r.ecx + 1);
    };
    CHECK(bytes(0) == 32 << 10);
    CHECK(bytes(2) == 1 << 20);
    CHECK(bytes(3) == u64{77} << 19); // 38.5 MBytes
    CHECK(cpuid(t.cpu, 4, 4) == CpuidResult{});
}

TEST_CASE("CPUID.0DH: sizes follow XCR0 [SDM 1 13.2]") {
    Harness t;
    t.cpu.control.xcr0 = XCR0::X87;
    CHECK(cpuid(t.cpu, 0xD, 0).eax == (XCR0::X87 | XCR0::SSE | XCR0::AVX | XCR0::PKRU));
    CHECK(cpuid(t.cpu, 0xD, 0).ebx == 576);
    CHECK(cpuid(t.cpu, 0xD, 0).ecx == 2696);
    t.cpu.control.xcr0 |= XCR0::SSE | XCR0::PKRU;
    CHECK(cpuid(t.cpu, 0xD, 0).ebx == 2696);
    CHECK(cpuid(t.cpu, 0xD, 1).ebx == 584); // compacted
    CHECK(cpuid(t.cpu, 0xD, 9) == CpuidResult{8, 2688, 0, 0});
    CHECK(cpuid(t.cpu, 0xD, 2) == CpuidResult{256, 576, 0, 0});
    t.cpu.control.xcr0 |= XCR0::AVX;
    CHECK(cpuid(t.cpu, 0xD, 0).ebx == 2696);
    CHECK(cpuid(t.cpu, 0xD, 1).ebx == 840);
    t.cpu.control.xcr0 &= ~XCR0::PKRU;
    CHECK(cpuid(t.cpu, 0xD, 0).ebx == 832);
    CHECK(cpuid(Harness{Mode::long64, "nehalem"}.cpu, 0xD, 0).eax ==
          cpuid(Harness{Mode::long64, "nehalem"}.cpu, 0xB, 0).eax);
}

TEST_CASE("CPUID.15H: the TSC counts at 1 GHz, a multiple of the crystal that the APIC timer counts [SDM 3A "
          "10.5.4]") {
    const CpuidResult r = cpuid(Harness{}.cpu, 0x15, 0);
    REQUIRE(r.eax != 0);
    CHECK(u64{r.ecx} * r.ebx / r.eax == 1'000'000'000);
    CHECK(r.ecx == 100'000'000);
}

TEST_CASE("CPUID.80000008H:EAX: address widths [SDM 2A CPUID]") {
    CHECK(cpuid(Harness{}.cpu, 0x8000'0008, 0).eax == (46 | 57 << 8));
    CHECK(cpuid(Harness{Mode::long64, "nehalem"}.cpu, 0x8000'0008, 0).eax == (40 | 48 << 8));
}

TEST_CASE("IA32_MISC_ENABLE hides MONITOR, NX and leaves from CPUID [SDM 3C Table 35-2]") {
    Harness t;
    t.cpu.misc_enable &= ~(u64{1} << 18);
    CHECK((cpuid(t.cpu, 1, 0).ecx >> 3 & 1) == 0);
    t.cpu.misc_enable |= u64{1} << 34;
    CHECK((cpuid(t.cpu, 0x8000'0001, 0).edx >> 20 & 1) == 0);
    t.cpu.misc_enable |= u64{1} << 22;
    CHECK(cpuid(t.cpu, 0, 0).eax == 2);
}
