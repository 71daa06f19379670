// Posted interrupts and IPI virtualization. SDM 3C 29.6; later editions "IPI Virtualization".
#include "cpu/msrs.hpp"
#include "tests/vmx/virtual_apic_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;
using Reg = VirtualApic::Register;

namespace {

using F = VmcsField;

constexpr unsigned notification = 0xF2;

/// A guest whose requests may be posted; the descriptor is Posted::posted_interrupts.
class Posted : public VirtualApicHarness {
public:
    static constexpr u64 control = posted_interrupts + 32;
    static constexpr u64 ON = 1, SN = 2;

    Posted() {
        deliver_virtual_interrupts();
        on(vm_exit::acknowledge_interrupt_on_exit);
        on(pin_based::process_posted_interrupts);
        set(F::posted_interrupt_notification_vector, notification);
        set(F::posted_interrupt_descriptor_address, posted_interrupts);
        write(control, u64{0x1234'5678} << 32 | notification << 16 | ON | SN);
    }
    void post(u8 vector, u64 descriptor = posted_interrupts) {
        const u64 at = descriptor + vector / 8;
        write(at, read(at, 1) | 1u << vector % 8, 1);
    }
    bool posted(u8 vector, u64 descriptor = posted_interrupts) {
        return test_bit(read(descriptor + vector / 8, 1), vector % 8);
    }
};

const Code cpuid = code("90 0f a2", "nop; cpuid");

} // namespace

TEST_CASE("Posted interrupts: the notification is taken without an exit [SDM 3C 29.6]") {
    Posted t;
    t.post(0x31);
    t.post(0x51);
    t.post(0xFF);
    t.set_reg(Reg::TPR, 0xF0);
    t.interrupts.vector = notification;
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    CHECK(t.read(Posted::control) == (u64{0x1234'5678} << 32 | notification << 16 | Posted::SN)); // only ON
    CHECK(t.interrupts.eois == 1);
    for (unsigned n = 0; n < 4; ++n) CHECK(t.read(Posted::posted_interrupts + 8 * n) == 0);
    for (const u8 vector : {u8{0x31}, u8{0x51}, u8{0xFF}}) CHECK(t.requested(vector));
    CHECK(t.status() == 0x00FF);
}

TEST_CASE("Posted interrupts: what is posted is delivered [SDM 3C 29.6]") {
    Posted t;
    t.post(0x31);
    t.post(0x51);
    t.interrupts.vector = notification;
    SUBCASE("at once") {
        t.interrupts_on();
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x51));
        CHECK(t.status() == 0x5131);
    }
    SUBCASE("when interrupts are enabled; IF does not hold the notification back") {
        t.guest(code("fb 90 90 0f a2", "sti; nop; nop; cpuid"));
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x51));
    }
    SUBCASE("not below VPPR") {
        t.interrupts_on();
        t.set_reg(Reg::TPR, 0x50);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.status() == 0x0051);
    }
}

TEST_CASE("Posted interrupts: RVI becomes the highest of both, also of none [SDM 3C 29.6]") {
    Posted t;
    t.set_reg(Reg::TPR, 0xF0);
    t.request(0x60);
    t.set_status(0x60, 0);
    t.interrupts.vector = notification;
    SUBCASE("what was there is higher") {
        t.post(0x51);
        t.guest(cpuid);
        CHECK(t.status() == 0x0060);
        CHECK(t.requested(0x51));
        CHECK(t.requested(0x60));
    }
    SUBCASE("nothing was posted") {
        t.guest(cpuid);
        CHECK(t.status() == 0x0060);
        CHECK(t.interrupts.eois == 1);
    }
    SUBCASE("only PIR counts, not what else is in VIRR") {
        t.request(0x90);
        t.post(0x70);
        t.guest(cpuid);
        CHECK(t.status() == 0x0070);
    }
    EXITED(t, ExitReason::cpuid);
}

TEST_CASE("Posted interrupts: other vectors exit with their information [SDM 3C 29.6]") {
    Posted t;
    t.post(0x51);
    t.interrupts.vector = notification + 1;
    t.guest(cpuid);
    EXITED(t, ExitReason::external_interrupt);
    CHECK(t.interruption() == (u32{1} << 31 | (notification + 1)));
    CHECK(t.posted(0x51));
    CHECK(t.interrupts.eois == 0);
}

