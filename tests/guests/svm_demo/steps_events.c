/* Exceptions, interrupts, injection, task switches, shutdown, nested page faults, refusals. APM 2 15.12 to 15.14,
 * 15.20, 15.21, 15.25. */
#define STEPS_FILE "2"
#include "host.h"
#include "local_apic.h"
#include "step.h"

#define EXCP(vector) VMEXIT_EXCP0 + (vector)
enum { DE, DB, BP = 3, UD = 6, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, XF = 19 };

/* A 32-bit guest without paging. */
static void protected_mode(void) {
    set(efer, 0x1000); /* SVME */
    set(cr0, 0x11);
    set(cr4, 0);
    set(cs_selector, 0x30);
    set(cs_attrib, 0xC9B);
}
__attribute__((unused)) static void user_mode(void) {
    protected_mode();
    set(cr0, 0x40011); /* AM */
    set(cs_attrib, 0xCFB);
    vmcb[0x422] = vmcb[0x432] = 0xF3; /* SS, DS */
    set(cpl, 3);
}

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Exceptions (APM 2 15.12)"

STEP(de, "#DE", "xor ecx, ecx \n 9: div ecx", .code = EXCP(DE))
STEP(db, "#DB, single step: DR6 is written", "nop \n 9: nop", .code = EXCP(DB), .before = {{rflags, 0x102}},
     .after = {{dr6, 0xFFFF4FF0}})
STEP(bp, "INT3: RIP at it, nRIP behind", "int3", .code = EXCP(BP), .length = 1)
STEP(ud, "#UD", "ud2", .code = EXCP(UD))
STEP(nm, "#NM", "fnop", .code = EXCP(NM), .before = {{cr0, 0x8001003B}})
STEP(df, "#DF: #GP has no gate", "int 0x80", .code = EXCP(DF), .before = {{idtr_limit, 16 * 9 - 1}})
static void short_tss(void) {
    protected_mode();
    ((u8*)get(gdtr_base))[5 * 8] = 0x20;
}
static const char* whole_tss(void) {
    ((u8*)get(gdtr_base))[5 * 8] = 0x67;
    return 0;
}
STEP(ts, "#TS: the TSS is too short", ".code32 \n 9: ljmp 0x28, 0 \n .code64", .code = EXCP(TS), .prepare = short_tss,
     .check = whole_tss)
STEP(np, "#NP", "mov eax, 0x40 \n 9: mov ds, eax", .code = EXCP(NP), .info1 = 0x40)
STEP(ss, "#SS: not canonical", "mov rbp, 1 \n shl rbp, 63 \n 9: mov rax, [rbp]", .code = EXCP(SS))
STEP(gp, "#GP: the selector", "mov eax, 0xFFF8 \n 9: mov ds, eax", .code = EXCP(GP), .info1 = 0xFFF8)
STEP(pf, "#PF: error code, address, bytes; CR2 is not written", "mov rbx, 1 \n shl rbx, 40 \n 9: mov [rbx], al",
     .code = EXCP(PF), .info1 = 2, .info2 = BIT(40), .before = {{cr2, 0x1111}},
     .after = {{cr2, 0x1111}, {bytes_fetched, 15}})
STEP(mf, "#MF", "fninit \n mov word ptr [rsp - 8], 0x300 \n fldcw [rsp - 8] \n fldz \n fldz \n fdivp \n 9: fwait",
     .code = EXCP(MF))
STEP(ferr, "the same with CR0.NE = 0: freeze",
     "fninit \n mov word ptr [rsp - 8], 0x300 \n fldcw [rsp - 8] \n fldz \n fldz \n fdivp \n 9: fwait",
     .code = VMEXIT_FERR_FREEZE, .before = {{cr0, 0x80010013}})
#ifndef FOR_QEMU_7_2 /* which aborts: its guest has no inner stack for the handler that it calls */
STEP(ac, "#AC", ".code32 \n 9: mov eax, [esp + 1] \n .code64", .code = EXCP(AC), .before = {{rflags, 0x40002}},
     .prepare = user_mode)
