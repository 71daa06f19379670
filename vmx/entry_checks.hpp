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

#include "arch/allowed_bits.hpp"
#include "vmx/capabilities.hpp"
#include "vmx/vmcs.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace exeunt {

/// A few fields, written as {F::guest_cr0, F::guest_cr4}.
class FieldList {
public:
    constexpr FieldList() = default;
    constexpr FieldList(std::initializer_list<VmcsField> fields) {
        for (const VmcsField field : fields) fields_[count_++] = field;
    }
    constexpr const VmcsField* begin() const { return fields_.data(); }
    constexpr const VmcsField* end() const { return fields_.data() + count_; }
    constexpr bool empty() const { return count_ == 0; }
    constexpr bool contains(VmcsField field) const { return std::find(begin(), end(), field) != end(); }

private:
    std::array<VmcsField, 12> fields_{};
    u8 count_ = 0;
};

/// All that the rules read.
struct EntryContext {
    EntryContext(const Vmcs& v, const VmxCapabilities& c, PhysicalMemory& m, bool lma_now, bool smm = false);

    const Vmcs& vmcs;
    const VmxCapabilities& caps;
    PhysicalMemory& memory;
    bool lma; ///< IA32_EFER.LMA at the time of VM entry
    bool in_smm;

    // The controls in effect: 0 where the control that activates them is 0.
    u64 pin_based, primary, secondary, tertiary, vm_exit, vm_entry, vm_function;
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
    /// The same for several fields; those that are not canonical are blamed.
    bool canonical(const FieldList& fields) const;

    /// Where an explanation gathers which of a rule's fields are wrong; null: nobody asks.
    std::vector<VmcsField>* blamed = nullptr;
    void blame(VmcsField field) const {
        if (blamed) blamed->push_back(field);
    }
};

/// What a rule is about, for explanations:
/// on(F::ept_pointer).given(F::vm_entry_controls).bits(allowed::page).
struct RuleFields {
    FieldList restricted;   ///< the fields that it restricts
    FieldList depends = {}; ///< those that say whether, and how
    AllowedBits (*allowed)(const EntryContext&) =
        nullptr;               ///< where it is about bits of each restricted field
    bool reads_memory = false; ///< what the fields hold does not decide alone

    template <class... Fields>
    constexpr RuleFields given(Fields... fields) const {
        return {restricted, {fields...}, allowed, reads_memory};
    }
    constexpr RuleFields bits(AllowedBits (*function)(const EntryContext&)) const {
        return {restricted, depends, function, reads_memory};
    }
    constexpr RuleFields in_memory() const { return {restricted, depends, allowed, true}; }
};
constexpr RuleFields on(std::same_as<VmcsField> auto... fields) { return {.restricted = {fields...}}; }

struct EntryCheck {
    std::string_view id;
    std::string_view citation;
    std::string_view rule; ///< what must hold
    RuleFields fields;
    bool (*holds)(const EntryContext&); ///< null in a row that only explains (explained_checks())
    u64 qualification = 0;              ///< guest rules: exit qualification of the entry failure
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

/// A rule that is violated, and those of its restricted fields that are wrong.
struct Violation {
    EntryConsequence consequence;
    const EntryCheck* check;
    std::vector<VmcsField> fields;
};
/// Every rule that is violated, in order; for explanations.
std::vector<Violation> violated_rules(const EntryContext& context);
/// Those of the rule's restricted fields that are wrong; all of them where that can not be told apart.
std::vector<VmcsField> wrong_fields(const EntryCheck& check, const EntryContext& context);
/// The rule of this id, also one that VM entry evaluates outside of the sets; null: there is none.
const EntryCheck* find_entry_check(std::string_view id);

/// Bits that rules allow, for RuleFields::allowed.
namespace allowed {
template <unsigned high, unsigned low>
AllowedBits clear(const EntryContext&) {
    return {0, ~(low_mask(high + 1) & ~low_mask(low))};
}
template <unsigned bits>
AllowedBits low(const EntryContext&) {
    return {0, low_mask(bits)};
}
template <ControlGroup group>
AllowedBits controls(const EntryContext& e) {
    return {e.caps.must_be_1(group), e.caps.may_be_1(group)};
}
inline AllowedBits physical(const EntryContext& e) { return {0, low_mask(e.caps.physical_bits())}; }
inline AllowedBits page_aligned(const EntryContext&) { return {0, ~u64{0xFFF}}; }
inline AllowedBits page(const EntryContext& e) { return {0, low_mask(e.caps.physical_bits()) & ~u64{0xFFF}}; }
inline AllowedBits cr4(const EntryContext& e) { return {e.caps.cr4_fixed0(), e.caps.cr4_fixed1()}; }
inline AllowedBits perf_global_ctrl(const EntryContext& e) { return {0, e.caps.perf_global_ctrl_bits()}; }
inline AllowedBits efer(const EntryContext& e) { return {0, e.caps.efer_bits()}; }
} // namespace allowed

// The sets' rows (entry_checks_controls.cpp, entry_checks_host.cpp, entry_checks_guest.cpp).
std::span<const EntryCheck> execution_control_checks();
std::span<const EntryCheck> apic_virtualization_checks();
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
/// Rules that VM entry evaluates by other means (entry.cpp, msr_lists.cpp): their words.
std::span<const EntryCheck> explained_checks();

/// Whether the non-register state is the usual one, for which every row of guest_non_register_checks() holds.
bool usual_non_register_state(const EntryContext& context);

/// IA32_PAT: every byte is a memory type that exists. SDM 3A 11.12.2.
bool valid_pat(u64 pat);
/// PDPTEs of a PAE guest: reserved bits of those that are present. SDM 3C 26.3.1.6.
bool valid_pdpte(u64 pdpte, unsigned physical_bits);

} // namespace exeunt
