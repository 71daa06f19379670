/* The guest's handler for vector v is at guest_vectors + 16 * v. It tells the host by a hypercall (VMCALL, VMMCALL) that it was
 * reached, and returns if the host lets it. */
.intel_syntax noprefix
.section .guest, "ax"
.balign 4096
.globl guest_vectors
guest_vectors:
.set vector, 0
.rept 256
    .balign 16
    HYPERCALL
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    add rsp, 8                          /* error code */
    .endif
    iretq
    .set vector, vector + 1
.endr

.bss
.balign 4096
guest_stack: .skip 8192
.globl guest_stack_top
guest_stack_top: .skip 64
.section .note.GNU-stack, "", @progbits
