// The engine's fast handlers against the general ones, which are the definition: random straight code and
// branches over all integer instructions, in three modes, from the same random states.
#include "base/random.hpp"
#include "cpu/blocks.hpp"
#include "cpu/instructions.hpp"
#include "tests/support/harness.hpp"

#include <cstring>
#include <doctest/doctest.h>
#include <sstream>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 code_at = Harness::code_address;
constexpr u64 data = Harness::data_address;
constexpr u64 compared = 0x6'0000; ///< low memory with code, data, stack and tables

/// Opcode bytes to choose from; ModRM, displacement and immediate are random, and the decoder says what is
/// valid.
constexpr u16 opcodes[] = {
    0x00,   0x01,   0x02,   0x03,   0x04,   0x05,   0x08,   0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x10,
    0x11,   0x12,   0x13,   0x14,   0x15,   0x18,   0x19,   0x1A,   0x1B,   0x1C,   0x1D,   0x20,   0x21,
    0x22,   0x23,   0x24,   0x25,   0x28,   0x29,   0x2A,   0x2B,   0x2C,   0x2D,   0x30,   0x31,   0x32,
    0x33,   0x34,   0x35,   0x38,   0x39,   0x3A,   0x3B,   0x3C,   0x3D,   0x40,   0x48,   0x50,   0x52,
    0x55,   0x58,   0x5A,   0x5E,   0x60,   0x61,   0x63,   0x68,   0x69,   0x6A,   0x6B,   0x70,   0x72,
    0x74,   0x75,   0x76,   0x78,   0x7A,   0x7C,   0x7E,   0x80,   0x81,   0x83,   0x84,   0x85,   0x86,
    0x87,   0x88,   0x89,   0x8A,   0x8B,   0x8D,   0x8F,   0x91,   0x98,   0x99,   0x9E,   0x9F,   0xA4,
    0xA5,   0xA6,   0xA8,   0xA9,   0xAA,   0xAB,   0xAC,   0xAE,   0xB0,   0xB4,   0xB8,   0xBB,   0xC0,
    0xC1,   0xC6,   0xC7,   0xC8,   0xC9,   0xD0,   0xD1,   0xD2,   0xD3,   0xD4,   0xD5,   0xE3,   0xE8,
    0xEB,   0xF5,   0xF6,   0xF7,   0xF8,   0xF9,   0xFC,   0xFD,   0xFE,   0xFF,   0x27,   0x2F,   0x37,
    0x3F,   0x0F1F, 0x0F40, 0x0F44, 0x0F45, 0x0F47, 0x0F4A, 0x0F4C, 0x0F4F, 0x0F90, 0x0F92, 0x0F94, 0x0F97,
    0x0F9D, 0x0F9E, 0x0FA3, 0x0FA4, 0x0FA5, 0x0FAB, 0x0FAC, 0x0FAD, 0x0FAF, 0x0FB0, 0x0FB1, 0x0FB3, 0x0FB6,
    0x0FB7, 0x0FB8, 0x0FBA, 0x0FBB, 0x0FBC, 0x0FBD, 0x0FBE, 0x0FBF, 0x0FC0, 0x0FC1, 0x0FC7, 0x0FC8, 0x0FCB,
};

