// Data transfer instructions: SDM 1 5.1.1 and, of 5.1.13, LEA, XLAT and MOVBE; each by its name in volume 2.
// MOV to and from segment, control and debug registers comes through here and is done elsewhere.
//
// Where the manual leaves a choice: PUSH of a segment register with 32-bit operand size writes 16 bits, as
// current processors do; BSWAP of a 16-bit register clears it; CMPXCHG that finds a difference does not write
// a register destination.
#include "cpu/instructions/integer.hpp"
#include "cpu/instructions/system.hpp"
#include "cpu/segmentation.hpp"

#include <array>

namespace exeunt {

namespace {

/// A load of SS holds events back for one instruction. SDM 3A 6.8.3 "Masking Exceptions and Interrupts When
/// Switching Stacks".
Result<void> load_segment_register(Cpu& cpu, const Operand& to, u64 selector) {
    const Seg where = static_cast<Seg>(to.number);
    if (where == Seg::CS) return undefined_opcode();
    TRY(load_segment(cpu, where, static_cast<u16>(selector)));
    if (where == Seg::SS) cpu.set_shadow(Shadow::mov_ss);
    return {};
}

u64 byte_swapped(u64 value, unsigned bytes) {
    u64 result = 0;
    for (unsigned i = 0; i < bytes; ++i) result = (result << 8) | ((value >> (8 * i)) & 0xFF);
    return result;
}

} // namespace

// ---- MOV and its relatives -------------------------------------------------------------------------------

Result<void> exec_MOV(Cpu& cpu, const Insn& insn) {
    const Operand& to = insn.operand[0];
    const OperandKind from = insn.operand[1].kind;
    if (to.kind == OperandKind::control || from == OperandKind::control) return mov_cr(cpu, insn);
    if (to.kind == OperandKind::debug || from == OperandKind::debug) return mov_dr(cpu, insn);
    const u64 value = TRY(read_source(cpu, insn, 1));
    if (to.kind == OperandKind::segment) return load_segment_register(cpu, to, value);
    return cpu.write_operand(insn, 0, value);
}

Result<void> exec_MOVZX(Cpu& cpu, const Insn& insn) {
    return cpu.write_operand(insn, 0, TRY(cpu.read_operand(insn, 1)));
}

Result<void> exec_MOVSX(Cpu& cpu, const Insn& insn) {
    const u64 value = TRY(cpu.read_operand(insn, 1));
    return cpu.write_operand(insn, 0, sign_extend(value, 8u * insn.operand[1].bytes));
}

Result<void> exec_MOVSXD(Cpu& cpu, const Insn& insn) { return exec_MOVSX(cpu, insn); }

Result<void> exec_MOVBE(Cpu& cpu, const Insn& insn) {
    const u64 value = TRY(cpu.read_operand(insn, 1));
    return cpu.write_operand(insn, 0, byte_swapped(value, insn.operand[0].bytes));
}

Result<void> exec_MOVNTI(Cpu& cpu, const Insn& insn) { return exec_MOVZX(cpu, insn); }

Result<void> exec_BSWAP(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand[0].bytes;
    const u64 value = TRY(cpu.read_operand(insn, 0));
    return cpu.write_operand(insn, 0, bytes == 2 ? 0 : byte_swapped(value, bytes));
}

Result<void> exec_LEA(Cpu& cpu, const Insn& insn) {
    return cpu.write_operand(insn, 0, cpu.effective_address(insn));
}

Result<void> exec_XLAT(Cpu& cpu, const Insn& insn) {
    const u64 offset = (cpu.r[RBX] + cpu.gpr(RAX, 1)) & address_mask(insn);
    const u8 value = TRY(cpu.load<u8>(insn.memory.segment, offset));
    cpu.set_gpr(RAX, 1, value);
    return {};
}

/// CMOVcc reads its source, and writes its destination, whether or not the condition is met.
static Result<void> conditional_move(Cpu& cpu, const Insn& insn, unsigned condition) {
    const u64 source = TRY(cpu.read_operand(insn, 1));
    const u64 old = TRY(cpu.read_operand(insn, 0));
    return cpu.write_operand(insn, 0, alu::condition(cpu.flags, condition) ? source : old);
}

#define CONDITION(cc, code) \
    Result<void> exec_CMOV##cc(Cpu& cpu, const Insn& insn) { return conditional_move(cpu, insn, code); }
#include "cpu/instructions/conditions.inc"

// ---- Sign extension of the accumulator -------------------------------------------------------------------

Result<void> exec_CBW(Cpu& cpu, const Insn&) {
    cpu.set_gpr(RAX, 2, sign_extend(cpu.r[RAX], 8));
    return {};
}
Result<void> exec_CWDE(Cpu& cpu, const Insn&) {
    cpu.set_gpr(RAX, 4, sign_extend(cpu.r[RAX], 16));
    return {};
}
Result<void> exec_CDQE(Cpu& cpu, const Insn&) {
    cpu.r[RAX] = sign_extend(cpu.r[RAX], 32);
    return {};
}
Result<void> exec_CWD(Cpu& cpu, const Insn&) {
    cpu.set_gpr(RDX, 2, test_bit(cpu.r[RAX], 15) ? ~u64{0} : 0);
    return {};
}
Result<void> exec_CDQ(Cpu& cpu, const Insn&) {
    cpu.set_gpr(RDX, 4, test_bit(cpu.r[RAX], 31) ? ~u64{0} : 0);
    return {};
}
Result<void> exec_CQO(Cpu& cpu, const Insn&) {
    cpu.r[RDX] = test_bit(cpu.r[RAX], 63) ? ~u64{0} : 0;
    return {};
}

// ---- Exchanges -------------------------------------------------------------------------------------------

Result<void> exec_XCHG(Cpu& cpu, const Insn& insn) {
    // Either operand can be the memory one; the register's write can not fail.
    const unsigned memory = insn.operand[1].kind == OperandKind::memory ? 1 : 0;
    const u64 other = TRY(cpu.read_operand(insn, 1 - memory));
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, memory));
    TRY(cpu.commit(insn, memory, d, other));
    return cpu.write_operand(insn, 1 - memory, d.value);
}

