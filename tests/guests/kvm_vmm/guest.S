/* Programs that kvm_vmm.c copies into the memory of its virtual machines. Ports: 10H takes a result (EAX),
 * 11H gives a number, 12H takes a string, 13H asks for an interrupt, 14H says that interrupts are done.
 * Addresses (guest-physical and linear alike) are those of the layout in vm.h. */
#include "guest.inc"

.set MMIO, 0xD0000000
.set TOUCH, 0x1000000
.set TOUCH_PAGES, 4096
.set DIRTY, 0x4000000
.set COUNTER, 0x50000
.set LOCAL_APIC, 0xFEE00000
.set X2APIC, 0x400
.set IPIS, 40                           /* vm.h */
.set APIC_MODE, 0x50008
.set READY, 0x5000C
.set DONE, 0x50010
.set RECEIVED, 0x50040
.set KVM_SIGNATURE_LEAF, 0x40000000

/* ---- real mode, at 0000:1000 ---- */
.code16
PROGRAM guest_real
    xor ebx, ebx                        /* 100 times CPUID */
    mov bp, 100
1:  mov eax, KVM_SIGNATURE_LEAF
    push ebx
    cpuid
    pop edi
    add edi, ebx
    xor edi, ecx
    add edi, edx
    mov ebx, edi
    dec bp
    jnz 1b
    mov eax, ebx
    mov dx, PORT_RESULT
    out dx, eax

    xor ebx, ebx                        /* 50 numbers, a byte each */
    mov cx, 50
    mov dx, PORT_NUMBER
2:  xor eax, eax
    in al, dx
    add ebx, eax
    loop 2b
    mov eax, ebx
    mov dx, PORT_RESULT
    out dx, eax

    mov ax, 0x4000                      /* segments and a string copy: 256 words from 4000:0 to 5000:10 */
    mov ds, ax
    mov ax, 0x5000
    mov es, ax
    xor si, si
    mov cx, 256
3:  mov [si], cx
    add si, 2
    loop 3b
    xor si, si
    mov di, 0x10
    mov cx, 256
    rep movsw
    xor ebx, ebx
    mov di, 0x10
    mov cx, 256
4:  movzx eax, word ptr es:[di]
    rol ebx, 3
    add ebx, eax
    add di, 2
    loop 4b
    mov eax, ebx
    mov dx, PORT_RESULT
    out dx, eax

    xor ax, ax                          /* INT 60H through the interrupt vector table, 20 times */
    mov ds, ax
    mov es, ax
    call 5f
5:  pop ax
    add ax, offset real_handler - 5b
    mov word ptr [0x60 * 4], ax
    mov word ptr [0x60 * 4 + 2], 0
    xor ebx, ebx
    mov cx, 20
6:  int 0x60
    loop 6b
    mov eax, ebx
    mov dx, PORT_RESULT
    out dx, eax
    hlt
real_handler:
    add ebx, 7
    iret
END guest_real

/* ---- 64-bit mode, at 10000H ---- */
.code64
PROGRAM guest_long
    xor r8d, r8d                        /* 1000 times CPUID */
    mov r9d, 1000
1:  mov eax, KVM_SIGNATURE_LEAF
    cpuid
    add r8d, ebx
    xor r8d, ecx
    add r8d, edx
    dec r9d
    jnz 1b
    mov eax, r8d
    RESULT

    xor ebx, ebx                        /* 100 numbers of 32 bits */
    mov ecx, 100
    mov edx, PORT_NUMBER
2:  in eax, dx
    add ebx, eax
    loop 2b
    mov eax, ebx
    RESULT

    lea rsi, [rip + text]               /* a string of 16 bytes */
    mov ecx, 16
    mov edx, PORT_STRING
    rep outsb

    mov ebx, MMIO                       /* memory-mapped I/O of every size */
    mov byte ptr [rbx], 0x11
    mov word ptr [rbx + 2], 0x2222
    mov dword ptr [rbx + 4], 0x33333333
    mov rax, 0x4444444455555555
    mov [rbx + 8], rax
    movzx eax, byte ptr [rbx + 0x10]
    movzx ecx, word ptr [rbx + 0x12]
    add eax, ecx
    add eax, dword ptr [rbx + 0x14]
    mov rcx, [rbx + 0x18]
    add rax, rcx
    shr rcx, 32
    add eax, ecx
    RESULT

    mov edi, TOUCH                      /* every page written, then read back */
    mov ecx, TOUCH_PAGES
    mov eax, 0x9E3779B9
