// What MMX, SSE and AVX instructions share: vectors and their lanes, operands, the checks before an
// instruction, and SIMD floating-point exceptions. SDM 1 ch. 9 to 12, 14; SDM 2A 2.4 "Instruction Exception
// Specification"; SDM 3B 22.25 "Exception Conditions of Legacy SIMD Instructions Operating on MMX Registers".
//
// One handler serves an SSE instruction and its VEX forms. Of those the first source is an operand of its
// own, and what they write clears the rest of the vector register. With 256 bits they do to each 128-bit lane
// what the SSE instruction does to an XMM register (SDM 1 14.1.1); the few that do not have handlers in
// avx_*.cpp.
//
// Not modelled: SSE4A and the misaligned SSE mode of AMD's processors (MXCSR.MM); no model offers them.
#pragma once

#include "cpu/fast_memory.hpp"
#include "cpu/instructions.hpp"
#include "cpu/softfloat.hpp"

#include <array>
#include <bit>

namespace exeunt::sse {

// ---- Vectors
// ---------------------------------------------------------------------------------------------------

/// The bytes of an MMX, XMM or YMM register or of a memory operand, as quadwords, the least significant
/// first.
template <unsigned Bytes>
struct Vec {
    static constexpr unsigned bytes = Bytes;
    u64 q[Bytes / 8] = {};

