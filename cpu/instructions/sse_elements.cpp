// Instructions that take single elements out of vectors or put them in, select, or reduce to flags and masks.
// SDM 1 10.4.4, 11.4.2, 12.6.9 "Packed Align Right", 12.10.6 to 12.10.10; the instruction reference by name.
#include "cpu/instructions/sse_integer.hpp"

namespace exeunt {

using namespace sse;

namespace {

/// PINSRx: element `immediate`, modulo how many there are, from a general register or memory.
template <class T>
Result<void> insert(Cpu& cpu, const Insn& insn) {
    const bool mmx = insn.operand[0].kind == OperandKind::mmx;
    TRY(mmx ? mmx_available(cpu) : sse_available(cpu, insn));
    const Operand& from = insn.operand[second_source(insn)];
    const T value = from.kind == OperandKind::memory ? TRY(load_number<T>(cpu, insn))
                                                     : static_cast<T>(cpu.r[from.number]);
    const unsigned element = immediate8(insn);
    if (mmx) {
        Mm v = mm(cpu, insn.operand[0].number);
        set_lane<T>(v, element % (8 / sizeof(T)), value);
        set_mm(cpu, insn.operand[0].number, v);
    } else {
        Xmm v = first_source(cpu, insn);
        set_lane<T>(v, element % (16 / sizeof(T)), value);
        set_vector(cpu, insn, v);
    }
    return {};
}

/// PEXTRx, EXTRACTPS: zero-extended into a general register, or just the element into memory.
template <class T>
Result<void> extract_element(Cpu& cpu, const Insn& insn) {
    const Operand& from = insn.operand[1];
    const bool mmx = from.kind == OperandKind::mmx;
    TRY(mmx ? mmx_available(cpu) : sse_available(cpu, insn));
    const unsigned element = immediate8(insn);
    const T value = mmx ? lane<T>(mm(cpu, from.number), element % (8 / sizeof(T)))
                        : lane<T>(xmm(cpu, from.number), element % (16 / sizeof(T)));
    if (insn.operand[0].kind == OperandKind::memory) return store_number<T>(cpu, insn, value);
    cpu.r[insn.operand[0].number] = value;
    if (mmx) use_mmx(cpu);
    return {};
}

/// BLENDVPS and its like: the mask is XMM0, or in VEX forms a register of its own.
template <class T>
Result<void> blend_variable(Cpu& cpu, const Insn& insn) {
    const Ymm mask = vector<Ymm>(cpu, insn.vex ? insn.operand[3].number : 0);
    return binary_vector(cpu, insn, [&](const Xmm& a, const Xmm& b, unsigned i) {
        return blend_by_sign<T>(a, b, half(mask, i));
    });
}

/// PSLLDQ, PSRLDQ: the first source is all there is.
template <class F>
Result<void> shift_bytes(Cpu& cpu, const Insn& insn, F f) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        set_vector(cpu, insn, by_lanes(f, first_source<decltype(zero)>(cpu, insn)));
        return {};
    });
}

template <class T, class V>
u64 signs(const V& v) {
    u64 mask = 0;
    const auto lanes = split<T>(v);
    for (unsigned i = 0; i < lanes.size(); ++i) mask |= u64{lanes[i]} >> (8 * sizeof(T) - 1) << i;
    return mask;
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: the signs of the lanes of operand 1.
template <class T>
Result<void> move_signs(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        cpu.r[insn.operand[0].number] = signs<T>(vector<decltype(zero)>(cpu, insn.operand[1].number));
        return {};
    });
}

} // namespace

Result<void> exec_PINSRB(Cpu& cpu, const Insn& insn) { return insert<u8>(cpu, insn); }
Result<void> exec_PINSRW(Cpu& cpu, const Insn& insn) { return insert<u16>(cpu, insn); }
Result<void> exec_PINSRD(Cpu& cpu, const Insn& insn) { return insert<u32>(cpu, insn); }
Result<void> exec_PINSRQ(Cpu& cpu, const Insn& insn) { return insert<u64>(cpu, insn); }
Result<void> exec_PEXTRB(Cpu& cpu, const Insn& insn) { return extract_element<u8>(cpu, insn); }
Result<void> exec_PEXTRW(Cpu& cpu, const Insn& insn) { return extract_element<u16>(cpu, insn); }
Result<void> exec_PEXTRD(Cpu& cpu, const Insn& insn) { return extract_element<u32>(cpu, insn); }
Result<void> exec_PEXTRQ(Cpu& cpu, const Insn& insn) { return extract_element<u64>(cpu, insn); }
Result<void> exec_EXTRACTPS(Cpu& cpu, const Insn& insn) { return extract_element<u32>(cpu, insn); }

