/* A virtual machine on /dev/kvm and its CPUs: memory, start states, exits. */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Layout of guest memory. */
enum {
    MEMORY_SIZE = 48 << 20,
    REAL_CODE = 0x1000,
    REAL_STACK = 0x7000,
    LONG_CODE = 0x10000,
    HANDLERS = 0x18000,
    PML4 = 0x20000,
    PDPT = 0x21000,
    PD_LOW = 0x22000,
    PD_MMIO = 0x23000,
    IDT = 0x30000,
    GDT = 0x31000,
    COUNTER = 0x50000,
    STACKS = 0x90000, /* one page a CPU, growing down from its end */
    DIRTY = 0x4000000,
    DIRTY_PAGES = 900,
};
#define MMIO 0xD0000000ull
enum { PORT_RESULT = 0x10, PORT_NUMBER = 0x11, PORT_STRING = 0x12, PORT_INTERRUPT = 0x13, PORT_DONE = 0x14 };
enum { MAX_RESULTS = 64, MAX_VCPUS = 16 };
enum { X2APIC = 0x400, IPIS = 40, APIC_MODE = 0x50008, DONE = 0x50010, RECEIVED = 0x50040 }; /* guest_ipis */

extern int kvm; /* /dev/kvm */
extern struct kvm_cpuid2* cpuid;

struct Vm {
    int fd;
    uint8_t* memory;
};

struct Exits {
    int io, mmio, hlt, window, debug, other, other_reason;
};

struct Vcpu {
    struct Vm* vm;
    int fd;
    struct kvm_run* run;
    uint32_t results[MAX_RESULTS];
    int result_count;
    uint32_t number; /* the next that PORT_NUMBER gives */
    char text[64];
    int text_length;
    uint64_t mmio_written;
    struct Exits exits;
    bool want_interrupt, interrupts_done;
};

/* ioctl that ends the program when it fails. */
int call(int fd, unsigned long request, unsigned long argument, const char* name);
#define CALL(fd, request, argument) call(fd, request, (unsigned long)(argument), #request)
_Noreturn void give_up(const char* what);

/* Private memory, in pages of 4 KiB so that each is an exit of its own. */
void* anonymous(size_t size);
struct Vm make_vm(bool irqchip);
void end_vm(struct Vm* vm);
void add_slot(struct Vm* vm, uint32_t slot, uint64_t address, void* memory, size_t size, uint32_t flags);
void load(struct Vm* vm, uint64_t address, const uint8_t* program, const uint8_t* end);
struct Vcpu make_vcpu(struct Vm* vm, int number);
void end_vcpu(struct Vcpu* vcpu);
/* In real mode at REAL_CODE; in 64-bit mode at LONG_CODE with a stack of its own and its number in RDI. */
void start_real(struct Vcpu* vcpu);
void start_long(struct Vcpu* vcpu, int number);
/* Runs to the next exit and serves I/O. The exit reason, or -1. */
int run_once(struct Vcpu* vcpu);
/* Runs until HLT; false, with a line that says why, when something else comes. */
bool run_to_hlt(struct Vcpu* vcpu);
void describe_unexpected(const struct Vcpu* vcpu, int reason);
/* A byte of the memory-mapped device. */
uint8_t mmio_byte(uint64_t offset);
