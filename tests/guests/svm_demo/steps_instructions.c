/* Instructions, control and debug registers, ports, MSRs. APM 2 15.8 to 15.11, 15.14, Table 15-7. */
#define STEPS_FILE "1"
#include "step.h"

static int has_x(u32 leaf, u32 bit) { return cpuid(leaf, 0).ebx >> bit & 1; }
static int has_invlpgb(void) { return has_x(0x80000008, 3); }
static int has_rdpru(void) { return has_x(0x80000008, 4); }
static int has_mcommit(void) { return has_x(0x80000008, 8); }
static int has_invpcid(void) { return cpuid(7, 0).ebx >> 10 & 1; }
static int has_monitor(void) { return cpuid(1, 0).ecx >> 3 & 1; }
static int has_xsave(void) { return cpuid(1, 0).ecx >> 26 & 1; }
static int has_skinit(void) { return cpuid(0x80000001, 0).ecx >> 12 & 1; }
static int has_cr8(void) { return 1; }

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Instructions (APM 2 15.9, Table 15-7)"

STEP(cpuid, "CPUID", "cpuid", .code = VMEXIT_CPUID, .length = 2)
STEP(rdtsc, "RDTSC", "rdtsc", .code = VMEXIT_RDTSC, .length = 2)
STEP(rdtscp, "RDTSCP", "rdtscp", .code = VMEXIT_RDTSCP, .length = 3)
STEP(rdpmc, "RDPMC at CPL 0", "rdpmc", .code = VMEXIT_RDPMC, .length = 2)
STEP(pushf, "PUSHF", "pushfq", .code = VMEXIT_PUSHF, .length = 1)
STEP(popf, "POPF", "popfq", .code = VMEXIT_POPF, .length = 1)
STEP(rsm, "RSM outside SMM: before its #UD", "rsm", .code = VMEXIT_RSM, .length = 2)
STEP(iret, "IRET", "iretq", .code = VMEXIT_IRET, .length = 2)
STEP(int_n, "INT n: the vector", "int 0x42", .code = VMEXIT_SWINT, .info1 = 0x42, .length = 2)
STEP(icebp, "INT1", ".byte 0xF1", .code = VMEXIT_ICEBP, .length = 1)
STEP(invd, "INVD", "invd", .code = VMEXIT_INVD, .length = 2)
STEP(wbinvd, "WBINVD", "wbinvd", .code = VMEXIT_WBINVD, .length = 2)
STEP(pause, "PAUSE", "pause", .code = VMEXIT_PAUSE, .length = 2)
STEP(pause_filter, "PAUSE: two go by", "pause \n pause \n 9: pause", .feature = 10 + 1, .code = VMEXIT_PAUSE, .length = 2,
     .before = {{pause_filter_count, 2}})
STEP(hlt, "HLT", "hlt", .code = VMEXIT_HLT, .length = 1)
STEP(idle_hlt, "HLT with nothing pending", "hlt", .feature = 30 + 1, .code = VMEXIT_IDLE_HLT, .length = 1)
STEP(idle_hlt_first, "HLT intercept before idle HLT's", "hlt", .feature = 30 + 1, .code = VMEXIT_HLT,
     .intercept = VMEXIT_IDLE_HLT, .length = 1)
STEP(bus_lock, "a locked access across a line: one goes by",
     "lea rbx, [rsp - 64] \n and rbx, -64 \n lock inc dword ptr [rbx - 2] \n 9: lock inc dword ptr [rbx - 2]",
     .feature = 29 + 1, .code = VMEXIT_BUSLOCK, .before = {{bus_lock_counter, 1}}, .after = {{bus_lock_counter, 0}})
STEP(invlpg, "INVLPG: the linear address", "mov ebx, 0x12345678 \n 9: invlpg [rbx]", .code = VMEXIT_INVLPG,
     .info1 = 0x12345678, .length = 3)
STEP(invlpga, "INVLPGA", "invlpga", .code = VMEXIT_INVLPGA, .length = 3)
STEP(invpcid, "INVPCID", "invpcid rax, [rsp]", .available = has_invpcid, .code = VMEXIT_INVPCID, .length = 6)
STEP(monitor, "MONITOR", "monitor", .available = has_monitor, .code = VMEXIT_MONITOR, .length = 3)
STEP(mwait, "MWAIT", "mwait", .available = has_monitor, .code = VMEXIT_MWAIT, .length = 3)
#ifndef FOR_QEMU_7_2 /* which waits for ever */
STEP(mwait_armed, "MWAIT, armed: conditional", "mov rax, rsp \n monitor \n 9: mwait", .available = has_monitor,
     .code = VMEXIT_MWAIT_CONDITIONAL, .length = 3)
