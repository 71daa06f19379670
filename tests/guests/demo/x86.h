/* Instructions that C has no words for, one function each. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define BIT(n) (1ul << (n))

/* MSRs (SDM 3C ch. 35) */
enum {
    IA32_APIC_BASE = 0x1B,
    IA32_FEATURE_CONTROL = 0x3A,
    IA32_SYSENTER_CS = 0x174,
    IA32_VMX_BASIC = 0x480,
    IA32_VMX_PINBASED_CTLS = 0x481,
    IA32_VMX_PROCBASED_CTLS = 0x482,
    IA32_VMX_EXIT_CTLS = 0x483,
    IA32_VMX_ENTRY_CTLS = 0x484,
    IA32_VMX_MISC = 0x485,
    IA32_VMX_CR0_FIXED0 = 0x486,
    IA32_VMX_CR0_FIXED1 = 0x487,
    IA32_VMX_CR4_FIXED0 = 0x488,
    IA32_VMX_CR4_FIXED1 = 0x489,
    IA32_VMX_PROCBASED_CTLS2 = 0x48B,
    IA32_VMX_PROCBASED_CTLS3 = 0x492,
    IA32_VMX_EPT_VPID_CAP = 0x48C,
    IA32_VMX_TRUE_PINBASED_CTLS = 0x48D,
    IA32_VMX_TRUE_PROCBASED_CTLS = 0x48E,
    IA32_VMX_TRUE_EXIT_CTLS = 0x48F,
    IA32_VMX_TRUE_ENTRY_CTLS = 0x490,
    IA32_EFER = 0xC0000080,
    IA32_STAR = 0xC0000081,
    IA32_LSTAR = 0xC0000082,
    IA32_FS_BASE = 0xC0000100,
    IA32_KERNEL_GS_BASE = 0xC0000102,
};

static inline u64 rdmsr(u32 index) {
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return low | (u64)high << 32;
}

static inline void wrmsr(u32 index, u64 value) {
    __asm__ volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

struct CpuidResult {
    u32 eax, ebx, ecx, edx;
};

static inline struct CpuidResult cpuid(u32 leaf, u32 subleaf) {
    struct CpuidResult r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}

static inline void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }

static inline u8 in8(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#define READ_AND_WRITE(reg)                                            \
    static inline u64 read_##reg(void) {                               \
        u64 value;                                                     \
        __asm__ volatile("mov %%" #reg ", %0" : "=r"(value));          \
        return value;                                                  \
    }                                                                  \
    static inline void write_##reg(u64 value) {                        \
        __asm__ volatile("mov %0, %%" #reg : : "r"(value) : "memory"); \
    }
READ_AND_WRITE(cr0)
READ_AND_WRITE(cr2)
READ_AND_WRITE(cr3)
READ_AND_WRITE(cr4)
READ_AND_WRITE(dr0)
READ_AND_WRITE(dr6)
READ_AND_WRITE(dr7)
#undef READ_AND_WRITE

struct DescriptorTable {
    u16 limit;
    u64 base;
} __attribute__((packed));

static inline struct DescriptorTable read_gdtr(void) {
    struct DescriptorTable table;
    __asm__ volatile("sgdt %0" : "=m"(table));
    return table;
}

static inline struct DescriptorTable read_idtr(void) {
    struct DescriptorTable table;
    __asm__ volatile("sidt %0" : "=m"(table));
    return table;
}

/* Every VMX instruction ends in VMsucceed, VMfailInvalid (CF) or VMfailValid (ZF) (SDM 3C 30.2
 * "Conventions"). The functions return a VmxOutcome, to be refined with the VM-instruction error field by the
 * caller. */
enum VmxOutcome { vm_succeed = 0, vm_fail_invalid = 1, vm_fail_valid = 2 };

#define VMX_INSTRUCTION(text, ...)                                                          \
    ({                                                                                      \
        u8 invalid, valid;                                                                  \
        __asm__ volatile(text : "=@ccc"(invalid), "=@ccz"(valid) : __VA_ARGS__ : "memory"); \
        invalid ? vm_fail_invalid : valid ? vm_fail_valid : vm_succeed;                     \
    })

static inline enum VmxOutcome vmxon(u64 region) { return VMX_INSTRUCTION("vmxon %2", "m"(region)); }
static inline enum VmxOutcome vmclear(u64 region) { return VMX_INSTRUCTION("vmclear %2", "m"(region)); }
static inline enum VmxOutcome vmptrld(u64 region) { return VMX_INSTRUCTION("vmptrld %2", "m"(region)); }
static inline enum VmxOutcome vmcall(void) { return VMX_INSTRUCTION("vmcall", "a"(0)); }
static inline enum VmxOutcome vmxoff(void) { return VMX_INSTRUCTION("vmxoff", "a"(0)); }

static inline enum VmxOutcome vmptrst(u64* region) { return VMX_INSTRUCTION("vmptrst %2", "m"(*region)); }

static inline enum VmxOutcome vmwrite_outcome(u64 field, u64 value) {
    return VMX_INSTRUCTION("vmwrite %3, %2", "r"(field), "r"(value));
}

static inline enum VmxOutcome vmread_outcome(u64 field, u64* value) {
    u8 invalid, valid;
    __asm__ volatile("vmread %3, %0" : "=r"(*value), "=@ccc"(invalid), "=@ccz"(valid) : "r"(field));
    return invalid ? vm_fail_invalid : valid ? vm_fail_valid : vm_succeed;
}

struct Descriptor128 {
    u64 low, high;
};

static inline enum VmxOutcome invept(u64 type, struct Descriptor128 descriptor) {
    return VMX_INSTRUCTION("invept %2, %3", "m"(descriptor), "r"(type));
}

static inline enum VmxOutcome invvpid(u64 type, struct Descriptor128 descriptor) {
    return VMX_INSTRUCTION("invvpid %2, %3", "m"(descriptor), "r"(type));
}
