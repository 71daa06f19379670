/* The VMCS in the words of the manual: fields, controls, and the formats that steps write down.
 * SDM 3C ch. 24 "Virtual-Machine Control Structures". */
#pragma once

#include "x86.h"

enum Field {
#define FIELD(encoding, name) name = encoding,
#include "vmcs_fields.inc"
    first_pseudo_field = rax,
};

enum ExitReason {
#define EXIT_REASON(number, name) exit_##name = number,
#include "exit_reasons.inc"
    vm_entry_failure = 1 << 31,
};

/* SDM 3C Table 24-5 "Definitions of Pin-Based VM-Execution Controls" */
#define external_interrupt_exiting BIT(0)
#define nmi_exiting BIT(3)
#define virtual_nmis BIT(5)
#define activate_vmx_preemption_timer BIT(6)
#define process_posted_interrupts BIT(7)

/* SDM 3C Table 24-6 "Definitions of Primary Processor-Based VM-Execution Controls" */
#define interrupt_window_exiting BIT(2)
#define use_tsc_offsetting BIT(3)
#define hlt_exiting BIT(7)
#define invlpg_exiting BIT(9)
#define mwait_exiting BIT(10)
#define rdpmc_exiting BIT(11)
#define rdtsc_exiting BIT(12)
#define cr3_load_exiting BIT(15)
#define cr3_store_exiting BIT(16)
#define activate_tertiary_controls BIT(17)
#define cr8_load_exiting BIT(19)
#define cr8_store_exiting BIT(20)
#define use_tpr_shadow BIT(21)
#define nmi_window_exiting BIT(22)
#define mov_dr_exiting BIT(23)
#define unconditional_io_exiting BIT(24)
#define use_io_bitmaps BIT(25)
#define monitor_trap_flag BIT(27)
#define use_msr_bitmaps BIT(28)
#define monitor_exiting BIT(29)
#define pause_exiting BIT(30)
#define activate_secondary_controls BIT(31)

/* SDM 3C Table 24-7 "Definitions of Secondary Processor-Based VM-Execution Controls" */
#define virtualize_apic_accesses BIT(0)
#define enable_ept BIT(1)
#define descriptor_table_exiting BIT(2)
#define enable_rdtscp BIT(3)
#define virtualize_x2apic_mode BIT(4)
#define enable_vpid BIT(5)
#define wbinvd_exiting BIT(6)
#define unrestricted_guest BIT(7)
#define apic_register_virtualization BIT(8)
#define virtual_interrupt_delivery BIT(9)
#define rdrand_exiting BIT(11)
#define enable_invpcid BIT(12)
#define rdseed_exiting BIT(16)
#define enable_pml BIT(17)

/* Tertiary processor-based VM-execution controls, of later editions */
#define ipi_virtualization BIT(4)

/* SDM 3C Table 24-10 "Definitions of VM-Exit Controls" */
#define save_debug_controls BIT(2)
#define host_address_space_size BIT(9)
#define acknowledge_interrupt_on_exit BIT(15)
#define save_ia32_pat BIT(18)
#define exit_load_ia32_pat BIT(19)
#define save_ia32_efer BIT(20)
#define exit_load_ia32_efer BIT(21)
#define save_vmx_preemption_timer_value BIT(22)

/* SDM 3C Table 24-12 "Definitions of VM-Entry Controls" */
#define load_debug_controls BIT(2)
#define ia32e_mode_guest BIT(9)
#define entry_load_ia32_pat BIT(14)
#define entry_load_ia32_efer BIT(15)

/* SDM 3C Tables 24-13 and 24-15: interruption information, the same format for injected events,
 * exiting events and IDT vectoring. */
#define EVENT(type, vector) (0x80000000u | (type) << 8 | (vector))
#define EVENT_WITH_ERROR_CODE(type, vector) (EVENT(type, vector) | 1u << 11)
#define NMI_UNBLOCKING_DUE_TO_IRET (1u << 12)
enum {
    type_external_interrupt = 0,
    type_nmi = 2,
    type_hardware_exception = 3,
    type_software_interrupt = 4,
    type_privileged_software_exception = 5,
    type_software_exception = 6,
    type_other_event = 7,
};
enum { DB = 1, NMI = 2, BP = 3, UD = 6, DF = 8, NP = 11, SS = 12, GP = 13, PF = 14 };

/* SDM 3C Table 24-3 "Format of Interruptibility State" */
#define blocking_by_sti BIT(0)
#define blocking_by_mov_ss BIT(1)
#define blocking_by_nmi BIT(3)

/* SDM 3C 24.4.2 "Activity state" */
enum { activity_active = 0, activity_hlt = 1, activity_shutdown = 2 };

