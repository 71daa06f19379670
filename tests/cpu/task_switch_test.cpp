// Hardware task switches: SDM 3A ch. 7.
#include "cpu/no_virtualization.hpp"
#include "cpu/task_switch.hpp"
#include "tests/support/general.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
constexpr u64 old_tss = Harness::tss_address, new_tss = 0xB000;
constexpr u16 new_selector = 0x60, gate_selector = 0x70, extra = 0x78;
constexpr u64 new_stack = 0x2'8000;
// SDM 3A Figure 7-2.
constexpr unsigned previous_link = 0, cr3 = 0x1C, eip = 0x20, eflags = 0x24, eax = 0x28, esp = 0x38,
                   es = 0x48, cs = 0x4C, ss = 0x50, ds = 0x54, fs = 0x58, gs = 0x5C, ldt = 0x60, trap = 0x64;

u8 access_byte(Harness& t, u16 selector) {
    return static_cast<u8>(t.read(Harness::gdt_address + (selector & ~7u) + 5, 1));
}

/// A 32-bit task that starts at `handler_address` in ring 0.
void set_task(Harness& t, u32 type = SystemType::tss_available, u32 limit = 0x67) {
    t.write(Harness::gdt_address + new_selector, descriptor(static_cast<u32>(new_tss), limit, AR::P | type));
    for (unsigned i = 0; i < 0x68; i += 4) t.write(new_tss + i, 0, 4);
    t.write(new_tss + eip, Harness::handler_address, 4);
    t.write(new_tss + eflags, RFLAGS::FIXED1 | RFLAGS::CF, 4);
    for (unsigned i = 0; i < 8; ++i) t.write(new_tss + eax + 4 * i, 0x1000'0000 + i, 4);
    t.write(new_tss + esp, new_stack, 4);
    t.write(new_tss + cs, Harness::code32_0, 2);
    for (const unsigned segment : {es, ss, ds, fs, gs}) t.write(new_tss + segment, Harness::data_0, 2);
}

void set_task_gate(Harness& t, u64 at, unsigned dpl = 0, u16 selector = new_selector) {
    t.write(at, u64{selector} << 16 | u64{0x85 | (dpl << 5)} << 40);
}

Stop far(Harness& t, bool call, u16 selector) {
    t.write(Harness::data_address, 0x5555, 4);
    t.write(Harness::data_address + 4, selector, 2);
    return general(t, call ? code("ff 1d 00 00 02 00", "call far [0x00020000]")
                           : code("ff 2d 00 00 02 00", "jmp far [0x00020000]"));
}

} // namespace

