// Segmentation: descriptors in their tables, loading of segment registers, and the checks on every access.
// SDM 3A ch. 3 "Protected-Mode Memory Management", 5.2 to 5.8 on limits, types and privilege levels.
#pragma once

#include "cpu/cpu.hpp"

#include <optional>

namespace exeunt {

constexpr bool null_selector(u16 selector) { return (selector & 0xFFFC) == 0; }
/// A selector as error code: RPL makes room for IDT and EXT (SDM 3A 6.13 "Error Code").
constexpr u32 selector_error(u16 selector) { return selector & 0xFFFC; }

/// A descriptor and where it was found.
struct TableEntry {
    u16 selector = 0;
    Descriptor descriptor;
    u64 upper = 0;   ///< bytes 8 to 15 of a system descriptor in IA-32e mode, once fetch_upper() read them
    u64 address = 0; ///< linear

    /// The base, with its upper half where the descriptor has one.
    u64 base() const { return descriptor.base() | (upper << 32); }
    Segment segment() const { return {selector, descriptor.access(), descriptor.limit(), base()}; }
};

/// The first eight bytes of the descriptor; outside the table's limit: `fault` with the selector.
Result<TableEntry> fetch_descriptor(Cpu& cpu, u16 selector, Vector fault);
/// The same for instructions that report instead of faulting: nothing when null or outside the limit.
Result<std::optional<TableEntry>> find_descriptor(Cpu& cpu, u16 selector);
/// IA-32e mode: bytes 8 to 15 of a system descriptor. The type field there must be 0 (SDM 3A 7.2.3).
Result<void> fetch_upper(Cpu& cpu, TableEntry& entry, Vector fault);
/// Sets the accessed bit of a code or data descriptor, in memory and in `entry`.
Result<void> mark_accessed(Cpu& cpu, TableEntry& entry);

/// DS, ES, FS, GS or SS from a selector, in every mode. MOV SS and POP SS also set the shadow themselves.
Result<void> load_segment(Cpu& cpu, Seg where, u16 selector);
/// Whether `offset` and the bytes after it lie inside the segment's limit.
bool within_limit(const Segment& segment, u64 offset, u64 bytes);

/// The descriptor of a stack segment for code at `cpl`: `fault` when unsuitable, #SS when not present.
Result<TableEntry> fetch_stack_segment(Cpu& cpu, u16 selector, unsigned cpl, Vector fault);
/// The descriptor of a code segment to return to at privilege level RPL(selector) (far RET, IRET).
Result<TableEntry> fetch_return_segment(Cpu& cpu, u16 selector);
/// In IA-32e mode L and D must not both be set: #GP(selector).
Result<void> check_code_width(const Cpu& cpu, const TableEntry& code);
/// Whether `offset` can be executed in that segment: else #GP(0). A 64-bit segment wants a canonical address.
Result<void> check_target(const Cpu& cpu, const Segment& code, u64 offset);
/// Whether code in this segment runs in 64-bit mode.
bool is_code64(const Cpu& cpu, const Segment& code);

/// SS in 64-bit mode below CPL 3 may be null; DPL keeps CPL.
Segment null_stack_segment(unsigned cpl, u16 selector);
/// A register that real-address or virtual-8086 mode loads: sixteen times the selector.
void load_segment_8086(Cpu& cpu, Seg where, u16 selector);
/// ES, DS, FS or GS becomes null.
void load_null(Cpu& cpu, Seg where, u16 selector);
/// After a return to an outer privilege level: data segments that CPL may no longer use become null.
void drop_inner_data_segments(Cpu& cpu);
/// CS and CPL; RPL of CS becomes CPL. To be followed by mode_changed().
void set_code_segment(Cpu& cpu, const Segment& code, unsigned cpl);
/// All of RFLAGS, for transfers of control: derives what follows from it, and looks for interrupts when IF
/// opens.
void replace_flags(Cpu& cpu, u64 value);

} // namespace exeunt
