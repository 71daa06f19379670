// String instructions: directions, sizes of addresses, REP in terms of ticks, overlapping copies, faults in
// the middle.
#include "base/random.hpp"
#include "tests/support/general.hpp"

#include <cstring>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop done{};
constexpr u64 data = Harness::data_address;
constexpr u64 end_of_map = 0x4000'0000;

/// The state of a harness in which one string instruction may take many ticks.
void prepare(Harness& t, u64 rsi, u64 rdi, u64 rcx, i64 ticks) {
    t.cpu.r[RSI] = rsi;
    t.cpu.r[RDI] = rdi;
    t.cpu.r[RCX] = rcx;
    t.cpu.remaining = ticks;
}

void fill_pattern(Harness& t, u64 address, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) t.write(address + i, i * 7 + 3, 1);
}

} // namespace

TEST_CASE("MOVS: one element, up or down, with a segment override for the source [SDM 2B MOVS]") {
    Harness t;
    t.write(data, 0x1122'3344'5566'7788);
    t.cpu.seg(Seg::FS).base = 8;
    prepare(t, data - 8, data + 0x100, 99, 0);
    CHECK(general(t, code("64 48 a5", "")) == done);
    CHECK(t.read(data + 0x100) == 0x1122'3344'5566'7788);
    CHECK(t.cpu.r[RSI] == data);
    CHECK(t.cpu.r[RDI] == data + 0x108);
    CHECK(t.cpu.r[RCX] == 99);
    t.cpu.flags.rest |= RFLAGS::DF;
    CHECK(general(t, code("66 a5", "movsw")) == done);
    CHECK(t.cpu.r[RSI] == data - 2);
    CHECK(t.cpu.r[RDI] == data + 0x106);
    CHECK(t.read(data + 0x108, 2) == 0x7788);
}

TEST_CASE("string instructions: each steps its index registers by its size, as DF says [SDM 1 7.3.9]") {
    struct Row {
        const char *hex, *text;
        i64 size;
        bool source, destination;
    };
    const Row rows[] = {
        {"a4", "movsb", 1, true, true},     {"66 a5", "movsw", 2, true, true},
        {"a5", "movsd", 4, true, true},     {"48 a5", "movsq", 8, true, true},
        {"a6", "cmpsb", 1, true, true},     {"66 a7", "cmpsw", 2, true, true},
        {"a7", "cmpsd", 4, true, true},     {"48 a7", "cmpsq", 8, true, true},
        {"aa", "stosb", 1, false, true},    {"66 ab", "stosw", 2, false, true},
        {"ab", "stosd", 4, false, true},    {"48 ab", "stosq", 8, false, true},
        {"ac", "lodsb", 1, true, false},    {"66 ad", "lodsw", 2, true, false},
        {"ad", "lodsd", 4, true, false},    {"48 ad", "lodsq", 8, true, false},
        {"ae", "scasb", 1, false, true},    {"66 af", "scasw", 2, false, true},
        {"af", "scasd", 4, false, true},    {"48 af", "scasq", 8, false, true},
        {"6c", "insb", 1, false, true},     {"66 6d", "insw", 2, false, true},
        {"6d", "insd", 4, false, true},     {"6e", "outsb", 1, true, false},
        {"66 6f", "outsw", 2, true, false}, {"6f", "outsd", 4, true, false},
    };
    for (const Row& row : rows)
        for (const i64 direction : {1, -1}) {
            CAPTURE(row.text);
            Harness t;
            prepare(t, data, data + 0x100, 5, 0);
            if (direction < 0) t.cpu.flags.rest |= RFLAGS::DF;
            const u64 step = static_cast<u64>(direction * row.size);
            CHECK(general(t, code(row.hex, row.text)) == done);
            CHECK(t.cpu.r[RSI] == data + (row.source ? step : 0));
            CHECK(t.cpu.r[RDI] == data + 0x100 + (row.destination ? step : 0));
            CHECK(t.cpu.r[RCX] == 5);
        }
}

TEST_CASE("CMPS and SCAS: operands of every size, unsigned and signed flags [SDM 2A CMPS, 2B SCAS]") {
    Harness t;
    t.write(data, 0x8000'0000'0000'0001);
    t.write(data + 0x100, 0x0000'0000'0000'0002);
    const std::pair<const char*, u64> rows[] = {
        {"a6", RFLAGS::CF | RFLAGS::SF | RFLAGS::PF | RFLAGS::AF},
        {"48 a7", RFLAGS::OF | RFLAGS::AF | RFLAGS::PF},
        {"66 af", RFLAGS::CF | RFLAGS::SF | RFLAGS::PF | RFLAGS::AF},
    };
    for (const auto& [hex, flags] : rows) {
        CAPTURE(hex);
        prepare(t, data, data + 0x100, 0, 0);
        t.cpu.r[RAX] = 1;
        CHECK(general(t, code(hex)) == done);
        CHECK(arithmetic_flags(t) == flags);
    }
}

TEST_CASE("REP: a count of 0 does nothing, not even an access [SDM 2B REP]") {
    Harness t;
    prepare(t, end_of_map, end_of_map, 0, 1000);
    CHECK(general(t, code("f3 a4", "rep movsb")) == done);
    CHECK(t.cpu.rip == Harness::code_address + 2);
    CHECK(t.cpu.remaining == 1000);
    CHECK(t.cpu.r[RSI] == end_of_map);
}

TEST_CASE("REP: F2H before MOVS and STOS repeats as F3H does [SDM 2A 2.1.1]") {
    Harness t;
    t.write(data, 0x1122'3344);
    prepare(t, data, data + 0x100, 4, 1000);
    CHECK(general(t, code("f2 a4")) == done);
    CHECK(t.cpu.r[RCX] == 0);
    CHECK(t.read(data + 0x100) == 0x1122'3344);
}

TEST_CASE("REP: the first iteration is the instruction's tick, every other one takes one more") {
    Harness t;
    fill_pattern(t, data, 256);
    prepare(t, data, data + 0x1000, 100, 40);
    CHECK(general(t, code("f3 a4", "rep movsb")) == done);
    CHECK(t.cpu.rip == Harness::code_address); // to be resumed
    CHECK(t.cpu.remaining == 0);
    CHECK(t.cpu.r[RCX] == 59);
    CHECK(t.cpu.r[RSI] == data + 41);
    CHECK(t.cpu.r[RDI] == data + 0x1000 + 41);
    CHECK(t.read(data + 0x1000 + 40, 1) == t.read(data + 40, 1));
    CHECK(t.read(data + 0x1000 + 41, 8) == 0);
    t.cpu.remaining = 1000;
    CHECK(general(t) == done);
    CHECK(t.cpu.rip == Harness::code_address + 2);
    CHECK(t.cpu.remaining == 1000 - 58);
    CHECK(t.cpu.r[RCX] == 0);
    CHECK(t.read(data + 0x1000 + 99, 1) == t.read(data + 99, 1));
}

TEST_CASE("REP: run() counts iterations and stops on the exact tick") {
    Harness t;
    t.cpu.r[RCX] = 1000;
    t.cpu.r[RDI] = data;
    CHECK(t.run(code("f3 aa f4", "rep stosb; hlt"), 500) == RunEnd::deadline);
    CHECK(t.cpu.now() == 500);
    CHECK(t.cpu.r[RCX] == 500);
    CHECK(t.run(10'000) == RunEnd::halted);
    CHECK(t.cpu.now() == 1001);
}

TEST_CASE("REP MOVS: overlapping copies go byte by byte, whatever the way they are done [SDM 2B MOVS]") {
    Random random{7};
    const std::pair<const char*, unsigned> forms[] = {
        {"f3 a4", 1}, {"f3 66 a5", 2}, {"f3 a5", 4}, {"f3 48 a5", 8}};
    for (unsigned round = 0; round < 200; ++round) {
        CAPTURE(round);
        const auto& [hex, size] = forms[random.next() % 4];
        const u64 source = data + 0xF00 + random.next() % 300; // often across the page
        const u64 distance = random.next() % 40;
        const u64 destination = random.next() & 1 ? source + distance : source - distance;
        const u64 count = 1 + random.next() % 60;
        const bool down = random.next() % 4 == 0;

        Harness t;
        fill_pattern(t, data + 0xD00, 0x600);
        std::vector<u8> expected(0x1000);
        t.memory.read_bytes(Physical{data + 0x800}, expected.data(), expected.size());
        for (u64 i = 0; i < count; ++i) {
            const u64 at = down ? static_cast<u64>(-static_cast<i64>(i * size)) : i * size;
            u8 element[8];
            std::memcpy(element, &expected[source + at - data - 0x800], size);
            std::memcpy(&expected[destination + at - data - 0x800], element, size);
        }
        prepare(t, source, destination, count, 1000);
        if (down) t.cpu.flags.rest |= RFLAGS::DF;
        CHECK(general(t, code(hex)) == done);
        std::vector<u8> got(expected.size());
        t.memory.read_bytes(Physical{data + 0x800}, got.data(), got.size());
        CHECK(got == expected);
        const u64 moved = down ? static_cast<u64>(-static_cast<i64>(count * size)) : count * size;
        CHECK(t.cpu.r[RSI] == source + moved);
        CHECK(t.cpu.r[RDI] == destination + moved);
        CHECK(t.cpu.remaining == static_cast<i64>(1000 - (count - 1)));
    }
}

TEST_CASE("REP STOS: fills across pages with elements of every size [SDM 2B STOS]") {
    const std::pair<const char*, unsigned> forms[] = {
        {"f3 aa", 1}, {"f3 66 ab", 2}, {"f3 ab", 4}, {"f3 48 ab", 8}};
    for (const auto& [hex, size] : forms) {
        CAPTURE(size);
        Harness t;
        const u64 start = data + 0xF03;
        prepare(t, 0, start, 600, 1000);
        t.cpu.r[RAX] = 0x1122'3344'5566'7788;
        CHECK(general(t, code(hex)) == done);
        CHECK(t.cpu.r[RDI] == start + 600 * size);
        for (unsigned i = 0; i < 600; ++i) REQUIRE(t.read(start + i * size, size) == t.cpu.gpr(RAX, size));
        CHECK(t.read(start - 1, 1) == 0);
        CHECK(t.read(start + 600 * size, 1) == 0);
    }
}

TEST_CASE("REP: a fault in an iteration leaves the registers of the ones before [SDM 2B REP]") {
    Harness t;
    t.write(Harness::tables_address + 0x2000 + 8 * 2, 0); // 4 to 6 MBytes are not present
    t.cpu.context_changed(true);
    constexpr u64 hole = 4 << 20;
    SUBCASE("STOS") {
        prepare(t, 0, hole - 10, 100, 1000);
        const Stop stop = general(t, code("f3 aa", "rep stosb"));
        CHECK(stop == page_fault(PFEC::W, hole));
        CHECK(t.cpu.r[RDI] == hole);
        CHECK(t.cpu.r[RCX] == 90);
        CHECK(t.cpu.remaining == 1000 - 10);
    }
    SUBCASE("MOVS, source") {
        prepare(t, hole - 10, data, 100, 1000);
        CHECK(general(t, code("f3 66 a5", "rep movsw")) == page_fault(0, hole));
        CHECK(t.cpu.r[RSI] == hole);
        CHECK(t.cpu.r[RDI] == data + 10);
        CHECK(t.cpu.r[RCX] == 95);
    }
    SUBCASE("an element across the border") {
        prepare(t, data, hole - 10, 100, 1000);
        CHECK(general(t, code("f3 a5", "rep movsd")) == page_fault(PFEC::W, hole));
        CHECK(t.cpu.r[RDI] == hole - 2);
        CHECK(t.cpu.r[RCX] == 98);
    }
    SUBCASE("CMPS: the flags are as before the instruction") {
        prepare(t, hole - 10, data, 100, 1000);
        t.cpu.flags.set_arithmetic(RFLAGS::CF | RFLAGS::SF);
        CHECK(general(t, code("f3 a6", "repe cmpsb")).vector == Vector::PF);
        CHECK(t.cpu.r[RCX] == 90);
        CHECK(arithmetic_flags(t) == (RFLAGS::CF | RFLAGS::SF));
    }
}

TEST_CASE("REP: a segment's limit is exact for every element [SDM 3A 5.3]") {
    Harness t(Mode::protected32);
    t.cpu.seg(Seg::ES).limit = static_cast<u32>(data + 0x7FF);
    prepare(t, 0, data + 0x7F0, 100, 1000);
    CHECK(general(t, code("f3 aa", "rep stosb")) == general_protection(0));
    CHECK(t.cpu.r[RDI] == data + 0x800);
    CHECK(t.cpu.r[RCX] == 84);
}

TEST_CASE("REPE CMPS and REPNE SCAS: end conditions [SDM 2B REP, CMPS, SCAS]") {
    Harness t;
    const char text[] = "the same until here";
    t.memory.write_bytes(Physical{data}, text, sizeof text);
    t.memory.write_bytes(Physical{data + 0x100}, "the same until THERE", 20);
    prepare(t, data, data + 0x100, 50, 1000);
    CHECK(general(t, code("f3 a6", "repe cmpsb")) == done);
    CHECK(t.cpu.r[RCX] == 50 - 16);
    CHECK(t.cpu.r[RSI] == data + 16);
    CHECK_FALSE(t.cpu.flags.zf());
    CHECK_FALSE(t.cpu.flags.cf); // 'h' - 'T'
    prepare(t, 0, data, ~u64{0}, 1000);
    t.cpu.r[RAX] = 0;
    CHECK(general(t, code("f2 ae", "repne scasb")) == done);
    CHECK(~t.cpu.r[RCX] == sizeof text);
    CHECK(t.cpu.flags.zf());
    prepare(t, 0, data, 3, 1000);
    t.cpu.r[RAX] = 'x';
    CHECK(general(t, code("f2 ae", "repne scasb")) == done);
    CHECK(t.cpu.r[RCX] == 0);
    CHECK_FALSE(t.cpu.flags.zf());
    CHECK(t.cpu.rip == Harness::code_address + 2);
}

TEST_CASE("REPE CMPS: a pause keeps the flags of the last iteration") {
    Harness t;
    prepare(t, data, data + 0x100, 50, 4);
    t.cpu.flags.set_arithmetic(RFLAGS::CF);
    CHECK(general(t, code("f3 a6", "repe cmpsb")) == done);
    CHECK(t.cpu.rip == Harness::code_address);
    CHECK(t.cpu.r[RCX] == 45);
    CHECK(arithmetic_flags(t) == (RFLAGS::ZF | RFLAGS::PF));
}

TEST_CASE("LODS [SDM 2A LODS]") {
    Harness t;
    t.write(data, 0x1122'3344'5566'7788);
    prepare(t, data, 0, 4, 1000);
    t.cpu.r[RAX] = ~u64{0};
    CHECK(general(t, code("f3 66 ad", "")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'1122);
    CHECK(t.cpu.r[RSI] == data + 8);
    t.cpu.r[RSI] = data;
    CHECK(general(t, code("ad", "lodsd")) == done);
    CHECK(t.cpu.r[RAX] == 0x5566'7788);
}

TEST_CASE("address size: SI, DI and CX wrap at 16 bits, ESI, EDI, ECX clear the upper halves [SDM 1 7.3.9]") {
    SUBCASE("16 bits") {
        Harness t(Mode::real);
        t.write(0xFFFE, 0xBBAA, 2);
        t.write(0x0000, 0xDDCC, 2);
        prepare(t, 0x1234'FFFE, 0x4321'2000, 0xFFFF'0004, 1000);
        CHECK(general(t, code("f3 a4", "rep movsb")) == done);
        CHECK(t.cpu.r[RSI] == 0x1234'0002);
        CHECK(t.cpu.r[RDI] == 0x4321'2004);
        CHECK(t.cpu.r[RCX] == 0xFFFF'0000);
        CHECK(t.read(0x2000, 4) == 0xDDCC'BBAA);
    }
    SUBCASE("32 bits in 64-bit mode") {
        Harness t;
        t.write(data, 0x55, 1);
        prepare(t, 0xF'0000'0000 + data, 0xF'0000'0000 + data + 0x10, 0xF'0000'0001, 1000);
        CHECK(general(t, code("67 f3 a4", "")) == done);
        CHECK(t.cpu.r[RSI] == data + 1);
        CHECK(t.cpu.r[RDI] == data + 0x11);
        CHECK(t.cpu.r[RCX] == 0);
        CHECK(t.read(data + 0x10, 1) == 0x55);
    }
}

TEST_CASE("REP MOVS: copying over decoded code drops it [SDM 3A 11.6 \"Self-Modifying Code\"]") {
    Harness t;
    constexpr u64 routine = Harness::code_address + 0x800;
    // mov al, 1; ret, called twice with a copy of mov al, 2; ret in between.
    const u8 first[] = {0xB0, 1, 0xC3}, second[] = {0xB0, 2, 0xC3};
    t.memory.write_bytes(Physical{routine}, first, 3);
    t.memory.write_bytes(Physical{data}, second, 3);
    prepare(t, data, routine, 3, 0);
    CHECK(t.run(code("e8 fb 07 00 00 88 c3 f3 a4 e8 f2 07 00 00 f4",
                     "call 0x0000000000010800; mov bl, al; rep movsb; call 0x0000000000010800; hlt")) ==
          RunEnd::halted);
    CHECK((t.cpu.r[RBX] & 0xFF) == 1);
    CHECK((t.cpu.r[RAX] & 0xFF) == 2);
}
