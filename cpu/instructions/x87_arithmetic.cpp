// Basic arithmetic, square root, rounding, remainders, scaling. SDM 1 8.3.5 "Basic Arithmetic Instructions";
// SDM 2A FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR, FSQRT, FABS, FCHS, FRNDINT, FPREM, FPREM1, FSCALE, FXTRACT.
#include "cpu/instructions/x87.hpp"
#include "cpu/x87_native.hpp"

namespace exeunt {

namespace {

using namespace x87;
using x87_native::Operation;

template <Operation operation>
Extended compute(const Extended& a, const Extended& b, Environment& e) {
    if constexpr (operation == Operation::add) return softfloat80::add(a, b, e);
    if constexpr (operation == Operation::subtract) return softfloat80::subtract(a, b, e);
    if constexpr (operation == Operation::multiply) return softfloat80::multiply(a, b, e);
    if constexpr (operation == Operation::divide) return softfloat80::divide(a, b, e);
    return softfloat80::square_root(a, e);
}

/// ST(destination) = a op b. `defined`: neither comes from an empty register.
template <Operation operation>
[[gnu::noinline]] bool by_definition(Cpu& cpu, const Insn& insn, bool defined, Extended a, Extended b,
                                     Environment& e, unsigned destination, u64 offset) {
    Extended result = softfloat80::default_nan;
    if (defined)
        result = compute<operation>(a, b, e);
    else
        stack_underflow(e);
    if (!conclude(cpu, insn, e, offset)) return false;
    set_st(cpu.x87, destination, result);
    return true;
}

enum class Order : u8 { straight, reversed };

/// FADD and its like: ST(0) with a number in memory, or two registers.
template <Operation operation, Order order>
Result<void> arithmetic(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const bool memory = has_memory(insn);
    const u64 offset = memory ? cpu.effective_address(insn) : 0;
    const Extended number = memory ? TRY(load_number(cpu, insn, offset, e)) : Extended{};
    // D8 has ST(0) for its destination, DC and DE (which pops) ST(i).
    const unsigned i = memory ? 0 : register_number(insn);
    const unsigned destination = memory || insn.opcode == 0xD8 ? 0 : i;
    const unsigned source = memory || insn.opcode == 0xD8 ? i : 0;
    const Extended& target = st(x87, destination);
    const Extended& other = memory ? number : st(x87, source);
    const Extended& a = order == Order::straight ? target : other;
    const Extended& b = order == Order::straight ? other : target;
    const bool defined = !is_empty(x87, destination) && !is_empty(x87, source);
    const bool pops = !memory && insn.opcode == 0xDE;
    if (defined && !e.denormal_source &&
        x87_native::run<operation>(a, b, x87.control, x87.status, st(x87, destination))) [[likely]]
        note(cpu, insn, offset);
    else if (!by_definition<operation>(cpu, insn, defined, a, b, e, destination, offset))
        return {};
    if (pops) pop(x87);
    return {};
}

/// ST(0) = f(ST(0)).
template <class F>
Result<void> unary(Cpu& cpu, const Insn& insn, F f) {
    TRY(ready(cpu));
    Environment e{cpu.x87.control};
    Extended result = softfloat80::default_nan;
    if (is_empty(cpu.x87, 0))
        stack_underflow(e);
    else
        result = f(st(cpu.x87, 0), e);
    if (conclude(cpu, insn, e)) set_st(cpu.x87, 0, result);
    return {};
}

/// FPREM and FPREM1: C0, C3 and C1 are bits 2, 1 and 0 of the quotient.
Result<void> partial_remainder(Cpu& cpu, const Insn& insn, bool to_nearest) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    softfloat80::Remainder r{softfloat80::default_nan};
    if (is_empty(x87, 0) || is_empty(x87, 1))
        stack_underflow(e);
    else
        r = softfloat80::remainder(st(x87, 0), st(x87, 1), to_nearest, e);
    const bool completes = conclude(cpu, insn, e);
    // C0 and C3 tell of a quotient only; C2 is cleared in any case.
    const u16 cleared = completes && r.numbers ? FSW::C0 | FSW::C2 | FSW::C3 : FSW::C2;
    x87.status = static_cast<u16>(x87.status & ~cleared);
    if (!completes) return {};
    x87.status |= static_cast<u16>((r.partial ? FSW::C2 : 0) | (r.quotient & 4 ? FSW::C0 : 0) |
                                   (r.quotient & 2 ? FSW::C3 : 0) | (r.quotient & 1 ? FSW::C1 : 0));
    set_st(x87, 0, r.value);
    return {};
}

} // namespace

