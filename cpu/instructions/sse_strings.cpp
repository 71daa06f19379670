// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. SDM 2B 4.1 "Imm8 Control Byte Operation for PCMPESTRI /
// PCMPESTRM / PCMPISTRI / PCMPISTRM". Their memory operand needs no alignment.
#include "cpu/instructions/sse.hpp"

namespace exeunt {

using namespace sse;

namespace {

/// The fields of the immediate.
struct Control {
    enum Aggregation : u8 { equal_any = 0, ranges = 1, equal_each = 2, equal_ordered = 3 };
    bool words, is_signed, negate, masked, upper;
    Aggregation aggregation;

    explicit Control(u8 immediate)
        : words(immediate & 1),
          is_signed(immediate & 2),
          negate(immediate & 0x10),
          masked(immediate & 0x20),
          upper(immediate & 0x40),
          aggregation(static_cast<Aggregation>(immediate >> 2 & 3)) {}
    unsigned elements() const { return words ? 8 : 16; }
};

/// Elements, and how many of them are valid.
struct Text {
    std::array<i32, 16> element{};
    unsigned length = 0;

    Text(const Xmm& v, const Control& c) {
        for (unsigned i = 0; i < c.elements(); ++i) {
            if (c.words) {
                element[i] = c.is_signed ? static_cast<i16>(lane<u16>(v, i)) : lane<u16>(v, i);
            } else {
                element[i] = c.is_signed ? static_cast<i8>(lane<u8>(v, i)) : lane<u8>(v, i);
            }
        }
    }
    void end_at_zero(const Control& c) {
        while (length < c.elements() && element[length] != 0) ++length;
    }
    /// The magnitude of a register, saturated.
    void end_at(i64 count, const Control& c) {
        const u64 size = count < 0 ? 0 - static_cast<u64>(count) : static_cast<u64>(count);
        length = size < c.elements() ? static_cast<unsigned>(size) : c.elements();
    }
};

/// IntRes1: bit j is about element j of the second source, `text`; `set` is the first. An invalid element
/// compares as SDM 2B Table 4-6 says.
u32 aggregate(const Text& set, const Text& text, const Control& c) {
    const unsigned n = c.elements();
    u32 result = 0;
    const auto is = [&](unsigned j, unsigned i) { return set.element[i] == text.element[j]; };
    for (unsigned j = 0; j < n; ++j) {
        bool hit = false;
        switch (c.aggregation) {
        case Control::equal_any:
            for (unsigned i = 0; i < set.length && j < text.length; ++i) hit |= is(j, i);
            break;
        case Control::ranges:
            for (unsigned i = 0; i + 1 < set.length && j < text.length; i += 2)
                hit |= text.element[j] >= set.element[i] && text.element[j] <= set.element[i + 1];
            break;
        case Control::equal_each:
            hit = j < set.length && j < text.length ? is(j, j) : j >= set.length && j >= text.length;
            break;
        case Control::equal_ordered:
            hit =
                true; // elements of the set beyond its end match anything, the text's beyond its end nothing
            for (unsigned i = 0; i < set.length && i + j < n; ++i) hit &= i + j < text.length && is(i + j, i);
            break;
        }
        result |= u32{hit} << j;
    }
    return result;
}

/// IntRes2, and the flags that come out of it.
u32 compare(Cpu& cpu, const Text& set, const Text& text, const Control& c) {
    const u32 all = static_cast<u32>(low_mask(c.elements()));
    u32 result = aggregate(set, text, c);
    if (c.negate) result ^= c.masked ? static_cast<u32>(low_mask(text.length)) : all;
    cpu.flags.set_arithmetic((result ? RFLAGS::CF : 0) | (text.length < c.elements() ? RFLAGS::ZF : 0) |
                             (set.length < c.elements() ? RFLAGS::SF : 0) | (result & 1 ? RFLAGS::OF : 0));
    return result;
}

void write_index(Cpu& cpu, u32 result, const Control& c) {
    unsigned index = c.elements();
    if (result)
        index = static_cast<unsigned>(c.upper ? 31 - std::countl_zero(result) : std::countr_zero(result));
    cpu.set_gpr(RCX, 4, index);
}

void write_mask(Cpu& cpu, u32 result, const Control& c, bool vex) {
    Xmm mask;
    mask.q[0] = result;
    if (c.upper) {
        for (unsigned i = 0; i < c.elements(); ++i) {
            const bool hit = result >> i & 1;
            if (c.words) {
                set_lane<u16>(mask, i, static_cast<u16>(hit ? 0xFFFF : 0));
            } else {
                set_lane<u8>(mask, i, static_cast<u8>(hit ? 0xFF : 0));
            }
        }
    }
    VectorRegister& r = cpu.vector[0];
    r.q[0] = mask.q[0];
    r.q[1] = mask.q[1];
    if (vex) r.q[2] = r.q[3] = 0;
}

/// The comparison; `lengths` finds where both texts end.
template <class Lengths>
Result<u32> compare_texts(Cpu& cpu, const Insn& insn, const Control& c, Lengths lengths) {
    TRY(sse_available(cpu, insn));
    const Operand& second = insn.operand[1];
    const Xmm b = second.kind == OperandKind::xmm ? xmm(cpu, second.number)
                                                  : TRY(load_whole<Xmm>(cpu, insn, Aligned::no));
    Text set(xmm(cpu, insn.operand[0].number), c);
    Text text(b, c);
    lengths(set, text);
    return compare(cpu, set, text, c);
}

Result<u32> compare_explicit(Cpu& cpu, const Insn& insn, const Control& c) {
    const auto count = [&](Gpr r) {
        return insn.rex_w ? static_cast<i64>(cpu.r[r]) : static_cast<i64>(static_cast<i32>(low32(cpu.r[r])));
    };
    return compare_texts(cpu, insn, c, [&](Text& set, Text& text) {
        set.end_at(count(RAX), c);
        text.end_at(count(RDX), c);
    });
}

Result<u32> compare_implicit(Cpu& cpu, const Insn& insn, const Control& c) {
    return compare_texts(cpu, insn, c, [&](Text& set, Text& text) {
        set.end_at_zero(c);
        text.end_at_zero(c);
    });
}

} // namespace

Result<void> exec_PCMPESTRI(Cpu& cpu, const Insn& insn) {
    const Control c(immediate8(insn));
    write_index(cpu, TRY(compare_explicit(cpu, insn, c)), c);
    return {};
}
Result<void> exec_PCMPESTRM(Cpu& cpu, const Insn& insn) {
    const Control c(immediate8(insn));
    write_mask(cpu, TRY(compare_explicit(cpu, insn, c)), c, insn.vex);
    return {};
}
Result<void> exec_PCMPISTRI(Cpu& cpu, const Insn& insn) {
    const Control c(immediate8(insn));
    write_index(cpu, TRY(compare_implicit(cpu, insn, c)), c);
    return {};
}
Result<void> exec_PCMPISTRM(Cpu& cpu, const Insn& insn) {
    const Control c(immediate8(insn));
    write_mask(cpu, TRY(compare_implicit(cpu, insn, c)), c, insn.vex);
    return {};
}

} // namespace exeunt
