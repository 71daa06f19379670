/* Hypervisors (L1) that kvm_vmm.c runs as guests, each with a guest (L2) of its own: one for VT-x, one for AMD-V.
 * L2 shares L1's page tables (neither EPT nor nested paging). Both run in 64-bit mode.
 * L2 executes CPUID in every round, the hypercall in every 2nd, OUT in every 4th, HLT in every 8th; L1 serves them,
 * advances RIP and counts until HLT came L2_HALTS times, then gives the results: four counts, L2's checksum, L1's
 * checksum of what OUT wrote, and 0 or the exit (with bit 31: the error of VMLAUNCH or VMRESUME) it did not expect.
 * L2 uses EAX to EDX, R8 and R9 only; L1 uses the others while L2 lives. */
#include "guest.inc"

.set PML4, 0x20000                      /* these, as in vm.h */
.set IDT, 0x30000
.set GDT, 0x31000
.set L2_HALTS, 25

.set HOST_AREA, 0x60000                 /* VMXON region; host save area */
.set CONTROL_BLOCK, 0x61000             /* VMCS; VMCB */
.set COUNTS, 0x62000                    /* cpuid, hypercall, io, hlt */
.set OUT_SUM, 0x62010
.set IO_PERMISSIONS, 0x64000            /* three pages */
.set L2_STACK, 0x60000

/* R8: the round; R9: the checksum. */
.macro L2_PROGRAM hypercall
    mov r8d, 1
    xor r9d, r9d
1:  mov eax, r8d
    cpuid
    add r9d, eax
    xor r9d, ebx
    add r9d, ecx
    xor r9d, edx
    test r8d, 1
    jnz 2f
    mov eax, r9d
    \hypercall
    mov r9d, eax
2:  test r8d, 3
    jnz 3f
    mov eax, r9d
    mov edx, 0x30
    out dx, eax
3:  test r8d, 7
    jnz 4f
    hlt
4:  inc r8d
    jmp 1b
.endm

/* ESI: 0 to 3 for the exit in EDI, in the order of COUNTS. */
.macro CLASSIFY cpuid_exit, hypercall_exit, io_exit, hlt_exit, unexpected
    xor esi, esi
    cmp edi, \cpuid_exit
    je 1f
    inc esi
    cmp edi, \hypercall_exit
    je 1f
    inc esi
    cmp edi, \io_exit
    je 1f
    inc esi
    cmp edi, \hlt_exit
    jne \unexpected
1:
.endm

/* Counts and serves an exit. ESI: as from CLASSIFY; EAX to EDX: L2's; R11: the port of OUT. */
.macro SERVE done
    inc dword ptr [COUNTS + 4 * rsi]
    cmp esi, 1
    ja 1f
    je 2f
    lea eax, [rax + 2 * rax + 1]        /* CPUID, as no processor answers */
    mov ebx, eax
    rol ebx, 9
    mov ecx, 0x11
    mov edx, 0x2200
    jmp 3f
1:  cmp esi, 3
    je 3f
    rol dword ptr [OUT_SUM], 5
    add r11d, eax
    add [OUT_SUM], r11d
    jmp 3f
2:  xor eax, 0x5A5A5A5A
3:  cmp dword ptr [COUNTS + 12], L2_HALTS
    je \done
.endm

/* EDI: the last result. */
.macro REPORT
    xor ebx, ebx
1:  mov eax, [COUNTS + 4 * rbx]
    RESULT
    inc ebx
    cmp ebx, 4
    jb 1b
    mov eax, r9d
    RESULT
    mov eax, [OUT_SUM]
    RESULT
    mov eax, edi
    RESULT
    hlt
.endm

/* ---- VT-x ---- */

.macro SET_FIELD field, value
    mov ecx, \field
    mov rax, \value
    vmwrite rcx, rax
.endm

/* A control field: the wanted bits and those that the capability MSR says must be 1. */
.macro CONTROLS field, capability, wanted
    mov ecx, \capability
    rdmsr
    or eax, \wanted
    and eax, edx
    mov ecx, \field
    vmwrite rcx, rax
.endm

PROGRAM guest_nested_vmx
    mov ecx, 0x3A                       /* IA32_FEATURE_CONTROL: VMXON outside SMX, unless locked */
    rdmsr
    test eax, 1
    jnz 1f
    or eax, 5
    wrmsr
