// Far JMP, CALL and RET: SDM 2A JMP, CALL; SDM 2B RET.
#include "cpu/instructions/far_transfer.hpp"
#include "tests/support/general.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Stop done{};
constexpr u64 start = Harness::code_address;
constexpr u16 slot = 0x60, gate_slot = 0x70;
constexpr u32 code_segment = AR::P | AR::S | AR::CODE | AR::READABLE | AR::DB | AR::G;
constexpr u32 dpl3 = 3u << 5;

void describe(Harness& t, u16 selector, u32 access, u32 limit = 0xFFFF'FFFF) {
    t.write(Harness::gdt_address + (selector & ~7u), descriptor(0, limit, access));
}

/// A call gate (SDM 3A Figure 5-8); in IA-32e mode the upper eight bytes follow.
void set_call_gate(Harness& t, u16 code_selector, u64 offset, unsigned dpl, unsigned parameters = 0,
                   u32 type = SystemType::call_gate) {
    const u64 low = (offset & 0xFFFF) | u64{code_selector} << 16 | u64{parameters} << 32 |
                    u64{0x80 | (dpl << 5) | type} << 40 | (extract(offset, 31, 16) << 48);
    t.write(Harness::gdt_address + gate_slot, low);
    t.write(Harness::gdt_address + gate_slot + 8, high32(offset));
}

/// JMP FAR and CALL FAR through a pointer in memory; offset, then selector.
const Code jump_far32 = code("ff 2d 00 00 02 00", "jmp far [0x00020000]");
const Code call_far32 = code("ff 1d 00 00 02 00", "call far [0x00020000]");
const Code jump_far64 = code("ff 2c 25 00 00 02 00", "jmp far [0x0000000000020000]");
const Code call_far64 = code("48 ff 1c 25 00 00 02 00", "call far [0x0000000000020000]");

void set_pointer(Harness& t, u16 selector, u64 offset, unsigned bytes = 4) {
    t.write(Harness::data_address, offset, bytes);
    t.write(Harness::data_address + bytes, selector, 2);
}

Stop transfer(Harness& t, const Code& instruction, u16 selector, u64 offset = 0x1234, unsigned bytes = 4) {
    set_pointer(t, selector, offset, bytes);
    return general(t, instruction);
}

std::vector<u64> stack(Harness& t, unsigned count, unsigned bytes) {
    std::vector<u64> words;
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::SS).base;
    for (unsigned i = 0; i < count; ++i) words.push_back(t.read(base + t.cpu.r[RSP] + i * bytes, bytes));
    return words;
}
using Words = std::vector<u64>;

/// Pushes what a return instruction is to find, the first value on top.
void put_stack(Harness& t, const Words& words, unsigned bytes) {
    t.cpu.r[RSP] -= words.size() * bytes;
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::SS).base;
    for (unsigned i = 0; i < words.size(); ++i) t.write(base + t.cpu.r[RSP] + i * bytes, words[i], bytes);
}

} // namespace

