#include "vmx/entry_checks.hpp"

namespace exeunt {

EntryContext::EntryContext(const Vmcs& v, const VmxCapabilities& c, PhysicalMemory& m, bool lma_now, bool smm)
    : vmcs(v), caps(c), memory(m), lma(lma_now), in_smm(smm) {
    pin_based = v[VmcsField::pin_based_vm_execution_controls];
    primary = v[VmcsField::primary_processor_based_vm_execution_controls];
    secondary = primary & primary::activate_secondary_controls
                    ? v[VmcsField::secondary_processor_based_vm_execution_controls]
                    : 0;
    tertiary = primary & primary::activate_tertiary_controls
                   ? v[VmcsField::tertiary_processor_based_vm_execution_controls]
                   : 0;
    vm_exit = v[VmcsField::primary_vm_exit_controls];
    vm_entry = v[VmcsField::vm_entry_controls];
    vm_function = secondary & secondary::enable_vm_functions ? v[VmcsField::vm_function_controls] : 0;
    cr0 = v[VmcsField::guest_cr0];
    rflags = v[VmcsField::guest_rflags];
}

std::span<const EntryCheckSet> entry_check_sets() {
    using enum EntryConsequence;
    static const EntryCheckSet sets[] = {
        {vmfail_controls, CheckGroup::controls, false, execution_control_checks()},
        {vmfail_controls, CheckGroup::controls, false, apic_virtualization_checks()},
        {vmfail_controls, 0, false, tpr_threshold_checks()},
        {vmfail_controls, CheckGroup::controls, false, exit_control_checks()},
        {vmfail_controls, CheckGroup::controls, false, entry_control_checks()},
        {vmfail_controls, 0, true, injection_checks()},
        {vmfail_controls, CheckGroup::controls, false, entry_msr_list_checks()},
        {vmfail_host, CheckGroup::host, false, host_checks()},
        {entry_failure, CheckGroup::guest_registers, false, guest_register_checks()},
        {entry_failure, CheckGroup::guest_segments, false, guest_segment_checks()},
        {entry_failure, 0, false, guest_rip_checks()},
        {entry_failure, 0, false, guest_non_register_checks()},
    };
    return sets;
}

bool EntryContext::canonical(const FieldList& fields) const {
    bool all = true;
    for (const VmcsField field : fields)
        if (!canonical(vmcs[field])) {
            all = false;
            blame(field);
        }
    return all;
}

std::vector<VmcsField> wrong_fields(const EntryCheck& check, const EntryContext& context) {
    const FieldList& restricted = check.fields.restricted;
    std::vector<VmcsField> blamed, wrong;
    EntryContext asking = context;
    asking.blamed = &blamed;
    if (check.holds) check.holds(asking);
    for (const VmcsField field : restricted) {
        const bool named = std::find(blamed.begin(), blamed.end(), field) != blamed.end();
        const bool bits = check.fields.allowed && !check.fields.allowed(context).allow(context[field]);
        if (blamed.empty() ? bits : named) wrong.push_back(field);
    }
    if (wrong.empty()) wrong.assign(restricted.begin(), restricted.end());
    return wrong;
}

std::vector<Violation> violated_rules(const EntryContext& context) {
    std::vector<Violation> violations;
    for (const EntryCheckSet& set : entry_check_sets()) {
        if (set.injection_only && !context.injects()) continue;
        for (const EntryCheck& check : set.checks)
            if (!check.holds(context))
                violations.push_back({set.consequence, &check, wrong_fields(check, context)});
    }
    return violations;
}

const EntryCheck* find_entry_check(std::string_view id) {
    const auto find = [id](std::span<const EntryCheck> checks) -> const EntryCheck* {
        const auto found = std::find_if(checks.begin(), checks.end(), [id](auto& c) { return c.id == id; });
        return found == checks.end() ? nullptr : &*found;
    };
    for (const EntryCheckSet& set : entry_check_sets())
        if (const EntryCheck* check = find(set.checks)) return check;
    return find(explained_checks());
}

bool valid_pat(u64 pat) {
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = extract(pat, 8 * i + 7, 8 * i);
        if (type > 7 || type == 2 || type == 3) return false;
    }
    return true;
}

bool valid_pdpte(u64 pdpte, unsigned physical_bits) {
    const u64 reserved = extract(~u64{0}, 2, 1) << 1 | extract(~u64{0}, 8, 5) << 5 | ~low_mask(physical_bits);
    return !(pdpte & 1) || (pdpte & reserved) == 0;
}

} // namespace exeunt
