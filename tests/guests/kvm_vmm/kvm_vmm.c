/* kvm_vmm: a small virtual-machine monitor on /dev/kvm. It makes virtual machines whose guests (guest.S)
 * leave them in every ordinary way, and compares results and counts of exits with what they must be.
 * Everything that it prints is a count or a checksum: two runs print the same.
 *
 *     kvm_vmm [--vcpus N]
 *
 * Exit status: 0 all passed, 1 something failed, 2 no /dev/kvm.
 */
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PROGRAM(name) extern const uint8_t name[], name##_end[]
PROGRAM(guest_real);
PROGRAM(guest_long);
PROGRAM(guest_interrupts);
PROGRAM(guest_pic);
PROGRAM(guest_steps);
PROGRAM(guest_dirty);
PROGRAM(guest_smp);
PROGRAM(guest_ipis);
PROGRAM(guest_nested_vmx);
PROGRAM(guest_nested_svm);

static int passed, failed;
int kvm;
struct kvm_cpuid2* cpuid;

__attribute__((format(printf, 2, 3))) static void check(bool good, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf(good ? "ok   " : "FAIL ");
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    va_end(arguments);
    good ? passed++ : failed++;
}

_Noreturn void give_up(const char* what) {
    printf("FAIL %s: %s\nkvm_vmm: %d passed, %d failed\n", what, strerror(errno), passed, failed + 1);
    fflush(stdout);
    exit(1);
}

/* ---- what the guests must find ---- */

static uint32_t rotate(uint32_t value, int count) { return value << count | value >> (32 - count); }

static const struct kvm_cpuid_entry2* cpuid_leaf(uint32_t function) {
    const struct kvm_cpuid_entry2* leaf = NULL;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function) leaf = &cpuid->entries[i];
    return leaf;
}

static uint32_t cpuid_checksum(int times) {
    const struct kvm_cpuid_entry2* leaf = cpuid_leaf(0x40000000);
    uint32_t sum = 0;
    for (int i = 0; leaf && i < times; i++) sum = ((sum + leaf->ebx) ^ leaf->ecx) + leaf->edx;
    return sum;
}

static void expect(const struct Vcpu* vcpu, int index, uint32_t expected, const char* what) {
    const uint32_t is = index < vcpu->result_count ? vcpu->results[index] : 0;
    if (is == expected)
        check(true, "%s: 0x%08x", what, is);
    else
        check(false, "%s: 0x%08x, expected 0x%08x", what, is, expected);
}

static void expect_exits(const struct Vcpu* vcpu, const char* what, int io, int mmio, int hlt) {
    const struct Exits* e = &vcpu->exits;
    check(e->io == io && e->mmio == mmio && e->hlt == hlt && !e->other,
          "%s: exits io %d, mmio %d, hlt %d, other %d", what, e->io, e->mmio, e->hlt, e->other);
}

