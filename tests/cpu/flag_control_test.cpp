// Flag control: CLI and STI at every privilege, PUSHF and POPF in every mode, LAHF and SAHF.
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop done{};

void set_iopl(Harness& t, u64 iopl) {
    t.cpu.flags.rest = (t.cpu.flags.rest & ~u64{RFLAGS::IOPL}) | iopl << 12;
}

/// The value that PUSHF of `bytes` wrote at the top of the stack.
u64 pushed(Harness& t, unsigned bytes) { return t.read(t.cpu.seg(Seg::SS).base + t.cpu.r[RSP], bytes); }

/// Puts an image for POPF on the stack.
void put(Harness& t, u64 image, unsigned bytes) {
    t.write(t.cpu.seg(Seg::SS).base + t.cpu.r[RSP], image, bytes);
}

} // namespace

TEST_CASE("CLC, STC, CMC, CLD, STD, LAHF, SAHF [SDM 1 5.1.11]") {
    Harness t;
    t.cpu.flags.set_arithmetic(0);
    CHECK(general(t, code("f9", "stc")) == done);
    CHECK(t.cpu.rflags() == (RFLAGS::CF | RFLAGS::FIXED1));
    CHECK(general(t, code("f5", "cmc")) == done);
    CHECK(t.cpu.rflags() == RFLAGS::FIXED1);
    CHECK(general(t, code("fd", "std")) == done);
    CHECK(t.cpu.rflags() == (RFLAGS::DF | RFLAGS::FIXED1));
    CHECK(general(t, code("fc", "cld")) == done);
    CHECK(t.cpu.rflags() == RFLAGS::FIXED1);
    t.cpu.flags.set_arithmetic(RFLAGS::OF);
    t.cpu.r[RAX] = 0xFF34;
    CHECK(general(t, code("9e", "sahf")) == done);
    CHECK(t.cpu.rflags() == (RFLAGS::arithmetic | RFLAGS::FIXED1));
    t.cpu.flags.set_arithmetic(RFLAGS::OF | RFLAGS::ZF);
    CHECK(general(t, code("9f", "lahf")) == done);
    CHECK(t.cpu.r[RAX] == 0x4234);
    CHECK(general(t, code("f8", "clc")) == done);
}

TEST_CASE("SALC: AL is CF spread over eight bits") {
    Harness t(Mode::protected32);
    t.cpu.r[RAX] = 0x1234;
    t.cpu.flags.set_arithmetic(RFLAGS::CF);
    CHECK(general(t, code("d6", "salc")) == done);
    CHECK(t.cpu.r[RAX] == 0x12FF);
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    CHECK(general(t, code("d6", "salc")) == done);
    CHECK(t.cpu.r[RAX] == 0x1200);
}

TEST_CASE("CLI and STI: IOPL decides, or VIF stands in [SDM 2A CLI Table 3-7, 2B STI Table 4-19]") {
    struct Row {
        Mode mode;
        bool ring3;
        u64 iopl, cr4, before, after_cli, after_sti;
        bool faults;
    };
    constexpr u64 IF = RFLAGS::IF, VIF = RFLAGS::VIF;
    const Row rows[] = {
        {Mode::real, false, 0, 0, 0, 0, IF, false},
        {Mode::long64, false, 0, 0, VIF, VIF, IF | VIF, false},
        {Mode::long64, true, 3, 0, 0, 0, IF, false},
        {Mode::long64, true, 0, 0, IF, 0, 0, true},
        {Mode::protected32, true, 0, CR4::PVI, IF, IF, IF | VIF, false},
        {Mode::protected32, true, 2, CR4::VME, 0, 0, 0, true},
        {Mode::v8086, false, 3, 0, VIF, VIF, IF | VIF, false},
        {Mode::v8086, false, 0, CR4::VME, IF, IF, IF | VIF, false},
        {Mode::v8086, false, 0, CR4::PVI, 0, 0, 0, true},
    };
    for (const Row& row : rows) {
        CAPTURE(&row - rows);
        Harness t(row.mode);
        if (row.ring3) t.enter_ring3();
        set_iopl(t, row.iopl);
        t.cpu.control.cr4 |= row.cr4;
        t.cpu.flags.rest |= row.before;
        const Stop expected = row.faults ? general_protection(0) : done;
        CHECK(general(t, code("fa", "cli")) == expected);
        if (!row.faults) CHECK((t.cpu.flags.rest & (IF | VIF)) == row.after_cli);
        CHECK(general(t, code("fb", "sti")) == expected);
        if (!row.faults) CHECK((t.cpu.flags.rest & (IF | VIF)) == row.after_sti);
    }
}

