// How data reaches memory: segmentation, the TLB, pages crossed, code overwritten, devices.
//
// The fast way (a TLB tag matches, one page) is load_fast and store_fast in cpu/fast_memory.hpp; everything else
// comes here. Alignment checking (SDM 3A 6.15 "Alignment Check Exception") is done here too: while it is in force the
// MMU hands out no direct entries.
#include "cpu/cpu.hpp"
#include "cpu/fast_memory.hpp"

#include <bit>
#include <cstring>

namespace exeunt {

namespace {

bool alignment_checked(const Cpu& cpu) {
    return cpu.cpl == 3 && (cpu.control.cr0 & CR0::AM) && cpu.flag(RFLAGS::AC);
}

Privilege privilege_of(const Cpu& cpu, bool implicit) { return implicit ? Privilege::supervisor : cpu.mmu.privilege(); }

/// Memory that a matching tag leads to: one page of RAM, without decoded code, breakpoints or checks of alignment.
u64 load_native(const u8* from, unsigned bytes) {
    u64 value = 0;
    switch (bytes) {  // the usual sizes, each a single move
        case 1: return *from;
        case 2: std::memcpy(&value, from, 2); break;
        case 4: std::memcpy(&value, from, 4); break;
        case 8: std::memcpy(&value, from, 8); break;
        default: std::memcpy(&value, from, bytes);
    }
    return PhysicalMemory::little_endian(value);
}

void store_native(u8* to, unsigned bytes, u64 value) {
    value = PhysicalMemory::little_endian(value);
    switch (bytes) {
        case 1: std::memcpy(to, &value, 1); break;
        case 2: std::memcpy(to, &value, 2); break;
        case 4: std::memcpy(to, &value, 4); break;
        case 8: std::memcpy(to, &value, 8); break;
        default: std::memcpy(to, &value, bytes);
    }
}

/// A device access must be the last of its block, so that what it changes (deadlines, interrupts, decoded code)
/// is seen at the next instruction: in the middle of a block the instruction is tried again as a block of its own.
bool must_retry(Cpu& cpu) { return !cpu.last_of_block; }

Result<u64> read_physical(Cpu& cpu, const TlbEntry& entry, u64 linear, unsigned bytes) {
    const Physical at{entry.physical() + (linear & 0xFFF)};
    if (entry.special()) {
        if (must_retry(cpu)) return stopped(Stop::Kind::retry);
        return cpu.virtualization->special_read(cpu, at.value, linear, bytes);
    }
    if (const u8* p = cpu.memory.native(at)) {
        u64 value = 0;
        std::memcpy(&value, p, bytes);
        return PhysicalMemory::little_endian(value);
    }
    if (must_retry(cpu)) return stopped(Stop::Kind::retry);
    u64 value = 0;
    for (unsigned done = 0; done < bytes;) {  // never across an aligned quadword
        const unsigned room = 8 - static_cast<unsigned>((at.value + done) & 7);
        unsigned chunk = bytes - done < room ? bytes - done : room;
        while (chunk & (chunk - 1)) chunk &= chunk - 1;
        value |= cpu.bus.mmio_read(at.value + done, chunk) << (8 * done);
        done += chunk;
    }
    return value;
}

Result<void> write_physical(Cpu& cpu, u64 physical, bool special, u64 linear, unsigned bytes, u64 value) {
    if (special) return cpu.virtualization->special_write(cpu, physical, linear, bytes, value);
    const Physical at{physical};
    switch (cpu.memory.kind(at)) {
        case PhysicalMemory::Kind::rom: return {};
        case PhysicalMemory::Kind::ram: {
            if (cpu.memory.has_code(at)) cpu.memory.about_to_write(at, bytes);
            const u64 raw = PhysicalMemory::little_endian(value);
            std::memcpy(cpu.memory.native(at), &raw, bytes);
            return {};
        }
        case PhysicalMemory::Kind::mmio: break;
    }
    for (unsigned done = 0; done < bytes;) {
        const unsigned room = 8 - static_cast<unsigned>((at.value + done) & 7);
        unsigned chunk = bytes - done < room ? bytes - done : room;
        while (chunk & (chunk - 1)) chunk &= chunk - 1;
        cpu.bus.mmio_write(at.value + done, chunk, (value >> (8 * done)) & low_mask(8 * chunk));
        done += chunk;
    }
    return {};
}

/// Where the second level decides for each 128 bytes of a page (no such page is cached as writable), a write that reaches
/// into another of them asks about its last byte, too.
Result<void> check_sub_page(Cpu& cpu, const TlbEntry& entry, u64 first, u64 last, Access access) {
    if (entry.writable() || first >> 7 == last >> 7) return {};
    TRY(cpu.mmu.lookup(Linear{last}, access));
    return {};
}

/// Writes that must end their block: to devices, to special pages, over decoded code.
bool ends_block(Cpu& cpu, Physical at, unsigned bytes, bool special) {
    if (special || cpu.memory.kind(at) == PhysicalMemory::Kind::mmio) return true;
    return cpu.memory.overwrites_code(at, bytes);
}

}  // namespace

Result<void> Cpu::check_alignment(u64 linear, unsigned bytes) const {
    if (alignment_checked(*this) && std::has_single_bit(bytes) && (linear & (bytes - 1)))
        return exception(Vector::AC, 0);
    return {};
}

// ---- Linear ---------------------------------------------------------------------------------------------------

Result<u64> Cpu::load_linear(u64 linear, unsigned bytes, bool implicit) {
    const Access access{AccessType::read, privilege_of(*this, implicit)};
    TlbPart& part = mmu.part(access.privilege);
    if (const TlbEntry& e = part.entry(linear); e.read_tag == part.tag_of(linear + bytes - 1)) [[likely]]
        return load_native(reinterpret_cast<const u8*>(e.addend + linear), bytes);
    if (!implicit) TRY(check_alignment(linear, bytes));
    const unsigned first = static_cast<unsigned>(page_size - (linear & 0xFFF));
    if (bytes <= first) [[likely]] {
        const TlbEntry& entry = *TRY(mmu.lookup(Linear{linear}, access));
        note_data_breakpoint(linear, bytes, false);
        return read_physical(*this, entry, linear, bytes);
    }
    const u64 second_page = next_page(linear);
    const TlbEntry low = *TRY(mmu.lookup(Linear{linear}, access));
    const TlbEntry high = *TRY(mmu.lookup(Linear{second_page}, access));
    const u64 a = TRY(read_physical(*this, low, linear, first));
    const u64 b = TRY(read_physical(*this, high, second_page, bytes - first));
    note_data_breakpoint(linear, bytes, false);
    return a | (b << (8 * first));
}

Result<WriteTarget> Cpu::prepare_linear(u64 linear, unsigned bytes, bool implicit) {
    if (!implicit) TRY(check_alignment(linear, bytes));
    return translate_write(linear, bytes, privilege_of(*this, implicit));
}

Result<WriteTarget> Cpu::translate_write(u64 linear, unsigned bytes, Privilege privilege) {
    const Access access{AccessType::write, privilege};
    WriteTarget target{.linear = linear, .bytes = bytes, .first = bytes};
    TlbPart& part = mmu.part(privilege);
    if (const TlbEntry& e = part.entry(linear); e.write_tag == part.write_tag_of(linear + bytes - 1)) [[likely]] {
        target.native = reinterpret_cast<u8*>(e.addend + linear);
        return target;
    }
    const TlbEntry low = *TRY(mmu.lookup(Linear{linear}, access));
    target.physical = low.physical() + (linear & 0xFFF);
    target.special = low.special();
    const unsigned room = static_cast<unsigned>(page_size - (linear & 0xFFF));
    TRY(check_sub_page(*this, low, linear, linear + (bytes < room ? bytes : room) - 1, access));
    bool ends = false;
    if (bytes > room) [[unlikely]] {
        target.first = room;
        const TlbEntry high = *TRY(mmu.lookup(Linear{next_page(linear)}, access));
        TRY(check_sub_page(*this, high, next_page(linear), next_page(linear) + (bytes - room) - 1, access));
        target.physical2 = high.physical();
        target.special2 = high.special();
        ends = ends_block(*this, Physical{high.physical()}, bytes - room, high.special());
    }
    ends |= ends_block(*this, Physical{target.physical}, target.first, low.special());
    if (ends && must_retry(*this)) return stopped(Stop::Kind::retry);
    return target;
}

Result<void> Cpu::commit(const WriteTarget& target, u64 value) {
    if (target.native) [[likely]] {
        store_native(target.native, target.bytes, value);
        return {};
    }
    note_data_breakpoint(target.linear, target.bytes, true);
    if (target.first == target.bytes) [[likely]]
        return write_physical(*this, target.physical, target.special, target.linear, target.bytes, value);
    TRY(write_physical(*this, target.physical, target.special, target.linear, target.first,
                       value & low_mask(8 * target.first)));
    return write_physical(*this, target.physical2, target.special2, next_page(target.linear),
                          target.bytes - target.first, value >> (8 * target.first));
}

Result<u64> Cpu::read_target(const WriteTarget& target) {
    if (target.native) [[likely]]
        return load_native(target.native, target.bytes);
    TlbEntry entry;
    entry.frame = (target.physical & ~u64{0xFFF}) | (target.special ? TlbEntry::special_bit : 0);
    const u64 low = TRY(read_physical(*this, entry, target.linear, target.first));
    if (target.first == target.bytes) [[likely]]
        return low;
    entry.frame = (target.physical2 & ~u64{0xFFF}) | (target.special2 ? TlbEntry::special_bit : 0);
    const u64 high = TRY(read_physical(*this, entry, next_page(target.linear), target.bytes - target.first));
    return low | (high << (8 * target.first));
}

Result<void> Cpu::store_linear(u64 linear, unsigned bytes, u64 value, bool implicit) {
    return commit(TRY(prepare_linear(linear, bytes, implicit)), value);
}

Result<void> Cpu::check_linear(u64 linear, unsigned bytes, AccessType type, bool implicit) {
    const Access access{type, privilege_of(*this, implicit)};
    for (u64 done = 0; done < bytes;) {
        const TlbEntry& entry = *TRY(mmu.lookup(Linear{linear}, access));
        // Sub-pages of 128 bytes have their own permission where no write is cached.
        const bool sub_pages = access.write() && !entry.writable();
        const u64 chunk = sub_pages ? 128 - (linear & 127) : page_size - (linear & 0xFFF);
        done += chunk;
        linear = ((linear + chunk) & 0xFFF) == 0 ? next_page(linear) : linear + chunk;
    }
    return {};
}

Result<void> Cpu::load_linear_bytes(u64 linear, void* to, unsigned bytes, bool implicit) {
    TRY(check_linear(linear, bytes, AccessType::read, implicit));
    auto* out = static_cast<u8*>(to);
    while (bytes > 0) {
        const unsigned page_room = static_cast<unsigned>(page_size - (linear & 0xFFF));
        unsigned chunk = bytes < 8 ? bytes : 8;
        if (chunk > page_room) chunk = page_room;
        const TlbEntry& entry = *TRY(mmu.lookup(Linear{linear}, {AccessType::read, privilege_of(*this, implicit)}));
        const u64 value = TRY(read_physical(*this, entry, linear, chunk));
        for (unsigned i = 0; i < chunk; ++i) *out++ = static_cast<u8>(value >> (8 * i));
        note_data_breakpoint(linear, chunk, false);
        linear = chunk == page_room ? next_page(linear) : linear + chunk;
        bytes -= chunk;
    }
    return {};
}

Result<void> Cpu::store_linear_bytes(u64 linear, const void* from, unsigned bytes, bool implicit) {
    TRY(check_linear(linear, bytes, AccessType::write, implicit));
    const Privilege privilege = privilege_of(*this, implicit);
    if (must_retry(*this)) {  // before anything is written: would any part have to end the block?
        unsigned left = bytes;
        for (u64 at = linear; left > 0; at = next_page(at)) {
            const TlbEntry& e = *TRY(mmu.lookup(Linear{at}, {AccessType::write, privilege}));
            const unsigned room = static_cast<unsigned>(page_size - (at & 0xFFF));
            const unsigned here = left < room ? left : room;
            if (ends_block(*this, Physical{e.physical() + (at & 0xFFF)}, here, e.special()))
                return stopped(Stop::Kind::retry);
            left -= here;
        }
    }
    const auto* in = static_cast<const u8*>(from);
    while (bytes > 0) {
        const unsigned page_room = static_cast<unsigned>(page_size - (linear & 0xFFF));
        unsigned chunk = bytes < 8 ? bytes : 8;
        if (chunk > page_room) chunk = page_room;
        u64 value = 0;
        for (unsigned i = 0; i < chunk; ++i) value |= u64{*in++} << (8 * i);
        TRY(commit(TRY(translate_write(linear, chunk, privilege)), value));
        linear = chunk == page_room ? next_page(linear) : linear + chunk;
        bytes -= chunk;
    }
    return {};
}

// ---- Segmented -------------------------------------------------------------------------------------------------

Result<u64> Cpu::load(Seg where, u64 offset, unsigned bytes) {
    const u64 address = TRY(linear(where, offset, bytes, AccessType::read));
    return load_linear(address, bytes);
}

Result<WriteTarget> Cpu::prepare_write(Seg where, u64 offset, unsigned bytes) {
    const u64 address = TRY(linear(where, offset, bytes, AccessType::write));
    return prepare_linear(address, bytes, false);
}

Result<void> Cpu::store(Seg where, u64 offset, unsigned bytes, u64 value) {
    return commit(TRY(prepare_write(where, offset, bytes)), value);
}

Result<void> Cpu::load_bytes(Seg where, u64 offset, void* to, unsigned bytes) {
    const u64 address = TRY(linear(where, offset, bytes, AccessType::read));
    return load_linear_bytes(address, to, bytes);
}

Result<void> Cpu::store_bytes(Seg where, u64 offset, const void* from, unsigned bytes) {
    const u64 address = TRY(linear(where, offset, bytes, AccessType::write));
    return store_linear_bytes(address, from, bytes);
}

// ---- Stack and near transfers ------------------------------------------------------------------------------------

namespace {
u64 stack_mask(const Cpu& cpu) { return low_mask(8 * cpu.stack_bytes()); }
}  // namespace

void Cpu::add_rsp(i64 bytes) {
    const u64 mask = stack_mask(*this);
    const u64 moved = (r[RSP] + static_cast<u64>(bytes)) & mask;
    // With a 16-bit stack the upper bits of ESP stay; with a 32-bit one the upper half of RSP is not reachable.
    r[RSP] = mask == 0xFFFF ? (r[RSP] & ~mask) | moved : moved;
}

Result<void> Cpu::push(u64 value, unsigned bytes) {
    const u64 offset = (r[RSP] - bytes) & stack_mask(*this);
    TRY(store(Seg::SS, offset, bytes, value));
    add_rsp(-static_cast<i64>(bytes));
    return {};
}

Result<u64> Cpu::peek_stack(unsigned offset, unsigned bytes) {
    return load(Seg::SS, (r[RSP] + offset) & stack_mask(*this), bytes);
}

Result<u64> Cpu::pop(unsigned bytes) {
    const u64 value = TRY(peek_stack(0, bytes));
    add_rsp(bytes);
    return value;
}

Result<void> Cpu::jump_near(u64 target, unsigned bytes) {
    target &= low_mask(8 * bytes);
    if (code64()) {
        if (!canonical(target)) return general_protection(0);
    } else if (target > seg(Seg::CS).limit) {
        return general_protection(0);
    }
    next_rip = target;
    return {};
}

}  // namespace exeunt