TEST_CASE("far JMP, CALL and RET in real-address mode: CS is sixteen times the selector [SDM 2A JMP, CALL]") {
    Harness t(Mode::real);
    CHECK(general(t, code("ea 34 12 00 20", "jmp far 0x2000:0x1234")) == done);
    CHECK(t.cpu.seg(Seg::CS).base == 0x20000);
    CHECK(t.cpu.rip == 0x1234);
    t.cpu.rip = 0;
    t.write(0x20000, 0x3000'0010'9A, 5); // CALL FAR 3000:0010
    CHECK(general(t) == done);
    CHECK(t.cpu.seg(Seg::CS).selector == 0x3000);
    CHECK(t.cpu.rip == 0x10);
    CHECK(stack(t, 2, 2) == Words{5, 0x2000});
    t.write(0x30010, 0x0002'CA, 3); // RET FAR 2
    CHECK(general(t) == done);
    CHECK(t.cpu.seg(Seg::CS).base == 0x20000);
    CHECK(t.cpu.rip == 5);
    CHECK(t.cpu.r[RSP] == 0xFFF2);
    SUBCASE("beyond the limit of CS: #GP(0), and nothing is pushed") {
        t.write(0x20005, 0x1'0000'9A66, 8); // CALL FAR with a 32-bit offset of 10000H
        const u64 sp = t.cpu.r[RSP];
        CHECK(general(t) == general_protection(0));
        CHECK(t.cpu.r[RSP] == sp);
    }
}

TEST_CASE("far JMP to a code segment: checks in the manual's order [SDM 2A JMP]") {
    Harness t(Mode::protected32);
    const auto jump = [&](u16 selector, u64 offset = 0x1234) {
        return transfer(t, jump_far32, selector, offset);
    };
    SUBCASE("null") { CHECK(jump(3) == general_protection(0)); }
    SUBCASE("beyond the GDT") { CHECK(jump(0x203) == general_protection(0x200)); }
    SUBCASE("data") { CHECK(jump(Harness::data_0) == general_protection(Harness::data_0)); }
    SUBCASE("system segments that are no targets") {
        describe(t, slot, AR::P | SystemType::ldt);
        CHECK(jump(slot) == general_protection(slot));
    }
    SUBCASE("nonconforming: RPL and DPL") {
        CHECK(jump(Harness::code32_0 | 1) == general_protection(Harness::code32_0));
        CHECK(jump(Harness::code32_3) == general_protection(Harness::code32_3 & ~3u));
    }
    SUBCASE("not present") {
        describe(t, slot, code_segment & ~AR::P);
        CHECK(jump(slot) == exception(Vector::NP, slot));
    }
    SUBCASE("beyond its limit") {
        describe(t, slot, code_segment & ~AR::G, 0x1233);
        CHECK(jump(slot) == general_protection(0));
        CHECK((t.read(Harness::gdt_address + slot + 5, 1) & AR::ACCESSED) == 0);
    }
    SUBCASE("done: CS, RPL = CPL, accessed") {
        describe(t, slot, code_segment & ~AR::DB);
        CHECK(jump(slot) == done);
        CHECK(t.cpu.seg(Seg::CS).selector == slot);
        CHECK(t.cpu.rip == 0x1234);
        CHECK(t.cpu.code_bits() == 16);
        CHECK((t.read(Harness::gdt_address + slot + 5, 1) & AR::ACCESSED) == 1);
    }
    if (t.cpu.seg(Seg::CS).selector != slot) CHECK(t.cpu.rip == start);
}

TEST_CASE("far JMP to conforming code keeps CPL [SDM 3A 5.8.1.2]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    describe(t, slot, code_segment | AR::CONFORMING);
    CHECK(transfer(t, jump_far32, slot) == done);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.seg(Seg::CS).selector == (slot | 3));
    Harness inner(Mode::protected32);
    describe(inner, slot, code_segment | AR::CONFORMING | dpl3);
    CHECK(transfer(inner, jump_far32, slot) == general_protection(slot));
}