3:  mov [rdi], eax
    imul eax, eax, 0x19660D
    add eax, 0x3C6EF35F
    add rdi, 4096
    loop 3b
    mov edi, TOUCH
    mov ecx, TOUCH_PAGES
    xor eax, eax
4:  rol eax, 5
    add eax, [rdi]
    add rdi, 4096
    loop 4b
    RESULT

    mov ecx, 0xC0000102                 /* IA32_KERNEL_GS_BASE and IA32_STAR hold what is written */
    mov eax, 0x12345678
    mov edx, 0x7ABC
    wrmsr
    mov ecx, 0xC0000081
    mov eax, 0x11111111
    mov edx, 0x00230010
    wrmsr
    mov ecx, 0xC0000102
    rdmsr
    lea ebx, [rax + rdx]
    mov ecx, 0xC0000081
    rdmsr
    add eax, edx
    add eax, ebx
    RESULT

    xor ebx, ebx                        /* 10 x #UD, #BP, #PF, #DE */
    mov ecx, 10
5:  ud2
    int3
    mov rsi, 0x8000000000
    mov al, [rsi]
    nop
    xor edx, edx
    mov eax, 1
    xor edi, edi
    div edi
    loop 5b
    mov eax, ebx
    RESULT

    mov eax, 1000                       /* SSE2: sum of 1/n */
    xorpd xmm0, xmm0
    mov ecx, 1
    cvtsi2sd xmm3, ecx
6:  cvtsi2sd xmm1, eax
    movapd xmm2, xmm3
    divsd xmm2, xmm1
    addsd xmm0, xmm2
    dec eax
    jnz 6b
    movq rax, xmm0
    mov rcx, rax
    shr rcx, 32
    xor eax, ecx
    RESULT
    hlt
text: .ascii "exeunt all above"
END guest_long

/* Handlers: vector 0 #DE, 3 #BP, 6 #UD, 14 #PF: add to EBX and skip the instruction (all are 2 bytes long,
 * but INT3, whose handler returns behind it). */
PROGRAM guest_handlers
    .org guest_handlers + 0x00
    add ebx, 1
    add qword ptr [rsp], 2
    iretq
    .org guest_handlers + 0x20
    add ebx, 100
    iretq
    .org guest_handlers + 0x40
    add ebx, 10000
    add qword ptr [rsp], 2
    iretq
    .org guest_handlers + 0x60
    add rsp, 8
    mov rax, cr2
    shr rax, 19
    add ebx, eax
    add qword ptr [rsp], 2
    iretq
    /* vector 30H: count in R12, report */
    .org guest_handlers + 0x80
    inc r12d
    mov eax, r12d
    mov edx, PORT_RESULT
    out dx, eax
    iretq
    /* vector 25H (IRQ 5 of the 8259): the same, with end of interrupt */
    .org guest_handlers + 0xA0
    inc r12d
    mov al, 0x20
    out 0x20, al
    mov eax, r12d
    mov edx, PORT_RESULT
    out dx, eax
    iretq
    /* vectors 40H to 4FH, interprocessor interrupts: count by vector, end of interrupt; R13: IA32_APIC_BASE */
    .org guest_handlers + 0xC0
    .set number, 0
    .rept 16
    .org guest_handlers + 0xC0 + 8 * number
    push number
    jmp ipi_received
    .set number, number + 1
    .endr
ipi_received:
    xchg rax, [rsp]
    lock inc dword ptr [RECEIVED + 4 * rax]
    push rcx
    push rdx
    xor eax, eax
    xor edx, edx
    test r13d, X2APIC
    jnz 1f
    mov ecx, LOCAL_APIC + 0xB0
    mov [rcx], eax
    jmp 2f
1:  mov ecx, 0x80B
    wrmsr
2:  pop rdx
    pop rcx
    pop rax
    iretq
END guest_handlers

/* Interrupts from KVM_INTERRUPT: ten while halted, ten through an interrupt window. */
PROGRAM guest_interrupts
    xor r12d, r12d
1:  sti
    hlt
    cli
    cmp r12d, 10
    jb 1b
