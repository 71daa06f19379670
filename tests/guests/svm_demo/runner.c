/* Runs the steps and compares what happened with what the manual says. */
#include "console.h"
#include "step.h"

u32 steps_passed, steps_failed, steps_skipped;
static u32 number, mismatches;

static void compare(const struct Step* step, const char* what, u64 is, u64 expected) {
    if (is == expected) return;
    if (!mismatches++) print("FAIL  %4d%20s %s\n", number, exit_code_name(step->code), step->title);
    print("          %s is %x, expected %x\n", what, is, expected);
}

enum { NRIPS = 1 << 3, DecodeAssists = 1 << 7 };

/* Of the other exits the manual leaves EXITINFO1 and EXITINFO2 undefined (APM 2 App. C); of some it defines them with
 * decode assists only (15.8). */
static int information_defined(u64 code) {
    if (code < VMEXIT_EXCP0) return svm_features & DecodeAssists;
    switch (code) {
    case VMEXIT_CR0_SEL_WRITE:
    case VMEXIT_SWINT:
    case VMEXIT_INVLPG: return svm_features & DecodeAssists;
    case VMEXIT_EXCP0 + 11:
    case VMEXIT_EXCP0 + 12:
    case VMEXIT_EXCP0 + 13:
    case VMEXIT_EXCP0 + 14:
    case VMEXIT_EXCP0 + 17:
    case VMEXIT_IOIO:
    case VMEXIT_MSR:
    case VMEXIT_TASK_SWITCH:
    case VMEXIT_SMI:
    case VMEXIT_NPF:
    case VMEXIT_AVIC_INCOMPLETE_IPI:
    case VMEXIT_AVIC_NOACCEL: return 1;
    }
    return 0;
}

static int second_information_defined(u64 code) {
    return code == VMEXIT_EXCP0 + 14 || code == VMEXIT_IOIO || code == VMEXIT_TASK_SWITCH || code >= VMEXIT_NPF;
}

static void run(const struct Step* step) {
    mismatches = 0;
    vmcb_defaults(step->guest);
    if (step->code < VMEXIT_NPF) intercept(step->code);
    if (step->intercept) intercept(step->intercept);
    for (const struct Setting* s = step->before; s->field; s++) set(s->field, s->value);
    if (step->prepare) step->prepare();
    vm_run(&registers, (u64)vmcb, (u64)host_area);
    compare(step, "exitcode", get(exitcode), step->code);
    if (!mismatches && step->code != VMEXIT_SHUTDOWN && step->code != VMEXIT_INVALID) {
        compare(step, "rip", get(rip), (u64)step->at);
        if (information_defined(step->code)) compare(step, "exitinfo1", get(exitinfo1), step->info1);
        if (information_defined(step->code) && second_information_defined(step->code))
            compare(step, "exitinfo2", get(exitinfo2), step->info2);
        const u64 event = get(exitintinfo);
        compare(step, "exitintinfo", event & VALID ? event : 0, step->exitintinfo_);
        if (step->length && svm_features & NRIPS)
            compare(step, "nrip", get(nrip), (u64)step->at + step->length);
        compare(step, "eventinj.v", get(eventinj) >> 31 & 1, 0);
        for (const struct Setting* s = step->after; s->field; s++)
            if (s->field != bytes_fetched || svm_features & DecodeAssists)
                compare(step, "a field", get(s->field), s->value);
    }
    const char* wrong = step->check ? step->check() : 0;
    if (wrong) compare(step, wrong, 0, 1);
    if (mismatches) {
        steps_failed++;
        return;
    }
    steps_passed++;
    print("ok    %4d%20s %s  info1=%x\n", number, exit_code_name(step->code), step->title,
          information_defined(step->code) ? step->info1 : 0);
}

void run_steps(void) {
    const char* group = 0;
    for (const struct Step* const* p = steps_begin; p < steps_end; p++) {
        const struct Step* step = *p;
        if (step->group != group) print("\n%s\n", group = step->group);
        number++;
        if ((step->feature && !(svm_features >> (step->feature - 1) & 1)) ||
            (step->available && !step->available())) {
            steps_skipped++;
            print("skip  %4d%20s %s: not offered by this processor\n", number, exit_code_name(step->code), step->title);
            continue;
        }
        run(step);
    }
}
