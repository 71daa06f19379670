// Binary and decimal arithmetic, logic, shifts, bits and bytes through their general handlers. The arithmetic
// itself is tested in alu_test.cpp; here: operands, sizes, what faults, what is left alone.
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop done{};
const Stop divide_error = exception(Vector::DE);

constexpr u64 CF = RFLAGS::CF, PF = RFLAGS::PF, AF = RFLAGS::AF, ZF = RFLAGS::ZF, SF = RFLAGS::SF,
              OF = RFLAGS::OF;
constexpr u64 upper = 0xAAAA'BBBB'0000'0000;

/// What an instruction makes of RAX, RCX, RDX and the arithmetic flags.
struct Row {
    const char* hex;
    const char* text;
    u64 rax, rcx, rdx, flags;
    u64 rax_after, rdx_after, flags_after;
    u64 compared = RFLAGS::arithmetic;
};

void check(Mode mode, std::initializer_list<Row> rows) {
    for (const Row& row : rows) {
        CAPTURE(row.text);
        CAPTURE(row.rax);
        Harness t(mode);
        t.cpu.r[RAX] = row.rax;
        t.cpu.r[RCX] = row.rcx;
        t.cpu.r[RDX] = row.rdx;
        t.cpu.flags.set_arithmetic(row.flags);
        CHECK(general(t, code(row.hex, row.text)) == done);
        CHECK(t.cpu.r[RAX] == row.rax_after);
        CHECK(t.cpu.r[RDX] == row.rdx_after);
        CHECK((arithmetic_flags(t) & row.compared) == (row.flags_after & row.compared));
    }
}

} // namespace

