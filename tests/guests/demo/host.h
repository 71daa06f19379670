/* The host's exceptions: mistakes of ours, but for those to which a demo gives a handler of its own. */
#pragma once

#include "x86.h"

extern u64 host_idt[512];
extern u32 host_nmi_count;

void host_idt_init(void);
void host_gate(u64 vector, const void* handler);
