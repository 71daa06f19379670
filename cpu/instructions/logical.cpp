// Logical instructions: SDM 1 5.1.4, TEST of 5.1.6, ANDN of 5.1.16; each by its name in volume 2. Flags:
// cpu/alu.hpp.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

Result<void> exec_AND(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::and_(f, a, b); });
}
Result<void> exec_OR(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::or_(f, a, b); });
}
Result<void> exec_XOR(Cpu& cpu, const Insn& insn) {
    return modify_binary(cpu, insn, [](Flags& f, auto a, auto b) { return alu::xor_(f, a, b); });
}
Result<void> exec_NOT(Cpu& cpu, const Insn& insn) {
    return modify_unary(cpu, insn, [](Flags&, auto a) { return alu::not_(a); });
}
Result<void> exec_TEST(Cpu& cpu, const Insn& insn) {
    return compare_operands(cpu, insn, [](Flags& f, auto a, auto b) { alu::test(f, a, b); });
}
/// destination = NOT first source AND second source.
Result<void> exec_ANDN(Cpu& cpu, const Insn& insn) {
    const u64 inverted = ~TRY(cpu.read_operand(insn, 1));
    return write_from(cpu, insn, 2, [&](Flags& f, auto b) {
        using T = decltype(b);
        return alu::and_(f, static_cast<T>(inverted), b);
    });
}

} // namespace exeunt
