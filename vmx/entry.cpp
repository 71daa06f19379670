// VMLAUNCH and VMRESUME in the manual's order. SDM 3C ch. 26 "VM Entries".
#include "vmx/exit_qualification.hpp"
#include "vmx/vmx.hpp"

#include "base/ensure.hpp"

namespace exeunt {

using F = VmcsField;

/// The first rule that does not hold, in the manual's order, or nullptr. Rules whose inputs have not changed
/// since they last held are not evaluated again.
const EntryCheck* Vmx::first_violation(const EntryContext& context, EntryConsequence& consequence) {
    const u32 unchecked = current_->unchecked();
    for (const EntryCheckSet& set : entry_check_sets()) {
        if (set.group ? !(unchecked & set.group) : false) continue;
        if (set.injection_only && !context.injects()) continue;
        if (set.checks.data() == guest_non_register_checks().data() && usual_non_register_state(context))
            continue;
        for (const EntryCheck& check : set.checks)
            if (!check.holds(context)) [[unlikely]] {
                consequence = set.consequence;
                return &check;
            }
    }
    current_->passed(CheckGroup::all);
    return nullptr;
}

/// For observers: all rules that are violated, the one that refused among them.
std::vector<RuleViolation> Vmx::violations(std::string_view refused_by) const {
    std::vector<RuleViolation> all;
    const EntryCheck* other = find_entry_check(refused_by);
    const bool outside_of_sets = other && !other->holds;
    if (outside_of_sets && other->fields.restricted.empty())
        all.push_back({.rule = other->id, .allowed = {}, .writer = {}});
    if (!current_ || current_->shadow()) return all;
    const bool lma = cpu_.in_guest ? current_->checked_lma : cpu_.long_mode_active();
    const EntryContext context(*current_, capabilities_, cpu_.memory, lma, cpu_.in_smm);
    const auto add = [&](const EntryCheck& check, const auto& fields) {
        const AllowedBits bits = check.fields.allowed ? check.fields.allowed(context) : AllowedBits{};
        for (const VmcsField f : fields)
            all.push_back({check.id, row_of(f).encoding, field(f), bits, current_->writer(f)});
    };
    if (outside_of_sets) add(*other, other->fields.restricted);
    for (const Violation& violation : violated_rules(context)) add(*violation.check, violation.fields);
    return all;
}

/// VMfail, with the rule that refused.
Result<void> Vmx::refuse_entry(InstructionError error, std::string_view check) {
    last_refusal_ = check;
    if (cpu_.observer) {
        const std::vector<RuleViolation> violated = violations(check);
        cpu_.observer->vm_entry_failure(cpu_.index, cpu_.now(),
                                        {.rip = cpu_.rip,
                                         .instruction_error = static_cast<u32>(error),
                                         .check = check,
                                         .violations = violated});
    }
    return error == InstructionError{} ? fail_invalid() : fail(error);
}

/// 26.7 "VM-Entry Failures During or After Loading Guest State".
Stop Vmx::fail_entry(ExitReason reason, u64 qualification, std::string_view check, u64 rip) {
    last_refusal_ = check;
    const u32 full_reason = static_cast<u32>(reason) | exit_reason_entry_failure;
    current_->put(F::exit_reason, full_reason);
    current_->put(F::exit_qualification, qualification);
    if (cpu_.observer) {
        const std::vector<RuleViolation> violated = violations(check);
        cpu_.observer->vm_entry_failure(cpu_.index, cpu_.now(),
                                        {.rip = rip,
                                         .reason = full_reason,
                                         .qualification = qualification,
                                         .check = check,
                                         .violations = violated});
    }
    load_host_state(nmi_blocking_before_entry_);
    if (!operating_) return stopped(Stop::Kind::world_switch); // VMX abort
    const u64 loads = field(F::vm_exit_msr_load_count);
    std::string_view refused;
    if (loads != 0 && load_msrs(field(F::vm_exit_msr_load_address), loads, refused) != 0)
        return abort(VmxAbort::loading_host_msrs);
    return stopped(Stop::Kind::world_switch);
}

Result<void> Vmx::enter(bool launch) {
    // 26.1 "Basic VM-Entry Checks"; #UD and the exit were the row's.
    TRY(require_cpl0());
    if (!current_) return refuse_entry(InstructionError{}, "basic.current_vmcs");
    if (current_->shadow()) return refuse_entry(InstructionError{}, "basic.shadow_vmcs");
    if (cpu_.shadow == Shadow::mov_ss)
        return refuse_entry(InstructionError::vm_entry_with_events_blocked_by_mov_ss,
                            "basic.blocking_by_mov_ss");
    if (launch && current_->launched())
        return refuse_entry(InstructionError::vmlaunch_with_non_clear_vmcs, "basic.launch_state_clear");
    if (!launch && !current_->launched())
        return refuse_entry(InstructionError::vmresume_with_non_launched_vmcs, "basic.launch_state_launched");

    const bool lma = cpu_.long_mode_active();
    if (lma != current_->checked_lma) current_->mark(CheckGroup::host);
    current_->checked_lma = lma;
    const bool controls_changed = current_->unchecked() & CheckGroup::controls;
    const EntryContext context(*current_, capabilities_, cpu_.memory, lma, cpu_.in_smm);
    EntryConsequence consequence{};
    const EntryCheck* violated = first_violation(context, consequence);
    if (controls_changed) derive_controls();
    if (violated && consequence == EntryConsequence::vmfail_controls)
        return refuse_entry(InstructionError::vm_entry_with_invalid_control_fields, violated->id);
    if (violated && consequence == EntryConsequence::vmfail_host)
        return refuse_entry(InstructionError::vm_entry_with_invalid_host_state_fields, violated->id);

    const u64 rip = cpu_.rip;
    nmi_blocking_before_entry_ = cpu_.nmi_blocked;
    if (violated)
        return fail_entry(ExitReason::vm_entry_failure_invalid_guest_state, violated->qualification,
                          violated->id, rip);
    if (!load_guest_pdptes())
        return fail_entry(ExitReason::vm_entry_failure_invalid_guest_state, EntryFailureQualification::pdptes,
                          "guest.pdptes.reserved_bits", rip);

    note_translation_rights();
    load_guest_state();
    cpu_.in_guest = true;
    cpu_.intercepted = current_->derived.intercepted;
    cpu_.undefined = current_->derived.undefined;
    select_guest_translations();
    // 26.4 "Loading MSRs".
    if (const u64 loads = field(F::vm_entry_msr_load_count)) {
        std::string_view check;
        const u32 entry = load_msrs(field(F::vm_entry_msr_load_address), loads, check);
        if (entry != 0) return fail_entry(ExitReason::vm_entry_failure_msr_loading, entry, check, rip);
    }
    load_guest_non_register_state();
    cpu_.mode_changed();
    complete_entry(launch);
    return inject();
}

/// The entry can not fail any more.
void Vmx::complete_entry(bool launch) {
    last_refusal_ = {};
    if (launch) current_->set_launched();
    const u64 event = field(F::vm_entry_interruption_information);
    const bool valid = event >> 31;
    if (cpu_.observer) {
        EntryRecord record{.rip = cpu_.rip, .launch = launch};
        if (valid) {
            record.interruption_information = static_cast<u32>(event);
            record.interruption_error =
                event & bit(11) ? static_cast<u32>(field(F::vm_entry_exception_error_code)) : 0;
            const u64 type = extract(event, 10, 8);
            if (type >= 4 && type <= 6)
                record.instruction_length = static_cast<u32>(field(F::vm_entry_instruction_length));
        }
        cpu_.observer->vm_entry(cpu_.index, cpu_.now(), record);
    }
    arm_timers(valid);
    arm_virtual_apic();
    cpu_.attention();
}

} // namespace exeunt