TEST_CASE(
    "arithmetic: sizes of operands, sign-extended immediates, upper halves [SDM 2A ADD; SDM 1 3.4.1.1]") {
    check(Mode::long64,
          {
              {"00 c8", "add al, cl", upper | 0x12FF, 1, 0, 0, upper | 0x1200, 0, CF | PF | AF | ZF},
              {"00 cc", "add ah, cl", upper | 0xFF12, 1, 0, 0, upper | 0x0012, 0, CF | PF | AF | ZF},
              {"66 01 c8", "add ax, cx", upper | 0x1'7FFF, 1, 0, 0, upper | 0x1'8000, 0, OF | SF | AF | PF},
              {"01 c8", "add eax, ecx", upper | 5, 6, 0, 0, 11, 0, 0},
              {"48 01 c8", "add rax, rcx", upper, upper, 0, 0, upper + upper, 0, CF | OF | PF},
              {"83 c0 ff", "add eax, 0xFFFFFFFF", upper | 5, 0, 0, 0, 4, 0, CF | AF},
              {"48 83 c0 ff", "add rax, 0xFFFFFFFFFFFFFFFF", 0, 0, 0, 0, ~u64{0}, 0, SF | PF},
              {"48 05 00 00 00 80", "add rax, 0xFFFFFFFF80000000", 0, 0, 0, 0, 0xFFFF'FFFF'8000'0000, 0,
               SF | PF},
              {"11 c8", "adc eax, ecx", 1, 2, 0, CF, 4, 0, 0},
              {"19 c8", "sbb eax, ecx", 5, 2, 0, CF, 2, 0, 0},
              {"29 c8", "sub eax, ecx", 5, 7, 0, 0, 0xFFFF'FFFE, 0, CF | SF | AF},
              {"38 c8", "cmp al, cl", 5, 5, 0, 0, 5, 0, ZF | PF},
              {"fe c0", "inc al", 0xFF, 0, 0, CF, 0, 0, CF | ZF | PF | AF},
              {"48 ff c8", "dec rax", 0, 0, 0, CF, ~u64{0}, 0, CF | SF | PF | AF},
              {"f7 d8", "neg eax", upper | 1, 0, 0, 0, 0xFFFF'FFFF, 0, CF | SF | PF | AF},
              {"66 0f 38 f6 c1", "adcx eax, ecx", 0xFFFF'FFFF, 0, 0, CF | OF | ZF, 0, 0, CF | OF | ZF},
              {"f3 0f 38 f6 c1", "adox eax, ecx", 1, 2, 0, CF | OF | SF, 4, 0, CF | SF},
          });
}

TEST_CASE("multiplication: where the product goes, CF and OF [SDM 2B MUL, 2A IMUL]") {
    constexpr u64 defined = CF | OF;
    check(Mode::long64,
          {
              {"f6 e1", "mul cl", upper | 0x12FF, 0xFF, 7, 0, upper | 0xFE01, 7, CF | OF, defined},
              {"66 f7 e1", "mul cx", 0x8000, 2, upper, 0, 0, upper | 1, CF | OF, defined},
              {"f7 e1", "mul ecx", upper | 3, 5, upper, CF, 15, 0, 0, defined},
              {"48 f7 e1", "mul rcx", ~u64{0}, 2, 0, 0, ~u64{1}, 1, CF | OF, defined},
              {"f6 e9", "imul cl", 0xFE, 3, 0, 0, 0xFFFA, 0, 0, defined},
              {"48 f7 e9", "imul rcx", static_cast<u64>(-2), 3, 0, CF, static_cast<u64>(-6), ~u64{0}, 0,
               defined},
              {"0f af c1", "imul eax, ecx", upper | 0x1'0000, 0x1'0000, 0, 0, 0, 0, CF | OF, defined},
              {"6b c1 fe", "imul eax, ecx, 0xFFFFFFFE", 0, 3, 0, 0, 0xFFFF'FFFA, 0, 0, defined},
              {"c4 e2 fb f6 d1", "mulx rdx, rax, rcx", 0, 3, ~u64{0}, CF | ZF, static_cast<u64>(-3), 2,
               CF | ZF},
              {"c4 e2 fb f6 c1", "mulx rax, rax, rcx", 0, 3, ~u64{0}, SF, 2, ~u64{0}, SF},
          });
}

TEST_CASE("division: quotient and remainder [SDM 2A DIV, IDIV]") {
    check(Mode::long64, {
                            {"f6 f1", "div cl", upper | 1003, 10, 0, 0, upper | 0x0364, 0, 0, 0},
                            {"66 f7 f1", "div cx", upper, 2, upper | 1, 0, upper | 0x8000, upper, 0, 0},
                            {"f7 f1", "div ecx", upper | 7, 2, upper, 0, 3, 1, 0, 0},
                            {"48 f7 f1", "div rcx", 0, 3, 1, 0, 0x5555'5555'5555'5555, 1, 0, 0},
                            {"f6 f9", "idiv cl", 0xFFF9, 2, 0, 0, 0xFFFD, 0, 0, 0},
                            {"48 f7 f9", "idiv rcx", static_cast<u64>(-7), 2, ~u64{0}, 0,
                             static_cast<u64>(-3), ~u64{0}, 0, 0},
                        });
}

TEST_CASE("division: #DE, and nothing has changed [SDM 2A DIV, IDIV]") {
    struct Fault {
        const char *hex, *text;
        u64 rax, rcx, rdx;
    };
    const Fault rows[] = {
        {"f6 f1", "div cl", 0x0100, 1, 0},
        {"f7 f1", "div ecx", 5, 0, 0},
        {"48 f7 f1", "div rcx", 0, 7, 7},
        {"f6 f9", "idiv cl", 0x0080, 1, 0},
        {"66 f7 f9", "idiv cx", 0x8000, 0xFFFF, 0xFFFF},
        {"f7 f9", "idiv ecx", 0x8000'0000, 0xFFFF'FFFF, 0xFFFF'FFFF},
        {"48 f7 f9", "idiv rcx", bit(63), ~u64{0}, ~u64{0}},
    };
    for (const Fault& row : rows) {
        CAPTURE(row.text);
        Harness t;
        t.cpu.r[RAX] = row.rax;
        t.cpu.r[RCX] = row.rcx;
        t.cpu.r[RDX] = row.rdx;
        CHECK(general(t, code(row.hex, row.text)) == divide_error);
        CHECK(t.cpu.r[RAX] == row.rax);
        CHECK(t.cpu.r[RDX] == row.rdx);
        CHECK(t.cpu.rip == Harness::code_address);
    }
}

TEST_CASE("decimal: the manual's examples and borders [SDM 2A DAA, DAS, AAA, AAS, AAM, AAD]") {
    check(Mode::protected32, {
                                 {"27", "daa", 0xAE, 0, 0, 0, 0x14, 0, CF | AF | PF, ~OF},
                                 {"27", "daa", 0x2E, 0, 0, 0, 0x34, 0, AF, ~OF},
                                 {"27", "daa", 0x9A, 0, 0, 0, 0x00, 0, CF | AF | ZF | PF, ~OF},
                                 {"2f", "das", 0xEE, 0, 0, 0, 0x88, 0, CF | AF | SF | PF, ~OF},
                                 {"2f", "das", 0x03, 0, 0, AF, 0xFD, 0, CF | AF | SF, ~OF},
                                 {"37", "aaa", 0x0F, 0, 0, 0, 0x0105, 0, CF | AF, CF | AF},
                                 {"37", "aaa", 0x35, 0, 0, CF, 0x0005, 0, 0, CF | AF},
                                 {"3f", "aas", 0x0203, 0, 0, AF, 0x000D, 0, CF | AF, CF | AF},
                                 {"3f", "aas", 0x020F, 0, 0, 0, 0x0109, 0, CF | AF, CF | AF},
                                 {"d4 0a", "aam 0x0A", 0xFF3F, 0, 0, 0, 0x0603, 0, PF, ZF | SF | PF},
                                 {"d5 0a", "aad 0x0A", 0x0603, 0, 0, 0, 0x003F, 0, PF, ZF | SF | PF},
                             });
    Harness t(Mode::protected32);
    CHECK(general(t, code("d4 00", "aam 0x00")) == divide_error);
}

TEST_CASE("logic: CF and OF are cleared; NOT changes no flag [SDM 2A AND, 2B NOT]") {
    check(Mode::long64,
          {
              {"20 c8", "and al, cl", upper | 0xF0, 0x1F, 0, CF | OF, upper | 0x10, 0, 0},
              {"48 09 c8", "or rax, rcx", upper, 1, 0, CF | OF, upper | 1, 0, SF},
              {"31 c0", "xor eax, eax", upper | 5, 0, 0, CF | OF, 0, 0, ZF | PF},
              {"66 f7 d0", "not ax", upper | 0x00FF, 0, 0, CF | ZF, upper | 0xFF00, 0, CF | ZF},
              {"48 a9 00 00 00 80", "test rax, 0xFFFFFFFF80000000", bit(63), 0, 0, CF, bit(63), 0, SF | PF},
              {"c4 e2 f0 f2 c2", "andn rax, rcx, rdx", 0, 0xF, 0xFF, CF | OF, 0xF0, 0xFF, 0, ~(PF | AF)},
          });
}

TEST_CASE("shifts: counts are masked by operand size; 32-bit results clear the upper half [SDM 2B "
          "SAL/SAR/SHL/SHR]") {
    check(
        Mode::long64,
        {
            {"48 d3 e0", "shl rax, cl", 1, 0x7F, 0, 0, bit(63), 0, SF | PF, ~(OF | AF)},
            {"d3 e0", "shl eax, cl", upper | 3, 0x20, 0, CF | ZF, 3, 0, CF | ZF},
            {"d1 e0", "shl eax, 0x01", 0xC000'0000, 0, 0, 0, 0x8000'0000, 0, CF | SF | PF, ~AF},
            {"d2 e0", "shl al, cl", upper | 0xFF, 9, 0, 0, upper, 0, ZF | PF, ~(OF | AF | CF)},
            {"48 c1 e8 04", "shr rax, 0x04", 0x18, 0, 0, 0, 1, 0, CF, ~(OF | AF)},
            {"d1 e8", "shr eax, 0x01", 0x8000'0000, 0, 0, 0, 0x4000'0000, 0, OF | PF, ~AF},
            {"66 c1 f8 0f", "sar ax, 0x0F", upper | 0x8000, 0, 0, 0, upper | 0xFFFF, 0, SF | PF, ~(OF | AF)},
            {"c0 c0 08", "rol al, 0x08", 0x81, 0, 0, ZF, 0x81, 0, CF | ZF, ~OF},
            {"d0 c8", "ror al, 0x01", 0x01, 0, 0, ZF, 0x80, 0, CF | OF | ZF},
            {"d0 d0", "rcl al, 0x01", 0x80, 0, 0, 0, 0, 0, CF | OF},
            {"c0 d0 09", "rcl al, 0x09", 0x5A, 0, 0, CF, 0x5A, 0, CF},
            {"48 c1 d8 02", "rcr rax, 0x02", 2, 0, 0, CF, bit(62), 0, CF, ~OF},
            {"0f a4 c8 08", "shld eax, ecx, 0x08", 0x1122'3344, 0xAABB'CCDD, 0, 0, 0x2233'44AA, 0, CF | PF,
             ~(OF | AF)},
            {"66 0f ad c8", "shrd ax, cx, cl", upper | 0x1234, 0x0004, 0, 0, upper | 0x4123, 0, 0,
             ~(OF | AF)},
            {"c4 e3 fb f0 c1 04", "rorx rax, rcx, 0x04", 0, 0x1F, 0, CF, 0xF000'0000'0000'0001, 0, CF},
            {"c4 e2 6a f7 c1", "sarx eax, ecx, edx", upper, 0x8000'0000, 0x24, CF, 0xF800'0000, 0x24, CF},
            {"c4 e2 e9 f7 c1", "shlx rax, rcx, rdx", 0, 1, 0x7F, ZF, bit(63), 0x7F, ZF},
            {"c4 e2 eb f7 c1", "shrx rax, rcx, rdx", 0, bit(63), 0x7F, ZF, 1, 0x7F, ZF},
        });
}

TEST_CASE("bits: scans and counts [SDM 2A BSF, BSR, LZCNT; 2B POPCNT, TZCNT]") {
    check(Mode::long64,
          {
              {"48 0f bc c1", "bsf rax, rcx", 7, bit(40), 0, 0, 40, 0, 0, ZF},
              {"0f bc c1", "bsf eax, ecx", upper | 7, 0, 0, 0, upper | 7, 0, ZF, ZF},
              {"0f bd c1", "bsr eax, ecx", upper, 0x0080'0000, 0, ZF, 23, 0, 0, ZF},
              {"f3 0f bc c1", "tzcnt eax, ecx", upper, 0, 0, 0, 32, 0, CF, CF | ZF},
              {"f3 48 0f bc c1", "tzcnt rax, rcx", 5, 1, 0, CF, 0, 0, ZF, CF | ZF},
              {"f3 66 0f bd c1", "lzcnt ax, cx", upper, 1, 0, CF, upper | 15, 0, 0, CF | ZF},
              {"f3 48 0f b8 c1", "popcnt rax, rcx", 0, ~u64{0}, 0, RFLAGS::arithmetic, 64, 0, 0},
              {"f3 0f b8 c1", "popcnt eax, ecx", upper, upper, 0, CF | OF | SF, 0, 0, ZF},
              {"f2 48 0f 38 f1 c1", "crc32 rax, rcx", upper | 0xFFFF'FFFF, 0x3736'3534'3332'3130, 0, ZF,
               0x53DD'DCDF, 0, ZF},
              {"f2 0f 38 f0 c1", "crc32 eax, cl", 0, 1, 0, 0, 0xF26B'8303, 0, 0},
          });
}

TEST_CASE("bits: BT, BTS, BTR, BTC of a register take the offset modulo the size [SDM 2A BT]") {
    check(Mode::long64,
          {
              {"0f a3 c8", "bt eax, ecx", upper | 0x10, 0x24, 0, ZF, upper | 0x10, 0, CF | ZF, CF | ZF},
              {"48 0f ab c8", "bts rax, rcx", 0, 0x7F, 0, CF, bit(63), 0, 0, CF},
              {"0f ba f0 04", "btr eax, 0x04", upper | 0x11, 0, 0, 0, 0x01, 0, CF, CF},
              {"66 0f bb c8", "btc ax, cx", upper, 0xFFFF, 0, 0, upper | 0x8000, 0, 0, CF},
          });
}

TEST_CASE("bits: BT with a register and memory reaches any byte around the address [SDM 2A BT]") {
    struct Reach {
        const char *hex, *text;
        u64 offset, address;
        unsigned bit;
    };
    const Reach rows[] = {
        {"0f ab 0e", "bts [rsi], ecx", 100, 12, 4},
        {"0f ab 0e", "bts [rsi], ecx", 0xFFFF'FFFF, static_cast<u64>(-4), 31},
        {"66 0f ab 0e", "bts [rsi], cx", 0x8000, static_cast<u64>(-4096), 0},
        {"48 0f ab 0e", "bts [rsi], rcx", static_cast<u64>(-65), static_cast<u64>(-16), 63},
        {"0f ba 2e 25", "bts dword ptr [rsi], 0x25", 0, 0, 5},
    };
    for (const Reach& row : rows) {
        CAPTURE(row.offset);
        Harness t;
        t.cpu.r[RSI] = Harness::data_address;
        t.cpu.r[RCX] = row.offset;
        CHECK(general(t, code(row.hex, row.text)) == done);
        CHECK(t.read(Harness::data_address + row.address, 8) == bit(row.bit));
        CHECK(t.cpu.flags.cf == 0);
        t.cpu.rip = Harness::code_address;
        CHECK(general(t) == done);
        CHECK(t.cpu.flags.cf == 1);
    }
}

TEST_CASE("bits: fields of BMI1 and BMI2 [SDM 2A BEXTR, BLSI, BLSMSK, BLSR, BZHI; 2B PDEP, PEXT]") {
    constexpr u64 defined = CF | ZF | SF | OF;
    check(Mode::long64,
          {
              {"c4 e2 e8 f7 c1", "bextr rax, rcx, rdx", 0, 0x1234'5678, 0x0C04, CF, 0x567, 0x0C04, 0,
               CF | ZF | OF},
              {"c4 e2 68 f7 c1", "bextr eax, ecx, edx", upper, upper | 5, 0xFF20, 0, 0, 0xFF20, ZF,
               CF | ZF | OF},
              {"c4 e2 f8 f3 d9", "blsi rax, rcx", 0, 0x18, 0, 0, 8, 0, CF, defined},
              {"c4 e2 78 f3 d9", "blsi eax, ecx", upper, 0, 0, CF, 0, 0, ZF, defined},
              {"c4 e2 f8 f3 c9", "blsr rax, rcx", 0, 0x18, 0, CF, 0x10, 0, 0, defined},
              {"c4 e2 78 f3 d1", "blsmsk eax, ecx", 0, 0, 0, 0, 0xFFFF'FFFF, 0, CF | SF, defined},
              {"c4 e2 e8 f5 c1", "bzhi rax, rcx, rdx", 0, ~u64{0}, 0x104, CF, 0xF, 0x104, 0, defined},
              {"c4 e2 68 f5 c1", "bzhi eax, ecx, edx", 0, 0xFFFF'FFFF, 32, 0, 0xFFFF'FFFF, 32, CF | SF,
               defined},
              {"c4 e2 f3 f5 c2", "pdep rax, rcx, rdx", 0, 0b1011, 0xF0F0, CF | ZF, 0xB0, 0xF0F0, CF | ZF},
              {"c4 e2 f2 f5 c2", "pext rax, rcx, rdx", 0, 0x1234, 0xF0F0, CF | ZF, 0x13, 0xF0F0, CF | ZF},
          });
}

TEST_CASE("SETcc: one byte, 0 or 1 [SDM 2B SETcc]") {
    Harness t;
    t.cpu.r[RAX] = 0x1234;
    t.cpu.flags.set_arithmetic(RFLAGS::ZF);
    CHECK(general(t, code("0f 94 c0", "setz al")) == done);
    CHECK(t.cpu.r[RAX] == 0x1201);
    CHECK(general(t, code("0f 95 c4", "setnz ah")) == done);
    CHECK(t.cpu.r[RAX] == 0x0001);
}

TEST_CASE(
    "read-modify-write: a fault leaves flags and memory alone [SDM 3A 6.6 \"Program or Task Restart\"]") {
    Harness t;
    t.cpu.flags.set_arithmetic(CF);
    t.cpu.r[RSI] = 0x4000'0000; // beyond what is mapped
    for (const auto& [hex, text] :
         {std::pair{"48 11 06", "adc [rsi], rax"}, std::pair{"d1 26", "shl dword ptr [rsi], 0x01"},
          std::pair{"48 f7 26", "mul [rsi]"}, std::pair{"f3 48 0f b8 06", "popcnt rax, [rsi]"}}) {
        CAPTURE(text);
        const Stop stop = general(t, code(hex, text));
        CHECK(stop.vector == Vector::PF);
        CHECK(stop.address == 0x4000'0000);
        CHECK(arithmetic_flags(t) == CF);
    }
}
