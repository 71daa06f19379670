/* Instructions that leave the guest, always or when a control says so.
 * SDM 3C 25.1 "Instructions That Cause VM Exits", 27.2 "Recording VM-Exit Information". */
#define STEPS_FILE "1"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

#define FEATURE(name, leaf, reg, bit) \
    static int has_##name(void) { return cpuid(leaf, 0).reg >> (bit)&1; }
FEATURE(monitor, 1, ecx, 3)
FEATURE(xsave, 1, ecx, 26)
FEATURE(rdrand, 1, ecx, 30)
FEATURE(rdseed, 7, ebx, 18)
FEATURE(invpcid, 7, ebx, 10)
FEATURE(rdtscp, 0x80000001, edx, 27)
static int has_outs_information(void) { return vmx.basic >> 54 & 1; }

/* A guest at CPL 3: what its segment registers hold. */
#define AT_CPL_3                                                                              \
    {guest_cs_selector, 0x3B}, {guest_cs_access_rights, 0xA0FB}, {guest_ss_selector, 0x33}, { \
        guest_ss_access_rights, 0xC0F3                                                        \
    }

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Unconditional exits (SDM 3C 25.1.2)"

STEP(cpuid, "CPUID; general-purpose registers reach the host",
     "mov eax, 0x12345678 \n mov rcx, -2 \n mov r10, 0x5A \n 9: cpuid", .reason = exit_cpuid, .length = 2,
     .after = {{rax, 0x12345678}, {rcx, -2ul}, {r10, 0x5A}})
STEP(cpuid_cpl3, "CPUID at CPL 3", "cpuid", .before = {AT_CPL_3}, .reason = exit_cpuid, .length = 2)
STEP(cpuid_prefix, "CPUID behind redundant prefixes: they count in the length",
     ".byte 0x3E, 0x66, 0x0F, 0xA2", .reason = exit_cpuid, .length = 4)
STEP(invd, "INVD", "invd", .reason = exit_invd, .length = 2)
STEP(vmcall, "VMCALL", "vmcall \n 8: vmcall", .reason = exit_vmcall, .length = 3)
NEXT(vmcall_next, "the host skips it and the guest goes on", .reason = exit_vmcall, .length = 3,
     .at = second(vmcall))
STEP(vmcall_cpl3, "VMCALL at CPL 3", "vmcall", .before = {AT_CPL_3}, .reason = exit_vmcall, .length = 3)
STEP(xsetbv, "XSETBV", "xor ecx, ecx \n xor edx, edx \n mov eax, 1 \n 9: xsetbv", .available = has_xsave,
     .before = {{guest_cr4, 0x42020}}, .reason = exit_xsetbv, .length = 3)