static void test_real_mode(void) {
    struct Vm vm = make_vm(false);
    load(&vm, REAL_CODE, guest_real, guest_real_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_real(&vcpu);
    check(run_to_hlt(&vcpu), "real mode: runs to HLT");
    expect(&vcpu, 0, cpuid_checksum(100), "real mode: 100 x CPUID");
    uint32_t sum = 0;
    for (uint32_t i = 1; i <= 50; i++) sum += (uint8_t)(3 * i + 1);
    expect(&vcpu, 1, sum, "real mode: 50 x IN");
    sum = 0;
    for (uint32_t i = 256; i > 0; i--) sum = rotate(sum, 3) + i;
    expect(&vcpu, 2, sum, "real mode: segments and REP MOVSW");
    expect(&vcpu, 3, 20 * 7, "real mode: 20 x INT");
    expect_exits(&vcpu, "real mode", 4 + 50, 0, 1);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static uint32_t touch_checksum(void) {
    static uint32_t pages[4096];
    uint32_t value = 0x9E3779B9, sum = 0;
    for (int i = 0; i < 4096; i++) {
        pages[i] = value;
        value = value * 0x19660D + 0x3C6EF35F;
    }
    for (int i = 0; i < 4096; i++) sum = rotate(sum, 5) + pages[i];
    return sum;
}

static uint32_t mmio_checksum(void) {
    uint64_t quad = 0, sum;
    uint32_t dword = 0;
    for (unsigned i = 0; i < 8; i++) quad |= (uint64_t)mmio_byte(0x18 + i) << 8 * i;
    for (unsigned i = 0; i < 4; i++) dword |= (uint32_t)mmio_byte(0x14 + i) << 8 * i;
    sum = mmio_byte(0x10) + (mmio_byte(0x12) | (uint32_t)mmio_byte(0x13) << 8);
    sum = (uint32_t)((uint32_t)sum + dword);
    return (uint32_t)(sum + quad + (quad >> 32));
}

static uint64_t mmio_writes(void) {
    static const struct {
        uint64_t value, offset;
        uint32_t length;
    } writes[] = {{0x11, 0, 1}, {0x2222, 2, 2}, {0x33333333, 4, 4}, {0x4444444455555555, 8, 8}};
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++) sum = sum * 31 + writes[i].value + writes[i].length + writes[i].offset;
    return sum;
}

static uint32_t harmonic_checksum(void) {
    volatile double sum = 0;
    for (int n = 1000; n > 0; n--) sum = sum + 1.0 / n;
    double value = sum;
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return (uint32_t)bits ^ (uint32_t)(bits >> 32);
}

static void test_long_mode(void) {
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_long, guest_long_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    check(run_to_hlt(&vcpu), "64-bit mode: runs to HLT");
    expect(&vcpu, 0, cpuid_checksum(1000), "64-bit mode: 1000 x CPUID");
    uint32_t sum = 0;
    for (uint32_t i = 1; i <= 100; i++) sum += 3 * i + 1;
    expect(&vcpu, 1, sum, "64-bit mode: 100 x IN");
    check(!strcmp(vcpu.text, "exeunt all above"), "64-bit mode: REP OUTSB: \"%s\"", vcpu.text);
    expect(&vcpu, 2, mmio_checksum(), "64-bit mode: MMIO reads");
    check(vcpu.mmio_written == mmio_writes(), "64-bit mode: MMIO writes: 0x%llx",
          (unsigned long long)vcpu.mmio_written);
    expect(&vcpu, 3, touch_checksum(), "64-bit mode: 4096 pages");
    expect(&vcpu, 4, 0x12345678u + 0x7ABC + 0x11111111 + 0x00230010, "64-bit mode: MSRs");
    expect(&vcpu, 5, 10 * (1 + 100 + 10000 + (uint32_t)(0x8000000000 >> 19)), "64-bit mode: 40 exceptions");
    expect(&vcpu, 6, harmonic_checksum(), "64-bit mode: SSE2");
    /* one exit for each byte of the string; eight accesses to the device */
    expect_exits(&vcpu, "64-bit mode", 7 + 100 + 16, 8, 1);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static bool inject(struct Vcpu* vcpu, uint32_t vector) {
    struct kvm_interrupt interrupt = {.irq = vector};
    return ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) == 0;
}

static void test_interrupts(void) {
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
    check(vcpu.exits.hlt == 10 && vcpu.exits.window == 10, "interrupts: %d while halted, %d through a window",
          vcpu.exits.hlt, vcpu.exits.window);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void pulse(struct Vm* vm, uint32_t irq) {
    for (uint32_t level = 1; level < 2; level--) {
        struct kvm_irq_level line = {.irq = irq, .level = level};
        CALL(vm->fd, KVM_IRQ_LINE, &line);
    }
}

static void test_irqchip(void) {
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
        if (vcpu.want_interrupt) pulse(&vm, 5);
        vcpu.want_interrupt = false;
    }
    check(good, "8259 in the kernel: the guest ends");
    expect(&vcpu, vcpu.result_count - 1, 10, "8259 in the kernel: interrupts delivered");
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void test_single_step(void) {
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
    check(pc == last && vcpu.exits.debug == 32 && regs.rax == 55,
          "single step: %d steps, EAX %llu, path 0x%016llx", vcpu.exits.debug, regs.rax,
          (unsigned long long)path);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

static void test_dirty_log(void) {
    struct Vm vm = make_vm(false);
    uint8_t* memory = anonymous(DIRTY_PAGES * 4096);
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

static void* run_thread(void* vcpu) { return run_to_hlt(vcpu) ? vcpu : NULL; }

static void test_several_cpus(int count) {
    struct Vm vm = make_vm(false);
    load(&vm, LONG_CODE, guest_smp, guest_smp_end);
    static struct Vcpu vcpus[MAX_VCPUS];
    pthread_t threads[MAX_VCPUS];
    for (int i = 0; i < count; i++) {
        vcpus[i] = make_vcpu(&vm, i);
        start_long(&vcpus[i], i);
    }
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, run_thread, &vcpus[i])) give_up("pthread_create");
    bool good = true;
    for (int i = 0; i < count; i++) {
        void* halted;
        pthread_join(threads[i], &halted);
        good = good && halted && vcpus[i].results[0] == 256 * 257 / 2;
    }
    const uint32_t counter = *(uint32_t*)(vm.memory + COUNTER);
    check(good && counter == (uint32_t)count * 10000, "%d CPUs: counter %u, pages of each summed", count,
          counter);
    for (int i = 0; i < count; i++) end_vcpu(&vcpus[i]);
    end_vm(&vm);
}

static void* run_to_end(void* argument) {
    struct Vcpu* vcpu = argument;
    while (!vcpu->interrupts_done) {
        const int reason = run_once(vcpu);
        if (reason == KVM_EXIT_IO) continue;
        describe_unexpected(vcpu, reason);
        return NULL;
    }
    return vcpu;
}

/* All CPUs but the first send to it, at the same time. */
static void test_ipis(int count, uint32_t mode) {
    struct Vm vm = make_vm(true);
    load(&vm, LONG_CODE, guest_ipis, guest_ipis_end);
    *(uint32_t*)(vm.memory + APIC_MODE) = mode;
    *(int*)(vm.memory + DONE) = count - 1;
    static struct Vcpu vcpus[MAX_VCPUS];
    pthread_t threads[MAX_VCPUS];
    for (int i = 0; i < count; i++) {
        vcpus[i] = make_vcpu(&vm, i);
        start_long(&vcpus[i], i);
        struct kvm_mp_state running = {.mp_state = KVM_MP_STATE_RUNNABLE}; /* no INIT, no SIPI */
        CALL(vcpus[i].fd, KVM_SET_MP_STATE, &running);
    }
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, run_to_end, &vcpus[i])) give_up("pthread_create");
    bool good = true;
    uint32_t received = 0;
    for (int i = 0; i < count; i++) {
        void* ended;
        pthread_join(threads[i], &ended);
        const uint32_t from = ((uint32_t*)(vm.memory + RECEIVED))[i];
        good = good && ended && (i == 0 || from == 10 + IPIS);
        if (i != 0) received += from;
    }
    check(good, "local APICs in the kernel, %s: %d CPUs, %u interrupts", mode ? "x2APIC mode" : "xAPIC mode",
          count, received);
    for (int i = 0; i < count; i++) end_vcpu(&vcpus[i]);
    end_vm(&vm);
}

