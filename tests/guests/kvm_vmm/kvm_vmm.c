/* kvm_vmm: a small virtual-machine monitor on /dev/kvm. It makes virtual machines whose guests (guest.S) leave
 * them in every ordinary way, and compares results and counts of exits with what they must be. Everything that
 * it prints is a count or a checksum: two runs print the same.
 *
 *     kvm_vmm [--vcpus N]
 *
 * Exit status: 0 all passed, 1 something failed, 2 no /dev/kvm.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROGRAM(name) extern const uint8_t name[], name##_end[]
PROGRAM(guest_real);
PROGRAM(guest_long);
PROGRAM(guest_handlers);
PROGRAM(guest_interrupts);
PROGRAM(guest_pic);
PROGRAM(guest_steps);
PROGRAM(guest_dirty);
PROGRAM(guest_smp);

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

static int passed, failed;
static int kvm;
static struct kvm_cpuid2 *cpuid;

__attribute__((format(printf, 2, 3))) static void check(bool good, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf(good ? "ok   " : "FAIL ");
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    va_end(arguments);
    good ? passed++ : failed++;
}

_Noreturn static void give_up(const char *what)
{
    printf("FAIL %s: %s\nkvm_vmm: %d passed, %d failed\n", what, strerror(errno), passed, failed + 1);
    fflush(stdout);
    exit(1);
}

static int call(int fd, unsigned long request, unsigned long argument, const char *name)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        give_up(name);
    return result;
}
#define CALL(fd, request, argument) call(fd, request, (unsigned long)(argument), #request)

/* ---- a virtual machine and its CPUs ---- */

struct Vm {
    int fd;
    uint8_t *memory;
};

struct Exits {
    int io, mmio, hlt, window, debug, other, other_reason;
};

struct Vcpu {
    struct Vm *vm;
    int fd;
    struct kvm_run *run;
    uint32_t results[MAX_RESULTS];
    int result_count;
    uint32_t number; /* the next that PORT_NUMBER gives */
    char text[64];
    int text_length;
    uint64_t mmio_written;
    struct Exits exits;
    bool want_interrupt, interrupts_done;
};

static void *anonymous(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        give_up("mmap");
    madvise(memory, size, MADV_NOHUGEPAGE); /* one EPT violation a page */
    return memory;
}

static void add_slot(struct Vm *vm, uint32_t slot, uint64_t address, void *memory, size_t size, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {.slot = slot,
                                                 .flags = flags,
                                                 .guest_phys_addr = address,
                                                 .memory_size = size,
                                                 .userspace_addr = (uintptr_t)memory};
    CALL(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static void gate(struct Vm *vm, int vector, uint64_t handler)
{
    uint64_t *entry = (uint64_t *)(vm->memory + IDT) + 2 * vector;
    entry[0] = (handler & 0xFFFF) | 0x08 << 16 | 0x8E00ull << 32 | (handler >> 16 & 0xFFFF) << 48;
    entry[1] = 0;
}

static void load(struct Vm *vm, uint64_t address, const uint8_t *program, const uint8_t *end)
{
    memcpy(vm->memory + address, program, (size_t)(end - program));
}

/* Page tables for the first GiB and the GiB with MMIO, descriptor tables, handlers. */
static void long_mode_tables(struct Vm *vm)
{
    enum { present_write = 3, large = 0x80 };
    uint64_t *table = (uint64_t *)(vm->memory + PML4);
    table[0] = PDPT | present_write;
    table = (uint64_t *)(vm->memory + PDPT);
    table[0] = PD_LOW | present_write;
    table[3] = PD_MMIO | present_write;
    for (uint64_t i = 0; i < 512; i++) {
        ((uint64_t *)(vm->memory + PD_LOW))[i] = i << 21 | present_write | large;
        ((uint64_t *)(vm->memory + PD_MMIO))[i] = (3ull << 30 | i << 21) | present_write | large;
    }
    uint64_t *gdt = (uint64_t *)(vm->memory + GDT);
    gdt[1] = 0x00AF9B000000FFFF;
    gdt[2] = 0x00CF93000000FFFF;
    load(vm, HANDLERS, guest_handlers, guest_handlers_end);
    static const struct {
        int vector, offset;
    } handlers[] = {{0, 0x00}, {3, 0x20}, {6, 0x40}, {14, 0x60}, {0x30, 0x80}, {0x25, 0xA0}};
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++)
        gate(vm, handlers[i].vector, HANDLERS + (uint64_t)handlers[i].offset);
}

static struct Vm make_vm(bool irqchip)
{
    struct Vm vm = {.fd = CALL(kvm, KVM_CREATE_VM, 0), .memory = anonymous(MEMORY_SIZE)};
    /* Where VT-x cannot run real mode by itself, KVM needs a TSS and a page table out of the way. */
    ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xFFFBD000ul);
    uint64_t identity_map = 0xFFFBC000;
    ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    if (irqchip)
        CALL(vm.fd, KVM_CREATE_IRQCHIP, 0);
    add_slot(&vm, 0, 0, vm.memory, MEMORY_SIZE, 0);
    long_mode_tables(&vm);
    return vm;
}