TEST_CASE(
    "far JMP between 64-bit and compatibility mode; L and D together are #GP [SDM 2A JMP; SDM 3A 5.2.1]") {
    Harness t;
    CHECK(transfer(t, jump_far64, Harness::code32_0, 0x12'3456) == done);
    CHECK(t.cpu.code_bits() == 32);
    CHECK(t.cpu.rip == 0x12'3456);
    CHECK(transfer(t, jump_far32, Harness::code64_0, start) == done);
    CHECK(t.cpu.code64());
    describe(t, slot, code_segment | AR::L);
    CHECK(transfer(t, jump_far64, slot) == general_protection(slot));
    const Code wide = code("48 ff 2c 25 00 00 02 00", "jmp far [0x0000000000020000]");
    CHECK(transfer(t, wide, Harness::code64_0, 0x8000'0000'0000, 8) == general_protection(0));
    CHECK(transfer(t, wide, Harness::code64_0, 0xFFFF'8000'0000'0000, 8) == done);
    CHECK(t.cpu.rip == 0xFFFF'8000'0000'0000);
}

TEST_CASE("far pointers with REX.W: 64 bits on Intel, 32 on AMD [SDM 2A JMP; APM 3 JMP]") {
    Harness t(Mode::long64, "amd-max");
    t.write(Harness::data_address, 0x0018'0000'4321, 6);
    CHECK(general(t, code("48 ff 2c 25 00 00 02 00", "")) == done);
    CHECK(t.cpu.rip == 0x4321);
}

TEST_CASE("far CALL and RET at the same level [SDM 2A CALL, 2B RET]") {
    Harness t(Mode::protected32);
    describe(t, slot, code_segment);
    CHECK(transfer(t, call_far32, slot, 0x5'0000) == done);
    CHECK(stack(t, 2, 4) == Words{start + 6, Harness::code32_0});
    t.write(0x5'0000, 0xCB, 1);
    CHECK(general(t) == done);
    CHECK(t.cpu.seg(Seg::CS).selector == Harness::code32_0);
    CHECK(t.cpu.rip == start + 6);
    CHECK(t.cpu.r[RSP] == Harness::stack_top);
}

TEST_CASE("far CALL: no room on the stack is #SS(0), and nothing has changed [SDM 2A CALL]") {
    Harness t(Mode::protected32);
    t.cpu.r[RSP] = 4;
    CHECK(transfer(t, call_far32, Harness::code32_0) == done); // wraps: the limit is 4 GiB
    t.cpu.seg(Seg::SS).limit = 0xFFFF;
    t.cpu.r[RSP] = 4;
    const u64 below = t.read(0, 4);
    CHECK(transfer(t, call_far32, Harness::code32_0) == exception(Vector::SS, 0));
    CHECK(t.cpu.r[RSP] == 4);
    CHECK(t.read(0, 4) == below);
}

TEST_CASE("call gates: the gate's privilege and the segment behind it [SDM 3A 5.8.4; SDM 2A CALL]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    const auto call = [&](u16 selector = gate_slot | 3) { return transfer(t, call_far32, selector); };
    SUBCASE("gate DPL below CPL") {
        set_call_gate(t, Harness::code32_0, 0x1000, 0);
        CHECK(call() == general_protection(gate_slot));
    }
    SUBCASE("gate not present") {
        set_call_gate(t, Harness::code32_0, 0x1000, 3);
        t.write(Harness::gdt_address + gate_slot + 5, 0x6C, 1);
        CHECK(call() == exception(Vector::NP, gate_slot));
    }
    SUBCASE("null code segment") {
        set_call_gate(t, 0, 0x1000, 3);
        CHECK(call() == general_protection(0));
    }
    SUBCASE("not code") {
        set_call_gate(t, Harness::data_0, 0x1000, 3);
        CHECK(call() == general_protection(Harness::data_0));
    }
    SUBCASE("a jump does not change CPL") {
        set_call_gate(t, Harness::code32_0, 0x1000, 3);
        CHECK(transfer(t, jump_far32, gate_slot) == general_protection(Harness::code32_0));
        set_call_gate(t, Harness::code32_3 & ~3u, 0x1000, 3);
        CHECK(transfer(t, jump_far32, gate_slot) == done);
        CHECK(t.cpu.rip == 0x1000); // the offset in the instruction does not count
    }
    SUBCASE("same level") {
        set_call_gate(t, Harness::code32_3 & ~3u, 0x1000, 3, 2);
        CHECK(call() == done);
        CHECK(stack(t, 2, 4) == Words{start + 6, Harness::code32_3});
        CHECK(t.cpu.r[RSP] == Harness::stack_top - 8); // parameters stay where they are
    }
    SUBCASE("16-bit gate") {
        set_call_gate(t, Harness::code32_3 & ~3u, 0x5678'1000, 3, 0, SystemType::call_gate16);
        CHECK(call() == done);
        CHECK(t.cpu.rip == 0x1000);
        CHECK(stack(t, 2, 2) == Words{(start + 6) & 0xFFFF, Harness::code32_3});
    }
}

TEST_CASE("call gate to an inner level: new stack, parameters, and the way back [SDM 3A 5.8.5, 5.8.6]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    put_stack(t, {0x1111, 0x2222}, 4);
    const u64 outer_esp = t.cpu.r[RSP];
    set_call_gate(t, Harness::code32_0, 0x5'0000, 3, 2);
    REQUIRE(transfer(t, call_far32, gate_slot) == done);
    CHECK(t.cpu.cpl == 0);
    CHECK(t.cpu.seg(Seg::CS).selector == Harness::code32_0);
    CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_0);
    CHECK(t.cpu.r[RSP] == Harness::stack_top - 0x1000 - 24);
    CHECK(stack(t, 6, 4) == Words{start + 6, Harness::code32_3, 0x1111, 0x2222, outer_esp, Harness::data_3});
    // RET FAR 8 takes the parameters off both stacks and drops segments that CPL 3 may not have.
    REQUIRE(load_segment(t.cpu, Seg::ES, Harness::data_0).ok());
    t.write(0x5'0000, 0x0008'CA, 3);
    REQUIRE(general(t) == done);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.rip == start + 6);
    CHECK(t.cpu.seg(Seg::SS).selector == Harness::data_3);
    CHECK(t.cpu.r[RSP] == outer_esp + 8);
    CHECK(t.cpu.seg(Seg::ES).unusable());
    CHECK(t.cpu.seg(Seg::DS).selector == Harness::data_3);
}

TEST_CASE("call gate to an inner level: stacks that cannot be used [SDM 2A CALL]") {
    Harness t(Mode::protected32);
    t.enter_ring3();
    set_call_gate(t, Harness::code32_0, 0x5'0000, 3);
    const auto call = [&] { return transfer(t, call_far32, gate_slot); };
    SUBCASE("TSS too small") {
        t.cpu.seg(Seg::TR).limit = 8;
        CHECK(call() == exception(Vector::TS, Harness::tss));
    }
    SUBCASE("null") {
        t.write(Harness::tss_address + 8, 0, 4);
        CHECK(call() == exception(Vector::TS, 0));
    }
    SUBCASE("no room") {
        describe(t, slot, AR::P | AR::S | AR::WRITABLE, 7);
        t.write(Harness::tss_address + 8, slot, 4);
        CHECK(call() == exception(Vector::SS, slot));
    }
    SUBCASE("unreadable parameters") {
        set_call_gate(t, Harness::code32_0, 0x5'0000, 3, 1);
        t.cpu.seg(Seg::SS).limit = 0xFFFF;
        CHECK(call() == exception(Vector::SS, 0));
    }
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.r[RSP] == Harness::stack_top);
}

TEST_CASE("64-bit call gates: RSP out of the TSS, SS null, four quadwords [SDM 3A 5.8.3.1, 5.8.5.1]") {
    Harness t;
    t.enter_ring3();
    set_call_gate(t, Harness::code64_0, 0xFFFF'8000'0000'1000, 3);
    SUBCASE("done") {
        REQUIRE(transfer(t, call_far64, gate_slot, 0, 8) == done);
        CHECK(t.cpu.rip == 0xFFFF'8000'0000'1000);
        CHECK(t.cpu.seg(Seg::SS).unusable());
        CHECK(stack(t, 4, 8) == Words{start + 8, Harness::code64_3, Harness::stack_top, Harness::data_3});
    }
    SUBCASE("the type of the upper half must be 0") {
        t.write(Harness::gdt_address + gate_slot + 13, 1, 1);
        CHECK(transfer(t, call_far64, gate_slot, 0, 8) == general_protection(gate_slot));
    }
    SUBCASE("sixteen bytes must fit into the GDT") {
        t.cpu.gdtr.limit = gate_slot + 14;
        CHECK(transfer(t, call_far64, gate_slot, 0, 8) == general_protection(gate_slot));
    }
    SUBCASE("only 64-bit code behind it") {
        set_call_gate(t, Harness::code32_0, 0x1000, 3);
        CHECK(transfer(t, call_far64, gate_slot, 0, 8) == general_protection(Harness::code32_0));
    }
    SUBCASE("task gates and TSSs are no targets in IA-32e mode") {
        set_call_gate(t, Harness::tss, 0, 3, 0, SystemType::task_gate);
        CHECK(transfer(t, call_far64, gate_slot, 0, 8) == general_protection(gate_slot));
        CHECK(transfer(t, call_far64, Harness::tss, 0, 8) == general_protection(Harness::tss));
    }
}

TEST_CASE("far RET: checks on the return segment [SDM 2B RET]") {
    Harness t(Mode::protected32);
    const auto ret = [&](const Words& words) {
        t.cpu.r[RSP] = Harness::stack_top;
        put_stack(t, words, 4);
        return general(t, code("cb", "ret far"));
    };
    CHECK(ret({0x1000, 0}) == general_protection(0));
    CHECK(ret({0x1000, 0x200}) == general_protection(0x200));
    CHECK(ret({0x1000, Harness::data_0}) == general_protection(Harness::data_0));
    CHECK(ret({0x1000, Harness::code32_0 | 3}) == general_protection(Harness::code32_0));
    describe(t, slot, code_segment & ~AR::P);
    CHECK(ret({0x1000, slot}) == exception(Vector::NP, slot));
    describe(t, slot, code_segment & ~AR::G, 0xFFF);
    CHECK(ret({0x1000, slot}) == general_protection(0));
    CHECK(ret({0x1000, Harness::code32_3, 0x2000, 0}) == general_protection(0));
    CHECK(ret({0x1000, Harness::code32_3, 0x2000, Harness::data_0}) == general_protection(Harness::data_0));
    CHECK(ret({0x1000, Harness::code32_3, 0x2000, Harness::data_3}) == done);
    CHECK(t.cpu.cpl == 3);
    CHECK(t.cpu.r[RSP] == 0x2000);
    CHECK(ret({0x1000, Harness::code32_0}) == general_protection(Harness::code32_0)); // inward
}

TEST_CASE("far RET to a 16-bit stack changes SP only [SDM 2B RET]") {
    Harness t(Mode::protected32);
    describe(t, slot, AR::P | AR::S | AR::WRITABLE | dpl3, 0xFFFF);
    put_stack(t, {0x1000, Harness::code32_3, 0xABCD'2000, slot | 3}, 4);
    CHECK(general(t, code("cb", "ret far")) == done);
    CHECK(t.cpu.r[RSP] == ((Harness::stack_top - 16) & 0xFFFF'0000) + 0x2000);
}
