// AVIC: the backing page register by register, delivery, interprocessor interrupts through the tables,
// doorbells, x2AVIC. APM 2 15.29 "Advanced Virtual Interrupt Controller".
#include "tests/support/svm_harness.hpp"

#include "svm/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;
using AVIC::Behaviour;
using Register = VirtualApic::Register;

constexpr u64 noaccel = ExitCode::AVIC_NOACCEL, incomplete = ExitCode::AVIC_INCOMPLETE_IPI;
constexpr u64 write_bit = bit(32);
constexpr u32 fixed_40 = 0x40;
constexpr u32 self = 1u << 18, all = 2u << 18, all_but_self = 3u << 18, logical = 1u << 11, level = 1u << 15;

u64 vector_address(u64 page, unsigned first, unsigned vector) { return page + first + 16 * (vector / 32); }
bool has_vector(T& t, u64 page, unsigned first, unsigned vector) {
    return test_bit(t.read(vector_address(page, first, vector), 4), vector % 32);
}
void set_vector(T& t, u64 page, unsigned first, unsigned vector) {
    const u64 at = vector_address(page, first, vector);
    t.write(at, t.read(at, 4) | u64{1} << (vector % 32), 4);
}

/// The guest writes `value` to this register of its APIC page, then halts.
void guest_writes(T& t, unsigned offset, u32 value) {
    t.cpu.r[RBX] = T::apic_page + offset;
    t.set(VMCB::rax, value);
    t.guest(code("89 03 f4", "mov [rbx], eax; hlt"));
}
void guest_reads(T& t, unsigned offset) {
    t.cpu.r[RBX] = T::apic_page + offset;
    t.guest(code("8b 0b f4", "mov ecx, [rbx]; hlt"));
}
u64 after_write() { return T::code_address + 2; }

/// The guest sends an interprocessor interrupt: ICR high is in the page already.
void guest_sends(T& t, u32 low, u32 high = 0) {
    t.write(T::backing_page + 0x310, high, 4);
    guest_writes(t, 0x300, low);
}
void check_incomplete(T& t, AVIC::Failure failure, u32 index, u32 low, u32 high) {
    LEFT(t, incomplete);
    CHECK(t.info1() == (u64{high} << 32 | low));
    CHECK(t.info2() == (u64{static_cast<u32>(failure)} << 32 | index));
    CHECK(t.guest_rip() == after_write());
    CHECK(t.get(VMCB::exitintinfo) == 0);
}

} // namespace

TEST_CASE("AVIC: a read of each register allows or faults as its row says [APM 2 Table 15-22]") {
    for (const AVIC::RegisterRow& row : AVIC::register_rows())
        for (const unsigned offset : {unsigned{row.first}, unsigned{row.last}}) {
            CAPTURE(row.name);
            CAPTURE(offset);
            T t;
            t.use_avic();
            if (offset < 0x100 || offset >= 0x280)
                t.write(T::backing_page + offset, 0x2468, 4);                             // no requests
            const u64 content = offset == 0xA0 ? 0 : t.read(T::backing_page + offset, 4); // PPR is made
            guest_reads(t, offset);
            if (row.read == Behaviour::fault) {
                LEFT(t, noaccel);
                CHECK(t.info1() == offset);
                CHECK(t.guest_rip() == T::code_address);
                CHECK(t.get(VMCB::nrip) == 0);
            } else {
                LEFT(t, ExitCode::HLT);
                CHECK(t.cpu.r[RCX] == (offset == 0xA0 ? t.read(T::backing_page + 0xA0, 4) : content));
            }
        }
}