/// One random instruction of the integer set that may stand in the middle of the program, or nothing.
std::vector<u8> random_instruction(Random& random, const Decoder& decoder, const Harness& t) {
    const CodeMode mode = t.code_mode();
    std::vector<u8> bytes;
    const u64 choice = random.next();
    if (choice % 6 == 0) bytes.push_back(0x66);
    if ((choice >> 8) % 16 == 0) bytes.push_back(0x67);
    if ((choice >> 16) % 16 == 0) bytes.push_back(random.next() & 1 ? 0xF3 : 0xF2);
    if ((choice >> 24) % 16 == 0) bytes.push_back(random.next() & 1 ? 0x64 : 0x65);
    if (mode == CodeMode::long64 && (choice >> 32) % 2 == 0)
        bytes.push_back(static_cast<u8>(0x40 | (choice >> 40) % 16));
    const u16 opcode = opcodes[random.next() % std::size(opcodes)];
    if (opcode > 0xFF) bytes.push_back(static_cast<u8>(opcode >> 8));
    bytes.push_back(static_cast<u8>(opcode));
    const std::size_t modrm = bytes.size();
    while (bytes.size() < 15) bytes.push_back(static_cast<u8>(random.next()));
    // Displacements of 8 bits, and no absolute addresses, so that most accesses hit memory.
    if ((bytes[modrm] & 0xC0) == 0x80) bytes[modrm] ^= 0xC0;
    if ((bytes[modrm] & 0xC7) == 0x05) bytes[modrm] |= 0x40;
    Insn insn;
    if (decoder.decode(mode, bytes, *t.cpu.virtualization, insn) != Decoder::Status::ok || !insn.row)
        return {};
    bytes.resize(insn.length);
    // Branches go forwards by a few bytes, so that the program ends.
    if (insn.operand_count > 0 && insn.operand[0].kind == OperandKind::relative) {
        bytes.back() = opcode == 0xE8 ? 0 : static_cast<u8>(random.next() % 8);
        for (std::size_t i = bytes.size() - 1; opcode == 0xE8 && i > bytes.size() - 4; --i) bytes[i - 1] = 0;
    }
    return bytes;
}

std::vector<u8> random_program(Random& random, const Decoder& decoder, const Harness& t) {
    std::vector<u8> program;
    for (unsigned i = 0; i < 8;) {
        const auto one = random_instruction(random, decoder, t);
        if (one.empty()) continue;
        program.insert(program.end(), one.begin(), one.end());
        ++i;
    }
    for (unsigned i = 0; i < 16; ++i) program.push_back(0xF4); // HLT, also where branches go astray
    return program;
}

/// Registers that often point into memory, and often hold small or extreme numbers.
void randomize(Random& random, Harness& t, const CpuState& initial) {
    static_cast<CpuState&>(t.cpu) = initial;
    for (unsigned i = 0; i < 16; ++i) {
        const u64 shape = random.next() % 8;
        u64 value = random.next();
        if (shape < 5)
            value = data + value % 0x8000;
        else if (shape < 7)
            value = sign_extend(value, 1 + static_cast<unsigned>(value >> 32) % 24);
        t.cpu.r[i] = value;
    }
    t.cpu.r[RSP] = data + 0x4000 + (random.next() & 0xFF8);
    if (t.code_mode() != CodeMode::long64)
        for (unsigned i = 0; i < 16; ++i) t.cpu.r[i] = i < 8 ? low32(t.cpu.r[i]) : 0;
    t.cpu.flags.set_arithmetic(random.next() & RFLAGS::arithmetic);
    t.cpu.context_changed(true);
    t.cpu.mode_changed();
}

std::string describe(CodeMode mode, const CpuState& start, const std::vector<u8>& program) {
    std::ostringstream out;
    out << disassemble_all(mode, program, code_at) << std::hex << "\n";
    for (unsigned i = 0; i < 16; ++i) out << " r" << std::dec << i << "=" << std::hex << start.r[i];
    out << " rflags=" << start.flags.value();
    return out.str();
}

/// The first difference between two processors and their memories, or nothing.
std::string difference(Harness& a, Harness& b) {
    std::ostringstream out;
    out << std::hex;
    for (unsigned i = 0; i < 16; ++i)
        if (a.cpu.r[i] != b.cpu.r[i])
            out << " r" << std::dec << i << std::hex << ": " << a.cpu.r[i] << "/" << b.cpu.r[i];
    if (a.cpu.rip != b.cpu.rip) out << " rip: " << a.cpu.rip << "/" << b.cpu.rip;
    if (a.cpu.rflags() != b.cpu.rflags()) out << " rflags: " << a.cpu.rflags() << "/" << b.cpu.rflags();
    if (a.cpu.control.cr2 != b.cpu.control.cr2)
        out << " cr2: " << a.cpu.control.cr2 << "/" << b.cpu.control.cr2;
    if (a.cpu.now() != b.cpu.now()) out << " now: " << a.cpu.now() << "/" << b.cpu.now();
    const u8 *left = a.memory.native(Physical{0}), *right = b.memory.native(Physical{0});
    if (std::memcmp(left, right, compared) != 0)
        for (u64 i = 0; i < compared; ++i)
            if (left[i] != right[i]) {
                out << " memory at " << i << ": " << unsigned{left[i]} << "/" << unsigned{right[i]};
                break;
            }
    return out.str();
}

