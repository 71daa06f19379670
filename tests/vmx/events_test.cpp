// Exceptions, interrupts, NMIs and their windows that leave a guest. SDM 3C 25.2, 27.2.
#include "tests/support/vmx_harness.hpp"

#include "vmx/exit_qualification.hpp"

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
u64 handler(unsigned vector) { return Harness::handler_address + 16 * vector; }
void interrupts_on(T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF); }
void virtual_nmis(T& t) {
    t.on(pin_based::nmi_exiting);
    t.on(pin_based::virtual_nmis);
}
/// An NMI that the host has not taken.
void pend_nmi(T& t) { t.cpu.nmi_pending = t.cpu.nmi_blocked = true; }
void not_present_idt(T& t, unsigned vector) { t.write(Harness::idt_address + 16 * vector + 5, 0x0E, 1); }

const Code cpuid = code("0f a2", "cpuid");

} // namespace

// ---- Exceptions ---------------------------------------------------------------------------------

TEST_CASE("Exception bitmap: #UD exits or goes to the guest's handler [SDM 3C 25.2]") {
    T t;
    const Code ud2 = code("0f 0b", "ud2");
    SUBCASE("exits") {
        t.set(F::exception_bitmap, bit(6));
        t.guest(ud2);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.interruption() == event(3, 6));
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
        CHECK(t.vectoring() == 0);
        CHECK(t.length() == 0);
    }
    SUBCASE("does not") {
        t.set(F::exception_bitmap, ~bit(6));
        t.guest(ud2);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == handler(6));
    }
}

TEST_CASE("Page faults: mask and match turn the bitmap's bit 14 around; CR2 stays [SDM 3C 25.2, 27.1]") {
    const auto exits = [](bool bit14, u32 mask, u32 match) {
        T t;
        t.set(F::exception_bitmap, bit14 ? bit(14) : 0);
        t.set(F::page_fault_error_code_mask, mask);
        t.set(F::page_fault_error_code_match, match);
        t.cpu.control.cr2 = 0x5555;
        t.cpu.r[RBX] = u64{0x40'0000'1234};
        t.guest(code("c6 03 00", "mov byte ptr [rbx], 0x00")); // not present, write: error code 2
        REQUIRE(t.in_host());
        if (t.reason() != 0) {
            CHECK(t.cpu.control.cr2 == 0x40'0000'1234);
            return false;
        }
        CHECK(t.interruption() == event(3, 14, true));
        CHECK(t.get(F::vm_exit_interruption_error_code) == 2);
        CHECK(t.qualification() == 0x40'0000'1234);
        CHECK(t.cpu.control.cr2 == 0x5555);
        return true;
    };
    CHECK(exits(true, 0, 0));
    CHECK(!exits(false, 0, 0));
    CHECK(exits(true, 3, 2));
    CHECK(!exits(true, 3, 3));
    CHECK(exits(false, 3, 3));
    CHECK(!exits(false, 2, 2));
}

TEST_CASE(
    "Software exceptions: type 6 for INT3, 5 for INT1, with their length; INT n never [SDM 3C 27.2.2]") {
    T t;
    t.set(F::exception_bitmap, ~u64{0});
    SUBCASE("INT3") {
        t.guest(code("cc", "int3"));
        CHECK(t.interruption() == event(6, 3));
        CHECK(t.length() == 1);
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) == 0);
    }
    SUBCASE("INT1") {
        t.guest(code("f1", "int1"));
        CHECK(t.interruption() == event(5, 1));
        CHECK(t.length() == 1);
        CHECK(t.qualification() == 0);
    }
    SUBCASE("INT 6") {
        t.guest(code("cd 06", "int 0x06"));
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == handler(6));
    }
}

