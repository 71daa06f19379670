/* VM entries that fail, MSR areas, guests in other modes, what a VM exit loads into the host; triple fault.
 * SDM 3C ch. 26 "VM Entries", 27.5 "Loading Host State". */
#define STEPS_FILE "5"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VM entry refused: invalid control fields, VM-instruction error 7 (SDM 3C 26.2.1)"

#define REFUSED(id, number, text, ...) \
    STEP(id, text, "nop", .outcome = outcome_vm_fail_valid, .error = number, __VA_ARGS__)

static int pin_has_must_be_1(void) { return !!(u32)vmx.pin; }
static void too_many_cr3_targets(void) { vmwrite(cr3_target_count, (vmx.misc >> 16 & 0x1FF) + 1); }

REFUSED(ctl_pin, 7, "pin-based controls: a bit that must be 1 is 0", .available = pin_has_must_be_1,
        .before = {{pin_based_vm_execution_controls, 0}})
REFUSED(ctl_entry, 7, "VM-entry controls: a reserved bit is 1", .before = {{vm_entry_controls, ~0u}})
REFUSED(ctl_cr3, 7, "CR3-target count above IA32_VMX_MISC[24:16]", .prepare = too_many_cr3_targets)
REFUSED(ctl_io, 7, "I/O bitmap not aligned", .primary = use_io_bitmaps,
        .before = {{address_of_io_bitmap_a, 0x800}})
REFUSED(ctl_nmi, 7, "NMI-window exiting without virtual NMIs", .primary = nmi_window_exiting)
static void vpid_0(void) { vmwrite(virtual_processor_identifier, 0); }
REFUSED(ctl_vpid, 7, "VPID 0", .secondary = enable_vpid, .prepare = vpid_0)
REFUSED(ctl_eptp, 7, "EPTP: memory type 7", .secondary = enable_ept, .before = {{ept_pointer, 3 << 3 | 7}})
REFUSED(ctl_ug, 7, "unrestricted guest without EPT", .secondary = unrestricted_guest,
        .secondary_off = enable_ept)
REFUSED(ctl_timer, 7, "save VMX-preemption timer value without the timer",
        .exit = save_vmx_preemption_timer_value)
REFUSED(ctl_inject_type, 7, "injection: type 1",
        .before = {{vm_entry_interruption_information, EVENT(1, 0x40)}})
REFUSED(ctl_inject_nmi, 7, "injection: NMI with vector 3",
        .before = {{vm_entry_interruption_information, EVENT(type_nmi, 3)}})
REFUSED(ctl_inject_length, 7, "injection: software interrupt with instruction length 16",
        .before = {{vm_entry_interruption_information, EVENT(type_software_interrupt, 0x42)},
                   {vm_entry_instruction_length, 16}})
