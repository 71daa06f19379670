/* What the guest sees: its page tables, descriptor tables, stack; and the EPT beneath.
 *
 *   guest linear          guest-physical         physical
 *   0 .. 1 GiB            the same               the same              code and data of host and guest
 *   window + n pages      0x40000000 + n pages   window_memory + ...   one page per kind of access right
 *   walk_window           page table lies in a page that EPT does not map
 *   local APIC page       the same               the same
 */
#pragma once

#include "local_apic.h"
#include "vmcs.h"

#define WINDOW 0x50000000ul
#define WINDOW_GUEST_PHYSICAL 0x40000000ul
#define WALK_WINDOW 0x50200000ul
#define PAGE(n) ((n)*0x1000ul)

/* EPT entry (SDM 3C Table 28-6 "Format of an EPT Page-Table Entry that Maps a 4-KByte Page") */
#define EPT_READ BIT(0)
#define EPT_WRITE BIT(1)
#define EPT_EXECUTE BIT(2)
#define EPT_ALL (EPT_READ | EPT_WRITE | EPT_EXECUTE)
#define EPT_MEMORY_TYPE(type) ((type) << 3)
#define EPT_LARGE BIT(7)
#define EPT_ACCESSED BIT(8)
#define EPT_DIRTY BIT(9)
#define EPTP_ACCESSED_AND_DIRTY BIT(6)

/* The pages of the window, by what EPT or the guest's page tables allow. */
enum {
    page_free,       /* everything */
    page_ept_absent, /* EPT: not present */
    page_ept_read,   /* EPT: read */
    page_ept_read_execute,
    page_ept_read_write,
    page_ept_execute,  /* EPT: execute only, where supported */
    page_ept_write,    /* EPT: write without read: misconfigured */
    page_ept_bad_type, /* EPT: memory type 2: misconfigured */
    page_guest_absent, /* guest: not present */
    page_guest_read,   /* guest: read-only */
    page_guest_no_execute,
    page_apic_access, /* the APIC-access page */
    page_count,
};

extern u64 guest_pml4[512], ept_pml4[512], ept_window[512];
extern u8 window_memory[page_count * 4096];
extern u8 guest_stack_top[];
extern u64 guest_gdt[], guest_idt[];
extern u8 guest_tss[];
extern const u8 guest_vectors[];

/* Gate of this vector is not present. */
#define ABSENT_GATE 0x41
/* Where the guest's handler of a vector starts; every handler is VMCALL, then IRETQ. */
#define HANDLER(vector) (guest_vectors + 16 * (vector))

void guest_memory_init(void);  /* once */
void guest_memory_reset(void); /* before each fresh step */
/* EPT accessed and dirty flags of all but the window become 1. */
void low_memory_is_dirty(void);
void invalidate_ept(void);
