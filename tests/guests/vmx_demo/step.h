/* A step is one VM entry and the VM exit (or failure) that the manual says must follow.
 *
 * STEP(id, title, guest code, ...) starts afresh: a cleared VMCS with the defaults of vmcs_defaults(), the
 * EPT and guest memory as in guest_memory.c, then what the row asks for. NEXT and AGAIN go on in the same
 * guest after the last exit, behind the instruction that exited or at it.
 *
 * Guest code is Intel syntax, one instruction a line. The label "9:" marks the instruction at which the exit
 * is expected (without it: the first one), "8:" and "7:" those of steps that follow: second(id), third(id).
 *
 * What a row leaves out is checked as well: the qualification must be 0, interruption information and
 * IDT-vectoring information invalid, RFLAGS.RF 0, "valid" in the VM-entry interruption information cleared.
 */
#pragma once

#include "vmcs.h"

/* A VMCS field or pseudo-field with a value: written before entry, compared after exit. */
struct Setting {
    u64 field, value;
};

enum Start { start_fresh, start_next, start_again };
enum Outcome {
    outcome_vm_exit,
    outcome_entry_failure,
    outcome_vm_fail_valid,
    outcome_vm_fail_invalid,
    outcome_vm_succeed
};
enum RfExpectation { rf_clear, rf_set, rf_any };
enum How { launch_or_resume, force_vmlaunch, force_vmresume, vmlaunch_after_mov_ss };

struct Step {
    const char *group, *title;
    enum Start start;
    const u8* guest;

    /* what is needed: controls to be 1 (the step is skipped where the capability MSRs do not allow them),
     * controls of the defaults to be 0, anything else that must be on offer */
    u32 pin, primary, secondary, exit, entry;
    u32 secondary_off, exit_off, entry_off;
    int (*available)(void);

    struct Setting before[12];
    void (*prepare)(void);
    enum How how;
    enum VmxOutcome (*host)(void); /* instead of VM entry: VMX instructions in the host */

    /* what must follow */
    enum Outcome outcome;
    u32 error; /* VM-instruction error */
    u32 reason;
    const u8* at; /* guest RIP */
    u64 qualification, qualification_undefined;
    u32 length; /* VM-exit instruction length; 0 where the manual leaves it undefined */
    u32 interruption, interruption_error;
    u32 vectoring, vectoring_error;
    u32 information, information_defined;
    enum RfExpectation rf;
    struct Setting after[8];
    const char* (*check)(void); /* null, or what is wrong */
};

#define STEP_POINTER(id)                                                                                     \
    static const struct Step* const step_pointer_##id __attribute__((section(".steps." STEPS_FILE), used)) = \
        &step_##id;

#define STEP(id, text, code, ...)                                                                   \
    __asm__(".pushsection .guest, \"ax\"\n.intel_syntax noprefix\n.balign 16\n7: 8: 9:\nguest_" #id \
            ":\n" code "\nud2\n.set at_" #id ", 9b\n.set second_" #id ", 8b\n.set third_" #id       \
            ", 7b\n.att_syntax prefix\n.popsection");                                               \
    extern const u8 guest_##id[], at_##id[], second_##id[], third_##id[];                           \
    static const struct Step step_##id = {                                                          \
        .group = GROUP, .title = text, .guest = guest_##id, .at = at_##id, __VA_ARGS__};            \
    STEP_POINTER(id)

#define NEXT(id, text, ...) CONTINUATION(id, text, start_next, __VA_ARGS__)
#define AGAIN(id, text, ...) CONTINUATION(id, text, start_again, __VA_ARGS__)
#define CONTINUATION(id, text, how_to_start, ...)                           \
    static const struct Step step_##id = {                                  \
        .group = GROUP, .title = text, .start = how_to_start, __VA_ARGS__}; \
    STEP_POINTER(id)

/* A step without a guest: `function` runs in the host. */
#define HOST_STEP(id, text, function, ...)                                                               \
    static const struct Step step_##id = {.group = GROUP, .title = text, .host = function, __VA_ARGS__}; \
    STEP_POINTER(id)

#define guest(id) guest_##id
#define second(id) second_##id
#define third(id) third_##id

extern const struct Step *const steps_begin[], *const steps_end[];

void run_steps(void);

/* Counts of the run. */
extern u32 steps_passed, steps_failed, steps_skipped;