#define ARITHMETIC(name, operation, order)                                \
    Result<void> exec_##name(Cpu& cpu, const Insn& insn) {                \
        return arithmetic<Operation::operation, Order::order>(cpu, insn); \
    }
ARITHMETIC(FADD, add, straight)
ARITHMETIC(FADDP, add, straight)
ARITHMETIC(FIADD, add, straight)
ARITHMETIC(FSUB, subtract, straight)
ARITHMETIC(FSUBP, subtract, straight)
ARITHMETIC(FISUB, subtract, straight)
ARITHMETIC(FSUBR, subtract, reversed)
ARITHMETIC(FSUBRP, subtract, reversed)
ARITHMETIC(FISUBR, subtract, reversed)
ARITHMETIC(FMUL, multiply, straight)
ARITHMETIC(FMULP, multiply, straight)
ARITHMETIC(FIMUL, multiply, straight)
ARITHMETIC(FDIV, divide, straight)
ARITHMETIC(FDIVP, divide, straight)
ARITHMETIC(FIDIV, divide, straight)
ARITHMETIC(FDIVR, divide, reversed)
ARITHMETIC(FDIVRP, divide, reversed)
ARITHMETIC(FIDIVR, divide, reversed)
#undef ARITHMETIC

Result<void> exec_FSQRT(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Extended& top = st(x87, 0);
    const bool defined = !is_empty(x87, 0);
    if (defined && x87_native::run<Operation::square_root>(top, top, x87.control, x87.status, top))
        [[likely]] {
        note(cpu, insn, 0);
        return {};
    }
    Environment e{x87.control};
    by_definition<Operation::square_root>(cpu, insn, defined, top, top, e, 0, 0);
    return {};
}

Result<void> exec_FABS(Cpu& cpu, const Insn& insn) {
    return unary(cpu, insn, [](const Extended& a, Environment&) {
        return Extended{a.significand, static_cast<u16>(a.sign_exponent & ~softfloat80::sign_bit)};
    });
}
Result<void> exec_FCHS(Cpu& cpu, const Insn& insn) {
    return unary(cpu, insn, [](const Extended& a, Environment&) {
        return Extended{a.significand, static_cast<u16>(a.sign_exponent ^ softfloat80::sign_bit)};
    });
}
Result<void> exec_FRNDINT(Cpu& cpu, const Insn& insn) {
    return unary(cpu, insn, softfloat80::round_to_integral);
}

Result<void> exec_FPREM(Cpu& cpu, const Insn& insn) { return partial_remainder(cpu, insn, false); }
Result<void> exec_FPREM1(Cpu& cpu, const Insn& insn) { return partial_remainder(cpu, insn, true); }

Result<void> exec_FSCALE(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    Extended result = softfloat80::default_nan;
    if (is_empty(x87, 0) || is_empty(x87, 1))
        stack_underflow(e);
    else
        result = softfloat80::scale(st(x87, 0), st(x87, 1), e);
    if (conclude(cpu, insn, e)) set_st(x87, 0, result);
    return {};
}

/// The exponent replaces ST(0), then the significand is pushed.
Result<void> exec_FXTRACT(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    softfloat80::Extracted r{softfloat80::default_nan, softfloat80::default_nan};
    if (is_empty(x87, 0))
        stack_underflow(e);
    else if (!is_empty(x87, 7))
        stack_overflow(e);
    else
        r = softfloat80::extract_exponent(st(x87, 0), e);
    if (!conclude(cpu, insn, e)) return {};
    set_st(x87, 0, r.exponent);
    push(x87, r.significand);
    return {};
}

} // namespace exeunt
