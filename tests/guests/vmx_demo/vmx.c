#include "vmx.h"

#include "guest_memory.h"

#define PAGE_OF_MEMORY __attribute__((aligned(4096)))
PAGE_OF_MEMORY u8 vmxon_region[4096], vmcs_region[4096], spare_region[4096];
PAGE_OF_MEMORY u8 io_bitmap_a[4096], io_bitmap_b[4096], msr_bitmap[4096];
PAGE_OF_MEMORY u8 virtual_apic_page[4096];
PAGE_OF_MEMORY u64 page_modification_log[512];
__attribute__((aligned(64))) u64 posted_interrupt_descriptor[8], pid_pointer_table[1];
__attribute__((aligned(16))) u64 msr_area[8];

struct Vmx vmx;
struct GuestRegisters guest_registers;

extern u64 host_tss[];

static void read_capabilities(void) {
    vmx.basic = rdmsr(IA32_VMX_BASIC);
    vmx.misc = rdmsr(IA32_VMX_MISC);
    /* SDM 3D A.2: bit 55 of IA32_VMX_BASIC says that default1 controls are judged by the TRUE MSRs. */
    const int use_true = vmx.basic >> 55 & 1;
    vmx.pin = rdmsr(use_true ? IA32_VMX_TRUE_PINBASED_CTLS : IA32_VMX_PINBASED_CTLS);
    vmx.primary = rdmsr(use_true ? IA32_VMX_TRUE_PROCBASED_CTLS : IA32_VMX_PROCBASED_CTLS);
    vmx.exit = rdmsr(use_true ? IA32_VMX_TRUE_EXIT_CTLS : IA32_VMX_EXIT_CTLS);
    vmx.entry = rdmsr(use_true ? IA32_VMX_TRUE_ENTRY_CTLS : IA32_VMX_ENTRY_CTLS);
    if (vmx.primary >> 32 & activate_secondary_controls) {
        vmx.secondary = rdmsr(IA32_VMX_PROCBASED_CTLS2);
        vmx.secondary_allowed = (u32)(vmx.secondary >> 32);
    }
    if (vmx.primary >> 32 & activate_tertiary_controls)
        vmx.tertiary_allowed = rdmsr(IA32_VMX_PROCBASED_CTLS3);
    if (vmx.secondary_allowed & (enable_ept | enable_vpid)) vmx.ept_vpid_cap = rdmsr(IA32_VMX_EPT_VPID_CAP);
}

/* SDM 3C 23.7 "Enabling and Entering VMX Operation", 31.5 "VMM Setup & Tear Down" */
const char* vmx_enable(void) {
    enum { lock = 1, vmx_outside_smx = 4 };
    if (!(cpuid(1, 0).ecx & BIT(5))) return "CPUID.01H:ECX.VMX[bit 5] = 0";
    if (!(rdmsr(IA32_FEATURE_CONTROL) & lock)) wrmsr(IA32_FEATURE_CONTROL, lock | vmx_outside_smx);
    if (!(rdmsr(IA32_FEATURE_CONTROL) & vmx_outside_smx))
        return "IA32_FEATURE_CONTROL is locked with VMX outside SMX disabled";
    read_capabilities();
    write_cr0((read_cr0() | rdmsr(IA32_VMX_CR0_FIXED0)) & rdmsr(IA32_VMX_CR0_FIXED1));
    write_cr4((read_cr4() | rdmsr(IA32_VMX_CR4_FIXED0)) & rdmsr(IA32_VMX_CR4_FIXED1));
    *(u32*)vmxon_region = *(u32*)vmcs_region = (u32)vmx.basic & 0x7FFFFFFF;
    return vmxon((u64)vmxon_region) == vm_succeed ? 0 : "VMXON failed";
}

/* The controls of a step that asks for nothing. Save and load debug controls are default1 controls. */
static struct Controls default_controls(void) {
    return (struct Controls){
        .primary = vmx.secondary_allowed ? activate_secondary_controls : 0,
        .secondary = vmx.secondary_allowed & (enable_ept | enable_vpid),
        .exit = host_address_space_size | save_debug_controls,
        .entry = ia32e_mode_guest | load_debug_controls,
    };
}

static u32 adjusted(u32 wanted, u64 capability) {
    return (wanted | (u32)capability) & (u32)(capability >> 32);
}

static int on_offer(u32 wanted, u64 capability) { return !(wanted & ~(u32)(capability >> 32)); }

int controls_on_offer(struct Controls wanted) {
    return on_offer(wanted.pin, vmx.pin) && on_offer(wanted.primary, vmx.primary) &&
           on_offer(wanted.secondary, vmx.secondary) && on_offer(wanted.exit, vmx.exit) &&
           on_offer(wanted.entry, vmx.entry);
}

void vmcs_controls(struct Controls on, struct Controls off) {
    const struct Controls base = default_controls();
    vmwrite(pin_based_vm_execution_controls, adjusted((base.pin | on.pin) & ~off.pin, vmx.pin));
    vmwrite(primary_processor_based_vm_execution_controls,
            adjusted((base.primary | on.primary) & ~off.primary, vmx.primary));
    if (vmx.secondary_allowed)
        vmwrite(secondary_processor_based_vm_execution_controls,
                adjusted((base.secondary | on.secondary) & ~off.secondary, vmx.secondary));
    vmwrite(vm_exit_controls, adjusted((base.exit | on.exit) & ~off.exit, vmx.exit));
    vmwrite(vm_entry_controls, adjusted((base.entry | on.entry) & ~off.entry, vmx.entry));
}

