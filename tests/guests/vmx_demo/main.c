/* vmx_demo: a small hypervisor that runs a guest through the VM exits of VT-x, one after the other, and
 * checks everything that the processor records about each of them. Start reading at step.h. */
#include "console.h"
#include "guest_memory.h"
#include "host.h"
#include "step.h"
#include "vmx.h"

static void print_capabilities(void) {
    print("IA32_VMX_BASIC %x, IA32_VMX_MISC %x, IA32_VMX_EPT_VPID_CAP %x\n", vmx.basic, vmx.misc,
          vmx.ept_vpid_cap);
    print("may be 1: pin %x, primary %x, secondary %x, exit %x, entry %x\n", vmx.pin >> 32, vmx.primary >> 32,
          vmx.secondary >> 32, vmx.exit >> 32, vmx.entry >> 32);
}

void main(void) {
    console_open();
    host_idt_init();
    print("vmx_demo\n");
    const char* refused = vmx_enable();
    if (refused) {
        print("FAIL  no VMX operation: %s\n", refused);
        end_of_run(1);
    }
    print_capabilities();
    guest_memory_init();
    run_steps();
    print("\nvmx_demo: %d passed, %d failed, %d skipped\n", steps_passed, steps_failed, steps_skipped);
    end_of_run(steps_failed != 0);
}
