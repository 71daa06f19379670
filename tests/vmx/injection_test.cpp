// The preemption timer, the monitor trap flag, pending debug exceptions; event injection; priorities.
// SDM 3C 25.5, 26.5, 26.6.
#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;

constexpr u32 valid = u32{1} << 31;
constexpr u32 event(unsigned type, unsigned vector, bool error = false) {
    return valid | type << 8 | vector | (error ? 1u << 11 : 0);
}
void inject(T& t, unsigned type, unsigned vector) {
    t.set(F::vm_entry_interruption_information, event(type, vector));
}
u64 handler(unsigned vector) { return Harness::handler_address + 16 * vector; }
void interrupts_on(T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF); }
void virtual_nmis(T& t) {
    t.on(pin_based::nmi_exiting);
    t.on(pin_based::virtual_nmis);
}
/// An NMI that the host has not taken.
void pend_nmi(T& t) { t.cpu.nmi_pending = t.cpu.nmi_blocked = true; }

const Code cpuid = code("0f a2", "cpuid");

} // namespace

// ---- Timers and traps ---------------------------------------------------------------------------

TEST_CASE("VMX-preemption timer: counts TSC / 32, 0 expires before any instruction; its value is saved "
          "[SDM 3C 25.5.1, 26.6.4]") {
    T t;
    t.on(pin_based::activate_vmx_preemption_timer);
    t.on(vm_exit::save_vmx_preemption_timer_value);
    const Code spin = code("eb fe", "jmp 0x0000000000010000");
    SUBCASE("0") {
        t.set(F::vmx_preemption_timer_value, 0);
        t.guest(spin);
        EXITED(t, ExitReason::vmx_preemption_timer_expired);
        CHECK(t.guest_rip() == Harness::code_address);
    }
    SUBCASE("expiry, at a multiple of 32 ticks") {
        t.set(F::vmx_preemption_timer_value, 10);
        t.guest(spin);
        EXITED(t, ExitReason::vmx_preemption_timer_expired);
        CHECK(t.get(F::vmx_preemption_timer_value) == 0);
    }
    SUBCASE("what is left") {
        t.set(F::vmx_preemption_timer_value, 1000);
        t.cpu.r[RCX] = 3200;
        t.guest(code("ff c9 75 fc 0f a2", "")); // 6400 instructions: 200 counts
        EXITED(t, ExitReason::cpuid);
        const u64 left = t.get(F::vmx_preemption_timer_value);
        CHECK(left >= 799);
        CHECK(left <= 800);
    }
    SUBCASE("in HLT") {
        t.off(primary::hlt_exiting);
        t.set(F::vmx_preemption_timer_value, 10);
        t.guest(code("f4", "hlt"));
        CHECK(t.cpu.in_guest);
        CHECK(t.vmx.next_deadline(t.cpu) != never);
        for (int i = 0; i < 1000 && t.cpu.in_guest; ++i) {
            // Time passes while the processor is halted.
            const Tick now = t.cpu.now() + 1;
            t.cpu.run(now, now + 1);
        }
        CHECK(t.reason() == 52);
        CHECK(t.get(F::guest_activity_state) == 1);
    }
}

TEST_CASE("Monitor trap flag: after one instruction, after delivery of an event, after an iteration [SDM 3C "
          "25.5.2]") {
    T t;
    t.on(primary::monitor_trap_flag);
    SUBCASE("an instruction") {
        t.guest(code("90 90", "nop; nop"));
        CHECK(t.guest_rip() == Harness::code_address + 1);
    }
    SUBCASE("a branch") {
        t.guest(code("eb 10", "jmp 0x0000000000010012"));
        CHECK(t.guest_rip() == Harness::code_address + 0x12);
    }
    SUBCASE("a fault: behind its delivery") {
        t.guest(code("0f 0b", "ud2"));
        CHECK(t.guest_rip() == handler(6));
    }
    SUBCASE("injection: before the first instruction") {
        inject(t, 3, 6);
        t.guest(code("90", "nop"));
        CHECK(t.guest_rip() == handler(6));
    }
    SUBCASE("an iteration of a string instruction") {
        t.cpu.r[RCX] = 3;
        t.cpu.r[RDI] = Harness::data_address;
        t.guest(code("f3 aa", "rep stosb"));
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK(t.cpu.r[RCX] == 2);
    }
    SUBCASE("injected as a pending MTF exit, without the control") {
        t.off(primary::monitor_trap_flag);
        inject(t, 7, 0);
        t.guest(code("90", "nop"));
        CHECK(t.guest_rip() == Harness::code_address);
    }
    EXITED(t, ExitReason::monitor_trap_flag);
}

