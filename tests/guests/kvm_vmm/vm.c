/* See vm.h. */
#include "vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

extern const uint8_t guest_handlers[], guest_handlers_end[];

int call(int fd, unsigned long request, unsigned long argument, const char* name) {
    int result;
    do result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    if (result < 0) give_up(name);
    return result;
}
void* anonymous(size_t size) {
    void* memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) give_up("mmap");
    madvise(memory, size, MADV_NOHUGEPAGE); /* one EPT violation a page */
    return memory;
}

void add_slot(struct Vm* vm, uint32_t slot, uint64_t address, void* memory, size_t size, uint32_t flags) {
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .flags = flags,
                                                 .guest_phys_addr = address,
                                                 .memory_size = size,
                                                 .userspace_addr = (uintptr_t)memory};
    CALL(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void gate(struct Vm* vm, int vector, uint64_t handler) {
    uint64_t* entry = (uint64_t*)(vm->memory + IDT) + 2 * vector;
    entry[0] = (handler & 0xFFFF) | 0x08 << 16 | 0x8E00ull << 32 | (handler >> 16 & 0xFFFF) << 48;
    entry[1] = 0;
}

void load(struct Vm* vm, uint64_t address, const uint8_t* program, const uint8_t* end) {
    memcpy(vm->memory + address, program, (size_t)(end - program));
}

/* Page tables for the first GiB and the GiB with MMIO, descriptor tables, handlers. */
static void long_mode_tables(struct Vm* vm) {
    enum { present_write = 3, large = 0x80 };
    uint64_t* table = (uint64_t*)(vm->memory + PML4);
    table[0] = PDPT | present_write;
    table = (uint64_t*)(vm->memory + PDPT);
    table[0] = PD_LOW | present_write;
    table[3] = PD_MMIO | present_write;
    for (uint64_t i = 0; i < 512; i++) {
        ((uint64_t*)(vm->memory + PD_LOW))[i] = i << 21 | present_write | large;
        ((uint64_t*)(vm->memory + PD_MMIO))[i] = (3ull << 30 | i << 21) | present_write | large;
    }
    uint64_t* gdt = (uint64_t*)(vm->memory + GDT);
    gdt[1] = 0x00AF9B000000FFFF;
    gdt[2] = 0x00CF93000000FFFF;
    load(vm, HANDLERS, guest_handlers, guest_handlers_end);
    static const struct {
        int vector, offset;
    } handlers[] = {{0, 0x00}, {3, 0x20}, {6, 0x40}, {14, 0x60}, {0x30, 0x80}, {0x25, 0xA0}};
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++)
        gate(vm, handlers[i].vector, HANDLERS + (uint64_t)handlers[i].offset);
    for (int i = 0; i < 16; i++) gate(vm, 0x40 + i, HANDLERS + 0xC0 + 8 * (uint64_t)i);
}

struct Vm make_vm(bool irqchip) {
    struct Vm vm = {.fd = CALL(kvm, KVM_CREATE_VM, 0), .memory = anonymous(MEMORY_SIZE)};
    /* Where VT-x cannot run real mode by itself, KVM needs a TSS and a page table out of the way. */
    ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xFFFBD000ul);
    uint64_t identity_map = 0xFFFBC000;
    ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    if (irqchip) CALL(vm.fd, KVM_CREATE_IRQCHIP, 0);
    add_slot(&vm, 0, 0, vm.memory, MEMORY_SIZE, 0);
    long_mode_tables(&vm);
    return vm;
}

void end_vm(struct Vm* vm) {
    close(vm->fd);
    munmap(vm->memory, MEMORY_SIZE);
}

struct Vcpu make_vcpu(struct Vm* vm, int number) {
    struct Vcpu vcpu = {.vm = vm, .fd = CALL(vm->fd, KVM_CREATE_VCPU, number), .number = 1};
    const int size = CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vcpu.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
    if (vcpu.run == MAP_FAILED) give_up("mmap of kvm_run");
    CALL(vcpu.fd, KVM_SET_CPUID2, cpuid);
    return vcpu;
}

