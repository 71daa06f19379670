// Delivery of events through the IDT in every mode: SDM 3A ch. 6.
#include "cpu/events.hpp"
#include "cpu/segmentation.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using Type = Event::Type;
const Stop done{};

Event exception_event(Vector vector, u64 address = 0) {
    return {.vector = static_cast<u8>(vector), .type = Type::hardware_exception, .address = address};
}
Event exception_with_error(Vector vector, u32 error, u64 address = 0) {
    return {.vector = static_cast<u8>(vector),
            .type = Type::hardware_exception,
            .has_error = true,
            .error = error,
            .address = address};
}
Event interrupt(u8 vector) { return {.vector = vector, .type = Type::external_interrupt}; }
Event int_n(u8 vector) {
    return {.vector = vector, .type = Type::software_interrupt, .instruction_length = 2};
}

/// An 8-byte gate.
u64 gate8(u16 selector, u32 offset, u32 type, unsigned dpl = 0) {
    return (offset & 0xFFFF) | u64{selector} << 16 | u64{0x8000 | (dpl << 13) | (type << 8)} << 32 |
           u64{offset >> 16} << 48;
}
void set_gate(Harness& t, u8 vector, u64 low, u64 high = 0) {
    const unsigned size = t.cpu.long_mode_active() ? 16 : 8;
    t.write(Harness::idt_address + size * vector, low);
    if (size == 16) t.write(Harness::idt_address + 16 * vector + 8, high);
}

/// The words on the stack that the handler finds, from the top.
std::vector<u64> stack(Harness& t, unsigned count, unsigned bytes) {
    std::vector<u64> words;
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::SS).base;
    for (unsigned i = 0; i < count; ++i) words.push_back(t.read(base + t.cpu.r[RSP] + i * bytes, bytes));
    return words;
}

using Words = std::vector<u64>;

} // namespace

TEST_CASE("real-address mode: FLAGS, CS, IP are pushed; IF and TF are cleared [SDM 3B 20.1.4]") {
    Harness t(Mode::real);
    t.cpu.rip = 0x123;
    t.cpu.flags.rest |= RFLAGS::IF | RFLAGS::TF;
    const u64 flags = t.cpu.rflags();
    REQUIRE(t.cpu.deliver(exception_with_error(Vector::GP, 0)).ok()); // there are no error codes here
    CHECK(t.vector_reached() == 13);
    CHECK(t.cpu.next_rip == t.cpu.rip);
    CHECK(t.cpu.r[RSP] == 0xFFF0 - 6);
    CHECK(stack(t, 3, 2) == Words{0x123, Harness::code_address / 16, flags & 0xFFFF});
    CHECK_FALSE(t.cpu.flag(RFLAGS::IF | RFLAGS::TF));
}

TEST_CASE(
    "real-address mode: a vector beyond the limit is #GP, and again #DF, then shutdown [SDM 3B 20.1.4]") {
    Harness t(Mode::real);
    t.cpu.idtr.limit = 4 * 14 - 1;
    REQUIRE(t.cpu.deliver(int_n(0x20)).ok());
    CHECK(t.vector_reached() == 13);
    t.cpu.idtr.limit = 3;
    REQUIRE(t.cpu.deliver(int_n(0x20)).ok());
    CHECK(t.cpu.activity == Activity::shutdown);
}

