// MMX: the checks before an instruction, and the registers' life inside the x87 FPU.
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {
constexpr Stop completed{};
constexpr u16 exception_summary = 1 << 7;
} // namespace

TEST_CASE("MMX: #UD, then #NM, then #MF for a pending x87 exception [SDM 3A Table 12-1, 3B 22.25]") {
    for (const char* bytes : {"0f fe ca", "0f 6f ca", "0f 77", "0f e7 0b", "66 0f 2d ca", "f2 0f d6 ca"}) {
        CAPTURE(bytes);
        Harness t;
        t.cpu.r[RBX] = Harness::data_address;
        t.cpu.x87.status |= exception_summary;
        CHECK(general(t, code(bytes)) == exception(Vector::MF));
        t.cpu.control.cr0 |= CR0::TS;
        CHECK(general(t, code(bytes)) == exception(Vector::NM));
        t.cpu.control.cr0 |= CR0::EM;
        CHECK(general(t, code(bytes)) == undefined_opcode());
    }
}

TEST_CASE("MMX: instructions on MMX registers do not need CR4.OSFXSR [SDM 3B 22.25]") {
    Harness t;
    t.cpu.control.cr4 &= ~CR4::OSFXSR;
    t.cpu.x87.st[1].significand = 1;
    t.cpu.x87.st[2].significand = 2;
    CHECK(general(t, code("0f d4 ca", "paddq mm1, mm2")) == completed);
    CHECK(t.cpu.x87.st[1].significand == 3);
    CHECK(general(t, code("0f 2a ca", "cvtpi2ps xmm1, mm2")) == undefined_opcode());
}

TEST_CASE("MMX: a write sets bits 79:64, every tag becomes valid and TOP 0 [SDM 3A Table 12-2]") {
    Harness t;
    t.cpu.x87.set_top(5);
    t.cpu.x87.st[1] = {10, 0x1234};
    t.cpu.x87.st[2] = {20, 0x1234};
    CHECK(general(t, code("0f fe ca", "paddd mm1, mm2")) == completed);
    CHECK(t.cpu.x87.st[1].significand == 30);
    CHECK(t.cpu.x87.st[1].sign_exponent == 0xFFFF);
    CHECK(t.cpu.x87.st[2].sign_exponent == 0x1234);
    CHECK(t.cpu.x87.top() == 0);
    CHECK(t.cpu.x87.empty == 0);
}

TEST_CASE("EMMS: every register becomes empty, TOP 0 [SDM 3A Table 12-2]") {
    Harness t;
    t.cpu.x87.empty = 0;
    t.cpu.x87.set_top(3);
    CHECK(general(t, code("0f 77", "emms")) == completed);
    CHECK(t.cpu.x87.empty == 0xFF);
    CHECK(t.cpu.x87.top() == 0);
}

TEST_CASE("MMX: a faulting memory operand leaves the x87 FPU as it was [SDM 3A 12.2]") {
    Harness t;
    t.cpu.x87.set_top(5);
    t.cpu.x87.empty = 0xFF;
    t.cpu.r[RBX] = u64{1} << 40;
    CHECK(general(t, code("0f 6f 0b", "movq mm1, [rbx]")) == page_fault(0, u64{1} << 40));
    CHECK(general(t, code("0f 7f 0b", "movq [rbx], mm1")) == page_fault(PFEC::W, u64{1} << 40));
    CHECK(t.cpu.x87.top() == 5);
    CHECK(t.cpu.x87.empty == 0xFF);
}

TEST_CASE("PUNPCKLBW: the memory operand of the MMX form has 4 bytes [SDM 2B PUNPCKLBW]") {
    Harness t;
    t.cpu.r[RBX] = (u64{1} << 30) - 4; // the last doubleword that is mapped; there is nothing: FFH
    t.cpu.x87.st[1].significand = 0x0403'0201;
    CHECK(general(t, code("0f 60 0b", "punpcklbw mm1, dword ptr [rbx]")) == completed);
    CHECK(t.cpu.x87.st[1].significand == 0xFF04'FF03'FF02'FF01);
}

TEST_CASE(
    "CVTPI2PD: with a memory operand it does not concern the x87 FPU, CVTPI2PS does [SDM 2A CVTPI2PD]") {
    Harness t;
    t.cpu.r[RBX] = Harness::data_address;
    t.write(Harness::data_address, 0x0000'0002'FFFF'FFFF);
    t.cpu.x87.status |= exception_summary;
    t.cpu.x87.empty = 0xFF;
    CHECK(general(t, code("66 0f 2a 0b", "cvtpi2pd xmm1, qword ptr [rbx]")) == completed);
    CHECK(t.cpu.vector[1].q[0] == 0xBFF0'0000'0000'0000);
    CHECK(t.cpu.vector[1].q[1] == 0x4000'0000'0000'0000);
    CHECK(t.cpu.x87.empty == 0xFF);
    CHECK(general(t, code("0f 2a 0b", "cvtpi2ps xmm1, [rbx]")) == exception(Vector::MF));
}