TEST_CASE("JMP to a TSS: the old task is saved, the new one loaded, busy bits change hands [SDM 3A 7.3]") {
    Harness t(Mode::protected32);
    set_task(t);
    for (unsigned i = 0; i < 8; ++i)
        if (i != RSP) t.cpu.r[i] = 0x2000'0000 + i;
    t.cpu.set_rflags(RFLAGS::ZF | RFLAGS::IF);
    t.cpu.dr7 = DR7::fixed1 | 0x1FF;
    CHECK(far(t, false, new_selector) == done);
    // The old task.
    CHECK(t.read(old_tss + eip, 4) == Harness::code_address + 6);
    CHECK(t.read(old_tss + eflags, 4) == (RFLAGS::ZF | RFLAGS::IF | RFLAGS::FIXED1));
    CHECK(t.read(old_tss + eax + 4 * RBX, 4) == 0x2000'0003);
    CHECK(t.read(old_tss + esp, 4) == Harness::stack_top);
    CHECK(t.read(old_tss + cs, 2) == Harness::code32_0);
    CHECK(t.read(old_tss + gs, 2) == Harness::data_0);
    CHECK(access_byte(t, Harness::tss) == (AR::P | SystemType::tss_available));
    // The new one.
    CHECK(t.cpu.rip == Harness::handler_address);
    CHECK(t.cpu.rflags() == (RFLAGS::FIXED1 | RFLAGS::CF));
    CHECK(t.cpu.r[RDI] == 0x1000'0007);
    CHECK(t.cpu.r[RSP] == new_stack);
    CHECK(t.cpu.seg(Seg::TR).selector == new_selector);
    CHECK(t.cpu.seg(Seg::TR).type() == SystemType::tss_busy);
    CHECK(access_byte(t, new_selector) == (AR::P | SystemType::tss_busy));
    CHECK(t.cpu.seg(Seg::DS).selector == Harness::data_0);
    CHECK(t.cpu.seg(Seg::LDTR).unusable());
    CHECK((t.cpu.control.cr0 & CR0::TS) != 0);
    CHECK(t.cpu.dr7 == (DR7::fixed1 | 0x0AA));
    CHECK(t.read(new_tss + previous_link, 2) == 0);
}

TEST_CASE("CALL nests tasks, IRET returns [SDM 3A 7.4]") {
    Harness t(Mode::protected32);
    set_task(t);
    CHECK(far(t, true, new_selector) == done);
    CHECK(t.read(new_tss + previous_link, 2) == Harness::tss);
    CHECK(t.cpu.flag(RFLAGS::NT));
    CHECK(access_byte(t, Harness::tss) == (AR::P | SystemType::tss_busy));
    t.cpu.r[RAX] = 0x7777;
    t.write(Harness::handler_address, 0xCF, 1);
    CHECK(general(t) == done);
    CHECK(t.cpu.rip == Harness::code_address + 6);
    CHECK(t.cpu.seg(Seg::TR).selector == Harness::tss);
    CHECK_FALSE(t.cpu.flag(RFLAGS::NT));
    CHECK(access_byte(t, new_selector) == (AR::P | SystemType::tss_available));
    CHECK(t.read(new_tss + eax, 4) == 0x7777);
    CHECK(t.read(new_tss + eip, 4) == Harness::handler_address + 1);
    CHECK((t.read(new_tss + eflags, 4) & RFLAGS::NT) == 0);
}

TEST_CASE("IRET to a task: the link must name a busy TSS: #TS [SDM 2A IRET]") {
    Harness t(Mode::protected32);
    set_task(t);
    t.cpu.flags.rest |= RFLAGS::NT;
    const auto iret = [&](u16 selector) {
        t.write(old_tss + previous_link, selector, 2);
        return general(t, code("cf", "iretd"));
    };
    CHECK(iret(new_selector) == exception(Vector::TS, new_selector)); // available
    CHECK(iret(new_selector | 4) == exception(Vector::TS, new_selector | 4));
    CHECK(iret(0x200) == exception(Vector::TS, 0x200));
    CHECK(iret(Harness::data_0) == exception(Vector::TS, Harness::data_0));
    t.write(Harness::gdt_address + new_selector + 5, SystemType::tss_busy, 1);
    CHECK(iret(new_selector) == exception(Vector::NP, new_selector));
}

TEST_CASE("task switches that are refused leave the old task running [SDM 3A Table 7-1]") {
    Harness t(Mode::protected32);
    set_task(t);
    const auto descriptor_access = [&](u8 access) {
        t.write(Harness::gdt_address + new_selector + 5, access, 1);
    };
    SUBCASE("busy") {
        descriptor_access(AR::P | SystemType::tss_busy);
        CHECK(far(t, false, new_selector) == general_protection(new_selector));
    }
    SUBCASE("not present") {
        descriptor_access(SystemType::tss_available);
        CHECK(far(t, false, new_selector) == exception(Vector::NP, new_selector));
    }
    SUBCASE("RPL above DPL") { CHECK(far(t, false, new_selector | 1) == general_protection(new_selector)); }
    SUBCASE("too small") {
        set_task(t, SystemType::tss_available, 0x66);
        CHECK(far(t, false, new_selector) == exception(Vector::TS, new_selector));
        set_task(t, SystemType::tss16_available, 0x2A);
        CHECK(far(t, false, new_selector) == exception(Vector::TS, new_selector));
    }
    SUBCASE("gate: DPL, presence, the TSS behind it") {
        const u64 gate = Harness::gdt_address + gate_selector;
        set_task_gate(t, gate);
        CHECK(far(t, false, gate_selector | 1) == general_protection(gate_selector));
        set_task_gate(t, gate, 0, new_selector | 4);
        CHECK(far(t, false, gate_selector) == general_protection(new_selector | 4));
        t.write(gate + 5, 0x05, 1);
        CHECK(far(t, false, gate_selector) == exception(Vector::NP, gate_selector));
    }
    CHECK(t.cpu.seg(Seg::TR).selector == Harness::tss);
    CHECK(t.cpu.rip == Harness::code_address);
    CHECK(access_byte(t, Harness::tss) == (AR::P | SystemType::tss_busy));
}

TEST_CASE("through a task gate, from CPL 3 [SDM 3A 7.2.5]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    set_task(t);
    set_task_gate(t, Harness::gdt_address + gate_selector, 3);
    CHECK(far(t, true, new_selector) == general_protection(new_selector));
    CHECK(far(t, true, gate_selector) == done);
    CHECK(t.cpu.cpl == 0);
    CHECK(t.read(old_tss + cs, 2) == Harness::code32_3);
}

TEST_CASE("errors of the new task's segments are delivered in its context [SDM 3A Table 7-1]") {
    struct Row {
        const char* what;
        unsigned field;
        u16 selector;
        int vector;
        u32 error;
    };
    for (const Row& row :
         {Row{"LDT in the LDT", ldt, 0x0C, 10, 0x0C},
          Row{"LDT of another type", ldt, Harness::data_0, 10, Harness::data_0}, Row{"null CS", cs, 0, 10, 0},
          Row{"CS with another DPL", cs, Harness::code32_3 & ~3u, 10, Harness::code32_3 & ~3u},
          Row{"CS beyond the GDT", cs, 0x200, 10, 0x200}, Row{"CS not present", cs, extra, 11, extra},
          Row{"DS beyond the GDT", ds, 0x200, 10, 0x200}, Row{"DS not present", ds, extra, 11, extra},
          Row{"DS a system segment", ds, new_selector, 10, new_selector},
          Row{"RPL of GS", gs, Harness::data_0 | 3, 10, Harness::data_0}}) {
        CAPTURE(std::string(row.what));
        Harness t(Mode::protected32);
        set_task(t);
        t.write(
            Harness::gdt_address + extra,
            descriptor(0, 0xFFFF'FFFF, (row.field == cs ? AR::CODE : AR::WRITABLE) | AR::S | AR::G | AR::DB));
        t.write(new_tss + row.field, row.selector, 2);
        CHECK(far(t, false, new_selector) == done);
        CHECK(t.cpu.seg(Seg::TR).selector == new_selector);
        CHECK(access_byte(t, Harness::tss) == (AR::P | SystemType::tss_available));
        if (row.field == cs || row.field == ldt) {
            // The stack segment was not loaded: the handler cannot be called, nor that of the double fault.
            CHECK(t.cpu.activity == Activity::shutdown);
        } else {
            CHECK(t.vector_reached() == row.vector);
            CHECK(t.read(t.cpu.r[RSP], 4) == row.error);
            CHECK(t.read(t.cpu.r[RSP] + 4, 4) == Harness::handler_address);
        }
    }
}

TEST_CASE("EIP beyond the limit of CS is #GP(0) in the new task [SDM 2A JMP]") {
    Harness t(Mode::protected32);
    set_task(t);
    t.write(Harness::gdt_address + extra, descriptor(0, 0xFFF, AR::P | AR::CODE | AR::S | AR::DB));
    t.write(new_tss + cs, extra, 2);
    CHECK(far(t, false, new_selector) == done);
    CHECK(t.vector_reached() == 13);
    CHECK(t.read(t.cpu.r[RSP] + 8, 4) == extra);
}

TEST_CASE("the T bit of the new TSS: a debug trap before its first instruction [SDM 3A 7.2.1, 17.3.1.5]") {
    Harness t(Mode::protected32);
    set_task(t);
    t.write(new_tss + trap, 1, 1);
    t.write(Harness::data_address, 0x5555, 4);
    t.write(Harness::data_address + 4, new_selector, 2);
    CHECK(t.run(code("ff 2d 00 00 02 00", "jmp far [0x00020000]")) == RunEnd::halted);
    CHECK(t.vector_reached() == 1);
    CHECK((t.cpu.dr6 & DR6::BT) != 0);
    CHECK(t.read(t.cpu.r[RSP], 4) == Harness::handler_address);
}

TEST_CASE("16-bit TSS: words, and no CR3, FS or GS [SDM 3A 7.6]") {
    Harness t(Mode::protected32);
    set_task(t, SystemType::tss16_available, 0x2B);
    for (unsigned i = 0; i < 0x2C; i += 4) t.write(new_tss + i, 0, 4);
    t.write(new_tss + 0x0E, 0x1234, 2);
    t.write(new_tss + 0x10, RFLAGS::FIXED1 | RFLAGS::SF, 2);
    t.write(new_tss + 0x12, 0xAAAA, 2);
    t.write(new_tss + 0x1A, 0x8000, 2);
    t.write(new_tss + 0x24, Harness::code16_0, 2);
    for (const unsigned segment : {0x22u, 0x26u, 0x28u}) t.write(new_tss + segment, Harness::data16_0, 2);
    CHECK(far(t, true, new_selector) == done);
    CHECK(t.cpu.rip == 0x1234);
    CHECK((t.cpu.r[RAX] & 0xFFFF) == 0xAAAA);
    CHECK((t.cpu.r[RSP] & 0xFFFF) == 0x8000);
    CHECK(t.cpu.rflags() == (RFLAGS::FIXED1 | RFLAGS::SF | RFLAGS::NT));
    CHECK(t.cpu.seg(Seg::TR).type() == SystemType::tss16_busy);
    CHECK(t.cpu.seg(Seg::FS).unusable());
    // And back: the 16-bit state is saved as words.
    t.write(0x1234, 0xCF, 1);
    t.cpu.r[RAX] = 0x1234'5678;
    CHECK(general(t) == done);
    CHECK(t.read(new_tss + 0x12, 2) == 0x5678);
    CHECK(t.read(new_tss + 0x14, 2) == 0);
    CHECK(t.cpu.seg(Seg::TR).selector == Harness::tss);
}

TEST_CASE("a task in virtual-8086 mode [SDM 3B 20.2.5]") {
    Harness t(Mode::protected32);
    set_task(t);
    t.write(new_tss + eflags, RFLAGS::VM | RFLAGS::FIXED1, 4);
    t.write(new_tss + cs, 0x4000, 2);
    t.write(new_tss + eip, 0x10, 4);
    CHECK(far(t, false, new_selector) == done);
    CHECK(t.cpu.v8086());
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.seg(Seg::CS) == Segment{0x4000, 0xF3, 0xFFFF, 0x40000});
}

TEST_CASE(
    "with paging: CR3 is loaded, and a page fault before the commit point leaves the old task [SDM 3A 7.3]") {
    Harness t(Mode::protected32);
    constexpr u64 directory = 0x20'0000, other_directory = 0x20'1000;
    for (const u64 at : {directory, other_directory}) t.write(at, 0x83, 4); // one 4-MByte page
    t.cpu.control.cr4 |= CR4::PSE;
    t.cpu.control.cr3 = directory;
    t.cpu.control.cr0 |= CR0::PG;
    t.cpu.context_changed(true);
    t.cpu.mode_changed();
    set_task(t);
    t.write(new_tss + cr3, other_directory, 4);
    SUBCASE("done") {
        CHECK(far(t, false, new_selector) == done);
        CHECK(t.cpu.control.cr3 == other_directory);
    }
    SUBCASE("the new TSS is not mapped") {
        t.write(Harness::gdt_address + new_selector,
                descriptor(0x100'0000, 0x67, AR::P | SystemType::tss_available));
        CHECK(far(t, false, new_selector) == page_fault(0, 0x100'0000));
        CHECK(t.cpu.seg(Seg::TR).selector == Harness::tss);
        CHECK(access_byte(t, Harness::tss) == (AR::P | SystemType::tss_busy));
        CHECK(t.cpu.control.cr3 == directory);
    }
}

TEST_CASE("an exception through a task gate: RF saved, error code on the new stack [SDM 3A 6.12.2]") {
    Harness t(Mode::protected32);
    set_task(t);
    set_task_gate(t, Harness::idt_address + 8 * 13);
    REQUIRE(t.cpu.raise(general_protection(0x1234)).ok());
    CHECK(t.cpu.rip == Harness::handler_address);
    CHECK(t.cpu.r[RSP] == new_stack - 4);
    CHECK(t.read(new_stack - 4, 4) == 0x1234);
    CHECK(t.read(new_tss + previous_link, 2) == Harness::tss);
    CHECK(t.cpu.flag(RFLAGS::NT));
    CHECK(t.read(old_tss + eip, 4) == Harness::code_address);
    CHECK((t.read(old_tss + eflags, 4) & RFLAGS::RF) != 0);
}

TEST_CASE("an exception through a task gate: what stops it carries EXT [SDM 3A 6.13]") {
    Harness t(Mode::protected32);
    set_task(t, SystemType::tss_busy);
    set_task_gate(t, Harness::idt_address + 8 * 6);
    REQUIRE(t.cpu.raise(undefined_opcode()).ok());
    CHECK(t.vector_reached() == 13);
    CHECK(t.read(t.cpu.r[RSP], 4) == (new_selector | 1));
}

TEST_CASE(
    "in a guest: the extension is asked after the descriptor's checks, before the limit's [SDM 3C 25.4.2]") {
    class Extension : public NoVirtualization {
    public:
        std::optional<TaskSwitch> asked;
        Result<void> task_switch(Cpu&, const TaskSwitch& what) override {
            asked = what;
            return stopped(Stop::Kind::world_switch);
        }
    };
    Harness t(Mode::protected32);
    Extension extension;
    t.cpu.virtualization = &extension;
    t.cpu.in_guest = true;
    set_task(t, SystemType::tss_busy, 0);
    CHECK(far(t, false, new_selector) == general_protection(new_selector));
    CHECK_FALSE(extension.asked);
    set_task(t, SystemType::tss_available, 0);
    CHECK(far(t, true, new_selector) == stopped(Stop::Kind::world_switch));
    REQUIRE(extension.asked);
    CHECK(extension.asked->selector == new_selector);
    CHECK(extension.asked->source == TaskSwitch::Source::call);
    set_task_gate(t, Harness::idt_address + 8 * 13);
    CHECK(t.cpu.raise(general_protection(8)).stop() == stopped(Stop::Kind::world_switch));
    CHECK(extension.asked->source == TaskSwitch::Source::idt_gate);
    CHECK(extension.asked->has_error);
    CHECK(extension.asked->error == 8);
}