void compare_modes(Mode mode, u64 seed, unsigned rounds) {
    Harness fast(mode), general(mode);
    general.cpu.blocks->set_fast(false);
    const CpuState initial = fast.cpu;
    const u64 rip = fast.cpu.rip;
    const Decoder decoder(fast.model);
    Random random{seed};
    unsigned failures = 0;
    for (unsigned round = 0; round < rounds && failures < 5; ++round) {
        randomize(random, fast, initial);
        const auto program = random_program(random, decoder, fast);
        for (Harness* t : {&fast, &general}) {
            if (t == &general) {
                static_cast<CpuState&>(t->cpu) = fast.cpu;
                t->cpu.context_changed(true);
                t->cpu.mode_changed();
            }
            t->cpu.rip = rip;
            t->memory.write_bytes(Physical{code_at}, program.data(), program.size());
        }
        const CpuState before = fast.cpu;
        const CodeMode code_mode = fast.code_mode();
        fast.run(200);
        general.run(200);
        const std::string found = difference(fast, general);
        if (!found.empty()) {
            ++failures;
            FAIL_CHECK("seed ", seed, ", round ", round, ": ", describe(code_mode, before, program),
                       "\n fast/general:", found);
            general.memory.write_bytes(Physical{0}, fast.memory.native(Physical{0}), compared);
        }
    }
    CHECK(std::memcmp(fast.memory.native(Physical{0}), general.memory.native(Physical{0}),
                      fast.memory.ram_bytes()) == 0);
    CHECK(fast.bus.mmio_writes == general.bus.mmio_writes);
}

} // namespace

TEST_CASE("fast handlers agree with the general ones in 64-bit mode") {
    compare_modes(Mode::long64, 1, 20000);
}
TEST_CASE("fast handlers agree with the general ones in 32-bit mode") {
    compare_modes(Mode::protected32, 2, 12000);
}
TEST_CASE("fast handlers agree with the general ones in real-address mode") {
    compare_modes(Mode::real, 3, 8000);
}

TEST_CASE("fast handlers of vector moves ask whether the instruction may be executed [SDM 3A 13.1.1, 13.5.1]") {
    for (const char* bytes : {"0f 28 ca", "0f 28 0b", "0f 11 0b", "f2 0f 10 0b", "66 0f 6e c8", "f3 0f 11 0b",
                              "c5 f8 28 ca", "c5 fc 10 0b", "c5 fe 7f 0b", "c5 fb 10 0b", "c5 f9 7e c8"}) {
        CAPTURE(bytes);
        const bool vex = bytes[0] == 'c';
        for (const bool switched : {true, false}) {
            Harness t;
            t.cpu.control.cr4 |= CR4::OSXSAVE;
            t.cpu.control.xcr0 = XCR0::X87 | XCR0::SSE | XCR0::AVX;
            if (switched) {
                t.cpu.control.cr0 |= CR0::TS;
            } else if (vex) {
                t.cpu.control.xcr0 &= ~XCR0::AVX;
            } else {
                t.cpu.control.cr4 &= ~CR4::OSFXSR;
            }
            t.cpu.r[RBX] = data;
            t.cpu.mode_changed();
            t.place(code(bytes));
            t.run(1);
            CHECK(t.vector_reached() == (switched ? 7 : 6));
        }
    }
}