TEST_CASE("STI with VIP = 1 is #GP(0) where it would set VIF [SDM 2B STI]") {
    Harness t(Mode::v8086);
    t.cpu.control.cr4 |= CR4::VME;
    t.cpu.flags.rest |= RFLAGS::VIP;
    CHECK(general(t, code("fb", "sti")) == general_protection(0));
    CHECK(general(t, code("fa", "cli")) == done);
}

TEST_CASE("PUSHF: VM and RF are not in the image [SDM 2B PUSHF/PUSHFD]") {
    Harness t;
    t.cpu.flags.set_arithmetic(RFLAGS::ZF | RFLAGS::OF);
    t.cpu.flags.rest |= RFLAGS::RF | RFLAGS::ID | RFLAGS::DF;
    CHECK(general(t, code("9c", "pushfq")) == done);
    CHECK(pushed(t, 8) == (RFLAGS::ZF | RFLAGS::OF | RFLAGS::ID | RFLAGS::DF | RFLAGS::FIXED1));
    const u64 rsp = t.cpu.r[RSP];
    CHECK(general(t, code("66 9c", "pushf")) == done);
    CHECK(t.cpu.r[RSP] == rsp - 2);
}

TEST_CASE("POPF: what each privilege may change [SDM 2B POPF Table 4-16]") {
    constexpr u64 everything = RFLAGS::all;
    constexpr u64 always =
        RFLAGS::arithmetic | RFLAGS::TF | RFLAGS::DF | RFLAGS::NT | RFLAGS::AC | RFLAGS::ID;
    struct Row {
        Mode mode;
        bool ring3;
        u64 iopl;
        unsigned bytes;
        u64 changed;
    };
    const Row rows[] = {
        {Mode::real, false, 0, 2, (always | RFLAGS::IF | RFLAGS::IOPL) & 0xFFFF},
        {Mode::long64, false, 0, 8, always | RFLAGS::IF | RFLAGS::IOPL},
        {Mode::long64, false, 0, 2, (always | RFLAGS::IF | RFLAGS::IOPL) & 0xFFFF},
        {Mode::long64, true, 0, 8, always},
        {Mode::long64, true, 3, 8, always | RFLAGS::IF},
        {Mode::protected32, true, 2, 4, always},
        {Mode::v8086, false, 3, 2, (always | RFLAGS::IF) & 0xFFFF},
    };
    for (const Row& row : rows) {
        CAPTURE(&row - rows);
        Harness t(row.mode);
        if (row.ring3) t.enter_ring3();
        set_iopl(t, row.iopl);
        t.cpu.flags.set_arithmetic(0);
        const u64 before = t.cpu.rflags();
        put(t, everything, row.bytes);
        const u64 rsp = t.cpu.r[RSP];
        const char* text = row.bytes == 2 ? "popf" : row.bytes == 4 ? "popfd" : "popfq";
        CHECK(general(t, code(row.bytes == 2 && row.mode == Mode::long64 ? "66 9d" : "9d", text)) == done);
        CHECK((t.cpu.rflags() ^ before) == (row.changed & ~before));
        CHECK(t.cpu.r[RSP] == rsp + row.bytes);
    }
}

TEST_CASE("PUSHF and POPF in virtual-8086 mode with IOPL < 3: #GP(0), or VIF for IF [SDM 3B 20.3.2]") {
    Harness t(Mode::v8086);
    CHECK(general(t, code("9c", "pushf")) == general_protection(0));
    CHECK(general(t, code("9d", "popf")) == general_protection(0));
    t.cpu.control.cr4 |= CR4::VME;
    CHECK(general(t, code("66 9c", "pushfd")) == general_protection(0));
    CHECK(general(t, code("66 9d", "popfd")) == general_protection(0));
    t.cpu.flags.rest |= RFLAGS::VIF;
    CHECK(general(t, code("9c", "pushf")) == done);
    CHECK((pushed(t, 2) & (RFLAGS::IF | RFLAGS::IOPL)) == (RFLAGS::IF | RFLAGS::IOPL));
    put(t, 0, 2);
    CHECK(general(t, code("9d", "popf")) == done);
    CHECK_FALSE(t.cpu.flag(RFLAGS::VIF));
    CHECK(t.cpu.iopl() == 0);
    put(t, RFLAGS::IF, 2);
    CHECK(general(t, code("9d", "popf")) == done);
    CHECK(t.cpu.flag(RFLAGS::VIF));
    CHECK_FALSE(t.cpu.flag(RFLAGS::IF));
    t.cpu.flags.rest |= RFLAGS::VIP;
    put(t, RFLAGS::IF, 2);
    const u64 rsp = t.cpu.r[RSP];
    CHECK(general(t, code("9d", "popf")) == general_protection(0));
    put(t, RFLAGS::TF, 2);
    CHECK(general(t, code("9d", "popf")) == general_protection(0));
    CHECK(t.cpu.r[RSP] == rsp);
}
