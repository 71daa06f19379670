// Events of a guest: exceptions, injection, interrupts, the virtual interrupt, GIF, shutdown. APM 2 15.12
// to 15.21.
#include "tests/support/svm_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;

constexpr u64 valid = bit(31), error_valid = bit(11);
constexpr u64 type_nmi = 2 << 8, type_exception = 3 << 8, type_software = 4 << 8;

} // namespace

TEST_CASE("Exception intercepts: error code and address; CR2 is not written, DR6 is [APM 2 15.12]") {
    T t;
    t.intercept(ExitCode::EXCP0 + 14);
    t.cpu.r[RBX] = 0x4000'1000; // not mapped
    t.guest(code("88 0b", "mov [rbx], cl"));
    LEFT(t, ExitCode::EXCP0 + 14);
    CHECK(t.info1() == PFEC::W);
    CHECK(t.info2() == 0x4000'1000);
    CHECK(t.get(VMCB::cr2) == 0);
    CHECK(t.get(VMCB::bytes_fetched) == 15); // decode assists
    CHECK(t.read(T::vmcb + 0xD1, 2) == 0x0B88);

    T db;
    db.intercept(ExitCode::EXCP0 + 1);
    db.set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::TF);
    db.guest(code("90 90", "nop; nop"));
    LEFT(db, ExitCode::EXCP0 + 1);
    CHECK((db.get(VMCB::dr6) & DR6::BS) != 0);
    CHECK(db.guest_rip() == T::code_address + 1);
}

TEST_CASE("INT3 intercepted: RIP is the instruction, nRIP what follows [APM 2 15.12]") {
    T t;
    t.intercept(ExitCode::EXCP0 + 3);
    t.guest(code("cc", "int3"));
    LEFT(t, ExitCode::EXCP0 + 3);
    CHECK(t.guest_rip() == T::code_address);
    CHECK(t.get(VMCB::nrip) == T::code_address + 1);
}

TEST_CASE("INT n and INT1 are not subject to exception intercepts but to their own [APM 2 15.12, 15.9]") {
    T t;
    t.intercept(ExitCode::EXCP0 + 3);
    t.guest(code("cd 03", "int 0x03")); // handler 3 halts
    LEFT(t, ExitCode::HLT);
    T own;
    own.intercept(ExitCode::SWINT);
    own.guest(code("cd 63", "int 0x63"));
    LEFT(own, ExitCode::SWINT);
    CHECK(own.info1() == 0x63);
    T icebp;
    icebp.intercept(ExitCode::EXCP0 + 1);
    icebp.intercept(ExitCode::ICEBP);
    icebp.guest(code("f1", "int1"));
    LEFT(icebp, ExitCode::ICEBP);
}

TEST_CASE("EVENTINJ: each type is delivered through the guest's IDT once, and V is cleared [APM 2 15.20]") {
    struct Injection {
        u64 event;
        unsigned vector;
        u64 pushed_rip;
        bool has_error;
    };
    const Injection injections[] = {
        {valid | 0x40, 0x40, T::code_address, false},
        {valid | type_nmi | 0x77, 2, T::code_address, false},
        {valid | type_exception | error_valid | 13 | u64{0x1234} << 32, 13, T::code_address, true},
        {valid | type_software | 0x50, 0x50, T::code_address + 2, false},
        {valid | type_exception | 3, 3, T::code_address + 2, false},
    };
    for (const Injection& i : injections) {
        CAPTURE(i.event);
        T t;
        t.set(VMCB::eventinj, i.event);
        t.set(VMCB::nrip, T::code_address + 2);
        t.run_guest();
        LEFT(t, ExitCode::HLT);
        CHECK(t.guest_rip() == T::handler_address + 16 * i.vector);
        const u64 frame = t.get(VMCB::rsp);
        if (i.has_error) CHECK(t.read(frame) == 0x1234);
        CHECK(t.read(frame + (i.has_error ? 8 : 0)) == i.pushed_rip);
        CHECK((t.get(VMCB::eventinj) & valid) == 0);
        CHECK(t.get(VMCB::exitintinfo) == 0);
    }
}

TEST_CASE("EXITINTINFO: the event whose delivery an exit interrupted [APM 2 15.7.2]") {
    T t;
    t.intercept(ExitCode::EXCP0 + 11);
    t.write(T::idt_address + 16 * 0x40 + 4, t.read(T::idt_address + 16 * 0x40 + 4, 4) & ~u64{0x8000},
            4); // not present
    t.set(VMCB::eventinj, valid | 0x40);
    t.run_guest();
    LEFT(t, ExitCode::EXCP0 + 11);
    CHECK(t.get(VMCB::exitintinfo) == (valid | 0x40));
    CHECK(t.info1() == (0x40 * 8 + 3)); // IDT, EXT

    T soft;
    soft.use_npt();
    soft.write(soft.npt_entry_address(T::idt_address), 0);
    soft.guest(code("cd 50", "int 0x50"));
    LEFT(soft, ExitCode::NPF);
    CHECK(soft.get(VMCB::exitintinfo) == (valid | type_software | 0x50));
    CHECK(soft.info1() == (NPF::final_address | PFEC::U));
    CHECK(soft.guest_rip() == T::code_address);
}

