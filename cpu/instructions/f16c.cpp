// F16C: SDM 1 14.4 "Half-Precision Floating-Point Conversion"; SDM 2C VCVTPH2PS, VCVTPS2PH.
#include "cpu/instructions/sse_float.hpp"

namespace exeunt {

using namespace sse;

/// DAZ does not count, and no denormal operand is noted: every half-precision number is a normal single.
Result<void> exec_VCVTPH2PS(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Xmm a = TRY(xmm_operand(cpu, insn, 1));
    Environment e{cpu.mxcsr};
    Ymm result;
    for (unsigned i = 0; i < insn.vector_bytes / 4u; ++i)
        set_lane<u32>(result, i, softfloat::widen_half(lane<u16>(a, i), e));
    TRY(settle(cpu, e.raised));
    set_vector(cpu, insn, result);
    return {};
}

/// Immediate: bits 1:0 the rounding, bit 2 MXCSR.RC instead. FZ does not count.
Result<void> exec_VCVTPS2PH(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const Ymm a = vector<Ymm>(cpu, insn.operand[1].number);
    const u8 control = immediate8(insn);
    Environment e{cpu.mxcsr & ~MXCSR::FZ};
    if (!(control & 4)) e.mxcsr = (e.mxcsr & ~MXCSR::RC) | static_cast<u32>(control & 3) << 13;
    Xmm result;
    for (unsigned i = 0; i < insn.vector_bytes / 4u; ++i)
        set_lane<u16>(result, i, softfloat::narrow_to_half(lane<u32>(a, i), e));
    if (insn.operand[0].kind != OperandKind::memory) {
        TRY(settle(cpu, e.raised));
        set_vector(cpu, insn, result);
        return {};
    }
    // Faults of the destination come before those of arithmetic (SDM 3A Table 6-2).
    const unsigned bytes = insn.vector_bytes / 2;
    const u64 at =
        TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), bytes, AccessType::write));
    TRY(cpu.check_alignment(at, bytes));
    TRY(cpu.check_linear(at, bytes, AccessType::write));
    const u32 before = cpu.mxcsr;
    TRY(settle(cpu, e.raised));
    const u64 raw[] = {PhysicalMemory::little_endian(result.q[0]),
                       PhysicalMemory::little_endian(result.q[1])};
    const Result<void> stored = cpu.store_linear_bytes(at, raw, bytes);
    if (!stored.ok()) cpu.mxcsr = before;
    return stored;
}

} // namespace exeunt