STEP(xsetbv_ud, "XSETBV with CR4.OSXSAVE = 0: #UD comes first", "xsetbv", .available = has_xsave,
     .before = {{exception_bitmap, BIT(UD)}, {guest_cr4, 0x2020}}, .reason = exit_exception_or_nmi,
     .interruption = EVENT(type_hardware_exception, UD), .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP \
    "VMX instructions in the guest: exits with instruction information (SDM 3C Tables 27-9 to 27-14)"

#define MEMORY_FORM(id, name, bytes)                                                                      \
    STEP(id, name " [rbx+rcx*4+0x10]: the displacement is the qualification", #id " [rbx+rcx*4+0x10]",    \
         .reason = exit_##id, .qualification = 0x10, .length = bytes, .information = info_memory_operand, \
         .information_defined = info_defined_memory)
MEMORY_FORM(vmclear, "VMCLEAR", 6)
MEMORY_FORM(vmptrld, "VMPTRLD", 5)
MEMORY_FORM(vmptrst, "VMPTRST", 5)
MEMORY_FORM(vmxon, "VMXON", 6)
STEP(vmptrld_disp, "VMPTRLD [rip-0x20]: displacement plus next RIP",
     ".byte 0x0F, 0xC7, 0x35, 0xE0, 0xFF, 0xFF, 0xFF", .reason = exit_vmptrld,
     .qualification = (u64)guest(vmptrld_disp) + 7 - 0x20, .length = 7,
     .information = info_address_size_64 | info_segment(segment_ds) | BIT(22) | BIT(27),
     /* without a base or index register those fields and the scaling are undefined */
     .information_defined = info_defined_memory & ~(0x3u | info_index(0xF) | info_base(0xF)))
STEP(vmlaunch, "VMLAUNCH", "vmlaunch", .reason = exit_vmlaunch, .length = 3)
STEP(vmresume, "VMRESUME", "vmresume", .reason = exit_vmresume, .length = 3)
STEP(vmxoff, "VMXOFF", "vmxoff", .reason = exit_vmxoff, .length = 3)
STEP(vmxoff_cpl3, "VMXOFF at CPL 3: the exit comes before #GP", "vmxoff", .before = {AT_CPL_3},
     .reason = exit_vmxoff, .length = 3)
STEP(vmread, "VMREAD rdx, rbx", "vmread rdx, rbx", .reason = exit_vmread, .length = 3,
     .information = info_register | info_reg1(2) | info_reg2(3),
     .information_defined = info_defined_vmread_register)
STEP(vmwrite, "VMWRITE r9, rsi", "vmwrite r9, rsi", .reason = exit_vmwrite, .length = 4,
     .information = info_register | info_reg1(6) | info_reg2(9),
     .information_defined = info_defined_vmread_register)
STEP(vmread_memory, "VMREAD [rbx+rcx*4+0x10], rdx", "vmread [rbx+rcx*4+0x10], rdx", .reason = exit_vmread,
     .length = 5, .qualification = 0x10, .information = info_memory_operand | info_reg2(2),
     .information_defined = info_defined_inv)
STEP(invept, "INVEPT rdx, [rbx+rcx*4+0x10]", "invept rdx, [rbx+rcx*4+0x10]", .secondary = enable_ept,
     .reason = exit_invept, .qualification = 0x10, .length = 7,
     .information = info_memory_operand | info_reg2(2), .information_defined = info_defined_inv)
STEP(invvpid, "INVVPID rsi, [rbx+rcx*4+0x10]", "invvpid rsi, [rbx+rcx*4+0x10]", .secondary = enable_vpid,
     .reason = exit_invvpid, .qualification = 0x10, .length = 7,
     .information = info_memory_operand | info_reg2(6), .information_defined = info_defined_inv)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Exits that controls ask for (SDM 3C 25.1.3)"

STEP(hlt, "HLT", "hlt", .primary = hlt_exiting, .reason = exit_hlt, .length = 1,
     .after = {{guest_activity_state, activity_active}})
STEP(hlt_cpl3, "HLT at CPL 3: #GP(0) comes first", "hlt", .primary = hlt_exiting,
     .before = {{exception_bitmap, BIT(GP)}, AT_CPL_3}, .reason = exit_exception_or_nmi,
     .interruption = EVENT_WITH_ERROR_CODE(type_hardware_exception, GP), .rf = rf_set)
STEP(invlpg, "INVLPG [rbx+4]: the linear address is the qualification",
     "mov ebx, 0x12345000 \n 9: invlpg [rbx+4]", .primary = invlpg_exiting, .reason = exit_invlpg,
     .qualification = 0x12345004, .length = 4)
STEP(rdpmc, "RDPMC", "xor ecx, ecx \n 9: rdpmc", .primary = rdpmc_exiting, .reason = exit_rdpmc, .length = 2)
STEP(rdtsc, "RDTSC", "rdtsc", .primary = rdtsc_exiting, .reason = exit_rdtsc, .length = 2)
STEP(rdtscp, "RDTSCP", "rdtscp", .available = has_rdtscp, .primary = rdtsc_exiting,
     .secondary = enable_rdtscp, .reason = exit_rdtscp, .length = 3)
STEP(rdtscp_ud, "RDTSCP with enable RDTSCP = 0: #UD", "rdtscp", .available = has_rdtscp,
     .primary = rdtsc_exiting, .before = {{exception_bitmap, BIT(UD)}}, .reason = exit_exception_or_nmi,
     .interruption = EVENT(type_hardware_exception, UD), .rf = rf_set)
static const char* tsc_is_offset(void) {
    return guest_registers.r[2] >> 28 == 7
               ? 0
               : "RDTSC did not return the sum of time-stamp counter and TSC offset";
}
STEP(tsc_offset, "RDTSC without an exit adds the TSC offset", "rdtsc \n 9: vmcall",
     .primary = use_tsc_offsetting, .before = {{tsc_offset, 7ul << 60}}, .reason = exit_vmcall, .length = 3,
     .check = tsc_is_offset)
STEP(pause, "PAUSE", "pause", .primary = pause_exiting, .reason = exit_pause, .length = 2)
STEP(monitor, "MONITOR", "mov eax, offset guest_stack_top \n xor ecx, ecx \n xor edx, edx \n 9: monitor",
     .available = has_monitor, .primary = monitor_exiting, .reason = exit_monitor, .length = 3)
STEP(mwait, "MWAIT, monitoring not armed", "xor eax, eax \n xor ecx, ecx \n 9: mwait",
     .available = has_monitor, .primary = mwait_exiting, .reason = exit_mwait, .length = 3)
STEP(mwait_armed, "MWAIT, monitoring armed: qualification bit 0",
     "mov eax, offset guest_stack_top \n xor ecx, ecx \n xor edx, edx \n monitor \n xor eax, eax \n 9: mwait",
     .available = has_monitor, .primary = mwait_exiting, .reason = exit_mwait, .qualification = 1,
     .length = 3)
STEP(wbinvd, "WBINVD", "wbinvd", .secondary = wbinvd_exiting, .reason = exit_wbinvd, .length = 2)
STEP(rdrand, "RDRAND rdx", "rdrand rdx", .available = has_rdrand, .secondary = rdrand_exiting,
     .reason = exit_rdrand, .length = 4, .information = info_reg1(2) | info_operand_size_64,
     .information_defined = info_defined_rdrand)
STEP(rdseed, "RDSEED ecx", "rdseed ecx", .available = has_rdseed, .secondary = rdseed_exiting,
     .reason = exit_rdseed, .length = 3, .information = info_reg1(1) | info_operand_size_32,
     .information_defined = info_defined_rdrand)
STEP(invpcid, "INVPCID rdx, [rbx+rcx*4+0x10]", "invpcid rdx, [rbx+rcx*4+0x10]", .available = has_invpcid,
     .primary = invlpg_exiting, .secondary = enable_invpcid, .reason = exit_invpcid, .qualification = 0x10,
     .length = 7, .information = info_memory_operand | info_reg2(2), .information_defined = info_defined_inv)
STEP(invpcid_ud, "INVPCID with enable INVPCID = 0: #UD", "invpcid rdx, [rbx+rcx*4+0x10]",
     .available = has_invpcid, .before = {{exception_bitmap, BIT(UD)}}, .reason = exit_exception_or_nmi,
     .interruption = EVENT(type_hardware_exception, UD), .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Descriptor tables (SDM 3C Tables 27-10, 27-11)"

enum { sgdt = 0, sidt = 1, lgdt = 2, lidt = 3, sldt = 0, str = 1, lldt = 2, ltr = 3 };
#define TABLE_STEP(id, name, exit)                                                                     \
    STEP(id, name " [rbx+rcx*4+0x10]", #id " [rbx+rcx*4+0x10]", .secondary = descriptor_table_exiting, \
         .reason = exit, .qualification = 0x10, .length = 5,                                           \
         .information = info_memory_operand | info_identity(id), .information_defined = info_defined_table)
TABLE_STEP(sgdt, "SGDT", exit_access_to_gdtr_or_idtr)
TABLE_STEP(sidt, "SIDT", exit_access_to_gdtr_or_idtr)
TABLE_STEP(lgdt, "LGDT", exit_access_to_gdtr_or_idtr)
TABLE_STEP(lidt, "LIDT", exit_access_to_gdtr_or_idtr)
TABLE_STEP(sldt, "SLDT", exit_access_to_ldtr_or_tr)
TABLE_STEP(ltr, "LTR", exit_access_to_ldtr_or_tr)
STEP(str_register, "STR edx", "str edx", .secondary = descriptor_table_exiting,
     .reason = exit_access_to_ldtr_or_tr, .length = 3,
     .information = info_register | info_reg1(2) | info_identity(str),
     .information_defined = info_defined_table_register)
STEP(lldt_register, "LLDT cx", "lldt cx", .secondary = descriptor_table_exiting,
     .reason = exit_access_to_ldtr_or_tr, .length = 3,
     .information = info_register | info_reg1(1) | info_identity(lldt),
     .information_defined = info_defined_table_register)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "I/O (SDM 3C Table 27-5, I/O bitmaps 24.6.4)"

static void trap_ports(void) {
    for (u32 i = 0; i < 4096; i++) io_bitmap_a[i] = io_bitmap_b[i] = 0;
    io_bitmap_a[0x81 / 8] |= 1 << 0x81 % 8;
    io_bitmap_b[(0x8001 - 0x8000) / 8] |= 1 << 0x8001 % 8;
}

STEP(in_immediate, "IN al, 71H", "in al, 0x71", .primary = unconditional_io_exiting,
     .reason = exit_io_instruction, .qualification = IO_QUALIFICATION(1, io_in | io_immediate, 0x71),
     .length = 2)
STEP(in_dx, "IN ax, dx", "mov edx, 0x71234 \n 9: in ax, dx", .primary = unconditional_io_exiting,
     .reason = exit_io_instruction, .qualification = IO_QUALIFICATION(2, io_in, 0x1234), .length = 2)
STEP(out_dx, "OUT dx, eax; the guest goes on behind it",
     "mov edx, 0x1234 \n 9: out dx, eax \n 8: out 0x80, al", .primary = unconditional_io_exiting,
     .reason = exit_io_instruction, .qualification = IO_QUALIFICATION(4, 0, 0x1234), .length = 1)
NEXT(out_immediate, "OUT 80H, al", .primary = unconditional_io_exiting, .reason = exit_io_instruction,
     .at = second(out_dx), .qualification = IO_QUALIFICATION(1, io_immediate, 0x80), .length = 2)
STEP(outs, "REP OUTSB: linear address of the source, before any access",
     "mov edx, 0x1234 \n mov esi, 0x7654321 \n mov ecx, 3 \n 9: rep outsb", .available = has_outs_information,
     .primary = unconditional_io_exiting, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(1, io_string | io_rep, 0x1234), .length = 2,
     .information = info_address_size_64 | info_segment(segment_ds), .information_defined = info_defined_outs,
     .after = {{guest_linear_address, 0x7654321}, {rcx, 3}})
STEP(outs_segment, "OUTSW fs:[esi]: segment and address size",
     "mov edx, 0x1234 \n mov rsi, 0x1007654320 \n 9: .byte 0x64, 0x67, 0x66, 0x6F",
     .available = has_outs_information, .primary = unconditional_io_exiting,
     .before = {{guest_fs_base, 0x10000}}, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(2, io_string, 0x1234), .length = 4,
     .information = info_address_size_32 | info_segment(segment_fs), .information_defined = info_defined_outs,
     .after = {{guest_linear_address, 0x7664320}})
STEP(ins, "INSD", "mov edx, 0x1234 \n mov edi, 0x7654300 \n 9: insd", .available = has_outs_information,
     .primary = unconditional_io_exiting, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(4, io_in | io_string, 0x1234), .length = 1,
     .information = info_address_size_64, .information_defined = info_defined_ins,
     .after = {{guest_linear_address, 0x7654300}})
STEP(io_bitmap, "bitmap: port 80H passes, 81H exits", "out 0x80, al \n 9: out 0x81, al",
     .primary = use_io_bitmaps, .prepare = trap_ports, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(1, io_immediate, 0x81), .length = 2)
STEP(io_bitmap_span, "bitmap: a word at 80H touches 81H", "out 0x80, ax", .primary = use_io_bitmaps,
     .prepare = trap_ports, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(2, io_immediate, 0x80), .length = 3)
STEP(io_bitmap_b, "bitmap B: port 8001H exits", "mov edx, 0x8001 \n 9: in al, dx", .primary = use_io_bitmaps,
     .prepare = trap_ports, .reason = exit_io_instruction,
     .qualification = IO_QUALIFICATION(1, io_in, 0x8001), .length = 1)
STEP(io_bitmap_wrap, "bitmap: a word at FFFFH wraps and exits, whatever the bits",
     "mov edx, 0xFFFF \n 9: in ax, dx", .primary = use_io_bitmaps, .prepare = trap_ports,
     .reason = exit_io_instruction, .qualification = IO_QUALIFICATION(2, io_in, 0xFFFF), .length = 2)
STEP(io_bitmap_priority, "bitmap: unconditional I/O exiting is ignored", "out 0x80, al \n 9: vmcall",
     .primary = use_io_bitmaps | unconditional_io_exiting, .prepare = trap_ports, .reason = exit_vmcall,
     .length = 3)
STEP(io_cpl3, "IN at CPL 3 without permission: #GP(0) comes first", "in al, 0x71",
     .primary = unconditional_io_exiting, .before = {{exception_bitmap, BIT(GP)}, AT_CPL_3},
     .reason = exit_exception_or_nmi, .interruption = EVENT_WITH_ERROR_CODE(type_hardware_exception, GP),
     .rf = rf_set)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "MSRs (SDM 3C 25.1.3, MSR bitmaps 24.6.9)"

enum { read_low = 0x000, read_high = 0x400, write_low = 0x800, write_high = 0xC00 };

static void trap_msrs(void) {
    for (u32 i = 0; i < 4096; i++) msr_bitmap[i] = 0;
    msr_bitmap[read_low + IA32_SYSENTER_CS / 8] |= 1 << IA32_SYSENTER_CS % 8;
    msr_bitmap[write_high + (IA32_STAR & 0x1FFF) / 8] |= 1 << IA32_STAR % 8;
}

STEP(rdmsr, "RDMSR without bitmaps", "mov ecx, 0x174 \n 9: rdmsr", .reason = exit_rdmsr, .length = 2)
STEP(wrmsr, "WRMSR without bitmaps: the value is in EDX:EAX",
     "mov ecx, 0x174 \n mov eax, 0x11 \n mov edx, 0x22 \n 9: wrmsr", .reason = exit_wrmsr, .length = 2,
     .after = {{rcx, IA32_SYSENTER_CS}, {rax, 0x11}, {rdx, 0x22}})
STEP(rdmsr_absent, "RDMSR of an MSR that does not exist: the exit comes before #GP",
     "mov ecx, 0x1FFE \n 9: rdmsr", .before = {{exception_bitmap, BIT(GP)}}, .reason = exit_rdmsr,
     .length = 2)
STEP(rdmsr_bitmap, "bitmap: IA32_STAR passes, IA32_SYSENTER_CS exits",
     "mov ecx, 0xC0000081 \n rdmsr \n mov ecx, 0x174 \n 9: rdmsr", .primary = use_msr_bitmaps,
     .prepare = trap_msrs, .reason = exit_rdmsr, .length = 2, .after = {{rcx, IA32_SYSENTER_CS}})
STEP(wrmsr_bitmap, "bitmap: WRMSR of IA32_SYSENTER_CS passes, of IA32_STAR exits",
     "mov ecx, 0x174 \n mov eax, 0x77 \n xor edx, edx \n wrmsr \n mov ecx, 0xC0000081 \n 9: wrmsr",
     .primary = use_msr_bitmaps, .prepare = trap_msrs, .reason = exit_wrmsr, .length = 2,
     .after = {{rcx, IA32_STAR}, {guest_ia32_sysenter_cs, 0x77}})
STEP(rdmsr_range, "bitmap: an index in neither range exits", "mov ecx, 0x2000 \n 9: rdmsr",
     .primary = use_msr_bitmaps, .prepare = trap_msrs, .reason = exit_rdmsr, .length = 2)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Control registers (SDM 3C 25.1.3, Table 27-3)"

enum { RAX, RCX, RDX, RBX, RSI = 6, R9 = 9, R10 = 10 };

STEP(cr0_mask, "MOV to CR0: a masked bit differs from the shadow",
     "mov rax, cr0 \n or al, 8 \n 9: mov cr0, rax", .before = {{cr0_guest_host_mask, CR0_TS}},
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(0, mov_to_cr, RAX),
     .length = 3, .after = {{guest_cr0, 0x80010033}})
STEP(cr0_shadow, "MOV from CR0: masked bits come from the shadow", "mov rax, cr0 \n 9: vmcall",
     .before = {{cr0_guest_host_mask, CR0_TS | CR0_MP}, {cr0_read_shadow, CR0_TS}}, .reason = exit_vmcall,
     .length = 3, .after = {{rax, (0x80010033 & ~CR0_MP) | CR0_TS}, {guest_cr0, 0x80010033}})
STEP(cr0_equal, "MOV to CR0 equal to the shadow: no exit, masked bits stay",
     "mov rax, cr0 \n btr eax, 16 \n mov cr0, rax \n 9: vmcall",
     .before = {{cr0_guest_host_mask, CR0_TS | CR0_MP}, {cr0_read_shadow, CR0_TS}}, .reason = exit_vmcall,
     .length = 3, .after = {{guest_cr0, 0x80010033 & ~CR0_WP}})
STEP(clts, "CLTS with mask and shadow 1", "clts",
     .before = {{cr0_guest_host_mask, CR0_TS}, {cr0_read_shadow, CR0_TS}},
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(0, clts, 0), .length = 2)
STEP(clts_kept, "CLTS with mask 1, shadow 0: completes, CR0.TS stays", "clts \n 9: vmcall",
     .before = {{cr0_guest_host_mask, CR0_TS}, {guest_cr0, 0x80010033 | CR0_TS}}, .reason = exit_vmcall,
     .length = 3, .after = {{guest_cr0, 0x80010033 | CR0_TS}})
STEP(lmsw, "LMSW ax: source data in the qualification", "mov eax, 0x3B \n 9: lmsw ax",
     .before = {{cr0_guest_host_mask, CR0_TS}}, .reason = exit_control_register_access,
     .qualification = CR_QUALIFICATION(0, lmsw, 0) | lmsw_source(0x3B), .length = 3)
STEP(lmsw_memory, "LMSW [rbx]: linear address as well",
     "mov ebx, 0x50000010 \n mov word ptr [rbx], 0x1B \n 9: lmsw [rbx]", .secondary = enable_ept,
     .before = {{cr0_guest_host_mask, CR0_TS}}, .reason = exit_control_register_access,
     .qualification = CR_QUALIFICATION(0, lmsw, 0) | lmsw_memory_operand | lmsw_source(0x1B), .length = 3,
     .after = {{guest_linear_address, WINDOW + 0x10}})
STEP(lmsw_pe, "LMSW cannot clear PE: no exit", "mov eax, 2 \n lmsw ax \n 9: vmcall",
     .before = {{cr0_guest_host_mask, CR0_PE}, {cr0_read_shadow, CR0_PE}}, .reason = exit_vmcall, .length = 3)
STEP(cr3_load, "MOV to CR3", "mov edx, offset guest_pml4 \n 9: mov cr3, rdx", .primary = cr3_load_exiting,
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(3, mov_to_cr, RDX),
     .length = 3)
STEP(cr3_target, "MOV to CR3 of a CR3-target value: no exit",
     "mov edx, offset guest_pml4 \n mov cr3, rdx \n 9: vmcall", .primary = cr3_load_exiting,
     .before = {{cr3_target_count, 1}, {cr3_target_value0, (u64)guest_pml4}}, .reason = exit_vmcall,
     .length = 3)
STEP(cr3_store, "MOV from CR3", "mov rsi, cr3", .primary = cr3_store_exiting,
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(3, mov_from_cr, RSI),
     .length = 3)
STEP(cr4_mask, "MOV to CR4: a masked bit differs from the shadow",
     "mov rbx, cr4 \n xor ebx, 0x80 \n 9: mov cr4, rbx", .before = {{cr4_guest_host_mask, CR4_PGE}},
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(4, mov_to_cr, RBX),
     .length = 3)
STEP(cr4_shadow, "MOV from CR4: masked bits come from the shadow", "mov rbx, cr4 \n 9: vmcall",
     .before = {{cr4_guest_host_mask, BIT(13)}, {guest_cr4, 0x2020}}, .reason = exit_vmcall, .length = 3,
     .after = {{rbx, 0x20}})
STEP(cr8_load, "MOV to CR8", "mov cr8, r9", .primary = cr8_load_exiting,
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(8, mov_to_cr, R9), .length = 4)
STEP(cr8_store, "MOV from CR8", "mov r10, cr8", .primary = cr8_store_exiting,
     .reason = exit_control_register_access, .qualification = CR_QUALIFICATION(8, mov_from_cr, R10),
     .length = 4)

static void vtpr_50(void) { virtual_apic_page[0x80] = 0x50; }
static const char* vtpr_is_20(void) { return virtual_apic_page[0x80] == 0x20 ? 0 : "VTPR is not 20H"; }
STEP(tpr_shadow, "TPR shadow: MOV from CR8 reads VTPR", "mov rax, cr8 \n 9: vmcall",
     .primary = use_tpr_shadow, .prepare = vtpr_50, .reason = exit_vmcall, .length = 3, .after = {{rax, 5}})
STEP(tpr_threshold, "TPR shadow: MOV to CR8 below the threshold exits behind it",
     "mov eax, 4 \n mov cr8, rax \n mov eax, 2 \n mov cr8, rax \n 9: nop", .primary = use_tpr_shadow,
     .prepare = vtpr_50, .before = {{tpr_threshold, 4}}, .reason = exit_tpr_below_threshold,
     .check = vtpr_is_20)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Debug registers (SDM 3C Table 27-4)"

STEP(mov_to_dr, "MOV to DR3", "mov dr3, rdx", .primary = mov_dr_exiting, .reason = exit_mov_dr,
     .qualification = DR_QUALIFICATION(3, 0, RDX), .length = 3)
STEP(mov_from_dr, "MOV from DR7", "mov rcx, dr7", .primary = mov_dr_exiting, .reason = exit_mov_dr,
     .qualification = DR_QUALIFICATION(7, 1, RCX), .length = 3)
STEP(mov_dr_cpl3, "MOV DR at CPL 3: the exit comes before #GP", "mov dr6, r9", .primary = mov_dr_exiting,
     .before = {AT_CPL_3}, .reason = exit_mov_dr, .qualification = DR_QUALIFICATION(6, 0, R9), .length = 4)
STEP(mov_dr_gd, "MOV DR with DR7.GD and no exiting: #DB, BD in the qualification, DR7 as it was",
     "mov rax, dr6", .before = {{exception_bitmap, BIT(DB)}, {guest_dr7, 0x2400}, {dr6, 0xFFFF0FF0}},
     .reason = exit_exception_or_nmi, .qualification = pending_BD,
     .interruption = EVENT(type_hardware_exception, DB), .rf = rf_set,
     .after = {{guest_dr7, 0x2400}, {dr6, 0xFFFF0FF0}})
#undef GROUP
