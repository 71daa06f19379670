/* The local APIC of the processor that runs the demo. SDM 3A ch. 10 "Advanced Programmable Interrupt
 * Controller (APIC)"; the virtual-APIC page has its registers at the same offsets. */
#pragma once

#include "x86.h"

#define LOCAL_APIC 0xFEE00000ul

enum {
    APIC_ID = 0x020,
    TPR = 0x080,
    EOI = 0x0B0,
    LDR = 0x0D0,
    SVR = 0x0F0,
    ISR = 0x100,
    IRR = 0x200,
    ICR_LOW = 0x300,
    ICR_HIGH = 0x310,
    LVT_LINT0 = 0x350
};
enum { ICR_SELF = 1 << 18, ICR_ASSERT = 1 << 14, ICR_NMI = 4 << 8 };
#define SELF_VECTOR 0x50

static inline volatile u32* apic(u32 offset) { return (volatile u32*)(LOCAL_APIC + offset); }

static inline void apic_on(void) {
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | BIT(11));
    *apic(SVR) = 0x1FF;
    *apic(LVT_LINT0) = 1 << 16; /* masked: nothing from the 8259s */
}

static inline int self_vector_pending(void) {
    return *apic(IRR + SELF_VECTOR / 32 * 16) >> SELF_VECTOR % 32 & 1;
}

static inline void send_self_interrupt(void) {
    apic_on();
    *apic(ICR_LOW) = ICR_SELF | ICR_ASSERT | SELF_VECTOR;
    while (!self_vector_pending()) {}
}

static inline const char* end_of_interrupt(void) {
    const char* wrong = self_vector_pending() ? "the interrupt is still pending in the local APIC" : 0;
    *apic(EOI) = 0;
    return wrong;
}
