/* Runs the steps and compares what happened with what the manual says. */
#include "console.h"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

u32 steps_passed, steps_failed, steps_skipped;
static u32 number;
static u32 mismatches; /* of the step that is being checked */

/* clang-format off */
const char* field_name(u64 field) {
    switch (field) {
#define FIELD(encoding, name) case encoding: return #name;
#include "vmcs_fields.inc"
    }
    return "(no field)";
}

const char* exit_reason_name(u64 basic_reason) {
    switch (basic_reason) {
#define EXIT_REASON(number, name) case number: return #name;
#include "exit_reasons.inc"
    }
    return "(unknown)";
}
/* clang-format on */

static u64 get(u64 field) {
    if (field < first_pseudo_field) return vmread(field);
    if (field == cr2) return read_cr2();
    if (field == dr6) return read_dr6();
    if (field >= stack0) return ((u64*)vmread(guest_rsp))[field - stack0];
    return guest_registers.r[field - rax];
}

static void set(u64 field, u64 value) {
    if (field < first_pseudo_field)
        vmwrite(field, value);
    else if (field == cr2)
        write_cr2(value);
    else if (field == dr6)
        write_dr6(value);
    else
        guest_registers.r[field - rax] = value;
}

/* Ends at the first row of zeros; so the field with encoding 0, the VPID, is for .prepare functions. */
static void set_all(const struct Setting* settings) {
    for (; settings->field; settings++) set(settings->field, settings->value);
}

static void complain(const struct Step* step) {
    if (!mismatches++)
        print("FAIL  %4d%28s %s\n", number,
              step->outcome == outcome_vm_exit ? exit_reason_name(step->reason) : "", step->title);
}

static void compare(const struct Step* step, const char* what, u64 is, u64 expected) {
    if (is == expected) return;
    complain(step);
    print("          %s is %x, expected %x\n", what, is, expected);
}

/* ---- before the entry ---- */

static struct Controls wanted(const struct Step* step) {
    return (struct Controls){step->pin, step->primary, step->secondary, step->exit, step->entry};
}

static void set_up(const struct Step* step) {
    if (step->start == start_fresh) {
        guest_memory_reset();
        vmcs_defaults();
        for (u32 i = 0; i < 16; i++) guest_registers.r[i] = 0;
        vmwrite(guest_rip, (u64)step->guest);
    }
    const struct Controls off = {
        .secondary = step->secondary_off, .exit = step->exit_off, .entry = step->entry_off};
    vmcs_controls(wanted(step), off);
    if (step->start == start_next) vmwrite(guest_rip, vmread(guest_rip) + vmread(vm_exit_instruction_length));
    set_all(step->before);
    if (step->prepare) step->prepare();
}

static enum VmxOutcome enter(const struct Step* step) {
    const u64 how = step->how == vmlaunch_after_mov_ss ? 2
                    : step->how == force_vmlaunch      ? 0
                    : step->how == force_vmresume      ? 1
                                                       : step->start != start_fresh;
    const u64 rflags = vm_enter(&guest_registers, how);
    enum { CF = 1, ZF = 64 };
    return rflags & CF ? vm_fail_invalid : rflags & ZF ? vm_fail_valid : vm_succeed;
}

/* ---- after the exit ---- */

/* Interruption or IDT-vectoring information with its error code. Bit 12 of IDT-vectoring information and
 * everything beside an invalid bit 31 are undefined. */
static void compare_event(const struct Step* step, u64 field, u32 expected, u64 error_field,
                          u32 expected_error) {
    u64 is = vmread(field);
    if (field == idt_vectoring_information) is &= ~BIT(12);
    if (!(expected >> 31)) is &= BIT(31);
    compare(step, field_name(field), is, expected);
    if (expected >> 31 && expected >> 11 & 1)
        compare(step, field_name(error_field), vmread(error_field), expected_error);
}

/* Advanced information about an EPT violation: clear where it is not offered, undefined where the access was
 * not to the translation of a linear address. */
static void compare_qualification(const struct Step* step) {
    u64 expected = step->qualification, undefined = step->qualification_undefined;
    if (step->reason == exit_ept_violation && !(expected & ept_translation))
        undefined |= ept_advanced_information;
    else if (step->reason == exit_ept_violation && !(vmx.ept_vpid_cap & ept_cap_advanced_information))
        expected &= ~ept_advanced_information;
    compare(step, field_name(exit_qualification), vmread(exit_qualification) & ~undefined,
            expected & ~undefined);
}