    constexpr bool operator==(const Vec&) const = default;
};
using Mm = Vec<8>;
using Xmm = Vec<16>;
using Ymm = Vec<32>;

template <class T, unsigned Bytes>
using Lanes = std::array<T, Bytes / sizeof(T)>;

/// Lane `i`, counted from the least significant.
template <class T, unsigned Bytes>
[[gnu::always_inline]] constexpr T lane(const Vec<Bytes>& v, unsigned i) {
    return static_cast<T>(v.q[i * sizeof(T) / 8] >> (i * sizeof(T) % 8 * 8));
}
template <class T, unsigned Bytes>
[[gnu::always_inline]] constexpr void set_lane(Vec<Bytes>& v, unsigned i, T value) {
    const unsigned shift = i * sizeof(T) % 8 * 8;
    const u64 mask = low_mask(8 * sizeof(T)) << shift;
    u64& q = v.q[i * sizeof(T) / 8];
    q = (q & ~mask) | (static_cast<u64>(value) << shift & mask);
}

template <class T, unsigned Bytes>
[[gnu::always_inline]] constexpr Lanes<T, Bytes> split(const Vec<Bytes>& v) {
    if constexpr (std::endian::native == std::endian::little) {
        return std::bit_cast<Lanes<T, Bytes>>(v);
    } else {
        Lanes<T, Bytes> lanes{};
        for (unsigned i = 0; i < lanes.size(); ++i) lanes[i] = lane<T>(v, i);
        return lanes;
    }
}
template <class T, std::size_t N>
[[gnu::always_inline]] constexpr Vec<N * sizeof(T)> join(const std::array<T, N>& lanes) {
    using V = Vec<N * sizeof(T)>;
    if constexpr (std::endian::native == std::endian::little) {
        return std::bit_cast<V>(lanes);
    } else {
        V v;
        for (unsigned i = 0; i < N; ++i) set_lane<T>(v, i, lanes[i]);
        return v;
    }
}

/// `f` of each lane, or of each pair of lanes.
template <class T, unsigned Bytes, class F>
[[gnu::always_inline]] constexpr Vec<Bytes> each(const Vec<Bytes>& a, F f) {
    Lanes<T, Bytes> x = split<T>(a);
    for (T& value : x) value = static_cast<T>(f(value));
    return join(x);
}
template <class T, unsigned Bytes, class F>
[[gnu::always_inline]] constexpr Vec<Bytes> each(const Vec<Bytes>& a, const Vec<Bytes>& b, F f) {
    Lanes<T, Bytes> x = split<T>(a);
    const Lanes<T, Bytes> y = split<T>(b);
    for (unsigned i = 0; i < x.size(); ++i) x[i] = static_cast<T>(f(x[i], y[i]));
    return join(x);
}

// ---- 128-bit lanes
// ---------------------------------------------------------------------------------------------

[[gnu::always_inline]] constexpr Xmm half(const Ymm& v, unsigned i) { return {{v.q[2 * i], v.q[2 * i + 1]}}; }
[[gnu::always_inline]] constexpr const Xmm& half(const Xmm& v, unsigned) { return v; }
[[gnu::always_inline]] constexpr const Mm& half(const Mm& v, unsigned) { return v; }
[[gnu::always_inline]] constexpr Ymm together(const Xmm& low, const Xmm& high) {
    return {{low.q[0], low.q[1], high.q[0], high.q[1]}};
}

/// `f` of the 128-bit lanes of these vectors, one after the other; it may ask for the lane's number, too.
template <class F, class V, class... Rest>
[[gnu::always_inline]] constexpr V by_lanes(F f, const V& a, const Rest&... rest) {
    const auto one = [&](unsigned i) {
        if constexpr (std::is_invocable_v<F, decltype(half(a, i)), decltype(half(rest, i))..., unsigned>) {
            return f(half(a, i), half(rest, i)..., i);
        } else {
            return f(half(a, i), half(rest, i)...);
        }
    };
    if constexpr (V::bytes == 32) {
        const Xmm low = one(0);
        return together(low, one(1));
    } else {
        return one(0);
    }
}

// ---- Checks
// ----------------------------------------------------------------------------------------------------

[[gnu::cold]] Stop sse_unavailable(const Cpu& cpu, bool vex);

/// Instructions that touch vector registers or MXCSR. SDM 3A Table 13-1, 13.5.1; SDM 2A 2.4: VEX forms
/// depend on CR4.OSXSAVE and XCR0 instead of CR0.EM and CR4.OSFXSR.
[[gnu::always_inline]] inline bool is_sse_available(const Cpu& cpu) {
    return !(cpu.control.cr0 & (CR0::EM | CR0::TS)) && (cpu.control.cr4 & CR4::OSFXSR);
}
[[gnu::always_inline]] inline bool is_avx_available(const Cpu& cpu) {
    constexpr u64 wanted = XCR0::SSE | XCR0::AVX;
    return !(cpu.control.cr0 & CR0::TS) && (cpu.control.cr4 & CR4::OSXSAVE) &&
           (cpu.control.xcr0 & wanted) == wanted;
}
[[gnu::always_inline]] inline Result<void> sse_available(const Cpu& cpu, const Insn& insn) {
    if (insn.vex ? !is_avx_available(cpu) : !is_sse_available(cpu)) [[unlikely]]
        return sse_unavailable(cpu, insn.vex);
    return {};
}
/// Instructions that touch MMX registers: no emulation, no task switch pending, no x87 exception pending.
Result<void> mmx_available(Cpu& cpu);

// ---- Registers
// -------------------------------------------------------------------------------------------------

template <class V>
[[gnu::always_inline]] inline V vector(const Cpu& cpu, unsigned number) {
    const VectorRegister& r = cpu.vector[number];
    if constexpr (V::bytes == 32) {
        return {{r.q[0], r.q[1], r.q[2], r.q[3]}};
    } else {
        return {{r.q[0], r.q[1]}};
    }
}
[[gnu::always_inline]] inline Xmm xmm(const Cpu& cpu, unsigned number) { return vector<Xmm>(cpu, number); }
/// The first source: the destination itself, or in VEX forms an operand of its own.
template <class V = Xmm>
[[gnu::always_inline]] inline V first_source(const Cpu& cpu, const Insn& insn) {
    return vector<V>(cpu, insn.operand[insn.vex ? 1 : 0].number);
}
/// The index of the operand that follows the first source.
[[gnu::always_inline]] inline unsigned second_source(const Insn& insn) { return insn.vex ? 2 : 1; }

[[gnu::always_inline]] inline void write_xmm(Cpu& cpu, unsigned number, const Xmm& value) {
    VectorRegister& r = cpu.vector[number];
    r.q[0] = value.q[0];
    r.q[1] = value.q[1];
}
/// Operand 0, a vector register. VEX forms clear what is above the value (SDM 2A 2.3.10.1).
[[gnu::always_inline]] inline void set_vector(Cpu& cpu, const Insn& insn, const Xmm& value) {
    const unsigned number = insn.operand[0].number;
    write_xmm(cpu, number, value);
    if (insn.vex) cpu.vector[number].q[2] = cpu.vector[number].q[3] = 0;
}
[[gnu::always_inline]] inline void set_vector(Cpu& cpu, const Insn& insn, const Ymm& value) {
    cpu.vector[insn.operand[0].number] = {{value.q[0], value.q[1], value.q[2], value.q[3]}};
}

inline Mm mm(const Cpu& cpu, unsigned number) { return {{cpu.x87.st[number].significand}}; }
/// Every MMX instruction but EMMS makes all registers valid and the top of the stack 0. SDM 3A Table 12-2.
inline void use_mmx(Cpu& cpu) {
    cpu.x87.set_top(0);
    cpu.x87.empty = 0;
}
inline void set_mm(Cpu& cpu, unsigned number, const Mm& value) {
    use_mmx(cpu);
    cpu.x87.st[number] = {value.q[0], 0xFFFF};
}

// ---- Memory
// ----------------------------------------------------------------------------------------------------

/// Whether an operand of a register's size must be aligned: #GP(0) after segmentation's checks and before
/// paging's. VEX forms need it only where the instruction is about alignment (SDM 2A Table 2-14).
enum class Aligned : u8 { no, yes };

inline Aligned legacy_alignment(const Insn& insn) { return insn.vex ? Aligned::no : Aligned::yes; }

/// V is Xmm or Ymm.
template <class V>
Result<V> load_at(Cpu& cpu, Seg segment, u64 offset, Aligned aligned);
template <class V>
Result<void> store_at(Cpu& cpu, Seg segment, u64 offset, const V& value, Aligned aligned);
/// The memory operand.
template <class V>
Result<V> load_whole(Cpu& cpu, const Insn& insn, Aligned aligned) {
    return load_at<V>(cpu, insn.memory.segment, cpu.effective_address(insn), aligned);
}
template <class V>
Result<void> store_whole(Cpu& cpu, const Insn& insn, const V& value, Aligned aligned) {
    return store_at(cpu, insn.memory.segment, cpu.effective_address(insn), value, aligned);
}

/// The memory operand as a number of T's size.
template <class T>
Result<T> load_number(Cpu& cpu, const Insn& insn) {
    const u64 at =
        TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), sizeof(T), AccessType::read));
    T value = 0;
    if (load_fast(cpu, at, value)) [[likely]]
        return value;
    return static_cast<T>(TRY(cpu.load_linear(at, sizeof(T))));
}
template <class T>
Result<void> store_number(Cpu& cpu, const Insn& insn, T value) {
    const u64 at =
        TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), sizeof(T), AccessType::write));
    if (store_fast(cpu, at, value)) [[likely]]
        return {};
    return cpu.store_linear(at, sizeof(T), value);
}

