// Runs x87 instructions of X87Case by exeunt's general handlers, lists all encodings, and prints states.
#pragma once

#include "tests/cpu/x87_operands.hpp"
#include "tests/support/general.hpp"

#include <fmt/format.h>

namespace exeunt::test {

struct X87Instruction {
    std::vector<u8> bytes;
    Insn insn;
    std::string text;

    bool starts(std::string_view prefix) const { return text.starts_with(prefix); }
    bool transcendental() const {
        for (const char* name : {"fsin", "fcos", "fptan", "fpatan", "f2xm1", "fyl2x"})
            if (starts(name)) return true;
        return false;
    }
};

/// Every defined encoding of D8 to DF, memory operands as [rdx].
inline std::vector<X87Instruction> all_x87_instructions(Harness& t) {
    const Decoder decoder(t.model);
    std::vector<X87Instruction> list;
    for (unsigned opcode = 0xD8; opcode <= 0xDF; ++opcode)
        for (unsigned modrm = 0; modrm < 256; ++modrm) {
            if (modrm < 0xC0 && (modrm & 0xC7) != 2) continue;
            X87Instruction i;
            i.bytes = {static_cast<u8>(opcode), static_cast<u8>(modrm)};
            if (decoder.decode(CodeMode::long64, i.bytes, *t.cpu.virtualization, i.insn) !=
                Decoder::Status::ok)
                continue;
            i.text = disassemble(CodeMode::long64, i.bytes, 0);
            list.push_back(i);
        }
    return list;
}

inline void emulate(Harness& t, const X87Instruction& i, X87Case& c) {
    t.cpu.x87 = c.x87;
    t.cpu.flags.set_arithmetic(c.flags);
    t.cpu.r[RAX] = c.rax;
    t.cpu.r[RDX] = Harness::data_address;
    t.memory.write_bytes(Physical{Harness::data_address}, c.memory.data(), c.memory.size());
    t.cpu.next_rip = t.cpu.rip + i.insn.length;
    REQUIRE(execute(t.cpu, i.insn).ok());
    c.x87 = t.cpu.x87;
    c.flags = (c.flags & ~RFLAGS::arithmetic) | t.cpu.flags.arithmetic();
    c.rax = t.cpu.r[RAX];
    t.memory.read_bytes(Physical{Harness::data_address}, c.memory.data(), c.memory.size());
}

inline bool operator==(const X87Case& a, const X87Case& b) {
    for (unsigned i = 0; i < 8; ++i) {
        if (a.x87.st[i].significand != b.x87.st[i].significand) return false;
        if (a.x87.st[i].sign_exponent != b.x87.st[i].sign_exponent) return false;
    }
    return a.x87.control == b.x87.control && a.x87.status == b.x87.status && a.x87.empty == b.x87.empty &&
           a.memory == b.memory && a.rax == b.rax && ((a.flags ^ b.flags) & RFLAGS::arithmetic) == 0;
}

inline std::string describe(const X87Case& c) {
    const X87State& x = c.x87;
    std::string text = fmt::format("control {:04x} status {:04x} empty {:02x} flags {:04x} ax {:04x}",
                                   x.control, x.status, x.empty, c.flags & 0xFFF, c.rax & 0xFFFF);
    for (unsigned i = 0; i < 8; ++i) {
        const X87Register& r = x.st[(x.top() + i) & 7];
        text += fmt::format("{}st{} {:04x} {:016x}", i % 4 == 0 ? "\n      " : "  ", i, r.sign_exponent,
                            r.significand);
    }
    text += "\n      memory";
    for (unsigned i = 0; i < 28; ++i) text += fmt::format("{}{:02x}", i % 4 == 0 ? " " : "", c.memory[i]);
    return text;
}

/// Two ends that should be the same, with what led to them.
inline std::string describe(const X87Instruction& i, const X87Case& before, const X87Case& ours,
                            const X87Case& theirs) {
    return fmt::format("{}\n   before {}\n   exeunt {}\n   other  {}", i.text, describe(before),
                       describe(ours), describe(theirs));
}

} // namespace exeunt::test