TEST_CASE("protected mode, same privilege: EFLAGS, CS, EIP, error code [SDM 3A 6.12.1]") {
    Harness t(Mode::protected32);
    t.cpu.flags.rest |= RFLAGS::IF | RFLAGS::NT | RFLAGS::TF;
    const u64 flags = t.cpu.rflags();
    SUBCASE("interrupt gate clears IF; a fault saves RF = 1") {
        REQUIRE(t.cpu.deliver(exception_with_error(Vector::GP, 0x1234)).ok());
        CHECK(t.vector_reached() == 13);
        CHECK(stack(t, 4, 4) == Words{0x1234, Harness::code_address, Harness::code32_0, flags | RFLAGS::RF});
        CHECK_FALSE(t.cpu.flag(RFLAGS::IF | RFLAGS::NT | RFLAGS::TF));
    }
    SUBCASE("trap gate leaves IF; an interrupt saves RF as it is") {
        set_gate(t, 0x40, gate8(Harness::code32_0, Harness::handler_address + 0x400, SystemType::trap_gate));
        REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
        CHECK(t.vector_reached() == 0x40);
        CHECK(stack(t, 3, 4) == Words{Harness::code_address, Harness::code32_0, flags});
        CHECK(t.cpu.flag(RFLAGS::IF));
        CHECK_FALSE(t.cpu.flag(RFLAGS::NT | RFLAGS::TF));
    }
    SUBCASE("16-bit gate pushes words") {
        set_gate(t, 13, gate8(Harness::code16_0, 0xABCD'0100, SystemType::interrupt_gate16));
        REQUIRE(t.cpu.deliver(exception_with_error(Vector::GP, 0x18)).ok());
        CHECK(t.cpu.rip == 0x0100);
        CHECK(stack(t, 4, 2) ==
              Words{0x18, Harness::code_address & 0xFFFF, Harness::code32_0, flags & 0xFFFF});
    }
}

TEST_CASE("protected mode, from CPL 3: the stack of the TSS, and SS:ESP above the frame [SDM 3A 6.12.1]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    const u64 flags = t.cpu.rflags();
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.cpu.cpl == 0);
    CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_0);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x1000 - 20);
    CHECK(stack(t, 5, 4) ==
          Words{Harness::code_address, Harness::code32_3, flags, Harness::stack_top, Harness::data_3});
}

TEST_CASE("protected mode: a conforming handler runs at the interrupted CPL [SDM 3A 6.12.1.1]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    const u32 access = AR::P | AR::S | AR::CODE | AR::CONFORMING | AR::DB | AR::G;
    t.write(Harness::gdt_address + 0x60, descriptor(0, 0xFFFF'FFFF, access));
    set_gate(t, 0x40, gate8(0x60, Harness::handler_address + 0x400, SystemType::interrupt_gate));
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.vector_reached() == 0x40);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.seg(Seg::CS).selector == 0x63);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 12);
}

TEST_CASE("from virtual-8086 mode: data segments are pushed and become null [SDM 3B 20.3.1.1]") {
    Harness t(Mode::v8086);
    t.cpu.rip = 0x10;
    const Seg order[] = {Seg::ES, Seg::DS, Seg::FS, Seg::GS};
    for (u16 i = 0; i < 4; ++i) REQUIRE(load_segment(t.cpu, order[i], static_cast<u16>(0x1000 + i)).ok());
    const u64 flags = t.cpu.rflags();
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.vector_reached() == 0x40);
    CHECK_FALSE(t.cpu.v8086());
    CHECK(t.cpu.cpl == 0);
    CHECK(stack(t, 9, 4) ==
          Words{0x10, Harness::code_address / 16, flags, 0xFFF0, 0x2000, 0x1000, 0x1001, 0x1002, 0x1003});
    for (const Seg where : order) CHECK(t.cpu.seg(where).unusable());
}

TEST_CASE("from virtual-8086 mode: the handler must have DPL 0 [SDM 2A INT n]") {
    Harness t(Mode::v8086);
    set_gate(t, 0x40, gate8(Harness::code32_3 & ~3u, 0, SystemType::interrupt_gate));
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.vector_reached() == 13);
    CHECK(stack(t, 1, 4) == Words{(Harness::code32_3 & ~3u) | 1});
}

TEST_CASE("64-bit mode: the frame is aligned and always holds SS:RSP [SDM 3A 6.14.2]") {
    Harness t;
    t.cpu.r[RSP] = Harness::stack_top - 3;
    const u64 flags = t.cpu.rflags();
    REQUIRE(t.cpu.deliver(exception_with_error(Vector::GP, 8)).ok());
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 16 - 48);
    CHECK(stack(t, 6, 8) == Words{8, Harness::code_address, Harness::code64_0, flags | RFLAGS::RF,
                                  Harness::stack_top - 3, Harness::data_0});
    CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_0); // CPL did not change
}

