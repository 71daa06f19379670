// FXSAVE and FXRSTOR, and the legacy region that the XSAVE family shares with them. SDM 2A FXSAVE, FXRSTOR;
// SDM 1 10.5 "FXSAVE and FXRSTOR Instructions"; APM 2 11.4.4 "Saving Media and x87 State".
#include "cpu/instructions/xsave.hpp"

#include "cpu/instructions.hpp"

namespace exeunt {

namespace {

constexpr unsigned at_mxcsr = 24, at_mxcsr_mask = 28, at_registers = 32, at_xmm = 160;

template <class T>
void put(LegacyRegion& region, unsigned at, T value) {
    value = PhysicalMemory::little_endian(value);
    std::memcpy(region.data() + at, &value, sizeof value);
}

template <class T>
T take(const LegacyRegion& region, unsigned at) {
    T value;
    std::memcpy(&value, region.data() + at, sizeof value);
    return PhysicalMemory::little_endian(value);
}

unsigned xmm_registers(const Cpu& cpu) { return cpu.code64() ? 16 : 8; }

/// APM 2 3.1.7: with EFER.FFXSR, at CPL 0 in 64-bit mode, the XMM registers are left alone.
bool fast(const Cpu& cpu) { return (cpu.control.efer & EFER::FFXSR) && cpu.code64() && cpu.cpl == 0; }

/// The faults of both before memory is touched; gives the linear address.
Result<u64> fxsave_area(Cpu& cpu, const Insn& insn, AccessType type) {
    if (cpu.control.cr0 & (CR0::EM | CR0::TS)) return exception(Vector::NM);
    const u64 linear =
        TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), xsave_legacy_bytes, type));
    if (linear & 15) return general_protection(0);
    TRY(cpu.check_linear(linear, xsave_legacy_bytes, type));
    return linear;
}

Result<void> fxsave(Cpu& cpu, const Insn& insn, bool wide) {
    const u64 linear = TRY(fxsave_area(cpu, insn, AccessType::write));
    LegacyRegion region{};
    put_x87(cpu, region, wide);
    put(region, at_mxcsr, cpu.mxcsr);
    put(region, at_mxcsr_mask, mxcsr_mask);
    put_xmm(cpu, region);
    const unsigned bytes = fast(cpu) ? at_xmm : at_xmm + 16 * xmm_registers(cpu);
    return cpu.store_linear_bytes(linear, region.data(), bytes);
}

Result<void> fxrstor(Cpu& cpu, const Insn& insn, bool wide) {
    const u64 linear = TRY(fxsave_area(cpu, insn, AccessType::read));
    LegacyRegion region;
    TRY(cpu.load_linear_bytes(linear, region.data(), xsave_legacy_bytes));
    const u32 mxcsr = take<u32>(region, at_mxcsr);
    if (mxcsr & ~mxcsr_mask) return general_protection(0);
    take_x87(cpu, region, wide);
    cpu.mxcsr = mxcsr;
    if (!fast(cpu)) take_xmm(cpu, region);
    return {};
}

} // namespace

void put_x87(const Cpu& cpu, LegacyRegion& region, bool wide) {
    const X87State& x87 = cpu.x87;
    put(region, 0, x87.control);
    put(region, 2, x87.status);
    put(region, 4, static_cast<u8>(~x87.empty));
    put(region, 6, x87.opcode);
    if (wide) {
        put(region, 8, x87.instruction_pointer);
        put(region, 16, x87.data_pointer);
    } else {
        put(region, 8, low32(x87.instruction_pointer));
        put(region, 12, x87.instruction_selector);
        put(region, 16, low32(x87.data_pointer));
        put(region, 20, x87.data_selector);
    }
    for (unsigned i = 0; i < 8; ++i) { // ST(i), by stack position
        const X87Register& st = x87.st[(x87.top() + i) & 7];
        put(region, at_registers + 16 * i, st.significand);
        put(region, at_registers + 16 * i + 8, st.sign_exponent);
    }
}

void take_x87(Cpu& cpu, const LegacyRegion& region, bool wide) {
    X87State& x87 = cpu.x87;
    x87.control = static_cast<u16>((take<u16>(region, 0) & 0x1F7F) | 0x40);
    // ES and B say whether an exception is pending that the new control word does not mask.
    const u16 status = take<u16>(region, 2) & 0x7F7F;
    const bool pending = status & ~x87.control & 0x3F;
    x87.status = static_cast<u16>(status | (pending ? 0x8080 : 0));
    x87.empty = static_cast<u8>(~take<u8>(region, 4));
    x87.opcode = take<u16>(region, 6) & 0x7FF;
    x87.instruction_pointer = wide ? take<u64>(region, 8) : take<u32>(region, 8);
    x87.data_pointer = wide ? take<u64>(region, 16) : take<u32>(region, 16);
    x87.instruction_selector = wide ? u16{0} : take<u16>(region, 12);
    x87.data_selector = wide ? u16{0} : take<u16>(region, 20);
    for (unsigned i = 0; i < 8; ++i) {
        X87Register& st = x87.st[(x87.top() + i) & 7];
        st.significand = take<u64>(region, at_registers + 16 * i);
        st.sign_exponent = take<u16>(region, at_registers + 16 * i + 8);
    }
}

void put_xmm(const Cpu& cpu, LegacyRegion& region) {
    for (unsigned i = 0; i < xmm_registers(cpu); ++i)
        for (unsigned half = 0; half < 2; ++half)
            put(region, at_xmm + 16 * i + 8 * half, cpu.vector[i].q[half]);
}

void take_xmm(Cpu& cpu, const LegacyRegion& region) {
    for (unsigned i = 0; i < xmm_registers(cpu); ++i)
        for (unsigned half = 0; half < 2; ++half)
            cpu.vector[i].q[half] = take<u64>(region, at_xmm + 16 * i + 8 * half);
}

Result<void> exec_FXSAVE(Cpu& cpu, const Insn& insn) { return fxsave(cpu, insn, false); }
Result<void> exec_FXSAVE64(Cpu& cpu, const Insn& insn) { return fxsave(cpu, insn, true); }
Result<void> exec_FXRSTOR(Cpu& cpu, const Insn& insn) { return fxrstor(cpu, insn, false); }
Result<void> exec_FXRSTOR64(Cpu& cpu, const Insn& insn) { return fxrstor(cpu, insn, true); }

} // namespace exeunt
