// AVX instructions: what comes before the result (availability, encodings, alignment), what they do to the
// upper halves of registers, and which memory masked moves and gathers touch.
#include "tests/support/general.hpp"

#include "cpu/softfloat.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop completed{};
constexpr u64 data = Harness::data_address;
constexpr u64 nowhere = u64{1} << 40; ///< canonical and not mapped
constexpr u64 set = bit(63) | bit(31);

struct AvxHarness : Harness {
    explicit AvxHarness(Mode mode = Mode::long64, const std::string& name = "intel-max")
        : Harness(mode, name) {
        cpu.control.cr4 |= CR4::OSXSAVE | CR4::OSFXSR | CR4::OSXMMEXCPT;
        cpu.control.xcr0 = XCR0::X87 | XCR0::SSE | XCR0::AVX;
        for (VectorRegister& v : cpu.vector) v = {{1, 2, 3, 4}};
    }
    void put(unsigned number, u64 q3, u64 q2, u64 q1, u64 q0) { cpu.vector[number] = {{q0, q1, q2, q3}}; }
    bool is(unsigned number, u64 q3, u64 q2, u64 q1, u64 q0) const {
        const VectorRegister& v = cpu.vector[number];
        return v.q[0] == q0 && v.q[1] == q1 && v.q[2] == q2 && v.q[3] == q3;
    }
    Decoder::Status decoded(const char* bytes) {
        place(code(bytes));
        Insn insn;
        u8 raw[15];
        memory.read_bytes(Physical{cpu.rip}, raw, sizeof raw);
        return Decoder(model).decode(code_mode(), raw, *cpu.virtualization, insn);
    }
};

} // namespace

TEST_CASE(
    "AVX: #UD while CR4.OSXSAVE = 0 or XCR0[2:1] is not 11B, #NM while CR0.TS = 1; CR0.EM and CR4.OSFXSR do "
    "not matter [SDM 2A 2.4, Table 2-16]") {
    for (const char* bytes : {"c5 f8 28 ca", "c5 f5 fe ca", "c5 f3 58 ca", "c5 f8 ae 13", "c4 e2 71 dc ca",
                              "c4 e3 79 63 ca 00", "c4 e2 71 b8 ca", "c4 e2 79 13 ca", "c5 f8 77", "c5 fc 77",
                              "c4 e2 7d 18 ca", "c4 e3 7d 19 ca 01", "c4 e2 71 2c 0b", "c4 e2 79 0e ca"}) {
        CAPTURE(bytes);
        AvxHarness t;
        t.cpu.r[RBX] = data;
        SUBCASE("OSXSAVE") {
            t.cpu.control.cr4 &= ~CR4::OSXSAVE;
            t.cpu.control.cr0 |= CR0::TS;
            CHECK(general(t, code(bytes)) == undefined_opcode());
        }
        SUBCASE("XCR0.AVX") {
            t.cpu.control.xcr0 = XCR0::X87 | XCR0::SSE;
            CHECK(general(t, code(bytes)) == undefined_opcode());
        }
        SUBCASE("TS") {
            t.cpu.control.cr0 |= CR0::TS;
            CHECK(general(t, code(bytes)) == exception(Vector::NM));
        }
        SUBCASE("EM, OSFXSR") {
            t.cpu.control.cr0 |= CR0::EM;
            t.cpu.control.cr4 &= ~CR4::OSFXSR;
            CHECK(general(t, code(bytes)) == completed);
        }
    }
}

TEST_CASE("AVX: a set that the model lacks is #UD [SDM 1 14.3, 14.4.1, 14.5.3, 14.7.1]") {
    AvxHarness without(Mode::long64, "nehalem"), with;
    for (const char* bytes :
         {"c5 f8 28 ca", "c5 f5 fe ca", "c4 e2 71 b8 ca", "c4 e2 79 13 ca", "c4 e2 79 92 04 08"}) {
        CAPTURE(bytes);
        CHECK(without.decoded(bytes) == Decoder::Status::undefined);
    }
    CHECK(with.decoded("c5 f5 fe ca") == Decoder::Status::ok);
}