REFUSED(ctl_msr_load, 7, "VM-entry MSR-load address not aligned",
        .before = {{vm_entry_msr_load_count, 1}, {vm_entry_msr_load_address, 8}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VM entry refused: invalid host-state fields, VM-instruction error 8 (SDM 3C 26.2.2 to 26.2.4)"

REFUSED(host_cr0, 8, "CR0.PE = 0", .before = {{host_cr0, 0x80010032}})
REFUSED(host_cr4, 8, "CR4.VMXE = 0", .before = {{host_cr4, 0x20}})
REFUSED(host_cs_rpl, 8, "CS selector with RPL 3", .before = {{host_cs_selector, 0x0B}})
REFUSED(host_cs_null, 8, "CS selector 0", .before = {{host_cs_selector, 0}})
REFUSED(host_tr_null, 8, "TR selector 0", .before = {{host_tr_selector, 0}})
REFUSED(host_gs_base, 8, "GS base not canonical", .before = {{host_gs_base, 1ul << 62}})
REFUSED(host_size, 8, "host address-space size = 0 in IA-32e mode", .exit_off = host_address_space_size)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VM entry refused: order and launch state (SDM 3C 26.1, 30.4 Table 30-1)"

REFUSED(resume_clear, 5, "VMRESUME, launch state clear", .how = force_vmresume)
STEP(launch, "(a launch)", "vmcall", .reason = exit_vmcall, .length = 3)
AGAIN(launch_launched, "VMLAUNCH, launch state launched", .how = force_vmlaunch,
      .outcome = outcome_vm_fail_valid, .error = 4)
REFUSED(after_mov_ss, 26, "VMLAUNCH right behind MOV SS", .how = vmlaunch_after_mov_ss)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VM-entry failure 80000021H: invalid guest state (SDM 3C 26.3.1, 26.7)"

#define INVALID(id, text, ...)                              \
    STEP(id, text, "nop", .outcome = outcome_entry_failure, \
         .reason = vm_entry_failure | exit_invalid_guest_state, __VA_ARGS__)
enum { qualification_vmcs_link_pointer = 4 };

INVALID(gs_cr0, "CR0: paging without protection", .before = {{guest_cr0, 0x80010032}})
INVALID(gs_rflags, "RFLAGS bit 1 = 0", .before = {{guest_rflags, 0}})
INVALID(gs_rflags_vm, "RFLAGS.VM in IA-32e mode", .before = {{guest_rflags, RFLAGS_FIXED | BIT(17)}})
/* Bochs 2.7 does not check this one. */
INVALID(gs_rip, "RIP not canonical", .before = {{guest_rip, 1ul << 62}})
INVALID(gs_cr3, "CR3 with bit 62", .before = {{guest_cr3, 1ul << 62}})
INVALID(gs_pae, "IA-32e mode guest with CR4.PAE = 0", .before = {{guest_cr4, 0x2000}})
INVALID(gs_dr7, "DR7 with bit 32", .before = {{guest_dr7, 0x100000400}})
INVALID(gs_cs_type, "CS is a data segment of type 1", .before = {{guest_cs_access_rights, 0xA091}})
INVALID(gs_cs_l_d, "CS.L = 1 and CS.D = 1", .before = {{guest_cs_access_rights, 0xE09B}})
INVALID(gs_ss_dpl, "SS.DPL differs from SS.RPL", .before = {{guest_ss_access_rights, 0xC0F3}})
INVALID(gs_tr, "TR unusable", .before = {{guest_tr_access_rights, 0x1008B}})
INVALID(gs_ldtr, "LDTR usable, of type 1", .before = {{guest_ldtr_access_rights, 0x81}})
INVALID(gs_gdtr, "GDTR limit with bit 16", .before = {{guest_gdtr_limit, 0x1FFFF}})
INVALID(gs_idtr, "IDTR base not canonical", .before = {{guest_idtr_base, 1ul << 62}})
INVALID(gs_activity, "activity state 4", .before = {{guest_activity_state, 4}})
INVALID(gs_blocking, "blocking by STI and by MOV SS",
        .before = {{guest_interruptibility_state, blocking_by_sti | blocking_by_mov_ss},
                   {guest_rflags, RFLAGS_FIXED | RFLAGS_IF}})
INVALID(gs_sti, "blocking by STI with IF = 0", .before = {{guest_interruptibility_state, blocking_by_sti}})
INVALID(gs_inject_if, "injection of an external interrupt with IF = 0; the event stays in its field",
        .before = {{vm_entry_interruption_information, EVENT(type_external_interrupt, 0x40)}})
INVALID(gs_pending, "pending debug exceptions: bit 13", .before = {{guest_pending_debug_exceptions, BIT(13)}})
/* Nor this. */
INVALID(gs_pending_bs, "RFLAGS.TF and blocking by STI without BS pending",
        .before = {{guest_interruptibility_state, blocking_by_sti},
                   {guest_rflags, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF}})
INVALID(gs_link, "VMCS link pointer not aligned: qualification 4", .before = {{vmcs_link_pointer, 0x10}},
        .qualification = qualification_vmcs_link_pointer)
INVALID(gs_link_self, "VMCS link pointer is the current VMCS",
        .before = {{vmcs_link_pointer, (u64)vmcs_region}}, .qualification = qualification_vmcs_link_pointer)
INVALID(gs_efer, "IA32_EFER.LMA differs from IA-32e mode guest", .entry = entry_load_ia32_efer,
        .before = {{guest_ia32_efer, 0}})
INVALID(gs_pat, "IA32_PAT with memory type 2", .entry = entry_load_ia32_pat, .before = {{guest_ia32_pat, 2}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "MSR areas (SDM 3C 26.4, 27.4, 27.6)"

static void msr_entry(u32 number, u32 index, u64 value) {
    msr_area[2 * number] = index;
    msr_area[2 * number + 1] = value;
}
static void load_lstar_and_gs(void) {
    msr_entry(0, IA32_LSTAR, 0x1234567);
    msr_entry(1, IA32_KERNEL_GS_BASE, 0x7654321);
    msr_entry(2, IA32_LSTAR, 0);
    msr_entry(3, IA32_KERNEL_GS_BASE, 0);
    vmwrite(vm_exit_msr_store_address, (u64)(msr_area + 4));
}
static void load_fs_base_second(void) {
    msr_entry(0, IA32_LSTAR, 0x1234567);
    msr_entry(1, IA32_FS_BASE, 0);
}
static const char* msrs_stored(void) {
    return msr_area[5] == 0x1234567 ? msr_area[7] == 0x89ABCDEF ? 0 : "IA32_KERNEL_GS_BASE was not stored"
                                    : "IA32_LSTAR was not stored";
}
#define MSR_LOAD \
    {vm_entry_msr_load_count, 2}, { vm_entry_msr_load_address, (u64)msr_area }

STEP(msr_areas, "VM entry loads two MSRs, the guest changes one, VM exit stores both",
     "mov ecx, 0xC0000102 \n rdmsr \n mov esi, eax \n mov eax, 0x89ABCDEF \n wrmsr \n 9: vmcall",
     .primary = use_msr_bitmaps, .prepare = load_lstar_and_gs,
     .before = {MSR_LOAD, {vm_exit_msr_store_count, 2}}, .reason = exit_vmcall, .length = 3,
     .after = {{rsi, 0x7654321}}, .check = msrs_stored)
STEP(msr_failure, "the second entry is IA32_FS_BASE: VM-entry failure 80000022H, qualification 2", "nop",
     .prepare = load_fs_base_second, .before = {MSR_LOAD}, .outcome = outcome_entry_failure,
     .reason = vm_entry_failure | exit_msr_loading, .qualification = 2)
STEP(efer, "IA32_EFER is loaded by VM entry and saved by VM exit",
     "mov ecx, 0xC0000080 \n rdmsr \n btr eax, 0 \n wrmsr \n 9: vmcall", .primary = use_msr_bitmaps,
     .entry = entry_load_ia32_efer, .exit = save_ia32_efer | exit_load_ia32_efer,
     .before = {{guest_ia32_efer, 0x501}, {host_ia32_efer, 0xD01}}, .reason = exit_vmcall, .length = 3,
     .after = {{guest_ia32_efer, 0x500}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Host state after VM exit (SDM 3C 27.5)"

static void spoil_host_state(void) {
    vmwrite(guest_gdtr_limit, 0x3F);
    vmwrite(guest_rflags, RFLAGS_FIXED | 0x8D5); /* CF PF AF ZF SF OF */
    write_dr7(0x401);
}
static const char* host_state(void) {
    if (rflags_after_exit != RFLAGS_FIXED) return "RFLAGS is not 2";
    if (read_dr7() != 0x400) return "DR7 is not 400H";
    if (read_gdtr().limit != 0xFFFF || read_idtr().limit != 0xFFFF)
        return "limits of GDTR and IDTR are not FFFFH";
    if (read_gdtr().base != vmread(host_gdtr_base) || read_idtr().base != vmread(host_idtr_base))
        return "bases of GDTR and IDTR are not those of the host-state area";
    if (read_cr0() != vmread(host_cr0) || read_cr3() != vmread(host_cr3) || read_cr4() != vmread(host_cr4))
        return "CR0, CR3, CR4 are not those of the host-state area";
    return 0;
}
STEP(host_state, "RFLAGS, DR7, GDTR, IDTR, control registers", "vmcall", .prepare = spoil_host_state,
     .reason = exit_vmcall, .length = 3, .check = host_state,
     .after = {{guest_rflags, RFLAGS_FIXED | 0x8D5}, {guest_gdtr_limit, 0x3F}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Guests in other modes: unrestricted guest (SDM 3C 26.3.1.2, 26.6)"

static void flat_segments(u32 code_rights, u32 data_rights, u32 limit, u64 code_base) {
    for (u32 segment = segment_es; segment <= segment_gs; segment++) {
        vmwrite(guest_es_selector + 2 * segment, segment == segment_cs ? 0x08 : 0x10);
        vmwrite(guest_es_limit + 2 * segment, limit);
        vmwrite(guest_es_access_rights + 2 * segment, segment == segment_cs ? code_rights : data_rights);
        vmwrite(guest_es_base + 2 * segment, segment == segment_cs ? code_base : 0);
    }
}
static void real_mode(void) {
    const u64 start = vmread(guest_rip);
    vmwrite(guest_cr0, CR0_NE | CR0_ET);
    vmwrite(guest_cr4, vmread(guest_cr4) & ~BIT(5));
    flat_segments(0x9B, 0x93, 0xFFFF, start);
    vmwrite(guest_rip, 0);
}
static void protected_mode(void) {
    vmwrite(guest_cr0, CR0_NE | CR0_ET | CR0_PE);
    vmwrite(guest_cr4, vmread(guest_cr4) & ~BIT(5));
    flat_segments(0xC09B, 0xC093, 0xFFFFFFFF, 0);
}
#define OUTSIDE_IA32E_MODE .secondary = enable_ept | unrestricted_guest, .entry_off = ia32e_mode_guest

STEP(real_hlt, "real mode: arithmetic in 16 bits, HLT",
     ".code16 \n mov ax, 0xFFFF \n add ax, 2 \n hlt \n .code64", OUTSIDE_IA32E_MODE, .primary = hlt_exiting,
     .prepare = real_mode, .before = {{rax, 0x12340000}}, .reason = exit_hlt, .length = 1, .at = (const u8*)6,
     .after = {{rax, 0x12340001}})
STEP(real_io, "real mode: REP INSW with 16-bit addresses",
     ".code16 \n mov di, 0x123 \n mov dx, 0x1F0 \n rep insw \n .code64", OUTSIDE_IA32E_MODE,
     .primary = unconditional_io_exiting, .prepare = real_mode, .before = {{rcx, 3}},
     .reason = exit_io_instruction, .length = 2,
     .qualification = IO_QUALIFICATION(2, io_in | io_string | io_rep, 0x1F0), .at = (const u8*)6,
     .after = {{guest_linear_address, 0x123}})
STEP(real_int, "real mode: #UD of VMREAD instead of an exit", ".code16 \n vmread eax, eax \n .code64",
     OUTSIDE_IA32E_MODE, .prepare = real_mode, .before = {{exception_bitmap, BIT(UD)}},
     .reason = exit_exception_or_nmi, .interruption = EVENT(type_hardware_exception, UD), .rf = rf_set,
     .at = (const u8*)0)
STEP(protected_cpuid, "32-bit protected mode without paging: INC EAX, CPUID",
     ".code32 \n .byte 0x40 \n 9: cpuid \n .code64", OUTSIDE_IA32E_MODE, .prepare = protected_mode,
     .reason = exit_cpuid, .length = 2, .after = {{rax, 1}})
STEP(task_switch, "32-bit protected mode: JMP to a TSS", ".code32 \n ljmp 0x28, 0 \n .code64",
     OUTSIDE_IA32E_MODE, .prepare = protected_mode, .reason = exit_task_switch,
     .qualification = 2ul << 30 | 0x28, .length = 7)
static const char* ia32e_mode_guest_is_set(void) {
    /* SDM 3C 27.2: exits store IA32_EFER.LMA in the control where IA32_VMX_MISC[5] = 1. */
    const u64 expected = vmx.misc >> 5 & 1;
    return (vmread(vm_entry_controls) >> 9 & 1) == expected ? 0 : "IA-32e mode guest is not IA32_EFER.LMA";
}
STEP(
    enter_ia32e, "paging turned on by the guest: IA-32e mode guest follows IA32_EFER.LMA",
    ".code32 \n mov eax, cr4 \n or eax, 0x20 \n mov cr4, eax \n mov eax, offset guest_pml4 \n mov cr3, eax \n"
    "mov ecx, 0xC0000080 \n rdmsr \n or eax, 0x100 \n wrmsr \n mov eax, cr0 \n or eax, 0x80000000 \n mov "
    "cr0, eax \n"
    "9: vmcall \n .code64",
    OUTSIDE_IA32E_MODE, .primary = use_msr_bitmaps, .prepare = protected_mode, .reason = exit_vmcall,
    .length = 3, .check = ia32e_mode_guest_is_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "The end (SDM 3C 25.2)"

STEP(triple_fault, "#UD with an IDT of limit 0: triple fault", "ud2", .before = {{guest_idtr_limit, 0}},
     .reason = exit_triple_fault, .rf = rf_any)
#undef GROUP
