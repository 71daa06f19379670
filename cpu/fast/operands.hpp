// Operands of fast handlers: registers by index, memory in 64-bit mode by one sum and one TLB compare.
#pragma once

#include "cpu/alu.hpp"
#include "cpu/fast/threaded.hpp"
#include "cpu/fast_memory.hpp"

#include <bit>

namespace exeunt::fast {

// ---- Registers ------------------------------------------------------------------------------------------------
// 16, 32 and 64 bits by register number, 8 bits by byte offset into Cpu::r (AH is byte 1 of RAX).

/// Byte `n` (from the least significant) of register `number`, as an offset into Cpu::r.
constexpr u8 byte_offset(unsigned number, unsigned n) {
    return static_cast<u8>(8 * number + (std::endian::native == std::endian::little ? n : 7 - n));
}

template <class T>
[[gnu::always_inline]] inline T reg(const Cpu& cpu, u8 which) {
    if constexpr (sizeof(T) == 1) return reinterpret_cast<const u8*>(cpu.r)[which];
    return static_cast<T>(cpu.r[which]);
}

template <class T>
[[gnu::always_inline]] inline void set_reg(Cpu& cpu, u8 which, T value) {
    if constexpr (sizeof(T) == 1) {
        reinterpret_cast<u8*>(cpu.r)[which] = value;
    } else if constexpr (sizeof(T) == 2) {
        cpu.r[which] = (cpu.r[which] & ~u64{0xFFFF}) | value;
    } else {
        cpu.r[which] = value;  // a 32-bit result is zero-extended
    }
}

// ---- Memory -----------------------------------------------------------------------------------------------------

/// Memory operands in 64-bit mode with 64-bit addresses. Flat: a segment whose base is 0; Based: FS or GS.
struct Flat {
    static constexpr bool based = false;
};
struct Based {
    static constexpr bool based = true;
};

[[gnu::always_inline]] inline u64 offset_of(const Cpu& cpu, const Op* op) {
    return cpu.r[op->base] + (cpu.r[op->index] << op->scale) + static_cast<u64>(op->displacement);
}

template <class Mode>
[[gnu::always_inline]] inline u64 linear_of(const Cpu& cpu, const Op* op, u64 offset) {
    if constexpr (Mode::based) return offset + cpu.segment[op->segment].base;
    return offset;
}

/// The slow way to memory wants to know where it is asked from.
inline void synchronise(Cpu& cpu, const Op* op) {
    cpu.rip = cpu.r[MemoryOperand::rip_register] + op->offset;
    cpu.next_rip = cpu.rip + op->length;
    cpu.last_of_block = op->last;
}

/// A value from memory, in two registers: an address that escapes would cost every handler its tail call.
struct Loaded {
    u64 value;
    bool ok;
};
/// The slow ways: segmentation's checks, page crossing, faults, devices, decoded code. Not ok: `cpu.block_stop`.
[[gnu::noinline]] Loaded load_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes);
[[gnu::noinline]] bool store_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes, u64 value);
[[gnu::noinline]] bool target_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes,
                                   Cpu::Destination& destination);
[[gnu::noinline]] bool commit_slow(Cpu& cpu, const Cpu::Destination& destination, u64 value);

template <class T, class Mode>
[[gnu::always_inline]] inline bool load(Cpu& cpu, const Op* op, T& value) {
    const u64 offset = offset_of(cpu, op);
    if (load_fast(cpu, linear_of<Mode>(cpu, op, offset), value)) [[likely]]
        return true;
    const Loaded loaded = load_slow(cpu, op, static_cast<Seg>(op->segment), offset, sizeof(T));
    value = static_cast<T>(loaded.value);
    return loaded.ok;
}

