// AVX and AVX2 instructions without an SSE ancestor that move elements between registers: broadcasts, 128-bit
// inserts and extracts, permutations, blends; shifts by a count for each element; clearing of registers. SDM
// 1 14.1.2 to 14.1.6, 14.7; the instruction reference by name.
#include "cpu/instructions/sse_integer.hpp"
#include "cpu/instructions/string.hpp"

namespace exeunt {

using namespace sse;

namespace {

/// VBROADCASTSS and its like: the lowest element of a register, or a number in memory, in every element.
template <class T>
Result<void> broadcast(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const T value = TRY(number_operand<T>(cpu, insn, 1));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        set_vector(cpu, insn, each<T>(zero, [=](T) { return value; }));
        return {};
    });
}

Result<void> broadcast_lane(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Xmm value = TRY(load_whole<Xmm>(cpu, insn, Aligned::no));
    set_vector(cpu, insn, together(value, value));
    return {};
}

Result<void> extract_lane(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Xmm value = half(vector<Ymm>(cpu, insn.operand[1].number), immediate8(insn) & 1);
    if (insn.operand[0].kind == OperandKind::memory) return store_whole(cpu, insn, value, Aligned::no);
    set_vector(cpu, insn, value);
    return {};
}

Result<void> insert_lane(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Xmm value = TRY(xmm_operand(cpu, insn, 2));
    const Ymm into = first_source<Ymm>(cpu, insn);
    set_vector(cpu, insn,
               immediate8(insn) & 1 ? together(half(into, 0), value) : together(value, half(into, 1)));
    return {};
}

/// VPERM2F128: bits 1:0 and 5:4 of the immediate choose the lanes of the result, bits 3 and 7 clear them.
Result<void> permute_lanes(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Ymm b = TRY(vector_operand<Ymm>(cpu, insn, 2));
    const Ymm a = first_source<Ymm>(cpu, insn);
    const auto choose = [&](unsigned control) {
        return control & 8 ? Xmm{} : half(control & 2 ? b : a, control & 1);
    };
    set_vector(cpu, insn, together(choose(immediate8(insn)), choose(immediate8(insn) >> 4)));
    return {};
}

/// VPERMD, VPERMPS: each doubleword of the first source chooses one of the second.
Result<void> permute_doublewords(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const auto from = split<u32>(TRY(vector_operand<Ymm>(cpu, insn, 2)));
    const Ymm index = first_source<Ymm>(cpu, insn);
    set_vector(cpu, insn, each<u32>(index, [&](u32 i) { return from[i & 7]; }));
    return {};
}

/// VPERMQ, VPERMPD.
Result<void> permute_quadwords(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Ymm a = TRY(vector_operand<Ymm>(cpu, insn, 1));
    set_vector(cpu, insn, shuffle_four<u64>(a, immediate8(insn), 0));
    return {};
}

bool has_immediate(const Insn& insn) { return insn.operand[2].kind == OperandKind::immediate; }

void clear_upper(Cpu& cpu, bool all) {
    for (unsigned i = 0; i < (cpu.code64() ? 16 : 8); ++i) {
        VectorRegister& r = cpu.vector[i];
        r.q[2] = r.q[3] = 0;
        if (all) r.q[0] = r.q[1] = 0;
    }
}

/// VPSLLVD and its like: each element has its count.
template <class T, class F>
Result<void> shift_each(Cpu& cpu, const Insn& insn, F f) {
    return binary_vector(cpu, insn, [=](const Xmm& a, const Xmm& b) { return each<T>(a, b, f); });
}

} // namespace

Result<void> exec_VMOVSD(Cpu& cpu, const Insn& insn) { return sse2_movsd(cpu, insn); }
Result<void> exec_VCMPSD(Cpu& cpu, const Insn& insn) { return sse2_cmpsd(cpu, insn); }

Result<void> exec_VZEROALL(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    clear_upper(cpu, true);
    return {};
}
Result<void> exec_VZEROUPPER(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    clear_upper(cpu, false);
    return {};
}

