// Segmentation: limit, type and privilege checks; descriptors; loading of the data segment registers.
// SDM 3A 3.4 "Logical and Linear Addresses", 5.3 "Limit Checking", 5.4 "Type Checking", 5.6 "Privilege
// Level Checking when Accessing Data Segments", 5.7 "Privilege Level Checking when Loading the SS
// Register"; 3.4.4 and 5.3.1 for 64-bit mode. An access that wraps around the top of a segment with the
// limit FFFFFFFFH is allowed and wraps (SDM 3A 5.3 leaves it to the implementation).
// Not modelled: EFER.LMSLE (no model offers it).
#include "cpu/segmentation.hpp"

namespace exeunt {

// ---- Access
// ----------------------------------------------------------------------------------------------------

bool within_limit(const Segment& s, u64 offset, u64 bytes) {
    const u64 last = offset + bytes - 1;
    const bool expand_down = (s.access & (AR::S | AR::CODE | AR::EXPAND_DOWN)) == (AR::S | AR::EXPAND_DOWN);
    if (expand_down) return offset > s.limit && last <= (s.big() ? 0xFFFF'FFFF : 0xFFFF);
    return last <= s.limit || (s.limit == 0xFFFF'FFFF && offset <= s.limit);
}

namespace {

/// SDM 3A 5.4 "Type Checking": what the type of the segment allows. Execution is checked when CS is loaded.
bool type_allows(const Segment& s, AccessType type) {
    switch (type) {
    case AccessType::read: return !(s.access & AR::CODE) || (s.access & AR::READABLE);
    case AccessType::write: return !(s.access & AR::CODE) && (s.access & AR::WRITABLE);
    case AccessType::execute: return true;
    }
    return true;
}

Stop refused(Seg where) { return exception(where == Seg::SS ? Vector::SS : Vector::GP, 0); }

bool has_base_in_64_bit_mode(Seg where) { return where == Seg::FS || where == Seg::GS; }

} // namespace

Result<u64> Cpu::linear(Seg where, u64 offset, unsigned bytes, AccessType type) {
    const Segment& s = seg(where);
    const u64 more = bytes ? bytes - 1 : 0;
    if (code64()) [[likely]] {
        const u64 first = has_base_in_64_bit_mode(where) ? s.base + offset : offset;
        if (!canonical(first) || !canonical(first + more)) [[unlikely]]
            return refused(where);
        return first;
    }
    if (s.unusable()) return refused(where);
    // In real-address mode the type stays what protected mode left there and does not count.
    if (protected_mode() && !type_allows(s, type)) return general_protection(0);
    if (!within_limit(s, offset, more + 1)) return refused(where);
    return (s.base + offset) & 0xFFFF'FFFF;
}

u64 Cpu::linear_unchecked(Seg where, u64 offset, unsigned address_bytes) const {
    const u64 truncated = offset & low_mask(8 * address_bytes);
    if (code64()) return has_base_in_64_bit_mode(where) ? seg(where).base + truncated : truncated;
    return (seg(where).base + truncated) & 0xFFFF'FFFF;
}

// ---- Descriptors
// -----------------------------------------------------------------------------------------------

namespace {

struct Place {
    u64 address = 0;
    u64 room = 0; ///< bytes from the descriptor to the end of the table
};

/// Where the selector points, or nothing: no LDT, or not even eight bytes inside the limit.
std::optional<Place> locate(const Cpu& cpu, u16 selector) {
    const u64 offset = selector & 0xFFF8;
    u64 base = cpu.gdtr.base;
    u64 limit = cpu.gdtr.limit;
    if (selector & 4) {
        const Segment& ldtr = cpu.seg(Seg::LDTR);
        if (ldtr.unusable()) return std::nullopt;
        base = ldtr.base;
        limit = ldtr.limit;
    }
    if (offset + 7 > limit) return std::nullopt;
    const u64 address = base + offset;
    return Place{cpu.long_mode_active() ? address : address & 0xFFFF'FFFF, limit + 1 - offset};
}

} // namespace

Result<std::optional<TableEntry>> find_descriptor(Cpu& cpu, u16 selector) {
    if (null_selector(selector)) return std::optional<TableEntry>{};
    const auto place = locate(cpu, selector);
    if (!place) return std::optional<TableEntry>{};
    TableEntry entry;
    entry.selector = selector;
    entry.address = place->address;
    entry.descriptor.raw = TRY(cpu.load_linear(place->address, 8, true));
    return std::optional<TableEntry>{entry};
}

Result<TableEntry> fetch_descriptor(Cpu& cpu, u16 selector, Vector fault) {
    const auto place = locate(cpu, selector);
    if (!place) return exception(fault, selector_error(selector));
    TableEntry entry;
    entry.selector = selector;
    entry.address = place->address;
    entry.descriptor.raw = TRY(cpu.load_linear(place->address, 8, true));
    return entry;
}

Result<void> fetch_upper(Cpu& cpu, TableEntry& entry, Vector fault) {
    if (!cpu.long_mode_active()) return {};
    const auto place = locate(cpu, entry.selector);
    if (!place || place->room < 16) return exception(fault, selector_error(entry.selector));
    const u64 upper = TRY(cpu.load_linear(entry.address + 8, 8, true));
    if (extract(upper, 44, 40) != 0) return exception(fault, selector_error(entry.selector));
    entry.upper = low32(upper);
    return {};
}

Result<void> mark_accessed(Cpu& cpu, TableEntry& entry) {
    if (entry.descriptor.access() & AR::ACCESSED) return {};
    entry.descriptor.raw |= bit(40);
    return cpu.store_linear(entry.address + 5, 1, extract(entry.descriptor.raw, 47, 40), true);
}

// ---- Code and stack segments
// -------------------------------------------------------------------------------------

bool is_code64(const Cpu& cpu, const Segment& code) { return cpu.long_mode_active() && code.long_mode(); }

Result<void> check_code_width(const Cpu& cpu, const TableEntry& code) {
    const u32 access = code.descriptor.access();
    if (cpu.long_mode_active() && (access & AR::L) && (access & AR::DB))
        return general_protection(selector_error(code.selector));
    return {};
}

Result<void> check_target(const Cpu& cpu, const Segment& code, u64 offset) {
    const bool valid = is_code64(cpu, code) ? cpu.canonical(offset) : offset <= code.limit;
    if (!valid) return general_protection(0);
    return {};
}

Result<TableEntry> fetch_return_segment(Cpu& cpu, u16 selector) {
    if (null_selector(selector)) return general_protection(0);
    const TableEntry code = TRY(fetch_descriptor(cpu, selector, Vector::GP));
    const u32 error = selector_error(selector);
    const unsigned rpl = selector & 3;
    if (!code.descriptor.code()) return general_protection(error);
    if (rpl < cpu.cpl) return general_protection(error);
    const unsigned dpl = code.descriptor.dpl();
    if (code.descriptor.conforming() ? dpl > rpl : dpl != rpl) return general_protection(error);
    TRY(check_code_width(cpu, code));
    if (!code.descriptor.present()) return exception(Vector::NP, error);
    return code;
}

Result<TableEntry> fetch_stack_segment(Cpu& cpu, u16 selector, unsigned cpl, Vector fault) {
    const TableEntry stack = TRY(fetch_descriptor(cpu, selector, fault));
    const Descriptor& d = stack.descriptor;
    const bool writable_data = !d.system() && !d.code() && (d.access() & AR::WRITABLE);
    if ((selector & 3) != cpl || !writable_data || d.dpl() != cpl)
        return exception(fault, selector_error(selector));
    if (!d.present()) return exception(Vector::SS, selector_error(selector));
    return stack;
}

Segment null_stack_segment(unsigned cpl, u16 selector) { return {selector, AR::UNUSABLE | (cpl << 5), 0, 0}; }

void set_code_segment(Cpu& cpu, const Segment& code, unsigned cpl) {
    cpu.seg(Seg::CS) = code;
    cpu.seg(Seg::CS).selector = static_cast<u16>((code.selector & 0xFFFC) | cpl);
    cpu.cpl = static_cast<u8>(cpl);
}

void replace_flags(Cpu& cpu, u64 value) {
    value = (value & RFLAGS::all) | RFLAGS::FIXED1;
    const bool opens = value & ~cpu.flags.rest & RFLAGS::IF;
    cpu.flags.set_arithmetic(value);
    cpu.flags.rest = value & ~RFLAGS::arithmetic;
    cpu.mode_changed();
    if (opens) cpu.attention();
}

// ---- Data segments
// -----------------------------------------------------------------------------------------------

void load_segment_8086(Cpu& cpu, Seg where, u16 selector) {
    Segment& s = cpu.seg(where);
    s.selector = selector;
    s.base = u64{selector} << 4;
    if (cpu.v8086()) {
        s.limit = 0xFFFF;
        s.access = AR::P | AR::DPL | AR::S | AR::WRITABLE | AR::ACCESSED;
    } else {
        // Limit, granularity and default size stay what they were.
        s.access = (s.access & (AR::AVL | AR::DB | AR::G)) | AR::P | AR::S | AR::WRITABLE | AR::ACCESSED;
    }
}

void load_null(Cpu& cpu, Seg where, u16 selector) {
    Segment& s = cpu.seg(where);
    s.selector = selector;
    s.access = AR::UNUSABLE;
    if (!cpu.model.has(Quirk::null_selector_keeps_base)) {
        s.base = 0;
        s.limit = 0;
    }
}

void drop_inner_data_segments(Cpu& cpu) {
    for (const Seg where : {Seg::ES, Seg::FS, Seg::GS, Seg::DS}) {
        const Segment& s = cpu.seg(where);
        const bool conforming_code = s.is_code() && (s.access & AR::CONFORMING);
        if (!s.unusable() && !conforming_code && s.dpl() < cpu.cpl) load_null(cpu, where, 0);
    }
}

namespace {

/// SDM 2B MOV "Loading SS".
Result<void> load_stack_segment(Cpu& cpu, u16 selector) {
    if (null_selector(selector)) {
        if (!cpu.code64() || cpu.cpl == 3 || (selector & 3) != cpu.cpl) return general_protection(0);
        cpu.seg(Seg::SS) = null_stack_segment(cpu.cpl, selector);
        return {};
    }
    TableEntry stack = TRY(fetch_stack_segment(cpu, selector, cpu.cpl, Vector::GP));
    TRY(mark_accessed(cpu, stack));
    cpu.seg(Seg::SS) = stack.segment();
    return {};
}

/// SDM 2B MOV "Loading DS, ES, FS, or GS".
Result<void> load_data_segment(Cpu& cpu, Seg where, u16 selector) {
    if (null_selector(selector)) {
        load_null(cpu, where, selector);
        return {};
    }
    TableEntry data = TRY(fetch_descriptor(cpu, selector, Vector::GP));
    const Descriptor& d = data.descriptor;
    const u32 error = selector_error(selector);
    if (d.system() || (d.code() && !(d.access() & AR::READABLE))) return general_protection(error);
    const unsigned rpl = selector & 3;
    if (!(d.code() && d.conforming()) && (rpl > d.dpl() || cpu.cpl > d.dpl()))
        return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    TRY(mark_accessed(cpu, data));
    cpu.seg(where) = data.segment();
    return {};
}

} // namespace

Result<void> load_segment(Cpu& cpu, Seg where, u16 selector) {
    if (cpu.real_mode() || cpu.v8086()) {
        load_segment_8086(cpu, where, selector);
    } else if (where == Seg::SS) {
        TRY(load_stack_segment(cpu, selector));
    } else {
        TRY(load_data_segment(cpu, where, selector));
    }
    return {};
}

} // namespace exeunt
