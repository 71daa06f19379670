// Near transfers, loops, software interrupts, BOUND, ENTER and LEAVE through their general handlers.
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {
constexpr Stop done{};
constexpr u64 start = Harness::code_address;
constexpr u64 data = Harness::data_address;
} // namespace

TEST_CASE("JMP near: relative, register, memory [SDM 2A JMP]") {
    Harness t;
    CHECK(general(t, code("eb fe", "jmp 0x0000000000010000")) == done);
    CHECK(t.cpu.rip == start);
    CHECK(general(t, code("e9 00 01 00 00", "jmp 0x0000000000010105")) == done);
    CHECK(t.cpu.rip == start + 0x105);
    t.cpu.r[RAX] = 0x1234'5678'9ABC;
    CHECK(general(t, code("ff e0", "jmp rax")) == done);
    CHECK(t.cpu.rip == 0x1234'5678'9ABC);
    t.cpu.r[RSI] = data;
    t.write(data, start + 0x40);
    CHECK(general(t, code("ff 26", "jmp [rsi]")) == done);
    CHECK(t.cpu.rip == start + 0x40);
    t.cpu.r[RAX] = bit(47);
    CHECK(general(t, code("ff e0", "jmp rax")) == general_protection(0));
}

TEST_CASE(
    "near transfers: 16-bit operand size truncates to IP, and CS's limit is checked [SDM 2A JMP, CALL]") {
    Harness t(Mode::protected32);
    CHECK(general(t, code("66 eb 00", "")) == done);
    CHECK(t.cpu.rip == ((start + 3) & 0xFFFF));
    t.cpu.seg(Seg::CS).limit = static_cast<u32>(start + 0x1000);
    CHECK(general(t, code("e9 00 20 00 00", "")) == general_protection(0));
    const u64 top = t.cpu.r[RSP];
    CHECK(general(t, code("e8 00 20 00 00", "")) == general_protection(0));
    CHECK(t.cpu.r[RSP] == top);
    t.cpu.r[RCX] = 5;
    CHECK(general(t, code("74 80", "")) == done); // not taken: no check
    t.cpu.seg(Seg::CS).limit = static_cast<u32>(start + 4);
    CHECK(general(t, code("e2 7f", "")) == general_protection(0));
    CHECK(t.cpu.r[RCX] == 5);
}