TEST_CASE(
    "MOV SS and single-stepping: pending debug exceptions are saved and come back [SDM 3C 26.6.3, 27.3.4]") {
    T t;
    t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::TF);
    t.set(F::guest_interruptibility_state, 2);
    t.set(F::guest_pending_debug_exceptions, DR6::BS);
    t.set(F::exception_bitmap, bit(1));
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    CHECK(t.get(F::guest_interruptibility_state) == 2);
    CHECK(t.get(F::guest_pending_debug_exceptions) == DR6::BS);
    CHECK(t.enter() == entered());
}

TEST_CASE(
    "Pending debug exceptions are delivered right after entry unless something is injected [SDM 3C 26.6.3]") {
    T t;
    t.set(F::guest_pending_debug_exceptions, bit(12) | DR6::B1);
    t.set(F::exception_bitmap, bit(1));
    SUBCASE("delivered") {
        t.guest(cpuid);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.qualification() == DR6::B1);
    }
    SUBCASE("not enabled: nothing") {
        t.set(F::guest_pending_debug_exceptions, DR6::B1);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("dropped by an injected fault") {
        inject(t, 3, 6);
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
    }
}

// ---- Injection ----------------------------------------------------------------------------------

TEST_CASE("Event injection: every type through the guest's IDT, with its return address [SDM 3C 26.5]") {
    const struct {
        unsigned type, vector;
        u64 length, returns_to;
        bool error;
    } cases[] = {
        {0, 0x40, 0, 0, false}, {2, 2, 0, 0, false}, {3, 6, 0, 0, false}, {3, 13, 0, 0, true},
        {4, 0x80, 2, 2, false}, {5, 1, 1, 1, false}, {6, 3, 1, 1, false}, {4, 0x80, 0, 0, false},
    };
    for (const auto& c : cases) {
        CAPTURE(c.type);
        CAPTURE(c.vector);
        T t;
        t.write(Harness::idt_address + 16 * 0x80 + 5, 0xEE, 1);
        interrupts_on(t);
        t.set(F::vm_entry_interruption_information, event(c.type, c.vector, c.error));
        t.set(F::vm_entry_exception_error_code, 0xABC);
        t.set(F::vm_entry_instruction_length, c.length);
        t.set(F::exception_bitmap, ~u64{0}); // says nothing about injected events
        t.cpu.control.cr2 = 0x7777;
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == handler(c.vector));
        CHECK(t.witness.entry.interruption_information == event(c.type, c.vector, c.error));
        const u64 rsp = t.get(F::guest_rsp);
        if (c.error) CHECK(t.read(rsp) == 0xABC);
        CHECK(t.read(rsp + (c.error ? 8 : 0)) == Harness::code_address + c.returns_to);
        CHECK((t.get(F::vm_entry_interruption_information) & valid) == 0);
        CHECK(t.vectoring() == 0);
    }
}

TEST_CASE("Event injection: virtual NMIs are blocked afterwards [SDM 3C 26.5.1.2]") {
    T t;
    virtual_nmis(t);
    inject(t, 2, 2);
    t.guest(cpuid);
    EXITED(t, ExitReason::hlt);
    CHECK(t.get(F::guest_interruptibility_state) == 8);
    CHECK(!t.cpu.nmi_blocked);
}