/// Immediate: bits 7:6 the element of a register source, 5:4 the destination's, 3:0 elements that become
/// zero.
Result<void> exec_INSERTPS(Cpu& cpu, const Insn& insn) {
    const u8 control = immediate8(insn);
    const bool from_register = insn.operand[second_source(insn)].kind == OperandKind::xmm;
    return binary_vector(cpu, insn, [=](const Xmm& a, const Xmm& b) {
        auto r = split<u32>(a);
        r[control >> 4 & 3] = lane<u32>(b, from_register ? control >> 6 : 0);
        for (unsigned i = 0; i < 4; ++i)
            if (control >> i & 1) r[i] = 0;
        return join(r);
    });
}

Result<void> exec_PALIGNR(Cpu& cpu, const Insn& insn) {
    const u8 count = immediate8(insn);
    return binary(cpu, insn, [=](const auto& a, const auto& b) { return align_right(a, b, count); });
}
Result<void> exec_PSLLDQ(Cpu& cpu, const Insn& insn) {
    const u8 count = immediate8(insn);
    return shift_bytes(cpu, insn, [=](const Xmm& a) { return shift_bytes_left(a, count); });
}
Result<void> exec_PSRLDQ(Cpu& cpu, const Insn& insn) {
    const u8 count = immediate8(insn);
    return shift_bytes(cpu, insn, [=](const Xmm& a) { return shift_bytes_right(a, count); });
}

Result<void> exec_BLENDVPS(Cpu& cpu, const Insn& insn) { return blend_variable<u32>(cpu, insn); }
Result<void> exec_BLENDVPD(Cpu& cpu, const Insn& insn) { return blend_variable<u64>(cpu, insn); }
Result<void> exec_PBLENDVB(Cpu& cpu, const Insn& insn) { return blend_variable<u8>(cpu, insn); }

Result<void> exec_PMOVMSKB(Cpu& cpu, const Insn& insn) {
    if (!is_mmx(insn)) return move_signs<u8>(cpu, insn);
    TRY(mmx_available(cpu));
    cpu.r[insn.operand[0].number] = signs<u8>(mm(cpu, insn.operand[1].number));
    use_mmx(cpu);
    return {};
}
Result<void> exec_MOVMSKPS(Cpu& cpu, const Insn& insn) { return move_signs<u32>(cpu, insn); }
Result<void> exec_MOVMSKPD(Cpu& cpu, const Insn& insn) { return move_signs<u64>(cpu, insn); }

namespace {

/// ZF: no common bit is set; CF: the source has no bit that the destination lacks. Of each quadword the bits
/// in `mask` count.
Result<void> test_bits(Cpu& cpu, const Insn& insn, u64 mask) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, 1));
        const V a = vector<V>(cpu, insn.operand[0].number);
        u64 common = 0, beside = 0;
        for (unsigned i = 0; i < V::bytes / 8; ++i) {
            common |= a.q[i] & b.q[i] & mask;
            beside |= ~a.q[i] & b.q[i] & mask;
        }
        cpu.flags.set_arithmetic((common == 0 ? RFLAGS::ZF : 0) | (beside == 0 ? RFLAGS::CF : 0));
        return {};
    });
}

} // namespace

Result<void> exec_PTEST(Cpu& cpu, const Insn& insn) { return test_bits(cpu, insn, ~u64{0}); }
Result<void> exec_VTESTPS(Cpu& cpu, const Insn& insn) { return test_bits(cpu, insn, 0x8000'0000'8000'0000); }
Result<void> exec_VTESTPD(Cpu& cpu, const Insn& insn) { return test_bits(cpu, insn, bit(63)); }

} // namespace exeunt
