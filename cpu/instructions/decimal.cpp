// Decimal arithmetic instructions: SDM 1 5.1.3; each by its name in volume 2. Undefined flags: cpu/alu.hpp.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

/// AL, with SF, ZF and PF of it; OF = 0; CF and AF as given.
static void set_al(Cpu& cpu, u64 al, bool cf, bool af) {
    cpu.set_gpr(RAX, 1, al);
    alu::logic(cpu.flags, static_cast<u8>(al));
    cpu.flags.cf = cf;
    cpu.flags.af = af ? static_cast<u8>(RFLAGS::AF) : u8{0};
}

/// Whether the low digit of AL needs adjusting.
static bool low_digit_adjusts(const Cpu& cpu) {
    return (cpu.r[RAX] & 0xF) > 9 || (cpu.flags.af & RFLAGS::AF);
}

Result<void> exec_DAA(Cpu& cpu, const Insn&) {
    const u64 old = cpu.gpr(RAX, 1);
    const bool low = low_digit_adjusts(cpu);
    const bool high = old > 0x99 || cpu.flags.cf;
    set_al(cpu, old + (low ? 6 : 0) + (high ? 0x60 : 0), high, low);
    return {};
}

Result<void> exec_DAS(Cpu& cpu, const Insn&) {
    const u64 old = cpu.gpr(RAX, 1);
    const bool low = low_digit_adjusts(cpu);
    const bool high = old > 0x99 || cpu.flags.cf;
    const bool borrow = low && old < 6;
    set_al(cpu, old - (low ? 6 : 0) - (high ? 0x60 : 0), high || borrow, low);
    return {};
}

/// AAA and AAS adjust AX as a whole, by `correction`, and keep the low digit of AL.
static void adjust_ascii(Cpu& cpu, u64 correction) {
    const bool adjusts = low_digit_adjusts(cpu);
    if (adjusts) cpu.set_gpr(RAX, 2, cpu.r[RAX] + correction);
    set_al(cpu, cpu.r[RAX] & 0xF, adjusts, adjusts);
}

Result<void> exec_AAA(Cpu& cpu, const Insn&) {
    adjust_ascii(cpu, 0x106);
    return {};
}
Result<void> exec_AAS(Cpu& cpu, const Insn&) {
    adjust_ascii(cpu, static_cast<u64>(-0x106));
    return {};
}

Result<void> exec_AAM(Cpu& cpu, const Insn& insn) {
    const u64 base = insn.immediate & 0xFF;
    if (base == 0) return exception(Vector::DE);
    const u64 al = cpu.gpr(RAX, 1);
    cpu.set_gpr(RAX, 2, (al / base) << 8);
    set_al(cpu, al % base, false, false);
    return {};
}

Result<void> exec_AAD(Cpu& cpu, const Insn& insn) {
    const u64 al = cpu.gpr(RAX, 1), ah = extract(cpu.r[RAX], 15, 8);
    cpu.set_gpr(RAX, 2, 0);
    set_al(cpu, al + ah * (insn.immediate & 0xFF), false, false);
    return {};
}

} // namespace exeunt
