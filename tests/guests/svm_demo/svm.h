/* The VMCB, the tables beneath the guest, and the way into it. APM 2 ch. 15 "Secure Virtual Machine". */
#pragma once

#include "x86.h"

/* Fields by the manual's names, offset and size. A pseudo-field is a register that VMRUN leaves alone. */
enum Field {
#define FIELD(name, type, offset, clean) name = (offset) << 4 | sizeof(type),
#include "svm/vmcb_fields.inc"
    first_pseudo_field = 1 << 16,
    rcx = first_pseudo_field + 1,
    rdx,
    rbx,
    rbp = first_pseudo_field + 5,
    rsi,
    rdi,
    stack0 = first_pseudo_field + 16, /* the guest's stack, from its top */
    stack1,
};

/* Exit codes; those below 400H are also the positions of intercepts. APM 2 App. C. */
enum ExitCode {
#define EXIT(name, code) VMEXIT_##name = code,
#define EXIT_RANGE(prefix, what, code) VMEXIT_##prefix##0_##what = code,
#include "svm/exit_codes.inc"
};
#define VMEXIT_INVALID ~0ul
const char* exit_code_name(u64 code);

/* Bits of fields. */
enum {
    NP_ENABLE = 1, INVLPGB_ENABLE = 1 << 7,
    V_INTR_MASKING = 1 << 24,
    V_NMI = 1 << 11, V_NMI_ENABLE = 1 << 26,
};
#define V_IRQ BIT(8)
#define AVIC_ENABLE BIT(31)
#define VALID BIT(31)
#define MOV_CR BIT(63)
#define FINAL BIT(32)
#define GUEST_TABLES BIT(33)

/* MSRs. */
enum { VM_CR = 0xC0010114, VM_HSAVE_PA = 0xC0010117, DOORBELL = 0xC001011B };

struct Registers {
    u64 r[16];
};
extern struct Registers registers;
extern u8 vmcb[4096], iopm[3 * 4096], msrpm[2 * 4096], backing_page[4096], other_backing_page[4096];
extern u64 npt_pml4[512], npt_window[512], physical_table[512];
extern u32 logical_table[1024];

/* The window: guest-physical and linear addresses that nested paging maps to pages of its own. */
#define WINDOW 0x40000000ul

u64 get(u64 field);
void set(u64 field, u64 value);
void intercept(u64 code);

/* What svm_enable() could not do, or null. */
const char* svm_enable(void);
/* A VMCB whose guest is at `rip` with the host's tables, CPL 0, and the intercepts that VMRUN needs. */
void vmcb_defaults(const void* rip);
/* VMLOAD, VMRUN, VMSAVE with GIF 0 around. */
void vm_run(struct Registers* guest, u64 vmcb_address, u64 host_area);
extern u8 host_area[4096];
/* CPUID 8000_000AH:EDX. */
extern u32 svm_features;
