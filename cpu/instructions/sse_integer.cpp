// The packed integer and logical instructions of sse_integer.inc.
#include "cpu/instructions/sse_integer.hpp"

namespace exeunt {

using namespace sse;

namespace {

/// PSLLx, PSRLx, PSRAx: one count for all lanes, an immediate or the low quadword of the second source.
template <class F>
Result<void> shift(Cpu& cpu, const Insn& insn, F f) {
    const bool mmx = insn.operand[0].kind == OperandKind::mmx;
    TRY(mmx ? mmx_available(cpu) : sse_available(cpu, insn));
    const unsigned last = second_source(insn);
    u64 count = immediate8(insn);
    if (insn.operand[last].kind != OperandKind::immediate)
        count = mmx ? TRY(mm_operand(cpu, insn, last)).q[0] : TRY(xmm_operand(cpu, insn, last)).q[0];
    if (mmx) {
        const unsigned number = insn.operand[0].number;
        set_mm(cpu, number, f(mm(cpu, number), count));
        return {};
    }
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        set_vector(cpu, insn, f(first_source<decltype(zero)>(cpu, insn), count));
        return {};
    });
}

} // namespace

#define LANES(mnemonic, type, operation)                                                         \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                                   \
        const auto f = [](const auto& a, const auto& b) { return each<type>(a, b, operation); }; \
        if (!binary_quick(cpu, insn, f)) return binary(cpu, insn, f);                            \
        return {};                                                                               \
    }
#define LANE(mnemonic, type, operation)                                        \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                 \
        const auto f = [](const auto& a) { return each<type>(a, operation); }; \
        if (!unary_quick(cpu, insn, f)) return unary(cpu, insn, f);            \
        return {};                                                             \
    }
#define VECTORS(mnemonic, ...)                                                         \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                         \
        const auto f = [](const auto& a, const auto& b) { return __VA_ARGS__(a, b); }; \
        if (!binary_quick(cpu, insn, f)) return binary(cpu, insn, f);                  \
        return {};                                                                     \
    }
#define XMMS(mnemonic, ...)                                                          \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                       \
        const auto f = [](const Xmm& a, const Xmm& b) { return __VA_ARGS__(a, b); }; \
        if (!binary_quick(cpu, insn, f)) return binary_vector(cpu, insn, f);         \
        return {};                                                                   \
    }
#define XMM(mnemonic, ...)                                                 \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {             \
        const auto f = [](const Xmm& a) { return __VA_ARGS__(a); };        \
        if (!unary_quick(cpu, insn, f)) return unary_vector(cpu, insn, f); \
        return {};                                                         \
    }
#define XMM_BY(mnemonic, ...)                                              \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {             \
        const u8 by = immediate8(insn);                                    \
        const auto f = [by](const Xmm& a) { return __VA_ARGS__(a, by); };  \
        if (!unary_quick(cpu, insn, f)) return unary_vector(cpu, insn, f); \
        return {};                                                         \
    }
#define XMMS_BY(mnemonic, bits, ...)                                         \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {               \
        const u8 by = immediate8(insn);                                      \
        const auto f = [by](const Xmm& a, const Xmm& b, unsigned i) {        \
            return __VA_ARGS__(a, b, static_cast<u8>(by >> (i * bits)));     \
        };                                                                   \
        if (!binary_quick(cpu, insn, f)) return binary_vector(cpu, insn, f); \
        return {};                                                           \
    }
#define EXTEND(mnemonic, from, to)                                                         \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                             \
        TRY(sse_available(cpu, insn));                                                     \
        return with_vector_size(insn, [&](auto zero) -> Result<void> {                     \
            using V = decltype(zero);                                                      \
            set_vector(cpu, insn, extend<from, to>(TRY(vector_operand<V>(cpu, insn, 1)))); \
            return {};                                                                     \
        });                                                                                \
    }
#define SHIFT(mnemonic, type, operation)                                             \
    Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn) {                       \
        return shift(cpu, insn, [](const auto& a, u64 count) {                       \
            return each<type>(a, [=](type x) { return operation<type>(x, count); }); \
        });                                                                          \
    }
#include "cpu/instructions/sse_integer.inc"

} // namespace exeunt
