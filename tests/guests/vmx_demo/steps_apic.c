/* APIC virtualization: the APIC-access page, virtualized registers, virtual interrupts, the x2APIC MSRs,
 * posted interrupts. SDM 3C ch. 29 "APIC Virtualization and Virtual Interrupts". */
#define STEPS_FILE "25"
#include "guest_memory.h"
#include "local_apic.h"
#include "step.h"
#include "vmx.h"

/* The guest's way to the APIC-access page, page 11 of the window. */
_Static_assert(page_apic_access == 11, "page numbers agree");
#define APIC_PAGE "mov ebx, 0x5000B000 \n "
#define REQUESTED 0x61 /* the vector of most steps */

#define accesses (enable_ept | virtualize_apic_accesses)
#define registers (accesses | apic_register_virtualization)
#define interrupts (accesses | virtual_interrupt_delivery)
/* Controls and fields of a step with virtual-interrupt delivery. */
#define DELIVERY .pin = external_interrupt_exiting, .primary = use_tpr_shadow
#define INTERRUPTS_ON \
    { guest_rflags, RFLAGS_FIXED | RFLAGS_IF }
#define STATUS(svi, rvi) \
    { guest_interrupt_status, (svi) << 8 | (rvi) }

static u32* virtual_register(u32 offset) { return (u32*)(virtual_apic_page + offset); }
static void set_vector(u32 first, u32 vector) {
    *virtual_register(first + vector / 32 * 16) |= 1u << vector % 32;
}
static int has_vector(u32 first, u32 vector) {
    return *virtual_register(first + vector / 32 * 16) >> vector % 32 & 1;
}

static void fresh_apic(void) {
    for (u32 i = 0; i < 4096; i++) virtual_apic_page[i] = 0;
    *virtual_register(TPR) = 0x20;
    *virtual_register(LDR) = 0x01000000;
}

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "APIC-access page (SDM 3C 29.4, Table 27-6)"

enum { linear_read = 0, linear_write = 1, linear_fetch = 2, linear_during_delivery = 3 };
STEP(apic_read, "read at offset 20H", APIC_PAGE "9: mov eax, [rbx + 0x20]", .secondary = accesses,
     .reason = exit_apic_access, .qualification = APIC_ACCESS_QUALIFICATION(0x20, linear_read), .rf = rf_set)
STEP(apic_write, "write at offset B0H", APIC_PAGE "9: mov dword ptr [rbx + 0xB0], 0", .secondary = accesses,
     .reason = exit_apic_access, .qualification = APIC_ACCESS_QUALIFICATION(0xB0, linear_write), .rf = rf_set)
STEP(apic_fetch, "instruction fetch at offset 80H", APIC_PAGE "add ebx, 0x80 \n jmp rbx",
     .secondary = accesses, .reason = exit_apic_access,
     .qualification = APIC_ACCESS_QUALIFICATION(0x80, linear_fetch), .rf = rf_set,
     .at = (const u8*)(WINDOW + PAGE(page_apic_access) + 0x80))
STEP(apic_delivery, "delivery of #UD reads its gate there", "ud2", .secondary = accesses,
     .before = {{guest_idtr_base, WINDOW + PAGE(page_apic_access)}}, .reason = exit_apic_access,
     .qualification = APIC_ACCESS_QUALIFICATION(16 * UD, linear_during_delivery),
     .vectoring = EVENT(type_hardware_exception, UD), .rf = rf_set)
