// Bit and byte instructions: SDM 1 5.1.6, and the bit fields of BMI1 and BMI2 (5.1.16); each by its name
// in volume 2. Flags: cpu/alu.hpp.
#include "cpu/instructions/integer.hpp"

#include <array>

namespace exeunt {

// ---- Bit strings -----------------------------------------------------------------------------------------

/// Where the bit is: with a register as bit offset and a memory operand, the offset is signed and reaches any
/// byte around the operand's address (SDM 2A BT; SDM 2A 3.1.1.9 "Bit(BitBase, BitOffset)").
static u64 bit_string_address(const Cpu& cpu, const Insn& insn, u64 bit_offset) {
    const unsigned bytes = insn.operand[0].bytes;
    u64 displacement = 0;
    if (insn.operand[1].kind == OperandKind::gpr) {
        const i64 offset = static_cast<i64>(sign_extend(bit_offset, 8 * bytes));
        displacement = static_cast<u64>((offset >> (bytes == 2   ? 4
                                                    : bytes == 4 ? 5
                                                                 : 6)) *
                                        static_cast<i64>(bytes));
    }
    return (cpu.effective_address(insn) + displacement) & address_mask(insn);
}

Result<void> exec_BT(Cpu& cpu, const Insn& insn) {
    const u64 offset = TRY(cpu.read_operand(insn, 1));
    const unsigned bytes = insn.operand[0].bytes;
    const bool memory = insn.operand[0].kind == OperandKind::memory;
    const u64 value = memory
                          ? TRY(cpu.load(insn.memory.segment, bit_string_address(cpu, insn, offset), bytes))
                          : TRY(cpu.read_operand(insn, 0));
    cpu.flags.cf = test_bit(value, static_cast<unsigned>(offset) & (8 * bytes - 1));
    return {};
}

/// BTS, BTR, BTC: `op` gives the value with the bit of `mask` changed.
template <class Op>
static Result<void> modify_bit(Cpu& cpu, const Insn& insn, Op op) {
    const u64 offset = TRY(cpu.read_operand(insn, 1));
    const unsigned bytes = insn.operand[0].bytes;
    const unsigned number = static_cast<unsigned>(offset) & (8 * bytes - 1);
    if (insn.operand[0].kind == OperandKind::memory) {
        const u64 address = bit_string_address(cpu, insn, offset);
        const WriteTarget target = TRY(cpu.prepare_write(insn.memory.segment, address, bytes));
        TRY(cpu.note_bus_lock(insn, target));
        const u64 old = TRY(cpu.read_target(target));
        TRY(cpu.commit(target, op(old, bit(number))));
        cpu.flags.cf = test_bit(old, number);
        return {};
    }
    const u64 old = TRY(cpu.read_operand(insn, 0));
    cpu.flags.cf = test_bit(old, number);
    return cpu.write_operand(insn, 0, op(old, bit(number)));
}

Result<void> exec_BTS(Cpu& cpu, const Insn& insn) {
    return modify_bit(cpu, insn, [](u64 value, u64 mask) { return value | mask; });
}
Result<void> exec_BTR(Cpu& cpu, const Insn& insn) {
    return modify_bit(cpu, insn, [](u64 value, u64 mask) { return value & ~mask; });
}
Result<void> exec_BTC(Cpu& cpu, const Insn& insn) {
    return modify_bit(cpu, insn, [](u64 value, u64 mask) { return value ^ mask; });
}

// ---- Scans and counts ------------------------------------------------------------------------------------

/// A source of 0 leaves the destination alone, also the upper half of a 64-bit register.
template <class Op>
static Result<void> scan(Cpu& cpu, const Insn& insn, Op op) {
    const u64 source = TRY(cpu.read_operand(insn, 1));
    const u64 result = with_size(insn.operand[0].bytes, [&](auto zero) {
        return static_cast<u64>(op(cpu.flags, zero, static_cast<decltype(zero)>(source)));
    });
    return source ? cpu.write_operand(insn, 0, result) : Result<void>{};
}

Result<void> exec_BSF(Cpu& cpu, const Insn& insn) {
    return scan(cpu, insn, [](Flags& f, auto old, auto source) { return alu::bsf(f, old, source); });
}
Result<void> exec_BSR(Cpu& cpu, const Insn& insn) {
    return scan(cpu, insn, [](Flags& f, auto old, auto source) { return alu::bsr(f, old, source); });
}
Result<void> exec_TZCNT(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) { return alu::tzcnt(f, a); });
}
Result<void> exec_LZCNT(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) { return alu::lzcnt(f, a); });
}
Result<void> exec_POPCNT(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) { return alu::popcnt(f, a); });
}

