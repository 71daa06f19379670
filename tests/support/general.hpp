// One instruction by its general handler, whatever fast handlers the engine has: the definition under test.
#pragma once

#include "cpu/decoder.hpp"
#include "cpu/instructions.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

namespace exeunt::test {

/// Decodes what is at RIP, as the model of the harness has it.
inline Insn decode_at_rip(Harness& t) {
    const Decoder decoder(t.model);
    u8 bytes[15];
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::CS).base;
    t.memory.read_bytes(Physical{base + t.cpu.rip}, bytes, sizeof bytes);
    Insn insn;
    REQUIRE(decoder.decode(t.code_mode(), bytes, *t.cpu.virtualization, insn) == Decoder::Status::ok);
    REQUIRE(insn.row != nullptr);
    return insn;
}

/// Executes the instruction at RIP; RIP moves on only when it completes. Nothing is delivered.
inline Stop general(Harness& t) {
    const Insn insn = decode_at_rip(t);
    t.cpu.next_rip = t.cpu.rip + insn.length;
    const Result<void> result = execute(t.cpu, insn);
    if (result.ok()) t.cpu.rip = t.cpu.next_rip;
    return result.stop();
}

inline Stop general(Harness& t, const Code& code) {
    t.place(code);
    return general(t);
}

/// The arithmetic flags.
inline u64 arithmetic_flags(const Harness& t) { return t.cpu.flags.arithmetic(); }

} // namespace exeunt::test