template <class T, class Mode>
[[gnu::always_inline]] inline bool store(Cpu& cpu, const Op* op, T value) {
    const u64 offset = offset_of(cpu, op);
    if (store_fast(cpu, linear_of<Mode>(cpu, op, offset), value)) [[likely]]
        return true;
    return store_slow(cpu, op, static_cast<Seg>(op->segment), offset, sizeof(T), value);
}

/// Reads memory, applies `compute`, writes it back: checked for writing before anything else happens.
template <class T, class Mode, class Compute>
[[gnu::noinline]] bool modify_slow(Cpu& cpu, const Op* op, u64 offset, Compute compute) {
    Cpu::Destination destination;
    if (!target_slow(cpu, op, static_cast<Seg>(op->segment), offset, sizeof(T), destination)) return false;
    const T result = compute(static_cast<T>(destination.value));
    return commit_slow(cpu, destination, result);
}

template <class T, class Mode, class Compute>
[[gnu::always_inline]] inline bool modify(Cpu& cpu, const Op* op, Compute compute) {
    const u64 offset = offset_of(cpu, op);
    if (u8* p = modify_fast<T>(cpu, linear_of<Mode>(cpu, op, offset))) [[likely]] {
        T value;
        std::memcpy(&value, p, sizeof value);
        value = PhysicalMemory::little_endian(compute(PhysicalMemory::little_endian(value)));
        std::memcpy(p, &value, sizeof value);
        return true;
    }
    return modify_slow<T, Mode>(cpu, op, offset, compute);
}

/// Continues, or leaves the block with what the slow way found.
#define CONTINUE_IF(ok)                             \
    do {                                            \
        if (!(ok)) [[unlikely]]                     \
            return leave(cpu, op, cpu.block_stop);  \
        NEXT_OP(cpu, op + 1);                       \
    } while (false)

// ---- The stack in 64-bit mode -----------------------------------------------------------------------------------------

[[gnu::always_inline]] inline bool load_stack(Cpu& cpu, const Op* op, u64 at, u64& value) {
    if (load_fast(cpu, at, value)) [[likely]]
        return true;
    const Loaded loaded = load_slow(cpu, op, Seg::SS, at, 8);
    value = loaded.value;
    return loaded.ok;
}
[[gnu::always_inline]] inline bool push_stack(Cpu& cpu, const Op* op, u64 value) {
    const u64 to = cpu.r[RSP] - 8;
    if (!store_fast(cpu, to, value)) [[unlikely]]
        if (!store_slow(cpu, op, Seg::SS, to, 8, value)) return false;
    cpu.r[RSP] = to;
    return true;
}

// ---- Conditions (SDM 1 Appendix B "EFLAGS Condition Codes") ----------------------------------------------------------

template <unsigned Condition>
[[gnu::always_inline]] inline bool condition(const Flags& f) {
    bool value = false;
    switch (Condition >> 1) {
        case 0: value = f.of; break;
        case 1: value = f.cf; break;
        case 2: value = f.zf(); break;
        case 3: value = f.cf || f.zf(); break;
        case 4: value = f.sf(); break;
        case 5: value = f.pf(); break;
        case 6: value = f.sf() != static_cast<bool>(f.of); break;
        case 7: value = f.zf() || f.sf() != static_cast<bool>(f.of); break;
    }
    return value != static_cast<bool>(Condition & 1);
}

[[gnu::always_inline]] inline u64 way_out(const Cpu& cpu, unsigned number) {
    return cpu.r[MemoryOperand::rip_register] + static_cast<u64>(cpu.current_block->link[number].offset);
}

/// A table over the sixteen conditions: `Make<c>::handler`.
template <template <unsigned> class Make, unsigned... c>
constexpr std::array<Handler, 16> by_condition(std::integer_sequence<unsigned, c...>) {
    return {Make<c>::handler...};
}
template <template <unsigned> class Make>
inline constexpr std::array<Handler, 16> condition_table =
    by_condition<Make>(std::make_integer_sequence<unsigned, 16>{});

}  // namespace exeunt::fast
