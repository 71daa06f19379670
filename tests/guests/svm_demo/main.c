/* svm_demo: a small hypervisor that runs a guest through the #VMEXITs of AMD-V, one after the other, and checks what
 * the processor records about each of them. Start reading at step.h. */
#include "console.h"
#include "host.h"
#include "local_apic.h"
#include "step.h"

void host_interrupt_50(void);
void host_sx(void);

void main(void) {
    console_open();
    host_idt_init();
    host_gate(SELF_VECTOR, host_interrupt_50);
    host_gate(30, host_sx);
    print("svm_demo\n");
    const char* refused = svm_enable();
    if (refused) {
        print("FAIL  no AMD-V: %s\n", refused);
        end_of_run(1);
    }
    print("CPUID 8000_000AH: EDX %x, %d ASIDs\n", (u64)svm_features, cpuid(0x8000000A, 0).ebx);
    run_steps();
    print("\nsvm_demo: %d passed, %d failed, %d skipped\n", steps_passed, steps_failed, steps_skipped);
    end_of_run(steps_failed != 0);
}
