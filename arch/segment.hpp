// Segment registers, selectors and descriptors. SDM 3A 3.4 "Logical and Linear Addresses".
#pragma once

#include "base/bits.hpp"

namespace exeunt {

/// In encoding order (Sreg of ModRM); the two system registers follow.
enum class Seg : u8 { ES, CS, SS, DS, FS, GS, LDTR, TR };

/// Access rights in the VMCS layout (SDM 3C Table 24-2), which is bits 55:40 of a descriptor shifted right by 40,
/// without limit bits, plus "unusable" in bit 16.
namespace AR {
inline constexpr u32 TYPE = 0xF, S = 1u << 4, DPL = 3u << 5, P = 1u << 7, AVL = 1u << 12, L = 1u << 13, DB = 1u << 14,
                     G = 1u << 15, UNUSABLE = 1u << 16;
inline constexpr u32 ACCESSED = 1, WRITABLE = 2, READABLE = 2, EXPAND_DOWN = 4, CONFORMING = 4, CODE = 8;
}  // namespace AR

/// System segment types, SDM 3A Table 3-2.
namespace SystemType {
inline constexpr u32 tss16_available = 1, ldt = 2, tss16_busy = 3, call_gate16 = 4, task_gate = 5,
                     interrupt_gate16 = 6, trap_gate16 = 7, tss_available = 9, tss_busy = 11, call_gate = 12,
                     interrupt_gate = 14, trap_gate = 15;
}  // namespace SystemType

/// A segment register: the visible selector and the hidden rest.
struct Segment {
    u16 selector = 0;
    u32 access = 0;  ///< AR bits
    u32 limit = 0;   ///< in bytes, granularity applied
    u64 base = 0;

    constexpr u32 type() const { return access & AR::TYPE; }
    constexpr unsigned dpl() const { return (access >> 5) & 3; }
    constexpr unsigned rpl() const { return selector & 3; }
    constexpr bool present() const { return access & AR::P; }
    constexpr bool unusable() const { return access & AR::UNUSABLE; }
    constexpr bool is_code() const { return (access & AR::S) && (access & AR::CODE); }
    constexpr bool long_mode() const { return access & AR::L; }
    constexpr bool big() const { return access & AR::DB; }
    constexpr bool operator==(const Segment&) const = default;
};

/// An 8-byte descriptor as it stands in memory.
struct Descriptor {
    u64 raw = 0;

    constexpr u32 base() const {
        return static_cast<u32>(extract(raw, 39, 16) | (extract(raw, 63, 56) << 24));
    }
    constexpr u32 access() const { return static_cast<u32>(extract(raw, 55, 40)) & 0xF0FF; }
    constexpr u32 raw_limit() const { return static_cast<u32>(extract(raw, 15, 0) | (extract(raw, 51, 48) << 16)); }
    /// In bytes, granularity applied.
    constexpr u32 limit() const { return (access() & AR::G) ? (raw_limit() << 12) | 0xFFF : raw_limit(); }
    constexpr u32 type() const { return access() & AR::TYPE; }
    constexpr bool system() const { return !(access() & AR::S); }
    constexpr unsigned dpl() const { return (access() >> 5) & 3; }
    constexpr bool present() const { return access() & AR::P; }
    constexpr bool code() const { return !system() && (access() & AR::CODE); }
    constexpr bool conforming() const { return access() & AR::CONFORMING; }
    constexpr Segment segment(u16 selector) const { return {selector, access(), limit(), base()}; }
    // Gates (SDM 3A Figure 6-2, Figure 5-8).
    constexpr u16 gate_selector() const { return static_cast<u16>(extract(raw, 31, 16)); }
    constexpr u32 gate_offset() const { return static_cast<u32>(extract(raw, 15, 0) | (extract(raw, 63, 48) << 16)); }
    constexpr unsigned gate_ist() const { return static_cast<unsigned>(extract(raw, 34, 32)); }
    constexpr unsigned gate_parameters() const { return static_cast<unsigned>(extract(raw, 36, 32)); }
};

/// GDTR and IDTR.
struct TableRegister {
    u64 base = 0;
    u16 limit = 0;
};

}  // namespace exeunt
