// Where the library that decodes is corrected.
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