TEST_CASE("Debug exceptions: qualification; DR6 is left alone [SDM 3C Table 27-1, 27.1]") {
    T t;
    t.set(F::exception_bitmap, bit(1));
    SUBCASE("single step") {
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::TF);
        t.guest(code("90 90", "nop; nop"));
        CHECK(t.qualification() == DR6::BS);
        CHECK(t.guest_rip() == Harness::code_address + 1);
    }
    SUBCASE("instruction breakpoint") {
        t.cpu.dr[2] = Harness::code_address + 1;
        t.set(F::guest_dr7, DR7::fixed1 | 1 << 5);
        t.on(vm_entry::load_debug_controls);
        t.guest(code("90 90", "nop; nop"));
        CHECK(t.qualification() == DR6::B2);
        CHECK(t.guest_rip() == Harness::code_address + 1);
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) == 0);
    }
    SUBCASE("data breakpoint: a trap") {
        t.cpu.dr[0] = Harness::data_address;
        t.set(F::guest_dr7, DR7::fixed1 | 2 | 1 << 16);
        t.on(vm_entry::load_debug_controls);
        t.cpu.r[RBX] = Harness::data_address;
        t.guest(code("c6 03 00 90", "mov byte ptr [rbx], 0x00; nop"));
        CHECK(t.qualification() == DR6::B0);
        CHECK(t.guest_rip() == Harness::code_address + 3);
    }
    SUBCASE("general detect: a fault") {
        t.set(F::guest_dr7, DR7::fixed1 | DR7::GD);
        t.on(vm_entry::load_debug_controls);
        t.guest(code("0f 21 c0", "mov rax, dr0"));
        CHECK(t.qualification() == DR6::BD);
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
    }
    EXITED(t, ExitReason::exception_or_nmi);
    CHECK(t.interruption() == event(3, 1));
    CHECK(t.cpu.dr6 == DR6::fixed1);
    CHECK(t.cpu.dr7 == DR7::fixed1); // the host's
}

TEST_CASE("A fault while an event is delivered: IDT-vectoring information [SDM 3C 27.2.3]") {
    T t;
    SUBCASE("#NP of the gate of #UD: the exception bitmap sees it first") {
        not_present_idt(t, 6);
        t.set(F::exception_bitmap, bit(11));
        t.guest(code("0f 0b", "ud2"));
        CHECK(t.interruption() == event(3, 11, true));
        CHECK(t.get(F::vm_exit_interruption_error_code) == 6 * 8 + 2 + 1);
        CHECK(t.vectoring() == event(3, 6));
        CHECK(t.length() == 0);
    }
    SUBCASE("of INT n: the instruction's length") {
        not_present_idt(t, 0x30);
        t.write(Harness::idt_address + 16 * 0x30 + 5, 0x6E, 1);
        t.set(F::exception_bitmap, bit(11));
        t.guest(code("cd 30", "int 0x30"));
        CHECK(t.interruption() == event(3, 11, true));
        CHECK(t.vectoring() == event(4, 0x30));
        CHECK(t.length() == 2);
        CHECK(t.guest_rip() == Harness::code_address);
    }
}

TEST_CASE("Double and triple faults [SDM 3C 25.2, 27.2]") {
    T t;
    not_present_idt(t, 13);
    t.cpu.r[RBX] = u64{1} << 60;
    const Code gp = code("c6 03 00", "mov byte ptr [rbx], 0x00"); // #GP, then #NP: double fault
    SUBCASE("#DF exits for itself") {
        t.set(F::exception_bitmap, bit(8));
        t.guest(gp);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.interruption() == event(3, 8, true));
        CHECK(t.vectoring() == 0);
    }
    SUBCASE("a fault of its delivery is a triple fault") {
        not_present_idt(t, 8);
        t.guest(gp);
        EXITED(t, ExitReason::triple_fault);
        CHECK(t.vectoring() == 0);
        CHECK(t.guest_rip() == Harness::code_address);
    }
}