TEST_CASE("AVIC: a write to each register allows, accelerates, traps or faults as its row says [APM 2 Table "
          "15-22]") {
    for (const AVIC::RegisterRow& row : AVIC::register_rows())
        for (const unsigned offset : {unsigned{row.first}, unsigned{row.last}}) {
            CAPTURE(row.name);
            T t;
            t.use_avic();
            const u32 value = offset == 0x300 ? self | fixed_40 : 0x30;
            t.write(T::backing_page + offset, 0x1357 & 0, 4);
            t.set(VMCB::rflags, RFLAGS::FIXED1);
            guest_writes(t, offset, value);
            switch (row.write) {
            case Behaviour::fault:
                LEFT(t, noaccel);
                CHECK(t.info1() == (write_bit | offset));
                CHECK(t.guest_rip() == T::code_address);
                CHECK(t.read(T::backing_page + offset, 4) == 0);
                break;
            case Behaviour::trap:
                LEFT(t, noaccel);
                CHECK(t.info1() == (write_bit | offset));
                CHECK(t.guest_rip() == after_write());
                CHECK(t.get(VMCB::nrip) == after_write());
                CHECK(t.read(T::backing_page + offset, 4) == value);
                break;
            default: LEFT(t, ExitCode::HLT); CHECK(t.read(T::backing_page + offset, 4) == value);
            }
        }
}

TEST_CASE("AVIC: TPR by its register and by CR8, V_TPR and PPR follow [APM 2 15.29.4]") {
    T t;
    t.use_avic();
    guest_writes(t, 0x80, 0x57);
    LEFT(t, ExitCode::HLT);
    CHECK((t.get(VMCB::interrupt_control) & 0xF) == 5);
    CHECK(t.read(T::backing_page + 0xA0, 4) == 0x57);
    for (const bool masking : {false, true}) {
        T cr8;
        cr8.use_avic();
        if (!masking) cr8.set(VMCB::interrupt_control, VMCB::INT::AVIC_ENABLE);
        cr8.cpu.r[RCX] = 9;
        cr8.guest(code("44 0f 22 c1 44 0f 20 c2 f4", "mov cr8, rcx; mov rdx, cr8; hlt"));
        LEFT(cr8, ExitCode::HLT);
        CHECK(cr8.cpu.r[RDX] == 9);
        CHECK(cr8.read(T::backing_page + 0x80, 4) == 0x90);
        CHECK(cr8.read(T::backing_page + 0xA0, 4) == 0x90);
        CHECK((cr8.get(VMCB::interrupt_control) & 0xF) == 9);
        CHECK(cr8.interrupts.tpr == 0);
    }
}

TEST_CASE("AVIC: a request is delivered at VMRUN when it outranks PPR, IF, shadow and virtual GIF allow [APM "
          "2 15.29]") {
    struct Case {
        u8 vector, tpr, in_service;
        u64 rflags, control;
        bool delivered;
    };
    constexpr u64 on = RFLAGS::IF;
    const Case cases[] = {
        {0x61, 0, 0, on, 0, true},
        {0x61, 0x50, 0, on, 0, true},
        {0x61, 0x60, 0, on, 0, false},
        {0x61, 0, 0x58, on, 0, true},
        {0x61, 0, 0x6F, on, 0, false},
        {0x61, 0, 0, 0, 0, false},
        {0x61, 0, 0, on, VMCB::INT::V_GIF_ENABLE, false},
        {0x61, 0, 0, on, VMCB::INT::V_GIF_ENABLE | VMCB::INT::V_GIF, true},
        {0x61, 0, 0, on, VMCB::INT::V_IRQ | u64{0x99} << 32 | 0xF0000, true}}; // V_IRQ is ignored
    for (const Case& c : cases) {
        CAPTURE(c.tpr);
        T t;
        t.use_avic();
        t.set(VMCB::interrupt_control, t.get(VMCB::interrupt_control) | c.control);
        t.set(VMCB::rflags, RFLAGS::FIXED1 | c.rflags);
        t.write(T::backing_page + 0x80, c.tpr, 4);
        if (c.in_service) set_vector(t, T::backing_page, Register::ISR, c.in_service);
        set_vector(t, T::backing_page, Register::IRR, c.vector);
        t.intercept(ExitCode::VINTR); // without effect
        t.guest(code("f4", "hlt"));
        LEFT(t, ExitCode::HLT);
        CHECK(t.guest_rip() == (c.delivered ? T::handler_address + 16 * c.vector : T::code_address));
        CHECK(has_vector(t, T::backing_page, Register::IRR, c.vector) == !c.delivered);
        CHECK(has_vector(t, T::backing_page, Register::ISR, c.vector) == c.delivered);
        if (c.delivered) CHECK(t.read(T::backing_page + 0xA0, 4) == (c.vector & 0xF0u));
    }
    T shadowed;
    shadowed.use_avic();
    set_vector(shadowed, T::backing_page, Register::IRR, 0x61);
    shadowed.set(VMCB::interrupt_shadow, 1);
    shadowed.guest(code("90 90 f4", "nop; nop; hlt"));
    LEFT(shadowed, ExitCode::HLT);
    CHECK(shadowed.read(shadowed.get(VMCB::rsp)) == T::code_address + 1);
}

