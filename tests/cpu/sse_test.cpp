// SSE instructions: what comes before the result (availability, alignment, faults), and results as the manual
// gives them.
#include "tests/support/general.hpp"

#include "cpu/softfloat.hpp"

#include <bit>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop completed{};
constexpr u64 data = Harness::data_address;

void set(Harness& t, unsigned number, u64 high, u64 low) {
    t.cpu.vector[number].q[0] = low;
    t.cpu.vector[number].q[1] = high;
}
bool is(const Harness& t, unsigned number, u64 high, u64 low) {
    return t.cpu.vector[number].q[0] == low && t.cpu.vector[number].q[1] == high;
}
u64 f64(double value) { return std::bit_cast<u64>(value); }

} // namespace

TEST_CASE("SSE: #UD while CR0.EM = 1 or CR4.OSFXSR = 0, #NM while CR0.TS = 1 [SDM 3A Table 13-1]") {
    for (const char* bytes :
         {"0f 28 ca", "66 0f fe ca", "f2 0f 58 ca", "0f ae 13", "66 0f 38 dc ca", "66 0f 3a 63 ca 00"}) {
        CAPTURE(bytes);
        Harness t;
        t.cpu.r[RBX] = data;
        SUBCASE("EM") {
            t.cpu.control.cr0 |= CR0::EM | CR0::TS;
            CHECK(general(t, code(bytes)) == undefined_opcode());
        }
        SUBCASE("OSFXSR") {
            t.cpu.control.cr4 &= ~CR4::OSFXSR;
            CHECK(general(t, code(bytes)) == undefined_opcode());
        }
        SUBCASE("TS") {
            t.cpu.control.cr0 |= CR0::TS;
            CHECK(general(t, code(bytes)) == exception(Vector::NM));
        }
    }
}

