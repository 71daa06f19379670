// The rules of VM entry as rows: id, citation, what must hold, and the predicate. SDM 3C 26.2 "Checks on VMX
// Controls and Host-State Area", 26.3.1 "Checks on the Guest State Area".
//
// The rows are evaluated in the order of the manual, which lets controls and host-state area be checked in
// any order (26.2) and the guest-state area too (26.3.1); ours is the order of the rows. The same rows serve
// VM entry, the explanation of a refusal and the check of a dump.
//
// Not modelled: entry to SMM and deactivation of dual-monitor treatment (their controls are not offered, so
// that "reserved bits" refuses them), and the rows of features that are not offered.
#pragma once

#include "vmx/capabilities.hpp"
#include "vmx/vmcs.hpp"

#include <span>
#include <string_view>
#include <vector>

namespace exeunt {

/// All that the rules read.
struct EntryContext {
    EntryContext(const Vmcs& v, const VmxCapabilities& c, PhysicalMemory& m, bool lma_now, bool smm = false);

    const Vmcs& vmcs;
    const VmxCapabilities& caps;
    PhysicalMemory& memory;
    bool lma; ///< IA32_EFER.LMA at the time of VM entry
    bool in_smm;

    // The controls in effect: 0 where the control that activates them is 0.
    u64 pin_based, primary, secondary, vm_exit, vm_entry, vm_function;
    // Guest state that many rules look at.
    u64 cr0, rflags;

    u64 operator[](VmcsField field) const { return vmcs[field]; }
    bool unrestricted() const { return secondary & secondary::unrestricted_guest; }
    bool ia_32e_guest() const { return vm_entry & vm_entry::ia_32e_mode_guest; }
    bool v8086() const { return (rflags >> 17) & 1; }
    /// The event that VM entry injects: bit 31 is "valid".
    u64 event() const { return vmcs[VmcsField::vm_entry_interruption_information]; }
    bool injects() const { return (event() >> 31) & 1; }
    unsigned event_type() const { return static_cast<unsigned>(event() >> 8) & 7; }
    unsigned event_vector() const { return static_cast<unsigned>(event()) & 0xFF; }
    bool within_physical_width(u64 address) const { return (address >> caps.physical_bits()) == 0; }
    bool canonical(u64 address) const { return sign_extend(address, caps.linear_bits()) == address; }
};

struct EntryCheck {
    std::string_view id;
    std::string_view citation;
    std::string_view rule; ///< what must hold
    bool (*holds)(const EntryContext&);
    u64 qualification = 0; ///< guest rules: exit qualification of the entry failure
};

/// What a broken rule of a set leads to.
enum class EntryConsequence : u8 { vmfail_controls, vmfail_host, entry_failure };

/// Rules that share a citation's chapter, a consequence and the inputs on which they depend.
struct EntryCheckSet {
    EntryConsequence consequence;
    u32 group;           ///< CheckGroup: skipped when none of it is unchecked; 0: evaluated at every entry
    bool injection_only; ///< skipped when the entry injects nothing
    std::span<const EntryCheck> checks;
};

/// All sets in the order of the manual.
std::span<const EntryCheckSet> entry_check_sets();

/// Every rule that is violated, in order; for explanations.
struct Violation {
    const EntryCheckSet* set;
    const EntryCheck* check;
};
std::vector<Violation> violated_rules(const EntryContext& context);

// The sets' rows (entry_checks_controls.cpp, entry_checks_host.cpp, entry_checks_guest.cpp).
std::span<const EntryCheck> execution_control_checks();
std::span<const EntryCheck> tpr_threshold_checks();
std::span<const EntryCheck> exit_control_checks();
std::span<const EntryCheck> entry_control_checks();
std::span<const EntryCheck> injection_checks();
std::span<const EntryCheck> entry_msr_list_checks();
std::span<const EntryCheck> host_checks();
std::span<const EntryCheck> guest_register_checks();
std::span<const EntryCheck> guest_segment_checks();
std::span<const EntryCheck> guest_rip_checks();
std::span<const EntryCheck> guest_non_register_checks();

/// Whether the non-register state is the usual one, for which every row of guest_non_register_checks() holds.
bool usual_non_register_state(const EntryContext& context);

/// IA32_PAT: every byte is a memory type that exists. SDM 3A 11.12.2.
bool valid_pat(u64 pat);
/// PDPTEs of a PAE guest: reserved bits of those that are present. SDM 3C 26.3.1.6.
bool valid_pdpte(u64 pdpte, unsigned physical_bits);

} // namespace exeunt
