// Moves of SSE to SSE4.1, MXCSR. SDM 1 10.4.1.1 "SSE Data Movement
// Instructions", 11.4.1.1, 11.4.2, 11.4.4, 12.3.1, 12.3.3, 12.10.5; the instruction reference by name.
// Non-temporal moves are moves: there are no caches whose contents could differ from memory's.
#include "cpu/instructions/sse.hpp"
#include "cpu/instructions/string.hpp"

namespace exeunt {

using namespace sse;

namespace {

bool to_memory(const Insn& insn) { return insn.operand[0].kind == OperandKind::memory; }

/// A whole vector between registers, or a register and memory.
template <Aligned aligned>
[[gnu::noinline]] Result<void> move_vector_slow(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V value = is_vector(insn.operand[1]) ? vector<V>(cpu, insn.operand[1].number)
                                                   : TRY(load_whole<V>(cpu, insn, aligned));
        if (to_memory(insn)) return store_whole(cpu, insn, value, aligned);
        set_vector(cpu, insn, value);
        return {};
    });
}
template <Aligned aligned>
Result<void> move_vector(Cpu& cpu, const Insn& insn) {
    if (!unary_quick(cpu, insn, [](const Xmm& a) { return a; })) return move_vector_slow<aligned>(cpu, insn);
    return {};
}

/// MOVSS, MOVSD: from memory the rest of the register is cleared, from a register it stays.
template <class T>
Result<void> move_scalar(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    if (to_memory(insn)) return store_number<T>(cpu, insn, lane<T>(xmm(cpu, insn.operand[1].number), 0));
    Xmm value;
    if (insn.operand[1].kind == OperandKind::xmm) {
        value = first_source(cpu, insn);
        set_lane<T>(value, 0, lane<T>(xmm(cpu, insn.operand[second_source(insn)].number), 0));
    } else {
        value.q[0] = TRY(load_number<T>(cpu, insn));
    }
    set_vector(cpu, insn, value);
    return {};
}

/// MOVLPS and MOVHPS: quadword `half` of a register from or to memory; the other half stays.
Result<void> move_half(Cpu& cpu, const Insn& insn, unsigned half) {
    TRY(sse_available(cpu, insn));
    if (to_memory(insn)) return store_number<u64>(cpu, insn, cpu.vector[insn.operand[1].number].q[half]);
    const u64 loaded = TRY(load_number<u64>(cpu, insn));
    Xmm value = first_source(cpu, insn);
    value.q[half] = loaded;
    set_vector(cpu, insn, value);
    return {};
}

/// A number of operand `i`, whatever it is: general register, memory, MMX or XMM register.
Result<u64> move_source(Cpu& cpu, const Insn& insn, unsigned i, unsigned bytes) {
    const Operand& o = insn.operand[i];
    u64 value = 0;
    switch (o.kind) {
    case OperandKind::xmm: value = cpu.vector[o.number].q[0]; break;
    case OperandKind::mmx: value = cpu.x87.st[o.number].significand; break;
    case OperandKind::memory: return bytes == 8 ? load_number<u64>(cpu, insn) : cpu.read_operand(insn, i);
    default: value = cpu.r[o.number]; break;
    }
    return value & low_mask(8 * bytes);
}

/// MOVD and MOVQ: `bytes` between any two of these; a vector register's other bytes are cleared.
Result<void> move_number(Cpu& cpu, const Insn& insn, unsigned bytes) {
    const Operand& to = insn.operand[0];
    const bool mmx = is_mmx(insn);
    TRY(mmx ? mmx_available(cpu) : sse_available(cpu, insn));
    const u64 value = TRY(move_source(cpu, insn, 1, bytes));
    switch (to.kind) {
    case OperandKind::xmm: set_vector(cpu, insn, Xmm{{value, 0}}); break;
    case OperandKind::mmx: set_mm(cpu, to.number, {{value}}); break;
    case OperandKind::memory:
        if (bytes == 8) {
            TRY(store_number<u64>(cpu, insn, value));
        } else {
            TRY(store_number<u32>(cpu, insn, low32(value)));
        }
        break;
    default: cpu.set_gpr(to.number, bytes, value); break;
    }
    if (mmx) use_mmx(cpu);
    return {};
}

