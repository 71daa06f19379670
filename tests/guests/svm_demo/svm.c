#include "svm.h"

#include "host.h"

#define PAGES __attribute__((aligned(4096)))
PAGES u8 vmcb[4096], iopm[3 * 4096], msrpm[2 * 4096], backing_page[4096], other_backing_page[4096], host_area[4096];
PAGES static u8 host_save_area[4096], window_memory[16 * 4096];
PAGES u64 npt_pml4[512], npt_window[512], physical_table[512];
PAGES static u64 npt_pdpt[512], npt_pd[4][512], guest_idt[512];
PAGES u32 logical_table[1024];
struct Registers registers;
u32 svm_features;

/* Code, data, 64-bit TSS, at 28H a 32-bit TSS, 32-bit code and data, at 40H data that is not present. */
static u64 guest_gdt[] = {0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x0000890000000067, 0,
                          0x0000890000000067, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF13000000FFFF};
static u8 guest_tss[104];
extern const u8 guest_vectors[];
extern u8 guest_stack_top[];

u64 get(u64 field) {
    if (field >= stack0) return ((u64*)get(rsp))[field - stack0];
    if (field >= first_pseudo_field) return registers.r[field - first_pseudo_field];
    u64 value = 0;
    for (u64 i = field & 15; i-- > 0;) value = value << 8 | vmcb[(field >> 4) + i];
    return value;
}

void set(u64 field, u64 value) {
    if (field >= first_pseudo_field) {
        registers.r[field - first_pseudo_field] = value;
        return;
    }
    for (u64 i = 0; i < (field & 15); i++) vmcb[(field >> 4) + i] = (u8)(value >> 8 * i);
}

void intercept(u64 code) { vmcb[code / 8] |= (u8)(1 << code % 8); }

const char* exit_code_name(u64 code) {
    switch (code) {
#define EXIT(name, code) \
    case code: return #name;
#define EXIT_RANGE(prefix, what, code) \
    case code ... code + 15: return #prefix "n_" #what;
#include "svm/exit_codes.inc"
    case VMEXIT_INVALID: return "INVALID";
    }
    return code > VMEXIT_EXCP0 && code < VMEXIT_EXCP0 + 32 ? "EXCPn" : "(unknown)";
}

const char* svm_enable(void) {
    if (!(cpuid(0x80000001, 0).ecx & 1 << 2)) return "CPUID 8000_0001H:ECX.SVM[bit 2] is 0";
    if (rdmsr(VM_CR) & 1 << 4) return "VM_CR.SVMDIS is 1";
    svm_features = cpuid(0x8000000A, 0).edx;
    if (!(svm_features & 1)) return "no nested paging";
    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | BIT(12));
    wrmsr(VM_HSAVE_PA, (u64)host_save_area);
    __asm__ volatile("vmsave" : : "a"(host_area) : "memory");
    for (u64 vector = 0; vector < 256; vector++) {
        const u64 handler = (u64)guest_vectors + 16 * vector;
        guest_idt[2 * vector] = (handler & 0xFFFF) | 0x08 << 16 | 0x8E00ul << 32 | (handler >> 16) << 48;
    }
    guest_gdt[3] |= (u64)guest_tss << 16;
    guest_gdt[5] |= (u64)guest_tss << 16;
    return 0;
}

/* Every guest-physical address below 4 GiB is the same physical one, but for 64 KBytes at WINDOW. */
static void nested_tables(void) {
    enum { all = 7, large = 0x80 };
    npt_pml4[0] = (u64)npt_pdpt | all;
    for (u64 i = 0; i < 4; i++) npt_pdpt[i] = (u64)npt_pd[i] | all;
    for (u64 i = 0; i < 2048; i++) npt_pd[i / 512][i % 512] = i << 21 | all | large;
    npt_pd[WINDOW >> 30][0] = (u64)npt_window | all;
    for (u64 i = 0; i < 512; i++) npt_window[i] = i < 16 ? (u64)(window_memory + 4096 * i) | all : 0;
}

static void segment(u64 selector, u16 value, u32 attributes, u32 limit, u64 base) {
    const u64 offset = selector >> 4;
    *(u16*)(vmcb + offset) = value;
    *(u16*)(vmcb + offset + 2) = (u16)attributes;
    *(u32*)(vmcb + offset + 4) = limit;
    *(u64*)(vmcb + offset + 8) = base;
}

void vmcb_defaults(const void* rip_) {
    for (u32 i = 0; i < sizeof vmcb; i++) vmcb[i] = 0;
    for (u32 i = 0; i < sizeof iopm; i++) iopm[i] = 0;
    for (u32 i = 0; i < sizeof msrpm; i++) msrpm[i] = 0;
    for (u32 i = 0; i < 16; i++) registers.r[i] = 0;
    nested_tables();
    intercept(VMEXIT_VMRUN);
    intercept(VMEXIT_VMMCALL);
    intercept(VMEXIT_SHUTDOWN);
    set(iopm_base_pa, (u64)iopm);
    set(msrpm_base_pa, (u64)msrpm);
    set(guest_asid, 1);
    set(tlb_control, 1);
    set(nested_control, NP_ENABLE);
    set(n_cr3, (u64)npt_pml4);
    set(g_pat, 0x0007040600070406);
    segment(cs_selector, 0x08, 0xA9B, 0xFFFFFFFF, 0);
    segment(ss_selector, 0x10, 0xC93, 0xFFFFFFFF, 0);
    segment(ds_selector, 0x10, 0xC93, 0xFFFFFFFF, 0);
    segment(es_selector, 0x10, 0xC93, 0xFFFFFFFF, 0);
    segment(tr_selector, 0x18, 0x08B, 0x67, (u64)guest_tss);
    set(gdtr_base, (u64)guest_gdt);
    set(gdtr_limit, sizeof guest_gdt - 1);
    set(idtr_base, (u64)guest_idt);
    set(idtr_limit, sizeof guest_idt - 1);
    set(efer, rdmsr(IA32_EFER));
    set(cr0, read_cr0());
    set(cr3, read_cr3());
    set(cr4, read_cr4() | 1 << 9); /* OSFXSR: SSE for one of the steps */
    set(dr6, 0xFFFF0FF0);
    set(dr7, 0x400);
    set(rflags, 2);
    set(rsp, (u64)guest_stack_top);
    set(rip, (u64)rip_);
}