[[gnu::always_inline]] inline bool is_vector(const Operand& operand) {
    return operand.kind == OperandKind::xmm || operand.kind == OperandKind::ymm;
}
/// Operand `i`, a vector register or memory; a shorter memory operand comes zero-extended.
template <class V>
Result<V> load_vector(Cpu& cpu, const Insn& insn, unsigned i);
template <class V>
[[gnu::always_inline]] inline Result<V> vector_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    if (is_vector(insn.operand[i])) [[likely]]
        return vector<V>(cpu, insn.operand[i].number);
    return load_vector<V>(cpu, insn, i);
}
[[gnu::always_inline]] inline Result<Xmm> xmm_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    return vector_operand<Xmm>(cpu, insn, i);
}
/// Operand `i`, an MMX register or memory of 4 or 8 bytes.
Result<Mm> mm_operand(Cpu& cpu, const Insn& insn, unsigned i);
/// The lowest number of operand `i`, an XMM register or memory.
template <class T>
[[gnu::always_inline]] inline Result<T> number_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    if (insn.operand[i].kind == OperandKind::xmm) [[likely]]
        return static_cast<T>(cpu.vector[insn.operand[i].number].q[0]);
    return load_number<T>(cpu, insn);
}

// ---- Shapes
// ----------------------------------------------------------------------------------------------------

/// The instruction works on MMX registers: so says its first operand, or its second where the first is a
/// general register.
inline bool is_mmx(const Insn& insn) {
    return insn.operand[0].kind == OperandKind::mmx || insn.operand[1].kind == OperandKind::mmx;
}
inline u8 immediate8(const Insn& insn) { return static_cast<u8>(insn.immediate); }

