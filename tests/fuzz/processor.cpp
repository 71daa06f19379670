// Any code in any mode, for a bounded time: nothing crashes, no invariant breaks, time goes on and stops where it
// was told to, and the fast handlers end in the same state as the general ones, which are the definition.
#include "base/ensure.hpp"
#include "cpu/blocks.hpp"
#include "machine/snapshot.hpp"
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/support/harness.hpp"

#include <cstddef>
#include <cstring>
#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Tick limit = 2000;
constexpr std::size_t state_bytes = 64;

const CpuModel& model() {
    static const CpuModel loaded = CpuModel::load("intel-max");
    return loaded;
}

/// What came of it, as one number.
std::string run(Mode mode, bool ring3, bool fast, std::span<const u8> state, std::span<const u8> code) {
    Harness t(model(), mode);
    if (!fast) t.cpu.blocks->set_fast(false);
    if (ring3) t.enter_ring3();
    // Registers near code and data, so that accesses hit memory; the bits of the rest are the input's.
    for (std::size_t i = 0; i < state.size(); ++i) {
        const u64 value = state[i];
        const std::size_t reg = i % 16;
        if (reg == RSP) continue;
        t.cpu.r[reg] = i < 16 ? Harness::data_address + (value << 4) : t.cpu.r[reg] ^ value << (8 * (i / 16 - 1));
    }
    t.memory.write_bytes(Physical{Harness::data_address}, state.data(), state.size());
    t.memory.write_bytes(Physical{Harness::code_address}, code.data(), code.size());
    const Tick before = t.cpu.now();
    const RunEnd end = t.run(limit);
    ENSURE(t.cpu.now() >= before && t.cpu.now() <= before + limit);
    StateHash hash;
    hash.enter("end");
    u64 why = static_cast<u64>(end);
    hash.field("why", why, 8);
    hash.leave();
    t.cpu.visit(hash);
    t.memory.visit(hash);
    return hash.digest();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static doctest::Context context;
    context.setAsDefaultForAssertsOutOfTestCases();
    if (size < 1 + state_bytes) return 0;
    const Mode mode = static_cast<Mode>(data[0] % 6);
    const bool ring3 = data[0] & 0x80 && (mode == Mode::protected32 || mode == Mode::compatibility || mode == Mode::long64);
    const std::span<const u8> state{data + 1, state_bytes};
    const std::span<const u8> code{data + 1 + state_bytes, std::min<std::size_t>(size - 1 - state_bytes, 0x1000)};
    ENSURE(run(mode, ring3, true, state, code) == run(mode, ring3, false, state, code));
    return 0;
}
