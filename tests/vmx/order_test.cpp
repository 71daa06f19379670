// What is saved by exits that an event causes itself, and by exits of its delivery: SDM 3C 27.1
// "Architectural State Before a VM Exit", 27.2.3 "Information for VM Exits During Event Delivery", 27.3.4;
// and which event comes first.
#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;
using Change = void (*)(T&);
void nothing(T&) {}

constexpr u32 valid = u32{1} << 31, with_error = u32{1} << 11;
constexpr u64 stack = Harness::stack_top - 0x800;

struct Delivery {
    const char* what;
    const char* bytes;
    const char* text;
    Change prepare;
    u32 vectoring, error, length;
};

const Delivery deliveries[] = {
    {"external interrupt", "90", "nop",
     [](T& t) {
         t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF);
         t.interrupts.vector = 0x41;
     },
     valid | 0x41, 0, 0},
    {"NMI", "90", "nop", [](T& t) { t.cpu.nmi_pending = t.cpu.nmi_blocked = true; }, valid | 2 << 8 | 2, 0,
     0},
    {"hardware exception", "0f 0b", "ud2", nothing, valid | 3 << 8 | 6, 0, 0},
    {"hardware exception with an error code", "8e d8", "mov ds, ax", [](T& t) { t.cpu.r[RAX] = 0xFFF8; },
     valid | with_error | 3 << 8 | 13, 0xFFF8, 0},
    {"page fault", "8a 03", "mov al, [rbx]", [](T& t) { t.cpu.r[RBX] = u64{1} << 40; },
     valid | with_error | 3 << 8 | 14, 0, 0},
    {"software interrupt", "cd 40", "int 0x40", nothing, valid | 4 << 8 | 0x40, 0, 2},
    {"INT1", "f1", "int1", nothing, valid | 5 << 8 | 1, 0, 1},
    {"INT3", "cc", "int3", nothing, valid | 6 << 8 | 3, 0, 1},
};

} // namespace

TEST_CASE(
    "IDT-vectoring information: every kind of event whose delivery exits [SDM 3C 27.2.3, Table 24-16]") {
    for (const Delivery& d : deliveries) {
        const std::string what = d.what;
        CAPTURE(what);
        T t;
        t.use_ept();
        t.set_ept_entry(stack & ~u64{0xFFF}, 0);
        t.set(F::guest_rsp, stack);
        d.prepare(t);
        t.guest(code(d.bytes, d.text));
        EXITED(t, ExitReason::ept_violation);
        CHECK(t.vectoring() == d.vectoring);
        CHECK(t.get(F::idt_vectoring_error_code) == d.error);
        CHECK(t.length() == d.length);
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK(t.interruption() == 0);
        // The NMI was taken before its delivery met the violation; the page fault has left CR2.
        CHECK(t.get(F::guest_interruptibility_state) == (d.vectoring == (valid | 2 << 8 | 2) ? 8 : 0));
        if ((d.vectoring & 0xFF) == 14) CHECK(t.cpu.control.cr2 == u64{1} << 40);
    }
}

TEST_CASE("IDT-vectoring information: every kind of injected event whose delivery exits [SDM 3C 27.2.3]") {
    const struct {
        u32 event, error, length;
    } events[] = {{valid | 0x41, 0, 0},          {valid | 2 << 8 | 2, 0, 0},
                  {valid | 3 << 8 | 6, 0, 0},    {valid | with_error | 3 << 8 | 13, 0x50, 0},
                  {valid | 4 << 8 | 0x40, 0, 2}, {valid | 5 << 8 | 1, 0, 1},
                  {valid | 6 << 8 | 3, 0, 1}};
    for (const auto& e : events) {
        CAPTURE(e.event);
        T t;
        t.use_ept();
        t.set_ept_entry(stack & ~u64{0xFFF}, 0);
        t.set(F::guest_rsp, stack);
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF);
        t.set(F::vm_entry_interruption_information, e.event);
        t.set(F::vm_entry_exception_error_code, e.error);
        t.set(F::vm_entry_instruction_length, e.length);
        t.guest(code("90", "nop"));
        EXITED(t, ExitReason::ept_violation);
        CHECK(t.vectoring() == e.event);
        CHECK(t.get(F::idt_vectoring_error_code) == e.error);
        CHECK(t.length() == e.length);
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK(t.get(F::vm_entry_interruption_information) == (e.event & ~valid));
    }
}

TEST_CASE(
    "#DB that exits itself: the activity state and the blocking are those before it [SDM 3C 27.1, 27.3.4]") {
    T t;
    t.set(F::exception_bitmap, bit(1));
    t.off(primary::hlt_exiting);
    SUBCASE("out of HLT") {
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::TF);
        t.guest(code("f4", "hlt"));
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.get(F::guest_activity_state) == 1);
        CHECK(t.guest_rip() == Harness::code_address + 1);
        CHECK(t.get(F::guest_pending_debug_exceptions) == DR6::BS); // what VM entry asks for (26.3.1.5)
    }
    SUBCASE("after STI") {
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::TF);
        t.guest(code("fb 90", "sti; nop"));
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.get(F::guest_interruptibility_state) == 1);
        CHECK(t.guest_rip() == Harness::code_address + 1);
    }
    CHECK(t.interruption() == (valid | 3 << 8 | 1));
    CHECK((t.qualification() & DR6::BS) != 0);
    CHECK(t.enter() == entered()); // what was saved can be entered again
}