TEST_CASE("Event injection: gates' privilege counts for software interrupts only [SDM 3C 26.5.1.1]") {
    for (const unsigned type : {3u, 4u}) {
        T t;
        for (const Seg s : {Seg::CS, Seg::SS}) {
            const auto at = [&](F first) {
                return static_cast<F>(static_cast<unsigned>(first) + static_cast<unsigned>(s));
            };
            t.set(at(F::guest_es_selector), s == Seg::CS ? Harness::code64_3 : Harness::data_3);
            t.set(at(F::guest_es_access_rights), t.get(at(F::guest_es_access_rights)) | AR::DPL);
        }
        inject(t, type, 6);
        t.set(F::vm_entry_instruction_length, 2);
        t.set(F::exception_bitmap, bit(13));
        t.guest(cpuid);
        if (type == 3) {
            EXITED(t, ExitReason::hlt);
        } else {
            EXITED(t, ExitReason::exception_or_nmi);
            CHECK(t.interruption() == event(3, 13, true));
            CHECK(t.get(F::vm_exit_interruption_error_code) == 6 * 8 + 2);
            CHECK(t.vectoring() == event(4, 6));
            CHECK(t.length() == 2);
            CHECK(t.guest_rip() == Harness::code_address);
        }
    }
}

TEST_CASE("Event injection: an EPT violation of the delivery reports the event [SDM 3C 27.2.3]") {
    T t;
    t.use_ept();
    t.set_ept_entry(Harness::stack_top - 0x1000, 5 | 6 << 3 | (Harness::stack_top - 0x1000));
    interrupts_on(t);
    inject(t, 0, 0x40);
    t.guest(cpuid);
    EXITED(t, ExitReason::ept_violation);
    CHECK(t.vectoring() == event(0, 0x40));
    CHECK((t.qualification() & 0x1BF) == 0x1AA);
    CHECK(t.guest_rip() == Harness::code_address);
    t.set_ept_entry(Harness::stack_top - 0x1000, 7 | 6 << 3 | (Harness::stack_top - 0x1000));
    t.vmx.current()->write(F::vm_entry_interruption_information, event(0, 0x40), {});
    t.cpu.mmu.flush_second_level_all();
    t.run_guest();
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == handler(0x40));
}

TEST_CASE("Event injection in real mode goes through the vector table [SDM 3C 26.5]") {
    T t;
    t.guest_mode(Mode::real);
    inject(t, 3, 6);
    t.guest(code("90"));
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == 16 * 6);
    CHECK(t.get(F::guest_cs_selector) == Harness::handler_address / 16);
}

TEST_CASE("Event injection wakes a guest that was in HLT [SDM 3C 26.6.2]") {
    T t;
    interrupts_on(t);
    t.set(F::guest_activity_state, 1);
    inject(t, 0, 0x40);
    t.guest(cpuid);
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == handler(0x40));
    CHECK(t.get(F::guest_activity_state) == 0);
}

TEST_CASE("Priority: MTF before debug traps before the timer before windows and what they wait for "
          "[SDM 3C 26.6, SDM 3A 6.9]") {
    T t;
    virtual_nmis(t);
    interrupts_on(t);
    inject(t, 7, 0); // pending MTF
    t.set(F::guest_pending_debug_exceptions, bit(12) | DR6::B0);
    t.set(F::exception_bitmap, bit(1));
    t.on(pin_based::activate_vmx_preemption_timer);
    t.set(F::vmx_preemption_timer_value, 0);
    t.on(primary::nmi_window_exiting);
    t.on(primary::interrupt_window_exiting);
    t.on(pin_based::external_interrupt_exiting);
    t.interrupts.vector = 0x40;
    t.place_guest(cpuid);
    const auto next = [&] {
        pend_nmi(t);
        t.run_guest();
        t.cpu.nmi_pending = false;
        return t.reason();
    };
    CHECK(next() == 37);
    CHECK(t.get(F::guest_pending_debug_exceptions) == (bit(12) | DR6::B0)); // kept
    CHECK(next() == 0);
    CHECK(t.interruption() == event(3, 1));
    CHECK(next() == 52);
    t.off(pin_based::activate_vmx_preemption_timer);
    CHECK(next() == 8);
    t.off(primary::nmi_window_exiting);
    CHECK(next() == 0);
    CHECK(t.interruption() == event(2, 2));
    t.run_guest();
    CHECK(t.reason() == 7);
    t.off(primary::interrupt_window_exiting);
    t.run_guest();
    CHECK(t.reason() == 1);
}