static void end_vm(struct Vm *vm)
{
    close(vm->fd);
    munmap(vm->memory, MEMORY_SIZE);
}

static struct Vcpu make_vcpu(struct Vm *vm, int number)
{
    struct Vcpu vcpu = {.vm = vm, .fd = CALL(vm->fd, KVM_CREATE_VCPU, number), .number = 1};
    const int size = CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vcpu.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
    if (vcpu.run == MAP_FAILED)
        give_up("mmap of kvm_run");
    CALL(vcpu.fd, KVM_SET_CPUID2, cpuid);
    return vcpu;
}

static void end_vcpu(struct Vcpu *vcpu)
{
    munmap(vcpu->run, (size_t)CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
    close(vcpu->fd);
}

static void start_real(struct Vcpu *vcpu)
{
    struct kvm_sregs sregs;
    CALL(vcpu->fd, KVM_GET_SREGS, &sregs);
    struct kvm_segment *const segments[] = {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss};
    for (size_t i = 0; i < 6; i++)
        segments[i]->base = segments[i]->selector = 0;
    CALL(vcpu->fd, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {.rip = REAL_CODE, .rsp = REAL_STACK, .rflags = 2};
    CALL(vcpu->fd, KVM_SET_REGS, &regs);
}

static void start_long(struct Vcpu *vcpu, int number)
{
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
    sregs.cr4 = 0x620;           /* PAE, OSFXSR, OSXMMEXCPT */
    sregs.cr0 = 0x80010033;      /* PG, WP, NE, ET, MP, PE */
    sregs.efer = 0x500;          /* LMA, LME */
    CALL(vcpu->fd, KVM_SET_SREGS, &sregs);
    struct kvm_regs regs = {
        .rip = LONG_CODE, .rsp = STACKS + 0x1000 * ((uint64_t)number + 1), .rflags = 2, .rdi = (uint64_t)number};
    CALL(vcpu->fd, KVM_SET_REGS, &regs);
}

/* ---- exits ---- */

static void on_io(struct Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
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
static uint8_t mmio_byte(uint64_t offset) { return (uint8_t)(3 * offset + 5); }

static void on_mmio(struct Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint64_t value = 0;
    if (run->mmio.is_write) {
        memcpy(&value, run->mmio.data, run->mmio.len);
        vcpu->mmio_written = vcpu->mmio_written * 31 + value + run->mmio.len + (run->mmio.phys_addr & 0xFFF);
        return;
    }
    for (uint32_t i = 0; i < run->mmio.len; i++)
        run->mmio.data[i] = mmio_byte((run->mmio.phys_addr & 0xFFF) + i);
}

/* Runs to the next exit and serves I/O. The exit reason, or -1. */
static int run_once(struct Vcpu *vcpu)
{
    int result;
    do
        result = ioctl(vcpu->fd, KVM_RUN, 0);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        return -1;
    switch (vcpu->run->exit_reason) {
    case KVM_EXIT_IO: vcpu->exits.io++; on_io(vcpu); break;
    case KVM_EXIT_MMIO: vcpu->exits.mmio++; on_mmio(vcpu); break;
    case KVM_EXIT_HLT: vcpu->exits.hlt++; break;
    case KVM_EXIT_IRQ_WINDOW_OPEN: vcpu->exits.window++; break;
    case KVM_EXIT_DEBUG: vcpu->exits.debug++; break;
    default: vcpu->exits.other++; vcpu->exits.other_reason = (int)vcpu->run->exit_reason; break;
    }
    return (int)vcpu->run->exit_reason;
}

static void describe_unexpected(const struct Vcpu *vcpu, int reason)
{
    struct kvm_regs regs;
    memset(&regs, 0, sizeof regs);
    ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    printf("     exit reason %d (%s), RIP 0x%llx", reason, reason < 0 ? strerror(errno) : "unexpected", regs.rip);
    if (reason == KVM_EXIT_FAIL_ENTRY)
        printf(", hardware entry failure reason 0x%llx", vcpu->run->fail_entry.hardware_entry_failure_reason);
    if (reason == KVM_EXIT_INTERNAL_ERROR)
        printf(", suberror %u", vcpu->run->internal.suberror);
    printf("\n");
}

/* Runs until HLT. */
static bool run_to_hlt(struct Vcpu *vcpu)
{
    for (;;) {
        const int reason = run_once(vcpu);
        if (reason == KVM_EXIT_HLT)
            return true;
        if (reason != KVM_EXIT_IO && reason != KVM_EXIT_MMIO) {
            describe_unexpected(vcpu, reason);
            return false;
        }
    }
}

/* ---- what the guests must find ---- */

static uint32_t rotate(uint32_t value, int count) { return value << count | value >> (32 - count); }

static uint32_t cpuid_checksum(int times)
{
    const struct kvm_cpuid_entry2 *leaf = NULL;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == 0x40000000)
            leaf = &cpuid->entries[i];
    uint32_t sum = 0;
    for (int i = 0; leaf && i < times; i++)
        sum = ((sum + leaf->ebx) ^ leaf->ecx) + leaf->edx;
    return sum;
}

static void expect(const struct Vcpu *vcpu, int index, uint32_t expected, const char *what)
{
    const uint32_t is = index < vcpu->result_count ? vcpu->results[index] : 0;
    if (is == expected)
        check(true, "%s: 0x%08x", what, is);
    else
        check(false, "%s: 0x%08x, expected 0x%08x", what, is, expected);
}

static void expect_exits(const struct Vcpu *vcpu, const char *what, int io, int mmio, int hlt)
{
    const struct Exits *e = &vcpu->exits;
    check(e->io == io && e->mmio == mmio && e->hlt == hlt && !e->other, "%s: exits io %d, mmio %d, hlt %d, other %d",
          what, e->io, e->mmio, e->hlt, e->other);
}

static void test_real_mode(void)
{
    struct Vm vm = make_vm(false);
    load(&vm, REAL_CODE, guest_real, guest_real_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_real(&vcpu);
    check(run_to_hlt(&vcpu), "real mode: runs to HLT");
    expect(&vcpu, 0, cpuid_checksum(100), "real mode: 100 x CPUID");
    uint32_t sum = 0;
    for (uint32_t i = 1; i <= 50; i++)
        sum += (uint8_t)(3 * i + 1);
    expect(&vcpu, 1, sum, "real mode: 50 x IN");
    sum = 0;
    for (uint32_t i = 256; i > 0; i--)
        sum = rotate(sum, 3) + i;
    expect(&vcpu, 2, sum, "real mode: segments and REP MOVSW");
    expect(&vcpu, 3, 20 * 7, "real mode: 20 x INT");
    expect_exits(&vcpu, "real mode", 4 + 50, 0, 1);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static uint32_t touch_checksum(void)
{
    static uint32_t pages[4096];
    uint32_t value = 0x9E3779B9, sum = 0;
    for (int i = 0; i < 4096; i++) {
        pages[i] = value;
        value = value * 0x19660D + 0x3C6EF35F;
    }
    for (int i = 0; i < 4096; i++)
        sum = rotate(sum, 5) + pages[i];
    return sum;
}

static uint32_t mmio_checksum(void)
{
    uint64_t quad = 0, sum;
    uint32_t dword = 0;
    for (unsigned i = 0; i < 8; i++)
        quad |= (uint64_t)mmio_byte(0x18 + i) << 8 * i;
    for (unsigned i = 0; i < 4; i++)
        dword |= (uint32_t)mmio_byte(0x14 + i) << 8 * i;
    sum = mmio_byte(0x10) + (mmio_byte(0x12) | (uint32_t)mmio_byte(0x13) << 8);
    sum = (uint32_t)((uint32_t)sum + dword);
    return (uint32_t)(sum + quad + (quad >> 32));
}

static uint64_t mmio_writes(void)
{
    static const struct {
        uint64_t value, offset;
        uint32_t length;
    } writes[] = {{0x11, 0, 1}, {0x2222, 2, 2}, {0x33333333, 4, 4}, {0x4444444455555555, 8, 8}};
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++)
        sum = sum * 31 + writes[i].value + writes[i].length + writes[i].offset;
    return sum;
}

static uint32_t harmonic_checksum(void)
{
    volatile double sum = 0;
    for (int n = 1000; n > 0; n--)
        sum = sum + 1.0 / n;
    double value = sum;
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return (uint32_t)bits ^ (uint32_t)(bits >> 32);
}

static void test_long_mode(void)
{
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_long, guest_long_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    check(run_to_hlt(&vcpu), "64-bit mode: runs to HLT");
    expect(&vcpu, 0, cpuid_checksum(1000), "64-bit mode: 1000 x CPUID");
    uint32_t sum = 0;
    for (uint32_t i = 1; i <= 100; i++)
        sum += 3 * i + 1;
    expect(&vcpu, 1, sum, "64-bit mode: 100 x IN");
    check(!strcmp(vcpu.text, "exeunt all above"), "64-bit mode: REP OUTSB: \"%s\"", vcpu.text);
    expect(&vcpu, 2, mmio_checksum(), "64-bit mode: MMIO reads");
    check(vcpu.mmio_written == mmio_writes(), "64-bit mode: MMIO writes: 0x%llx", (unsigned long long)vcpu.mmio_written);
    expect(&vcpu, 3, touch_checksum(), "64-bit mode: 4096 pages");
    expect(&vcpu, 4, 0x12345678u + 0x7ABC + 0x11111111 + 0x00230010, "64-bit mode: MSRs");
    expect(&vcpu, 5, 10 * (1 + 100 + 10000 + (uint32_t)(0x8000000000 >> 19)), "64-bit mode: 40 exceptions");
    expect(&vcpu, 6, harmonic_checksum(), "64-bit mode: SSE2");
    /* one exit for each byte of the string; eight accesses to the device */
    expect_exits(&vcpu, "64-bit mode", 7 + 100 + 16, 8, 1);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static bool inject(struct Vcpu *vcpu, uint32_t vector)
{
    struct kvm_interrupt interrupt = {.irq = vector};
    return ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) == 0;
}

static void test_interrupts(void)
{
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_interrupts, guest_interrupts_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    bool good = true;
    while (good && !vcpu.interrupts_done) {
        const int reason = run_once(&vcpu);
        if (reason == KVM_EXIT_HLT)
            good = inject(&vcpu, 0x30);
        else if (reason == KVM_EXIT_IRQ_WINDOW_OPEN) {
            vcpu.run->request_interrupt_window = 0;
            good = vcpu.run->ready_for_interrupt_injection && inject(&vcpu, 0x30);
        } else if (reason != KVM_EXIT_IO) {
            describe_unexpected(&vcpu, reason);
            good = false;
        }
        if (vcpu.want_interrupt) {
            vcpu.want_interrupt = false;
            good = good && !vcpu.run->if_flag;
            vcpu.run->request_interrupt_window = 1;
        }
    }
    check(good, "interrupts: the guest ends");
    expect(&vcpu, vcpu.result_count - 1, 20, "interrupts: delivered");
    check(vcpu.exits.hlt == 10 && vcpu.exits.window == 10, "interrupts: %d while halted, %d through a window", vcpu.exits.hlt,
          vcpu.exits.window);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void pulse(struct Vm *vm, uint32_t irq)
{
    for (uint32_t level = 1; level < 2; level--) {
        struct kvm_irq_level line = {.irq = irq, .level = level};
        CALL(vm->fd, KVM_IRQ_LINE, &line);
    }
}

static void test_irqchip(void)
{
    struct Vm vm = make_vm(true);
    load(&vm, LONG_CODE, guest_pic, guest_pic_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    bool good = true;
    while (good && !vcpu.interrupts_done) {
        const int reason = run_once(&vcpu);
        if (reason != KVM_EXIT_IO) {
            describe_unexpected(&vcpu, reason);
            good = false;
        }
        if (vcpu.want_interrupt)
            pulse(&vm, 5);
        vcpu.want_interrupt = false;
    }
    check(good, "8259 in the kernel: the guest ends");
    expect(&vcpu, vcpu.result_count - 1, 10, "8259 in the kernel: interrupts delivered");
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void test_single_step(void)
{
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_steps, guest_steps_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    CALL(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
    const uint64_t last = LONG_CODE + (uint64_t)(guest_steps_end - guest_steps) - 1; /* HLT */
    uint64_t path = 0, pc = 0;
    while (pc != last && vcpu.exits.debug < 100 && run_once(&vcpu) == KVM_EXIT_DEBUG) {
        pc = vcpu.run->debug.arch.pc;
        path = path * 31 + pc;
    }
    struct kvm_regs regs;
    CALL(vcpu.fd, KVM_GET_REGS, &regs);
    check(pc == last && vcpu.exits.debug == 32 && regs.rax == 55, "single step: %d steps, EAX %llu, path 0x%016llx",
          vcpu.exits.debug, regs.rax, (unsigned long long)path);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void test_dirty_log(void)
{
    struct Vm vm = make_vm(false);
    uint8_t *memory = anonymous(DIRTY_PAGES * 4096);
    add_slot(&vm, 1, DIRTY, memory, DIRTY_PAGES * 4096, KVM_MEM_LOG_DIRTY_PAGES);
    load(&vm, LONG_CODE, guest_dirty, guest_dirty_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    for (int round = 0; round < 2; round++) {
        start_long(&vcpu, 0);
        const bool halted = run_to_hlt(&vcpu);
        static uint64_t bitmap[(DIRTY_PAGES + 63) / 64];
        memset(bitmap, 0, sizeof bitmap);
        struct kvm_dirty_log log = {.slot = 1, .dirty_bitmap = bitmap};
        CALL(vm.fd, KVM_GET_DIRTY_LOG, &log);
        int dirty = 0, wrong = 0;
        for (int page = 0; page < DIRTY_PAGES; page++) {
            const int bit = bitmap[page / 64] >> page % 64 & 1;
            dirty += bit;
            wrong += bit != (page % 3 == 0);
        }
        check(halted && !wrong, "dirty log, round %d: %d pages dirty, %d wrong", round + 1, dirty, wrong);
    }
    end_vcpu(&vcpu);
    end_vm(&vm);
    munmap(memory, DIRTY_PAGES * 4096);
}

static void *run_thread(void *vcpu) { return run_to_hlt(vcpu) ? vcpu : NULL; }

static void test_several_cpus(int count)
{
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_smp, guest_smp_end);
    static struct Vcpu vcpus[MAX_VCPUS];
    pthread_t threads[MAX_VCPUS];
    for (int i = 0; i < count; i++) {
        vcpus[i] = make_vcpu(&vm, i);
        start_long(&vcpus[i], i);
    }
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, run_thread, &vcpus[i]))
            give_up("pthread_create");
    bool good = true;
    for (int i = 0; i < count; i++) {
        void *halted;
        pthread_join(threads[i], &halted);
        good = good && halted && vcpus[i].results[0] == 256 * 257 / 2;
    }
    const uint32_t counter = *(uint32_t *)(vm.memory + COUNTER);
    check(good && counter == (uint32_t)count * 10000, "%d CPUs: counter %u, pages of each summed", count, counter);
    for (int i = 0; i < count; i++)
        end_vcpu(&vcpus[i]);
    end_vm(&vm);
}

/* ---- start ---- */

static int open_kvm(void)
{
    for (int i = 0; i < 50; i++) { /* the module's device node may take a moment */
        const int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd >= 0)
            return fd;
        usleep(100000);
    }
    printf("kvm_vmm: /dev/kvm: %s\nkvm_vmm: 0 passed, 1 failed\n", strerror(errno));
    return -1;
}

static void read_cpuid(void)
{
    enum { entries = 256 };
    cpuid = calloc(1, sizeof *cpuid + entries * sizeof cpuid->entries[0]);
    if (!cpuid)
        give_up("calloc");
    cpuid->nent = entries;
    CALL(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
}

int main(int argc, char **argv)
{
    int vcpus = 2;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--vcpus") && i + 1 < argc)
            vcpus = atoi(argv[++i]);
        else
            vcpus = 0;
    }
    if (vcpus < 1 || vcpus > MAX_VCPUS) {
        fprintf(stderr, "usage: kvm_vmm [--vcpus N], N from 1 to %d\n", MAX_VCPUS);
        return 1;
    }
    kvm = open_kvm();
    if (kvm < 0)
        return 2;
    const int version = CALL(kvm, KVM_GET_API_VERSION, 0);
    check(version == 12, "KVM API version %d", version);
    read_cpuid();
    test_real_mode();
    test_long_mode();
    test_interrupts();
    test_irqchip();
    test_single_step();
    test_dirty_log();
    test_several_cpus(vcpus);
    printf("kvm_vmm: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
