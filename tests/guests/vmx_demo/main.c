/* vmx_demo: a small hypervisor that runs a guest through the VM exits of VT-x, one after the other, and
 * checks everything that the processor records about each of them. Start reading at step.h. */
#include "console.h"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

extern u64 host_idt[];
extern const u8 host_exception_stubs[];

/* Vector, error code, RIP, ... as the stubs in boot.S pushed them. */
_Noreturn void host_exception(const u64* frame);
void host_exception(const u64* frame) {
    print("\nFAIL  exception %d in the host, error code %x, RIP %x, CR2 %x\n", (u32)frame[0], frame[1],
          frame[2], read_cr2());
    end_of_run(1);
}

static void host_idt_init(void) {
    for (u64 vector = 0; vector < 32; vector++) {
        const u64 handler = (u64)host_exception_stubs + 16 * vector;
        host_idt[2 * vector] = (handler & 0xFFFF) | 0x08 << 16 | 0x8E00ul << 32 | (handler >> 16) << 48;
    }
}

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