STEP(mwait_not_armed, "MWAIT, not armed: not conditional", "mwait \n 9: vmmcall", .available = has_monitor,
     .code = VMEXIT_VMMCALL, .intercept = VMEXIT_MWAIT_CONDITIONAL, .length = 3)
#endif
STEP(xsetbv, "XSETBV", "xsetbv", .available = has_xsave, .code = VMEXIT_XSETBV, .length = 3, .before = {{cr4, 0x40620}})
STEP(rdpru, "RDPRU", ".byte 0x0F, 0x01, 0xFD", .available = has_rdpru, .code = VMEXIT_RDPRU, .length = 3)
STEP(mcommit, "MCOMMIT", ".byte 0xF3, 0x0F, 0x01, 0xFA", .available = has_mcommit, .code = VMEXIT_MCOMMIT, .length = 4,
     .before = {{efer, 0x21D01}})
STEP(invlpgb, "INVLPGB", ".byte 0x0F, 0x01, 0xFE", .available = has_invlpgb, .feature = 24 + 1, .code = VMEXIT_INVLPGB,
     .length = 3, .before = {{nested_control, NP_ENABLE | INVLPGB_ENABLE}})
STEP(invlpgb_illegal, "INVLPGB of another ASID", ".byte 0x0F, 0x01, 0xFE", .available = has_invlpgb, .feature = 24 + 1,
     .code = VMEXIT_INVLPGB_ILLEGAL, .length = 3,
     .before = {{nested_control, NP_ENABLE | INVLPGB_ENABLE}, {rax, 4}, {rdx, 2}})
STEP(tlbsync, "TLBSYNC", ".byte 0x0F, 0x01, 0xFF", .available = has_invlpgb, .feature = 24 + 1, .code = VMEXIT_TLBSYNC,
     .length = 3, .before = {{nested_control, NP_ENABLE | INVLPGB_ENABLE}})
STEP(vmrun, "VMRUN", "vmrun rax", .code = VMEXIT_VMRUN, .length = 3)
STEP(vmmcall, "VMMCALL", "vmmcall", .code = VMEXIT_VMMCALL, .length = 3)
STEP(vmload, "VMLOAD", "vmload rax", .code = VMEXIT_VMLOAD, .length = 3)
STEP(vmsave, "VMSAVE", "vmsave rax", .code = VMEXIT_VMSAVE, .length = 3)
STEP(stgi, "STGI", "stgi", .code = VMEXIT_STGI, .length = 3)
STEP(clgi, "CLGI", "clgi", .code = VMEXIT_CLGI, .length = 3)
STEP(skinit, "SKINIT", "skinit", .available = has_skinit, .code = VMEXIT_SKINIT, .length = 3)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Descriptor tables (APM 2 15.9)"

STEP(sidt, "SIDT", "sidt [rsp]", .code = VMEXIT_IDTR_READ, .length = 4)
STEP(sgdt, "SGDT", "sgdt [rsp]", .code = VMEXIT_GDTR_READ, .length = 4)
STEP(sldt, "SLDT", "sldt ax", .code = VMEXIT_LDTR_READ, .length = 4)
STEP(str, "STR", "str ax", .code = VMEXIT_TR_READ, .length = 4)
STEP(lidt, "LIDT", "lidt [rsp]", .code = VMEXIT_IDTR_WRITE, .length = 4)
STEP(lgdt, "LGDT", "lgdt [rsp]", .code = VMEXIT_GDTR_WRITE, .length = 4)
STEP(lldt, "LLDT", "lldt ax", .code = VMEXIT_LDTR_WRITE, .length = 3)
STEP(ltr, "LTR", "ltr ax", .code = VMEXIT_TR_WRITE, .length = 3)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Control and debug registers (APM 2 15.8.1)"

#define CR_READ(n) VMEXIT_CR0_READ + (n)
#define CR_WRITE(n) VMEXIT_CR0_WRITE + (n)
enum { RAX, RCX, RDX, RBX };
STEP(read_cr0, "MOV from CR0", "mov rcx, cr0", .code = CR_READ(0), .info1 = MOV_CR | RCX, .length = 3)
STEP(read_cr2, "MOV from CR2", "mov rbx, cr2", .code = CR_READ(2), .info1 = MOV_CR | RBX, .length = 3)
STEP(read_cr3, "MOV from CR3", "mov rdx, cr3", .code = CR_READ(3), .info1 = MOV_CR | RDX, .length = 3)
STEP(read_cr4, "MOV from CR4", "mov rax, cr4", .code = CR_READ(4), .info1 = MOV_CR | RAX, .length = 3)
STEP(read_cr8, "MOV from CR8", "mov rcx, cr8", .available = has_cr8, .code = CR_READ(8), .info1 = MOV_CR | RCX,
     .length = 4)