TEST_CASE("Posted interrupts: in HLT, MWAIT, shutdown and wait-for-SIPI [SDM 3C 29.6]") {
    Posted t;
    t.post(0x51);
    t.interrupts.vector = notification;
    SUBCASE("HLT ends when the virtual interrupt is delivered") {
        t.interrupts_on();
        t.set(F::guest_activity_state, 1);
        t.guest(cpuid);
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x51));
    }
    SUBCASE("HLT goes on while it can not be") {
        t.interrupts_on();
        t.set(F::guest_activity_state, 1);
        t.set_reg(Reg::TPR, 0x50);
        t.place_guest(cpuid);
        CHECK(t.run_guest() == RunEnd::halted);
        CHECK(t.cpu.in_guest);
        CHECK(t.cpu.activity == Activity::hlt);
        CHECK(t.interrupts.eois == 1);
        CHECK(t.requested(0x51));
        t.post(0x61); // and a second one wakes it
        t.interrupts.vector = notification;
        t.run_guest();
        EXITED(t, ExitReason::hlt);
        CHECK(t.guest_rip() == t.handler(0x61));
    }
    SUBCASE("MWAIT ends whatever was posted") {
        t.interrupts.vector = -1;
        t.cpu.misc_enable |= MiscEnable::MONITOR;
        t.cpu.r[RAX] = Harness::data_address;
        t.set_reg(Reg::TPR, 0x50);
        t.place_guest(code("0f 01 c8 0f 01 c9 0f a2", "monitor; mwait; cpuid"));
        CHECK(t.run_guest() == RunEnd::halted);
        t.interrupts.vector = notification;
        t.run_guest();
        EXITED(t, ExitReason::cpuid);
        CHECK(t.interrupts.eois == 1);
    }
    SUBCASE("in the other two external interrupts are blocked") {
        for (const u64 activity : {u64{2}, u64{3}}) {
            Posted blocked;
            blocked.post(0x51);
            blocked.interrupts.vector = notification;
            blocked.set(F::guest_activity_state, activity);
            blocked.place_guest(cpuid);
            CHECK(blocked.run_guest() == RunEnd::halted);
            CHECK(blocked.posted(0x51));
            CHECK(blocked.interrupts.eois == 0);
        }
    }
}

TEST_CASE("Posted interrupts: blocking by STI holds the notification back [SDM 3C 29.6]") {
    Posted t;
    t.post(0x51);
    t.interrupts.vector = notification;
    t.interrupts_on();
    t.set(F::guest_interruptibility_state, 1);
    t.guest(code("ff c1 0f a2", "inc ecx; cpuid"));
    EXITED(t, ExitReason::hlt);
    CHECK(low32(t.cpu.r[RCX]) == 1);
}

TEST_CASE(
    "Posted interrupts: interrupt-window exiting leaves the request unrecognized [SDM 3C 29.2.1, 29.6]") {
    Posted t;
    t.post(0x51);
    t.interrupts.vector = notification;
    t.on(primary::interrupt_window_exiting);
    t.set(F::guest_activity_state, 1);
    t.place_guest(cpuid);
    CHECK(t.run_guest() == RunEnd::halted); // IF = 0
    CHECK(t.interrupts.eois == 1);
    CHECK(t.requested(0x51));
}

// ---- IPI virtualization ---------------------------------------------------------------------------------

namespace {

/// Target 2 of the PID-pointer table has a descriptor, and is the last.
class Ipis : public Posted {
public:
    static constexpr u64 target = posted_interrupts + 0x80, target_control = target + 32;