1:  mov rax, cr4
    or eax, 0x2000                      /* VMXE */
    mov cr4, rax
    mov ecx, 0x480                      /* IA32_VMX_BASIC: the revision */
    rdmsr
    and eax, 0x7FFFFFFF
    mov [HOST_AREA], eax
    mov [CONTROL_BLOCK], eax
    push HOST_AREA
    vmxon [rsp]
    mov qword ptr [rsp], CONTROL_BLOCK
    vmclear [rsp]
    vmptrld [rsp]

    CONTROLS 0x4000, 0x481, 0
    CONTROLS 0x4002, 0x482, 0x01000080  /* unconditional I/O exiting, HLT exiting */
    CONTROLS 0x400C, 0x483, 0x200       /* host address-space size */
    CONTROLS 0x4012, 0x484, 0x200       /* IA-32e mode guest */
    lea rsi, [rip + fields]
    lea rdi, [rip + fields_end]
2:  mov ecx, [rsi]
    movsxd rax, dword ptr [rsi + 4]
    vmwrite rcx, rax
    add rsi, 8
    cmp rsi, rdi
    jb 2b
    SET_FIELD 0x6800, cr0                 /* guest and host CR0, CR3, CR4 */
    SET_FIELD 0x6C00, cr0
    SET_FIELD 0x6802, cr3
    SET_FIELD 0x6C02, cr3
    SET_FIELD 0x6804, cr4
    SET_FIELD 0x6C04, cr4
    SET_FIELD 0x6C14, rsp                 /* host RSP and RIP, guest RIP */
    lea rdx, [rip + vmx_exit]
    SET_FIELD 0x6C16, rdx
    lea rdx, [rip + vmx_l2]
    SET_FIELD 0x681E, rdx
    vmlaunch
vmx_failed:
    mov esi, 0x4400                     /* VM-instruction error */
    vmread rdi, rsi
    bts edi, 31
    jmp vmx_end

vmx_exit:
    mov esi, 0x4402                     /* exit reason */
    vmread rdi, rsi
    mov esi, 0x6400                     /* exit qualification */
    vmread r11, rsi
    shr r11d, 16
    CLASSIFY 10, 18, 30, 12, vmx_end
    SERVE vmx_done
    mov esi, 0x440C                     /* VM-exit instruction length */
    vmread rdi, rsi
    mov esi, 0x681E
    vmread r11, rsi
    add r11, rdi
    vmwrite rsi, r11
    vmresume
    jmp vmx_failed
vmx_done:
    xor edi, edi
vmx_end:
    vmclear [rsp]
    vmxoff
    REPORT

vmx_l2:
    L2_PROGRAM vmcall

/* Field and value (sign-extended); those of one width follow each other. */
.balign 4
fields:
    .long 0x0800, 0x10, 0x0802, 0x08, 0x0804, 0x10, 0x0806, 0x10    /* guest selectors: ES, CS, SS, DS */
    .long 0x0808, 0x10, 0x080A, 0x10, 0x080C, 0x00, 0x080E, 0x18    /* FS, GS, LDTR, TR */
    .long 0x0C00, 0x10, 0x0C02, 0x08, 0x0C04, 0x10, 0x0C06, 0x10    /* host selectors: ES, CS, SS, DS */
    .long 0x0C08, 0x10, 0x0C0A, 0x10, 0x0C0C, 0x18                  /* FS, GS, TR */
    .long 0x2800, -1, 0x2802, 0                                     /* VMCS link pointer, IA32_DEBUGCTL */
    .long 0x4004, 0, 0x4006, 0, 0x4008, 0, 0x400A, 0                /* exception bitmap to CR3-target count */
    .long 0x400E, 0, 0x4010, 0, 0x4014, 0, 0x4016, 0                /* MSR counts, event injection */
    .long 0x4800, -1, 0x4802, -1, 0x4804, -1, 0x4806, -1            /* guest limits, in the order of selectors */
    .long 0x4808, -1, 0x480A, -1, 0x480C, 0, 0x480E, 0x67
    .long 0x4810, 0x17, 0x4812, 0                                   /* GDTR, IDTR */
    .long 0x4814, 0xC093, 0x4816, 0xA09B, 0x4818, 0xC093, 0x481A, 0xC093    /* access rights */
    .long 0x481C, 0xC093, 0x481E, 0xC093, 0x4820, 0x10000, 0x4822, 0x8B
    .long 0x4824, 0, 0x4826, 0, 0x482A, 0, 0x4C00, 0                /* interruptibility, activity, SYSENTER */
    .long 0x6000, 0, 0x6002, 0, 0x6004, 0, 0x6006, 0                /* CR0 and CR4 masks, read shadows */
    .long 0x6806, 0, 0x6808, 0, 0x680A, 0, 0x680C, 0                /* guest bases, in the order of selectors */
    .long 0x680E, 0, 0x6810, 0, 0x6812, 0, 0x6814, 0
    .long 0x6816, GDT, 0x6818, IDT, 0x681A, 0x400, 0x681C, L2_STACK /* GDTR, IDTR, DR7, RSP */
    .long 0x6820, 2, 0x6822, 0, 0x6824, 0, 0x6826, 0                /* RFLAGS, pending debug, SYSENTER */
    .long 0x6C06, 0, 0x6C08, 0, 0x6C0A, 0, 0x6C0C, GDT              /* host bases: FS, GS, TR, GDTR */
    .long 0x6C0E, IDT, 0x6C10, 0, 0x6C12, 0                         /* IDTR, SYSENTER */
