// Every form of every AVX, SSE and MMX instruction against the native processor, where that is x86-64: random
// registers, x87 state, MXCSR, immediates and memory; bits, flags, exceptions and the effect on the x87 FPU
// must be the same.
#include "tests/cpu/sse_silicon.hpp"

#if defined(__x86_64__)

#include "tests/support/general.hpp"

#include <cstdio>
#include <doctest/doctest.h>
#include <string>
#include <string_view>

using namespace exeunt;
using namespace exeunt::test;

namespace {

/// What differs between the emulated processor and the native one, in words; empty when nothing does.
std::string differences(Harness& t, const Setup& native, const u8* native_data) {
    std::string text;
    const auto differ = [&](const char* what, u64 ours, u64 theirs) {
        char line[120];
        std::snprintf(line, sizeof line, "  %s: %016llX, silicon %016llX\n", what,
                      static_cast<unsigned long long>(ours), static_cast<unsigned long long>(theirs));
        if (ours != theirs) text += line;
    };
    const Cpu& cpu = t.cpu;
    const u8* fx = native.state.fx;
    const auto quadword = [](const u8* at) {
        u64 value;
        std::memcpy(&value, at, 8);
        return value;
    };
    differ("FSW", cpu.x87.status, static_cast<u64>(fx[2] | fx[3] << 8));
    differ("tags", static_cast<u8>(~cpu.x87.empty), fx[4]);
    u32 mxcsr;
    std::memcpy(&mxcsr, fx + 24, 4);
    differ("MXCSR", cpu.mxcsr, mxcsr);
    char name[16];
    for (unsigned i = 0; i < 8; ++i) {
        const X87Register& st = cpu.x87.st[(cpu.x87.top() + i) & 7];
        std::snprintf(name, sizeof name, "st%u", i);
        differ(name, st.significand, quadword(fx + 32 + 16 * i));
        std::snprintf(name, sizeof name, "st%u[79:64]", i);
        differ(name, st.sign_exponent, quadword(fx + 40 + 16 * i) & 0xFFFF);
    }
    for (unsigned i = 0; i < 16; ++i) {
        std::snprintf(name, sizeof name, "xmm%u low", i);
        differ(name, cpu.vector[i].q[0], quadword(fx + 160 + 16 * i));
        std::snprintf(name, sizeof name, "xmm%u high", i);
        differ(name, cpu.vector[i].q[1], quadword(fx + 168 + 16 * i));
        std::snprintf(name, sizeof name, "ymm%u low", i);
        differ(name, cpu.vector[i].q[2], native.state.upper[i][0]);
        std::snprintf(name, sizeof name, "ymm%u high", i);
        differ(name, cpu.vector[i].q[3], native.state.upper[i][1]);
        std::snprintf(name, sizeof name, "r%u", i);
        if (i != RSP && i != RBX && i != RDI) differ(name, cpu.r[i], native.state.gpr[i]);
    }
    differ("flags", cpu.flags.arithmetic(), native.state.rflags & RFLAGS::arithmetic);
    for (unsigned i = 0; i < data_bytes; i += 8) {
        std::snprintf(name, sizeof name, "memory+%u", i);
        differ(name, t.read(Harness::data_address + i), quadword(native_data + i));
    }
    return text;
}

/// Each processor has its own tables for these: softfloat_test.cpp looks at their error.
bool is_approximation(std::string_view text) {
    return text.find("rcp") != std::string_view::npos || text.find("rsqrt") != std::string_view::npos;
}

/// CVTPI2PS with a memory operand is an MMX instruction for the x87 FPU, says the SDM; AMD's processors leave
/// the x87 FPU alone.
bool is_known_difference(std::string_view text) { return text.starts_with("cvtpi2ps xmm1, ["); }

/// One execution on both; what differs.
std::string compare_once(Harness& t, const Form& form, const Code& original, Random& random, bool unmask) {
    Setup s = random_setup(random, unmask);
    const Code instruction = with_immediate(form, original, static_cast<u8>(random.next()));
    fit_memory(form, s);
    load(t, s);
    alignas(64) u8 native_data[data_bytes];
    std::memcpy(native_data, s.data, data_bytes);
    s.state.gpr[RBX] = s.state.gpr[RDI] = reinterpret_cast<u64>(native_data + data_offset);
    const bool completed = native::run(s.state, instruction.bytes.data(), instruction.bytes.size());
    const Stop stop = general(t, instruction);
    std::string text;
    if (completed != (stop.kind == Stop::Kind::none))
        text += completed ? "  only we stopped\n" : "  only silicon stopped\n";
    if (!completed && stop != exception(Vector::XM)) text += "  not #XM\n";
    if (completed || text.empty()) text += differences(t, s, native_data);
    if (!text.empty())
        text = std::string(form.text) + " as " + form.bytes + ", last byte " +
               std::to_string(instruction.bytes.back()) + "\n" + text;
    return text;
}

void compare_all(u64 seed, int times, bool unmask) {
    if (!native::has_everything()) {
        MESSAGE("the native processor lacks some of the instructions: nothing compared");
        return;
    }
    Harness t;
    INFO("seed " << seed);
    Random random(seed);
    int failures = 0;
    for (const Form& form : forms) {
        if (is_approximation(form.text) || is_known_difference(form.text)) continue;
        const Code instruction = code(form.bytes, form.text);
        int here = 0;
        for (int i = 0; i < times && here < 2; ++i) {
            const std::string text = compare_once(t, form, instruction, random, unmask);
            if (text.empty()) continue;
            ++here;
            FAIL_CHECK(text);
        }
        if (here != 0 && ++failures > 40) break;
    }
    CHECK(failures == 0);
}

} // namespace

TEST_CASE("AVX, SSE and MMX: every form gives what silicon gives, exceptions masked") {
    compare_all(0x5EED'0011, 250, false);
}

TEST_CASE("AVX, SSE and MMX: every form takes the SIMD floating-point exceptions that silicon takes") {
    compare_all(0x5EED'0012, 60, true);
}

#endif