TEST_CASE("AVIC: EOI of an edge-triggered interrupt leads on to the next request [APM 2 15.29.3]") {
    T t;
    t.use_avic();
    set_vector(t, T::backing_page, Register::ISR, 0x61);
    set_vector(t, T::backing_page, Register::IRR, 0x41);
    guest_writes(t, 0xB0, 0);
    LEFT(t, ExitCode::HLT);
    CHECK(!has_vector(t, T::backing_page, Register::ISR, 0x61));
    CHECK(has_vector(t, T::backing_page, Register::ISR, 0x41));
    CHECK(t.guest_rip() == T::handler_address + 16 * 0x41);
    T empty;
    empty.use_avic();
    guest_writes(empty, 0xB0, 0);
    LEFT(empty, ExitCode::HLT);
}

TEST_CASE("AVIC: EOI of a level-triggered interrupt exits after the write, with its vector [APM 2 15.29.3]") {
    T t;
    t.use_avic();
    set_vector(t, T::backing_page, Register::ISR, 0x61);
    set_vector(t, T::backing_page, Register::TMR, 0x61);
    guest_writes(t, 0xB0, 0);
    LEFT(t, noaccel);
    CHECK(t.info1() == (write_bit | 0xB0));
    CHECK(t.info2() == 0x61);
    CHECK(t.guest_rip() == after_write());
    CHECK(has_vector(t, T::backing_page, Register::ISR, 0x61)); // the VMM ends it
}

