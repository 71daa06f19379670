/* AVIC: the backing page, interprocessor interrupts, x2AVIC. APM 2 15.29. */
#define STEPS_FILE "3"
#include "local_apic.h"
#include "step.h"

enum { feature_avic = 13 + 1, feature_x2avic = 18 + 1 };
#define ENTRY_VALID BIT(63)
#define ENTRY_RUNNING BIT(62)
#define WRITTEN BIT(32)

/* ID 0 is the guest itself, ID 1 a virtual processor that does not run. */
static void avic(void) {
    for (u32 i = 0; i < 4096; i++) backing_page[i] = other_backing_page[i] = 0;
    for (u32 i = 0; i < 512; i++) physical_table[i] = 0;
    *(u32*)(backing_page + 0xE0) = 0xFFFFFFFF; /* DFR: flat */
    physical_table[0] = (u64)backing_page | ENTRY_VALID | ENTRY_RUNNING | *apic(APIC_ID) >> 24;
    physical_table[1] = (u64)other_backing_page | ENTRY_VALID;
    logical_table[0] = 1u << 31;
    set(interrupt_control, AVIC_ENABLE | V_INTR_MASKING);
    set(avic_apic_bar, LOCAL_APIC);
    set(avic_backing_page, (u64)backing_page);
    set(avic_logical_table, (u64)logical_table);
    set(avic_physical_table, (u64)physical_table | 0xFE);
    set(rflags, 0x202);
    registers.r[3] = LOCAL_APIC;
}
static void x2avic(void) {
    avic();
    set(interrupt_control, AVIC_ENABLE | BIT(30) | V_INTR_MASKING);
}
static int requested(const u8* page, u32 vector) { return page[IRR + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1; }
static const char* other_requested(void) {
    return requested(other_backing_page, 0x61) ? 0 : "the target's IRR does not have the vector";
}

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "AVIC: registers (APM 2 15.29.3)"

STEP(apr, "APR: a read faults", "9: mov eax, [rbx + 0x90]", .feature = feature_avic, .code = VMEXIT_AVIC_NOACCEL,
     .prepare = avic, .info1 = 0x90)
STEP(ppr, "PPR: a write faults", "9: mov [rbx + 0xA0], eax", .feature = feature_avic, .code = VMEXIT_AVIC_NOACCEL,
     .prepare = avic, .info1 = WRITTEN | 0xA0)
STEP(ldr, "LDR: a write traps", "mov [rbx + 0xD0], eax \n 9: nop", .feature = feature_avic, .code = VMEXIT_AVIC_NOACCEL,
     .prepare = avic, .info1 = WRITTEN | 0xD0)
STEP(tpr, "TPR: no exit, V_TPR follows", "mov dword ptr [rbx + 0x80], 0x50 \n mov rcx, cr8 \n 9: vmmcall",
     .feature = feature_avic, .code = VMEXIT_VMMCALL, .prepare = avic, .length = 3,
     .after = {{rcx, 5}, {interrupt_control, AVIC_ENABLE | V_INTR_MASKING | 5}})
static void level_in_service(void) {
    avic();
    *(u32*)(backing_page + ISR + 0x30) = *(u32*)(backing_page + 0x180 + 0x30) = 2; /* 61H */
}
static void edge_in_service(void) {
    avic();
    *(u32*)(backing_page + ISR + 0x30) = 2;
}
static const char* not_in_service(void) { return backing_page[ISR + 0x30] ? "ISR still has the vector" : 0; }
STEP(eoi_level, "EOI, level-triggered: exits with the vector", "mov dword ptr [rbx + 0xB0], 0 \n 9: nop",
     .feature = feature_avic, .code = VMEXIT_AVIC_NOACCEL, .prepare = level_in_service, .info1 = WRITTEN | 0xB0,
     .info2 = 0x61)
STEP(eoi_edge, "EOI, edge-triggered: no exit", "mov dword ptr [rbx + 0xB0], 0 \n 9: vmmcall", .feature = feature_avic,
     .code = VMEXIT_VMMCALL, .prepare = edge_in_service, .length = 3, .check = not_in_service)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "AVIC: interprocessor interrupts (APM 2 15.29.5)"

#define SEND(low, high) \
    "mov dword ptr [rbx + 0x310], " #high " \n mov dword ptr [rbx + 0x300], " #low " \n 9: nop"
#define COMMAND(low, high) ((u64)(high) << 32 | (low))
#define FAILURE(id, index) ((u64)(id) << 32 | (index))
#define INCOMPLETE(id_, title, low, high, failure, index, ...)                                              \
    STEP(id_, title, SEND(low, high), .feature = feature_avic, .code = VMEXIT_AVIC_INCOMPLETE_IPI, .prepare = avic, \
         .info1 = COMMAND(low, high), .info2 = FAILURE(failure, index), __VA_ARGS__)

INCOMPLETE(ipi_type, "an NMI", 0x400, 0x1000000, 0, 0)
INCOMPLETE(ipi_not_running, "a target that does not run: its IRR is set", 0x61, 0x1000000, 1, 1, .check = other_requested)
INCOMPLETE(ipi_all, "all: the one that does not run is reported", 0xC0061, 0, 1, 1, .check = other_requested)
INCOMPLETE(ipi_target, "a target that does not exist", 0x61, 0x2000000, 2, 2)
INCOMPLETE(ipi_logical, "a logical destination that does not exist", 0x861, 0x4000000, 2, 2)
INCOMPLETE(ipi_vector, "vector 15", 0x4000F, 0, 4, 0)
static void bad_page(void) {
    avic();
    physical_table[1] = BIT(45) | ENTRY_VALID | ENTRY_RUNNING;
}
INCOMPLETE(ipi_page, "a backing page that can not be", 0x61, 0x1000000, 3, 1, .prepare = bad_page)
STEP(ipi_self, "to oneself: the handler runs, and nothing exits before it", "mov dword ptr [rbx + 0x300], 0x40061 \n nop",
     .feature = feature_avic, .code = VMEXIT_VMMCALL, .prepare = avic, .length = 3, .at = HANDLER(0x61))
static void other_runs(void) {
    avic();
    physical_table[1] |= ENTRY_RUNNING | 0xFE; /* no such processor: the doorbell goes nowhere */
}
STEP(ipi_running, "to one that runs: no exit",
     "mov dword ptr [rbx + 0x310], 0x1000000 \n mov dword ptr [rbx + 0x300], 0x61 \n 9: vmmcall", .feature = feature_avic,
     .code = VMEXIT_VMMCALL, .prepare = other_runs, .length = 3, .check = other_requested)
static void request_waits(void) {
    avic();
    *(u32*)(backing_page + IRR + 0x30) = 2;
}
STEP(posted, "a request that waits at VMRUN", "nop", .feature = feature_avic, .code = VMEXIT_VMMCALL, .length = 3,
     .at = HANDLER(0x61), .prepare = request_waits)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "x2AVIC (APM 2 15.29.7)"

STEP(x2_svr, "SVR: a trap", "mov ecx, 0x80F \n mov eax, 0x1FF \n wrmsr \n 9: nop", .feature = feature_x2avic,
     .code = VMEXIT_AVIC_NOACCEL, .prepare = x2avic, .info1 = WRITTEN | 0xF0)
STEP(x2_ipi, "ICR: one MSR", "mov ecx, 0x830 \n mov eax, 0x61 \n mov edx, 1 \n wrmsr \n 9: nop",
     .feature = feature_x2avic, .code = VMEXIT_AVIC_INCOMPLETE_IPI, .prepare = x2avic, .info1 = COMMAND(0x61, 1),
     .info2 = FAILURE(1, 1), .check = other_requested)
STEP(x2_self, "SELF IPI: the handler runs", "mov ecx, 0x83F \n mov eax, 0x61 \n xor edx, edx \n wrmsr \n nop",
     .feature = feature_x2avic, .code = VMEXIT_VMMCALL, .prepare = x2avic, .length = 3, .at = HANDLER(0x61))
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "SMI (APM 2 15.13.3), last: without SMM it stays pending"

static void send_smi(void) {
    apic_on();
    __asm__ volatile("clgi" : : : "memory");
    *apic(ICR_HIGH) = *apic(APIC_ID);
    *apic(ICR_LOW) = ICR_ASSERT | 2 << 8;
}
STEP(smi, "SMI from outside", "nop", .code = VMEXIT_SMI, .prepare = send_smi, .info1 = 1)
#undef GROUP