Result<void> exec_VBROADCASTSS(Cpu& cpu, const Insn& insn) { return broadcast<u32>(cpu, insn); }
Result<void> exec_VBROADCASTSD(Cpu& cpu, const Insn& insn) { return broadcast<u64>(cpu, insn); }
Result<void> exec_VPBROADCASTB(Cpu& cpu, const Insn& insn) { return broadcast<u8>(cpu, insn); }
Result<void> exec_VPBROADCASTW(Cpu& cpu, const Insn& insn) { return broadcast<u16>(cpu, insn); }
Result<void> exec_VPBROADCASTD(Cpu& cpu, const Insn& insn) { return broadcast<u32>(cpu, insn); }
Result<void> exec_VPBROADCASTQ(Cpu& cpu, const Insn& insn) { return broadcast<u64>(cpu, insn); }
Result<void> exec_VBROADCASTF128(Cpu& cpu, const Insn& insn) { return broadcast_lane(cpu, insn); }
Result<void> exec_VBROADCASTI128(Cpu& cpu, const Insn& insn) { return broadcast_lane(cpu, insn); }
Result<void> exec_VEXTRACTF128(Cpu& cpu, const Insn& insn) { return extract_lane(cpu, insn); }
Result<void> exec_VEXTRACTI128(Cpu& cpu, const Insn& insn) { return extract_lane(cpu, insn); }
Result<void> exec_VINSERTF128(Cpu& cpu, const Insn& insn) { return insert_lane(cpu, insn); }
Result<void> exec_VINSERTI128(Cpu& cpu, const Insn& insn) { return insert_lane(cpu, insn); }
Result<void> exec_VPERM2F128(Cpu& cpu, const Insn& insn) { return permute_lanes(cpu, insn); }
Result<void> exec_VPERM2I128(Cpu& cpu, const Insn& insn) { return permute_lanes(cpu, insn); }
Result<void> exec_VPERMD(Cpu& cpu, const Insn& insn) { return permute_doublewords(cpu, insn); }
Result<void> exec_VPERMPS(Cpu& cpu, const Insn& insn) { return permute_doublewords(cpu, insn); }
Result<void> exec_VPERMQ(Cpu& cpu, const Insn& insn) { return permute_quadwords(cpu, insn); }
Result<void> exec_VPERMPD(Cpu& cpu, const Insn& insn) { return permute_quadwords(cpu, insn); }

/// Within a lane, by an immediate or by the lowest bits of each element of the second source.
Result<void> exec_VPERMILPS(Cpu& cpu, const Insn& insn) {
    if (has_immediate(insn))
        return unary_vector(cpu, insn,
                            [&](const Xmm& a) { return shuffle_doublewords(a, immediate8(insn)); });
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& control) {
        const auto from = split<u32>(a);
        return each<u32>(control, [&](u32 i) { return from[i & 3]; });
    });
}
/// The control is a bit of the immediate, or bit 1 of an element.
Result<void> exec_VPERMILPD(Cpu& cpu, const Insn& insn) {
    if (has_immediate(insn))
        return unary_vector(cpu, insn, [&](const Xmm& a, unsigned i) {
            return shuffle_doubles(a, a, static_cast<u8>(immediate8(insn) >> (2 * i)));
        });
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& control) {
        return each<u64>(control, [&](u64 i) { return a.q[i >> 1 & 1]; });
    });
}

Result<void> exec_VPBLENDD(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [&](const Xmm& a, const Xmm& b, unsigned i) {
        return blend<u32>(a, b, static_cast<u8>(immediate8(insn) >> (4 * i)));
    });
}

Result<void> exec_VPSLLVD(Cpu& cpu, const Insn& insn) { return shift_each<u32>(cpu, insn, shift_left<u32>); }
Result<void> exec_VPSLLVQ(Cpu& cpu, const Insn& insn) { return shift_each<u64>(cpu, insn, shift_left<u64>); }
Result<void> exec_VPSRLVD(Cpu& cpu, const Insn& insn) { return shift_each<u32>(cpu, insn, shift_right<u32>); }
Result<void> exec_VPSRLVQ(Cpu& cpu, const Insn& insn) { return shift_each<u64>(cpu, insn, shift_right<u64>); }
Result<void> exec_VPSRAVD(Cpu& cpu, const Insn& insn) {
    return shift_each<u32>(cpu, insn, shift_right_arithmetic<u32>);
}

} // namespace exeunt