/// `f` with a vector of the instruction's size, which is all zero: only its type says something.
template <class F>
[[gnu::always_inline]] inline Result<void> with_vector_size(const Insn& insn, F f) {
    return insn.vector_bytes == 32 ? f(Ymm{}) : f(Xmm{});
}

/// destination = f(first source, second source) in each 128-bit lane, for operations that exist for XMM and
/// YMM registers only.
template <class F>
[[gnu::noinline]] Result<void> binary_vector(Cpu& cpu, const Insn& insn, F f) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V b = TRY(vector_operand<V>(cpu, insn, second_source(insn)));
        set_vector(cpu, insn, by_lanes(f, first_source<V>(cpu, insn), b));
        return {};
    });
}
/// destination = f(source) in each 128-bit lane.
template <class F>
[[gnu::noinline]] Result<void> unary_vector(Cpu& cpu, const Insn& insn, F f) {
    TRY(sse_available(cpu, insn));
    return with_vector_size(insn, [&](auto zero) -> Result<void> {
        using V = decltype(zero);
        const V a = TRY(vector_operand<V>(cpu, insn, 1));
        set_vector(cpu, insn, by_lanes(f, a));
        return {};
    });
}

// The same for MMX registers, too.
template <class F>
[[gnu::noinline]] Result<void> binary(Cpu& cpu, const Insn& insn, F f) {
    if (insn.operand[0].kind != OperandKind::mmx) return binary_vector(cpu, insn, f);
    TRY(mmx_available(cpu));
    const Mm b = TRY(mm_operand(cpu, insn, 1));
    set_mm(cpu, insn.operand[0].number, f(mm(cpu, insn.operand[0].number), b));
    return {};
}
template <class F>
[[gnu::noinline]] Result<void> unary(Cpu& cpu, const Insn& insn, F f) {
    if (insn.operand[0].kind != OperandKind::mmx) return unary_vector(cpu, insn, f);
    TRY(mmx_available(cpu));
    const Mm a = TRY(mm_operand(cpu, insn, 1));
    set_mm(cpu, insn.operand[0].number, f(a));
    return {};
}

// The common case of these shapes: a legacy encoding whose operands 0 and 1 are XMM registers, and nothing
// forbids it. False: nothing was done. A handler that tries this first, and else leaves all to the shape,
// needs no stack frame.
[[gnu::always_inline]] inline bool between_xmm(const Cpu& cpu, const Insn& insn) {
    return insn.operand[1].kind == OperandKind::xmm && insn.operand[0].kind == OperandKind::xmm &&
           !insn.vex && is_sse_available(cpu);
}
template <class F>
[[gnu::always_inline]] inline bool binary_quick(Cpu& cpu, const Insn& insn, F f) {
    if (!between_xmm(cpu, insn)) return false;
    const unsigned to = insn.operand[0].number;
    write_xmm(cpu, to, by_lanes(f, xmm(cpu, to), xmm(cpu, insn.operand[1].number)));
    return true;
}
template <class F>
[[gnu::always_inline]] inline bool unary_quick(Cpu& cpu, const Insn& insn, F f) {
    if (!between_xmm(cpu, insn)) return false;
    write_xmm(cpu, insn.operand[0].number, by_lanes(f, xmm(cpu, insn.operand[1].number)));
    return true;
}

// ---- SIMD floating-point exceptions
// ------------------------------------------------------------------------------

[[gnu::cold]] Stop floating_point_exception(Cpu& cpu, u32 raised);

/// Notes in MXCSR what an operation raised. An exception that is not masked ends the instruction before
/// anything else changes: #XM, or #UD while CR4.OSXMMEXCPT = 0. SDM 1 11.5.3, 11.5.4 "Handling SIMD
/// Floating-Point Exceptions in Software".
[[gnu::always_inline]] inline Result<void> settle(Cpu& cpu, u32 raised) {
    if (raised & ~(cpu.mxcsr >> 7)) [[unlikely]]
        return floating_point_exception(cpu, raised);
    cpu.mxcsr |= raised;
    return {};
}

} // namespace exeunt::sse