static void check_exit(const struct Step* step) {
    compare(step, field_name(exit_reason), vmread(exit_reason), step->reason);
    if (vmread(exit_reason) != step->reason)
        print("          %s, qualification %x, interruption information %x, RIP %x\n",
              exit_reason_name(vmread(exit_reason) & 0xFFFF), vmread(exit_qualification),
              vmread(vm_exit_interruption_information), vmread(guest_rip));
    compare_qualification(step);
    if (step->length)
        compare(step, field_name(vm_exit_instruction_length), vmread(vm_exit_instruction_length),
                step->length);
    compare_event(step, vm_exit_interruption_information, step->interruption, vm_exit_interruption_error_code,
                  step->interruption_error);
    compare_event(step, idt_vectoring_information, step->vectoring, idt_vectoring_error_code,
                  step->vectoring_error);
    compare(step, field_name(vm_exit_instruction_information),
            vmread(vm_exit_instruction_information) & step->information_defined, step->information);
    if (step->rf != rf_any)
        compare(step, "guest RFLAGS.RF", vmread(guest_rflags) >> 16 & 1, step->rf == rf_set);
    compare(step, "valid of vm_entry_interruption_information",
            vmread(vm_entry_interruption_information) >> 31, 0);
}

/* SDM 3C 26.7 "VM-Entry Failures During or After Loading Guest State": only reason and qualification are
 * written, the guest-state area and the injected event are not touched. */
static void check_entry_failure(const struct Step* step, u64 injected) {
    compare(step, field_name(exit_reason), vmread(exit_reason), step->reason);
    compare(step, field_name(exit_qualification), vmread(exit_qualification), step->qualification);
    compare(step, field_name(vm_entry_interruption_information), vmread(vm_entry_interruption_information),
            injected);
}

static void check_outcome(const struct Step* step, enum VmxOutcome outcome) {
    static const char* const names[] = {"VMsucceed", "VMfailInvalid", "VMfailValid"};
    const enum VmxOutcome expected = step->outcome == outcome_vm_fail_valid     ? vm_fail_valid
                                     : step->outcome == outcome_vm_fail_invalid ? vm_fail_invalid
                                                                                : vm_succeed;
    if (outcome != expected) {
        complain(step);
        print("          %s, expected %s\n", names[outcome], names[expected]);
    }
    if (outcome == vm_fail_valid)
        compare(step, field_name(vm_instruction_error), vmread(vm_instruction_error), step->error);
}

static void report(const struct Step* step) {
    if (mismatches) {
        steps_failed++;
        return;
    }
    steps_passed++;
    if (step->outcome == outcome_vm_exit)
        print("ok    %4d%28s %s  qual=%x len=%d\n", number, exit_reason_name(step->reason), step->title,
              vmread(exit_qualification), step->length);
    else if (step->outcome == outcome_entry_failure)
        print("ok    %4d%28s %s  qual=%x\n", number, exit_reason_name(step->reason & 0xFFFF), step->title,
              vmread(exit_qualification));
    else if (step->outcome == outcome_vm_fail_valid)
        print("ok    %4dVMfailValid %16d %s\n", number, step->error, step->title);
    else
        print("ok    %4d%28s %s\n", number,
              step->outcome == outcome_vm_fail_invalid ? "VMfailInvalid" : "VMsucceed", step->title);
}

static void run(const struct Step* step) {
    enum VmxOutcome outcome;
    u64 injected = 0, rip = 0;
    mismatches = 0;
    if (step->host) {
        vmcs_defaults();
        outcome = step->host();
    } else {
        set_up(step);
        injected = vmread(vm_entry_interruption_information);
        rip = vmread(guest_rip);
        outcome = enter(step);
    }
    check_outcome(step, outcome);
    if (outcome == vm_succeed && !mismatches && step->outcome == outcome_vm_exit)
        check_exit(step);
    else if (outcome == vm_succeed && !mismatches && step->outcome == outcome_entry_failure)
        check_entry_failure(step, injected);
    if (outcome == vm_succeed && !step->host)
        compare(step, field_name(guest_rip), vmread(guest_rip),
                step->outcome == outcome_vm_exit && (step->at || step->start == start_fresh) ? (u64)step->at
                                                                                             : rip);
    for (const struct Setting* setting = step->after; setting->field; setting++)
        compare(step, field_name(setting->field), get(setting->field), setting->value);
    const char* wrong = step->check ? step->check() : 0;
    if (wrong) {
        complain(step);
        print("          %s\n", wrong);
    }
    report(step);
}

void run_steps(void) {
    const char* group = 0;
    int skipping = 0;
    for (const struct Step* const* p = steps_begin; p < steps_end; p++) {
        const struct Step* step = *p;
        if (step->group != group) print("\n%s\n", group = step->group);
        number++;
        /* What continues a skipped step is skipped with it. */
        skipping = (skipping && step->start != start_fresh && !step->host) ||
                   !controls_on_offer(wanted(step)) || (step->available && !step->available());
        if (skipping) {
            steps_skipped++;
            print("skip  %4d%s: not offered by this processor\n", number, step->title);
            continue;
        }
        run(step);
    }
}
