// Input and output: SDM 1 5.1.9 and ch. 18 "Input/Output"; SDM 2A IN, INS; SDM 2B OUT, OUTS.
//
// The order is that of SDM 3C 25.1.1 "Relative Priority of Faults and VM Exits": the permission bitmap's #GP
// comes before a VM exit, and a fault of the memory operand after it.
#include "cpu/instructions/io.hpp"

#include "cpu/instructions/string.hpp"

namespace exeunt {

namespace {

/// Offsets in the 32-bit and 64-bit TSS: SDM 3A 7.2.1 and 7.7.
constexpr u32 io_map_base_offset = 102;
constexpr u32 redirection_bytes = 32;

/// Where the I/O permission bitmap starts in the TSS; #GP(0) when the TSS has none.
Result<u32> io_map_base(Cpu& cpu) {
    const Segment& tr = cpu.seg(Seg::TR);
    const bool has_map = tr.type() == SystemType::tss_available || tr.type() == SystemType::tss_busy;
    if (!has_map || tr.limit < io_map_base_offset + 1) return general_protection(0);
    return low32(TRY(cpu.load_linear(tr.base + io_map_base_offset, 2, true)));
}

Result<void> ask_io(Cpu& cpu, const Insn& insn, const IoAccess& access) {
    if (!cpu.in_guest) return {};
    return cpu.virtualization->io(cpu, insn, access);
}

/// The port of IN and OUT: DX or an immediate byte.
u16 port_of(const Cpu& cpu, const Insn& insn, const Operand& operand) {
    return static_cast<u16>(operand.kind == OperandKind::immediate ? insn.immediate & 0xFF : cpu.gpr(RDX, 2));
}

/// Operand `data` is AL, AX or EAX.
Result<IoAccess> begin(Cpu& cpu, const Insn& insn, bool in) {
    const Operand& port = insn.operand[in ? 1 : 0];
    const Operand& data = insn.operand[in ? 0 : 1];
    IoAccess access;
    access.port = port_of(cpu, insn, port);
    access.bytes = data.bytes;
    access.in = in;
    access.immediate_port = port.kind == OperandKind::immediate;
    access.address_size = insn.address_size;
    TRY(check_io(cpu, access.port, access.bytes));
    TRY(ask_io(cpu, insn, access));
    return access;
}

/// The same for one iteration of INS or OUTS, whose memory operand is at `offset` of `segment`.
Result<u16> begin_string(Cpu& cpu, const Insn& insn, unsigned bytes, bool in, Seg segment, u64 offset) {
    IoAccess access;
    access.port = static_cast<u16>(cpu.gpr(RDX, 2));
    access.bytes = static_cast<u8>(bytes);
    access.in = in;
    access.string = true;
    access.rep = insn.repeat != Repeat::none;
    access.segment = segment;
    access.address_size = insn.address_size;
    access.linear = cpu.linear_unchecked(segment, offset, insn.address_size);
    TRY(check_io(cpu, access.port, bytes));
    TRY(ask_io(cpu, insn, access));
    return access.port;
}

Result<void> input_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    return repeat(cpu, insn, [&]() -> Result<void> {
        const u64 offset = cpu.gpr(RDI, insn.address_size);
        const u16 port = TRY(begin_string(cpu, insn, bytes, true, Seg::ES, offset));
        // The port is read only when the data can be stored.
        const WriteTarget target = TRY(cpu.prepare_write(Seg::ES, offset, bytes));
        TRY(cpu.commit(target, cpu.bus.port_read(port, bytes)));
        advance(cpu, insn, RDI, bytes);
        return {};
    });
}

Result<void> output_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    return repeat(cpu, insn, [&]() -> Result<void> {
        const u64 offset = cpu.gpr(RSI, insn.address_size);
        const Seg segment = insn.memory.segment;
        const u16 port = TRY(begin_string(cpu, insn, bytes, false, segment, offset));
        const u64 value = TRY(cpu.load(segment, offset, bytes));
        cpu.bus.port_write(port, bytes, low32(value));
        advance(cpu, insn, RSI, bytes);
        return {};
    });
}

} // namespace

Result<void> check_io(Cpu& cpu, u16 port, unsigned bytes) {
    if (!cpu.v8086() && cpu.cpl <= cpu.iopl()) return {}; // real-address mode has CPL 0
    const u32 map = TRY(io_map_base(cpu));
    // Two bytes are read whatever the port, and both must lie within the TSS (SDM 1 18.5.2).
    const u32 offset = map + port / 8u;
    const Segment& tr = cpu.seg(Seg::TR);
    if (offset + 1 > tr.limit) return general_protection(0);
    const u64 bits = TRY(cpu.load_linear(tr.base + offset, 2, true));
    if ((bits >> (port % 8u)) & low_mask(bytes)) return general_protection(0);
    return {};
}

Result<bool> redirection_bit(Cpu& cpu, u8 vector) {
    const u32 map = TRY(io_map_base(cpu));
    const u32 offset = map - redirection_bytes + vector / 8u;
    const Segment& tr = cpu.seg(Seg::TR);
    if (map < redirection_bytes || offset > tr.limit) return general_protection(0);
    const u64 bits = TRY(cpu.load_linear(tr.base + offset, 1, true));
    return test_bit(bits, vector % 8u);
}

Result<void> exec_IN(Cpu& cpu, const Insn& insn) {
    const IoAccess access = TRY(begin(cpu, insn, true));
    cpu.set_gpr(RAX, access.bytes, cpu.bus.port_read(access.port, access.bytes));
    return {};
}

Result<void> exec_OUT(Cpu& cpu, const Insn& insn) {
    const IoAccess access = TRY(begin(cpu, insn, false));
    cpu.bus.port_write(access.port, access.bytes, low32(cpu.gpr(RAX, access.bytes)));
    return {};
}

Result<void> exec_INSB(Cpu& cpu, const Insn& insn) { return input_string(cpu, insn, 1); }
Result<void> exec_INSW(Cpu& cpu, const Insn& insn) { return input_string(cpu, insn, 2); }
Result<void> exec_INSD(Cpu& cpu, const Insn& insn) { return input_string(cpu, insn, 4); }
Result<void> exec_OUTSB(Cpu& cpu, const Insn& insn) { return output_string(cpu, insn, 1); }
Result<void> exec_OUTSW(Cpu& cpu, const Insn& insn) { return output_string(cpu, insn, 2); }
Result<void> exec_OUTSD(Cpu& cpu, const Insn& insn) { return output_string(cpu, insn, 4); }

} // namespace exeunt