TEST_CASE("AVX: encodings that are #UD [SDM 2A 2.3.2 to 2.3.12, 2.4]") {
    AvxHarness t;
    const auto undefined = Decoder::Status::undefined;
    CHECK(t.decoded("66 c5 f8 28 ca") == undefined); // 66H before VEX
    CHECK(t.decoded("f3 c5 f8 28 ca") == undefined);
    CHECK(t.decoded("f2 c5 f8 28 ca") == undefined);
    CHECK(t.decoded("f0 c5 f8 28 0b") == undefined);
    CHECK(t.decoded("48 c5 f8 28 ca") == undefined);              // REX before VEX
    CHECK(t.decoded("c5 f0 28 ca") == undefined);                 // VMOVAPS: VEX.vvvv must be 1111B
    CHECK(t.decoded("c5 fd 6e ca") == undefined);                 // VMOVD: VEX.L must be 0
    CHECK(t.decoded("c5 f8 12 0b") == Decoder::Status::ok);       // VMOVLPS
    CHECK(t.decoded("c5 fc 12 0b") == undefined);                 // and with VEX.L = 1
    CHECK(t.decoded("c4 e2 79 19 0b") == undefined);              // VBROADCASTSD has no 128-bit form
    CHECK(t.decoded("c4 e2 fd 18 0b") == undefined);              // VBROADCASTSS: VEX.W must be 0
    CHECK(t.decoded("c4 e3 7d 06 ca 00") == Decoder::Status::ok); // VPERM2F128
    CHECK(t.decoded("c4 e3 79 06 ca 00") == undefined);           // and with VEX.L = 0
    CHECK(t.decoded("c4 e0 78 28 ca") == undefined);              // VEX.mmmmm = 0 is reserved
    CHECK(t.decoded("c4 e2 69 92 0c 08") == undefined); // VGATHERDPS: index and destination are the same,
    CHECK(t.decoded("c4 e2 71 92 0c 18") == undefined); // mask and destination,
    CHECK(t.decoded("c4 e2 61 92 0c 18") == undefined); // index and mask
    CHECK(t.decoded("c4 e2 69 92 0b") == undefined);    // and no SIB
    CHECK(t.decoded("c4 e2 69 92 0c 18") == Decoder::Status::ok);
}

TEST_CASE("AVX: in real-address and virtual-8086 mode C4H and C5H are LES and LDS, or #UD [SDM 2A 2.3.5]") {
    Harness t;
    const Decoder decoder(t.model);
    Insn insn;
    u8 raw[15] = {0xC5, 0xF8, 0x28, 0xCA};
    CHECK(decoder.decode(CodeMode::protected16, raw, *t.cpu.virtualization, insn) == Decoder::Status::ok);
    CHECK(insn.vex);
    CHECK(decoder.decode(CodeMode::real16, raw, *t.cpu.virtualization, insn) == Decoder::Status::undefined);
    raw[0] = 0xC4;
    raw[1] = 0x07;
    CHECK(decoder.decode(CodeMode::real16, raw, *t.cpu.virtualization, insn) == Decoder::Status::ok);
    CHECK(!insn.vex);
}

