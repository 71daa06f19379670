// Random states for AVX, SSE and MMX instructions, and every form of them: shared by the tests that compare
// with the native processor and those that compare native machines with each other.
#pragma once

#include "base/random.hpp"
#include "cpu/softfloat.hpp"
#include "tests/support/harness.hpp"

#include <cstddef>
#include <cstring>
#include <string_view>

namespace exeunt::test {

/// The FXSAVE image, general registers (RSP is not loaded), RFLAGS and the upper halves of YMM registers.
struct alignas(64) NativeState {
    u8 fx[512];
    u64 gpr[16];
    u64 rflags;
    u64 unused;
    u64 upper[16][2];
};
static_assert(offsetof(NativeState, gpr) == 512 && offsetof(NativeState, rflags) == 640 &&
              offsetof(NativeState, upper) == 656);

struct Form {
    const char* bytes;
    std::string_view text;
};
inline constexpr Form forms[] = {
#define FORM(bytes, text) {bytes, text},
#include "tests/cpu/sse_forms.inc"
#define FORM(bytes, text) {bytes, text},
#include "tests/cpu/avx_forms.inc"
};

inline constexpr u64 data_bytes = 64;
inline constexpr u64 data_offset = 32; ///< of RBX and RDI in it

/// A quadword that one kind of instruction or another finds interesting.
inline u64 number(Random& random) {
    const u64 r = random.next();
    const u64 x = random.next();
    switch (r & 7) {
    case 0: return x & 0x0303'0303'0303'0303; // small bytes, equal ones among them
    case 1: return x & 0x007F'00FF'8001'7FFF;
    case 2: return (x & 0x800F'FFFF'FFFF'FFFF) | (0x3F0 + (r >> 8 & 0x3F)) << 52; // doubles about 1
    case 3: return (x & 0x807F'FFFF'807F'FFFF) | (0x78 + (r >> 8 & 15)) << 55 | (0x78 + (r >> 16 & 31)) << 23;
    case 4: { // the ends of the range, NaNs, denormals
        const u64 top = r >> 8 & 1 ? 0x7FF - (r >> 9 & 1) : r >> 9 & 1;
        return (x & 0x8000'0000'0000'0000) | top << 52 |
               (r >> 16 & 1 ? x & 0xF'FFFF'FFFF'FFFF : x & 0x8'0000'0000'0001);
    }
    case 5: {
        const u64 high = r >> 8 & 1 ? 0xFF - (r >> 9 & 1) : r >> 9 & 1,
                  low = r >> 10 & 1 ? 0xFF - (r >> 11 & 1) : r >> 11 & 1;
        return (x & (r >> 16 & 1 ? 0x807F'FFFF'807F'FFFF : 0x8040'0001'8040'0001)) | high << 55 | low << 23;
    }
    case 6: return r >> 8 & 1 ? x & 0xFF : r >> 9 & 1 ? 0 : 0 - (x & 0xFF);
    default: return x;
    }
}

struct Setup {
    NativeState state;
    u8 data[data_bytes];
};

inline void put16(u8* at, unsigned value) {
    at[0] = static_cast<u8>(value);
    at[1] = static_cast<u8>(value >> 8);
}

inline Setup random_setup(Random& random, bool unmask) {
    Setup s{};
    u8* fx = s.state.fx;
    const u64 r = random.next();
    put16(fx, 0x037F);
    put16(fx + 2, static_cast<unsigned>(r & 7) << 11 | static_cast<unsigned>(r >> 8 & 0x47) << 8);
    fx[4] = static_cast<u8>(r >> 16);
    u32 mxcsr = MXCSR::at_reset;
    if (r >> 24 & 1) mxcsr |= static_cast<u32>(r >> 32) & (MXCSR::RC | MXCSR::DAZ | MXCSR::FZ);
    if (r >> 25 & 1) mxcsr |= static_cast<u32>(r >> 32) & MXCSR::flags;
    if (unmask) mxcsr &= ~(static_cast<u32>(r >> 48) & MXCSR::masks & ~MXCSR::flags);
    std::memcpy(fx + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; ++i) {
        const u64 significand = number(random);
        std::memcpy(fx + 32 + 16 * i, &significand, 8);
        put16(fx + 40 + 16 * i, static_cast<unsigned>(random.next() & 0xFFFF));
    }
    for (unsigned i = 0; i < 32; ++i) {
        const u64 value = number(random);
        std::memcpy(fx + 160 + 8 * i, &value, 8);
    }
    for (auto& upper : s.state.upper)
        for (u64& value : upper) value = number(random);
    for (u64& value : s.state.gpr) value = number(random);
    if (r >> 26 & 1) {
        for (const Gpr g : {RAX, RDX}) s.state.gpr[g] = random.next() % 36 - 18; // lengths of PCMPESTRI
    }
    s.state.rflags = RFLAGS::FIXED1 | RFLAGS::IF | (random.next() & RFLAGS::arithmetic);
    for (unsigned i = 0; i < data_bytes; i += 8) {
        const u64 value = number(random);
        std::memcpy(s.data + i, &value, 8);
    }
    return s;
}

/// The emulated processor gets the same state.
inline void load(Harness& t, const Setup& s) {
    Cpu& cpu = t.cpu;
    const u8* fx = s.state.fx;
    cpu.control.cr4 |= CR4::OSXSAVE;
    cpu.control.xcr0 = XCR0::X87 | XCR0::SSE | XCR0::AVX;
    cpu.x87.control = 0x037F;
    cpu.x87.status = static_cast<u16>(fx[2] | fx[3] << 8);
    cpu.x87.empty = static_cast<u8>(~fx[4]);
    std::memcpy(&cpu.mxcsr, fx + 24, 4);
    for (unsigned i = 0; i < 8; ++i) {
        X87Register& st = cpu.x87.st[(cpu.x87.top() + i) & 7];
        std::memcpy(&st.significand, fx + 32 + 16 * i, 8);
        st.sign_exponent = static_cast<u16>(fx[40 + 16 * i] | fx[41 + 16 * i] << 8);
    }
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(cpu.vector[i].q, fx + 160 + 16 * i, 16);
        std::memcpy(cpu.vector[i].q + 2, s.state.upper[i], 16);
        if (i != RSP) cpu.r[i] = s.state.gpr[i];
    }
    cpu.r[RBX] = cpu.r[RDI] = Harness::data_address + data_offset;
    cpu.flags.set_arithmetic(s.state.rflags);
    t.memory.write_bytes(Physical{Harness::data_address}, s.data, data_bytes);
}

/// The instruction of a form with another immediate, where it has one.
inline Code with_immediate(const Form& form, const Code& instruction, u8 immediate) {
    if (!form.text.ends_with("0x1B")) return instruction;
    Code changed{instruction.bytes, ""};
    changed.bytes.back() = immediate;
    return changed;
}

/// LDMXCSR gets a value without reserved bits, and gathers get indexes (XMM5 or YMM5) that stay within the
/// data.
inline void fit_memory(const Form& form, Setup& s) {
    if (form.text.find("gather") != std::string_view::npos) {
        u64 low[2];
        std::memcpy(low, s.state.fx + 160 + 16 * 5, sizeof low);
        // VGATHERDxx has indexes of 32 bits, VGATHERQxx of 64.
        const u64 kept = form.text[form.text.find("gather") + 6] == 'd' ? 0xF'0000'000F : 0xF;
        for (u64& q : low) q &= kept;
        for (u64& q : s.state.upper[5]) q &= kept;
        std::memcpy(s.state.fx + 160 + 16 * 5, low, sizeof low);
        return;
    }
    if (form.text.find("ldmxcsr") == std::string_view::npos) return;
    u32 value = 0;
    std::memcpy(&value, s.data + data_offset, 4);
    value &= MXCSR::all;
    std::memcpy(s.data + data_offset, &value, 4);
}

} // namespace exeunt::test
