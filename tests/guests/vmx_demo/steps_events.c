/* Exceptions, interrupts, NMIs, windows, the preemption timer, the monitor trap flag, injected events.
 * SDM 3C 25.2 "Other Causes of VM Exits", 25.5 "Features Specific to VMX Non-Root Operation",
 * 26.5 "Event Injection", 27.2.2 and 27.2.3 on the event fields.
 *
 * An exit by a fault saves the RFLAGS image that delivery would have pushed, with RF = 1 (SDM 3C 27.3.3,
 * 3B 17.3.1.1); Bochs 2.7 saves RF = 0. */
#define STEPS_FILE "3"
#include "guest_memory.h"
#include "local_apic.h"
#include "step.h"
#include "vmx.h"

#define FAULT(vector) EVENT(type_hardware_exception, vector)
#define FAULT_WITH_ERROR_CODE(vector) EVENT_WITH_ERROR_CODE(type_hardware_exception, vector)
#define BP_GATE_ENTRY(vector) ((vector)*8 | 2) /* error code: an entry of the IDT */
#define EXT 1                                  /* error code: event external to the program */

static const char* interrupt_stays_pending(void) {
    return self_vector_pending() ? 0 : "the interrupt is no longer pending in the local APIC";
}

static void guest_sends_nmi(void) {
    apic_on();
    *apic(ICR_HIGH) = *apic(APIC_ID); /* the shorthand "self" is for fixed interrupts only */
}