#endif
STEP(xf, "#XF: division by zero",
     "fninit \n mov dword ptr [rsp - 8], 0x1D80 \n ldmxcsr [rsp - 8] \n xorps xmm0, xmm0 \n mov eax, 1 \n"
     "cvtsi2ss xmm1, eax \n 9: divss xmm1, xmm0",
     .code = EXCP(XF), .before = {{cr4, 0x620}})
STEP(delivered, "#UD, not intercepted: the guest's handler", "ud2", .code = VMEXIT_VMMCALL, .length = 3,
     .at = HANDLER(UD), .after = {{stack0, (u64)guest_delivered}})
STEP(shutdown, "shutdown: no gate at all", "ud2", .code = VMEXIT_SHUTDOWN, .before = {{idtr_limit, 0}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Interrupts, NMIs, INIT, SMI (APM 2 15.13, 15.21)"

static void clgi(void) { __asm__ volatile("clgi" : : : "memory"); }
static void send_to_self(u32 command) {
    apic_on();
    clgi();
    *apic(ICR_HIGH) = *apic(APIC_ID);
    *apic(ICR_LOW) = ICR_ASSERT | command;
}
static const char* interrupt_in_host(void) {
    if (!self_vector_pending()) return "the interrupt is no longer pending";
    __asm__ volatile("sti \n nop \n cli" : : : "memory");
    return self_vector_pending() ? "the host does not get the interrupt" : 0;
}
STEP(intr, "INTR: pending until the host takes it", "nop", .code = VMEXIT_INTR, .before = {{rflags, 0x202}},
     .prepare = send_self_interrupt, .check = interrupt_in_host)
static void send_nmi(void) { send_to_self(ICR_NMI); }
static const char* nmi_in_host(void) { return host_nmi_count == 1 ? 0 : "the host does not get the NMI"; }
STEP(nmi, "NMI: pending until STGI", "nop", .code = VMEXIT_NMI, .prepare = send_nmi, .check = nmi_in_host)
#ifndef FOR_QEMU_7_2 /* which takes the INIT */
static void send_init(void) {
    wrmsr(VM_CR, rdmsr(VM_CR) | 2); /* R_INIT: #SX in the host */
    send_to_self(5 << 8);
}
extern u32 host_sx_count;
static const char* init_in_host(void) {
    wrmsr(VM_CR, rdmsr(VM_CR) & ~2ul);
    return host_sx_count == 1 ? 0 : "the host does not get #SX";
}
STEP(init, "INIT: pending until STGI, where VM_CR.R_INIT makes it #SX", "nop", .code = VMEXIT_INIT, .prepare = send_init,
     .check = init_in_host)
#endif
#define VIRTUAL_60 (V_IRQ | 0xFul << 16 | 0x60ul << 32)
STEP(vintr, "VINTR: before the virtual interrupt is taken", "nop", .code = VMEXIT_VINTR,
     .before = {{interrupt_control, VIRTUAL_60}, {rflags, 0x202}}, .after = {{interrupt_control, VIRTUAL_60}})
STEP(virtual_interrupt, "the virtual interrupt itself", "nop", .code = VMEXIT_VMMCALL, .length = 3, .at = HANDLER(0x60),
     .before = {{interrupt_control, VIRTUAL_60}, {rflags, 0x202}}, .after = {{interrupt_control, VIRTUAL_60 & ~V_IRQ}})
STEP(virtual_nmi, "the virtual NMI: masked until IRET", "nop", .feature = 25 + 1, .code = VMEXIT_VMMCALL,
     .intercept = VMEXIT_NMI, .length = 3, .at = HANDLER(2), .before = {{interrupt_control, V_NMI_ENABLE | V_NMI}},
     .after = {{interrupt_control, V_NMI_ENABLE | 1 << 12}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Event injection (APM 2 15.20, 15.7.2)"

STEP(inject_interrupt, "an interrupt", "nop", .code = VMEXIT_VMMCALL, .length = 3, .at = HANDLER(0x70),
     .before = {{eventinj, VALID | 0x70}}, .after = {{stack0, (u64)guest_inject_interrupt}})
STEP(inject_nmi, "an NMI", "nop", .code = VMEXIT_VMMCALL, .length = 3, .at = HANDLER(2),
     .before = {{eventinj, VALID | 2 << 8 | 2}})
STEP(inject_exception, "an exception with its error code", "nop", .code = VMEXIT_VMMCALL, .length = 3, .at = HANDLER(GP),
     .before = {{eventinj, VALID | 1 << 11 | 3 << 8 | GP | 0x1234ul << 32}},
     .after = {{stack0, 0x1234}, {stack1, (u64)guest_inject_exception}})
STEP(inject_software, "INT n: nRIP is pushed", "int 0x44", .feature = 3 + 1, .code = VMEXIT_VMMCALL, .length = 3,
     .at = HANDLER(0x44), .before = {{eventinj, VALID | 4 << 8 | 0x44}, {nrip, (u64)guest_inject_software + 2}},
     .after = {{stack0, (u64)guest_inject_software + 2}})
STEP(interrupted, "an exception during delivery: the event is in EXITINTINFO", "nop", .code = EXCP(GP),
     .info1 = 0x70 * 8 + 3, .exitintinfo_ = VALID | 0x70,
     .before = {{eventinj, VALID | 0x70}, {idtr_limit, 16 * 14 - 1}})
STEP(task_switch, "a jump to a TSS", ".code32 \n 9: ljmp 0x28, 0 \n .code64", .code = VMEXIT_TASK_SWITCH,
     .prepare = protected_mode, .info1 = 0x28, .info2 = BIT(38))
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Nested page faults (APM 2 15.25.6)"

static void absent(void) { npt_window[3] = 0; }
static void read_only(void) { npt_window[3] &= ~2ul; }
static void no_execute(void) { npt_window[3] |= BIT(63); }
static void reserved(void) { npt_window[3] |= BIT(50); }
STEP(npf_read, "a page that is not there", "mov ebx, 0x40003008 \n 9: mov al, [rbx]", .code = VMEXIT_NPF,
     .prepare = absent, .info1 = FINAL | 4, .info2 = WINDOW + 0x3008, .after = {{bytes_fetched, 15}})
STEP(npf_write, "a write to a read-only page", "mov ebx, 0x40003008 \n 9: mov [rbx], al", .code = VMEXIT_NPF,
     .prepare = read_only, .info1 = FINAL | 7, .info2 = WINDOW + 0x3008)
STEP(npf_fetch, "a fetch from a no-execute page", "mov ebx, 0x40003000 \n jmp rbx", .code = VMEXIT_NPF,
     .prepare = no_execute, .info1 = FINAL | 0x15, .info2 = WINDOW + 0x3000, .at = (const u8*)(WINDOW + 0x3000))
STEP(npf_reserved, "a reserved bit", "mov ebx, 0x40003008 \n 9: mov al, [rbx]", .code = VMEXIT_NPF, .prepare = reserved,
     .info1 = FINAL | 0xD, .info2 = WINDOW + 0x3008)
STEP(npf_tables, "the guest's own tables: a write", "nop", .code = VMEXIT_NPF, .prepare = absent,
     .before = {{cr3, WINDOW + 0x3000}}, .info1 = GUEST_TABLES | 6, .info2 = WINDOW + 0x3000)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Illegal states (APM 2 15.5.1)"

static void asid_0(void) { set(guest_asid, 0); }
static void nw_without_cd(void) { set(cr0, get(cr0) | BIT(29)); }
static void no_svme(void) { set(efer, get(efer) & ~BIT(12)); }
static void reserved_type(void) { set(eventinj, VALID | 1 << 8); }
STEP(invalid_asid, "ASID 0", "nop", .code = VMEXIT_INVALID, .prepare = asid_0)
STEP(invalid_cr0, "CR0.NW without CD", "nop", .code = VMEXIT_INVALID, .prepare = nw_without_cd)
STEP(invalid_efer, "EFER.SVME is 0", "nop", .code = VMEXIT_INVALID, .prepare = no_svme)
STEP(invalid_event, "EVENTINJ of a reserved type", "nop", .code = VMEXIT_INVALID, .prepare = reserved_type)
#undef GROUP
