#include "host.h"

#include "console.h"

extern const u8 host_exception_stubs[];

/* Vector, error code, RIP, ... as the stubs in boot.S pushed them. */
_Noreturn void host_exception(const u64* frame);
void host_exception(const u64* frame) {
    print("\nFAIL  exception %d in the host, error code %x, RIP %x, CR2 %x\n", (u32)frame[0], frame[1],
          frame[2], read_cr2());
    end_of_run(1);
}

void host_gate(u64 vector, const void* handler) {
    const u64 offset = (u64)handler;
    host_idt[2 * vector] = (offset & 0xFFFF) | 0x08 << 16 | 0x8E00ul << 32 | (offset >> 16) << 48;
}

void host_idt_init(void) {
    for (u64 vector = 0; vector < 32; vector++) host_gate(vector, host_exception_stubs + 16 * vector);
}
