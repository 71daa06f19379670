// APIC virtualization: TPR shadow, virtual interrupts, the x2APIC MSRs. SDM 3C 29.1 to 29.3, 29.5.
// The APIC-access page has its own file, and so have posted interrupts.
#include "cpu/msrs.hpp"
#include "tests/support/notes.hpp"
#include "tests/vmx/virtual_apic_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;
using Reg = VirtualApic::Register;

namespace {

using F = VmcsField;
using A = VirtualApicHarness;

const Code cpuid = code("0f a2", "cpuid");
const Code wrmsr = code("0f 30 0f a2", "wrmsr; cpuid"), rdmsr = code("0f 32 0f a2", "rdmsr; cpuid");

/// WRMSR in a guest with "virtualize x2APIC mode".
void write_msr(A& t, u32 index, u64 value) {
    t.cpu.r[RCX] = index;
    t.cpu.r[RAX] = low32(value);
    t.cpu.r[RDX] = high32(value);
    t.guest_again(wrmsr);
}

} // namespace

// ---- TPR virtualization ---------------------------------------------------------------------------------

TEST_CASE("TPR below threshold: with APIC accesses virtualized VM entry exits at once [SDM 3C 26.6.7]") {
    A t;
    t.virtualize_accesses();
    t.set_reg(Reg::TPR, 0x4F);
    t.place_guest(cpuid);
    SUBCASE("not at the threshold") {
        t.set(F::tpr_threshold, 4);
        t.run_guest();
        EXITED(t, ExitReason::cpuid);
    }
    t.set(F::tpr_threshold, 5);
    SUBCASE("below it, before the first instruction") {
        t.run_guest();
        EXITED(t, ExitReason::tpr_below_threshold);
        CHECK(t.qualification() == 0);
        CHECK(t.guest_rip() == Harness::code_address);
    }
    SUBCASE("after the injected event") {
        t.set(F::vm_entry_interruption_information, u64{1} << 31 | 0x40);
        t.interrupts_on();
        t.run_guest();
        EXITED(t, ExitReason::tpr_below_threshold);
        CHECK(t.guest_rip() == t.handler(0x40));
        CHECK(t.vectoring() == 0);
    }
    SUBCASE("also from HLT, which it ends") {
        t.set(F::guest_activity_state, 1);
        t.run_guest();
        EXITED(t, ExitReason::tpr_below_threshold);
        CHECK(t.get(F::guest_activity_state) == 1);
    }
    SUBCASE("above the monitor trap flag") {
        t.set(F::vm_entry_interruption_information, u64{1} << 31 | 7 << 8);
        t.run_guest();
        EXITED(t, ExitReason::tpr_below_threshold);
    }
    SUBCASE("not in the shutdown state") {
        t.set(F::guest_activity_state, 2);
        CHECK(t.run_guest() == RunEnd::halted);
        CHECK(t.cpu.in_guest);
    }
}

TEST_CASE("TPR threshold: without meaning under virtual-interrupt delivery [SDM 3C 24.6.8]") {
    A t;
    t.deliver_virtual_interrupts();
    t.set(F::tpr_threshold, 0xFFFF'FFFF);
    t.guest(code("45 31 c0 45 0f 22 c0 0f a2", "xor r8d, r8d; mov cr8, r8; cpuid"));
    EXITED(t, ExitReason::cpuid);
}

// ---- PPR virtualization ---------------------------------------------------------------------------------

TEST_CASE("PPR virtualization at VM entry: VTPR or the class of SVI [SDM 3C 26.3.2.5, 29.1.3]") {
    struct {
        u8 tpr, svi, ppr;
    } const rows[] = {{0x2F, 0x20, 0x2F}, {0x10, 0x2F, 0x20}, {0x30, 0x00, 0x30}, {0x00, 0x51, 0x50}};
    for (const auto& row : rows) {
        A t;
        t.deliver_virtual_interrupts();
        t.set_reg(Reg::TPR, row.tpr);
        t.set_reg(Reg::PPR, 0xFFFF'FFFF);
        t.set_status(0, row.svi);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.reg(Reg::PPR) == row.ppr);
        CHECK(t.status() == row.svi << 8);
    }
}

// ---- Pending virtual interrupts and their delivery ------------------------------------------------------

TEST_CASE("Virtual-interrupt delivery: VIRR to VISR, SVI, VPPR, RVI, and through the IDT [SDM 3C 29.2.2]") {
    A t;
    t.deliver_virtual_interrupts();
    t.interrupts_on();
    t.request(0x41);
    t.request(0x36);
    t.set_status(0x41, 0);
    t.guest(cpuid);
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == t.handler(0x41));
    CHECK(t.in_service(0x41));
    CHECK_FALSE(t.requested(0x41));
    CHECK(t.requested(0x36));
    CHECK(t.reg(Reg::PPR) == 0x40);
    CHECK(t.status() == 0x4136); // SVI, RVI
    CHECK(t.interrupts.eois == 0);
}

