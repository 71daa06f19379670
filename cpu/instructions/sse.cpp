#include "cpu/instructions/sse.hpp"

#include "cpu/instructions/x87.hpp"

namespace exeunt::sse {

// ---- Checks
// ----------------------------------------------------------------------------------------------------

Stop sse_unavailable(const Cpu& cpu) {
    if ((cpu.control.cr0 & CR0::EM) || !(cpu.control.cr4 & CR4::OSFXSR)) return undefined_opcode();
    return exception(Vector::NM);
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

Result<u64> vector_address(Cpu& cpu, const Insn& insn, Aligned aligned, AccessType type) {
    const u64 at = TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), 16, type));
    if (aligned == Aligned::yes && (at & 15)) return general_protection(0);
    return at;
}

/// The second half of 16 bytes at `at`.
u64 upper_half(const Cpu& cpu, u64 at) { return cpu.code64() ? at + 8 : (at + 8) & 0xFFFF'FFFF; }

} // namespace

Result<Xmm> load_xmm(Cpu& cpu, const Insn& insn, Aligned aligned) {
    const u64 at = TRY(vector_address(cpu, insn, aligned, AccessType::read));
    Xmm v;
    if (load_fast(cpu, at, v.q[0]) && load_fast(cpu, at + 8, v.q[1])) [[likely]]
        return v;
    v.q[0] = TRY(cpu.load_linear(at, 8));
    v.q[1] = TRY(cpu.load_linear(upper_half(cpu, at), 8));
    return v;
}

Result<void> store_xmm(Cpu& cpu, const Insn& insn, const Xmm& value, Aligned aligned) {
    const u64 at = TRY(vector_address(cpu, insn, aligned, AccessType::write));
    u64 raw[2];
    for (unsigned i = 0; i < 2; ++i) raw[i] = PhysicalMemory::little_endian(value.q[i]);
    if (u8* p = modify_fast<decltype(raw)>(cpu, at)) [[likely]] {
        std::memcpy(p, raw, sizeof raw);
        return {};
    }
    // Alignment checking, where it is in force, is for quadwords (SDM 2B MOVUPS leaves it to the processor).
    const WriteTarget low = TRY(cpu.prepare_linear(at, 8));
    if (low.first != low.bytes || (at & 0xFFF) > 0xFF0) return cpu.store_linear_bytes(at, raw, sizeof raw);
    TRY(cpu.commit(low, value.q[0]));
    return cpu.store_linear(upper_half(cpu, at), 8, value.q[1]);
}

Result<Xmm> load_vector(Cpu& cpu, const Insn& insn, unsigned i) {
    switch (insn.operand[i].bytes) {
    case 16: return load_xmm(cpu, insn, legacy_alignment(insn));
    case 8: return Xmm{{TRY(load_number<u64>(cpu, insn)), 0}};
    case 4: return Xmm{{TRY(load_number<u32>(cpu, insn)), 0}};
    case 2: return Xmm{{TRY(load_number<u16>(cpu, insn)), 0}};
    default: return cpu.unmodelled("a vector in memory of this size", "SDM 2A 3.1.1");
    }
}

Result<Mm> mm_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    if (insn.operand[i].kind == OperandKind::mmx) return mm(cpu, insn.operand[i].number);
    if (insn.operand[i].bytes == 4) return Mm{{TRY(load_number<u32>(cpu, insn))}};
    return Mm{{TRY(load_number<u64>(cpu, insn))}};
}

} // namespace exeunt::sse