2:  mov edx, PORT_INTERRUPT
    out dx, al                          /* IF = 0: the VMM asks for a window */
    nop
    sti
    nop
    nop
    cli
    cmp r12d, 20
    jb 2b
    mov edx, PORT_DONE
    out dx, al
    hlt
END guest_interrupts

/* Interrupts from the 8259 in the kernel. */
PROGRAM guest_pic
    mov al, 0x11                        /* ICW1 to ICW4: vectors from 20H, 8086 mode */
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x04
    out 0x21, al
    mov al, 0x01
    out 0x21, al
    mov al, 0xDF                        /* all but IRQ 5 masked */
    out 0x21, al
    xor r12d, r12d
1:  mov edx, PORT_INTERRUPT
    out dx, al
    sti
    hlt
    cli
    cmp r12d, 10
    jb 1b
    mov edx, PORT_DONE
    out dx, al
    cli
    hlt
END guest_pic

/* For single-stepping: 2 + 3 * 10 instructions, then HLT. */
PROGRAM guest_steps
    mov ecx, 10
    xor eax, eax
1:  add eax, ecx
    dec ecx
    jnz 1b
    hlt
END guest_steps

/* Writes to every third of 900 pages of a logged slot, reads the others. */
PROGRAM guest_dirty
    mov edi, DIRTY
    mov ecx, 300
1:  mov [rdi], ecx
    mov eax, [rdi + 4096]
    mov eax, [rdi + 8192]
    add rdi, 3 * 4096
    loop 1b
    hlt
END guest_dirty

/* Several CPUs: 10000 locked increments and 256 pages of its own. RDI: number of the CPU. */
PROGRAM guest_smp
    mov ecx, 10000
1:  lock inc dword ptr [COUNTER]
    loop 1b
    shl rdi, 20
    add rdi, TOUCH
    mov ecx, 256
    xor eax, eax
2:  mov [rdi], ecx
    add eax, [rdi]
    add rdi, 4096
    loop 2b
    RESULT
    hlt
END guest_smp

/* CPUs with the local APICs of the kernel. CPU 0 receives; each other CPU interrupts itself ten times and then CPU 0
 * IPIS times with a vector of its own, waiting each time until it was received. CPU 0 runs until half have come, then
 * halts. RDI: number of the CPU. APIC_MODE: X2APIC or 0; DONE: how many senders are still to end. */
PROGRAM guest_ipis
    mov ecx, 0x1B                       /* IA32_APIC_BASE */
    rdmsr
    or eax, [APIC_MODE]
    wrmsr
    mov r13d, eax
    test r13d, X2APIC
    jnz 1f
    mov ebx, LOCAL_APIC
    mov dword ptr [rbx + 0xF0], 0x1FF
    jmp 2f
1:  mov ecx, 0x80F
    mov eax, 0x1FF
    xor edx, edx
    wrmsr
2:  sti
    test edi, edi
    jnz 5f

    mov dword ptr [READY], 1
3:  cmp dword ptr [RECEIVED + 4], 10 + IPIS / 2
    jb 3b
4:  cli
    cmp dword ptr [DONE], 0
    je 9f
    sti
    hlt
    jmp 4b

5:  xor r12d, r12d
6:  lea eax, [rdi + 0x44040]            /* to itself */
    cmp r12d, 10
    jb 7f
    cmp dword ptr [READY], 0
    jz 6b
    lea eax, [rdi + 0x4040]
7:  xor edx, edx
    test r13d, X2APIC
    jnz 8f
    mov [rbx + 0x310], edx
    mov [rbx + 0x300], eax
    jmp 10f
8:  mov ecx, 0x830
    wrmsr
10: inc r12d
11: pause
    cmp [RECEIVED + 4 * rdi], r12d
    jb 11b
    cmp r12d, 10 + IPIS
    jb 6b
    lock dec dword ptr [DONE]
    mov eax, 0x4040                     /* CPU 0 looks again */
    xor edx, edx
    test r13d, X2APIC
    jnz 12f
    mov [rbx + 0x310], edx
    mov [rbx + 0x300], eax
    jmp 9f
12: mov ecx, 0x830
    wrmsr
9:  cli
    mov edx, PORT_DONE
    out dx, al
    hlt
END guest_ipis
.section .note.GNU-stack, "", @progbits
