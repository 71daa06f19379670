// x87 instructions: what surrounds the arithmetic. Checks and faults, pending exceptions, the environment in
// all its formats, the pointers to the last instruction; and some results that the manual spells out.
#include "cpu/softfloat80_fixed.hpp"
#include "cpu/x87_words.hpp"
#include "tests/cpu/x87_operands.hpp"
#include "tests/support/general.hpp"

#include <cstring>

using namespace exeunt;
using namespace exeunt::test;
using softfloat80::Extended;

namespace {

const Stop done{};
const Stop nm = exception(Vector::NM);
const Stop mf = exception(Vector::MF);
constexpr u64 data = Harness::data_address;

struct X87 : Harness {
    explicit X87(Mode mode = Mode::long64) : Harness(mode) {
        cpu.x87 = X87State{}; // as after FNINIT; RESET leaves another state
        cpu.control.cr0 |= CR0::NE | CR0::MP;
        cpu.r[RBX] = data;
        for (u64 at = 0; at < 128; at += 8) write(data + at, 0xCCCC'CCCC'CCCC'CCCC);
    }
    Stop run_one(const char* bytes, const char* text = "") { return general(*this, code(bytes, text)); }
    void push(Extended value) {
        cpu.x87.set_top(cpu.x87.top() - 1);
        cpu.x87.st[cpu.x87.top()] = value;
        cpu.x87.empty = static_cast<u8>(cpu.x87.empty & ~(1u << cpu.x87.top()));
    }
    void push(i64 value) { push(softfloat80::from_integer(value)); }
    Extended st(unsigned i) const { return cpu.x87.st[(cpu.x87.top() + i) & 7]; }
    bool is_empty(unsigned i) const { return cpu.x87.empty >> ((cpu.x87.top() + i) & 7) & 1; }
    /// Leaves #P pending and unmasked.
    void make_pending() {
        cpu.x87.control = 0x035F;
        cpu.x87.status |= FSW::PE | FSW::ES | FSW::B;
    }
};

bool equal(const Extended& a, const Extended& b) {
    return a.significand == b.significand && a.sign_exponent == b.sign_exponent;
}
const Extended one_third{0xAAAA'AAAA'AAAA'AAAB, 0x3FFD};

} // namespace

TEST_CASE(
    "x87: CR0.EM or CR0.TS makes x87 instructions #NM, FWAIT only TS and MP together [SDM 3A Table 2-2]") {
    X87 t;
    t.cpu.control.cr0 &= ~(CR0::MP | CR0::TS | CR0::EM);
    struct Row {
        u64 bits;
        Stop x87, fwait;
    };
    for (const Row& row :
         {Row{0, done, done}, Row{CR0::TS, nm, done}, Row{CR0::MP, done, done},
          Row{CR0::MP | CR0::TS, nm, nm}, Row{CR0::EM, nm, done}, Row{CR0::EM | CR0::MP, nm, done},
          Row{CR0::EM | CR0::TS, nm, done}, Row{CR0::EM | CR0::MP | CR0::TS, nm, nm}}) {
        CAPTURE(row.bits);
        t.cpu.control.cr0 = (t.cpu.control.cr0 & ~(CR0::MP | CR0::TS | CR0::EM)) | row.bits;
        CHECK(t.run_one("d9 e8", "fld1") == row.x87);
        CHECK(t.run_one("db e3", "fninit") == row.x87);
        CHECK(t.run_one("9b", "fwait") == row.fwait);
    }
}

TEST_CASE("x87: an unmasked exception waits for the next waiting instruction [SDM 1 8.6, 8.7.1]") {
    X87 t;
    t.cpu.x87.control = 0x037B; // #Z is not masked
    t.push(1);
    t.push(0);
    CHECK(t.run_one("de f9", "fdivp st1, st0") == done);
    CHECK((t.cpu.x87.status & (FSW::ZE | FSW::ES | FSW::B)) == (FSW::ZE | FSW::ES | FSW::B));
    CHECK(t.cpu.x87.top() == 6); // neither result nor pop
    CHECK(equal(t.st(1), softfloat80::one));
    SUBCASE("which is not executed") {
        CHECK(t.run_one("d9 e8", "fld1") == mf);
        CHECK(t.cpu.x87.top() == 6);
        CHECK(t.run_one("9b", "fwait") == mf);
        CHECK(t.run_one("d9 d0", "fnop") == mf);
        CHECK(t.run_one("d9 2b", "fldcw [rbx]") == mf);
        CHECK(t.run_one("d9 23", "fldenv [rbx]") == mf);
    }
    SUBCASE("not for the others") {
        CHECK(t.run_one("df e0", "fnstsw ax") == done);
        CHECK(t.cpu.gpr(RAX, 2) == t.cpu.x87.status);
        CHECK(t.run_one("d9 3b", "fnstcw [rbx]") == done);
        CHECK(t.run_one("d9 33", "fnstenv [rbx]") == done);
        CHECK(t.run_one("db e0", "feni8087_nop") == done);
        CHECK(t.run_one("db e2", "fnclex") == done);
        CHECK((t.cpu.x87.status & ~FSW::TOP) == 0);
        CHECK(t.run_one("9b", "fwait") == done);
    }
    SUBCASE("nor once it is masked; unmasked again it is back") {
        t.write(data, 0x037F, 2);
        t.cpu.x87.status &= static_cast<u16>(~(FSW::ES | FSW::B));
        CHECK(t.run_one("d9 2b", "fldcw [rbx]") == done);
        CHECK(t.run_one("9b", "fwait") == done);
        t.write(data, 0x037B, 2);
        CHECK(t.run_one("d9 2b", "fldcw [rbx]") == done);
        CHECK(t.run_one("9b", "fwait") == mf);
    }
    SUBCASE("delivered as vector 16") {
        t.run(code("d9 e8 f4", "fld1; hlt"));
        CHECK(t.vector_reached() == 16);
    }
}

TEST_CASE("x87: with CR0.NE = 0 a pending exception is not modelled, and says so [SDM 1 8.7.2]") {
    X87 t;
    t.cpu.control.cr0 &= ~CR0::NE;
    t.make_pending();
    CHECK(t.run_one("db e2", "fnclex") == done);
    t.make_pending();
    CHECK(t.run_one("9b", "fwait").kind == Stop::Kind::unmodelled);
    CHECK(t.cpu.unmodelled_reason().find("FERR#") != std::string::npos);
}

TEST_CASE("x87: memory faults come before any change") {
    X87 t;
    t.push(1);
    t.cpu.r[RBX] = u64{1} << 40; // not mapped
    const u16 status = t.cpu.x87.status;
    for (const char* bytes :
         {"dd 03", "dd 1b", "db 3b", "df 3b", "df 33", "dc 03", "d9 33", "dd 33", "dd 23", "df 23"}) {
        CAPTURE(bytes);
        const Stop stop = t.run_one(bytes);
        CHECK(stop.kind == Stop::Kind::exception);
        CHECK(stop.vector == Vector::PF);
        CHECK(t.cpu.x87.status == status);
        CHECK(!t.is_empty(0));
        CHECK(t.cpu.x87.control == 0x037F);
    }
}

TEST_CASE("x87: an unmasked exception of a store leaves memory and stack alone [SDM 1 8.5.4, 8.5.5]") {
    X87 t;
    const u64 before = t.read(data);
    SUBCASE("overflow") {
        t.cpu.x87.control = 0x0377;
        t.push(Extended{softfloat80::integer_bit, 0x7000});
        CHECK(t.run_one("dd 1b", "fstp [rbx]") == done);
        CHECK((t.cpu.x87.status & FSW::exceptions) == FSW::OE);
    }
    SUBCASE("underflow, also of an exact result") {
        t.cpu.x87.control = 0x036F;
        t.push(Extended{softfloat80::integer_bit, 16383 - 1074});
        CHECK(t.run_one("dd 1b", "fstp [rbx]") == done);
        CHECK((t.cpu.x87.status & FSW::exceptions) == FSW::UE);
    }
    SUBCASE("invalid operation") {
        t.cpu.x87.control = 0x037E;
        t.push(Extended{softfloat80::integer_bit, 0x4100});
        CHECK(t.run_one("df 3b", "fistp [rbx]") == done);
        CHECK((t.cpu.x87.status & FSW::exceptions) == FSW::IE);
    }
    CHECK((t.cpu.x87.status & FSW::ES) != 0);
    CHECK(t.cpu.x87.top() == 7);
    CHECK(!t.is_empty(0));
    CHECK(t.read(data) == before);
}

TEST_CASE("x87: unmasked overflow and underflow adjust the exponent by 24576 [SDM 1 8.5.4, 8.5.5]") {
    X87 t;
    t.cpu.x87.control = 0x0367;
    t.push(Extended{softfloat80::integer_bit, 0x7FFE});
    CHECK(t.run_one("dc c8", "fmul st0, st0") == done);
    CHECK(equal(t.st(0), {softfloat80::integer_bit, 0x7FFE + 0x7FFE - 16383 - 24576}));
    CHECK((t.cpu.x87.status & FSW::exceptions) == FSW::OE);
    t.cpu.x87 = X87State{};
    t.cpu.x87.control = 0x0367;
    t.push(Extended{softfloat80::integer_bit, 1});
    CHECK(t.run_one("dc c8", "fmul st0, st0") == done);
    CHECK(equal(t.st(0), {softfloat80::integer_bit, 1 + 1 - 16383 + 24576}));
    CHECK((t.cpu.x87.status & FSW::exceptions) == FSW::UE);
}

TEST_CASE("x87: stack faults set SF, and C1 tells which it was [SDM 1 8.5.1.1]") {
    X87 t;
    CHECK(t.run_one("d9 fa", "fsqrt") == done);
    CHECK((t.cpu.x87.status & (FSW::exceptions | FSW::SF | FSW::C1)) == (FSW::IE | FSW::SF));
    CHECK(equal(t.st(0), softfloat80::default_nan));
    t.cpu.x87 = X87State{};
    for (int i = 0; i < 8; ++i) CHECK(t.run_one("d9 ee", "fldz") == done);
    CHECK(t.cpu.x87.status == 0);
    CHECK(t.run_one("d9 ee", "fldz") == done);
    CHECK((t.cpu.x87.status & (FSW::exceptions | FSW::SF | FSW::C1)) == (FSW::IE | FSW::SF | FSW::C1));
    CHECK(equal(t.st(0), softfloat80::default_nan));
    CHECK(t.cpu.x87.top() == 7);
}

TEST_CASE("x87: constants follow rounding control [SDM 2A FLD1]") {
    X87 t;
    struct Row {
        const char* bytes;
        u64 down, nearest, up;
        u16 exponent;
    };
    for (const Row& row :
         {Row{"d9 eb", 0xC90F'DAA2'2168'C234, 0xC90F'DAA2'2168'C235, 0xC90F'DAA2'2168'C235, 0x4000},
          Row{"d9 e9", 0xD49A'784B'CD1B'8AFE, 0xD49A'784B'CD1B'8AFE, 0xD49A'784B'CD1B'8AFF, 0x4000},
          Row{"d9 ed", 0xB172'17F7'D1CF'79AB, 0xB172'17F7'D1CF'79AC, 0xB172'17F7'D1CF'79AC, 0x3FFE}}) {
        const u64 expected[] = {row.nearest, row.down, row.up, row.down};
        for (unsigned rc = 0; rc < 4; ++rc) {
            t.cpu.x87 = X87State{};
            t.cpu.x87.control = static_cast<u16>(0x037F | rc << 10);
            CHECK(t.run_one(row.bytes) == done);
            CHECK(equal(t.st(0), {expected[rc], row.exponent}));
            CHECK((t.cpu.x87.status & FSW::exceptions) == 0);
        }
    }
}

TEST_CASE("x87: pointers and opcode of the last non-control instruction [SDM 1 8.1.8, 8.1.9]") {
    X87 t;
    t.write(data, 0x3FF0'0000'0000'0000);
    CHECK(t.run_one("dd 03", "fld [rbx]") == done);
    CHECK(t.cpu.x87.instruction_pointer == Harness::code_address);
    CHECK(t.cpu.x87.instruction_selector == Harness::code64_0);
    CHECK(t.cpu.x87.data_pointer == data);
    CHECK(t.cpu.x87.data_selector == Harness::data_0);
    CHECK(t.cpu.x87.opcode == 0x503);
    t.place(code("d9 fa", "fsqrt"), Harness::code_address + 0x40);
    CHECK(general(t) == done);
    CHECK(t.cpu.x87.instruction_pointer == Harness::code_address + 0x40);
    CHECK(t.cpu.x87.data_pointer == data);
    CHECK(t.cpu.x87.opcode == 0x1FA);
    // Control instructions leave them.
    CHECK(t.run_one("d9 3b", "fnstcw [rbx]") == done);
    CHECK(t.run_one("9b", "fwait") == done);
    CHECK(t.run_one("db e2", "fnclex") == done);
    CHECK(t.cpu.x87.opcode == 0x1FA);
    CHECK(t.cpu.x87.instruction_pointer == Harness::code_address + 0x40);
}

TEST_CASE("x87: the environment in protected mode, 32 and 16 bits [SDM 1 Figures 8-9, 8-11]") {
    X87 t(Mode::protected32);
    t.cpu.x87.status = 0x4100;
    t.cpu.x87.set_top(5);
    t.cpu.x87.empty = 0x1F;
    t.cpu.x87.st[5] = softfloat80::one;
    t.cpu.x87.st[6] = softfloat80::zero(true);
    t.cpu.x87.st[7] = softfloat80::infinity(false);
    t.cpu.x87.control = 0x0272;
    t.cpu.x87.opcode = 0x5A5;
    t.cpu.x87.instruction_pointer = 0x1234'5678;
    t.cpu.x87.instruction_selector = 0x8;
    t.cpu.x87.data_pointer = 0x9ABC'DEF0;
    t.cpu.x87.data_selector = 0x10;
    const X87State before = t.cpu.x87;
    SUBCASE("32 bits") {
        CHECK(t.run_one("d9 33", "fnstenv [ebx]") == done);
        CHECK(t.read(data, 4) == 0xFFFF'0272);
        CHECK(t.read(data + 4, 4) == 0xFFFF'6900);
        CHECK(t.read(data + 8, 4) == 0xFFFF'93FF); // special, zero, valid, then empty ones
        CHECK(t.read(data + 12, 4) == 0x1234'5678);
        CHECK(t.read(data + 16, 4) == 0x05A5'0008);
        CHECK(t.read(data + 20, 4) == 0x9ABC'DEF0);
        CHECK(t.read(data + 24, 4) == 0xFFFF'0010);
        CHECK(t.read(data + 28, 4) == 0xCCCC'CCCC);
        CHECK(t.cpu.x87.control == 0x027F); // all masked afterwards
        CHECK(t.run_one("db e3", "fninit") == done);
        CHECK(t.run_one("d9 23", "fldenv [ebx]") == done);
        CHECK(t.cpu.x87.opcode == before.opcode);
        CHECK(t.cpu.x87.instruction_selector == before.instruction_selector);
        CHECK(t.cpu.x87.data_pointer == before.data_pointer);
    }
    SUBCASE("16 bits") {
        CHECK(t.run_one("66 d9 33", "fnstenv [ebx]") == done);
        CHECK(t.read(data) == 0x5678'93FF'6900'0272);
        CHECK(t.read(data + 8, 4) == 0xDEF0'0008);
        CHECK(t.read(data + 12, 4) == 0xCCCC'0010);
        CHECK(t.run_one("db e3", "fninit") == done);
        CHECK(t.run_one("66 d9 23", "fldenv [ebx]") == done);
        CHECK(t.cpu.x87.instruction_pointer == 0x5678);
        CHECK(t.cpu.x87.data_selector == 0x10);
    }
    CHECK(t.cpu.x87.control == before.control);
    CHECK(t.cpu.x87.status == before.status);
    CHECK(t.cpu.x87.empty == before.empty);
}

TEST_CASE("x87: the environment in real-address and virtual-8086 mode has linear addresses [SDM 1 Figures "
          "8-10, 8-12]") {
    for (const Mode mode : {Mode::real, Mode::v8086}) {
        X87 t(mode);
        t.cpu.r[RBX] = 0x2000;
        t.cpu.x87.opcode = 0x5A5;
        t.cpu.x87.instruction_pointer = 0x5678;
        t.cpu.x87.instruction_selector = 0x1000;
        t.cpu.x87.data_pointer = 0x9ABC;
        t.cpu.x87.data_selector = 0x2000;
        SUBCASE("16 bits") {
            CHECK(t.run_one("d9 37", "fnstenv [bx]") == done);
            CHECK(t.read(0x2000) == 0x5678'FFFF'0000'037F);
            CHECK(t.read(0x2008, 4) == 0x9ABC'15A5);
            CHECK(t.read(0x200C, 2) == 0x2000);
            CHECK(t.run_one("d9 27", "fldenv [bx]") == done);
        }
        SUBCASE("32 bits") {
            CHECK(t.run_one("66 d9 37", "fnstenv [bx]") == done);
            CHECK(t.read(0x200C, 4) == 0xFFFF'5678);
            CHECK(t.read(0x2010, 4) == 0x0000'15A5);
            CHECK(t.read(0x2014, 4) == 0xFFFF'9ABC);
            CHECK(t.read(0x2018, 4) == 0x0000'2000);
            CHECK(t.run_one("66 d9 27", "fldenv [bx]") == done);
        }
        CHECK(t.cpu.x87.instruction_pointer == 0x1'5678);
        CHECK(t.cpu.x87.data_pointer == 0x2'9ABC);
        CHECK(t.cpu.x87.opcode == 0x5A5);
    }
}

TEST_CASE("x87: FNSAVE stores ST(0) first and initialises, FRSTOR brings all back [SDM 2A FSAVE]") {
    X87 t;
    for (int i = 1; i <= 5; ++i) t.push(i);
    t.cpu.x87.control = 0x0B7F;
    const X87State before = t.cpu.x87;
    CHECK(t.run_one("dd 33", "fnsave [rbx]") == done);
    CHECK(t.read(data + 28) == 0xA000'0000'0000'0000); // 5
    CHECK(t.read(data + 36, 2) == 0x4001);
    CHECK(t.read(data + 108, 4) == 0xCCCC'CCCC);
    CHECK(t.cpu.x87.control == 0x037F);
    CHECK(t.cpu.x87.status == 0);
    CHECK(t.cpu.x87.empty == 0xFF);
    CHECK(t.run_one("dd 23", "frstor [rbx]") == done);
    CHECK(t.cpu.x87.control == before.control);
    CHECK(t.cpu.x87.status == before.status);
    CHECK(t.cpu.x87.empty == before.empty);
    for (unsigned i = 0; i < 8; ++i) CHECK(equal(t.cpu.x87.st[i], before.st[i]));
}

TEST_CASE("x87: loading an environment with an unmasked exception makes it pending [SDM 2A FLDENV]") {
    X87 t;
    t.write(data, 0x035F, 4);
    t.write(data + 4, FSW::PE, 4);
    t.write(data + 8, 0xFFFF, 4);
    CHECK(t.run_one("d9 23", "fldenv [rbx]") == done);
    CHECK(t.cpu.x87.status == (FSW::PE | FSW::ES | FSW::B));
    CHECK(t.run_one("d9 e8", "fld1") == mf);
}

TEST_CASE("x87: a comparison with an unmasked #I leaves the condition codes alone [SDM 2A FCOM, FCOMI]") {
    X87 t;
    t.cpu.x87.control = 0x037E;
    t.push(1);
    t.push(softfloat80::default_nan);
    t.cpu.x87.status |= FSW::C3;
    CHECK(t.run_one("d8 d1", "fcom st1") == done);
    CHECK((t.cpu.x87.status & FSW::conditions) == FSW::C3);
    CHECK((t.cpu.x87.status & FSW::ES) != 0);
    CHECK(t.run_one("db e2", "fnclex") == done);
    t.cpu.flags.set_arithmetic(RFLAGS::CF | RFLAGS::SF | RFLAGS::OF);
    CHECK(t.run_one("db f1", "fcomi st0, st1") == done);
    CHECK(t.cpu.flags.arithmetic() == RFLAGS::CF);
    CHECK(t.run_one("db e2", "fnclex") == done);
    CHECK(t.run_one("db e9", "fucomi st0, st1") == done); // a quiet NaN is no invalid operand
    CHECK(t.cpu.flags.arithmetic() == (RFLAGS::CF | RFLAGS::PF | RFLAGS::ZF));
    CHECK((t.cpu.x87.status & FSW::ES) == 0);
}

TEST_CASE("x87: a block of several instructions") {
    X87 t;
    // fld1; fild word [rbx]; fdivp st1, st0; fst st2; fstp qword [rbx+8]; hlt
    t.write(data, 3, 2);
    t.run(code("d9 e8 df 03 de f9 dd d2 dd 5b 08 f4",
               "fld1; fild [rbx]; fdivp st1, st0; fst st2; fstp [rbx+0x08]; hlt"));
    CHECK(t.read(data + 8) == 0x3FD5'5555'5555'5555);
    CHECK(t.cpu.x87.top() == 0);
    CHECK(equal(t.cpu.x87.st[1], one_third));
    CHECK((t.cpu.x87.status & (FSW::exceptions | FSW::C1)) == FSW::PE);
}

TEST_CASE("x87: sines are reduced with a pi of 66 bits [SDM 1 8.3.8]") {
    softfloat80::Environment e;
    // The 64-bit pi exceeds the 66-bit one by 2^-64.
    const auto r =
        softfloat80::trigonometric({0xC90F'DAA2'2168'C235, 0x4000}, softfloat80::Function::sine, e);
    CHECK(equal(r.sine, {softfloat80::integer_bit, static_cast<u16>(0x8000 | (16383 - 64))}));
    CHECK(softfloat80::trigonometric({softfloat80::integer_bit, 16383 + 63}, softfloat80::Function::sine, e)
              .out_of_range);
    CHECK(!softfloat80::trigonometric({~u64{0}, 16383 + 62}, softfloat80::Function::sine, e).out_of_range);
}

TEST_CASE("x87: the short way to sines and logarithms gives what the definition gives") {
    constexpr u64 seed = 0x387;
    INFO("seed ", seed);
    X87Generator g(seed);
    const auto both_ways = [](auto compute, u16 control) {
        softfloat80::Environment shorter{control}, defined{control};
        const Extended a = compute(shorter);
        softfloat80::fixed::enabled = false;
        const Extended b = compute(defined);
        softfloat80::fixed::enabled = true;
        return equal(a, b) && shorter.raised == defined.raised && shorter.up == defined.up;
    };
    for (int n = 0; n < 20'000; ++n) {
        Extended x = g.number();
        if (n % 2) x.sign_exponent = static_cast<u16>((x.sign_exponent & 0x8000) | (16383 - 4 + g.below(8)));
        const Extended y = g.number();
        const auto control = static_cast<u16>(FCW::at_reset | g.below(4) << 10);
        using softfloat80::Environment;
        using softfloat80::Function;
        CAPTURE(x.sign_exponent);
        CAPTURE(x.significand);
        CAPTURE(y.significand);
        REQUIRE(both_ways([&](Environment& e) { return trigonometric(x, Function::sine, e).sine; }, control));
        REQUIRE(
            both_ways([&](Environment& e) { return trigonometric(x, Function::cosine, e).cosine; }, control));
        x.sign_exponent &= 0x7FFF;
        if (n % 4 == 1) x = {softfloat80::integer_bit | g.bits() >> 1 >> g.below(40), 16383};
        if (n % 4 == 3) x = {~(g.bits() >> 1 >> g.below(40)), 16382};
        REQUIRE(both_ways([&](Environment& e) { return y_log2_x(y, x, e); }, control));
    }
}

TEST_CASE("x87: faults of a destination come before an exception that keeps the result back [SDM 3A Table 6-2]") {
    X87 t;
    t.cpu.x87.control = 0x037E; // #I is not masked, and the stack is empty
    t.cpu.r[RBX] = u64{1} << 40;
    const Stop fault = page_fault(2, u64{1} << 40);
    CHECK(t.run_one("db 13", "fist [rbx]") == fault);
    CHECK(t.run_one("dd 1b", "fstp [rbx]") == fault);
    CHECK(t.run_one("db 3b", "fstp [rbx]") == fault);
    CHECK(t.run_one("df 33", "fbstp [rbx]") == fault);
    CHECK(t.cpu.x87.status == 0);
    t.cpu.r[RBX] = data;
    CHECK(t.run_one("db 13") == done);
    CHECK(t.cpu.x87.status == (FSW::IE | FSW::SF | FSW::ES | FSW::B));
    CHECK(t.read(data) == 0xCCCC'CCCC'CCCC'CCCC);
}

TEST_CASE("x87: what alignment checking asks of 80 bits and of environments [SDM 3A Table 6-7]") {
    X87 t;
    t.push(1);
    t.enter_ring3();
    t.cpu.control.cr0 |= CR0::AM;
    t.cpu.flags.rest |= RFLAGS::AC;
    t.cpu.mode_changed();
    const Stop ac = exception(Vector::AC, 0);
    t.cpu.r[RBX] = data + 4;
    CHECK(t.run_one("db 2b", "fld [rbx]") == ac);
    CHECK(t.run_one("df 33", "fbstp [rbx]") == ac);
    CHECK(t.run_one("d9 33", "fnstenv [rbx]") == done);
    t.cpu.r[RBX] = data + 2;
    CHECK(t.run_one("d9 33") == ac);
    CHECK(t.run_one("66 d9 33", "fnstenv [rbx]") == done);
    t.cpu.r[RBX] = data + 8;
    CHECK(t.run_one("db 2b") == done);
}
