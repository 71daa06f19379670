// Registers, effective addresses, and the explicit operands of general handlers.
#include "cpu/cpu.hpp"
#include "cpu/mnemonic.hpp"

namespace exeunt {

u64 Cpu::gpr(unsigned number, unsigned bytes) const { return r[number] & low_mask(8 * bytes); }

void Cpu::set_gpr(unsigned number, unsigned bytes, u64 value) {
    if (bytes >= 4) {
        r[number] = value & low_mask(8 * bytes);  // 32-bit results are zero-extended
    } else {
        const u64 mask = low_mask(8 * bytes);
        r[number] = (r[number] & ~mask) | (value & mask);
    }
}

u64 Cpu::effective_address(const Insn& insn) const {
    const MemoryOperand& m = insn.memory;
    const u64 base = m.base == MemoryOperand::rip_register ? next_rip : r[m.base];
    const u64 sum = base + (r[m.index] << m.scale) + static_cast<u64>(m.displacement);
    return sum & low_mask(8 * insn.address_size);
}

Result<u64> Cpu::read_operand(const Insn& insn, unsigned i) {
    const Operand& o = insn.operand[i];
    switch (o.kind) {
        case OperandKind::gpr: return o.high_byte ? (r[o.number] >> 8) & 0xFF : gpr(o.number, o.bytes);
        case OperandKind::memory: return load(insn.memory.segment, effective_address(insn), o.bytes);
        case OperandKind::immediate: return insn.immediate & low_mask(8 * o.bytes);
        case OperandKind::segment: return u64{segment[o.number].selector};
        default: return unmodelled("an operand of this kind as a number", "SDM 2A 3.1.1");
    }
}

Result<void> Cpu::write_operand(const Insn& insn, unsigned i, u64 value) {
    const Operand& o = insn.operand[i];
    if (o.kind == OperandKind::memory) return store(insn.memory.segment, effective_address(insn), o.bytes, value);
    if (o.high_byte) {
        r[o.number] = deposit(r[o.number], 15, 8, value);
    } else {
        set_gpr(o.number, o.bytes, value);
    }
    return {};
}

/// APM 2 7.3.2 "Access Atomicity": within a line a lock stays in the cache. XCHG locks without the prefix.
Result<void> Cpu::note_bus_lock(const Insn& insn, const WriteTarget& target) {
    const bool locked = insn.lock || insn.mnemonic == ZYDIS_MNEMONIC_XCHG;
    const bool crosses = (target.linear & 63) + target.bytes > 64;
    if (!locked || !crosses) return {};
    return ask(insn, Intercept::bus_lock);
}

Result<Cpu::Destination> Cpu::modify_operand(const Insn& insn, unsigned i) {
    const Operand& o = insn.operand[i];
    Destination d;
    if (o.kind == OperandKind::memory) {
        d.target = TRY(prepare_write(insn.memory.segment, effective_address(insn), o.bytes));
        TRY(note_bus_lock(insn, *d.target));
        d.value = TRY(read_target(*d.target));
    } else {
        d.value = TRY(read_operand(insn, i));
    }
    return d;
}

Result<void> Cpu::commit(const Insn& insn, unsigned i, const Destination& destination, u64 value) {
    if (destination.target) return commit(*destination.target, value & low_mask(8 * insn.operand[i].bytes));
    return write_operand(insn, i, value);
}

}  // namespace exeunt