TEST_CASE("Virtual interrupts: recognized only above VPPR's class [SDM 3C 29.2.1]") {
    const auto delivered = [](u8 rvi, u8 tpr, u8 svi) {
        A t;
        t.deliver_virtual_interrupts();
        t.interrupts_on();
        t.request(rvi);
        t.set_reg(Reg::TPR, tpr);
        t.set_status(rvi, svi);
        t.guest(cpuid);
        REQUIRE(t.in_host());
        return t.reason() == static_cast<u32>(ExitReason::hlt);
    };
    CHECK_FALSE(delivered(0x31, 0x30, 0));
    CHECK_FALSE(delivered(0x3F, 0, 0x31));
    CHECK(delivered(0x40, 0x3F, 0x31));
    CHECK_FALSE(delivered(0x0F, 0, 0));
    CHECK(delivered(0x10, 0, 0));
}

TEST_CASE("Virtual interrupts: RFLAGS.IF, STI and MOV SS hold them back [SDM 3C 29.2.2]") {
    A t;
    t.deliver_virtual_interrupts();
    t.request(0x41);
    t.set_status(0x41, 0);
    SUBCASE("IF = 0") {
        t.guest(code("90 0f a2", "nop; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.status() == 0x0041);
    }
    SUBCASE("the instruction after STI comes first") {
        t.guest(code("fb ff c0 0f a2", "sti; inc eax; cpuid"));
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x41));
        CHECK(low32(t.cpu.r[RAX]) == 1);
    }
    SUBCASE("at VM entry with blocking by MOV SS") {
        t.interrupts_on();
        t.set(F::guest_interruptibility_state, 2);
        t.guest(code("ff c0 0f a2", "inc eax; cpuid"));
        EXITED(t, ExitReason::hlt);
        CHECK(low32(t.cpu.r[RAX]) == 1);
    }
}

TEST_CASE("Virtual interrupts: interrupt-window exiting comes instead [SDM 3C 29.2.1]") {
    A t;
    t.deliver_virtual_interrupts();
    t.on(primary::interrupt_window_exiting);
    t.interrupts_on();
    t.request(0x41);
    t.set_status(0x41, 0);
    t.guest(cpuid);
    EXITED(t, ExitReason::interrupt_window);
    CHECK(t.status() == 0x0041);
}

TEST_CASE(
    "Virtual interrupts: they end HLT, come before external interrupts and after NMIs [SDM 3C 29.2.2]") {
    A t;
    t.deliver_virtual_interrupts();
    t.interrupts_on();
    t.request(0x41);
    t.set_status(0x41, 0);
    SUBCASE("HLT") {
        t.set(F::guest_activity_state, 1);
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x41));
    }
    SUBCASE("HLT with IF = 0") {
        t.set(F::guest_rflags, RFLAGS::FIXED1);
        t.set(F::guest_activity_state, 1);
        t.place_guest(cpuid);
        CHECK(t.run_guest() == RunEnd::halted);
        CHECK(t.cpu.in_guest);
    }
    SUBCASE("an external interrupt exits before the first instruction of the handler") {
        t.interrupts.vector = 0x55;
        t.guest(cpuid);
        EXITED(t, ExitReason::external_interrupt);
        CHECK(t.guest_rip() == t.handler(0x41));
    }
    SUBCASE("an NMI goes first") {
        t.cpu.nmi_pending = t.cpu.nmi_blocked = true;
        t.on(pin_based::nmi_exiting);
        t.on(pin_based::virtual_nmis);
        t.guest(cpuid);
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.status() == 0x0041);
    }
    SUBCASE("after the injected event, whose handler has interrupts off") {
        t.set(F::vm_entry_interruption_information, u64{1} << 31 | 0x30);
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x30));
        CHECK(t.status() == 0x0041);
    }
}