Result<void> exec_XADD(Cpu& cpu, const Insn& insn) {
    const u64 source = TRY(cpu.read_operand(insn, 1));
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, 0));
    Flags flags = cpu.flags;
    const u64 sum = with_size(insn.operand[0].bytes, [&](auto zero) {
        using T = decltype(zero);
        return static_cast<u64>(alu::add(flags, static_cast<T>(d.value), static_cast<T>(source)));
    });
    // With one register as both operands the sum is what stays (SDM 2C XADD: DEST is written last).
    if (!d.target) {
        TRY(cpu.write_operand(insn, 1, d.value));
        TRY(cpu.write_operand(insn, 0, sum));
    } else {
        TRY(cpu.commit(insn, 0, d, sum));
        TRY(cpu.write_operand(insn, 1, d.value));
    }
    cpu.flags = flags;
    return {};
}

Result<void> exec_CMPXCHG(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand[0].bytes;
    const u64 source = TRY(cpu.read_operand(insn, 1));
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, 0));
    const u64 accumulator = cpu.gpr(RAX, bytes);
    const bool equal = accumulator == d.value;
    // Memory is written in either case, so that the bus sees a whole locked cycle.
    if (equal || d.target) TRY(cpu.commit(insn, 0, d, equal ? source : d.value));
    if (!equal) cpu.set_gpr(RAX, bytes, d.value);
    with_size(bytes, [&](auto zero) {
        using T = decltype(zero);
        alu::cmp(cpu.flags, static_cast<T>(accumulator), static_cast<T>(d.value));
    });
    return {};
}

/// CMPXCHG8B and CMPXCHG16B change ZF and no other flag.
static void set_zf(Flags& flags, bool equal) { flags.zf_value = equal ? 0 : 1; }

Result<void> exec_CMPXCHG8B(Cpu& cpu, const Insn& insn) {
    const Cpu::Destination d = TRY(cpu.modify_operand(insn, 0));
    const u64 expected = (cpu.r[RDX] << 32) | low32(cpu.r[RAX]);
    const u64 wanted = (cpu.r[RCX] << 32) | low32(cpu.r[RBX]);
    const bool equal = d.value == expected;
    TRY(cpu.commit(insn, 0, d, equal ? wanted : d.value));
    if (!equal) {
        cpu.set_gpr(RAX, 4, low32(d.value));
        cpu.set_gpr(RDX, 4, high32(d.value));
    }
    set_zf(cpu.flags, equal);
    return {};
}

Result<void> exec_CMPXCHG16B(Cpu& cpu, const Insn& insn) {
    const Seg where = insn.memory.segment;
    const u64 offset = cpu.effective_address(insn);
    const u64 address = TRY(cpu.linear(where, offset, 16, AccessType::write));
    if (address & 15) return general_protection(0);
    TRY(cpu.prepare_linear(address, 16));
    std::array<u64, 2> old{}, next{cpu.r[RBX], cpu.r[RCX]};
    TRY(cpu.load_linear_bytes(address, old.data(), 16));
    for (u64& half : old) half = PhysicalMemory::little_endian(half);
    const bool equal = old[0] == cpu.r[RAX] && old[1] == cpu.r[RDX];
    if (!equal) next = old;
    for (u64& half : next) half = PhysicalMemory::little_endian(half);
    TRY(cpu.store_linear_bytes(address, next.data(), 16));
    if (!equal) {
        cpu.r[RAX] = old[0];
        cpu.r[RDX] = old[1];
    }
    set_zf(cpu.flags, equal);
    return {};
}

