// MOV and its relatives, exchanges, the stack, through their general handlers.
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {
constexpr Stop done{};
constexpr u64 data = Harness::data_address;
constexpr u64 unmapped = 0x4000'0000;
constexpr u64 upper = 0xAAAA'BBBB'0000'0000;
} // namespace

TEST_CASE("MOV: 32-bit results clear the upper half, 8 and 16 bits keep the rest [SDM 1 3.4.1.1]") {
    Harness t;
    t.cpu.r[RAX] = ~u64{0};
    t.cpu.r[RCX] = 0x1122'3344'5566'7788;
    CHECK(general(t, code("88 cc", "mov ah, cl")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'88FF);
    CHECK(general(t, code("66 89 c8", "mov ax, cx")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'7788);
    CHECK(general(t, code("89 c8", "mov eax, ecx")) == done);
    CHECK(t.cpu.r[RAX] == 0x5566'7788);
    CHECK(general(t, code("48 c7 c0 00 00 00 80", "mov rax, 0xFFFFFFFF80000000")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'8000'0000);
    CHECK(general(t, code("40 88 cc", "mov spl, cl")) == done);
    CHECK((t.cpu.r[RSP] & 0xFF) == 0x88);
}

TEST_CASE("MOV: moffs takes a whole address [SDM 2B MOV]") {
    Harness t;
    t.write(data, 0x1122'3344'5566'7788);
    CHECK(general(t, code("48 a1 00 00 02 00 00 00 00 00", "mov rax, [0x0000000000020000]")) == done);
    CHECK(t.cpu.r[RAX] == 0x1122'3344'5566'7788);
    CHECK(general(t, code("66 a3 10 00 02 00 00 00 00 00", "mov [0x0000000000020010], ax")) == done);
    CHECK(t.read(data + 0x10) == 0x7788);
}

TEST_CASE("MOV from a segment register: zero-extended to a register, 16 bits to memory [SDM 2B MOV]") {
    Harness t;
    t.cpu.r[RAX] = ~u64{0};
    t.cpu.r[RSI] = data;
    t.write(data, ~u64{0});
    CHECK(general(t, code("8c d8", "mov eax, ds")) == done);
    CHECK(t.cpu.r[RAX] == Harness::data_0);
    CHECK(general(t, code("48 8c 1e", "mov [rsi], ds")) == done);
    CHECK(t.read(data) == 0xFFFF'FFFF'FFFF'0000 + Harness::data_0);
    t.cpu.r[RAX] = ~u64{0};
    CHECK(general(t, code("66 8c d8", "mov ax, ds")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'0000 + Harness::data_0);
}

TEST_CASE("MOVZX, MOVSX, MOVSXD, MOVBE, BSWAP [SDM 2B MOVZX]") {
    Harness t;
    t.cpu.r[RCX] = 0x1122'3344'8586'8788;
    t.cpu.r[RSI] = data;
    t.write(data, 0x1122'3344'5566'7788);
    const auto result = [&](const char* hex, const char* text) {
        t.cpu.r[RAX] = ~u64{0};
        CHECK(general(t, code(hex, text)) == done);
        return t.cpu.r[RAX];
    };
    CHECK(result("0f b6 c1", "movzx eax, cl") == 0x88);
    CHECK(result("66 0f be c1", "movsx ax, cl") == 0xFFFF'FFFF'FFFF'FF88);
    CHECK(result("0f bf c1", "movsx eax, cx") == 0xFFFF'8788);
    CHECK(result("48 63 c1", "movsxd rax, ecx") == 0xFFFF'FFFF'8586'8788);
    CHECK(result("0f 38 f0 06", "movbe eax, [rsi]") == 0x8877'6655);
    CHECK(result("66 0f 38 f0 06", "movbe ax, [rsi]") == 0xFFFF'FFFF'FFFF'8877);
    CHECK(general(t, code("48 0f c9", "bswap rcx")) == done);
    CHECK(t.cpu.r[RCX] == 0x8887'8685'4433'2211);
    CHECK(general(t, code("0f c9", "bswap ecx")) == done);
    CHECK(t.cpu.r[RCX] == 0x1122'3344);
    CHECK(general(t, code("48 0f 38 f1 0e", "movbe [rsi], rcx")) == done);
    CHECK(t.read(data) == 0x4433'2211'0000'0000);
    CHECK(general(t, code("0f c3 0e", "movnti [rsi], ecx")) == done);
    CHECK(t.read(data, 4) == 0x1122'3344);
}

TEST_CASE("CMOVcc: the source is read and the upper half cleared also when the condition is not met [SDM 2A "
          "CMOVcc]") {
    Harness t;
    t.cpu.flags.set_arithmetic(0);
    t.cpu.r[RAX] = upper | 5;
    t.cpu.r[RCX] = 7;
    CHECK(general(t, code("0f 44 c1", "cmovz eax, ecx")) == done);
    CHECK(t.cpu.r[RAX] == 5);
    CHECK(general(t, code("48 0f 45 c1", "cmovnz rax, rcx")) == done);
    CHECK(t.cpu.r[RAX] == 7);
    t.cpu.r[RSI] = unmapped;
    CHECK(general(t, code("0f 44 06", "cmovz eax, [rsi]")).vector == Vector::PF);
}

TEST_CASE("LEA: address size and operand size each truncate [SDM 2A LEA]") {
    Harness t;
    t.cpu.r[RSI] = 0xFFFF'FFFF;
    t.cpu.r[RCX] = 0x1'0000'0001;
    CHECK(general(t, code("48 8d 44 4e 01", "lea rax, [rsi+rcx*2+0x01]")) == done);
    CHECK(t.cpu.r[RAX] == 0x3'0000'0002);
    CHECK(general(t, code("67 48 8d 44 4e 01", "lea rax, [esi+ecx*2+0x01]")) == done);
    CHECK(t.cpu.r[RAX] == 2);
    CHECK(general(t, code("48 8d 05 00 01 00 00", "lea rax, [0x0000000000010107]")) == done);
    CHECK(t.cpu.r[RAX] == Harness::code_address + 0x107);
}

TEST_CASE("XLAT: AL is unsigned, the segment can be overridden [SDM 2C XLAT]") {
    Harness t;
    t.write(data + 0xFF, 0x5A, 1);
    t.cpu.r[RBX] = data;
    t.cpu.r[RAX] = 0x12FF;
    CHECK(general(t, code("d7", "xlat")) == done);
    CHECK(t.cpu.r[RAX] == 0x125A);
    t.cpu.seg(Seg::FS).base = 0x100;
    t.cpu.r[RAX] = 0;
    t.write(data + 0x100, 0xA5, 1);
    CHECK(general(t, code("64 d7", "")) == done);
    CHECK(t.cpu.r[RAX] == 0xA5);
}

TEST_CASE("sign extension of the accumulator [SDM 2A CBW, CWD]") {
    Harness t;
    t.cpu.r[RAX] = upper | 0x1280;
    t.cpu.r[RDX] = ~u64{0};
    CHECK(general(t, code("66 98", "cbw")) == done);
    CHECK(t.cpu.r[RAX] == (upper | 0xFF80));
    CHECK(general(t, code("98", "cwde")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FF80);
    CHECK(general(t, code("48 98", "cdqe")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'FF80);
    CHECK(general(t, code("99", "cdq")) == done);
    CHECK(t.cpu.r[RDX] == 0xFFFF'FFFF);
    t.cpu.r[RAX] = 0x7FFF;
    CHECK(general(t, code("66 99", "cwd")) == done);
    CHECK(t.cpu.r[RDX] == 0xFFFF'0000);
    CHECK(general(t, code("48 99", "cqo")) == done);
    CHECK(t.cpu.r[RDX] == 0);
}

TEST_CASE("XCHG, XADD: both operands change, or none [SDM 2C XCHG, XADD]") {
    Harness t;
    t.cpu.r[RSI] = data;
    t.write(data, 5);
    t.cpu.r[RAX] = upper | 7;
    CHECK(general(t, code("87 06", "xchg [rsi], eax")) == done);
    CHECK(t.cpu.r[RAX] == 5);
    CHECK(t.read(data) == 7);
    CHECK(general(t, code("f0 0f c1 06", "lock xadd [rsi], eax")) == done);
    CHECK(t.cpu.r[RAX] == 7);
    CHECK(t.read(data) == 12);
    CHECK(general(t, code("0f c1 c0", "xadd eax, eax")) == done);
    CHECK(t.cpu.r[RAX] == 14);
    CHECK(general(t, code("86 c4", "xchg ah, al")) == done);
    CHECK(t.cpu.r[RAX] == 0x0E00);
    t.cpu.r[RSI] = unmapped;
    t.cpu.flags.set_arithmetic(RFLAGS::CF);
    CHECK(general(t, code("0f c1 06", "xadd [rsi], eax")).vector == Vector::PF);
    CHECK(t.cpu.r[RAX] == 0x0E00);
    CHECK(arithmetic_flags(t) == RFLAGS::CF);
}

TEST_CASE("CMPXCHG: equal stores the source, different loads the accumulator [SDM 2A CMPXCHG]") {
    Harness t;
    t.cpu.r[RSI] = data;
    t.write(data, 5);
    t.cpu.r[RAX] = upper | 5;
    t.cpu.r[RCX] = 9;
    CHECK(general(t, code("f0 0f b1 0e", "lock cmpxchg [rsi], ecx")) == done);
    CHECK(t.read(data) == 9);
    CHECK(t.cpu.r[RAX] == (upper | 5));
    CHECK(t.cpu.flags.zf());
    CHECK(general(t, code("f0 0f b1 0e", "lock cmpxchg [rsi], ecx")) == done);
    CHECK(t.cpu.r[RAX] == 9);
    CHECK(arithmetic_flags(t) == (RFLAGS::CF | RFLAGS::SF | RFLAGS::AF | RFLAGS::PF));
    SUBCASE("the destination must be writable also when it is not changed") {
        t.write(Harness::tables_address + 0x2000, 0x85); // the first 2 MBytes read-only
        t.cpu.control.cr0 |= CR0::WP;
        t.cpu.context_changed(true);
        const Stop stop = general(t, code("f0 0f b1 0e", "lock cmpxchg [rsi], ecx"));
        CHECK(stop.vector == Vector::PF);
        CHECK((stop.error & PFEC::W) != 0);
    }
}

TEST_CASE("CMPXCHG8B and CMPXCHG16B: ZF alone; 16 bytes are aligned [SDM 2A CMPXCHG8B/CMPXCHG16B]") {
    Harness t;
    t.cpu.r[RSI] = data;
    t.write(data, 0x1111'1111'2222'2222);
    t.write(data + 8, 0x3333'3333'3333'3333);
    t.cpu.flags.set_arithmetic(RFLAGS::CF | RFLAGS::SF);
    t.cpu.r[RAX] = upper | 0x2222'2222;
    t.cpu.r[RDX] = upper | 0x1111'1111;
    t.cpu.r[RBX] = 6;
    t.cpu.r[RCX] = 7;
    CHECK(general(t, code("0f c7 0e", "cmpxchg8b [rsi]")) == done);
    CHECK(t.read(data) == 0x0000'0007'0000'0006);
    CHECK(arithmetic_flags(t) == (RFLAGS::CF | RFLAGS::SF | RFLAGS::ZF | (arithmetic_flags(t) & RFLAGS::PF)));
    CHECK(t.cpu.r[RAX] == (upper | 0x2222'2222));
    CHECK(general(t, code("0f c7 0e", "cmpxchg8b [rsi]")) == done);
    CHECK(t.cpu.r[RAX] == 6);
    CHECK(t.cpu.r[RDX] == 7);
    CHECK_FALSE(t.cpu.flags.zf());

    CHECK(general(t, code("f0 48 0f c7 0e", "lock cmpxchg16b [rsi]")) == done);
    CHECK(t.cpu.r[RAX] == 0x0000'0007'0000'0006);
    CHECK(t.cpu.r[RDX] == 0x3333'3333'3333'3333);
    CHECK(general(t, code("f0 48 0f c7 0e", "lock cmpxchg16b [rsi]")) == done);
    CHECK(t.read(data) == 6);
    CHECK(t.read(data + 8) == 7);
    CHECK(t.cpu.flags.zf());
    t.cpu.r[RSI] = data + 8;
    CHECK(general(t, code("f0 48 0f c7 0e", "lock cmpxchg16b [rsi]")) == general_protection(0));
}

TEST_CASE("PUSH: sizes, RSP itself, immediates [SDM 2B PUSH]") {
    Harness t;
    const u64 top = t.cpu.r[RSP];
    CHECK(general(t, code("54", "push rsp")) == done);
    CHECK(t.read(top - 8) == top);
    CHECK(general(t, code("6a 80", "push 0xFFFFFFFFFFFFFF80")) == done);
    CHECK(t.read(top - 16) == static_cast<u64>(-128));
    CHECK(general(t, code("66 6a 80", "push 0xFF80")) == done);
    CHECK(t.cpu.r[RSP] == top - 18);
    CHECK(t.read(top - 18, 2) == 0xFF80);
    CHECK(general(t, code("0f a0", "push fs")) == done);
    CHECK(t.read(top - 26) == Harness::data_0);
}

TEST_CASE("PUSH of a segment register with 32-bit operand size writes 16 bits [SDM 2B PUSH]") {
    Harness t(Mode::protected32);
    const u64 top = t.cpu.r[RSP];
    t.write(top - 4, 0xFFFF'FFFF, 4);
    CHECK(general(t, code("1e", "push ds")) == done);
    CHECK(t.cpu.r[RSP] == top - 4);
    CHECK(t.read(top - 4, 4) == (0xFFFF'0000 | Harness::data_0));
}

TEST_CASE("POP: memory addressed by RSP uses the incremented RSP; POP RSP loads it [SDM 2B POP]") {
    Harness t;
    const u64 top = t.cpu.r[RSP] -= 16;
    t.write(top, 0x1234);
    CHECK(general(t, code("8f 04 24", "pop [rsp]")) == done);
    CHECK(t.cpu.r[RSP] == top + 8);
    CHECK(t.read(top + 8) == 0x1234);
    CHECK(general(t, code("5c", "pop rsp")) == done);
    CHECK(t.cpu.r[RSP] == 0x1234);
    t.cpu.r[RSP] = top;
    t.cpu.r[RSI] = unmapped;
    CHECK(general(t, code("8f 06", "pop [rsi]")).vector == Vector::PF);
    CHECK(t.cpu.r[RSP] == top);
}

TEST_CASE("POP of a segment register; POP SS holds events back [SDM 2B POP; SDM 3A 6.8.3]") {
    Harness t(Mode::protected32);
    const u64 top = t.cpu.r[RSP] -= 16;
    t.write(top, 0xFFFF'0000 | Harness::data_3, 4);
    t.write(top + 4, Harness::data_0, 4);
    CHECK(general(t, code("07", "pop es")) == done);
    CHECK(t.cpu.seg(Seg::ES).selector == Harness::data_3);
    CHECK(t.cpu.r[RSP] == top + 4);
    t.place(code("17", "pop ss"));
    CHECK(t.step() == done);
    CHECK(t.cpu.r[RSP] == top + 8);
    t.cpu.nmi_pending = true;
    t.place(code("90 90", "nop; nop"));
    CHECK(t.step() == done);
    CHECK(t.vector_reached() < 0);
    CHECK(t.cpu.nmi_pending);
    t.step();
    CHECK_FALSE(t.cpu.nmi_pending);
}

TEST_CASE("PUSHA and POPA: eight registers, SP as it was, and nothing on a fault [SDM 2B PUSHA, POPA]") {
    Harness t(Mode::protected32);
    const u64 top = t.cpu.r[RSP];
    for (unsigned i = 0; i < 8; ++i)
        if (i != RSP) t.cpu.r[i] = 0x1000 + i;
    CHECK(general(t, code("60", "pushad")) == done);
    CHECK(t.cpu.r[RSP] == top - 32);
    for (unsigned i = 0; i < 8; ++i) CHECK(t.read(top - 4 * (i + 1), 4) == (i == RSP ? top : 0x1000 + i));
    for (unsigned i = 0; i < 8; ++i)
        if (i != RSP) t.cpu.r[i] = 0;
    CHECK(general(t, code("61", "popad")) == done);
    CHECK(t.cpu.r[RSP] == top);
    for (unsigned i = 0; i < 8; ++i) CHECK(t.cpu.r[i] == (i == RSP ? top : 0x1000 + i));

    t.cpu.seg(Seg::SS).limit = static_cast<u32>(top - 0x100);
    t.cpu.r[RSP] = top - 0x100 + 8; // room would begin only below the limit
    CHECK(general(t, code("60", "pushad")) == exception(Vector::SS, 0));
    CHECK(t.cpu.r[RSP] == top - 0x100 + 8);
}

TEST_CASE("stack: 16-bit stack pointers wrap and keep the upper half [SDM 1 6.2.3]") {
    Harness t(Mode::real);
    t.cpu.r[RSP] = 0xABCD'0000;
    t.cpu.r[RAX] = 0x1234;
    CHECK(general(t, code("50", "push ax")) == done);
    CHECK(t.cpu.r[RSP] == 0xABCD'FFFE);
    CHECK(t.read(0x2'0000 + 0xFFFE, 2) == 0x1234);
    CHECK(general(t, code("59", "pop cx")) == done);
    CHECK(t.cpu.r[RSP] == 0xABCD'0000);
    CHECK(t.cpu.r[RCX] == 0x1234);
    CHECK(general(t, code("60", "pusha")) == done);
    CHECK(t.cpu.r[RSP] == 0xABCD'FFF0);
}