TEST_CASE("AVX: a memory operand need not be aligned, except of moves that say so [SDM 2A Table 2-14]") {
    AvxHarness t;
    t.cpu.r[RBX] = data + 1;
    CHECK(general(t, code("c5 f5 fe 0b", "vpaddd ymm1, ymm1, [rbx]")) == completed);
    CHECK(general(t, code("c5 f0 58 0b", "vaddps xmm1, xmm1, [rbx]")) == completed);
    CHECK(general(t, code("c5 fc 10 0b", "vmovups ymm1, [rbx]")) == completed);
    t.cpu.r[RBX] = nowhere | 16;
    CHECK(general(t, code("c5 fc 28 0b", "vmovaps ymm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("c5 fd 7f 0b", "vmovdqa [rbx], ymm1")) == general_protection(0));
    CHECK(general(t, code("c5 fc 2b 0b", "vmovntps [rbx], ymm1")) == general_protection(0));
    CHECK(general(t, code("c4 e2 7d 2a 0b", "vmovntdqa ymm1, [rbx]")) == general_protection(0));
    CHECK(general(t, code("c5 f8 28 0b", "vmovaps xmm1, [rbx]")) == page_fault(0, nowhere | 16));
    t.cpu.r[RBX] = nowhere | 8;
    CHECK(general(t, code("c5 f8 28 0b", "vmovaps xmm1, [rbx]")) == general_protection(0));
}

TEST_CASE("AVX: a 128-bit VEX instruction clears the upper half of its destination, an SSE instruction keeps "
          "it [SDM "
          "2A 2.3.10.1]") {
    AvxHarness t;
    REQUIRE(general(t, code("66 0f fe ca", "paddd xmm1, xmm2")) == completed);
    CHECK(t.is(1, 4, 3, 4, 2));
    REQUIRE(general(t, code("c5 f1 fe ca", "vpaddd xmm1, xmm1, xmm2")) == completed);
    CHECK(t.is(1, 0, 0, 6, 3));
    REQUIRE(general(t, code("c5 db 58 da", "vaddsd xmm3, xmm4, xmm2")) == completed);
    CHECK(t.is(3, 0, 0, 2, 2));
    REQUIRE(general(t, code("c5 f9 6e e8", "vmovd xmm5, eax")) == completed);
    CHECK(t.is(5, 0, 0, 0, low32(t.cpu.r[RAX])));
}

TEST_CASE("VZEROUPPER, VZEROALL: all registers in 64-bit mode, else the lower eight [SDM 2C VZEROALL]") {
    for (const Mode mode : {Mode::long64, Mode::protected32}) {
        AvxHarness t(mode);
        const bool wide = mode == Mode::long64;
        REQUIRE(general(t, code("c5 f8 77", "vzeroupper")) == completed);
        CHECK(t.is(7, 0, 0, 2, 1));
        CHECK(t.is(8, wide ? 0 : 4, wide ? 0 : 3, 2, 1));
        REQUIRE(general(t, code("c5 fc 77", "vzeroall")) == completed);
        CHECK(t.is(0, 0, 0, 0, 0));
        CHECK(t.is(15, wide ? 0 : 4, wide ? 0 : 3, wide ? 0 : 2, wide ? 0 : 1));
    }
}

TEST_CASE("VMASKMOV: elements that the mask leaves out are not touched and can not fault [SDM 2C VMASKMOV]") {
    AvxHarness t;
    const u64 end = nowhere - 16;
    t.cpu.r[RBX] = end;
    t.put(2, 0, 0, 0, 0);
    CHECK(general(t, code("c4 e2 6d 2d 0b", "vmaskmovpd ymm1, ymm2, [rbx]")) == completed);
    CHECK(t.is(1, 0, 0, 0, 0));
    CHECK(general(t, code("c4 e2 6d 2f 0b", "vmaskmovpd [rbx], ymm2, ymm1")) == completed);

    t.cpu.r[RBX] = data;
    t.write(data, 0x1111'1111'2222'2222);
    t.write(data + 8, 0x3333'3333'4444'4444);
    t.put(2, 0, 0, bit(63), bit(31));
    REQUIRE(general(t, code("c4 e2 69 2c 0b", "vmaskmovps xmm1, xmm2, [rbx]")) == completed);
    CHECK(t.is(1, 0, 0, 0x3333'3333'0000'0000, 0x2222'2222));
    t.put(1, 0, 0, 0xAAAA'AAAA'BBBB'BBBB, 0xCCCC'CCCC'DDDD'DDDD);
    REQUIRE(general(t, code("c4 e2 69 2e 0b", "vmaskmovps [rbx], xmm2, xmm1")) == completed);
    CHECK(t.read(data) == 0x1111'1111'DDDD'DDDD);
    CHECK(t.read(data + 8) == 0xAAAA'AAAA'4444'4444);
}

TEST_CASE("VPMASKMOV: nothing is stored when a selected element faults [SDM 2C VPMASKMOV]") {
    AvxHarness t;
    t.cpu.r[RBX] = 0x8000'0000'0000 - 16; // the upper elements are not canonical
    t.put(2, 0, bit(63), 0, 0);
    CHECK(general(t, code("c4 e2 ed 8e 0b", "vpmaskmovq [rbx], ymm2, ymm1")) == general_protection(0));
    CHECK(general(t, code("c4 e2 ed 8c 0b", "vpmaskmovq ymm1, ymm2, [rbx]")) == general_protection(0));
    CHECK(t.is(1, 4, 3, 2, 1));
}

TEST_CASE("VGATHER: the mask says what is loaded, and is cleared; the rest of the destination stays [SDM 2C "
          "VGATHERDPD]") {
    AvxHarness t;
    t.cpu.r[RAX] = data;
    t.write(data, 0x10);
    t.write(data + 8, 0x18);
    t.write(data + 64, 0x40);
    t.put(5, 0, 0, 8 | u64{1} << 32, u64{8} << 32); // indexes 0, 8, 8, 1
    t.put(3, bit(63), 0, bit(63), bit(63));
    t.put(1, 0xF3, 0xF2, 0xF1, 0xF0);
    REQUIRE(general(t, code("c4 e2 e5 92 0c e8", "vgatherdpd ymm1, qword ptr [rax+xmm5*8], ymm3")) ==
            completed);
    CHECK(t.is(1, 0x18, 0xF2, 0x40, 0x10));
    CHECK(t.is(3, 0, 0, 0, 0));
    // Two elements of 32 bits: what is above them is cleared.
    t.put(5, 0, 0, static_cast<u64>(-8), 0);
    t.put(3, 1, 1, 1, set);
    t.cpu.r[RAX] = data + 8;
    REQUIRE(general(t, code("c4 e2 61 93 0c 28", "vgatherqps xmm1, dword ptr [rax+xmm5*1], xmm3")) ==
            completed);
    CHECK(t.is(1, 0, 0, 0, 0x10'0000'0018));
    CHECK(t.is(3, 0, 0, 0, 0));
}

TEST_CASE(
    "VGATHER: after a fault what was loaded is there, and its mask is cleared, so that it goes on from there "
    "[SDM 2C VGATHERQPD]") {
    for (const char* model : {"intel-max", "amd-max"}) {
        CAPTURE(model);
        AvxHarness t(Mode::long64, model);
        t.cpu.r[RAX] = data;
        t.write(data, 0x10);
        t.put(5, 0, nowhere, 0, 0);
        t.put(3, bit(63), bit(63) | 5, 5, bit(63));
        t.put(1, 0xF3, 0xF2, 0xF1, 0xF0);
        const Code gather = code("c4 e2 e5 93 0c 28", "vgatherqpd ymm1, qword ptr [rax+ymm5*1], ymm3");
        CHECK(general(t, gather) == page_fault(0, nowhere + data));
        CHECK(t.is(1, 0xF3, 0xF2, 0xF1, 0x10));
        // Elements that are still to do: all ones; AMD's processors leave them.
        const bool keeps = t.model.has(Quirk::gather_keeps_mask_elements);
        CHECK(t.is(3, keeps ? bit(63) : ~u64{0}, keeps ? bit(63) | 5 : ~u64{0}, 0, 0));
        t.put(5, 0, 0, 0, 0);
        CHECK(general(t) == completed);
        CHECK(t.is(1, 0x10, 0x10, 0xF1, 0x10));
    }
}

TEST_CASE(
    "VGATHER: a data breakpoint of an element comes instead of a later element's fault, with RF set [SDM 2C "
    "VGATHERDPS]") {
    AvxHarness t;
    t.cpu.r[RAX] = data;
    t.cpu.dr[0] = data;
    t.cpu.dr7 |= 2 | 0xF << 16; // global, reads and writes of 4 bytes
    t.cpu.mode_changed();
    t.cpu.context_changed(true);
    t.put(5, 0, 0, nowhere, 0);
    t.put(3, 0, 0, bit(63), bit(63));
    t.place(code("c4 e2 e1 93 0c 28", "vgatherqpd xmm1, qword ptr [rax+xmm5*1], xmm3"));
    const u64 rip = t.cpu.rip;
    CHECK(general(t) == completed);
    CHECK(t.cpu.rip == rip);
    CHECK((t.cpu.pending_debug & 0xF) == 1);
    CHECK(t.cpu.flag(RFLAGS::RF));
    CHECK(t.cpu.vector[3].q[0] == 0);
}

TEST_CASE("VCMPPS: predicates beyond 7 [SDM 2A Table 3-1]") {
    AvxHarness t;
    const u64 quiet = 0x7FC0'0000;
    const auto compare = [&](u8 predicate, u64 low) {
        t.cpu.mxcsr = MXCSR::at_reset;
        t.put(2, 0, 0, 0, 0x3F80'0000);
        t.put(3, 0, 0, 0, low);
        Code c = code("c5 ea c2 cb 00");
        c.bytes.back() = predicate;
        REQUIRE(general(t, c) == completed);
        return low32(t.cpu.vector[1].q[0]) == 0xFFFF'FFFF;
    };
    CHECK(compare(8, quiet));   // EQ_UQ
    CHECK(!compare(0, quiet));  // EQ_OQ
    CHECK(!compare(12, quiet)); // NEQ_OQ
    CHECK(!compare(11, quiet)); // FALSE_OQ
    CHECK(compare(15, quiet));  // TRUE_UQ
    CHECK(t.cpu.mxcsr == MXCSR::at_reset);
    CHECK(compare(31, quiet)); // TRUE_US
    CHECK(t.cpu.mxcsr == (MXCSR::at_reset | MXCSR::IE));
    CHECK(!compare(17, quiet)); // LT_OQ
    CHECK(t.cpu.mxcsr == MXCSR::at_reset);
    CHECK(compare(13, 0x3F80'0000)); // GE_OS
}

TEST_CASE("VCVTPS2PH: the immediate or MXCSR rounds, FZ does not count, DAZ does [SDM 2C VCVTPS2PH]") {
    AvxHarness t;
    const auto convert = [&](u32 value, u8 immediate) {
        t.put(2, 0, 0, 0, value);
        Code c = code("c4 e3 79 1d d1 00");
        c.bytes.back() = immediate;
        REQUIRE(general(t, c) == completed);
        return static_cast<u16>(t.cpu.vector[1].q[0]);
    };
    CHECK(convert(0x3F80'1000, 0) == 0x3C00); // 1 + 2^-11, half way, to even
    CHECK(convert(0x3F80'1000, 2) == 0x3C01);
    t.cpu.mxcsr = MXCSR::at_reset | MXCSR::FZ | 2 << 13;
    CHECK(convert(0x3F80'1000, 4) == 0x3C01);
    CHECK(convert(0x3F80'1000, 3) == 0x3C00);
    CHECK(convert(0x3380'0000, 0) == 0x0001); // 2^-24, the least denormal
    CHECK(convert(0x477F'F000, 0) == 0x7C00); // 65520 overflows
    CHECK((t.cpu.mxcsr & MXCSR::flags) == (MXCSR::OE | MXCSR::PE));
    t.cpu.mxcsr = MXCSR::at_reset | MXCSR::DAZ;
    CHECK(convert(0x8000'0001, 1) == 0x8000);
    CHECK((t.cpu.mxcsr & MXCSR::flags) == 0);
}

TEST_CASE("softfloat: a fused multiply-add is rounded once [SDM 1 14.5.2]") {
    using softfloat::fuse;
    softfloat::Environment e;
    // (1 + 2^-52)^2 - 1 = 2^-51 + 2^-104 exactly.
    CHECK(fuse<u64>(0x3FF0'0000'0000'0001, 0x3FF0'0000'0000'0001, 0xBFF0'0000'0000'0000, false, false, e) ==
          0x3CC0'0000'0000'0000);
    CHECK(e.raised == MXCSR::PE);
    e.raised = 0;
    // The product is infinite by itself, the sum is not.
    CHECK(fuse<u64>(0x7FE0'0000'0000'0000, 0x4000'0000'0000'0000, 0x7FE0'0000'0000'0000, false, true, e) ==
          0x7FE0'0000'0000'0000);
    CHECK(e.raised == 0);
    // Infinity by zero is invalid, but not when the addend is a QNaN, which is the result.
    CHECK(fuse<u64>(0x7FF0'0000'0000'0000, 0, 0x3FF0'0000'0000'0000, false, false, e) ==
          softfloat::default_nan<u64>);
    CHECK(e.raised == MXCSR::IE);
    e.raised = 0;
    CHECK(fuse<u64>(0x7FF0'0000'0000'0000, 0, 0x7FF8'0000'0000'0007, false, true, e) ==
          0x7FF8'0000'0000'0007);
    CHECK(e.raised == 0);
    CHECK(fuse<u32>(0x7FC0'0003, 0x7FC0'0002, 0x7FC0'0001, true, true, e) == 0x7FC0'0003);
    // Signs of zero.
    CHECK(fuse<u32>(0, 0x3F80'0000, 0, false, true, e) == 0);
    softfloat::Environment down{MXCSR::at_reset | 1 << 13};
    CHECK(fuse<u32>(0x3F80'0000, 0x3F80'0000, 0x3F80'0000, false, true, down) == 0x8000'0000);
}

TEST_CASE("MOVDIR64B: 64 bytes to ES:register, which must be aligned; MOVDIRI: a store [SDM 2B MOVDIR64B, "
          "MOVDIRI]") {
    Harness t;
    t.cpu.r[RBX] = data + 8;
    t.cpu.r[RAX] = data + 128;
    for (unsigned i = 0; i < 8; ++i) t.write(data + 8 + 8 * i, 0x1100 + i);
    REQUIRE(general(t, code("66 0f 38 f8 03", "movdir64b rax, zmmword ptr [rbx]")) == completed);
    for (unsigned i = 0; i < 8; ++i) CHECK(t.read(data + 128 + 8 * i) == 0x1100 + i);
    t.cpu.r[RAX] = data + 8;
    CHECK(general(t, code("66 0f 38 f8 03")) == general_protection(0));
    t.cpu.r[RAX] = 0x1234'5678'9ABC'DEF0;
    REQUIRE(general(t, code("48 0f 38 f9 03", "movdiri [rbx], rax")) == completed);
    CHECK(t.read(data + 8) == 0x1234'5678'9ABC'DEF0);
    Harness without(Mode::long64, "skylake-server");
    CHECK(general(without, code("0f 38 f9 03")) == undefined_opcode());
    CHECK(general(without, code("66 0f 38 f8 03")) == undefined_opcode());
}