/// Bit 7 of byte i of the mask says whether byte i of `value` is stored at DS:rDI (SDM 2B MASKMOVDQU). The
/// whole operand is checked, also where the mask is zero, as the manual allows.
template <unsigned Bytes>
Result<void> store_masked(Cpu& cpu, const Insn& insn, const Vec<Bytes>& value, const Vec<Bytes>& mask) {
    const u64 offset = cpu.gpr(RDI, insn.address_size);
    const u64 at = TRY(cpu.linear(insn.memory.segment, offset, Bytes, AccessType::write));
    TRY(cpu.check_linear(at, Bytes, AccessType::write));
    for (unsigned i = 0; i < Bytes; ++i) {
        if (!(lane<u8>(mask, i) & 0x80)) continue;
        const u64 to = cpu.code64() ? at + i : (at + i) & 0xFFFF'FFFF;
        TRY(cpu.store_linear(to, 1, lane<u8>(value, i)));
    }
    return {};
}

} // namespace

Result<void> exec_MOVAPS(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVAPD(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVDQA(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVNTPS(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVNTPD(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVNTDQ(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVNTDQA(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::yes>(cpu, insn); }
Result<void> exec_MOVUPS(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::no>(cpu, insn); }
Result<void> exec_MOVUPD(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::no>(cpu, insn); }
Result<void> exec_MOVDQU(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::no>(cpu, insn); }
Result<void> exec_LDDQU(Cpu& cpu, const Insn& insn) { return move_vector<Aligned::no>(cpu, insn); }

Result<void> exec_MOVSS(Cpu& cpu, const Insn& insn) { return move_scalar<u32>(cpu, insn); }
Result<void> sse2_movsd(Cpu& cpu, const Insn& insn) { return move_scalar<u64>(cpu, insn); }
Result<void> exec_MOVD(Cpu& cpu, const Insn& insn) { return move_number(cpu, insn, 4); }
Result<void> exec_MOVQ(Cpu& cpu, const Insn& insn) { return move_number(cpu, insn, 8); }
Result<void> exec_MOVNTQ(Cpu& cpu, const Insn& insn) { return move_number(cpu, insn, 8); }

Result<void> exec_MOVLPS(Cpu& cpu, const Insn& insn) { return move_half(cpu, insn, 0); }
Result<void> exec_MOVLPD(Cpu& cpu, const Insn& insn) { return move_half(cpu, insn, 0); }
Result<void> exec_MOVHPS(Cpu& cpu, const Insn& insn) { return move_half(cpu, insn, 1); }
Result<void> exec_MOVHPD(Cpu& cpu, const Insn& insn) { return move_half(cpu, insn, 1); }
Result<void> exec_MOVHLPS(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) { return Xmm{{b.q[1], a.q[1]}}; });
}
Result<void> exec_MOVLHPS(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) { return Xmm{{a.q[0], b.q[0]}}; });
}
Result<void> exec_MOVDDUP(Cpu& cpu, const Insn& insn) {
    return unary_vector(cpu, insn, [](const Xmm& a) { return Xmm{{a.q[0], a.q[0]}}; });
}
Result<void> exec_MOVSLDUP(Cpu& cpu, const Insn& insn) {
    return unary_vector(cpu, insn, [](const Xmm& a) {
        return each<u64>(a, [](u64 pair) { return low32(pair) | pair << 32; });
    });
}
Result<void> exec_MOVSHDUP(Cpu& cpu, const Insn& insn) {
    return unary_vector(cpu, insn, [](const Xmm& a) {
        return each<u64>(a, [](u64 pair) { return pair >> 32 | (pair & ~low_mask(32)); });
    });
}

/// Between the two kinds of registers. Both are MMX instructions for the x87 FPU.
Result<void> exec_MOVQ2DQ(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    TRY(mmx_available(cpu));
    set_vector(cpu, insn, Xmm{{mm(cpu, insn.operand[1].number).q[0], 0}});
    use_mmx(cpu);
    return {};
}
Result<void> exec_MOVDQ2Q(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    TRY(mmx_available(cpu));
    set_mm(cpu, insn.operand[0].number, {{cpu.vector[insn.operand[1].number].q[0]}});
    return {};
}

Result<void> exec_MASKMOVDQU(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return store_masked(cpu, insn, xmm(cpu, insn.operand[0].number), xmm(cpu, insn.operand[1].number));
}
Result<void> exec_MASKMOVQ(Cpu& cpu, const Insn& insn) {
    TRY(mmx_available(cpu));
    TRY(store_masked(cpu, insn, mm(cpu, insn.operand[0].number), mm(cpu, insn.operand[1].number)));
    use_mmx(cpu);
    return {};
}

Result<void> exec_LDMXCSR(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const u32 value = TRY(load_number<u32>(cpu, insn));
    if (value & ~MXCSR::all) return general_protection(0);
    cpu.mxcsr = value;
    return {};
}
Result<void> exec_STMXCSR(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return store_number<u32>(cpu, insn, cpu.mxcsr);
}

} // namespace exeunt
