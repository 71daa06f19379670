// Trigonometric, logarithmic and exponential instructions. SDM 1 8.3.7 "Trigonometric Instructions", 8.3.9
// "Logarithmic, Exponential, and Scale"; SDM 2A F2XM1, FYL2X, FYL2XP1, FPATAN, FSIN, FCOS, FSINCOS, FPTAN.
#include "cpu/instructions/x87.hpp"

namespace exeunt {

namespace {

using namespace x87;
using softfloat80::Function;
using softfloat80::Trigonometric;

/// ST(1) = f(ST(1), ST(0)), then pop.
template <class F>
Result<void> binary(Cpu& cpu, const Insn& insn, F f) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    Extended result = softfloat80::default_nan;
    if (is_empty(x87, 0) || is_empty(x87, 1))
        stack_underflow(e);
    else
        result = f(st(x87, 1), st(x87, 0), e);
    if (!conclude(cpu, insn, e)) return {};
    set_st(x87, 1, result);
    pop(x87);
    return {};
}

/// C2 says that the operand is out of range; then nothing else happens. `pushes`: FSINCOS and FPTAN.
Result<void> trigonometric(Cpu& cpu, const Insn& insn, Function function, bool pushes) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    Trigonometric r{softfloat80::default_nan, softfloat80::default_nan};
    if (is_empty(x87, 0))
        stack_underflow(e);
    else if (pushes && !is_empty(x87, 7))
        stack_overflow(e);
    else
        r = softfloat80::trigonometric(st(x87, 0), function, e);
    const bool completes = conclude(cpu, insn, e);
    x87.status = static_cast<u16>((x87.status & ~FSW::C2) | (r.out_of_range ? FSW::C2 : 0));
    if (!completes || r.out_of_range) return {};
    set_st(x87, 0, function == Function::cosine ? r.cosine : r.sine);
    if (pushes) push(x87, r.cosine);
    return {};
}

} // namespace

Result<void> exec_F2XM1(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    Extended result = softfloat80::default_nan;
    if (is_empty(x87, 0))
        stack_underflow(e);
    else
        result = softfloat80::two_to_x_minus_1(st(x87, 0), e);
    if (conclude(cpu, insn, e)) set_st(x87, 0, result);
    return {};
}
Result<void> exec_FYL2X(Cpu& cpu, const Insn& insn) { return binary(cpu, insn, softfloat80::y_log2_x); }
Result<void> exec_FYL2XP1(Cpu& cpu, const Insn& insn) {
    return binary(cpu, insn, softfloat80::y_log2_x_plus_1);
}
Result<void> exec_FPATAN(Cpu& cpu, const Insn& insn) { return binary(cpu, insn, softfloat80::arctangent); }

Result<void> exec_FSIN(Cpu& cpu, const Insn& insn) { return trigonometric(cpu, insn, Function::sine, false); }
Result<void> exec_FCOS(Cpu& cpu, const Insn& insn) {
    return trigonometric(cpu, insn, Function::cosine, false);
}
Result<void> exec_FSINCOS(Cpu& cpu, const Insn& insn) {
    return trigonometric(cpu, insn, Function::both, true);
}
/// The tangent, then 1 is pushed (a NaN where the tangent is one).
Result<void> exec_FPTAN(Cpu& cpu, const Insn& insn) {
    return trigonometric(cpu, insn, Function::tangent, true);
}

} // namespace exeunt
