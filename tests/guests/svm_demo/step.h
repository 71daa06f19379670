/* A step is one VMRUN and the #VMEXIT that the manual says must follow.
 *
 * STEP(id, title, guest code, ...): the VMCB is that of vmcb_defaults(), then what the row asks for. The label "9:"
 * marks the instruction at which RIP must be (without it: the first one). What a row leaves out is checked as well:
 * nRIP, and EXITINFO1 and EXITINFO2 where the manual defines them, must be 0; EXITINTINFO invalid. */
#pragma once

#include "svm.h"

struct Setting {
    u64 field, value;
};

struct Step {
    const char *group, *title;
    const u8 *guest, *at;
    u32 feature;     /* bit of CPUID 8000_000AH:EDX plus 1: skipped without it */
    int (*available)(void);
    u64 code;        /* the exit; also intercepted, unless it is none that can be, or `intercept` is another */
    u64 intercept;   /* one more */
    struct Setting before[8];
    void (*prepare)(void);
    u64 info1, info2, exitintinfo_;
    u32 length;      /* nRIP less RIP */
    struct Setting after[4];
    const char* (*check)(void); /* null, or what is wrong */
};

#define STEP(id, text, code_, ...)                                                                                \
    __asm__(".pushsection .guest, \"ax\"\n.intel_syntax noprefix\n.balign 16\n9:\nguest_" #id ":\n" code_         \
            "\nud2\n.set at_" #id ", 9b\n.att_syntax prefix\n.popsection");                                       \
    extern const u8 guest_##id[], at_##id[];                                                                      \
    static const struct Step step_##id = {                                                                        \
        .group = GROUP, .title = text, .guest = guest_##id, .at = at_##id, __VA_ARGS__};                          \
    static const struct Step* const step_pointer_##id __attribute__((section(".steps." STEPS_FILE), used)) =      \
        &step_##id;

extern const struct Step *const steps_begin[], *const steps_end[];
/* Where the guest's handler of a vector starts; every handler is VMMCALL, then IRETQ. */
extern const u8 guest_vectors[];
#define HANDLER(vector) (guest_vectors + 16 * (vector))

void run_steps(void);
extern u32 steps_passed, steps_failed, steps_skipped;
