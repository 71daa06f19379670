// The capability MSRs. SDM 3D App. A.
#include "cpu/msrs.hpp"
#include "tests/support/vmx_harness.hpp"
#include "vmx/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

u64 rdmsr(VmxHarness& t, u32 index) {
    const auto value = t.cpu.msrs->read(t.cpu, index);
    REQUIRE_MESSAGE(value.ok(), index);
    return value.value();
}

} // namespace

TEST_CASE("IA32_VMX_BASIC: region size, write-back, INS/OUTS information, TRUE MSRs [SDM 3D A.1]") {
    VmxHarness t;
    const u64 basic = rdmsr(t, Msr::IA32_VMX_BASIC);
    CHECK(extract(basic, 31, 31) == 0);
    CHECK(extract(basic, 44, 32) == 4096);
    CHECK(extract(basic, 53, 50) == 6);
    CHECK((basic & (bit(48) | bit(49))) == 0);
    CHECK((basic & bit(54)) != 0);
    CHECK((basic & bit(55)) != 0);
}

TEST_CASE(
    "IA32_VMX_*_CTLS: what must be 1 may be 1; default1 bits; TRUE ones are freer [SDM 3D A.2 to A.5]") {
    VmxHarness t;
    const struct {
        u32 plain, exact, default1, must;
    } rows[] = {{0x481, 0x48D, default1::pin_based, 0x16},
                {0x482, 0x48E, default1::primary, 0x0400'6172},
                {0x483, 0x48F, default1::vm_exit, 0x0003'6DFB},
                {0x484, 0x490, default1::vm_entry, 0x0000'11FB}};
    for (const auto& row : rows) {
        CAPTURE(row.plain);
        const u64 plain = rdmsr(t, row.plain), exact = rdmsr(t, row.exact);
        CHECK(low32(plain) == row.default1);
        const u32 free = row.plain == 0x483 || row.plain == 0x484 ? 4 : 0; // debug controls
        CHECK((low32(exact) & ~free) == (row.must & ~free));
        CHECK(high32(plain) == high32(exact));
        CHECK((low32(exact) & ~high32(exact)) == 0);
    }
    CHECK(low32(rdmsr(t, Msr::IA32_VMX_PROCBASED_CTLS2)) == 0);
}

TEST_CASE("IA32_VMX_*_CTLS: every control that Linux's KVM turns on is offered") {
    VmxHarness t;
    const VmxCapabilities& c = t.vmx.capabilities();
    for (const Control control : std::initializer_list<Control>{pin_based::external_interrupt_exiting,
                                                                pin_based::nmi_exiting,
                                                                pin_based::virtual_nmis,
                                                                pin_based::activate_vmx_preemption_timer,
                                                                primary::interrupt_window_exiting,
                                                                primary::use_tsc_offsetting,
                                                                primary::hlt_exiting,
                                                                primary::invlpg_exiting,
                                                                primary::mwait_exiting,
                                                                primary::rdpmc_exiting,
                                                                primary::cr3_load_exiting,
                                                                primary::cr3_store_exiting,
                                                                primary::cr8_load_exiting,
                                                                primary::cr8_store_exiting,
                                                                primary::use_tpr_shadow,
                                                                primary::nmi_window_exiting,
                                                                primary::mov_dr_exiting,
                                                                primary::unconditional_io_exiting,
                                                                primary::use_msr_bitmaps,
                                                                primary::monitor_exiting,
                                                                primary::activate_secondary_controls,
                                                                primary::monitor_trap_flag,
                                                                secondary::enable_ept,
                                                                secondary::enable_vpid,
                                                                secondary::unrestricted_guest,
                                                                secondary::enable_rdtscp,
                                                                secondary::enable_invpcid,
                                                                secondary::wbinvd_exiting,
                                                                secondary::pause_loop_exiting,
                                                                secondary::descriptor_table_exiting,
                                                                secondary::use_tsc_scaling,
                                                                secondary::enable_pml,
                                                                secondary::virtualize_apic_accesses,
                                                                secondary::virtualize_x2apic_mode,
                                                                secondary::apic_register_virtualization,
                                                                secondary::virtual_interrupt_delivery,
                                                                pin_based::process_posted_interrupts,
                                                                tertiary::ipi_virtualization,
                                                                vm_exit::host_address_space_size,
                                                                vm_exit::acknowledge_interrupt_on_exit,
                                                                vm_exit::save_debug_controls,
                                                                vm_exit::load_ia32_pat,
                                                                vm_exit::load_ia32_efer,
                                                                vm_entry::load_debug_controls,
                                                                vm_entry::ia_32e_mode_guest,
                                                                vm_entry::load_ia32_pat,
                                                                vm_entry::load_ia32_efer})
        CHECK(c.may(control));
}

TEST_CASE("Capability MSRs: read-only; those of controls that are not offered do not exist [SDM 3D App. A]") {
    VmxHarness t;
    for (u32 index = 0x480; index <= 0x492; ++index) {
        CHECK(t.cpu.msrs->read(t.cpu, index).ok());
        CHECK(t.cpu.msrs->write(t.cpu, index, 0).stop() == general_protection(0));
    }
    CHECK(t.cpu.msrs->read(t.cpu, 0x493).stop() == general_protection(0)); // secondary VM-exit controls
    VmxHarness nehalem("nehalem");
    CHECK(nehalem.cpu.msrs->read(nehalem.cpu, 0x492).stop() == general_protection(0)); // tertiary controls
}

TEST_CASE("IA32_FEATURE_CONTROL: locked, with VMXON outside SMX [SDM 3C 23.7]") {
    VmxHarness t;
    CHECK(rdmsr(t, Msr::IA32_FEATURE_CONTROL) == 5);
    CHECK(t.cpu.msrs->write(t.cpu, Msr::IA32_FEATURE_CONTROL, 5).stop() == general_protection(0));
}

TEST_CASE("Older processors offer less: Nehalem has EPT, but neither unrestricted guest nor EPT flags") {
    VmxHarness t("nehalem");
    const VmxCapabilities& c = t.vmx.capabilities();
    CHECK(c.may(secondary::enable_ept));
    CHECK(!c.may(secondary::unrestricted_guest));
    CHECK(!c.may(secondary::enable_pml));
    CHECK(!c.exists(VmcsField::pml_address));
    CHECK(!c.ept_vpid(EPT_VPID_CAP::accessed_dirty));
    CHECK(c.preemption_timer_rate() == 0);
    CHECK(t.enter() == entered());
}

TEST_CASE("A model's vmx object: unknown names and keys are refused") {
    CpuModel model = CpuModel::load("intel-max");
    const auto refused = [&](const char* text) {
        model.vmx = text;
        CHECK_THROWS_AS(VmxCapabilities{model}, ModelError);
    };
    refused(R"({"without": ["secondary.enable_nothing"]})");
    refused(R"({"preemption_timer_rate": 32})");
    refused(R"({"cr3_targets": 5})");
    refused(R"({"with": []})");
    model.vmx = R"({"without": ["pin_based.nmi_exiting"], "cr3_targets": 1})";
    const VmxCapabilities c{model};
    CHECK(!c.may(pin_based::virtual_nmis)); // needs NMI exiting
    CHECK(!c.may(primary::nmi_window_exiting));
    CHECK(c.cr3_targets() == 1);
    CHECK(c.exists(VmcsField::cr3_target_value_0));
    CHECK(!c.exists(VmcsField::cr3_target_value_1));
}