TEST_CASE("Delivery ends HLT and the blocking by STI: an exit of the delivery saves neither [SDM 3C 27.1]") {
    T t;
    t.use_ept();
    t.off(primary::hlt_exiting);
    t.set(F::guest_activity_state, 1);
    t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF);
    t.set_ept_entry(stack & ~u64{0xFFF}, 0);
    t.set(F::guest_rsp, stack);
    t.interrupts.vector = 0x41;
    t.guest(code("90", "nop"));
    EXITED(t, ExitReason::ept_violation);
    CHECK(t.get(F::guest_activity_state) == 0);
}

TEST_CASE("Monitor trap flag: time that a halted guest waits is no instruction [SDM 3C 25.5.2]") {
    T t;
    t.on(primary::monitor_trap_flag);
    t.on(pin_based::external_interrupt_exiting);
    t.set(F::guest_activity_state, 1);
    t.place_guest(code("90", "nop"));
    t.run_guest();
    REQUIRE(t.cpu.in_guest);
    t.interrupts.vector = 0x40;
    t.cpu.run(t.cpu.now() + 500, t.cpu.now() + 1000);
    EXITED(t, ExitReason::external_interrupt);
}

TEST_CASE("Priority: INIT before a pending MTF VM exit, which is then still pending nowhere [SDM 3C 26.6.8, "
          "25.2]") {
    T t;
    t.set(F::vm_entry_interruption_information, valid | 7 << 8);
    t.cpu.init_pending = true;
    t.guest(code("0f a2", "cpuid"));
    EXITED(t, ExitReason::init_signal);
    t.run_guest();
    EXITED(t, ExitReason::cpuid);
}

namespace {

/// A program at CPL 3 whose #AC is handled at CPL 3, on its own misaligned stack: delivery meets #AC, and so
/// on.
void endless_delivery(T& t) {
    constexpr u64 idt = 0x9000;
    t.guest_mode(Mode::protected32);
    t.set(F::guest_cr0, t.get(F::guest_cr0) | CR0::AM);
    t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::AC);
    for (const Seg s : {Seg::CS, Seg::SS, Seg::DS, Seg::ES, Seg::FS, Seg::GS}) {
        const auto at = [&](F first) {
            return static_cast<F>(static_cast<unsigned>(first) + static_cast<unsigned>(s));
        };
        t.set(at(F::guest_es_selector), s == Seg::CS ? Harness::code32_3 : Harness::data_3);
        t.set(at(F::guest_es_access_rights), t.get(at(F::guest_es_access_rights)) | AR::DPL);
    }
    t.set(F::guest_rsp, Harness::stack_top - 1);
    t.set(F::guest_idtr_base, idt);
    t.write(idt + 8 * 17, (Harness::handler_address & 0xFFFF) | u64{Harness::code32_3} << 16 |
                              u64{0xEE00} << 32 | (Harness::handler_address >> 16) << 48);
    t.place_guest(code("50", "push eax"));
}

} // namespace

TEST_CASE(
    "Instruction timeout: an exception whose delivery causes itself leaves no interrupt window; exit 75") {
    T t;
    endless_delivery(t);
    t.on(secondary::instruction_timeout);
    t.run_guest();
    EXITED(t, ExitReason::instruction_timeout);
    CHECK(t.qualification() == 0); // the VM context is valid
    CHECK(t.vectoring() == (valid | with_error | 3 << 8 | 17));
    CHECK(t.guest_rip() == Harness::code_address);
    T without;
    endless_delivery(without);
    CHECK(without.run_guest() == RunEnd::unmodelled); // as good as hung, and told
}

TEST_CASE("Activity states: what each blocks [SDM 3C 26.6.2, 25.2]") {
    const auto reason_of = [](u64 state, Change change) {
        T t;
        t.set(F::guest_activity_state, state);
        t.on(pin_based::nmi_exiting);
        t.on(pin_based::virtual_nmis);
        t.on(pin_based::external_interrupt_exiting);
        if (change) change(t);
        t.place_guest(code("0f a2", "cpuid"));
        t.run_guest(1000);
        if (t.cpu.in_guest && change == nullptr) {
            t.cpu.signals().sipi(0x12);
            t.run_guest(1000);
        }
        return t.in_host() ? static_cast<int>(t.reason()) : -1;
    };
    const Change external = [](T& t) { t.interrupts.vector = 0x40; };
    const Change nmi = [](T& t) { t.cpu.nmi_pending = t.cpu.nmi_blocked = true; };
    const Change timer = [](T& t) {
        t.on(pin_based::activate_vmx_preemption_timer);
        t.set(F::vmx_preemption_timer_value, 0);
    };
    const Change nmi_window = [](T& t) { t.on(primary::nmi_window_exiting); };
    const Change interrupt_window = [](T& t) {
        t.on(primary::interrupt_window_exiting);
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF);
    };
    const Change init = [](T& t) { t.cpu.init_pending = true; };
    const Change sipi = nullptr; // comes while the guest runs
    const struct {
        Change change;
        int hlt, shutdown, wait_for_sipi;
    } rows[] = {{external, 1, -1, -1},         {nmi, 0, 0, -1},  {timer, 52, 52, -1}, {nmi_window, 8, 8, -1},
                {interrupt_window, 7, -1, -1}, {init, 3, 3, -1}, {sipi, -1, -1, 4}};
    for (const auto& row : rows) {
        CAPTURE(&row - rows);
        CHECK(reason_of(1, row.change) == row.hlt);
        CHECK(reason_of(2, row.change) == row.shutdown);
        CHECK(reason_of(3, row.change) == row.wait_for_sipi);
    }
}
