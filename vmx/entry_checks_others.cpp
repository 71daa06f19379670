// The words of the rules that VM entry does not evaluate as predicates over the VMCS: SDM 3C 26.1 "Basic
// VM-Entry Checks", 26.3.1.6 "Checks on Guest Page-Directory-Pointer-Table Entries", 26.4 "Loading MSRs".
// entry.cpp and msr_lists.cpp evaluate them.
#include "vmx/entry_checks.hpp"

#include <array>

namespace exeunt {

namespace {

using F = VmcsField;

constexpr std::string_view basic = "SDM 3C 26.1", pdptes = "SDM 3C 26.3.1.6", loading = "SDM 3C 26.4";
constexpr RuleFields list = on(F::vm_entry_msr_load_address, F::vm_entry_msr_load_count);

constexpr std::array rows{
    EntryCheck{"basic.current_vmcs", basic, "there is a current VMCS", {}, nullptr},
    EntryCheck{"basic.shadow_vmcs", basic, "the current VMCS is not a shadow VMCS", {}, nullptr},
    EntryCheck{"basic.blocking_by_mov_ss", basic, "events are not blocked by MOV SS", {}, nullptr},
    EntryCheck{"basic.launch_state_clear", basic, "VMLAUNCH: the launch state is clear", {}, nullptr},
    EntryCheck{"basic.launch_state_launched", basic, "VMRESUME: the launch state is launched", {}, nullptr},
    EntryCheck{
        "guest.pdptes.reserved_bits", pdptes, "PAE paging: reserved bits of PDPTEs that are present are 0",
        on(F::guest_cr3, F::guest_pdpte0, F::guest_pdpte1, F::guest_pdpte2, F::guest_pdpte3).in_memory(),
        nullptr},
    EntryCheck{"msr_load.fs_gs_base", loading, "the list holds neither IA32_FS_BASE nor IA32_GS_BASE", list,
               nullptr},
    EntryCheck{"msr_load.x2apic", loading, "the list holds no MSR of the x2APIC (8xxH)", list, nullptr},
    EntryCheck{"msr_load.smm_only", loading, "outside SMM the list does not hold IA32_SMM_MONITOR_CTL", list,
               nullptr},
    EntryCheck{"msr_load.model_specific", loading,
               "the list holds no MSR that model-specific reasons exclude (microcode updates)", list,
               nullptr},
    EntryCheck{"msr_load.bits_63_32", loading, "bits 63:32 of an entry of the list are 0", list, nullptr},
    EntryCheck{"msr_load.wrmsr", loading, "WRMSR of the entry's value at CPL 0 would not fault", list,
               nullptr},
};

} // namespace

std::span<const EntryCheck> explained_checks() { return rows; }

} // namespace exeunt
