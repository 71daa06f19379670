#include "guest_memory.h"
#include "vmx.h"

#define PAGE_TABLE __attribute__((aligned(4096)))
PAGE_TABLE u64 guest_pml4[512];
PAGE_TABLE static u64 guest_pdpt[512], guest_pd_low[512], guest_pd_window[512], guest_pd_apic[512],
    guest_window[512];
PAGE_TABLE u64 ept_pml4[512];
PAGE_TABLE static u64 ept_pdpt[512], ept_pd_low[512], ept_pd_window[512], ept_pd_apic[512];
PAGE_TABLE u64 ept_window[512];
PAGE_TABLE u8 window_memory[page_count * 4096];
PAGE_TABLE u64 guest_idt[512];
PAGE_TABLE u8 guest_tss[4096];

u64 guest_gdt[] = {
    0,
    0x00AF9B000000FFFF, /* 08H 64-bit code */
    0x00CF93000000FFFF, /* 10H data */
    0x0000890000000067, /* 18H 64-bit TSS, base filled in */
    0,
    0x0000890000000067, /* 28H 32-bit TSS, available; base filled in */
    0x00CFF3000000FFFF, /* 30H data, DPL 3 */
    0x00AFFB000000FFFF, /* 38H 64-bit code, DPL 3 */
};

/* Guest paging entries: present, writable, user, large, execute-disable */
enum { P = 1, W = 2, U = 4, LARGE = 0x80 };
#define XD BIT(63)

static u64 index_of(u64 address, u32 level) { return address >> (12 + 9 * (level - 1)) & 511; }

static void set_base(u64* descriptor, u64 base) {
    descriptor[0] |= (base & 0xFFFFFF) << 16 | (base >> 24 & 0xFF) << 56;
}

static void set_gate(u32 vector, const u8* handler) {
    const u64 offset = (u64)handler;
    const u64 present_interrupt_gate = vector == ABSENT_GATE            ? 0x0E00
                                       : vector == BP || vector == 0x42 ? 0xEE00
                                                                        : 0x8E00;
    guest_idt[2 * vector] =
        (offset & 0xFFFF) | 0x08 << 16 | present_interrupt_gate << 32 | (offset >> 16 & 0xFFFF) << 48;
    guest_idt[2 * vector + 1] = offset >> 32;
}

static void guest_paging_init(void) {
    const u64 all = P | W | U;
    guest_pml4[0] = (u64)guest_pdpt | all;
    guest_pdpt[0] = (u64)guest_pd_low | all;
    guest_pdpt[1] = (u64)guest_pd_window | all;
    guest_pdpt[3] = (u64)guest_pd_apic | all;
    for (u64 i = 0; i < 512; i++) guest_pd_low[i] = i << 21 | all | LARGE;
    guest_pd_window[index_of(WINDOW, 2)] = (u64)guest_window | all;
    guest_pd_window[index_of(WALK_WINDOW, 2)] = (WINDOW_GUEST_PHYSICAL + PAGE(page_ept_absent)) | all;
    guest_pd_apic[index_of(LOCAL_APIC, 2)] = LOCAL_APIC | all | LARGE | 0x18; /* PCD, PWT */
}

void guest_memory_init(void) {
    guest_paging_init();
    set_base(&guest_gdt[3], (u64)guest_tss);
    set_base(&guest_gdt[5], (u64)guest_tss);
    *(u64*)(guest_tss + 4) = (u64)guest_stack_top; /* RSP0 */
    *(u16*)(guest_tss + 102) = 104;                /* no I/O permission bit map */
    for (u32 vector = 0; vector < 256; vector++) set_gate(vector, HANDLER(vector));

    ept_pml4[0] = (u64)ept_pdpt | EPT_ALL;
    ept_pdpt[0] = (u64)ept_pd_low | EPT_ALL;
    ept_pdpt[1] = (u64)ept_pd_window | EPT_ALL;
    ept_pdpt[3] = (u64)ept_pd_apic | EPT_ALL;
    for (u64 i = 0; i < 512; i++) ept_pd_low[i] = i << 21 | EPT_ALL | EPT_MEMORY_TYPE(6) | EPT_LARGE;
    ept_pd_window[index_of(WINDOW_GUEST_PHYSICAL, 2)] = (u64)ept_window | EPT_ALL;
    ept_pd_apic[index_of(LOCAL_APIC, 2)] = LOCAL_APIC | EPT_ALL | EPT_MEMORY_TYPE(0) | EPT_LARGE;
}

void guest_memory_reset(void) {
    static const u64 ept_rights[page_count] = {
        [page_free] = EPT_ALL,
        [page_ept_absent] = 0,
        [page_ept_read] = EPT_READ,
        [page_ept_read_execute] = EPT_READ | EPT_EXECUTE,
        [page_ept_read_write] = EPT_READ | EPT_WRITE,
        [page_ept_execute] = EPT_EXECUTE,
        [page_ept_write] = EPT_WRITE,
        [page_ept_bad_type] = EPT_ALL | EPT_MEMORY_TYPE(2),
        [page_guest_absent] = EPT_ALL,
        [page_guest_read] = EPT_ALL,
        [page_guest_no_execute] = EPT_ALL,
        [page_apic_access] = EPT_ALL,
    };
    for (u64 n = 0; n < page_count; n++) {
        guest_window[n] = (WINDOW_GUEST_PHYSICAL + PAGE(n)) | P | W | U;
        ept_window[n] = ept_rights[n] ? ((u64)window_memory + PAGE(n)) | ept_rights[n] : 0;
        if (n != page_ept_bad_type && ept_rights[n]) ept_window[n] |= EPT_MEMORY_TYPE(6);
        for (u64 i = 0; i < 4096; i++) window_memory[PAGE(n) + i] = 0;
    }
    guest_window[page_guest_absent] = 0;
    guest_window[page_guest_read] &= ~(u64)W;
    guest_window[page_guest_no_execute] |= XD;
    for (u64 i = 0; i < 512; i++) ept_pd_low[i] &= ~(EPT_ACCESSED | EPT_DIRTY);
    invalidate_ept();
}

void low_memory_is_dirty(void) {
    for (u64 i = 0; i < 512; i++) ept_pd_low[i] |= EPT_ACCESSED | EPT_DIRTY;
    invalidate_ept();
}

void invalidate_ept(void) {
    if (vmx.secondary_allowed & enable_ept && vmx.ept_vpid_cap & ept_cap_invept_all_context)
        invept(2, (struct Descriptor128){0, 0});
    if (vmx.secondary_allowed & enable_vpid && vmx.ept_vpid_cap & vpid_cap_invvpid_all_context)
        invvpid(2, (struct Descriptor128){0, 0});
}