TEST_CASE("Task switches exit: source, selector, length [SDM 3C Table 27-2]") {
    T t;
    t.guest_mode(Mode::protected32);
    t.write(Harness::gdt_address + 0x60, descriptor(0x9000, 0x67, AR::P | SystemType::tss_available));
    SUBCASE("JMP") {
        t.guest(code("ea 00 00 00 00 60 00", ""));
        EXITED(t, ExitReason::task_switch);
        CHECK(t.qualification() == (0x60 | u64{2} << 30));
        CHECK(t.length() == 7);
        CHECK(t.vectoring() == 0);
    }
    SUBCASE("a task gate in the IDT") {
        t.write(Harness::idt_address + 8 * 6, u64{0x60} << 16 | u64{0x8500} << 32);
        t.guest(code("0f 0b", "ud2"));
        EXITED(t, ExitReason::task_switch);
        CHECK(t.qualification() == (0x60 | u64{3} << 30));
        CHECK(t.length() == 0);
        CHECK(t.vectoring() == event(3, 6));
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
    }
}

// ---- Interrupts, NMIs, windows ------------------------------------------------------------------

TEST_CASE("External interrupts: exit whatever IF is; acknowledged only if asked for [SDM 3C 25.2, 27.2.2]") {
    T t;
    t.on(pin_based::external_interrupt_exiting);
    t.interrupts.vector = 0x55;
    SUBCASE("left pending") {
        t.guest(cpuid);
        EXITED(t, ExitReason::external_interrupt);
        CHECK(t.interruption() == 0);
        CHECK(t.interrupts.vector == 0x55);
    }
    SUBCASE("acknowledged") {
        t.on(vm_exit::acknowledge_interrupt_on_exit);
        t.guest(cpuid);
        EXITED(t, ExitReason::external_interrupt);
        CHECK(t.interruption() == event(0, 0x55));
        CHECK(t.interrupts.vector == -1);
    }
    SUBCASE("without the control it is the guest's, when IF is 1") {
        t.off(pin_based::external_interrupt_exiting);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
        interrupts_on(t);
        t.run_guest();
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == handler(0x55));
    }
    SUBCASE("from HLT: the activity state is saved") {
        t.interrupts.vector = -1;
        t.off(primary::hlt_exiting);
        t.guest(code("f4 0f a2", "hlt; cpuid"));
        CHECK(t.cpu.in_guest);
        t.interrupts.vector = 0x55;
        t.run_guest();
        EXITED(t, ExitReason::external_interrupt);
        CHECK(t.get(F::guest_activity_state) == 1);
        CHECK(t.guest_rip() == Harness::code_address + 1);
        CHECK(t.cpu.activity == Activity::hlt); // the host's own HLT
    }
}

TEST_CASE("NMIs: exit with NMI exiting, and block NMIs for the host [SDM 3C 25.2, 27.5.5]") {
    T t;
    pend_nmi(t);
    t.set(F::guest_interruptibility_state, 8); // blocked until the VMM says otherwise
    SUBCASE("NMI exiting, blocked by the guest's own blocking") {
        t.on(pin_based::nmi_exiting);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.cpu.nmi_pending);
        CHECK(t.get(F::guest_interruptibility_state) == 8);
        CHECK(t.cpu.nmi_blocked);
    }
    SUBCASE("with virtual NMIs that blocking is virtual") {
        virtual_nmis(t);
        t.guest(cpuid);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.interruption() == event(2, 2));
        CHECK(t.get(F::guest_interruptibility_state) == 8);
        CHECK(t.cpu.nmi_blocked);
    }
    SUBCASE("not blocked") {
        t.set(F::guest_interruptibility_state, 0);
        t.on(pin_based::nmi_exiting);
        t.guest(cpuid);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.interruption() == event(2, 2));
        CHECK(t.get(F::guest_interruptibility_state) == 0);
    }
    SUBCASE("without NMI exiting it is the guest's") {
        t.set(F::guest_interruptibility_state, 0);
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == handler(2));
        CHECK(t.get(F::guest_interruptibility_state) == 8);
    }
}