STEP(apic_quadword, "eight bytes are never virtualized", APIC_PAGE "9: mov rax, [rbx + 0x80]",
     .primary = use_tpr_shadow, .secondary = registers, .prepare = fresh_apic, .reason = exit_apic_access,
     .qualification = APIC_ACCESS_QUALIFICATION(0x80, linear_read), .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Virtualized APIC registers (SDM 3C 29.1, 29.4.2, 29.4.3)"

STEP(vtpr_read, "TPR shadow: a read of TPR", APIC_PAGE "mov eax, [rbx + 0x80] \n 9: vmcall",
     .primary = use_tpr_shadow, .secondary = accesses, .prepare = fresh_apic, .reason = exit_vmcall,
     .length = 3, .after = {{rax, 0x20}})
STEP(vtpr_write, "TPR shadow: a write below the threshold exits behind it",
     APIC_PAGE "mov dword ptr [rbx + 0x80], 0x1F \n 9: nop", .primary = use_tpr_shadow, .secondary = accesses,
     .prepare = fresh_apic, .before = {{tpr_threshold, 2}}, .reason = exit_tpr_below_threshold)
STEP(threshold_at_entry, "TPR shadow: VM entry below the threshold", "nop", .primary = use_tpr_shadow,
     .secondary = accesses, .prepare = fresh_apic, .before = {{tpr_threshold, 3}},
     .reason = exit_tpr_below_threshold)
STEP(ldr_read, "APIC-register virtualization: a read of LDR", APIC_PAGE "mov eax, [rbx + 0xD0] \n 9: vmcall",
     .primary = use_tpr_shadow, .secondary = registers, .prepare = fresh_apic, .reason = exit_vmcall,
     .length = 3, .after = {{rax, 0x01000000}})
static const char* svr_written(void) { return *virtual_register(SVR) == 0x1F0 ? 0 : "SVR is not 1F0H"; }
STEP(svr_write, "APIC-register virtualization: a write of SVR exits behind it",
     APIC_PAGE "mov dword ptr [rbx + 0xF0], 0x1F0 \n 9: nop", .primary = use_tpr_shadow,
     .secondary = registers, .prepare = fresh_apic, .reason = exit_apic_write, .qualification = SVR,
     .check = svr_written)
static const char* icr_high_written(void) {
    return *virtual_register(ICR_HIGH) == 0x12000000 ? 0 : "ICR_HI is not 12000000H";
}
STEP(icr_high_write, "APIC-register virtualization: a write of ICR_HI keeps its byte 3",
     APIC_PAGE "mov dword ptr [rbx + 0x310], 0x12345678 \n 9: vmcall", .primary = use_tpr_shadow,
     .secondary = registers, .prepare = fresh_apic, .reason = exit_vmcall, .length = 3,
     .check = icr_high_written)
STEP(version_write, "APIC-register virtualization: a write of the version register",
     APIC_PAGE "9: mov dword ptr [rbx + 0x30], 0", .primary = use_tpr_shadow, .secondary = registers,
     .prepare = fresh_apic, .reason = exit_apic_access,
     .qualification = APIC_ACCESS_QUALIFICATION(0x30, linear_write), .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Virtual interrupts (SDM 3C 29.1, 29.2)"

static void one_requested(void) {
    fresh_apic();
    set_vector(IRR, REQUESTED);
}
static const char* one_in_service(void) {
    return has_vector(IRR, REQUESTED)    ? "VIRR has the vector"
           : !has_vector(ISR, REQUESTED) ? "VISR does not have the vector"
                                         : 0;
}
STEP(delivered, "recognized at VM entry and delivered through the guest's IDT", "nop", DELIVERY,
     .secondary = interrupts, .prepare = one_requested, .before = {INTERRUPTS_ON, STATUS(0, REQUESTED)},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(REQUESTED),
     .after = {{stack0, (u64)guest(delivered)}, STATUS(REQUESTED, 0)}, .check = one_in_service)
STEP(delivered_hlt, "it ends the HLT state", "nop", DELIVERY, .secondary = interrupts,
     .prepare = one_requested,
     .before = {INTERRUPTS_ON, STATUS(0, REQUESTED), {guest_activity_state, activity_hlt}},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(REQUESTED), .after = {{guest_activity_state, 0}})
STEP(delivered_sti, "with IF = 0 it waits for STI and the instruction after it", "sti \n nop \n 8: nop",
     DELIVERY, .secondary = interrupts, .prepare = one_requested, .before = {STATUS(0, REQUESTED)},
     .reason = exit_vmcall, .length = 3, .at = HANDLER(REQUESTED),
     .after = {{stack0, (u64)second(delivered_sti)}})
STEP(not_recognized, "not above the class of TPR", "9: vmcall", DELIVERY, .secondary = interrupts,
     .prepare = one_requested, .before = {INTERRUPTS_ON, STATUS(0, 0x2F)}, .reason = exit_vmcall, .length = 3,
     .after = {STATUS(0, 0x2F)})
STEP(window_instead, "interrupt-window exiting comes instead", "nop", .pin = external_interrupt_exiting,
     .primary = use_tpr_shadow | interrupt_window_exiting, .secondary = interrupts, .prepare = one_requested,
     .before = {INTERRUPTS_ON, STATUS(0, REQUESTED)}, .reason = exit_interrupt_window,
     .after = {STATUS(0, REQUESTED)})
static void held_back_by_tpr(void) {
    one_requested();
    *virtual_register(TPR) = 0x70;
}
STEP(cr8_lowered, "MOV to CR8 lets one through that TPR held back", "xor eax, eax \n mov cr8, rax \n 8: nop",
     DELIVERY, .secondary = interrupts, .prepare = held_back_by_tpr,
     .before = {INTERRUPTS_ON, STATUS(0, REQUESTED)}, .reason = exit_vmcall, .length = 3,
     .at = HANDLER(REQUESTED), .after = {{stack0, (u64)second(cr8_lowered)}, STATUS(REQUESTED, 0)})
static void two_in_service(void) {
    fresh_apic();
    set_vector(ISR, 0x35);
    set_vector(ISR, REQUESTED);
}
STEP(eoi, "a write to EOI ends the highest in service",
     APIC_PAGE "mov dword ptr [rbx + 0xB0], 0 \n 9: vmcall", DELIVERY, .secondary = interrupts,
     .prepare = two_in_service, .before = {STATUS(REQUESTED, 0)}, .reason = exit_vmcall, .length = 3,
     .after = {STATUS(0x35, 0)})
STEP(eoi_exit, "EOI-exit bitmap: it exits behind the write",
     APIC_PAGE "mov dword ptr [rbx + 0xB0], 0 \n 9: nop", DELIVERY, .secondary = interrupts,
     .prepare = two_in_service, .before = {STATUS(REQUESTED, 0), {eoi_exit_bitmap_1, BIT(REQUESTED - 64)}},
     .reason = exit_virtualized_eoi, .qualification = REQUESTED, .after = {STATUS(0x35, 0)})
STEP(self_ipi, "a self-IPI by the ICR", APIC_PAGE "sti \n mov dword ptr [rbx + 0x300], 0x40061 \n 8: nop",
     DELIVERY, .secondary = interrupts, .prepare = fresh_apic, .reason = exit_vmcall, .length = 3,
     .at = HANDLER(REQUESTED), .after = {{stack0, (u64)second(self_ipi)}, STATUS(REQUESTED, 0)})
STEP(other_ipi, "any other IPI is left to the host",
     APIC_PAGE "mov dword ptr [rbx + 0x300], 0xC0061 \n 9: nop", DELIVERY, .secondary = interrupts,
     .prepare = fresh_apic, .reason = exit_apic_write, .qualification = ICR_LOW)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Virtualized x2APIC MSRs (SDM 3C 29.5)"

#define x2apic (use_tpr_shadow | use_msr_bitmaps)
STEP(x2apic_read, "RDMSR 80DH with APIC-register virtualization", "mov ecx, 0x80D \n rdmsr \n 9: vmcall",
     .primary = x2apic, .secondary = virtualize_x2apic_mode | apic_register_virtualization,
     .prepare = fresh_apic, .reason = exit_vmcall, .length = 3, .after = {{rax, 0x01000000}, {rdx, 0}})
STEP(x2apic_tpr, "WRMSR 808H below the threshold", "mov ecx, 0x808 \n mov eax, 0x10 \n wrmsr \n 9: nop",
     .primary = x2apic, .secondary = virtualize_x2apic_mode, .prepare = fresh_apic,
     .before = {{tpr_threshold, 2}}, .reason = exit_tpr_below_threshold)
STEP(x2apic_eoi, "WRMSR 80BH: virtualized EOI", "mov ecx, 0x80B \n wrmsr \n 9: nop",
     .pin = external_interrupt_exiting, .primary = x2apic,
     .secondary = virtualize_x2apic_mode | virtual_interrupt_delivery, .prepare = two_in_service,
     .before = {STATUS(REQUESTED, 0), {eoi_exit_bitmap_1, BIT(REQUESTED - 64)}},
     .reason = exit_virtualized_eoi, .qualification = REQUESTED, .after = {STATUS(0x35, 0)})
STEP(x2apic_self_ipi, "WRMSR 83FH: a self-IPI", "sti \n mov ecx, 0x83F \n mov eax, 0x61 \n wrmsr \n 8: nop",
     .pin = external_interrupt_exiting, .primary = x2apic,
     .secondary = virtualize_x2apic_mode | virtual_interrupt_delivery, .prepare = fresh_apic,
     .reason = exit_vmcall, .length = 3, .at = HANDLER(REQUESTED),
     .after = {{stack0, (u64)second(x2apic_self_ipi)}, STATUS(REQUESTED, 0)})
STEP(x2apic_self_ipi_low, "WRMSR 83FH with a vector below 16",
     "mov ecx, 0x83F \n mov eax, 0xF \n wrmsr \n 9: nop", .pin = external_interrupt_exiting,
     .primary = x2apic, .secondary = virtualize_x2apic_mode | virtual_interrupt_delivery,
     .prepare = fresh_apic, .reason = exit_apic_write, .qualification = 0x3F0)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Posted interrupts and IPI virtualization (SDM 3C 29.6)"

#define POSTING                                                                               \
    .pin = external_interrupt_exiting | process_posted_interrupts, .primary = use_tpr_shadow, \
    .exit = acknowledge_interrupt_on_exit
/* Where the notification goes, as the processor and IPI virtualization read it; bits 0 and 1: ON and SN. */
static void fresh_descriptor(void) {
    for (u32 i = 0; i < 8; i++) posted_interrupt_descriptor[i] = 0;
    posted_interrupt_descriptor[4] = (u64)(*apic(APIC_ID) >> 24) << 40 | SELF_VECTOR << 16;
}
static void one_posted(void) {
    fresh_apic();
    fresh_descriptor();
    posted_interrupt_descriptor[REQUESTED / 64] = BIT(REQUESTED % 64);
    posted_interrupt_descriptor[4] |= BIT(0);
    send_self_interrupt();
}
static const char* all_processed(void) {
    if (self_vector_pending() || *apic(ISR + SELF_VECTOR / 32 * 16))
        return "the notification is in the local APIC";
    if (posted_interrupt_descriptor[4] & BIT(0)) return "ON is still set";
    for (u32 i = 0; i < 4; i++)
        if (posted_interrupt_descriptor[i]) return "PIR is not clear";
    return 0;
}
STEP(posted, "a notification pending at entry: no exit, the request is delivered", "nop", POSTING,
     .secondary = interrupts, .prepare = one_posted, .before = {INTERRUPTS_ON}, .reason = exit_vmcall,
     .length = 3, .at = HANDLER(REQUESTED), .after = {{stack0, (u64)guest(posted)}, STATUS(REQUESTED, 0)},
     .check = all_processed)
STEP(posted_masked, "with IF = 0 it becomes RVI", "nop \n 9: vmcall", POSTING, .secondary = interrupts,
     .prepare = one_posted, .reason = exit_vmcall, .length = 3, .after = {STATUS(0, REQUESTED)},
     .check = all_processed)
STEP(posted_hlt, "it ends the HLT state", "nop", POSTING, .secondary = interrupts, .prepare = one_posted,
     .before = {INTERRUPTS_ON, {guest_activity_state, activity_hlt}}, .reason = exit_vmcall, .length = 3,
     .at = HANDLER(REQUESTED), .after = {{guest_activity_state, 0}}, .check = all_processed)
STEP(posted_other, "another vector exits", "nop", POSTING, .secondary = interrupts, .prepare = one_posted,
     .before = {{posted_interrupt_notification_vector, SELF_VECTOR + 1}}, .reason = exit_external_interrupt,
     .interruption = EVENT(type_external_interrupt, SELF_VECTOR), .check = end_of_interrupt)

static int has_ipi_virtualization(void) { return vmx.tertiary_allowed & ipi_virtualization; }
/* The guest is its own target. */
static void ipi_to_itself(void) {
    fresh_apic();
    apic_on();
    fresh_descriptor();
    pid_pointer_table[0] = (u64)posted_interrupt_descriptor | 1;
}
STEP(ipi, "an IPI: posted, notified, processed and delivered without an exit",
     APIC_PAGE "sti \n mov dword ptr [rbx + 0x300], 0x61 \n mov ecx, 1000000 \n 8: loop 8b",
     .pin = external_interrupt_exiting | process_posted_interrupts,
     .primary = use_tpr_shadow | activate_tertiary_controls, .exit = acknowledge_interrupt_on_exit,
     .secondary = registers | virtual_interrupt_delivery, .available = has_ipi_virtualization,
     .before = {{tertiary_processor_based_vm_execution_controls, ipi_virtualization}},
     .prepare = ipi_to_itself, .reason = exit_vmcall, .length = 3, .at = HANDLER(REQUESTED),
     .after = {STATUS(REQUESTED, 0)}, .check = all_processed)
STEP(ipi_no_entry, "an IPI to a target without an entry is left to the host",
     APIC_PAGE "mov dword ptr [rbx + 0x310], 0x01000000 \n mov dword ptr [rbx + 0x300], 0x61 \n 9: nop",
     .pin = external_interrupt_exiting, .primary = use_tpr_shadow | activate_tertiary_controls,
     .secondary = registers | virtual_interrupt_delivery, .available = has_ipi_virtualization,
     .before = {{tertiary_processor_based_vm_execution_controls, ipi_virtualization}},
     .prepare = ipi_to_itself, .reason = exit_apic_write, .qualification = ICR_LOW)
#undef GROUP