// ---- Stack -----------------------------------------------------------------------------------------------

Result<void> exec_PUSH(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size;
    const u64 value = TRY(read_source(cpu, insn, 0)); // PUSH RSP pushes the old value
    if (insn.operand[0].kind == OperandKind::segment && bytes == 4) {
        // The stack pointer moves by 4, and the upper half of the doubleword keeps what it had.
        const u64 offset = (cpu.r[RSP] - 4) & low_mask(8 * cpu.stack_bytes());
        TRY(cpu.store(Seg::SS, offset, 2, value));
        cpu.add_rsp(-4);
        return {};
    }
    return cpu.push(value & low_mask(8 * bytes), bytes);
}

Result<void> exec_POP(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size;
    const u64 value = TRY(cpu.peek_stack(0, bytes));
    // The new stack pointer is used for a destination that is addressed by RSP, and is in force only after
    // the destination was written.
    const u64 old_rsp = cpu.r[RSP];
    cpu.add_rsp(static_cast<i64>(bytes));
    const u64 new_rsp = cpu.r[RSP];
    switch (insn.operand[0].kind) {
    case OperandKind::memory: {
        const u64 offset = cpu.effective_address(insn);
        cpu.r[RSP] = old_rsp;
        TRY(cpu.store(insn.memory.segment, offset, bytes, value));
        cpu.r[RSP] = new_rsp;
        return {};
    }
    case OperandKind::segment:
        cpu.r[RSP] = old_rsp;
        TRY(load_segment_register(cpu, insn.operand[0], value));
        cpu.r[RSP] = new_rsp;
        return {};
    default: return cpu.write_operand(insn, 0, value);
    }
}

/// PUSHA and PUSHAD: all eight stores are known to succeed before the first is done.
static Result<void> push_all(Cpu& cpu, unsigned bytes) {
    const u64 mask = low_mask(8 * cpu.stack_bytes());
    std::array<WriteTarget, 8> targets;
    for (unsigned i = 0; i < 8; ++i)
        targets[i] = TRY(cpu.prepare_write(Seg::SS, (cpu.r[RSP] - bytes * (i + 1)) & mask, bytes));
    for (unsigned i = 0; i < 8; ++i) TRY(cpu.commit(targets[i], cpu.gpr(i, bytes)));
    cpu.add_rsp(-static_cast<i64>(8 * bytes));
    return {};
}

static Result<void> pop_all(Cpu& cpu, unsigned bytes) {
    std::array<u64, 8> values{};
    for (unsigned i = 0; i < 8; ++i) values[i] = TRY(cpu.peek_stack(bytes * i, bytes));
    for (unsigned i = 0; i < 8; ++i)
        if (7 - i != RSP) cpu.set_gpr(7 - i, bytes, values[i]);
    cpu.add_rsp(static_cast<i64>(8 * bytes));
    return {};
}

Result<void> exec_PUSHA(Cpu& cpu, const Insn&) { return push_all(cpu, 2); }
Result<void> exec_PUSHAD(Cpu& cpu, const Insn&) { return push_all(cpu, 4); }
Result<void> exec_POPA(Cpu& cpu, const Insn&) { return pop_all(cpu, 2); }
Result<void> exec_POPAD(Cpu& cpu, const Insn&) { return pop_all(cpu, 4); }

// SDM 2B MOVDIRI, MOVDIR64B: direct stores, which are stores where there are no caches. To Zydis both are of
// one set.
Result<void> exec_MOVDIRI(Cpu& cpu, const Insn& insn) {
    if (!cpu.has(Feature::MOVDIRI)) return undefined_opcode();
    return cpu.write_operand(insn, 0, TRY(cpu.read_operand(insn, 1)));
}
/// The destination is at ES:register and must be aligned.
Result<void> exec_MOVDIR64B(Cpu& cpu, const Insn& insn) {
    if (!cpu.has(Feature::MOVDIR64B)) return undefined_opcode();
    u8 line[64];
    const u64 offset = cpu.gpr(insn.operand[0].number, insn.address_size);
    const u64 to = TRY(cpu.linear(Seg::ES, offset, sizeof line, AccessType::write));
    if (to % sizeof line != 0) return general_protection(0);
    TRY(cpu.load_bytes(insn.memory.segment, cpu.effective_address(insn), line, sizeof line));
    return cpu.store_linear_bytes(to, line, sizeof line);
}

} // namespace exeunt