TEST_CASE("SSE: a 16-byte operand that must be aligned and is not is #GP(0), before a page fault [SDM 2A "
          "Table 2-18]") {
    Harness t;
    t.cpu.r[RBX] = u64{1} << 40 | 8; // not mapped
    CHECK(general(t, code("0f 28 0b", "movaps xmm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("66 0f 7f 0b", "movdqa [rbx], xmm1")) == general_protection(0));
    CHECK(general(t, code("66 0f fe 0b", "paddd xmm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("0f 58 0b", "addps xmm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("0f 2b 0b", "movntps [rbx], xmm1")) == general_protection(0));
    CHECK(general(t, code("66 0f 38 2a 0b", "movntdqa xmm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("0f 10 0b", "movups xmm1, [rbx]")) == page_fault(0, u64{1} << 40 | 8));
    CHECK(general(t, code("66 0f 3a 63 0b 00", "pcmpistri xmm1, [rbx], 0x00")) ==
          page_fault(0, u64{1} << 40 | 8));
    CHECK(general(t, code("f2 0f 58 0b", "addsd xmm1, [rbx]")) == page_fault(0, u64{1} << 40 | 8));
}

TEST_CASE("SSE: a non-canonical address is #GP(0), through SS #SS(0), aligned or not [SDM 2A Table 2-18]") {
    Harness t;
    t.cpu.r[RBX] = t.cpu.r[RBP] = u64{1} << 60 | 1;
    CHECK(general(t, code("0f 28 0b", "movaps xmm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("0f 28 4d 00", "movaps xmm1, [rbp]")) == exception(Vector::SS, 0));
}

TEST_CASE(
    "MOVUPS: a store across pages of which the second is not writable changes nothing [SDM 2B MOVUPS]") {
    Harness t;
    const u64 end = u64{1} << 30; // what is mapped ends here; RAM ends at 16 MiB
    t.cpu.r[RBX] = end - 8;
    CHECK(general(t, code("0f 11 0b", "movups [rbx], xmm1")) == page_fault(PFEC::W, end));
    CHECK(t.bus.mmio_writes.empty());
}

TEST_CASE("MOVUPS: 16 bytes at any address, also across a page [SDM 2B MOVUPS]") {
    Harness t;
    for (const u64 at : {data, data + 1, data + 0xFF8, data + 0xFFD, data + 0xFF1}) {
        CAPTURE(at);
        set(t, 1, 0x1122'3344'5566'7788, 0x99AA'BBCC'DDEE'FF00);
        t.cpu.r[RBX] = at;
        CHECK(general(t, code("0f 11 0b", "movups [rbx], xmm1")) == completed);
        CHECK(t.read(at) == 0x99AA'BBCC'DDEE'FF00);
        CHECK(t.read(at + 8) == 0x1122'3344'5566'7788);
        CHECK(general(t, code("0f 10 13", "movups xmm2, [rbx]")) == completed);
        CHECK(is(t, 2, 0x1122'3344'5566'7788, 0x99AA'BBCC'DDEE'FF00));
    }
}

TEST_CASE("MOVUPS: under alignment checking an operand that is not at a multiple of 16 is #AC(0) [SDM 3A "
          "Table 6-7]") {
    Harness t;
    t.enter_ring3();
    t.cpu.control.cr0 |= CR0::AM;
    t.cpu.flags.rest |= RFLAGS::AC;
    t.cpu.mode_changed();
    t.cpu.r[RBX] = data + 16;
    CHECK(general(t, code("0f 10 0b", "movups xmm1, [rbx]")) == completed);
    CHECK(general(t, code("0f 11 0b", "movups [rbx], xmm1")) == completed);
    t.cpu.r[RBX] = data + 8;
    CHECK(general(t, code("0f 10 0b", "movups xmm1, [rbx]")) == exception(Vector::AC, 0));
    CHECK(general(t, code("0f 11 0b", "movups [rbx], xmm1")) == exception(Vector::AC, 0));
}

TEST_CASE("SSE: bits above the XMM register stay in legacy encodings [SDM 2A 2.3.10]") {
    Harness t;
    t.cpu.vector[1].q[3] = t.cpu.vector[1].q[2] = 0x5555;
    CHECK(general(t, code("0f 57 c9", "xorps xmm1, xmm1")) == completed);
    CHECK(t.cpu.vector[1].q[2] == 0x5555);
    CHECK(t.cpu.vector[1].q[3] == 0x5555);
}

TEST_CASE("MOVSS, MOVSD: a load clears the rest of the register, a move between registers keeps it [SDM 2B "
          "MOVSD]") {
    Harness t;
    t.cpu.r[RBX] = data;
    t.write(data, 0x0123'4567'89AB'CDEF);
    set(t, 1, 7, 8);
    CHECK(general(t, code("f2 0f 10 0b", "movsd xmm1, qword ptr [rbx]")) == completed);
    CHECK(is(t, 1, 0, 0x0123'4567'89AB'CDEF));
    set(t, 1, 7, 8);
    set(t, 2, 9, 10);
    CHECK(general(t, code("f2 0f 10 ca", "movsd xmm1, xmm2")) == completed);
    CHECK(is(t, 1, 7, 10));
    CHECK(general(t, code("f3 0f 10 0b", "movss xmm1, dword ptr [rbx]")) == completed);
    CHECK(is(t, 1, 0, 0x89AB'CDEF));
    CHECK(general(t, code("f2 0f 11 13", "movsd [rbx], xmm2")) == completed);
    CHECK(t.read(data) == 10);
}

TEST_CASE("LDMXCSR: a reserved bit is #GP(0) and changes nothing [SDM 2A LDMXCSR]") {
    Harness t;
    t.cpu.r[RBX] = data;
    t.write(data, 0x0001'1F80, 4);
    CHECK(general(t, code("0f ae 13", "ldmxcsr [rbx]")) == general_protection(0));
    CHECK(t.cpu.mxcsr == 0x1F80);
    t.write(data, 0xFFFF, 4);
    CHECK(general(t, code("0f ae 13", "ldmxcsr [rbx]")) == completed);
    CHECK(t.cpu.mxcsr == 0xFFFF);
    CHECK(general(t, code("0f ae 5b 04", "stmxcsr [rbx+0x04]")) == completed);
    CHECK(t.read(data + 4, 4) == 0xFFFF);
}

TEST_CASE("SIMD floating-point exception: #XM, or #UD while CR4.OSXMMEXCPT = 0; the destination stays [SDM 1 "
          "11.5.4]") {
    Harness t;
    t.cpu.mxcsr = 0x1F80 & ~MXCSR::ZM;
    set(t, 1, f64(1), f64(1));
    set(t, 2, f64(2), 0);
    const auto divide = [&] { return general(t, code("66 0f 5e ca", "divpd xmm1, xmm2")); };
    SUBCASE("#XM") { CHECK(divide() == exception(Vector::XM)); }
    SUBCASE("#UD") {
        t.cpu.control.cr4 &= ~CR4::OSXMMEXCPT;
        CHECK(divide() == undefined_opcode());
    }
    CHECK(is(t, 1, f64(1), f64(1)));
    CHECK(t.cpu.mxcsr == ((0x1F80 & ~MXCSR::ZM) | MXCSR::ZE));
}

TEST_CASE("COMISD: an unmasked exception leaves RFLAGS alone [SDM 2A COMISD]") {
    Harness t;
    t.cpu.mxcsr = 0x1F80 & ~MXCSR::IM;
    t.cpu.flags.set_arithmetic(RFLAGS::OF | RFLAGS::CF);
    set(t, 1, 0, 0x7FF8'0000'0000'0000);
    CHECK(general(t, code("66 0f 2f ca", "comisd xmm1, xmm2")) == exception(Vector::XM));
    CHECK(arithmetic_flags(t) == (RFLAGS::OF | RFLAGS::CF));
    CHECK(general(t, code("66 0f 2e ca", "ucomisd xmm1, xmm2")) == completed);
    CHECK(arithmetic_flags(t) == (RFLAGS::ZF | RFLAGS::PF | RFLAGS::CF));
}

TEST_CASE("ADDSD: the quick way and softfloat agree on when MXCSR.PE appears [SDM 1 11.5.2.6]") {
    Harness t;
    set(t, 1, 0, f64(1));
    set(t, 2, 0, f64(2));
    CHECK(general(t, code("f2 0f 58 ca", "addsd xmm1, xmm2")) == completed);
    CHECK(t.cpu.mxcsr == 0x1F80);
    set(t, 2, 0, f64(0x1p-60));
    CHECK(general(t, code("f2 0f 58 ca", "addsd xmm1, xmm2")) == completed);
    CHECK(t.cpu.mxcsr == (0x1F80 | MXCSR::PE));
    CHECK(is(t, 1, 0, f64(3)));
}

TEST_CASE(
    "MASKMOVDQU: bytes chosen by the mask go to DS:rDI, or the segment of the prefix [SDM 2B MASKMOVDQU]") {
    Harness t;
    set(t, 1, 0x1716'1514'1312'1110, 0x0706'0504'0302'0100);
    set(t, 2, 0x8000'0000'0000'0000, 0x0000'0080'0000'807F);
    t.cpu.r[RDI] = data + 3;
    CHECK(general(t, code("66 0f f7 ca", "maskmovdqu xmm1, xmm2")) == completed);
    CHECK(t.read(data) == (u64{0x01} << 32 | u64{0x04} << 56));
    CHECK(t.read(data + 8) == 0);
    CHECK(t.read(data + 18, 1) == 0x17);
    t.cpu.seg(Seg::FS).base = 0x100;
    CHECK(general(t, code("64 66 0f f7 ca", "maskmovdqu xmm1, xmm2")) == completed);
    CHECK(t.read(data + 0x100 + 18, 1) == 0x17);
    t.cpu.r[RDI] = u64{1} << 40;
    CHECK(general(t, code("66 0f f7 ca", "maskmovdqu xmm1, xmm2")) == page_fault(PFEC::W, u64{1} << 40));
}

TEST_CASE("PCMPISTRI: the index of the first of a set of characters, or 16 [SDM 2B 4.1]") {
    Harness t;
    const auto text = [&](unsigned number, std::string_view s) {
        u64 q[2] = {};
        for (std::size_t i = 0; i < s.size(); ++i) q[i / 8] |= u64{static_cast<u8>(s[i])} << (8 * (i % 8));
        set(t, number, q[1], q[0]);
    };
    text(1, "aeiou");
    text(2, "rhythm and blues");
    t.cpu.r[RCX] = ~u64{0};
    CHECK(general(t, code("66 0f 3a 63 ca 00", "pcmpistri xmm1, xmm2, 0x00")) == completed);
    CHECK(t.cpu.r[RCX] == 7);
    CHECK(arithmetic_flags(t) == (RFLAGS::CF | RFLAGS::SF));
    text(2, "rhythm");
    CHECK(general(t, code("66 0f 3a 63 ca 00", "pcmpistri xmm1, xmm2, 0x00")) == completed);
    CHECK(t.cpu.r[RCX] == 16);
    CHECK(arithmetic_flags(t) == (RFLAGS::ZF | RFLAGS::SF));
    text(1, "and");
    text(2, "rhythm and blues");
    CHECK(general(t, code("66 0f 3a 63 ca 0c", "pcmpistri xmm1, xmm2, 0x0C")) == completed); // a substring
    CHECK(t.cpu.r[RCX] == 7);
}

TEST_CASE("SSE: every mode but 64-bit has eight registers and 32-bit addresses [SDM 1 10.2]") {
    for (const Mode mode :
         {Mode::protected32, Mode::protected16, Mode::compatibility, Mode::real, Mode::v8086}) {
        Harness t(mode);
        t.cpu.control.cr4 |= CR4::OSFXSR;
        set(t, 1, 1, 2);
        set(t, 2, 3, 4);
        CHECK(general(t, code("66 0f d4 ca", "paddq xmm1, xmm2")) == completed);
        CHECK(is(t, 1, 4, 6));
    }
}

TEST_CASE("MOVAPS: a segment's limit counts for all 16 bytes [SDM 3A 5.3]") {
    Harness t(Mode::protected32);
    t.cpu.control.cr4 |= CR4::OSFXSR;
    t.cpu.seg(Seg::DS).limit = static_cast<u32>(data + 14);
    t.cpu.r[RBX] = data;
    CHECK(general(t, code("0f 28 0b", "movaps xmm1, [ebx]")) == general_protection(0));
    t.cpu.seg(Seg::DS).limit = static_cast<u32>(data + 15);
    CHECK(general(t, code("0f 28 0b", "movaps xmm1, [ebx]")) == completed);
}

TEST_CASE("ROUNDSD: rounding by the immediate or by MXCSR.RC, PE suppressed by bit 3 [SDM 2B ROUNDSD]") {
    Harness t;
    const auto rounded = [&](const Code& instruction) {
        set(t, 2, 0, f64(-2.5));
        t.cpu.mxcsr = 0x1F80 | 2 << 13; // up
        CHECK(general(t, instruction) == completed);
        return std::bit_cast<double>(t.cpu.vector[1].q[0]);
    };
    CHECK(rounded(code("66 0f 3a 0b ca 00", "roundsd xmm1, xmm2, 0x00")) == -2.0);
    CHECK(rounded(code("66 0f 3a 0b ca 01", "roundsd xmm1, xmm2, 0x01")) == -3.0);
    CHECK(rounded(code("66 0f 3a 0b ca 03", "roundsd xmm1, xmm2, 0x03")) == -2.0);
    CHECK((t.cpu.mxcsr & MXCSR::PE) != 0);
    CHECK(rounded(code("66 0f 3a 0b ca 0c", "roundsd xmm1, xmm2, 0x0C")) == -2.0);
    CHECK((t.cpu.mxcsr & MXCSR::PE) == 0);
}
