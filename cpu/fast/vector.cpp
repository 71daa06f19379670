// Moves of vectors and of their lowest number: MOVAPS and its like with their VEX forms, MOVSS, MOVSD, MOVD,
// MOVQ.
#include "cpu/fast/select.hpp"
#include "cpu/instructions/sse.hpp"

#include <Zydis/Mnemonic.h>

namespace exeunt::fast {

namespace {

using sse::Aligned;
using sse::Xmm;
using sse::Ymm;

// ---- What every handler begins and ends with
// ------------------------------------------------------------------------

template <bool vex>
[[gnu::always_inline]] inline bool is_available(const Cpu& cpu) {
    return vex ? sse::is_avx_available(cpu) : sse::is_sse_available(cpu);
}
template <bool vex>
[[gnu::noinline]] const Op* refuse(Cpu& cpu, const Op* op) {
    return leave(cpu, op, sse::sse_unavailable(cpu, vex));
}

/// VEX forms clear what is above the value.
template <bool vex, class V>
[[gnu::always_inline]] inline void put(VectorRegister& to, const V& value) {
    for (unsigned i = 0; i < V::bytes / 8; ++i) to.q[i] = value.q[i];
    if (vex && V::bytes == 16) to.q[2] = to.q[3] = 0;
}

// ---- Whole vectors
// --------------------------------------------------------------------------------------------------

template <bool vex, class V>
const Op* move_vector(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    put<vex>(cpu.vector[op->destination], sse::vector<V>(cpu, op->source));
    NEXT_OP(cpu, op + 1);
}

/// The slow ways, as loads and stores of numbers have them (cpu/fast/slow_ways.cpp).
template <bool vex, class V>
[[gnu::noinline]] bool load_slow(Cpu& cpu, const Op* op, Aligned aligned) {
    synchronise(cpu, op);
    const auto value = sse::load_at<V>(cpu, static_cast<Seg>(op->segment), offset_of(cpu, op), aligned);
    cpu.last_of_block = true;
    if (value.ok()) {
        put<vex>(cpu.vector[op->destination], value.value());
        return true;
    }
    cpu.block_stop = value.stop();
    return false;
}
template <class V>
[[gnu::noinline]] bool store_slow(Cpu& cpu, const Op* op, Aligned aligned) {
    synchronise(cpu, op);
    const auto result = sse::store_at(cpu, static_cast<Seg>(op->segment), offset_of(cpu, op),
                                      sse::vector<V>(cpu, op->source), aligned);
    cpu.last_of_block = true;
    if (result.ok()) return true;
    cpu.block_stop = result.stop();
    return false;
}

template <bool vex, class V, Aligned aligned, class Mode>
const Op* load_vector(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    const u64 at = linear_of<Mode>(cpu, op, offset_of(cpu, op));
    TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = part.entry(at);
    const bool misaligned = aligned == Aligned::yes && (at & (V::bytes - 1));
    if (e.read_tag != part.tag_of(at + V::bytes - 1) || misaligned) [[unlikely]]
        CONTINUE_IF((load_slow<vex, V>(cpu, op, aligned)));
    V value;
    std::memcpy(value.q, reinterpret_cast<const void*>(e.addend + at), V::bytes);
    for (u64& q : value.q) q = PhysicalMemory::little_endian(q);
    put<vex>(cpu.vector[op->destination], value);
    NEXT_OP(cpu, op + 1);
}

template <bool vex, class V, Aligned aligned, class Mode>
const Op* store_vector(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    const u64 at = linear_of<Mode>(cpu, op, offset_of(cpu, op));
    TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = part.entry(at);
    const bool misaligned = aligned == Aligned::yes && (at & (V::bytes - 1));
    if (e.write_tag != part.write_tag_of(at + V::bytes - 1) || misaligned) [[unlikely]]
        CONTINUE_IF((store_slow<V>(cpu, op, aligned)));
    V value = sse::vector<V>(cpu, op->source);
    for (u64& q : value.q) q = PhysicalMemory::little_endian(q);
    std::memcpy(reinterpret_cast<void*>(e.addend + at), value.q, V::bytes);
    NEXT_OP(cpu, op + 1);
}

template <bool vex, class V, Aligned aligned>
Handler select_whole(const Insn& insn, u16 offset, Op& op) {
    op.destination = insn.operand[0].number;
    op.source = insn.operand[1].number;
    if (insn.operand[0].kind == OperandKind::memory) {
        if (!fill_memory(insn, offset, op)) return nullptr;
        return is_based(op) ? store_vector<vex, V, aligned, Based> : store_vector<vex, V, aligned, Flat>;
    }
    if (insn.operand[1].kind != OperandKind::memory) return move_vector<vex, V>;
    if (!fill_memory(insn, offset, op)) return nullptr;
    return is_based(op) ? load_vector<vex, V, aligned, Based> : load_vector<vex, V, aligned, Flat>;
}
template <Aligned aligned>
Handler select_whole(const Insn& insn, u16 offset, Op& op) {
    if (!insn.vex) return select_whole<false, Xmm, aligned>(insn, offset, op);
    if (insn.vector_bytes == 32) return select_whole<true, Ymm, aligned>(insn, offset, op);
    return select_whole<true, Xmm, aligned>(insn, offset, op);
}

// ---- The lowest number
// ----------------------------------------------------------------------------------------------

template <class T, bool vex, class Mode>
const Op* load_number(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    T value;
    if (!load<T, Mode>(cpu, op, value)) [[unlikely]]
        return leave(cpu, op, cpu.block_stop);
    put<vex>(cpu.vector[op->destination], Xmm{{value, 0}});
    NEXT_OP(cpu, op + 1);
}
template <class T, bool vex, class Mode>
const Op* store_number(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    CONTINUE_IF((store<T, Mode>(cpu, op, static_cast<T>(cpu.vector[op->source].q[0]))));
}
template <class T, bool vex>
const Op* from_gpr(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    put<vex>(cpu.vector[op->destination], Xmm{{reg<T>(cpu, op->source), 0}});
    NEXT_OP(cpu, op + 1);
}
template <class T, bool vex>
const Op* to_gpr(Cpu& cpu, const Op* op) {
    if (!is_available<vex>(cpu)) [[unlikely]]
        return refuse<vex>(cpu, op);
    set_reg<T>(cpu, op->destination, static_cast<T>(cpu.vector[op->source].q[0]));
    NEXT_OP(cpu, op + 1);
}

/// MOVSS, MOVSD, MOVD, MOVQ: with memory, and with general registers. Between XMM registers they are no moves
/// of the number alone.
template <class T, bool vex>
Handler select_number(const Insn& insn, u16 offset, Op& op) {
    const OperandKind to = insn.operand[0].kind, from = insn.operand[1].kind;
    op.destination = insn.operand[0].number;
    op.source = insn.operand[1].number;
    if (to == OperandKind::xmm && from == OperandKind::memory) {
        if (!fill_memory(insn, offset, op)) return nullptr;
        return is_based(op) ? load_number<T, vex, Based> : load_number<T, vex, Flat>;
    }
    if (to == OperandKind::memory && from == OperandKind::xmm) {
        if (!fill_memory(insn, offset, op)) return nullptr;
        return is_based(op) ? store_number<T, vex, Based> : store_number<T, vex, Flat>;
    }
    if (to == OperandKind::xmm && from == OperandKind::gpr) return from_gpr<T, vex>;
    if (to == OperandKind::gpr && from == OperandKind::xmm) return to_gpr<T, vex>;
    return nullptr;
}

} // namespace

Handler select_vector(const Insn& insn, u16 offset, Op& op) {
    if (insn.operand_count != 2 || sse::is_mmx(insn)) return nullptr;
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA: return select_whole<Aligned::yes>(insn, offset, op);
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU: return select_whole<Aligned::no>(insn, offset, op);
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_MOVD: return select_number<u32, false>(insn, offset, op);
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVD: return select_number<u32, true>(insn, offset, op);
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVQ: return select_number<u64, false>(insn, offset, op);
    case ZYDIS_MNEMONIC_VMOVSD:
    case ZYDIS_MNEMONIC_VMOVQ: return select_number<u64, true>(insn, offset, op);
    default: return nullptr;
    }
}

} // namespace exeunt::fast
