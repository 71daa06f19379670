// What x87 instructions share: the checks before them, the register stack, memory operands, and how
// exceptions enter the status word. SDM 1 8.1 "x87 FPU Execution Environment", 8.5, 8.6, 8.7; SDM 3A 2.5 and
// Table 2-2 (CR0.EM, TS, MP).
//
// The pointers to the last instruction and operand (SDM 1 8.1.8) and its opcode (8.1.9) are updated by every
// non-control instruction, the data pointer by those with a memory operand, in all modes and whether or not
// an exception is unmasked.
//
// Not modelled: CR0.NE = 0 together with an unmasked exception (FERR#, IGNNE# and IRQ 13, SDM 1 8.7.2): at
// the waiting instruction at which the processor would freeze, the machine stops with that message.
#pragma once

#include "cpu/fast_memory.hpp"
#include "cpu/instructions.hpp"
#include "cpu/softfloat80.hpp"

#include <array>

namespace exeunt::x87 {

using softfloat80::Environment;
using softfloat80::Extended;

// ---- Checks -----------------------------------------------------------------------------------------------

[[gnu::cold]] Stop pending_exception(Cpu& cpu);

/// #NM for all x87 instructions but FWAIT.
[[gnu::always_inline]] inline Result<void> available(const Cpu& cpu) {
    if (cpu.control.cr0 & (CR0::EM | CR0::TS)) [[unlikely]]
        return exception(Vector::NM);
    return {};
}
/// For waiting instructions, which are those without FN in their names: an exception that was found before.
[[gnu::always_inline]] inline Result<void> ready(Cpu& cpu) {
    TRY(available(cpu));
    if (cpu.x87.status & FSW::ES) [[unlikely]]
        return pending_exception(cpu);
    return {};
}

// ---- The register stack -----------------------------------------------------------------------------------

[[gnu::always_inline]] inline unsigned physical(const X87State& x87, unsigned i) {
    return (x87.top() + i) & 7;
}
[[gnu::always_inline]] inline Extended& st(X87State& x87, unsigned i) { return x87.st[physical(x87, i)]; }
[[gnu::always_inline]] inline bool is_empty(const X87State& x87, unsigned i) {
    return test_bit(x87.empty, physical(x87, i));
}
[[gnu::always_inline]] inline void set_st(X87State& x87, unsigned i, const Extended& value) {
    const unsigned p = physical(x87, i);
    x87.st[p] = value;
    x87.empty = static_cast<u8>(x87.empty & ~(1u << p));
}
[[gnu::always_inline]] inline void set_empty(X87State& x87, unsigned i) {
    x87.empty = static_cast<u8>(x87.empty | 1u << physical(x87, i));
}
[[gnu::always_inline]] inline void pop(X87State& x87) {
    set_empty(x87, 0);
    x87.set_top(x87.top() + 1);
}
[[gnu::always_inline]] inline void push(X87State& x87, const Extended& value) {
    x87.set_top(x87.top() - 1);
    set_st(x87, 0, value);
}

/// #IS, SDM 1 8.5.1.1: C1 tells overflow from underflow. The masked response is the indefinite.
inline void stack_underflow(Environment& e) { e.raise(FSW::IE | FSW::SF); }
inline void stack_overflow(Environment& e) {
    e.raise(FSW::IE | FSW::SF);
    e.up = true;
}

/// The register ST(i) of the instruction's last byte.
[[gnu::always_inline]] inline unsigned register_number(const Insn& insn) { return insn.modrm & 7; }
[[gnu::always_inline]] inline bool has_memory(const Insn& insn) { return insn.modrm < 0xC0; }

// ---- After the instruction --------------------------------------------------------------------------------

/// ES and B follow from the flags and their masks.
inline void summarize(X87State& x87) {
    const bool pending = x87.status & ~x87.control & FSW::exceptions;
    x87.status = static_cast<u16>((x87.status & ~(FSW::ES | FSW::B)) | (pending ? FSW::ES | FSW::B : 0));
}

/// Remembers a non-control instruction; `offset` is that of its memory operand, if it has one.
[[gnu::always_inline]] inline void note(Cpu& cpu, const Insn& insn, u64 offset) {
    X87State& x87 = cpu.x87;
    x87.opcode = static_cast<u16>((insn.opcode & 7) << 8 | insn.modrm);
    x87.instruction_pointer = insn.mode == 64 ? cpu.rip : low32(cpu.rip);
    x87.instruction_selector = cpu.seg(Seg::CS).selector;
    if (has_memory(insn)) {
        x87.data_pointer = offset;
        x87.data_selector = cpu.seg(insn.memory.segment).selector;
    }
}

/// Puts what was found into the status word. False: an unmasked exception withholds the result from a
/// register. SDM 1 8.5.
inline bool conclude(Cpu& cpu, const Insn& insn, const Environment& e, u64 offset = 0) {
    X87State& x87 = cpu.x87;
    note(cpu, insn, offset);
    x87.status = static_cast<u16>((x87.status & ~FSW::C1) | e.raised | (e.up ? FSW::C1 : 0));
    const u16 unmasked = e.unmasked();
    if (unmasked == 0) [[likely]]
        return true;
    x87.status |= FSW::ES | FSW::B;
    return !(unmasked & FSW::pre_computation);
}

/// Whether an unmasked exception keeps a result from being stored in memory.
inline bool withheld(const Environment& e) {
    return e.unmasked() & (FSW::pre_computation | FSW::OE | FSW::UE);
}

// ---- Memory -----------------------------------------------------------------------------------------------

/// In 64-bit mode these segments have neither base nor limit, and the TLB has canonical addresses only.
[[gnu::always_inline]] inline bool is_flat(const Insn& insn) {
    return insn.mode == 64 && insn.memory.segment != Seg::FS && insn.memory.segment != Seg::GS;
}
/// The memory operand, at `offset`.
template <class T>
[[gnu::always_inline]] inline Result<T> load_memory(Cpu& cpu, const Insn& insn, u64 offset) {
    T value = 0;
    if (is_flat(insn) && load_fast(cpu, offset, value)) [[likely]]
        return value;
    return cpu.load<T>(insn.memory.segment, offset);
}
template <class T>
[[gnu::always_inline]] inline Result<void> store_memory(Cpu& cpu, const Insn& insn, u64 offset, T value) {
    if (is_flat(insn) && store_fast(cpu, offset, value)) [[likely]]
        return {};
    return cpu.store(insn.memory.segment, offset, value);
}

/// The linear address of an operand of `bytes` at `offset`, with the faults that accessing it would cause. What
/// alignment checking asks of operands that are no integers: SDM 3A Table 6-7.
Result<u64> checked_address(Cpu& cpu, const Insn& insn, u64 offset, unsigned bytes, unsigned alignment,
                            AccessType type);

/// The operand of FADD m32 and its like: single or double precision, or FIADD's integer of 16 or 32 bits.
/// Notes a denormal in `e`.
inline Result<Extended> load_number(Cpu& cpu, const Insn& insn, u64 offset, Environment& e) {
    switch (insn.opcode) {
    case 0xD8: return softfloat80::widen(TRY(load_memory<u32>(cpu, insn, offset)), e);
    case 0xDC: return softfloat80::widen(TRY(load_memory<u64>(cpu, insn, offset)), e);
    case 0xDA: return softfloat80::from_integer(static_cast<i32>(TRY(load_memory<u32>(cpu, insn, offset))));
    default: return softfloat80::from_integer(static_cast<i16>(TRY(load_memory<u16>(cpu, insn, offset))));
    }
}

/// The 80-bit format in memory: significand, then sign and exponent.
using Image = std::array<u8, 10>;
Image to_image(const Extended& value);
Extended from_image(const u8* bytes);

} // namespace exeunt::x87
