// Floating-point comparisons of SSE and SSE2. SDM 1 10.4.2 "SSE Comparison Instructions", 11.4.1.4; SDM 2A
// CMPPD, COMISD; SDM 2B UCOMISD.
#include "cpu/instructions/sse_float.hpp"
#include "cpu/instructions/string.hpp"

namespace exeunt {

using namespace sse;
using softfloat::Relation;

namespace {

/// Numbers without NaNs and denormals raise nothing; native comparisons of them are softfloat's.
template <class T>
[[gnu::always_inline]] inline Relation relation(T a, T b, bool signals_quiet, Environment& e) {
    using Native = typename softfloat::Format<T>::Native;
    if (softfloat::is_nan(a) || softfloat::is_nan(b) || softfloat::is_denormal(a) ||
        softfloat::is_denormal(b)) [[unlikely]]
        return softfloat::compare(a, b, signals_quiet, e);
    const Native x = std::bit_cast<Native>(a), y = std::bit_cast<Native>(b);
    return x < y ? Relation::less : x > y ? Relation::greater : Relation::equal;
}

/// SDM 2A Table 3-1 (CMPPD): bits 2:0 of the predicate choose a row, of which bits 1:0 name the relation that
/// holds and bit 2 negates. Where the order of the operands matters, a QNaN is invalid. The further
/// predicates of VEX forms: bit 3 lets the unordered relation match otherwise, bit 4 turns around whether a
/// QNaN is invalid.
struct Predicate {
    bool matches[4]; ///< by Relation
    bool signals_quiet;

    explicit Predicate(const Insn& insn) {
        static constexpr bool holds[4][4] = {
            // less equal greater unordered
            {false, true, false, false}, // EQ
            {true, false, false, false}, // LT
            {true, true, false, false},  // LE
            {false, false, false, true}, // UNORD
        };
        const unsigned predicate = immediate8(insn) & (insn.vex ? 31u : 7u), relation = predicate & 3;
        const bool negated = predicate & 4;
        for (unsigned i = 0; i < 4; ++i) matches[i] = holds[relation][i] != negated;
        signals_quiet = relation == 1 || relation == 2;
        if (predicate & 16) signals_quiet = !signals_quiet;
        if (!(predicate & 8)) return;
        if (relation == 3) { // FALSE, TRUE
            for (bool& match : matches) match = negated;
        } else {
            matches[static_cast<unsigned>(Relation::unordered)] ^= true;
        }
    }
    template <class T>
    T operator()(T a, T b, Environment& e) const {
        const Relation r = relation(a, b, signals_quiet, e);
        return matches[static_cast<unsigned>(r)] ? static_cast<T>(~T{0}) : T{0};
    }
};

template <class T>
Result<void> compare_packed(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, second_source(insn)));
        const Predicate predicate(insn);
        Environment e{cpu.mxcsr};
        const V mask = each<T>(first_source<V>(cpu, insn), b, [&](T x, T y) { return predicate(x, y, e); });
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, mask);
        return {};
    });
}

template <class T>
Result<void> compare_scalar(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T b = TRY(number_operand<T>(cpu, insn, second_source(insn)));
    const Predicate predicate(insn);
    Environment e{cpu.mxcsr};
    Xmm value = first_source(cpu, insn);
    set_lane<T>(value, 0, predicate(lane<T>(value, 0), b, e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, value);
    return {};
}

/// COMIxx, UCOMIxx: the relation in ZF, PF and CF; the other arithmetic flags are cleared.
template <class T, bool signals_quiet>
Result<void> compare_to_flags(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T b = TRY(number_operand<T>(cpu, insn, 1));
    const T a = static_cast<T>(cpu.vector[insn.operand[0].number].q[0]);
    Environment e{cpu.mxcsr};
    const Relation r = relation(a, b, signals_quiet, e);
    TRY(settle(cpu, e.raised));
    static constexpr u64 flags[] = {RFLAGS::CF, RFLAGS::ZF, 0, RFLAGS::ZF | RFLAGS::PF | RFLAGS::CF};
    cpu.flags.set_arithmetic(flags[static_cast<unsigned>(r)]);
    return {};
}

} // namespace

Result<void> exec_CMPPS(Cpu& cpu, const Insn& insn) { return compare_packed<u32>(cpu, insn); }
Result<void> exec_CMPPD(Cpu& cpu, const Insn& insn) { return compare_packed<u64>(cpu, insn); }
Result<void> exec_CMPSS(Cpu& cpu, const Insn& insn) { return compare_scalar<u32>(cpu, insn); }
Result<void> sse2_cmpsd(Cpu& cpu, const Insn& insn) { return compare_scalar<u64>(cpu, insn); }
Result<void> exec_COMISS(Cpu& cpu, const Insn& insn) { return compare_to_flags<u32, true>(cpu, insn); }
Result<void> exec_COMISD(Cpu& cpu, const Insn& insn) { return compare_to_flags<u64, true>(cpu, insn); }
Result<void> exec_UCOMISS(Cpu& cpu, const Insn& insn) { return compare_to_flags<u32, false>(cpu, insn); }
Result<void> exec_UCOMISD(Cpu& cpu, const Insn& insn) { return compare_to_flags<u64, false>(cpu, insn); }

} // namespace exeunt
