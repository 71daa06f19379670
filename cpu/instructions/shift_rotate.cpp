// Shift and rotate instructions: SDM 1 5.1.5; RORX, SARX, SHLX, SHRX of 5.1.16; each by its name in volume 2.
// Masking of the count and flags: cpu/alu.hpp.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

/// The count (CL or an immediate) has one byte whatever the destination has.
template <class Op>
static Result<void> shift(Cpu& cpu, const Insn& insn, Op op) {
    const unsigned count = static_cast<u8>(TRY(cpu.read_operand(insn, 1)));
    return modify_unary(cpu, insn, [&](Flags& f, auto a) { return op(f, a, count); });
}

Result<void> exec_SHL(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::shl(f, a, n); });
}
Result<void> exec_SHR(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::shr(f, a, n); });
}
Result<void> exec_SAR(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::sar(f, a, n); });
}
Result<void> exec_ROL(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::rol(f, a, n); });
}
Result<void> exec_ROR(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::ror(f, a, n); });
}
Result<void> exec_RCL(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::rcl(f, a, n); });
}
Result<void> exec_RCR(Cpu& cpu, const Insn& insn) {
    return shift(cpu, insn, [](Flags& f, auto a, unsigned n) { return alu::rcr(f, a, n); });
}

/// SHLD and SHRD: operands of 2, 4 or 8 bytes.
template <class Op>
static Result<void> shift_double(Cpu& cpu, const Insn& insn, Op op) {
    const u64 filler = TRY(cpu.read_operand(insn, 1));
    const unsigned count = static_cast<u8>(TRY(cpu.read_operand(insn, 2)));
    return modify_unary(cpu, insn, [&](Flags& f, auto a) {
        using T = decltype(a);
        if constexpr (sizeof(T) == 1) {
            return a;
        } else {
            return op(f, a, static_cast<T>(filler), count);
        }
    });
}

Result<void> exec_SHLD(Cpu& cpu, const Insn& insn) {
    return shift_double(cpu, insn,
                        [](Flags& f, auto a, auto b, unsigned n) { return alu::shld(f, a, b, n); });
}
Result<void> exec_SHRD(Cpu& cpu, const Insn& insn) {
    return shift_double(cpu, insn,
                        [](Flags& f, auto a, auto b, unsigned n) { return alu::shrd(f, a, b, n); });
}

/// The shifts of BMI2 change no flag: operand 0 = op(operand 1, operand 2), of 4 or 8 bytes.
template <class Op>
static Result<void> shift_flagless(Cpu& cpu, const Insn& insn, Op op) {
    const unsigned bits = 8u * insn.operand[0].bytes;
    const unsigned count = static_cast<unsigned>(TRY(cpu.read_operand(insn, 2))) & (bits - 1);
    const u64 value = TRY(cpu.read_operand(insn, 1));
    return cpu.write_operand(insn, 0, op(value, count, bits));
}

Result<void> exec_RORX(Cpu& cpu, const Insn& insn) {
    return shift_flagless(cpu, insn, [](u64 value, unsigned n, unsigned bits) {
        return n == 0 ? value : (value >> n) | (value << (bits - n));
    });
}
Result<void> exec_SARX(Cpu& cpu, const Insn& insn) {
    return shift_flagless(cpu, insn, [](u64 value, unsigned n, unsigned bits) {
        return static_cast<u64>(static_cast<i64>(sign_extend(value, bits)) >> n);
    });
}
Result<void> exec_SHLX(Cpu& cpu, const Insn& insn) {
    return shift_flagless(cpu, insn, [](u64 value, unsigned n, unsigned) { return value << n; });
}
Result<void> exec_SHRX(Cpu& cpu, const Insn& insn) {
    return shift_flagless(cpu, insn, [](u64 value, unsigned n, unsigned) { return value >> n; });
}

} // namespace exeunt