STEP(smsw, "SMSW: no register number", "smsw eax", .code = CR_READ(0), .length = 3)
STEP(write_cr0, "MOV to CR0", "mov rax, cr0 \n 9: mov cr0, rax", .code = CR_WRITE(0), .info1 = MOV_CR | RAX, .length = 3)
STEP(write_cr2, "MOV to CR2", "mov cr2, rbx", .code = CR_WRITE(2), .info1 = MOV_CR | RBX, .length = 3)
STEP(write_cr3, "MOV to CR3", "mov rcx, cr3 \n 9: mov cr3, rcx", .code = CR_WRITE(3), .info1 = MOV_CR | RCX, .length = 3)
STEP(write_cr4, "MOV to CR4", "mov rdx, cr4 \n 9: mov cr4, rdx", .code = CR_WRITE(4), .info1 = MOV_CR | RDX, .length = 3)
STEP(write_cr8, "MOV to CR8", "mov cr8, rcx", .code = CR_WRITE(8), .info1 = MOV_CR | RCX, .length = 4)
STEP(clts, "CLTS", "clts", .code = CR_WRITE(0), .length = 2)
STEP(selective, "MOV to CR0: a bit besides TS and MP", "mov rax, cr0 \n xor eax, 0x10000 \n 9: mov cr0, rax",
     .code = VMEXIT_CR0_SEL_WRITE, .info1 = MOV_CR | RAX, .length = 3)
STEP(not_selective, "MOV to CR0: TS alone does not exit", "mov rax, cr0 \n xor eax, 8 \n mov cr0, rax \n 9: vmmcall",
     .code = VMEXIT_VMMCALL, .intercept = VMEXIT_CR0_SEL_WRITE, .length = 3)
STEP(lmsw, "LMSW: selective whatever it changes", "smsw eax \n 9: lmsw ax", .code = VMEXIT_CR0_SEL_WRITE, .length = 3)
STEP(cr4_trap, "MOV to CR4: a trap behind it", "mov rdx, cr4 \n or edx, 4 \n mov cr4, rdx \n 9: nop",
     .code = VMEXIT_CR0_WRITE_TRAP + 4, .after = {{cr4, 0x224}})
STEP(efer_trap, "WRMSR of EFER: a trap behind it",
     "mov ecx, 0xC0000080 \n rdmsr \n wrmsr \n 9: nop", .code = VMEXIT_EFER_WRITE_TRAP)
STEP(read_dr, "MOV from DR7", "mov rcx, dr7", .code = VMEXIT_DR0_READ + 7, .info1 = RCX, .length = 3)
STEP(write_dr, "MOV to DR3", "mov dr3, rdx", .code = VMEXIT_DR0_WRITE + 3, .info1 = RDX, .length = 3)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "Ports and MSRs (APM 2 15.10, 15.11)"

static void trap_port_80(void) { iopm[0x80 / 8] |= 1; }
static void trap_msrs(void) { msrpm[0x800 + 0x81 / 4] |= 3 << 2; } /* STAR */
#define AFTER(id, bytes) (u64)at_##id + (bytes)
STEP(in8, "IN al, 80H", "in al, 0x80", .code = VMEXIT_IOIO, .prepare = trap_port_80, .info1 = 0x800211,
     .info2 = (u64)at_in8 + 2, .length = 2)
STEP(out32, "OUT dx, eax", "mov edx, 0x7E \n 9: out dx, eax", .code = VMEXIT_IOIO, .prepare = trap_port_80,
     .info1 = 0x7E0240, .info2 = (u64)at_out32 + 1, .length = 1)
STEP(outs, "REP OUTSB", "mov edx, 0x80 \n mov ecx, 1 \n 9: rep outsb", .code = VMEXIT_IOIO, .prepare = trap_port_80,
     .info1 = 0x800E1C, .info2 = (u64)at_outs + 2, .length = 2)
STEP(rdmsr, "RDMSR of STAR", "mov ecx, 0xC0000081 \n 9: rdmsr", .code = VMEXIT_MSR, .prepare = trap_msrs, .length = 2)
STEP(wrmsr, "WRMSR of STAR", "mov ecx, 0xC0000081 \n 9: wrmsr", .code = VMEXIT_MSR, .prepare = trap_msrs, .info1 = 1,
     .length = 2)
STEP(msr_range, "RDMSR outside of the map", "mov ecx, 0x40000000 \n 9: rdmsr", .code = VMEXIT_MSR, .length = 2)
#undef GROUP
