// Shapes that integer instructions share: read, compute for the operand's size, then commit.
#pragma once

#include "cpu/alu.hpp"
#include "cpu/instructions.hpp"

namespace exeunt {

/// Calls `body` with a zero of the unsigned type that has `bytes` bytes.
template <class Body>
[[gnu::always_inline]] inline decltype(auto) with_size(unsigned bytes, Body body) {
    switch (bytes) {
    case 1: return body(u8{0});
    case 2: return body(u16{0});
    case 4: return body(u32{0});
    default: return body(u64{0});
    }
}

/// A source operand; an immediate is sign-extended to 64 bits, for the destination's size to be taken from
/// it.
inline Result<u64> read_source(Cpu& cpu, const Insn& insn, unsigned i) {
    if (insn.operand[i].kind == OperandKind::immediate) return insn.immediate;
    return cpu.read_operand(insn, i);
}

/// destination = op(flags, destination, source), for two operands of one size.
template <class Op>
Result<void> modify_binary(Cpu& cpu, const Insn& insn, Op op) {
    const u64 b = TRY(read_source(cpu, insn, 1));
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, 0));
    Flags flags = cpu.flags;
    const u64 result = with_size(insn.operand[0].bytes, [&](auto zero) {
        using T = decltype(zero);
        return static_cast<u64>(op(flags, static_cast<T>(d.value), static_cast<T>(b)));
    });
    TRY(cpu.commit(insn, 0, d, result));
    cpu.flags = flags;
    return {};
}

/// destination = op(flags, destination).
template <class Op>
Result<void> modify_unary(Cpu& cpu, const Insn& insn, Op op) {
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, 0));
    Flags flags = cpu.flags;
    const u64 result = with_size(insn.operand[0].bytes, [&](auto zero) {
        return static_cast<u64>(op(flags, static_cast<decltype(zero)>(d.value)));
    });
    TRY(cpu.commit(insn, 0, d, result));
    cpu.flags = flags;
    return {};
}

/// Only flags come out: op(flags, first, second).
template <class Op>
Result<void> compare_operands(Cpu& cpu, const Insn& insn, Op op) {
    const u64 b = TRY(read_source(cpu, insn, 1));
    const u64 a = TRY(cpu.read_operand(insn, 0));
    with_size(insn.operand[0].bytes, [&](auto zero) {
        using T = decltype(zero);
        op(cpu.flags, static_cast<T>(a), static_cast<T>(b));
    });
    return {};
}

/// A register that is written and not read (BMI, bit scans): operand 0 = op(flags, source operands).
template <class Op>
Result<void> write_from(Cpu& cpu, const Insn& insn, unsigned source, Op op) {
    const u64 a = TRY(cpu.read_operand(insn, source));
    const u64 result = with_size(insn.operand[0].bytes, [&](auto zero) {
        return static_cast<u64>(op(cpu.flags, static_cast<decltype(zero)>(a)));
    });
    return cpu.write_operand(insn, 0, result);
}

/// The mask of offsets of an address size (2, 4 or 8 bytes).
inline u64 address_mask(const Insn& insn) { return low_mask(8u * insn.address_size); }

} // namespace exeunt