TEST_CASE("64-bit mode, from CPL 3: RSP0, SS becomes null; IST wins, also without a change of CPL [SDM 3A "
          "6.14.4, 6.14.5]") {
    Harness t;
    SUBCASE("RSP0") {
        t.enter_ring3();
        REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
        CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x1000 - 40);
        CHECK(t.cpu.seg(Seg::SS).selector == 0);
        CHECK(t.cpu.seg(Seg::SS).unusable());
        CHECK(stack(t, 5, 8).back() == Harness::data_3);
    }
    SUBCASE("IST2") {
        set_gate(t, 0x40,
                 gate8(Harness::code64_0, Harness::handler_address, SystemType::interrupt_gate) | u64{2}
                                                                                                      << 32);
        t.write(Harness::tss_address + 44, 0x2'8008);
        REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
        CHECK(t.cpu.r[RSP] == 0x2'8000 - 40);
        CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_0);
    }
}

TEST_CASE("compatibility mode: interrupts go to 64-bit code, wherever the stack is [SDM 3A 6.14]") {
    Harness t(Mode::compatibility);
    t.enter_ring3();
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.cpu.code64());
    CHECK(t.vector_reached() == 0x40);
    CHECK(stack(t, 2, 8) == Words{Harness::code_address, Harness::code32_3});
}

TEST_CASE("the upper half of the handler's address, and its canonicality [SDM 3A 6.14.1]") {
    Harness t;
    set_gate(t, 0x40, gate8(Harness::code64_0, 0x1000, SystemType::interrupt_gate), 0xFFFF'8000);
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.cpu.rip == 0xFFFF'8000'0000'1000);
    t.cpu.rip = Harness::code_address;
    set_gate(t, 0x40, gate8(Harness::code64_0, 0x1000, SystemType::interrupt_gate), 0x8000);
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.vector_reached() == 13);
    CHECK(stack(t, 1, 8) == Words{1}); // #GP(EXT)
}

TEST_CASE(
    "gates that cannot be used: exception and error code, with EXT for what the program did not ask for "
    "[SDM 3A 6.13, 6.12.1.2; SDM 2A INT n]") {
    Harness t;
    const auto reached = [&](const Event& event) {
        REQUIRE(t.cpu.deliver(event).ok());
        return std::pair{t.vector_reached(), static_cast<unsigned>(stack(t, 1, 8)[0])};
    };
    SUBCASE("beyond the limit of the IDT: 16 bytes must fit") {
        t.cpu.idtr.limit = 16 * 0x41 - 2;
        CHECK(reached(int_n(0x40)) == std::pair{13, 0x202u});
        CHECK(reached(interrupt(0x40)) == std::pair{13, 0x203u});
        CHECK(stack(t, 2, 8)[1] == Harness::handler_address + 13 * 16);
    }
    SUBCASE("not a gate of this mode") {
        set_gate(t, 0x40, gate8(Harness::code64_0, 0, SystemType::task_gate));
        CHECK(reached(int_n(0x40)) == std::pair{13, 0x202u});
        set_gate(t, 0x40, gate8(Harness::code64_0, 0, SystemType::interrupt_gate16));
        CHECK(reached(interrupt(0x40)) == std::pair{13, 0x203u});
    }
    SUBCASE("not present") {
        set_gate(t, 0x40, gate8(Harness::code64_0, 0, SystemType::interrupt_gate) & ~bit(47));
        CHECK(reached(int_n(0x40)) == std::pair{11, 0x202u});
        CHECK(reached(interrupt(0x40)) == std::pair{11, 0x203u});
    }
    SUBCASE("null code segment") {
        set_gate(t, 0x40, gate8(0, 0, SystemType::interrupt_gate));
        CHECK(reached(int_n(0x40)) == std::pair{13, 0u});
        CHECK(reached(interrupt(0x40)) == std::pair{13, 1u});
    }
    SUBCASE("code segment of 32 bits") {
        set_gate(t, 0x40, gate8(Harness::code32_0, 0, SystemType::interrupt_gate));
        CHECK(reached(int_n(0x40)) == std::pair{13, u32{Harness::code32_0}});
    }
    SUBCASE("code segment not present") {
        t.write(Harness::gdt_address + 0x60, descriptor(0, 0, AR::S | AR::CODE | AR::L));
        set_gate(t, 0x40, gate8(0x60, 0, SystemType::interrupt_gate));
        CHECK(reached(int_n(0x40)) == std::pair{11, 0x60u});
        CHECK(reached(interrupt(0x40)) == std::pair{11, 0x61u});
    }
}