TEST_CASE("AVIC: types and vectors that are not accelerated [APM 2 Table 15-24]") {
    for (const u32 mode : {1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
        T t;
        t.use_avic();
        const u32 low = mode << 8 | fixed_40;
        guest_sends(t, low, 0x0100'0000);
        check_incomplete(t, AVIC::Failure::invalid_type, 0, low, 0x0100'0000);
        CHECK(t.read(T::backing_page + 0x300, 4) == low);
    }
    T trigger;
    trigger.use_avic();
    guest_sends(trigger, level | fixed_40);
    check_incomplete(trigger, AVIC::Failure::invalid_type, 0, level | fixed_40, 0);
    T vector;
    vector.use_avic();
    guest_sends(vector, self | 0xF);
    check_incomplete(vector, AVIC::Failure::invalid_vector, 0, self | 0xF, 0);
}

TEST_CASE("AVIC: every destination reaches its targets [APM 2 15.29.5]") {
    struct Case {
        u32 low, high;
        bool to_self, to_other;
        u32 dfr = 0xFFFF'FFFF;
    };
    const Case cases[] = {
        {fixed_40 | self, 0x0100'0000, true, false},
        {fixed_40 | all, 0, true, true},
        {fixed_40 | all_but_self, 0, false, true},
        {fixed_40, 0x0100'0000, false, true},
        {fixed_40, 0, true, false},
        {fixed_40, 0xFF00'0000, true, true},
        {fixed_40 | logical, 0x0200'0000, false, true},
        {fixed_40 | logical, 0x0300'0000, true, true},
        {fixed_40 | logical, 0xFF00'0000, true, true},
        {fixed_40 | logical, 0, false, false},
        {fixed_40 | logical, 0x1200'0000, false, true, 0x0FFF'FFFF}, // cluster 1
        {fixed_40 | logical, 0x1300'0000, true, true, 0x0FFF'FFFF},
    };
    for (const Case& c : cases) {
        CAPTURE(c.low);
        CAPTURE(c.high);
        T t;
        t.use_avic();
        t.write(T::backing_page + 0xE0, c.dfr, 4);
        t.write(T::logical_table, AVIC::LOGICAL::V | 0, 4);
        t.write(T::logical_table + 4, AVIC::LOGICAL::V | 1, 4);
        t.write(T::logical_table + 16, AVIC::LOGICAL::V | 0, 4);
        t.write(T::logical_table + 20, AVIC::LOGICAL::V | 1, 4);
        t.set(VMCB::rflags, RFLAGS::FIXED1);
        guest_sends(t, c.low, c.high);
        LEFT(t, ExitCode::HLT); // nothing exits on the sending side
        CHECK(has_vector(t, T::backing_page, Register::IRR, 0x40) == c.to_self);
        CHECK(has_vector(t, T::other_backing_page, Register::IRR, 0x40) == c.to_other);
    }
}

TEST_CASE("AVIC: an interrupt to oneself is delivered after the write [APM 2 15.29.5]") {
    T t;
    t.use_avic();
    guest_sends(t, self | fixed_40);
    LEFT(t, ExitCode::HLT);
    CHECK(t.guest_rip() == T::handler_address + 16 * 0x40);
    CHECK(t.read(t.get(VMCB::rsp)) == after_write());
}

TEST_CASE("AVIC: a target that does not run has its request set and is reported [APM 2 Table 15-24]") {
    T t;
    t.use_avic();
    t.write(T::physical_table + 8, T::other_backing_page | AVIC::PHYSICAL::V | 1); // IR = 0
    guest_sends(t, fixed_40 | all_but_self);
    check_incomplete(t, AVIC::Failure::not_running, 1, fixed_40 | all_but_self, 0);
    CHECK(has_vector(t, T::other_backing_page, Register::IRR, 0x40));
}

TEST_CASE("AVIC: targets that do not exist, and backing pages that can not be [APM 2 Table 15-24]") {
    struct Case {
        u32 low, high;
        AVIC::Failure failure;
        u32 index;
        void (*prepare)(T&);
    };
    using enum AVIC::Failure;
    const Case cases[] = {
        {fixed_40, 0x0200'0000, invalid_target, 2, [](T&) {}},
        {fixed_40, 0x0500'0000, invalid_target, 5,
         [](T& t) { t.set(VMCB::avic_physical_table, T::physical_table | 4); }},
        {fixed_40 | logical, 0x0400'0000, invalid_target, 2, [](T&) {}},
        {fixed_40 | logical, 0x2100'0000, invalid_target, 8,
         [](T& t) { t.write(T::backing_page + 0xE0, 0, 4); }},
        {fixed_40, 0x0100'0000, invalid_backing_page, 1,
         [](T& t) { t.write(T::physical_table + 8, bit(45) | AVIC::PHYSICAL::V | AVIC::PHYSICAL::IR); }},
    };
    for (const Case& c : cases) {
        T t;
        t.use_avic();
        c.prepare(t);
        guest_sends(t, c.low, c.high);
        check_incomplete(t, c.failure, c.index, c.low, c.high);
        CHECK(!has_vector(t, T::other_backing_page, Register::IRR, 0x40));
    }
}

TEST_CASE("AVIC: nested page faults on the APIC page come before AVIC [APM 2 15.29.3]") {
    T t;
    t.use_avic();
    t.write(t.npt_entry_address(T::apic_page), 0);
    guest_writes(t, 0x300, self | fixed_40);
    LEFT(t, ExitCode::NPF);
    CHECK(t.info2() == T::apic_page + 0x300);
    CHECK(t.read(T::backing_page + 0x300, 4) == 0);
    T read_only;
    read_only.use_avic();
    read_only.write(read_only.npt_entry_address(T::apic_page), T::apic_page | 5);
    guest_writes(read_only, 0x80, 0x20);
    LEFT(read_only, ExitCode::NPF);
    CHECK((read_only.info1() & PFEC::W) != 0);
}

TEST_CASE("AVIC: a halted guest wakes for a request that outranks PPR [APM 2 15.29]") {
    T t;
    t.use_avic();
    t.intercept(ExitCode::HLT, false);
    t.guest(code("f4", "hlt"), 100);
    CHECK(t.cpu.in_guest);
    CHECK(t.cpu.activity == Activity::hlt);
    set_vector(t, T::backing_page, Register::IRR, 0x61);
    t.interconnect.doorbell(0);
    t.run_guest(100);
    CHECK(t.cpu.rip == T::handler_address + 16 * 0x61 + 1);
}

TEST_CASE("AVIC doorbell: MSR C001_011BH is write-only, and tells the processor with that APIC ID [APM 2 "
          "15.29.8]") {
    T t;
    t.cpu.r[RCX] = Msr::AVIC_DOORBELL;
    CHECK(t.step(code("0f 32", "rdmsr")) == general_protection(0));
    t.cpu.r[RAX] = 1, t.cpu.r[RDX] = 0;
    CHECK(t.step(code("0f 30", "wrmsr")).kind == Stop::Kind::none); // nobody there
    t.cpu.r[RAX] = 0x1000;
    CHECK(t.step(code("0f 30", "wrmsr")) == general_protection(0));
}

TEST_CASE("AVIC: two processors, the one's interrupt reaches the other without an exit [APM 2 15.29.5]") {
    T t;
    t.use_avic();
    // The other one: the same guest code and tables, its own VMCB, stack and backing page, waiting in a loop.
    constexpr u64 vmcb = 0x2B'0000, loop = 0x1'1000;
    Cpu other(1, t.model, t.memory, t.bus, 0);
    Svm other_svm(other, &t.interconnect);
    OneInterrupt quiet;
    other.controller = &quiet;
    u8 bytes[VMCB::bytes];
    t.memory.read_bytes(Physical{T::vmcb}, bytes, sizeof bytes);
    VmcbView v(bytes);
    v.put(VMCB::avic_backing_page, T::other_backing_page);
    v.put(VMCB::rip, loop);
    v.put(VMCB::rsp, u64{T::stack_top - 0x1000});
    t.memory.write_bytes(Physical{vmcb}, bytes, sizeof bytes);
    t.memory.write_bytes(Physical{loop}, "\xEB\xFE", 2); // JMP to itself
    static_cast<CpuState&>(other) = t.cpu;
    other.context_changed(true);
    other.mode_changed();
    other.r[RAX] = vmcb;
    other.rip = T::vmrun_address;
    other.run(0, 500);
    CHECK(other.in_guest);
    CHECK(other.rip == loop);

    t.set(VMCB::rip, T::code_address);
    guest_sends(t, fixed_40, 0x0100'0000);
    LEFT(t, ExitCode::HLT);
    CHECK(t.witness.exits == 1); // the HLT
    other.run(500, 1000);
    CHECK(!other.in_guest); // its handler halts
    CHECK(t.read(vmcb + VMCB::rip.offset) == T::handler_address + 16 * 0x40);
    CHECK(has_vector(t, T::other_backing_page, Register::ISR, 0x40));
}

TEST_CASE(
    "x2AVIC: MSRs by the same rows, after the MSR permission map and x2APIC's own checks [APM 2 15.29.7]") {
    struct Case {
        u32 index;
        bool write;
        u64 value;
        u64 code; ///< exit
        u64 info1 = 0;
        bool trap = false;
    };
    constexpr u64 gp = ExitCode::EXCP0 + 13, halted = ExitCode::HLT;
    const Case cases[] = {
        {0x802, false, 0, halted},
        {0x802, true, 0, gp},
        {0x803, false, 0, halted},
        {0x808, true, 0x20, halted},
        {0x808, true, 0x100, gp},
        {0x809, false, 0, gp},
        {0x80A, false, 0, halted},
        {0x80B, true, 0, halted},
        {0x80B, true, 1, gp},
        {0x80B, false, 0, gp},
        {0x80D, false, 0, halted},
        {0x80F, true, 0x1FF, noaccel, write_bit | 0xF0, true},
        {0x810, false, 0, halted},
        {0x810, true, 0, gp},
        {0x81F, false, 0, halted},
        {0x827, false, 0, halted},
        {0x828, true, 0, noaccel, write_bit | 0x280, true},
        {0x830, false, 0, halted},
        {0x830, true, self | 0x40, halted},
        {0x832, true, 0x4'0000, noaccel, write_bit | 0x320, true},
        {0x832, true, 0x8'0000, gp},
        {0x838, true, 5, noaccel, write_bit | 0x380, true},
        {0x839, false, 0, noaccel, 0x390},
        {0x83E, true, 3, noaccel, write_bit | 0x3E0, true},
        {0x83F, true, 0x50, halted},
        {0x83F, false, 0, gp},
        {0x80E, false, 0, gp},
        {0x831, false, 0, gp},
        {0x840, false, 0, gp},
    };
    for (const Case& c : cases) {
        CAPTURE(c.index);
        CAPTURE(c.write);
        T t;
        t.use_avic(true);
        t.intercept(ExitCode::MSR);
        t.intercept(gp);
        t.set(VMCB::rflags, RFLAGS::FIXED1);
        t.cpu.r[RCX] = c.index;
        t.cpu.r[RDX] = c.value >> 32;
        t.set(VMCB::rax, low32(c.value));
        t.guest(c.write ? code("0f 30 f4", "wrmsr; hlt") : code("0f 32 f4", "rdmsr; hlt"));
        LEFT(t, c.code);
        if (c.code == noaccel) CHECK(t.info1() == c.info1);
        CHECK(t.guest_rip() == T::code_address + (c.code == halted || c.trap ? 2 : 0));
    }
    T mapped; // two bits an MSR: WRMSR of 808H
    mapped.use_avic(true);
    mapped.intercept(ExitCode::MSR);
    mapped.write(T::msrpm + 0x202, 2, 1);
    mapped.cpu.r[RCX] = 0x808, mapped.cpu.r[RDX] = 0;
    mapped.guest(code("0f 30", "wrmsr"));
    LEFT(mapped, ExitCode::MSR);
}

TEST_CASE("x2AVIC: the ICR is one MSR of 64 bits, logical IDs are computed [APM 2 15.29.7]") {
    struct Case {
        u32 low, high;
        bool to_self, to_other;
    };
    const Case cases[] = {{fixed_40, 1, false, true},
                          {fixed_40, 0xFFFF'FFFF, true, true},
                          {fixed_40 | logical, 0x0000'0003, true, true},
                          {fixed_40 | logical, 0x0000'0002, false, true}};
    for (const Case& c : cases) {
        T t;
        t.use_avic(true);
        t.set(VMCB::rflags, RFLAGS::FIXED1);
        t.cpu.r[RCX] = 0x830;
        t.cpu.r[RDX] = c.high;
        t.set(VMCB::rax, c.low);
        t.guest(code("0f 30 0f 32 f4", "wrmsr; rdmsr; hlt"));
        LEFT(t, ExitCode::HLT);
        CHECK(t.cpu.r[RDX] == c.high);
        CHECK(has_vector(t, T::backing_page, Register::IRR, 0x40) == c.to_self);
        CHECK(has_vector(t, T::other_backing_page, Register::IRR, 0x40) == c.to_other);
    }
    T far;
    far.use_avic(true);
    far.cpu.r[RCX] = 0x830;
    far.cpu.r[RDX] = 0x0001'0001; // cluster 1: ID 16
    far.set(VMCB::rax, fixed_40 | logical);
    far.guest(code("0f 30", "wrmsr"));
    LEFT(far, incomplete);
    CHECK(far.info2() == (u64{2} << 32 | 16));
}

TEST_CASE("x2AVIC: the page at the APIC's address is memory [APM 2 15.29.7]") {
    T t;
    t.use_avic(true);
    guest_writes(t, 0x300, self | fixed_40);
    LEFT(t, ExitCode::HLT);
    CHECK(t.read(T::apic_page + 0x300, 4) == (self | fixed_40));
    CHECK(t.read(T::backing_page + 0x300, 4) == 0);
}

TEST_CASE("AVIC: a request posted from outside is found at the doorbell [APM 2 15.29.8]") {
    T t;
    t.use_avic();
    t.guest(code("eb fe", "jmp 0x0000000000010000"), 50);
    CHECK(t.cpu.in_guest);
    Avic device(t.memory);
    CHECK(device.post(T::backing_page, 0x71));
    CHECK(!device.post(bit(45), 0x71));
    t.interconnect.doorbell(0);
    t.run_guest(50);
    LEFT(t, ExitCode::HLT);
    CHECK(t.guest_rip() == T::handler_address + 16 * 0x71);
}