TEST_CASE("Virtual interrupts: MWAIT with ECX[0] ends even while they are masked [SDM 3C 29.2.2]") {
    A t;
    t.deliver_virtual_interrupts();
    t.request(0x41);
    t.set_status(0x41, 0);
    t.cpu.misc_enable |= MiscEnable::MONITOR;
    t.cpu.r[RAX] = Harness::data_address;
    const Code waits = code("0f 01 c8 ff c1 0f 01 c9 0f a2", "monitor; inc ecx; mwait; cpuid");
    SUBCASE("with a recognized one") {
        t.guest(waits);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("without") {
        t.set_reg(Reg::TPR, 0x40);
        t.place_guest(waits);
        CHECK(t.run_guest() == RunEnd::halted);
    }
}

TEST_CASE(
    "Virtual interrupts: an exit during delivery leaves the state of the delivery [SDM 3C 29.2.2, 27.2.3]") {
    A t;
    t.deliver_virtual_interrupts();
    t.interrupts_on();
    t.request(0x41);
    t.set_status(0x41, 0);
    t.write(Harness::idt_address + 16 * 0x41 + 5, 0x0E, 1); // not present
    t.set(F::exception_bitmap, bit(11));
    t.guest(cpuid);
    EXITED(t, ExitReason::exception_or_nmi);
    CHECK(t.vectoring() == (u32{1} << 31 | 0x41));
    CHECK(t.in_service(0x41));
    CHECK(t.status() == 0x4100);
}

TEST_CASE(
    "MOV to CR8 under virtual-interrupt delivery: lowers VPPR, and what waited comes [SDM 3C 29.1.2, 29.3]") {
    A t;
    t.deliver_virtual_interrupts();
    t.interrupts_on();
    t.request(0x41);
    t.set_status(0x41, 0);
    t.set_reg(Reg::TPR, 0xAABB'CC5F);
    t.cpu.r[RAX] = 0;
    t.cpu.r[R8] = 4;
    SUBCASE("to the same class: it waits") {
        t.guest(code("45 0f 22 c0 0f a2", "mov cr8, r8; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.reg(Reg::PPR) == 0x40);
        CHECK(t.reg(Reg::TPR) == 0x40);
    }
    SUBCASE("below it: delivered after the instruction") {
        t.cpu.r[R8] = 3;
        t.guest(code("45 0f 22 c0 0f a2", "mov cr8, r8; cpuid"));
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x41));
        CHECK(t.reg(Reg::TPR) == 0x30);
    }
    CHECK(t.interrupts.tpr == 0); // the local APIC's own TPR
}

// ---- virtualize x2APIC mode -----------------------------------------------------------------------------

TEST_CASE(
    "RDMSR 808H comes from the virtual-APIC page; all others with register virtualization [SDM 3C 29.5]") {
    A t;
    t.x2apic_mode();
    for (unsigned offset = 0; offset < 0x1000; offset += 16)
        t.write(A::virtual_apic + offset, 0x1234'0000'5678'0000 + offset);
    const auto read = [&](u32 index) {
        t.cpu.r[RCX] = index;
        t.cpu.r[RAX] = t.cpu.r[RDX] = ~u64{0};
        t.guest_again(rdmsr);
        return t.cpu.r[RDX] << 32 | t.cpu.r[RAX];
    };
    CHECK(read(0x808) == 0x1234'0000'5678'0080);
    EXITED(t, ExitReason::cpuid);
    read(0x802); // the local APIC's: it is not in x2APIC mode
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == t.handler(13));
    t.on(secondary::apic_register_virtualization);
    for (const u32 index : {0x800u, 0x802u, 0x808u, 0x80Bu, 0x830u, 0x83Fu, 0x840u, 0x8FFu}) {
        CHECK(read(index) == 0x1234'0000'5678'0000 + (index - 0x800) * 16);
        EXITED(t, ExitReason::cpuid);
    }
    read(0x900);
    EXITED(t, ExitReason::hlt);
    t.off(primary::use_msr_bitmaps); // the exit comes first
    read(0x808);
    EXITED(t, ExitReason::rdmsr);
}

TEST_CASE("WRMSR 808H: eight bytes, reserved bits, TPR virtualization [SDM 3C 29.5]") {
    A t;
    t.x2apic_mode();
    t.write(A::virtual_apic + 0x80, ~u64{0});
    t.set(F::tpr_threshold, 3);
    write_msr(t, 0x808, 0x3F);
    EXITED(t, ExitReason::cpuid);
    CHECK(t.read(A::virtual_apic + 0x80) == 0x3F);
    for (const u64 reserved : {u64{0x100}, u64{1} << 32}) {
        write_msr(t, 0x808, reserved);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(13));
    }
    write_msr(t, 0x808, 0x2F);
    EXITED(t, ExitReason::tpr_below_threshold);
    CHECK(t.guest_rip() == Harness::code_address + 2);
    CHECK(t.reg(Reg::TPR) == 0x2F);
}

TEST_CASE("WRMSR 80BH and 83FH: without virtual-interrupt delivery the local APIC's [SDM 3C 29.5]") {
    A t;
    t.x2apic_mode();
    for (const u32 index : {0x80Bu, 0x83Fu, 0x830u, 0x80Fu}) {
        write_msr(t, index, 0);
        EXITED(t, ExitReason::hlt); // #GP: the test's local APIC has no MSRs
        CHECK(t.guest_rip() == t.handler(13));
    }
}

TEST_CASE("WRMSR 80BH: EOI virtualization; any value but 0 is #GP(0) [SDM 3C 29.1.4, 29.5]") {
    A t;
    t.x2apic_mode();
    t.deliver_virtual_interrupts();
    t.serve(0x30);
    t.serve(0x51);
    t.set_status(0, 0x51);
    SUBCASE("the highest in service ends") {
        t.write(A::virtual_apic + 0xB0, ~u64{0});
        write_msr(t, 0x80B, 0);
        EXITED(t, ExitReason::cpuid);
        CHECK_FALSE(t.in_service(0x51));
        CHECK(t.in_service(0x30));
        CHECK(t.status() == 0x3000);
        CHECK(t.reg(Reg::PPR) == 0x30);
        CHECK(t.read(A::virtual_apic + 0xB0) == 0);
    }
    SUBCASE("#GP") {
        for (const u64 value : {u64{1}, u64{1} << 32}) {
            write_msr(t, 0x80B, value);
            EXITED(t, ExitReason::hlt);
            CHECK(t.guest_rip() == t.handler(13));
            CHECK(t.in_service(0x51));
        }
    }
    SUBCASE("the EOI-exit bitmap: exit 45 and no evaluation") {
        t.request(0x45);
        t.set_status(0x45, 0x51);
        t.set(F::eoi_exit_bitmap_1, bit(0x51 - 0x40));
        t.interrupts_on();
        write_msr(t, 0x80B, 0);
        EXITED(t, ExitReason::virtualized_eoi);
        CHECK(t.qualification() == 0x51);
        CHECK(t.guest_rip() == Harness::code_address + 2);
        CHECK(t.status() == 0x3045);
        CHECK(t.reg(Reg::PPR) == 0x30);
        CHECK(t.length() == 0);
    }
    SUBCASE("what waited behind it is delivered") {
        t.request(0x45);
        t.set_status(0x45, 0x51);
        t.set(F::eoi_exit_bitmap_0, ~u64{0});
        t.set(F::eoi_exit_bitmap_2, ~u64{0});
        t.set(F::eoi_exit_bitmap_3, ~u64{0});
        t.interrupts_on();
        write_msr(t, 0x80B, 0);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x45));
        CHECK(t.status() == 0x4500);
    }
}

TEST_CASE("EOI virtualization: each vector has its bit of the EOI-exit bitmap [SDM 3C 24.6.8]") {
    A t;
    t.x2apic_mode();
    t.deliver_virtual_interrupts();
    constexpr F bitmaps[] = {F::eoi_exit_bitmap_0, F::eoi_exit_bitmap_1, F::eoi_exit_bitmap_2,
                             F::eoi_exit_bitmap_3};
    for (unsigned vector = 0; vector < 256; ++vector) {
        for (unsigned n = 0; n < 4; ++n) t.set(bitmaps[n], n == vector / 64 ? bit(vector % 64) : 0);
        t.set_status(0, static_cast<u8>(vector));
        write_msr(t, 0x80B, 0);
        EXITED(t, ExitReason::virtualized_eoi);
        CHECK(t.qualification() == vector);
        t.set(bitmaps[vector / 64], ~bit(vector % 64));
        t.set_status(0, static_cast<u8>(vector));
        write_msr(t, 0x80B, 0);
        EXITED(t, ExitReason::cpuid);
    }
}

TEST_CASE("WRMSR 83FH: self-IPI virtualization [SDM 3C 29.1.5, 29.5]") {
    A t;
    t.x2apic_mode();
    t.deliver_virtual_interrupts();
    SUBCASE("delivered at once") {
        t.interrupts_on();
        write_msr(t, 0x83F, 0x61);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x61));
        CHECK(t.read(A::virtual_apic + 0x3F0) == 0x61);
        CHECK(t.status() == 0x6100);
    }
    SUBCASE("RVI keeps what is higher") {
        t.request(0x72);
        t.set_status(0x72, 0);
        write_msr(t, 0x83F, 0x61);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.requested(0x61));
        CHECK(t.status() == 0x0072);
    }
    SUBCASE("below vector 16: an APIC-write exit with offset 3F0H") {
        write_msr(t, 0x83F, 0x0F);
        EXITED(t, ExitReason::apic_write);
        CHECK(t.qualification() == 0x3F0);
        CHECK(t.guest_rip() == Harness::code_address + 2);
        CHECK(t.reg(0x3F0) == 0x0F);
        CHECK_FALSE(t.requested(0x0F));
    }
    SUBCASE("reserved bits") {
        for (const u64 value : {u64{0x161}, u64{1} << 32 | 0x61}) {
            write_msr(t, 0x83F, value);
            EXITED(t, ExitReason::hlt);
            CHECK(t.guest_rip() == t.handler(13));
        }
    }
}