    Ipis() {
        virtualize_ipis();
        set(F::last_pid_pointer_index, 2);
        write(pid_pointers + 16, target | 1);
        write(target_control, u64{0x0000'0300} << 32 | 0xE1 << 16);
    }
    /// By the memory-mapped ICR, whose upper half names the target.
    void send(u32 icr, u32 to = 2) {
        virtualize_accesses();
        set_reg(Reg::ICR_HIGH, to << 24);
        cpu.r[RBX] = apic_access + Reg::ICR_LOW;
        cpu.r[RAX] = icr;
        guest_again(code("89 03 0f a2", "mov [rbx], eax; cpuid"));
    }
    bool left_to_vmm() {
        REQUIRE(in_host());
        if (reason() == static_cast<u32>(ExitReason::cpuid)) return false;
        CHECK(reason() == static_cast<u32>(ExitReason::apic_write));
        CHECK(qualification() == 0x300);
        CHECK(interrupts.sent.empty());
        CHECK_FALSE(posted(0x41, target));
        return true;
    }
};
using Sent = std::vector<OneInterrupt::Notification>;

} // namespace

TEST_CASE("IPI virtualization: posts to the target's descriptor and sends its notification") {
    Ipis t;
    t.send(0x41);
    CHECK_FALSE(t.left_to_vmm());
    CHECK(t.posted(0x41, Ipis::target));
    CHECK(t.read(Ipis::target_control) == (u64{0x0000'0300} << 32 | 0xE1 << 16 | Posted::ON));
    CHECK(t.interrupts.sent == Sent{{0x300, 0xE1}});
    SUBCASE("an outstanding notification is not repeated") {
        t.send(0x52);
        CHECK(t.posted(0x52, Ipis::target));
        CHECK(t.posted(0x41, Ipis::target));
        CHECK(t.interrupts.sent.size() == 1);
    }
}

TEST_CASE("IPI virtualization: SN = 1 posts and does not notify") {
    Ipis t;
    t.write(Ipis::target_control, t.read(Ipis::target_control) | Posted::SN);
    t.send(0x41);
    CHECK_FALSE(t.left_to_vmm());
    CHECK(t.posted(0x41, Ipis::target));
    CHECK(t.interrupts.sent.empty());
    CHECK((t.read(Ipis::target_control) & Posted::ON) == 0);
}

TEST_CASE("IPI virtualization: what is left to the VMM") {
    Ipis t;
    SUBCASE("vectors below 16") {
        t.send(0x0F);
        CHECK(t.left_to_vmm());
        t.send(0x10);
        CHECK_FALSE(t.left_to_vmm());
    }
    SUBCASE("targets beyond the table") {
        t.write(Ipis::pid_pointers + 24, Ipis::target | 1);
        t.send(0x41, 3);
        CHECK(t.left_to_vmm());
    }
    SUBCASE("entries that are not valid") {
        for (const u64 entry : {Ipis::target, Ipis::target | 3, Ipis::target | 0x21, u64{1} << 46 | 1}) {
            t.write(Ipis::pid_pointers + 16, entry);
            t.send(0x41);
            CHECK(t.left_to_vmm());
        }
    }
    SUBCASE("everything but fixed, physical, edge-triggered IPIs without shorthand") {
        for (const unsigned n : {8u, 9u, 10u, 11u, 12u, 13u, 15u, 16u, 17u, 19u, 20u, 31u}) {
            CAPTURE(n);
            t.send(0x41 | u32{1} << n);
            CHECK(t.left_to_vmm());
        }
        t.send(0x41 | u32{1} << 14); // level: assert
        CHECK_FALSE(t.left_to_vmm());
    }
}

TEST_CASE("IPI virtualization: WRMSR 830H, whose upper half names the target") {
    Ipis t;
    t.x2apic_mode();
    const auto write = [&](u32 target, u32 icr) {
        t.cpu.r[RCX] = 0x830;
        t.cpu.r[RAX] = icr;
        t.cpu.r[RDX] = target;
        t.guest_again(code("0f 30 0f a2", "wrmsr; cpuid"));
        REQUIRE(t.in_host());
    };
    SUBCASE("sent") {
        write(2, 0x4041);
        CHECK_FALSE(t.left_to_vmm());
        CHECK(t.posted(0x41, Ipis::target));
        CHECK(t.interrupts.sent == Sent{{0x300, 0xE1}});
        CHECK(t.read(Ipis::virtual_apic + 0x300) == (u64{2} << 32 | 0x4041));
    }
    SUBCASE("left to the VMM, with the value in the virtual-APIC page") {
        for (const unsigned n : {8u, 9u, 10u, 11u, 12u, 15u, 18u, 19u}) {
            CAPTURE(n);
            write(2, 0x41 | u32{1} << n);
            CHECK(t.left_to_vmm());
            CHECK(t.guest_rip() == Harness::code_address + 2);
            CHECK(t.read(Ipis::virtual_apic + 0x300) == (u64{2} << 32 | 0x41 | u32{1} << n));
        }
        write(0x0200'0000, 0x41);
        CHECK(t.left_to_vmm());
    }
    SUBCASE("reserved bits are #GP(0)") {
        for (const unsigned n : {13u, 16u, 17u, 20u, 31u}) {
            write(2, 0x41 | u32{1} << n);
            EXITED(t, ExitReason::hlt);
            CHECK(t.guest_rip() == t.handler(13));
        }
    }
}