void unblock_nmis(void);
static const char* nmi_handled(void) {
    unblock_nmis(); /* the exit left NMIs blocked (SDM 3C 27.5.5) */
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Exceptions (SDM 3C 25.2, 27.2.2)"

STEP(ud, "#UD", "ud2", .before = {{exception_bitmap, BIT(UD)}}, .reason = exit_exception_or_nmi,
     .interruption = FAULT(UD), .rf = rf_set)
STEP(ud_delivered, "#UD with its bit 0: the guest's handler runs", "ud2", .reason = exit_vmcall, .length = 3,
     .at = HANDLER(UD), .after = {{stack0, (u64)guest(ud_delivered)}, {stack1, 0x08}, {stack4, 0x10}})
STEP(bp, "INT3: software exception with instruction length", "int3", .before = {{exception_bitmap, BIT(BP)}},
     .reason = exit_exception_or_nmi, .interruption = EVENT(type_software_exception, BP), .length = 1)
STEP(int1, "INT1: privileged software exception", ".byte 0xF1", .before = {{exception_bitmap, BIT(DB)}},
     .reason = exit_exception_or_nmi, .interruption = EVENT(type_privileged_software_exception, DB),
     .length = 1, .rf = rf_any)
STEP(int_n, "INT n does not consult the exception bitmap", "int 0x42", .before = {{exception_bitmap, ~0u}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(0x42), .after = {{stack0, (u64)guest(int_n) + 2}})
STEP(pf_read, "#PF, read of a page not present: address, error code 0, CR2 untouched",
     "mov ebx, 0x50008120 \n 9: mov eax, [rbx]", .before = {{exception_bitmap, BIT(PF)}, {cr2, 0x1111}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(PF), .qualification = 0x50008120,
     .rf = rf_set, .after = {{cr2, 0x1111}})
STEP(pf_fetch, "#PF, fetch from an execute-disable page: error code 11H", "mov ebx, 0x5000A000 \n jmp rbx",
     .before = {{exception_bitmap, BIT(PF)}}, .reason = exit_exception_or_nmi,
     .interruption = FAULT_WITH_ERROR_CODE(PF), .interruption_error = 0x11, .qualification = 0x5000A000,
     .rf = rf_set, .at = (const u8*)0x5000A000)
STEP(pf_mask_differs, "#PF, error code does not match: bit 14 = 1 means no exit",
     "mov ebx, 0x50008000 \n 9: mov eax, [rbx]",
     .before = {{exception_bitmap, BIT(PF)},
                {page_fault_error_code_mask, 2},
                {page_fault_error_code_match, 2},
                {cr2, 0}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(PF),
     .after = {{stack0, 0}, {stack1, (u64)at_pf_mask_differs}, {cr2, 0x50008000}})
STEP(pf_mask_matches, "#PF, error code matches: exit", "mov ebx, 0x50008000 \n 9: mov [rbx], eax",
     .before = {{exception_bitmap, BIT(PF)},
                {page_fault_error_code_mask, 2},
                {page_fault_error_code_match, 2}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(PF), .interruption_error = 2,
     .qualification = 0x50008000, .rf = rf_set)
STEP(pf_mask_inverted, "#PF, no match and bit 14 = 0: exit", "mov ebx, 0x50008000 \n 9: mov eax, [rbx]",
     .before = {{page_fault_error_code_mask, 2}, {page_fault_error_code_match, 2}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(PF), .qualification = 0x50008000,
     .rf = rf_set)
STEP(db_step, "#DB after one instruction with RFLAGS.TF: BS in the qualification, DR6 untouched",
     "nop \n 9: nop",
     .before = {{exception_bitmap, BIT(DB)}, {guest_rflags, RFLAGS_FIXED | RFLAGS_TF}, {dr6, 0xFFFF0FF0}},
     .reason = exit_exception_or_nmi, .interruption = FAULT(DB), .qualification = pending_BS,
     .after = {{dr6, 0xFFFF0FF0}})
static void break_at_9(void) {
    extern const u8 at_db_break[];
    write_dr0((u64)at_db_break);
}
STEP(db_break, "#DB at an instruction breakpoint: B0 in the qualification", "nop \n 9: nop",
     .prepare = break_at_9, .before = {{exception_bitmap, BIT(DB)}, {guest_dr7, 0x402}},
     .reason = exit_exception_or_nmi, .interruption = FAULT(DB), .qualification = 1)
STEP(db_pending, "pending debug exceptions loaded by VM entry: #DB before the first instruction", "nop",
     .before = {{exception_bitmap, BIT(DB)},
                {guest_rflags, RFLAGS_FIXED | RFLAGS_TF},
                {guest_pending_debug_exceptions, pending_BS}},
     .reason = exit_exception_or_nmi, .interruption = FAULT(DB), .qualification = pending_BS)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Exceptions while an event is delivered (SDM 3C 27.2.3)"

STEP(vectoring_int,
     "INT 41H through a gate that is not present: #NP, software interrupt with instruction length",
     "int 0x41", .before = {{exception_bitmap, BIT(NP)}}, .reason = exit_exception_or_nmi,
     .interruption = FAULT_WITH_ERROR_CODE(NP), .interruption_error = BP_GATE_ENTRY(ABSENT_GATE),
     .vectoring = EVENT(type_software_interrupt, ABSENT_GATE), .length = 2, .rf = rf_set)
STEP(vectoring_external, "an injected external interrupt 41H: #NP, error code with EXT", "nop",
     .before = {{exception_bitmap, BIT(NP)},
                {guest_rflags, RFLAGS_FIXED | RFLAGS_IF},
                {vm_entry_interruption_information, EVENT(type_external_interrupt, ABSENT_GATE)}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(NP),
     .interruption_error = BP_GATE_ENTRY(ABSENT_GATE) | EXT,
     .vectoring = EVENT(type_external_interrupt, ABSENT_GATE), .rf = rf_set)
STEP(vectoring_pf, "#GP delivered on a stack that is not present: #PF becomes #DF",
     "mov rsp, 0x50008800 \n mov eax, 0xFFFF \n 9: mov ds, eax", .before = {{exception_bitmap, BIT(DF)}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(DF), .rf = rf_any)
STEP(vectoring_error_code,
     "#GP delivered on a stack that is not present, #PF intercepted: vectoring error code",
     "mov rsp, 0x50008800 \n mov eax, 0x0FF8 \n 9: mov ds, eax", .before = {{exception_bitmap, BIT(PF)}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(PF), .interruption_error = 2,
     .qualification = 0x500087F8, .vectoring = FAULT_WITH_ERROR_CODE(GP), .vectoring_error = 0x0FF8,
     .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Event injection (SDM 3C 26.5)"

STEP(inject_interrupt, "external interrupt 40H", "nop",
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF},
                {vm_entry_interruption_information, EVENT(type_external_interrupt, 0x40)}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(0x40),
     .after = {{stack0, (u64)guest(inject_interrupt)},
               {stack1, 0x08},
               {stack2, RFLAGS_FIXED | RFLAGS_IF},
               {stack3, (u64)guest_stack_top},
               {stack4, 0x10},
               {guest_rflags, RFLAGS_FIXED}})
STEP(inject_nmi, "NMI", "nop", .before = {{vm_entry_interruption_information, EVENT(type_nmi, NMI)}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(NMI),
     .after = {{stack0, (u64)guest(inject_nmi)}, {guest_interruptibility_state, blocking_by_nmi}},
     .check = nmi_handled)
STEP(inject_gp, "#GP with error code", "nop",
     .before = {{vm_entry_interruption_information, FAULT_WITH_ERROR_CODE(GP)},
                {vm_entry_exception_error_code, 0x1234}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(GP),
     .after = {{stack0, 0x1234}, {stack1, (u64)guest(inject_gp)}})
STEP(inject_bitmap, "an injected #UD does not consult the exception bitmap", "nop",
     .before = {{exception_bitmap, ~0u}, {vm_entry_interruption_information, FAULT(UD)}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(UD), .after = {{stack0, (u64)guest(inject_bitmap)}})
STEP(inject_int, "software interrupt 42H: the pushed RIP is behind the instruction", "nop \n nop",
     .before = {{vm_entry_interruption_information, EVENT(type_software_interrupt, 0x42)},
                {vm_entry_instruction_length, 2}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(0x42), .after = {{stack0, (u64)guest(inject_int) + 2}})
STEP(inject_bp, "software exception #BP", "nop",
     .before = {{vm_entry_interruption_information, EVENT(type_software_exception, BP)},
                {vm_entry_instruction_length, 1}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(BP), .after = {{stack0, (u64)guest(inject_bp) + 1}})
STEP(inject_hlt, "an external interrupt wakes a guest in the HLT state", "nop",
     .before = {{guest_activity_state, activity_hlt},
                {guest_rflags, RFLAGS_FIXED | RFLAGS_IF},
                {vm_entry_interruption_information, EVENT(type_external_interrupt, 0x40)}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(0x40),
     .after = {{stack0, (u64)guest(inject_hlt)}, {guest_activity_state, activity_active}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "External interrupts (SDM 3C 25.2, 33.3.3)"

STEP(interrupt, "pending at entry: exit before the first instruction, the interrupt stays pending", "nop",
     .pin = external_interrupt_exiting, .prepare = send_self_interrupt,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF}}, .reason = exit_external_interrupt,
     .check = interrupt_stays_pending)
AGAIN(interrupt_acknowledged, "acknowledge interrupt on exit: the vector is recorded",
      .pin = external_interrupt_exiting, .exit = acknowledge_interrupt_on_exit,
      .reason = exit_external_interrupt, .interruption = EVENT(type_external_interrupt, SELF_VECTOR),
      .at = guest(interrupt), .check = end_of_interrupt)
/* Bochs 2.7 overlooks it until something changes IF. */
STEP(interrupt_masked, "pending at entry with IF = 0: exits all the same", "nop",
     .pin = external_interrupt_exiting, .exit = acknowledge_interrupt_on_exit, .prepare = send_self_interrupt,
     .reason = exit_external_interrupt, .interruption = EVENT(type_external_interrupt, SELF_VECTOR),
     .check = end_of_interrupt)
STEP(interrupt_from_guest, "the guest sends one to itself through its local APIC",
     "mov ebx, 0xFEE00300 \n mov eax, 0x44050 \n mov ecx, 1000000 \n mov [rbx], eax \n 9: loop 9b",
     .pin = external_interrupt_exiting, .exit = acknowledge_interrupt_on_exit, .prepare = apic_on,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF}}, .reason = exit_external_interrupt,
     .interruption = EVENT(type_external_interrupt, SELF_VECTOR), .check = end_of_interrupt)
STEP(interrupt_to_guest, "no exiting, IF = 1: delivered through the guest's IDT", "nop",
     .prepare = send_self_interrupt, .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(SELF_VECTOR),
     .after = {{stack0, (u64)guest(interrupt_to_guest)}}, .check = end_of_interrupt)
/* The saved activity state is that before the exit (SDM 3C 27.1); Bochs 2.7 saves "active". */
STEP(interrupt_hlt, "one that is pending ends the HLT state", "hlt", .pin = external_interrupt_exiting,
     .exit = acknowledge_interrupt_on_exit, .prepare = send_self_interrupt,
     .before = {{guest_activity_state, activity_hlt}, {guest_rflags, RFLAGS_FIXED | RFLAGS_IF}},
     .reason = exit_external_interrupt, .interruption = EVENT(type_external_interrupt, SELF_VECTOR),
     .after = {{guest_activity_state, activity_hlt}}, .check = end_of_interrupt)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Interrupt window, blocking by STI and MOV SS (SDM 3C 25.2, 24.4.2)"

STEP(window, "open at entry: exit before the first instruction", "nop", .primary = interrupt_window_exiting,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF}}, .reason = exit_interrupt_window)
STEP(window_sti, "opens behind the instruction after STI", "nop \n sti \n nop \n 9: nop",
     .primary = interrupt_window_exiting, .reason = exit_interrupt_window,
     .after = {{guest_interruptibility_state, 0}, {guest_rflags, RFLAGS_FIXED | RFLAGS_IF}})
STEP(window_blocked, "blocking by STI at entry: one instruction runs first", "nop \n 9: nop",
     .primary = interrupt_window_exiting,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF}, {guest_interruptibility_state, blocking_by_sti}},
     .reason = exit_interrupt_window)
/* The timer is for Bochs 2.7, which does not wake up. */
STEP(window_hlt, "ends the HLT state", "hlt", .pin = activate_vmx_preemption_timer,
     .primary = interrupt_window_exiting,
     .before = {{vmx_preemption_timer_value, 1000000},
                {guest_rflags, RFLAGS_FIXED | RFLAGS_IF},
                {guest_activity_state, activity_hlt}},
     .reason = exit_interrupt_window, .after = {{guest_activity_state, activity_hlt}})
STEP(sti_saved, "CPUID right behind STI: blocking by STI is saved", "sti \n 9: cpuid", .reason = exit_cpuid,
     .length = 2, .after = {{guest_interruptibility_state, blocking_by_sti}})
STEP(mov_ss_saved, "CPUID right behind MOV SS: blocking by MOV SS is saved",
     "mov eax, ss \n mov ss, eax \n 9: cpuid", .reason = exit_cpuid, .length = 2,
     .after = {{guest_interruptibility_state, blocking_by_mov_ss}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "NMIs (SDM 3C 25.2, 25.3, 27.2.2)"

/* Bounded loops: a processor that loses the event fails the step and goes on. */
#define SEND_NMI "mov ebx, 0xFEE00300 \n mov eax, 0x4400 \n mov ecx, 1000000 \n mov [rbx], eax \n"
#define IRET_TO_9 \
    "mov rax, rsp \n push 0x10 \n push rax \n pushfq \n push 0x08 \n push offset 9f \n iretq \n 9: nop"

STEP(nmi, "NMI exiting", SEND_NMI "9: loop 9b", .pin = nmi_exiting, .prepare = guest_sends_nmi,
     .reason = exit_exception_or_nmi, .interruption = EVENT(type_nmi, NMI), .check = nmi_handled)
STEP(nmi_virtual, "virtual NMIs: an NMI exits even while virtual NMIs are blocked", SEND_NMI "9: loop 9b",
     .pin = nmi_exiting | virtual_nmis, .prepare = guest_sends_nmi,
     .before = {{guest_interruptibility_state, blocking_by_nmi}}, .reason = exit_exception_or_nmi,
     .interruption = EVENT(type_nmi, NMI), .after = {{guest_interruptibility_state, blocking_by_nmi}},
     .check = nmi_handled)
STEP(nmi_window, "NMI window: opens when IRET unblocks", IRET_TO_9, .pin = nmi_exiting | virtual_nmis,
     .primary = nmi_window_exiting, .before = {{guest_interruptibility_state, blocking_by_nmi}},
     .reason = exit_nmi_window, .after = {{guest_interruptibility_state, 0}})
STEP(nmi_window_open, "NMI window: open at entry", "nop", .pin = nmi_exiting | virtual_nmis,
     .primary = nmi_window_exiting, .reason = exit_nmi_window)
STEP(nmi_iret_fault, "IRET that faults has unblocked: bit 12 of the interruption information",
     "mov rsp, 0x50008800 \n 9: iretq", .pin = nmi_exiting | virtual_nmis,
     .before = {{exception_bitmap, BIT(PF)}, {guest_interruptibility_state, blocking_by_nmi}},
     .reason = exit_exception_or_nmi, .interruption = FAULT_WITH_ERROR_CODE(PF) | NMI_UNBLOCKING_DUE_TO_IRET,
     .qualification = 0x50008800, .qualification_undefined = 0x38, /* any quadword of the frame */
     .rf = rf_set, .after = {{guest_interruptibility_state, 0}})
STEP(nmi_injected, "virtual NMIs: an injected NMI blocks further ones", "nop",
     .pin = nmi_exiting | virtual_nmis, .before = {{vm_entry_interruption_information, EVENT(type_nmi, NMI)}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(NMI),
     .after = {{guest_interruptibility_state, blocking_by_nmi}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VMX-preemption timer (SDM 3C 25.5.1)"

static const char* timer_counted_down(void) {
    return vmread(vmx_preemption_timer_value) <= 0x10000000
               ? 0
               : "the saved timer value is larger than the loaded one";
}
STEP(timer_zero, "value 0: exit before the first instruction", "nop", .pin = activate_vmx_preemption_timer,
     .before = {{vmx_preemption_timer_value, 0}}, .reason = exit_vmx_preemption_timer_expired)
STEP(timer, "expires in a loop; the saved value is 0", "mov ecx, 100000000 \n 9: loop 9b",
     .pin = activate_vmx_preemption_timer, .exit = save_vmx_preemption_timer_value,
     .before = {{vmx_preemption_timer_value, 1000}}, .reason = exit_vmx_preemption_timer_expired,
     .after = {{vmx_preemption_timer_value, 0}})
STEP(timer_saved, "another exit saves what is left", "cpuid", .pin = activate_vmx_preemption_timer,
     .exit = save_vmx_preemption_timer_value, .before = {{vmx_preemption_timer_value, 0x10000000}},
     .reason = exit_cpuid, .length = 2, .check = timer_counted_down)
STEP(timer_hlt, "counts on in the HLT state and ends it", "hlt \n 9: nop",
     .pin = activate_vmx_preemption_timer, .before = {{vmx_preemption_timer_value, 1000}},
     .reason = exit_vmx_preemption_timer_expired, .after = {{guest_activity_state, activity_hlt}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Monitor trap flag (SDM 3C 25.5.2)"

STEP(mtf, "after one instruction", "nop \n 9: nop \n 8: nop", .primary = monitor_trap_flag,
     .reason = exit_monitor_trap_flag)
AGAIN(mtf_again, "and after the next", .primary = monitor_trap_flag, .reason = exit_monitor_trap_flag,
      .at = second(mtf))
STEP(mtf_rep, "after one iteration of a REP instruction",
     "mov ecx, 3 \n mov edi, offset guest_stack_top \n vmcall \n 9: rep stosb", .reason = exit_vmcall,
     .length = 3, .at = at_mtf_rep - 3)
NEXT(mtf_iteration, "(RIP stays, RCX counts)", .primary = monitor_trap_flag, .reason = exit_monitor_trap_flag,
     .at = at_mtf_rep, .rf = rf_any, .after = {{rcx, 2}})
STEP(mtf_injection, "with an injected event: at the first instruction of the handler", "nop",
     .primary = monitor_trap_flag,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_IF},
                {vm_entry_interruption_information, EVENT(type_external_interrupt, 0x40)}},
     .reason = exit_monitor_trap_flag, .at = HANDLER(0x40), .after = {{stack0, (u64)guest(mtf_injection)}})
static int has_monitor_trap_flag(void) { return !!(vmx.primary >> 32 & monitor_trap_flag); }
STEP(mtf_injected, "injected itself, the control being 0: before the first instruction", "nop",
     .available = has_monitor_trap_flag,
     .before = {{vm_entry_interruption_information, EVENT(type_other_event, 0)}},
     .reason = exit_monitor_trap_flag)
STEP(mtf_tf, "over RFLAGS.TF: BS stays pending", "nop \n 9: nop", .primary = monitor_trap_flag,
     .before = {{guest_rflags, RFLAGS_FIXED | RFLAGS_TF}, {exception_bitmap, BIT(DB)}},
     .reason = exit_monitor_trap_flag, .after = {{guest_pending_debug_exceptions, pending_BS}})
AGAIN(mtf_tf_db, "and is delivered by the next entry: #DB", .reason = exit_exception_or_nmi,
      .interruption = FAULT(DB), .qualification = pending_BS, .at = at_mtf_tf)
#undef GROUP