static void control_fields(void) {
    static const u32 zero[] = {exception_bitmap,
                               page_fault_error_code_mask,
                               page_fault_error_code_match,
                               cr3_target_count,
                               vm_exit_msr_store_count,
                               vm_exit_msr_load_count,
                               vm_entry_msr_load_count,
                               vm_entry_interruption_information,
                               vm_entry_exception_error_code,
                               vm_entry_instruction_length,
                               cr0_guest_host_mask,
                               cr4_guest_host_mask,
                               cr0_read_shadow,
                               cr4_read_shadow,
                               tsc_offset,
                               vm_exit_msr_store_address,
                               vm_exit_msr_load_address,
                               vm_entry_msr_load_address};
    for (u32 i = 0; i < COUNT_OF(zero); i++) vmwrite(zero[i], 0);
    vmwrite(address_of_io_bitmap_a, (u64)io_bitmap_a);
    vmwrite(address_of_io_bitmap_b, (u64)io_bitmap_b);
    if (vmx.primary >> 32 & use_msr_bitmaps) vmwrite(address_of_msr_bitmaps, (u64)msr_bitmap);
    if (vmx.primary >> 32 & use_tpr_shadow) {
        vmwrite(virtual_apic_address, (u64)virtual_apic_page);
        vmwrite(tpr_threshold, 0);
    }
    if (vmx.secondary_allowed & virtualize_apic_accesses)
        vmwrite(apic_access_address, (u64)window_memory + PAGE(page_apic_access));
    if (vmx.secondary_allowed & virtual_interrupt_delivery) {
        vmwrite(guest_interrupt_status, 0);
        for (u32 n = 0; n < 4; n++) vmwrite(eoi_exit_bitmap_0 + 2 * n, 0);
    }
    if (vmx.pin >> 32 & process_posted_interrupts) {
        vmwrite(posted_interrupt_notification_vector, 0x50);
        vmwrite(posted_interrupt_descriptor_address, (u64)posted_interrupt_descriptor);
    }
    if (vmx.tertiary_allowed & ipi_virtualization) {
        vmwrite(pid_pointer_table_address, (u64)pid_pointer_table);
        vmwrite(last_pid_pointer_index, 0);
    }
    if (vmx.secondary_allowed & enable_vpid) vmwrite(virtual_processor_identifier, 1);
    if (vmx.secondary_allowed & enable_ept)
        vmwrite(ept_pointer, (u64)ept_pml4 | 3 << 3 | 6); /* 4 levels, write back */
    if (vmx.secondary_allowed & enable_pml) vmwrite(pml_address, (u64)page_modification_log);
}

/* Guest segment registers: ES CS SS DS FS GS LDTR TR are at consecutive encodings. */
static void guest_segment(u32 number, u16 selector, u32 limit, u32 access_rights, u64 base) {
    vmwrite(guest_es_selector + 2 * number, selector);
    vmwrite(guest_es_limit + 2 * number, limit);
    vmwrite(guest_es_access_rights + 2 * number, access_rights);
    vmwrite(guest_es_base + 2 * number, base);
}

static void guest_fields(void) {
    for (u32 segment = segment_es; segment <= segment_gs; segment++)
        guest_segment(segment, 0x10, 0xFFFFFFFF, 0xC093, 0);
    guest_segment(segment_cs, 0x08, 0xFFFFFFFF, 0xA09B, 0);
    guest_segment(6, 0, 0, 0x10000, 0);                 /* LDTR: unusable */
    guest_segment(7, 0x18, 0x67, 0x8B, (u64)guest_tss); /* TR: busy 64-bit TSS */
    vmwrite(guest_gdtr_base, (u64)guest_gdt);
    vmwrite(guest_gdtr_limit, 8 * 8 - 1);
    vmwrite(guest_idtr_base, (u64)guest_idt);
    vmwrite(guest_idtr_limit, 0xFFF);
    vmwrite(guest_cr0, read_cr0());
    vmwrite(guest_cr3, (u64)guest_pml4);
    vmwrite(guest_cr4, read_cr4());
    vmwrite(guest_dr7, 0x400);
    vmwrite(guest_rsp, (u64)guest_stack_top);
    vmwrite(guest_rflags, RFLAGS_FIXED);
    vmwrite(vmcs_link_pointer, ~0ul);
    static const u32 zero[] = {guest_ia32_debugctl,    guest_interruptibility_state,
                               guest_activity_state,   guest_pending_debug_exceptions,
                               guest_ia32_sysenter_cs, guest_ia32_sysenter_esp,
                               guest_ia32_sysenter_eip};
    for (u32 i = 0; i < COUNT_OF(zero); i++) vmwrite(zero[i], 0);
}

static void host_fields(void) {
    for (u32 segment = segment_es; segment <= segment_gs; segment++)
        vmwrite(host_es_selector + 2 * segment, segment == segment_cs ? 0x08 : 0x10);
    vmwrite(host_tr_selector, 0x18);
    vmwrite(host_tr_base, (u64)host_tss);
    vmwrite(host_gdtr_base, read_gdtr().base);
    vmwrite(host_idtr_base, read_idtr().base);
    vmwrite(host_cr0, read_cr0());
    vmwrite(host_cr3, read_cr3());
    vmwrite(host_cr4, read_cr4());
    static const u32 zero[] = {host_fs_base, host_gs_base, host_ia32_sysenter_cs, host_ia32_sysenter_esp,
                               host_ia32_sysenter_eip};
    for (u32 i = 0; i < COUNT_OF(zero); i++) vmwrite(zero[i], 0);
}

void vmcs_defaults(void) {
    vmclear((u64)vmcs_region);
    vmptrld((u64)vmcs_region);
    control_fields();
    guest_fields();
    host_fields();
}