/// CRC32 divides by 11EDC6F41H, bits reflected. SDM 2A CRC32.
static constexpr std::array<u32, 256> crc32_bytes = [] {
    std::array<u32, 256> table{};
    for (u32 n = 0; n < 256; ++n) {
        u32 crc = n;
        for (unsigned i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0x82F6'3B78 : 0);
        table[n] = crc;
    }
    return table;
}();

Result<void> exec_CRC32(Cpu& cpu, const Insn& insn) {
    u64 data = TRY(cpu.read_operand(insn, 1));
    u32 crc = low32(TRY(cpu.read_operand(insn, 0)));
    for (unsigned i = 0; i < insn.operand[1].bytes; ++i, data >>= 8)
        crc = (crc >> 8) ^ crc32_bytes[(crc ^ data) & 0xFF];
    return cpu.write_operand(insn, 0, crc);
}

// ---- SETcc -----------------------------------------------------------------------------------------------

#define CONDITION(cc, code)                                                 \
    Result<void> exec_SET##cc(Cpu& cpu, const Insn& insn) {                 \
        return cpu.write_operand(insn, 0, alu::condition(cpu.flags, code)); \
    }
#include "cpu/instructions/conditions.inc"

// ---- Bit fields ------------------------------------------------------------------------------------------

/// The lowest set bit alone; CF = 1 unless the source is 0.
Result<void> exec_BLSI(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) {
        const auto r = alu::and_(f, a, static_cast<decltype(a)>(0 - a));
        f.cf = a != 0;
        return r;
    });
}

/// Without the lowest set bit; CF = 1 when the source is 0.
Result<void> exec_BLSR(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) {
        const auto r = alu::and_(f, a, static_cast<decltype(a)>(a - 1));
        f.cf = a == 0;
        return r;
    });
}

/// Ones up to the lowest set bit; CF = 1 when the source is 0, and ZF = 0 always.
Result<void> exec_BLSMSK(Cpu& cpu, const Insn& insn) {
    return write_from(cpu, insn, 1, [](Flags& f, auto a) {
        const auto r = alu::xor_(f, a, static_cast<decltype(a)>(a - 1));
        f.cf = a == 0;
        return r;
    });
}

/// The field of operand 1 that operand 2 describes: start in bits 7:0, length in bits 15:8.
Result<void> exec_BEXTR(Cpu& cpu, const Insn& insn) {
    const u64 field = TRY(cpu.read_operand(insn, 2));
    const unsigned start = static_cast<unsigned>(extract(field, 7, 0));
    const unsigned length = static_cast<unsigned>(extract(field, 15, 8));
    return write_from(cpu, insn, 1, [&](Flags& f, auto a) {
        const u64 shifted = start < 64 ? u64{a} >> start : 0;
        return alu::logic(f, static_cast<decltype(a)>(shifted & low_mask(length)));
    });
}

/// Bits from the index in operand 2 up are cleared; CF = 1 when the index is beyond the operand.
Result<void> exec_BZHI(Cpu& cpu, const Insn& insn) {
    const unsigned index = static_cast<u8>(TRY(cpu.read_operand(insn, 2)));
    return write_from(cpu, insn, 1, [&](Flags& f, auto a) {
        using T = decltype(a);
        const T r = alu::logic(f, static_cast<T>(a & low_mask(index)));
        f.cf = index >= 8 * sizeof(T);
        return r;
    });
}

/// The low bits of operand 1 go where operand 2 has ones. No flag changes.
Result<void> exec_PDEP(Cpu& cpu, const Insn& insn) {
    const u64 source = TRY(cpu.read_operand(insn, 1));
    u64 mask = TRY(cpu.read_operand(insn, 2));
    u64 result = 0;
    for (unsigned i = 0; mask != 0; ++i, mask &= mask - 1)
        if (test_bit(source, i)) result |= mask & (0 - mask);
    return cpu.write_operand(insn, 0, result);
}

/// The bits of operand 1 where operand 2 has ones, moved together. No flag changes.
Result<void> exec_PEXT(Cpu& cpu, const Insn& insn) {
    const u64 source = TRY(cpu.read_operand(insn, 1));
    u64 mask = TRY(cpu.read_operand(insn, 2));
    u64 result = 0;
    for (unsigned i = 0; mask != 0; ++i, mask &= mask - 1)
        if (source & mask & (0 - mask)) result |= bit(i);
    return cpu.write_operand(insn, 0, result);
}

} // namespace exeunt