TEST_CASE(
    "Physical interrupts: EFLAGS.IF of guest or host masks them, and they stay pending [APM 2 15.21.1]") {
    struct Masking {
        bool v_intr_masking, host_if, guest_if, exits;
    };
    const Masking maskings[] = {{false, false, true, true},
                                {false, true, false, false},
                                {true, true, false, true},
                                {true, false, true, false}};
    for (const Masking& m : maskings) {
        T t;
        t.intercept(ExitCode::INTR);
        if (m.v_intr_masking) t.set(VMCB::interrupt_control, VMCB::INT::V_INTR_MASKING);
        t.set(VMCB::rflags, RFLAGS::FIXED1 | (m.guest_if ? RFLAGS::IF : 0));
        t.svm.set_gif(false); // as hypervisors do: nothing is taken before VMRUN
        t.cpu.flags.rest |= m.host_if ? RFLAGS::IF : 0;
        t.interrupts.vector = 0x55;
        t.guest(code("90 f4", "nop; hlt"));
        LEFT(t, m.exits ? ExitCode::INTR : ExitCode::HLT);
        CHECK(t.interrupts.vector == 0x55);
        CHECK(t.guest_rip() == T::code_address + (m.exits ? 0 : 1));
    }
}

TEST_CASE("Virtual interrupt: priority, IF and shadow; V_IRQ is cleared when taken, not when it exits [APM 2 "
          "15.21.4]") {
    using namespace VMCB::INT;
    struct Case {
        u64 control, rflags;
        bool shadow, taken;
    };
    constexpr u64 irq = V_IRQ | u64{0x66} << 32, high = u64{9} << 16;
    const Case cases[] = {{irq | high | 8, RFLAGS::IF, false, true},
                          {irq | high | 9, RFLAGS::IF, false, false},
                          {irq | 9 | V_IGN_TPR, RFLAGS::IF, false, true},
                          {irq | high, 0, false, false},
                          {irq | high | V_GIF_ENABLE, RFLAGS::IF, false, false},
                          {irq | high | V_GIF_ENABLE | V_GIF, RFLAGS::IF, false, true}};
    for (const Case& c : cases)
        for (const bool intercepted : {false, true}) {
            CAPTURE(c.control);
            T t;
            if (intercepted) t.intercept(ExitCode::VINTR);
            t.set(VMCB::interrupt_control, c.control);
            t.set(VMCB::rflags, RFLAGS::FIXED1 | c.rflags);
            t.guest(code("f4", "hlt"));
            LEFT(t, c.taken && intercepted ? ExitCode::VINTR : ExitCode::HLT);
            const bool delivered = c.taken && !intercepted;
            CHECK(t.guest_rip() == (delivered ? T::handler_address + 16 * 0x66 : T::code_address));
            CHECK(((t.get(VMCB::interrupt_control) & V_IRQ) == 0) == delivered);
        }
    T t; // the shadow lasts one instruction
    t.set(VMCB::interrupt_control, irq | high);
    t.set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::IF);
    t.set(VMCB::interrupt_shadow, 1);
    t.guest(code("90 90 f4", "nop; nop; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK(t.read(t.get(VMCB::rsp)) == T::code_address + 1);
}

TEST_CASE("V_TPR: CR8 reads and writes it under V_INTR_MASKING, and it is written back [APM 2 15.21.2]") {
    T t;
    t.set(VMCB::interrupt_control, VMCB::INT::V_INTR_MASKING | 5);
    t.cpu.r[RCX] = 7;
    t.guest(code("44 0f 20 c3 44 0f 22 c1 f4", "mov rbx, cr8; mov cr8, rcx; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK(t.cpu.r[RBX] == 5);
    CHECK((t.get(VMCB::interrupt_control) & 0xF) == 7);
    CHECK(t.interrupts.tpr == 0);
}

TEST_CASE("GIF: VMRUN sets it, #VMEXIT clears it, and while it is 0 NMIs wait [APM 2 15.17]") {
    T t;
    t.intercept(ExitCode::NMI);
    t.cpu.nmi_pending = true;
    t.svm.set_gif(false);
    t.guest(code("f4", "hlt"));
    LEFT(t, ExitCode::NMI);
    CHECK(t.cpu.nmi_pending); // until the host's STGI
    CHECK(!t.svm.gif());
    t.memory.write_bytes(Physical{T::code_address}, "\x0F\x01\xDC\x90\xF4", 5); // STGI; NOP; HLT
    t.cpu.rip = t.cpu.next_rip = T::code_address;
    t.cpu.activity = Activity::active;
    t.run(100);
    CHECK(t.vector_reached() == 2);
}

TEST_CASE("INIT: intercepted it exits and stays pending [APM 2 15.13.4]") {
    T t;
    t.intercept(ExitCode::INIT);
    t.svm.set_gif(false);
    t.cpu.init_pending = true;
    t.guest(code("f4", "hlt"));
    LEFT(t, ExitCode::INIT);
    CHECK(t.cpu.init_pending);
}

TEST_CASE("Shutdown: intercepted it exits, else the processor shuts down [APM 2 15.14.3]") {
    for (const bool intercepted : {true, false}) {
        T t;
        t.set(VMCB::idtr_limit, 0);
        if (intercepted) t.intercept(ExitCode::SHUTDOWN);
        const RunEnd end = (t.memory.write_bytes(Physical{T::code_address}, "\x0F\x0B", 2), t.run_guest());
        if (intercepted) {
            LEFT(t, ExitCode::SHUTDOWN);
        } else {
            CHECK(end == RunEnd::shutdown);
        }
    }
}

TEST_CASE("Double fault: each exception is looked at before they are combined [APM 2 15.12]") {
    T t;
    t.set(VMCB::idtr_limit, 16 * 9 - 1); // #DF has a gate, #GP none
    t.intercept(ExitCode::EXCP0 + 8);
    t.guest(code("cd 80", "int 0x80"));
    LEFT(t, ExitCode::EXCP0 + 8);
}

TEST_CASE("EXITINTINFO: after the interrupted delivery of every kind of event [APM 2 15.7.2, 15.20]") {
    struct Kind {
        const char* what;
        void (*prepare)(T&);
        u64 expected;
    };
    static constexpr auto put = [](T& t, const char* text, u64 count) {
        t.memory.write_bytes(Physical{T::code_address}, text, count);
    };
    const Kind kinds[] = {
        {"INT n", [](T& t) { put(t, "\xCD\x50", 2); }, valid | type_software | 0x50},
        {"INT3", [](T& t) { put(t, "\xCC", 1); }, valid | type_exception | 3},
        {"INT1", [](T& t) { put(t, "\xF1", 1); }, valid | type_exception | 1},
        {"#UD", [](T& t) { put(t, "\x0F\x0B", 2); }, valid | type_exception | 6},
        {"#GP", [](T& t) { put(t, "\x0F\x32", 2), t.cpu.r[RCX] = 0x4000'0000; },
         valid | error_valid | type_exception | 13},
        {"single step", [](T& t) { put(t, "\x90", 1), t.set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::TF); },
         valid | type_exception | 1},
        {"virtual interrupt",
         [](T& t) {
             t.set(VMCB::interrupt_control, VMCB::INT::V_IRQ | VMCB::INT::V_IGN_TPR | u64{0x66} << 32);
             t.set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::IF);
         },
         valid | 0x66},
        {"physical interrupt",
         [](T& t) { t.interrupts.vector = 0x77, t.set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::IF); },
         valid | 0x77},
        {"NMI", [](T& t) { t.cpu.nmi_pending = true, t.svm.set_gif(false); }, valid | type_nmi | 2},
        {"injected interrupt", [](T& t) { t.set(VMCB::eventinj, valid | 0x41); }, valid | 0x41},
        {"injected NMI", [](T& t) { t.set(VMCB::eventinj, valid | type_nmi); }, valid | type_nmi | 2},
        {"injected exception",
         [](T& t) { t.set(VMCB::eventinj, valid | error_valid | type_exception | 14 | u64{0x15} << 32); },
         valid | error_valid | type_exception | 14 | u64{0x15} << 32},
        {"injected INT n", [](T& t) { t.set(VMCB::eventinj, valid | type_software | 0x51); },
         valid | type_software | 0x51},
    };
    for (const Kind& k : kinds) {
        CAPTURE(k.what);
        T t;
        t.use_npt();
        t.write(t.npt_entry_address(T::idt_address), 0);
        t.set(VMCB::nrip, T::code_address + 2);
        k.prepare(t);
        t.run_guest();
        LEFT(t, ExitCode::NPF);
        CHECK(t.get(VMCB::exitintinfo) == k.expected);
        CHECK((t.get(VMCB::eventinj) & valid) == 0);
        CHECK(t.get(VMCB::interrupt_shadow) == 0);
    }
}
