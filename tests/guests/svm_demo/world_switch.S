/* The one place where host becomes guest and guest becomes host. VMRUN and #VMEXIT switch RIP, RSP, RAX, RFLAGS,
 * control registers and CS, SS, DS, ES; VMLOAD and VMSAVE the other segments (APM 2 15.5, 15.5.2). */
.intel_syntax noprefix
.text

/* void vm_run(struct Registers* guest, u64 vmcb_address, u64 host_area) */
.globl vm_run
vm_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rdi
    clgi
    mov rax, rsi
    vmload rax
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov rdi, [rdi + 56]
    vmrun rax
    xchg rdi, [rsp]                     /* rdi = guest, top of stack = RDI of the guest */
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    pop qword ptr [rdi + 56]
    vmsave rax
    pop rax
    vmload rax
    stgi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

/* Interrupt 50H in the host: end of interrupt at the local APIC. */
.globl host_interrupt_50
host_interrupt_50:
    push rax
    mov eax, 0xFEE000B0
    mov dword ptr [rax], 0
    pop rax
    iretq

/* #SX, which an INIT becomes with VM_CR.R_INIT: error code 1, counted. */
.globl host_sx
host_sx:
    add rsp, 8
    inc dword ptr [host_sx_count]
    iretq

.bss
.globl host_sx_count
host_sx_count: .skip 4
.section .note.GNU-stack, "", @progbits