TEST_CASE("The virtual-APIC page outside of RAM: reads as FFH, is not written") {
    A t;
    t.on(primary::use_tpr_shadow);
    t.set(F::virtual_apic_address, u64{1} << 45);
    t.cpu.r[R8] = 2;
    t.guest(
        code("44 0f 20 c0 45 0f 22 c0 44 0f 20 c3 0f a2", "mov rax, cr8; mov cr8, r8; mov rbx, cr8; cpuid"));
    EXITED(t, ExitReason::cpuid);
    CHECK(t.cpu.r[RAX] == 15);
    CHECK(t.cpu.r[RBX] == 15);
}

TEST_CASE("A guest's virtual APIC: saved between two instructions, and restored") {
    A t;
    t.virtualize_accesses();
    t.deliver_virtual_interrupts();
    t.on(secondary::apic_register_virtualization);
    t.request(0x41);
    t.set_status(0x41, 0x20);
    t.cpu.r[RBX] = A::apic_access + 0x300;
    t.place_guest(code("90 90 90 8b 03 fb 90 90", "nop; nop; nop; mov eax, [rbx]; sti; nop; nop"));
    t.run_guest(3); // VMLAUNCH is one of them
    REQUIRE(t.cpu.in_guest);
    const u64 rip = t.cpu.rip;
    Notes saved;
    t.cpu.visit(saved);
    CHECK(saved.values.at("virtualization.vmx.rvi") == 0x41);
    CHECK(saved.values.at("virtualization.vmx.svi") == 0x20);
    CHECK(saved.values.at("virtualization.vmx.virtual_interrupt_recognized") == 1);
    t.run_guest();
    EXITED(t, ExitReason::hlt);
    CHECK(t.status() == 0x4100);

    t.set_reg(Reg::ISR + 0x20, 0);
    t.request(0x41);
    Notes restoring(&saved);
    t.cpu.visit(restoring);
    t.cpu.mode_changed();
    t.cpu.context_changed(true);
    CHECK(t.cpu.in_guest);
    CHECK(t.cpu.rip == rip);
    t.run_guest();
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == t.handler(0x41));
    CHECK(t.status() == 0x4100);
}
