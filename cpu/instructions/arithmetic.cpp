// Binary arithmetic instructions: SDM 1 5.1.2, MULX of 5.1.16; each by its name in volume 2. Flags:
// cpu/alu.hpp.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

Result<void> exec_ADD(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::add(f, a, b); });
}
Result<void> exec_ADC(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::adc(f, a, b); });
}
Result<void> exec_SUB(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::sub(f, a, b); });
}
Result<void> exec_SBB(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::sbb(f, a, b); });
}
Result<void> exec_CMP(Cpu& cpu, const Insn& insn) {
    return compare_operands(cpu, insn, [](Flags& f, auto a, auto b) { alu::cmp(f, a, b); });
}
Result<void> exec_INC(Cpu& cpu, const Insn& insn) {
    return modify_unary(cpu, insn, [](Flags& f, auto a) { return alu::inc(f, a); });
}
Result<void> exec_DEC(Cpu& cpu, const Insn& insn) {
    return modify_unary(cpu, insn, [](Flags& f, auto a) { return alu::dec(f, a); });
}
Result<void> exec_NEG(Cpu& cpu, const Insn& insn) {
    return modify_unary(cpu, insn, [](Flags& f, auto a) { return alu::neg(f, a); });
}

/// ADCX adds with CF alone, ADOX with OF alone.
Result<void> exec_ADCX(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::add_with_carry(a, b, f.cf); });
}
Result<void> exec_ADOX(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::add_with_carry(a, b, f.of); });
}

// ---- Multiplication --------------------------------------------------------------------------------------

/// The double-width accumulator: AH:AL, DX:AX, EDX:EAX or RDX:RAX.
template <class T>
static void write_pair(Cpu& cpu, T high, T low) {
    if constexpr (sizeof(T) == 1) {
        cpu.set_gpr(RAX, 2, (u64{high} << 8) | low);
    } else {
        cpu.set_gpr(RAX, sizeof(T), low);
        cpu.set_gpr(RDX, sizeof(T), high);
    }
}

Result<void> exec_MUL(Cpu& cpu, const Insn& insn) {
    const u64 b = TRY(cpu.read_operand(insn, 0));
    with_size(insn.operand[0].bytes, [&](auto zero) {
        auto high = zero;
        using T = decltype(zero);
        const T low = alu::mul(cpu.flags, static_cast<T>(cpu.r[RAX]), static_cast<T>(b), high);
        write_pair(cpu, high, low);
    });
    return {};
}

/// With one operand (rDX:rAX = rAX * source), two (destination *= source) or three.
Result<void> exec_IMUL(Cpu& cpu, const Insn& insn) {
    const unsigned last = insn.operand_count == 1 ? 0u : insn.operand_count - 1u;
    const u64 b = TRY(read_source(cpu, insn, last));
    if (insn.operand_count == 1) {
        with_size(insn.operand[0].bytes, [&](auto zero) {
            auto high = zero;
            using T = decltype(zero);
            const T low = alu::imul(cpu.flags, static_cast<T>(cpu.r[RAX]), static_cast<T>(b), high);
            write_pair(cpu, high, low);
        });
        return {};
    }
    const u64 a = TRY(cpu.read_operand(insn, last - 1));
    const u64 product = with_size(insn.operand[0].bytes, [&](auto zero) {
        using T = decltype(zero);
        return static_cast<u64>(alu::imul(cpu.flags, static_cast<T>(a), static_cast<T>(b)));
    });
    return cpu.write_operand(insn, 0, product);
}

/// No flag changes; where both destinations are one register, it gets the high half.
Result<void> exec_MULX(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand[0].bytes;
    const u64 b = TRY(cpu.read_operand(insn, 2));
    const u128 product = static_cast<u128>(cpu.gpr(RDX, bytes)) * b;
    TRY(cpu.write_operand(insn, 1, static_cast<u64>(product)));
    return cpu.write_operand(insn, 0, static_cast<u64>(product >> (8 * bytes)));
}

// ---- Division --------------------------------------------------------------------------------------------

/// The dividend is the double-width accumulator; `op` says whether the quotient fits.
template <class Op>
static Result<void> divide(Cpu& cpu, const Insn& insn, Op op) {
    const unsigned bytes = insn.operand[0].bytes;
    const u64 divisor = TRY(cpu.read_operand(insn, 0));
    const u64 high = bytes == 1 ? cpu.r[RAX] >> 8 : cpu.r[RDX];
    const bool fits = with_size(bytes, [&](auto zero) {
        auto quotient = zero;
        auto remainder = zero;
        using T = decltype(zero);
        if (!op(static_cast<T>(high), static_cast<T>(cpu.r[RAX]), static_cast<T>(divisor), quotient,
                remainder))
            return false;
        write_pair(cpu, remainder, quotient);
        return true;
    });
    return fits ? Result<void>{} : exception(Vector::DE);
}

Result<void> exec_DIV(Cpu& cpu, const Insn& insn) {
    return divide(cpu, insn,
                  [](auto high, auto low, auto d, auto& q, auto& r) { return alu::div(high, low, d, q, r); });
}
Result<void> exec_IDIV(Cpu& cpu, const Insn& insn) {
    return divide(cpu, insn, [](auto high, auto low, auto d, auto& q, auto& r) {
        return alu::idiv(high, low, d, q, r);
    });
}

} // namespace exeunt
