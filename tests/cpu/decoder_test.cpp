// Where the library that decodes is corrected.
#include "cpu/instructions.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

namespace exeunt::test {

TEST_CASE("F3 90 with REX.B: XCHG R8, RAX and no PAUSE [SDM 2B NOP, XCHG]") {
    Harness t;
    t.cpu.r[RAX] = 0x1111'1111'1111'1111;
    t.cpu.r[R8] = 0x2222'2222'2222'2222;
    CHECK(t.step(code("f3 49 90")) == Stop{});
    CHECK(t.cpu.r[RAX] == 0x2222'2222'2222'2222);
    CHECK(t.cpu.r[R8] == 0x1111'1111'1111'1111);
    CHECK(t.step(code("f3 41 90")) == Stop{});  // 32 bits: the upper halves are cleared
    CHECK(t.cpu.r[RAX] == 0x1111'1111);
    CHECK(t.cpu.r[R8] == 0x2222'2222);
}

TEST_CASE("AMD: 66H truncates the target of a near branch in 64-bit mode [APM 3 Jcc, JMP, RET]") {
    Harness t{Mode::long64, "amd-max"};
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    SUBCASE("Jcc") {
        t.step(code("66 74 10"));
        CHECK(t.cpu.rip == ((Harness::code_address + 0x13) & 0xFFFF));
    }
    SUBCASE("JMP through a register") {
        t.cpu.r[RBP] = 0x12345;
        t.step(code("66 ff e5"));
        CHECK(t.cpu.rip == 0x2345);
    }
    SUBCASE("CALL pushes two bytes") {
        t.cpu.r[RBP] = 0x12345;
        const u64 rsp = t.cpu.r[RSP];
        t.step(code("66 ff d5"));
        CHECK(t.cpu.rip == 0x2345);
        CHECK(t.cpu.r[RSP] == rsp - 2);
    }
    SUBCASE("RET pops two bytes") {
        const u64 rsp = t.cpu.r[RSP];
        t.write(rsp, 0x2345, 2);
        t.step(code("66 c3"));
        CHECK(t.cpu.rip == 0x2345);
        CHECK(t.cpu.r[RSP] == rsp + 2);
    }
    SUBCASE("with REX.W it does not") {
        t.cpu.r[RBP] = 0x12345;
        t.step(code("66 48 ff e5"));
        CHECK(t.cpu.rip == 0x12345);
    }
}

TEST_CASE("SIB without a base: REX.B does not make it R13D, also with 32-bit addresses [SDM 2A Table 2-5]") {
    Harness t;
    t.cpu.r[R13] = 0x1000;
    t.cpu.r[RCX] = 0x8;
    t.write(Harness::data_address, 0x1234'5678'9ABC'DEF0);
    CHECK(t.step(code("67 49 8b 04 0d f8 ff 01 00")) == Stop{});
    CHECK(t.cpu.r[RAX] == 0x1234'5678'9ABC'DEF0);
}

TEST_CASE("CLZERO: FS and GS apply, and the line is one of linear addresses [APM 3 CLZERO]") {
    Harness t{Mode::long64, "amd-max"};
    t.cpu.seg(Seg::GS).base = 0x210;
    t.cpu.r[RAX] = Harness::data_address + 0x4BF;
    for (u64 line = 0x400; line < 0x800; line += 64) t.write(Harness::data_address + line, line);
    CHECK(t.step(code("65 0f 01 fc")) == Stop{});
    for (u64 line = 0x400; line < 0x800; line += 64)
        CHECK(t.read(Harness::data_address + line) == (line == 0x6C0 ? 0 : line));
}

TEST_CASE("REPNE SCAS: a page fault leaves RFLAGS as they were before the instruction [SDM 2B REP]") {
    Harness t;
    t.cpu.r[RDI] = (u64{1} << 30) - 4;  // the last doubleword that is mapped
    t.cpu.r[RCX] = 8;
    t.cpu.r[RAX] = 5;  // more than the 0FFFFFFFFH that the end of RAM reads as: CF would be set
    t.cpu.flags.set_arithmetic(RFLAGS::OF | RFLAGS::AF | RFLAGS::PF);
    const u64 before = t.cpu.flags.arithmetic();
    const Insn insn = [&] {
        t.place(code("f2 af"));
        Insn decoded;
        const u8 bytes[15] = {0xF2, 0xAF};
        CHECK(Decoder(t.model).decode(CodeMode::long64, bytes, *t.cpu.virtualization, decoded) == Decoder::Status::ok);
        return decoded;
    }();
    t.cpu.remaining = 100;
    CHECK(execute(t.cpu, insn).stop().vector == Vector::PF);
    CHECK(t.cpu.r[RCX] == 7);
    CHECK(t.cpu.flags.arithmetic() == before);
}

TEST_CASE("3EH before an indirect JMP is NOTRACK, and overrides the segment [SDM 1 17.3.1; SDM 2A 2.1.1]") {
    Harness t{Mode::real};
    t.cpu.r[RBP] = 0x100;
    t.write(0x2'0100, 0x1111, 2);  // SS:0100
    t.write(0x100, 0x2222, 2);     // DS:0100
    t.step(code("3e ff 66 00"));
    CHECK(t.cpu.rip == 0x2222);
}

TEST_CASE("Intel: 66H does not change a near branch in 64-bit mode [SDM 2A Jcc]") {
    Harness t;
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    t.step(code("66 74 10"));
    CHECK(t.cpu.rip == Harness::code_address + 0x13);
}

}  // namespace exeunt::test