fields_end:
END guest_nested_vmx

/* ---- AMD-V ---- */

.macro SEGMENT offset, selector, attributes, limit, base=0
    mov dword ptr [rbp + \offset], \selector | \attributes << 16
    mov dword ptr [rbp + \offset + 4], \limit
    mov qword ptr [rbp + \offset + 8], \base
.endm

PROGRAM guest_nested_svm
    mov ecx, 0xC0000080                 /* EFER.SVME */
    rdmsr
    or eax, 0x1000
    wrmsr
    mov r10d, eax
    mov ecx, 0xC0010117                 /* VM_HSAVE_PA */
    mov eax, HOST_AREA
    xor edx, edx
    wrmsr
    mov edi, IO_PERMISSIONS             /* every port is intercepted */
    mov ecx, 3 * 4096 / 4
    mov eax, -1
    rep stosd

    mov ebp, CONTROL_BLOCK
    mov dword ptr [rbp + 0x0C], 0x89040000  /* SHUTDOWN, IOIO, HLT, CPUID */
    mov dword ptr [rbp + 0x10], 3           /* VMMCALL, VMRUN */
    mov dword ptr [rbp + 0x40], IO_PERMISSIONS
    mov dword ptr [rbp + 0x58], 1           /* ASID */
    SEGMENT 0x400, 0x10, 0xC93, -1          /* ES, CS, SS, DS; the others stay L1's */
    SEGMENT 0x410, 0x08, 0xA9B, -1
    SEGMENT 0x420, 0x10, 0xC93, -1
    SEGMENT 0x430, 0x10, 0xC93, -1
    SEGMENT 0x460, 0, 0, 0x17, GDT
    SEGMENT 0x480, 0, 0, 0, IDT
    mov [rbp + 0x4D0], r10                  /* EFER */
    mov rax, cr4
    mov [rbp + 0x548], rax
    mov rax, cr3
    mov [rbp + 0x550], rax
    mov rax, cr0
    mov [rbp + 0x558], rax
    mov dword ptr [rbp + 0x560], 0x400      /* DR7, DR6 */
    mov dword ptr [rbp + 0x568], 0xFFFF0FF0
    mov dword ptr [rbp + 0x570], 2          /* RFLAGS, RIP, RSP */
    lea rax, [rip + svm_l2]
    mov [rbp + 0x578], rax
    mov dword ptr [rbp + 0x5D8], L2_STACK

svm_run:
    mov rax, rbp
    vmrun rax
    mov edi, [rbp + 0x70]                   /* EXITCODE, EXITINFO1: the port */
    mov r11d, [rbp + 0x78]
    shr r11d, 16
    mov eax, [rbp + 0x5F8]
    CLASSIFY 0x72, 0x81, 0x7B, 0x78, svm_end
    SERVE svm_done
    mov [rbp + 0x5F8], rax
    lea r11, [rip + svm_lengths]
    movzx edi, byte ptr [r11 + rsi]
    add [rbp + 0x578], rdi
    jmp svm_run
svm_done:
    xor edi, edi
svm_end:
    stgi
    REPORT

svm_l2:
    L2_PROGRAM vmmcall
svm_lengths: .byte 2, 3, 1, 1               /* of CPUID, VMMCALL, OUT, HLT */
END guest_nested_svm
.section .note.GNU-stack, "", @progbits