TEST_CASE("Interrupt window: IF = 1, no STI or MOV SS blocking; wakes HLT [SDM 3C 25.2]") {
    T t;
    t.on(primary::interrupt_window_exiting);
    SUBCASE("at once") {
        interrupts_on(t);
        t.guest(cpuid);
        CHECK(t.guest_rip() == Harness::code_address);
    }
    SUBCASE("behind the instruction after STI") {
        t.guest(code("90 fb 90 90", "nop; sti; nop; nop"));
        CHECK(t.guest_rip() == Harness::code_address + 3);
    }
    SUBCASE("in HLT") {
        t.off(primary::hlt_exiting);
        t.guest(code("fb f4 90", "sti; hlt; nop"));
        CHECK(t.guest_rip() == Harness::code_address + 2);
        CHECK(t.get(F::guest_activity_state) == 1);
    }
    EXITED(t, ExitReason::interrupt_window);
}

TEST_CASE("NMI window: no virtual-NMI blocking; IRET opens it [SDM 3C 25.2, 25.3]") {
    T t;
    virtual_nmis(t);
    t.on(primary::nmi_window_exiting);
    SUBCASE("at once") {
        t.guest(cpuid);
        EXITED(t, ExitReason::nmi_window);
        CHECK(t.guest_rip() == Harness::code_address);
    }
    SUBCASE("blocked") {
        t.set(F::guest_interruptibility_state, 8);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("after IRET") {
        t.set(F::guest_interruptibility_state, 8);
        t.set(F::guest_rsp, Harness::stack_top - 40);
        const u64 frame[] = {Harness::code_address + 0x20, Harness::code64_0, 2, Harness::stack_top,
                             Harness::data_0};
        for (unsigned i = 0; i < 5; ++i) t.write(Harness::stack_top - 40 + 8 * i, frame[i]);
        t.guest(code("48 cf", "iretq"));
        EXITED(t, ExitReason::nmi_window);
        CHECK(t.guest_rip() == Harness::code_address + 0x20);
        CHECK(t.get(F::guest_interruptibility_state) == 0);
    }
}

TEST_CASE("NMI unblocking due to IRET: bit 12, and the blocking is gone [SDM 3C 27.2.2, 27.2.3]") {
    T t;
    virtual_nmis(t);
    t.set(F::guest_interruptibility_state, 8);
    SUBCASE("a fault of the IRET") {
        t.set(F::exception_bitmap, bit(14));
        t.set(F::guest_rsp, u64{0x40'0000'0000});
        t.guest(code("48 cf", "iretq"));
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.interruption() == (event(3, 14, true) | nmi_unblocking_due_to_iret));
    }
    SUBCASE("an EPT violation of the IRET") {
        t.use_ept();
        t.set_ept_entry(Harness::stack_top - 0x1000, 0);
        t.set(F::guest_rsp, Harness::stack_top - 0x800);
        t.guest(code("48 cf", "iretq"));
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & bit(12)) != 0);
    }
    CHECK(t.get(F::guest_interruptibility_state) == 0);
}

TEST_CASE("INIT and SIPI [SDM 3C 25.2]") {
    T t;
    SUBCASE("INIT exits") {
        t.cpu.init_pending = true;
        t.guest(cpuid);
        EXITED(t, ExitReason::init_signal);
        CHECK(!t.cpu.init_pending);
    }
    SUBCASE("in wait-for-SIPI only a SIPI does") {
        t.set(F::guest_activity_state, 3);
        t.on(pin_based::external_interrupt_exiting);
        t.interrupts.vector = 0x40;
        pend_nmi(t);
        t.cpu.init_pending = true;
        t.on(pin_based::nmi_exiting);
        t.guest(cpuid);
        CHECK(t.cpu.in_guest);
        t.cpu.signals().sipi(0x9F);
        t.run_guest(); // the NMI is the host's now
        CHECK(t.reason() == 4);
        CHECK(t.qualification() == 0x9F);
        CHECK(t.get(F::guest_activity_state) == 3);
    }
    SUBCASE("a SIPI is lost elsewhere") {
        t.cpu.sipi_pending = true;
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
}
