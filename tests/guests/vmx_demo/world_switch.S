/* The one place where host becomes guest and guest becomes host.
 *
 * VM entry loads RIP, RSP, RFLAGS, control and segment registers out of the VMCS; the general-purpose
 * registers are software's to switch (SDM 3C 26.3.2.2, 27.5.2: they are not in the VMCS).
 */
.intel_syntax noprefix
.text

.set HOST_RSP, 0x6C14
.set HOST_RIP, 0x6C16

/* u64 vm_enter(struct GuestRegisters *regs, u64 how): how = 0 VMLAUNCH, 1 VMRESUME, 2 VMLAUNCH in the
 * shadow of MOV SS. Returns 0 after a VM exit; else RFLAGS as the instruction left them (bit 1 is always
 * set, so the value is not 0). */
.globl vm_enter
vm_enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    mov eax, HOST_RSP
    vmwrite rax, rsp
    mov eax, HOST_RIP
    mov ecx, offset vm_exit
    vmwrite rax, rcx
    cmp esi, 1
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8,  [rdi + 64]
    mov r9,  [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]                 /* MOV and the jumps leave the flags of CMP alone */
    je 1f
    ja 2f
    vmlaunch
    jmp 3f
1:  vmresume
    jmp 3f
2:  push rax
    mov eax, ss
    mov ss, eax
    vmlaunch
    lea rsp, [rsp + 8]
3:  pushfq                              /* still here: VMfail */
    pop rax
    add rsp, 8
    jmp 4f

.balign 16
vm_exit:
    pushfq                              /* for the check of what a VM exit loads */
    pop qword ptr [rflags_after_exit]
    xchg rdi, [rsp]                     /* rdi = regs, top of stack = RDI of the guest */
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    pop qword ptr [rdi + 56]
    xor eax, eax
4:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.bss
.balign 8
.globl rflags_after_exit
rflags_after_exit: .skip 8
.section .note.GNU-stack, "", @progbits
