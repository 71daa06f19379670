#include "cpu/instructions/sse.hpp"

#include "cpu/instructions/x87.hpp"

namespace exeunt::sse {

// ---- Checks
// ----------------------------------------------------------------------------------------------------

Stop sse_unavailable(const Cpu& cpu, bool vex) {
    constexpr u64 wanted = XCR0::SSE | XCR0::AVX;
    const bool undefined = vex ? !(cpu.control.cr4 & CR4::OSXSAVE) || (cpu.control.xcr0 & wanted) != wanted
                               : (cpu.control.cr0 & CR0::EM) || !(cpu.control.cr4 & CR4::OSFXSR);
    return undefined ? undefined_opcode() : exception(Vector::NM);
}

Result<void> mmx_available(Cpu& cpu) {
    if (cpu.control.cr0 & CR0::EM) return undefined_opcode();
    if (cpu.control.cr0 & CR0::TS) return exception(Vector::NM);
    if (cpu.x87.status & FSW::ES) return x87::pending_exception(cpu);
    return {};
}

Stop floating_point_exception(Cpu& cpu, u32 raised) {
    // What is found before computing stops the computation: there are no flags of results then (SDM
    // 1 11.5.3.2).
    const u32 unmasked = raised & ~(cpu.mxcsr >> 7);
    if (unmasked & MXCSR::pre_computation) raised &= MXCSR::pre_computation;
    cpu.mxcsr |= raised;
    return cpu.control.cr4 & CR4::OSXMMEXCPT ? exception(Vector::XM) : undefined_opcode();
}

// ---- Memory
// ----------------------------------------------------------------------------------------------------

namespace {

/// What alignment checking asks of whole vectors, where they need not be aligned anyway: that of a double
/// quadword, also from YMM operands (SDM 3A Table 6-7).
constexpr unsigned checked_alignment = 16;

template <class V>
Result<u64> vector_address(Cpu& cpu, Seg segment, u64 offset, Aligned aligned, AccessType type) {
    const u64 at = TRY(cpu.linear(segment, offset, V::bytes, type));
    if (aligned == Aligned::yes && (at & (V::bytes - 1))) return general_protection(0);
    return at;
}

} // namespace

template <class V>
Result<V> load_at(Cpu& cpu, Seg segment, u64 offset, Aligned aligned) {
    const u64 at = TRY(vector_address<V>(cpu, segment, offset, aligned, AccessType::read));
    const u64 wrap = cpu.code64() ? ~u64{0} : 0xFFFF'FFFF;
    TRY(cpu.check_alignment(at, checked_alignment));
    V v;
    for (unsigned i = 0; i < V::bytes / 8; ++i) {
        const u64 here = (at + 8 * i) & wrap;
        if (!load_fast(cpu, here, v.q[i])) [[unlikely]]
            v.q[i] = TRY(cpu.load_linear(here, 8));
    }
    return v;
}
template Result<Xmm> load_at(Cpu&, Seg, u64, Aligned);
template Result<Ymm> load_at(Cpu&, Seg, u64, Aligned);

template <class V>
Result<void> store_at(Cpu& cpu, Seg segment, u64 offset, const V& value, Aligned aligned) {
    const u64 at = TRY(vector_address<V>(cpu, segment, offset, aligned, AccessType::write));
    u64 raw[V::bytes / 8];
    for (unsigned i = 0; i < V::bytes / 8; ++i) raw[i] = PhysicalMemory::little_endian(value.q[i]);
    if (u8* p = modify_fast<decltype(raw)>(cpu, at)) [[likely]] {
        std::memcpy(p, raw, sizeof raw);
        return {};
    }
    TRY(cpu.check_alignment(at, checked_alignment));
    return cpu.store_linear_bytes(at, raw, sizeof raw);
}
template Result<void> store_at(Cpu&, Seg, u64, const Xmm&, Aligned);
template Result<void> store_at(Cpu&, Seg, u64, const Ymm&, Aligned);

template <class V>
Result<V> load_vector(Cpu& cpu, const Insn& insn, unsigned i) {
    const auto extend = [](u64 low, u64 high = 0) {
        V v;
        v.q[0] = low;
        v.q[1] = high;
        return v;
    };
    switch (insn.operand[i].bytes) {
    case 32:
        if constexpr (V::bytes == 32) return load_whole<V>(cpu, insn, Aligned::no);
        break;
    case 16: {
        const Xmm v = TRY(load_whole<Xmm>(cpu, insn, legacy_alignment(insn)));
        return extend(v.q[0], v.q[1]);
    }
    case 8: return extend(TRY(load_number<u64>(cpu, insn)));
    case 4: return extend(TRY(load_number<u32>(cpu, insn)));
    case 2: return extend(TRY(load_number<u16>(cpu, insn)));
    case 1: return extend(TRY(load_number<u8>(cpu, insn)));
    default: break;
    }
    return cpu.unmodelled("a vector in memory of this size", "SDM 2A 3.1.1");
}
template Result<Xmm> load_vector(Cpu&, const Insn&, unsigned);
template Result<Ymm> load_vector(Cpu&, const Insn&, unsigned);

Result<Mm> mm_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    if (insn.operand[i].kind == OperandKind::mmx) return mm(cpu, insn.operand[i].number);
    if (insn.operand[i].bytes == 4) return Mm{{TRY(load_number<u32>(cpu, insn))}};
    return Mm{{TRY(load_number<u64>(cpu, insn))}};
}

} // namespace exeunt::sse
