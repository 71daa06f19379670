// How string instructions repeat: SDM 2B REP/REPE/REPZ/REPNE/REPNZ, SDM 1 7.3.9.2 "Repeated String
// Operations".
//
// An iteration is a tick. The first is the one that the instruction itself is; every further one takes one
// from the countdown, and where that ends, or an event wants attention, RIP stays at the instruction and the
// registers say how far it came, so that it is resumed.
#pragma once

#include "cpu/cpu.hpp"

#include <algorithm>

namespace exeunt {

/// The SSE2 instructions MOVSD and CMPSD, whose mnemonics the string instructions share: exec_MOVSD and exec_CMPSD
/// pass them on.
Result<void> sse2_movsd(Cpu& cpu, const Insn& insn);
Result<void> sse2_cmpsd(Cpu& cpu, const Insn& insn);

/// Moves an index register past one element (or `elements`), as DF says.
inline void advance(Cpu& cpu, const Insn& insn, Gpr index, u64 bytes, u64 elements = 1) {
    const u64 distance = bytes * elements;
    const u64 value = cpu.flag(RFLAGS::DF) ? cpu.r[index] - distance : cpu.r[index] + distance;
    cpu.set_gpr(index, insn.address_size, value);
}

/// Executes one iteration, or with a REP prefix as many as there are and the countdown has.
/// - `iterate()` does one iteration; when it stops, nothing of that iteration has happened.
/// - `bulk(most)` does several that can not stop, and says how many (0: none could be done this way).
/// A fault leaves RFLAGS as they were before the instruction (SDM 2B REP).
/// - `ends()`: after an iteration, whether REPE or REPNE is satisfied.
template <class Iterate, class Bulk, class Ends>
Result<void> repeat(Cpu& cpu, const Insn& insn, Iterate iterate, Bulk bulk, Ends ends) {
    if (insn.repeat == Repeat::none) return iterate();
    u64 count = cpu.gpr(RCX, insn.address_size);
    bool first = true;
    const Flags before = cpu.flags;
    while (count != 0) {
        if (!first && (cpu.remaining <= 0 || cpu.pending_debug)) {
            cpu.next_rip = cpu.rip;
            return {};
        }
        const u64 paid = first ? 1 : 0;
        const u64 affordable = paid + static_cast<u64>(std::max<i64>(cpu.remaining, 0));
        u64 done = bulk(std::min(count, affordable));
        if (done > 0) {
            cpu.remaining -= static_cast<i64>(done - paid);
        } else {
            if (!first) --cpu.remaining;
            if (const Result<void> result = iterate(); !result.ok()) {
                // A world switch has put other flags there.
                const Stop::Kind kind = result.stop().kind;
                if (kind == Stop::Kind::exception || kind == Stop::Kind::second_level) cpu.flags = before;
                return result;
            }
            done = 1;
        }
        first = false;
        count -= done;
        cpu.set_gpr(RCX, insn.address_size, count);
        if (ends()) return {};
    }
    return {};
}

template <class Iterate>
Result<void> repeat(Cpu& cpu, const Insn& insn, Iterate iterate) {
    return repeat(
        cpu, insn, iterate, [](u64) { return u64{0}; }, [] { return false; });
}

} // namespace exeunt