TEST_CASE("INT n and INT3 need a gate with DPL >= CPL; exceptions and INT1 do not [SDM 3A 6.12.1.2]") {
    Harness t;
    t.enter_ring3();
    SUBCASE("INT n: the fault is at the instruction, and EXT = 0") {
        REQUIRE(t.cpu.deliver(int_n(0x40)).ok());
        CHECK(t.vector_reached() == 13);
        CHECK(stack(t, 2, 8) == Words{0x202, Harness::code_address});
    }
    SUBCASE("INT1") {
        const Event int1{.vector = 1, .type = Type::privileged_software_exception, .instruction_length = 1};
        const u64 dr6 = t.cpu.dr6;
        REQUIRE(t.cpu.deliver(int1).ok());
        CHECK(t.vector_reached() == 1);
        CHECK(stack(t, 1, 8) == Words{Harness::code_address + 1});
        CHECK(t.cpu.dr6 == dr6);
    }
    SUBCASE("INT3") {
        const Event int3{.vector = 3, .type = Type::software_exception, .instruction_length = 1};
        REQUIRE(t.cpu.deliver(int3).ok());
        CHECK(t.vector_reached() == 3);
    }
}

TEST_CASE("stacks of the TSS that cannot be used: #TS and #SS [SDM 2A INT n]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    const auto reached_with = [&](u16 ss) {
        // The handlers of #TS and #SS must themselves have a stack: they conform, and stay at CPL 3.
        t.write(Harness::gdt_address + 0x60,
                descriptor(0, 0xFFFF'FFFF, AR::P | AR::S | AR::CODE | AR::CONFORMING | AR::DB | AR::G));
        for (u8 v = 10; v < 14; ++v)
            set_gate(
                t, v,
                gate8(0x60, static_cast<u32>(Harness::handler_address + 16 * v), SystemType::interrupt_gate));
        t.write(Harness::tss_address + 8, ss, 4);
        REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
        return std::pair{t.vector_reached(), static_cast<unsigned>(stack(t, 1, 4)[0])};
    };
    SUBCASE("null") { CHECK(reached_with(0) == std::pair{10, 1u}); }
    SUBCASE("RPL is not the new CPL") { CHECK(reached_with(Harness::data_0 | 1) == std::pair{10, 0x11u}); }
    SUBCASE("beyond the GDT") { CHECK(reached_with(0x200) == std::pair{10, 0x201u}); }
    SUBCASE("not writable data") { CHECK(reached_with(Harness::code32_0) == std::pair{10, 9u}); }
    SUBCASE("not present") {
        t.write(Harness::gdt_address + 0x68, descriptor(0, 0xFFFF, AR::S | AR::WRITABLE));
        CHECK(reached_with(0x68) == std::pair{12, 0x69u});
    }
    SUBCASE("no room: #SS with its selector, and nothing has changed") {
        t.write(Harness::gdt_address + 0x68, descriptor(0, 0x10, AR::P | AR::S | AR::WRITABLE));
        CHECK(reached_with(0x68) == std::pair{12, 0x69u});
        CHECK(t.cpu.cpl == 3);
        CHECK(stack(t, 4, 4)[1] == Harness::code_address);
    }
    SUBCASE("the TSS too small") {
        t.cpu.seg(Seg::TR).limit = 8;
        CHECK(reached_with(Harness::data_0) == std::pair{10, u32{Harness::tss} | 1u});
    }
}

TEST_CASE("a page fault while the frame is pushed leaves the interrupted state as it was [SDM 3A 6.15]") {
    Harness t;
    t.enter_ring3();
    t.write(Harness::tss_address + 4, 0x4000'0010); // RSP0 in an unmapped gigabyte
    set_gate(t, 14,
             gate8(Harness::code64_0, Harness::handler_address + 14 * 16, SystemType::interrupt_gate) |
                 u64{1} << 32);
    t.write(Harness::tss_address + 36, 0x2'8000);
    REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
    CHECK(t.vector_reached() == 14);
    CHECK(t.cpu.control.cr2 == 0x4000'0008);
    CHECK(stack(t, 6, 8) == Words{PFEC::W, Harness::code_address, Harness::code64_3,
                                  t.cpu.rflags() | RFLAGS::RF, Harness::stack_top, Harness::data_3});
}

TEST_CASE(
    "#PF sets CR2; #DB merges into DR6, clears DR7.GD and IA32_DEBUGCTL.BTF [SDM 3A 6.15, 17.2.3, 17.2.4]") {
    Harness t;
    REQUIRE(t.cpu.deliver(exception_with_error(Vector::PF, 4, 0x1234)).ok());
    CHECK(t.cpu.control.cr2 == 0x1234);
    t.cpu.dr6 = DR6::fixed1 | DR6::B0 | DR6::BD;
    t.cpu.dr7 |= DR7::GD;
    t.cpu.debugctl = 3;
    REQUIRE(t.cpu.deliver(exception_event(Vector::DB, DR6::BS | DR6::B1)).ok());
    CHECK(t.cpu.dr6 == (DR6::fixed1 | DR6::BD | DR6::BS | DR6::B1));
    CHECK((t.cpu.dr7 & DR7::GD) == 0);
    CHECK(t.cpu.debugctl == 0);
}

TEST_CASE("RF in the saved image: 1 for faults, not for traps, #DB or interrupts [SDM 3A 17.3.1.1]") {
    struct Row {
        Event event;
        bool rf;
    };
    for (const Row& row :
         {Row{exception_event(Vector::UD), true}, Row{exception_event(Vector::DB, DR6::BS), false},
          Row{exception_event(Vector::DB, DR6::BD), true}, Row{interrupt(0x40), false},
          Row{int_n(0x40), false}, Row{exception_with_error(Vector::PF, 0), true}}) {
        CAPTURE(static_cast<int>(row.event.vector));
        Harness t;
        REQUIRE(t.cpu.deliver(row.event).ok());
        CHECK(static_cast<bool>(stack(t, 4, 8)[row.event.has_error ? 3 : 2] & RFLAGS::RF) == row.rf);
        CHECK_FALSE(t.cpu.flag(RFLAGS::RF));
    }
}

TEST_CASE("NMI: blocks further NMIs [SDM 3A 6.7.1]") {
    Harness t;
    REQUIRE(t.cpu.deliver({.vector = 2, .type = Type::nmi}).ok());
    CHECK(t.vector_reached() == 2);
    CHECK(t.cpu.nmi_blocked);
}

TEST_CASE("raise: the exception of an instruction, with its error code and address [SDM 3A 6.12]") {
    Harness t;
    REQUIRE(t.cpu.raise(page_fault(PFEC::U, 0x4'5678)).ok());
    CHECK(t.vector_reached() == 14);
    CHECK(stack(t, 2, 8) == Words{PFEC::U, Harness::code_address});
    CHECK(t.cpu.control.cr2 == 0x4'5678);
}