/* SDM 3C 24.4.2 "Pending debug exceptions"; the same bits in the qualification of a #DB exit */
#define pending_BD BIT(13)
#define pending_BS BIT(14)
#define pending_enabled_breakpoint BIT(12)

/* RFLAGS */
#define RFLAGS_FIXED BIT(1)
#define RFLAGS_TF BIT(8)
#define RFLAGS_IF BIT(9)
#define RFLAGS_RF BIT(16)

/* CR0, CR4 */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_PG BIT(31)
#define CR4_PGE BIT(7)
#define CR4_OSXSAVE BIT(18)

/* SDM 3C Table 27-3 "Exit Qualification for Control-Register Accesses" */
#define CR_QUALIFICATION(cr, access, gpr) ((cr) | (access) << 4 | (gpr) << 8)
enum { mov_to_cr = 0, mov_from_cr = 1, clts = 2, lmsw = 3 };
#define lmsw_memory_operand BIT(6)
#define lmsw_source(data) ((u64)(data) << 16)

/* SDM 3C Table 27-4 "Exit Qualification for MOV DR" */
#define DR_QUALIFICATION(dr, from, gpr) ((dr) | (from) << 4 | (gpr) << 8)

/* SDM 3C Table 27-5 "Exit Qualification for I/O Instructions" */
#define IO_QUALIFICATION(size, bits, port) (((u64)(size)-1) | (bits) | (u64)(port) << 16)
#define io_in BIT(3)
#define io_string BIT(4)
#define io_rep BIT(5)
#define io_immediate BIT(6)

/* SDM 3C Table 27-7 "Exit Qualification for EPT Violations" */
#define ept_data_read BIT(0)
#define ept_data_write BIT(1)
#define ept_instruction_fetch BIT(2)
#define ept_readable BIT(3)
#define ept_writable BIT(4)
#define ept_executable BIT(5)
#define ept_linear_address_valid BIT(7)
#define ept_translation BIT(8)
/* Bit 6 is undefined without mode-based execute control. */
#define ept_undefined BIT(6)
/* Bits 9 to 11, "advanced VM-exit information for EPT violations", where the processor offers it: the pages
 * of the demo are user-mode pages, writable unless a step says otherwise, and executable. */
#define ept_user_page BIT(9)
#define ept_writable_page BIT(10)
#define ept_advanced_information (BIT(9) | BIT(10) | BIT(11))

/* SDM 3C Table 27-6 "Exit Qualification for APIC-Access VM Exits from Linear Accesses" */
#define APIC_ACCESS_QUALIFICATION(offset, type) ((offset) | (type) << 12)

/* SDM 3C Tables 27-8 to 27-14: VM-exit instruction information. Registers are numbered as everywhere:
 * RAX 0, RCX 1, RDX 2, RBX 3, RSP 4, RBP 5, RSI 6, RDI 7. */
#define info_scaling(power) (power)
#define info_reg1(reg) ((reg) << 3)
#define info_address_size_32 (1 << 7)
#define info_address_size_64 (2 << 7)
#define info_register BIT(10)
#define info_operand_size_64 (2 << 11)
#define info_operand_size_32 (1 << 11)
#define info_segment(segment) ((segment) << 15)
#define info_index(reg) ((reg) << 18)
#define info_base(reg) ((reg) << 23)
#define info_identity(number) ((number) << 28)
#define info_reg2(reg) ((u32)(reg) << 28)
enum { segment_es, segment_cs, segment_ss, segment_ds, segment_fs, segment_gs };
/* [RBX+RCX*4+displacement], the operand that all memory forms of the demo use */
#define info_memory_operand \
    (info_scaling(2) | info_address_size_64 | info_segment(segment_ds) | info_index(1) | info_base(3))
/* The defined bits of each layout; the others are undefined. */
#define info_defined_memory 0x0FFF8783ul                    /* VMCLEAR, VMPTRLD, VMPTRST, VMXON */
#define info_defined_outs 0x00038380ul                      /* address size, segment */
#define info_defined_ins 0x00000380ul                       /* address size */
#define info_defined_inv (info_defined_memory | 0xF0000000) /* INVEPT, INVPCID, INVVPID: and Reg2 */
#define info_defined_table (info_defined_memory | 0x30000000)
#define info_defined_table_register (0x78ul | info_register | 0x30000000)
#define info_defined_vmread_register (0x78ul | info_register | 0xF0000000)
#define info_defined_rdrand (0x78ul | 0x1800)

static inline u64 vmread(u64 field) {
    u64 value = 0;
    vmread_outcome(field, &value);
    return value;
}

static inline void vmwrite(u64 field, u64 value) { vmwrite_outcome(field, value); }

const char* field_name(u64 field);
const char* exit_reason_name(u64 basic_reason);
