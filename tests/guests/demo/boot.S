/* From the Multiboot loader to main() in 64-bit mode.
 *
 * The loader (Multiboot 0.6.96, 3.2 "Machine state") leaves us in 32-bit protected mode with paging off.
 * We build page tables that map the first 4 GiB one to one with 2-MByte pages, enter IA-32e mode
 * (SDM 3A 9.8.5 "Initializing IA-32e Mode"), load our own GDT, TSS and IDT and call main().
 * IF stays 0 for as long as the host runs: events reach it as VM exits or not at all.
 */
.intel_syntax noprefix

.set MULTIBOOT_MAGIC, 0x1BADB002
.set MULTIBOOT_FLAGS, 0

.section .multiboot, "a"
.balign 4
.long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

.text
.code32
.globl _start
_start:
    cli
    cld
    mov esp, offset host_stack_top
    mov al, 0xFF                        /* every line of both 8259s masked */
    out 0x21, al
    out 0xA1, al

    /* PML4 -> PDPT -> four page directories of 512 2-MByte pages */
    mov dword ptr [host_pml4], offset host_pdpt + 3
    mov edi, offset host_pdpt
    mov eax, offset host_pd + 3
    mov ecx, 4
1:  mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop 1b
    mov edi, offset host_pd
    mov eax, 0x83
    mov ecx, 4 * 512
2:  mov [edi], eax
    cmp eax, 0xFEE00000                 /* the page of the local APIC: PCD and PWT, uncacheable */
    jb 3f
    or dword ptr [edi], 0x18
3:  add eax, 0x200000
    add edi, 8
    loop 2b

    mov eax, cr4
    or eax, 1 << 5                      /* CR4.PAE */
    mov cr4, eax
    mov eax, offset host_pml4
    mov cr3, eax
    mov ecx, 0xC0000080                 /* IA32_EFER: LME, NXE, SCE */
    rdmsr
    or eax, 1 << 8 | 1 << 11 | 1
    wrmsr
    mov eax, 0x80010033                 /* CR0: PG, WP, NE, ET, MP, PE; caches on */
    mov cr0, eax
    lgdt [gdt_pointer]
    ljmp 0x08, offset start_64

.code64
start_64:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset host_stack_top
    mov eax, offset host_tss            /* base of the TSS descriptor */
    mov [gdt_tss + 2], ax
    shr eax, 16
    mov [gdt_tss + 4], al
    mov [gdt_tss + 7], ah
    mov eax, 0x18
    ltr ax
    lidt [host_idt_pointer]
    call main
0:  cli
    hlt
    jmp 0b

/* Exceptions in the host are mistakes of ours, except NMI, which is counted. The stubs are 16 bytes each;
 * host_idt is filled by main(). */
.balign 16
.globl host_exception_stubs
host_exception_stubs:
.set vector, 0
.rept 32
    .balign 16
    .if vector == 2
    inc dword ptr [host_nmi_count]
    iretq
    .else
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    .else
    push 0
    .endif
    push vector
    jmp host_exception_common
    .endif
    .set vector, vector + 1
.endr
host_exception_common:
    mov rdi, rsp                        /* vector, error code, RIP, CS, RFLAGS, RSP, SS */
    and rsp, -16
    call host_exception                 /* does not return */

/* void unblock_nmis(void): IRET ends blocking of NMIs (SDM 3A 6.7.1 "Handling Multiple NMIs"). */
.globl unblock_nmis
unblock_nmis:
    mov rax, rsp
    push 0x10
    push rax
    pushfq
    push 0x08
    push offset 1f
    iretq
1:  ret

.data
.balign 16
.globl host_gdt, host_idt_pointer
host_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            /* 08H: 64-bit code */
    .quad 0x00CF93000000FFFF            /* 10H: data */
gdt_tss:
    .quad 0x0000890000000067            /* 18H: 64-bit TSS */
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - host_gdt - 1
    .quad host_gdt
host_idt_pointer:
    .word 256 * 16 - 1
    .quad host_idt
.balign 4
.globl host_nmi_count
host_nmi_count: .long 0

.bss
.balign 4096
.globl host_pml4, host_idt, host_tss, host_stack_top
host_pml4:  .skip 4096
host_pdpt:  .skip 4096
host_pd:    .skip 4 * 4096
host_idt:   .skip 4096
host_tss:   .skip 4096
host_stack: .skip 16384
host_stack_top:
.section .note.GNU-stack, "", @progbits
