/* Capabilities, VMX operation, and the VMCS that every step starts from. */
#pragma once

#include "vmcs.h"

struct GuestRegisters {
    u64 r[16]; /* by register number; RSP (4) is in the VMCS */
};

/* IA32_VMX_EPT_VPID_CAP (SDM 3D A.10) */
#define ept_cap_execute_only BIT(0)
#define ept_cap_invept BIT(20)
#define ept_cap_accessed_and_dirty BIT(21)
#define ept_cap_advanced_information BIT(22)
#define ept_cap_invept_single_context BIT(25)
#define ept_cap_invept_all_context BIT(26)
#define vpid_cap_invvpid BIT(32)
#define vpid_cap_invvpid_individual_address BIT(40)
#define vpid_cap_invvpid_single_context BIT(41)
#define vpid_cap_invvpid_all_context BIT(42)
#define vpid_cap_invvpid_retaining_globals BIT(43)

/* What the capability MSRs say, read once. */
struct Vmx {
    u64 basic, misc, ept_vpid_cap;
    u64 pin, primary, secondary, exit, entry; /* low half: must be 1; high half: may be 1 */
    u32 secondary_allowed;
    u64 tertiary_allowed;
};
extern struct Vmx vmx;
extern struct GuestRegisters guest_registers;
extern u64 rflags_after_exit;

/* Memory that the processor works with, one page each. */
extern u8 vmxon_region[4096], vmcs_region[4096], spare_region[4096];
extern u8 io_bitmap_a[4096], io_bitmap_b[4096], msr_bitmap[4096];
extern u8 virtual_apic_page[4096];
extern u64 page_modification_log[512];
extern u64 posted_interrupt_descriptor[8], pid_pointer_table[1];
extern u64 msr_area[8]; /* four entries of 16 bytes */

/* Null, or why this processor cannot enter VMX operation. */
const char* vmx_enable(void);
/* VMCLEAR, VMPTRLD and every field that a VM entry reads. */
void vmcs_defaults(void);
/* The controls: the defaults, plus what is to be 1, minus what is to be 0. */
struct Controls {
    u32 pin, primary, secondary, exit, entry;
};
int controls_on_offer(struct Controls wanted);
void vmcs_controls(struct Controls on, struct Controls off);
u64 vm_enter(struct GuestRegisters* registers, u64 how);