void end_vcpu(struct Vcpu* vcpu) {
    munmap(vcpu->run, (size_t)CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    close(vcpu->fd);
}

void start_real(struct Vcpu* vcpu) {
    struct kvm_sregs sregs;
    CALL(vcpu->fd, KVM_GET_SREGS, &sregs);
    struct kvm_segment* const segments[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
    for (size_t i = 0; i < 6; i++) segments[i]->base = segments[i]->selector = 0;
    CALL(vcpu->fd, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rip = REAL_CODE, .rsp = REAL_STACK, .rflags = 2};
    CALL(vcpu->fd, KVM_SET_REGS, &regs);
}

void start_long(struct Vcpu* vcpu, int number) {
    struct kvm_sregs sregs;
    CALL(vcpu->fd, KVM_GET_SREGS, &sregs);
    const struct kvm_segment data = {
        .limit = 0xFFFFFFFF, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.selector = 0x08;
    sregs.cs.type = 11;
    sregs.cs.db = 0;
    sregs.cs.l = 1;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 0x17;
    sregs.idt.base = IDT;
    sregs.idt.limit = 0xFFF;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x620;      /* PAE, OSFXSR, OSXMMEXCPT */
    sregs.cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
    sregs.efer = 0x500;     /* LMA, LME */
    CALL(vcpu->fd, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rip = LONG_CODE,
                            .rsp = STACKS + 0x1000 * ((uint64_t)number + 1),
                            .rflags = 2,
                            .rdi = (uint64_t)number};
    CALL(vcpu->fd, KVM_SET_REGS, &regs);
}

/* ---- exits ---- */

static void on_io(struct Vcpu* vcpu) {
    struct kvm_run* run = vcpu->run;
    uint8_t* data = (uint8_t*)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_IN) {
            value = run->io.port == PORT_NUMBER ? vcpu->number++ * 3 + 1 : 0xFFFFFFFF;
            memcpy(data, &value, run->io.size);
            continue;
        }
        memcpy(&value, data, run->io.size);
        if (run->io.port == PORT_RESULT && vcpu->result_count < MAX_RESULTS)
            vcpu->results[vcpu->result_count++] = value;
        else if (run->io.port == PORT_STRING && vcpu->text_length < 63)
            vcpu->text[vcpu->text_length++] = (char)value;
        else if (run->io.port == PORT_INTERRUPT)
            vcpu->want_interrupt = true;
        else if (run->io.port == PORT_DONE)
            vcpu->interrupts_done = true;
    }
}

/* A byte of the device at offset n reads as 3 * n + 5. */
uint8_t mmio_byte(uint64_t offset) { return (uint8_t)(3 * offset + 5); }

static void on_mmio(struct Vcpu* vcpu) {
    struct kvm_run* run = vcpu->run;
    uint64_t value = 0;
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, run->mmio.len);
        vcpu->mmio_written = vcpu->mmio_written * 31 + value + run->mmio.len + (run->mmio.phys_addr & 0xFFF);
        return;
    }
    for (uint32_t i = 0; i < run->mmio.len; i++)
        run->mmio.data[i] = mmio_byte((run->mmio.phys_addr & 0xFFF) + i);
}

int run_once(struct Vcpu* vcpu) {
    int result;
    do result = ioctl(vcpu->fd, KVM_RUN, 0);
    while (result < 0 && errno == EINTR);
    if (result < 0) return -1;
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        vcpu->exits.io++;
        on_io(vcpu);
        break;
    case KVM_EXIT_MMIO:
        vcpu->exits.mmio++;
        on_mmio(vcpu);
        break;
    case KVM_EXIT_HLT: vcpu->exits.hlt++; break;
    case KVM_EXIT_IRQ_WINDOW_OPEN: vcpu->exits.window++; break;
    case KVM_EXIT_DEBUG: vcpu->exits.debug++; break;
    default:
        vcpu->exits.other++;
        vcpu->exits.other_reason = (int)vcpu->run->exit_reason;
        break;
    }
    return (int)vcpu->run->exit_reason;
}

void describe_unexpected(const struct Vcpu* vcpu, int reason) {
    struct kvm_regs regs;
    memset(&regs, 0, sizeof regs);
    ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    printf("     exit reason %d (%s), RIP 0x%llx", reason, reason < 0 ? strerror(errno) : "unexpected",
           regs.rip);
    if (reason == KVM_EXIT_FAIL_ENTRY)
        printf(", hardware entry failure reason 0x%llx", vcpu->run->fail_entry.hardware_entry_failure_reason);
    if (reason == KVM_EXIT_INTERNAL_ERROR) printf(", suberror %u", vcpu->run->internal.suberror);
    printf("\n");
}

bool run_to_hlt(struct Vcpu* vcpu) {
    for (;;) {
        const int reason = run_once(vcpu);
        if (reason == KVM_EXIT_HLT) return true;
        if (reason != KVM_EXIT_IO && reason != KVM_EXIT_MMIO) {
            describe_unexpected(vcpu, reason);
            return false;
        }
    }
}