TEST_CASE("CALL and RET near: the return address, RET imm16, faults change nothing [SDM 2A CALL, 2B RET]") {
    Harness t;
    const u64 top = t.cpu.r[RSP];
    CHECK(general(t, code("e8 10 00 00 00", "call 0x0000000000010015")) == done);
    CHECK(t.cpu.rip == start + 0x15);
    CHECK(t.cpu.r[RSP] == top - 8);
    CHECK(t.read(top - 8) == start + 5);
    CHECK(general(t, code("c2 10 00", "ret 0x10")) == done);
    CHECK(t.cpu.rip == start + 5);
    CHECK(t.cpu.r[RSP] == top + 16);
    t.cpu.r[RSP] = data;
    t.write(data, bit(63));
    CHECK(general(t, code("c3", "ret")) == general_protection(0));
    CHECK(t.cpu.r[RSP] == data);
    t.cpu.r[RAX] = bit(60);
    CHECK(general(t, code("ff d0", "call rax")) == general_protection(0));
    CHECK(t.cpu.r[RSP] == data);
    t.cpu.r[RAX] = start;
    t.cpu.r[RSP] = 0x4000'0000 + 8;
    CHECK(general(t, code("ff d0", "call rax")).vector == Vector::PF);
    CHECK(t.cpu.r[RSP] == 0x4000'0000 + 8);
    CHECK(t.cpu.rip == start);
}

TEST_CASE("CALL through RSP reads the target before it pushes [SDM 2A CALL]") {
    Harness t;
    t.write(t.cpu.r[RSP], start + 0x77);
    CHECK(general(t, code("ff 14 24", "call [rsp]")) == done);
    CHECK(t.cpu.rip == start + 0x77);
}

TEST_CASE("CALL and RET near with 16-bit operands [SDM 2A CALL]") {
    Harness t(Mode::protected32);
    const u64 top = t.cpu.r[RSP];
    CHECK(general(t, code("66 e8 00 10", "")) == done);
    CHECK(t.cpu.r[RSP] == top - 2);
    CHECK(t.read(top - 2, 2) == ((start + 4) & 0xFFFF));
    CHECK(t.cpu.rip == 0x1004);
}

TEST_CASE("Jcc: taken and not [SDM 2A Jcc]") {
    Harness t;
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    CHECK(general(t, code("74 10", "jz 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 0x12);
    CHECK(general(t, code("0f 85 00 01 00 00", "jnz 0x0000000000010106")) == done);
    CHECK(t.cpu.rip == start + 6);
}

TEST_CASE("CMOVcc, SETcc, Jcc: all sixteen conditions for all flags [SDM 1 App. B]") {
    struct Row {
        const char *cmov, *set, *jump;
    };
    const Row rows[16] = {
        {"cmovo eax, ecx", "seto al", "jo 0x0000000000010012"},
        {"cmovno eax, ecx", "setno al", "jno 0x0000000000010012"},
        {"cmovb eax, ecx", "setb al", "jb 0x0000000000010012"},
        {"cmovnb eax, ecx", "setnb al", "jnb 0x0000000000010012"},
        {"cmovz eax, ecx", "setz al", "jz 0x0000000000010012"},
        {"cmovnz eax, ecx", "setnz al", "jnz 0x0000000000010012"},
        {"cmovbe eax, ecx", "setbe al", "jbe 0x0000000000010012"},
        {"cmovnbe eax, ecx", "setnbe al", "jnbe 0x0000000000010012"},
        {"cmovs eax, ecx", "sets al", "js 0x0000000000010012"},
        {"cmovns eax, ecx", "setns al", "jns 0x0000000000010012"},
        {"cmovp eax, ecx", "setp al", "jp 0x0000000000010012"},
        {"cmovnp eax, ecx", "setnp al", "jnp 0x0000000000010012"},
        {"cmovl eax, ecx", "setl al", "jl 0x0000000000010012"},
        {"cmovnl eax, ecx", "setnl al", "jnl 0x0000000000010012"},
        {"cmovle eax, ecx", "setle al", "jle 0x0000000000010012"},
        {"cmovnle eax, ecx", "setnle al", "jnle 0x0000000000010012"},
    };
    constexpr u64 CF = RFLAGS::CF, PF = RFLAGS::PF, ZF = RFLAGS::ZF, SF = RFLAGS::SF, OF = RFLAGS::OF;
    Harness t;
    for (u64 n = 0; n < 32; ++n) {
        const u64 flags =
            (n & 1 ? CF : 0) | (n & 2 ? PF : 0) | (n & 4 ? ZF : 0) | (n & 8 ? SF : 0) | (n & 16 ? OF : 0);
        const bool less = ((flags & SF) != 0) != ((flags & OF) != 0);
        const bool met[8] = {(flags & OF) != 0,
                             (flags & CF) != 0,
                             (flags & ZF) != 0,
                             (flags & (CF | ZF)) != 0,
                             (flags & SF) != 0,
                             (flags & PF) != 0,
                             less,
                             less || (flags & ZF) != 0};
        for (unsigned cc = 0; cc < 16; ++cc) {
            const bool expected = met[cc / 2] != ((cc & 1) != 0);
            const auto bytes = [cc](unsigned opcode, std::vector<u8> rest) {
                rest.insert(rest.begin(), static_cast<u8>(opcode + cc));
                return rest;
            };
            t.cpu.flags.set_arithmetic(flags);
            t.cpu.r[RAX] = 5;
            t.cpu.r[RCX] = 7;
            Code cmov{bytes(0x40, {0xC1}), rows[cc].cmov};
            cmov.bytes.insert(cmov.bytes.begin(), 0x0F);
            CHECK(general(t, cmov) == done);
            CHECK(t.cpu.r[RAX] == (expected ? 7 : 5));
            Code set{bytes(0x90, {0xC0}), rows[cc].set};
            set.bytes.insert(set.bytes.begin(), 0x0F);
            CHECK(general(t, set) == done);
            CHECK((t.cpu.r[RAX] & 0xFF) == (expected ? 1 : 0));
            CHECK(general(t, Code{bytes(0x70, {0x10}), rows[cc].jump}) == done);
            CHECK(t.cpu.rip == start + (expected ? 0x12 : 2));
            CHECK(arithmetic_flags(t) == flags);
        }
    }
}

TEST_CASE("JCXZ in real-address mode, ENDBR32, PAUSE yields the processor [SDM 2A Jcc, 2B PAUSE]") {
    Harness t(Mode::real);
    t.cpu.r[RCX] = 0x1'0000;
    CHECK(general(t, code("e3 10", "jcxz 0x0012")) == done);
    CHECK(t.cpu.rip == 0x12);
    Harness u;
    CHECK(general(u, code("f3 0f 1e fb", "endbr32")) == done);
    CHECK(u.run(code("f3 90 f4", "pause; hlt"), 100) == RunEnd::yielded);
    CHECK(u.cpu.rip == start + 2);
    CHECK(u.run(100) == RunEnd::halted);
}

TEST_CASE("without CET, RDSSPQ is a NOP and shadow-stack instructions are #UD [SDM 2B RDSSPD/RDSSPQ, INCSSPD/INCSSPQ]") {
    Harness t;
    t.cpu.r[RSI] = 0x1234;
    CHECK(general(t, code("f3 48 0f 1e ce", "rdsspq rsi")) == done);
    CHECK(t.cpu.r[RSI] == 0x1234);
    CHECK(general(t, code("f3 48 0f ae ee", "incsspq rsi")) == undefined_opcode());
}

TEST_CASE("JRCXZ, LOOP: the count register follows the address size [SDM 2A Jcc, LOOP]") {
    Harness t;
    t.cpu.r[RCX] = 0x1'0000'0000;
    CHECK(general(t, code("e3 10", "jrcxz 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 2);
    CHECK(general(t, code("67 e3 10", "jecxz 0x0000000000010013")) == done);
    CHECK(t.cpu.rip == start + 0x13);
    t.cpu.r[RCX] = 0x5'0000'0001;
    CHECK(general(t, code("e2 10", "loop 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 0x12);
    CHECK(t.cpu.r[RCX] == 0x5'0000'0000);
    CHECK(general(t, code("67 e2 10", "loop 0x0000000000010013")) == done);
    CHECK(t.cpu.rip == start + 0x13);
    CHECK(t.cpu.r[RCX] == 0xFFFF'FFFF);
    t.cpu.r[RCX] = 1;
    CHECK(general(t, code("e2 10", "loop 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 2);
    CHECK(t.cpu.r[RCX] == 0);
    t.cpu.r[RCX] = 7;
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    CHECK(general(t, code("e0 10", "loopne 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 2);
    CHECK(t.cpu.r[RCX] == 6);
    CHECK(general(t, code("e1 10", "loope 0x0000000000010012")) == done);
    CHECK(t.cpu.rip == start + 0x12);
    CHECK(arithmetic_flags(t) == RFLAGS::ZF);
}

TEST_CASE("BOUND: signed, bounds included [SDM 2A BOUND]") {
    Harness t(Mode::protected32);
    t.cpu.r[RSI] = data;
    t.write(data, 0xFFFF'FFFE, 4); // -2
    t.write(data + 4, 5, 4);
    for (const auto& [index, inside] :
         {std::pair{0xFFFF'FFFEu, true}, std::pair{5u, true}, std::pair{0u, true},
          std::pair{0xFFFF'FFFDu, false}, std::pair{6u, false}}) {
        CAPTURE(index);
        t.cpu.r[RAX] = index;
        const Stop stop = general(t, code("62 06", "bound eax, qword ptr [esi]"));
        CHECK(stop == (inside ? done : exception(Vector::BR)));
    }
}

TEST_CASE("UD0, UD1, UD2 are #UD; NOP with a memory operand does not access it [SDM 2B UD, NOP]") {
    Harness t;
    t.cpu.r[RAX] = 0x4000'0000;
    CHECK(general(t, code("0f 0b", "ud2")) == undefined_opcode());
    CHECK(general(t, code("0f b9 c0", "ud1 eax, eax")) == undefined_opcode());
    CHECK(general(t, code("0f ff c0", "ud0 eax, eax")) == undefined_opcode());
    CHECK(general(t, code("0f 1f 00", "nop [rax], eax")) == done);
    CHECK(general(t, code("f3 0f 1e fa", "endbr64")) == done);
    CHECK(general(t, code("f3 90", "pause")) == done);
}

TEST_CASE("INT n, INT3, INT1, INTO: the handler, and the address that follows [SDM 2A INT n; SDM 3A 6.4.4]") {
    struct Row {
        const char *hex, *text;
        int vector;
        u64 pushed;
    };
    for (const Row& row :
         {Row{"cd 80", "int 0x80", 0x80, 2}, Row{"cc", "int3", 3, 1}, Row{"f1", "int1", 1, 1}}) {
        CAPTURE(row.text);
        Harness t;
        CHECK(t.run(code(row.hex, row.text)) == RunEnd::halted);
        CHECK(t.vector_reached() == row.vector);
        CHECK(t.read(t.cpu.r[RSP]) == start + row.pushed);
    }
    Harness t(Mode::protected32);
    t.cpu.flags.set_arithmetic(0);
    CHECK(general(t, code("ce", "into")) == done);
    CHECK(t.cpu.rip == start + 1);
    t.cpu.flags.set_arithmetic(RFLAGS::OF);
    CHECK(t.run(code("ce", "into")) == RunEnd::halted);
    CHECK(t.vector_reached() == 4);
}

TEST_CASE(
    "INT n at CPL 3 through a gate with DPL 0 is #GP, INT3 through one with DPL 3 is not [SDM 3A 6.12.1.2]") {
    Harness t;
    t.enter_ring3();
    CHECK(t.run(code("cd 80", "int 0x80")) == RunEnd::halted);
    CHECK(t.vector_reached() == 13);
    CHECK(t.read(t.cpu.r[RSP]) == 0x80 * 8 + 2);
    Harness u;
    u.enter_ring3();
    CHECK(u.run(code("cc", "int3")) == RunEnd::halted);
    CHECK(u.vector_reached() == 3);
}

TEST_CASE("INT n in virtual-8086 mode: IOPL, and redirection with CR4.VME [SDM 3B Table 20-2]") {
    Harness t(Mode::v8086);
    t.place(code("cd 21", "int 0x21"));
    SUBCASE("IOPL < 3 without VME: #GP(0)") { CHECK(general(t) == general_protection(0)); }
    SUBCASE("redirection bit 1 and IOPL < 3: #GP(0)") {
        t.cpu.control.cr4 |= CR4::VME;
        t.write(Harness::tss_address + 102, 0x68 + 32, 2);
        t.write(Harness::tss_address + 0x68 + 4, 0x02, 1); // vector 21H
        CHECK(general(t) == general_protection(0));
    }
    SUBCASE("redirection bit 0: the program's own handler, IF from VIF") {
        t.cpu.control.cr4 |= CR4::VME;
        t.write(Harness::tss_address + 102, 0x68 + 32, 2);
        t.cpu.flags.rest |= RFLAGS::VIF | RFLAGS::TF;
        const u64 top = t.cpu.r[RSP];
        CHECK(general(t) == done);
        CHECK(t.cpu.seg(Seg::CS).selector == Harness::handler_address / 16);
        CHECK(t.cpu.seg(Seg::CS).base == Harness::handler_address);
        CHECK(t.cpu.rip == 0x21 * 16);
        CHECK(t.cpu.r[RSP] == top - 6);
        const u64 image = t.read(0x2'0000 + top - 2, 2);
        CHECK((image & (RFLAGS::IF | RFLAGS::IOPL | RFLAGS::TF)) == (RFLAGS::IF | RFLAGS::IOPL | RFLAGS::TF));
        CHECK(t.read(0x2'0000 + top - 4, 2) == start / 16);
        CHECK(t.read(0x2'0000 + top - 6, 2) == 2);
        CHECK_FALSE(t.cpu.flag(RFLAGS::VIF));
        CHECK_FALSE(t.cpu.flag(RFLAGS::TF));
        CHECK(t.cpu.v8086());
    }
    SUBCASE("redirection bit 0 with IOPL = 3: IF itself is cleared") {
        t.cpu.control.cr4 |= CR4::VME;
        t.write(Harness::tss_address + 102, 0x68 + 32, 2);
        t.cpu.flags.rest |= RFLAGS::IOPL | RFLAGS::IF | RFLAGS::VIF;
        CHECK(general(t) == done);
        CHECK_FALSE(t.cpu.flag(RFLAGS::IF));
        CHECK(t.cpu.flag(RFLAGS::VIF));
    }
    SUBCASE("INT3 is not subject to IOPL") {
        t.place(code("cc", "int3"));
        CHECK(general(t) != general_protection(0));
    }
}

TEST_CASE("ENTER and LEAVE: a plain frame [SDM 2A ENTER, LEAVE]") {
    Harness t;
    const u64 top = t.cpu.r[RSP];
    t.cpu.r[RBP] = 0x1122'3344'5566'7788;
    CHECK(general(t, code("c8 20 00 00", "enter 0x20, 0x00")) == done);
    CHECK(t.read(top - 8) == 0x1122'3344'5566'7788);
    CHECK(t.cpu.r[RBP] == top - 8);
    CHECK(t.cpu.r[RSP] == top - 8 - 0x20);
    CHECK(general(t, code("c9", "leave")) == done);
    CHECK(t.cpu.r[RBP] == 0x1122'3344'5566'7788);
    CHECK(t.cpu.r[RSP] == top);
}

TEST_CASE("ENTER: nesting level copies the display [SDM 2A ENTER; SDM 1 6.6]") {
    Harness t(Mode::protected32);
    const u64 top = t.cpu.r[RSP];
    t.cpu.r[RBP] = data;
    t.write(data - 4, 0xAAAA'AAAA, 4);
    t.write(data - 8, 0xBBBB'BBBB, 4);
    CHECK(general(t, code("c8 10 00 23", "enter 0x10, 0x23")) == done); // level 35 modulo 32 = 3
    CHECK(t.read(top - 4, 4) == data);
    CHECK(t.read(top - 8, 4) == 0xAAAA'AAAA);
    CHECK(t.read(top - 12, 4) == 0xBBBB'BBBB);
    CHECK(t.read(top - 16, 4) == top - 4);
    CHECK(t.cpu.r[RBP] == top - 4);
    CHECK(t.cpu.r[RSP] == top - 16 - 0x10);
}

TEST_CASE("ENTER: the new stack pointer must be writable, else nothing has changed [SDM 2A ENTER]") {
    Harness t;
    t.cpu.r[RSP] = 0x20'0000 + 0x10;
    t.cpu.r[RBP] = 0x55;
    t.write(Harness::tables_address + 0x2000, 0); // the first 2 MBytes are not present
    t.place(code("c8 20 00 00", "enter 0x20, 0x00"), 0x20'0100);
    t.cpu.context_changed(true);
    CHECK(general(t).vector == Vector::PF);
    CHECK(t.cpu.r[RSP] == 0x20'0010);
    CHECK(t.cpu.r[RBP] == 0x55);
}

TEST_CASE("ENTER and LEAVE with 16-bit operands change BP alone [SDM 2A ENTER, LEAVE]") {
    Harness t;
    const u64 top = t.cpu.r[RSP];
    t.cpu.r[RBP] = 0x1111'2222'3333'4444;
    CHECK(general(t, code("66 c8 10 00 00", "enter 0x10, 0x00")) == done);
    CHECK(t.cpu.r[RSP] == top - 2 - 0x10);
    CHECK(t.cpu.r[RBP] == (0x1111'2222'3333'0000 | ((top - 2) & 0xFFFF)));
}