/* What guest_nested.S gives: its rounds by hand. */
static void nested_results(uint32_t results[7]) {
    memset(results, 0, 7 * sizeof results[0]);
    uint32_t sum = 0;
    for (uint32_t round = 1; results[3] < 25; round++) {
        const uint32_t eax = 3 * round + 1;
        sum = (((sum + eax) ^ rotate(eax, 9)) + 0x11) ^ 0x2200;
        results[0]++;
        if (round % 2 == 0) sum ^= 0x5A5A5A5A, results[1]++;
        if (round % 4 == 0) results[5] = rotate(results[5], 5) + sum + 0x30, results[2]++;
        if (round % 8 == 0) results[3]++;
    }
    results[4] = sum;
}

/* A hypervisor as guest, where KVM offers it VMX or SVM. */
static void test_nested(void) {
    const struct kvm_cpuid_entry2* basic = cpuid_leaf(1);
    const struct kvm_cpuid_entry2* extended = cpuid_leaf(0x80000001);
    const bool vmx = basic && basic->ecx >> 5 & 1, svm = extended && extended->ecx >> 2 & 1;
    if (!vmx && !svm) return;
    struct Vm vm = make_vm(false);
    if (vmx)
        load(&vm, LONG_CODE, guest_nested_vmx, guest_nested_vmx_end);
    else
        load(&vm, LONG_CODE, guest_nested_svm, guest_nested_svm_end);
    struct Vcpu vcpu = make_vcpu(&vm, 0);
    start_long(&vcpu, 0);
    uint32_t expected[7];
    nested_results(expected);
    const uint32_t* is = vcpu.results;
    const bool good = run_to_hlt(&vcpu) && !memcmp(is, expected, sizeof expected);
    check(good, "nested: L2 exits cpuid %u, vmcall %u, io %u, hlt %u", is[0], is[1], is[2], is[3]);
    if (!good) printf("     checksums 0x%08x, 0x%08x, unexpected exit 0x%x\n", is[4], is[5], is[6]);
    end_vcpu(&vcpu);
    end_vm(&vm);
}

/* ---- start ---- */

static int open_kvm(void) {
    for (int i = 0; i < 50; i++) { /* the module's device node may take a moment */
        const int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd >= 0) return fd;
        usleep(100000);
    }
    printf("kvm_vmm: /dev/kvm: %s\nkvm_vmm: 0 passed, 1 failed\n", strerror(errno));
    return -1;
}

static void read_cpuid(void) {
    enum { entries = 256 };
    cpuid = calloc(1, sizeof *cpuid + entries * sizeof cpuid->entries[0]);
    if (!cpuid) give_up("calloc");
    cpuid->nent = entries;
    CALL(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
}

int main(int argc, char** argv) {
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
    if (kvm < 0) return 2;
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
    test_ipis(vcpus < 2 ? 2 : vcpus, 0);
    test_ipis(vcpus < 2 ? 2 : vcpus, X2APIC);
    test_nested();
    printf("kvm_vmm: %d passed, %d failed\n", passed, failed);
    return failed != 0;
}
