// The walk of the paging structures: 32-bit (with PSE36), PAE, 4-level and 5-level. SDM 3A ch. 4 "Paging".
#include "mmu/mmu.hpp"

#include "mmu/paging_formats.hpp"

#include <algorithm>

namespace exeunt {

/// One walk under way: what is asked, what was gathered from the entries so far.
struct Mmu::Walk {
    Linear linear;
    Access access;
    bool side_effects = true;  ///< set accessed and dirty flags
    WalkLog* log = nullptr;    ///< an explanation; it has no side effects
    // Rights combined over all levels.
    bool writable = true, user = true, execute_disable = false;
};

namespace {

constexpr u64 entry_present = bit(0), entry_writable = bit(1), entry_user = bit(2), entry_accessed = bit(5),
              entry_dirty = bit(6), entry_page_size = bit(7), entry_execute_disable = bit(63);

/// The error code of a page fault. SDM 3A 4.7 "Page-Fault Exceptions".
u32 error_code(const ControlRegisters& control, Access access, u32 cause) {
    u32 code = cause;
    if (access.write()) code |= PFEC::W;
    if (access.user()) code |= PFEC::U;
    const bool reports_fetch = (control.cr4 & CR4::SMEP) || ((control.cr4 & CR4::PAE) && (control.efer & EFER::NXE));
    if (access.execute() && reports_fetch) code |= PFEC::I;
    return code;
}

}  // namespace

Result<u64> Mmu::read_entry(Walk& walk, u64 address, unsigned bytes, Physical& where) {
    where = Physical{address};
    if (second_level_) {
        const SecondLevelAccess access{.type = AccessType::read, .user = true, .linear_valid = true,
                                       .linear = walk.linear.value, .paging_structure = true,
                                       .probe = !walk.side_effects, .log = walk.log};
        where = TRY(second_level_->translate(GuestPhysical{address}, access)).physical;
    }
    return bytes == 8 ? memory_.load<u64>(where) : memory_.load<u32>(where);
}

Result<void> Mmu::set_entry_bits(Walk& walk, u64 address, unsigned bytes, Physical where, u64 entry, u64 bits) {
    if ((entry & bits) == bits || (!walk.side_effects && !walk.log)) return {};
    if (second_level_) {
        const SecondLevelAccess access{.type = AccessType::write, .user = true, .linear_valid = true,
                                       .linear = walk.linear.value, .paging_structure = true,
                                       .probe = !walk.side_effects, .log = walk.log};
        where = TRY(second_level_->translate(GuestPhysical{address}, access)).physical;
    }
    if (!walk.side_effects) return {};
    if (bytes == 8) {
        memory_.store<u64>(where, entry | bits);
    } else {
        memory_.store<u32>(where, static_cast<u32>(entry | bits));
    }
    return {};
}

/// SDM 3A 4.6.1 "Determination of Access Rights", 4.6.2 "Protection Keys". 0 when allowed, else the cause.
u32 Mmu::denied(const Walk& walk, unsigned protection_key) const {
    if (!(control_.cr0 & CR0::PG)) return 0;
    const Access access = walk.access;
    const bool write_protect = control_.cr0 & CR0::WP;
    if (access.execute()) {
        if (walk.execute_disable) return PFEC::P;
        if (access.user() ? !walk.user : walk.user && (control_.cr4 & CR4::SMEP)) return PFEC::P;
        return 0;
    }
    if (access.user()) {
        if (!walk.user || (access.write() && !walk.writable)) return PFEC::P;
    } else {
        if (walk.user && access.privilege == Privilege::supervisor && (control_.cr4 & CR4::SMAP)) return PFEC::P;
        if (access.write() && !walk.writable && write_protect) return PFEC::P;
    }
    if (!(control_.efer & EFER::LMA)) return 0;
    const bool keys = control_.cr4 & (walk.user ? CR4::PKE : CR4::PKS);
    if (keys) {
        const u32 rights = (walk.user ? control_.pkru : control_.pkrs) >> (2 * protection_key);
        const bool access_disable = rights & 1, write_disable = rights & 2;
        if (access_disable) return PFEC::P | PFEC::PK;
        if (access.write() && write_disable && (access.user() || write_protect)) return PFEC::P | PFEC::PK;
    }
    return 0;
}

Result<Translation> Mmu::finish(Walk& walk, u64 physical, u64 bytes, bool dirty, unsigned protection_key) {
    Translation t;
    t.physical = Physical{physical};
    t.bytes = bytes;
    SecondLevelPage page;
    if (second_level_) {
        const SecondLevelAccess access{.type = walk.access.type, .user = walk.access.user(), .linear_valid = true,
                                       .linear = walk.linear.value, .paging_structure = false,
                                       .supervisor_page = !walk.user, .writable_page = walk.writable,
                                       .execute_disable_page = walk.execute_disable,
                                       .probe = !walk.side_effects, .log = walk.log};
        page = TRY(second_level_->translate(GuestPhysical{physical}, access));
        t.physical = page.physical;
        t.bytes = std::min(bytes, page.bytes);
        t.special = page.special;
    }
    Walk other = walk;
    other.access.type = AccessType::read;
    t.read = denied(other, protection_key) == 0 && page.read;
    other.access.type = AccessType::write;
    t.write = dirty && denied(other, protection_key) == 0 && page.write;
    other.access.type = AccessType::execute;
    t.execute = denied(other, protection_key) == 0 && page.execute;
    return t;
}

Result<Translation> Mmu::walk_structures(Walk& walk) {
    const u64 linear = walk.linear.value;
    if (!(control_.cr0 & CR0::PG)) return finish(walk, linear, page_size << 9, true, 0);

    const PagingFormat& format = paging_format(control_);
    const u64 address_mask = low_mask(features_.physical_bits) & ~u64{0xFFF};
    const bool nx = control_.efer & EFER::NXE;
    u64 table = control_.cr3 & (format.entry_bytes == 4 ? 0xFFFF'F000 : address_mask);
    for (unsigned i = 0; i < format.levels; ++i) {
        const PagingLevel& level = format.level[i];
        const u64 index = extract(linear, level.high_bit, level.low_bit);
        const u64 address = table + index * format.entry_bytes;
        u64 entry;
        Physical where;
        if (level.in_registers && second_level_ && second_level_->pdptes_in_memory()) {
            entry = TRY(read_entry(walk, (control_.cr3 & 0xFFFF'FFE0) + 8 * index, 8, where));
            const u64 reserved = (~low_mask(features_.physical_bits)) | 0x1E6;
            if ((entry & entry_present) && (entry & reserved))
                return page_fault(error_code(control_, walk.access, PFEC::P | PFEC::RSVD), linear);
        } else if (level.in_registers) {
            entry = control_.pdpte[index];
        } else {
            entry = TRY(read_entry(walk, address, format.entry_bytes, where));
        }
        if (walk.log)
            walk.log->step({.in_register = level.in_registers, .level = format.levels - i, .bytes = format.entry_bytes,
                            .where = where, .at = GuestPhysical{address}, .entry = entry});
        if (!(entry & entry_present)) return page_fault(error_code(control_, walk.access, 0), linear);

        const bool page_size_bit = entry & entry_page_size;
        const bool large = page_size_bit && level.large_page_if(control_.cr4, features_.gigabyte_pages);
        const bool last = large || level.low_bit == 12;
        u64 reserved = format.entry_bytes == 8 ? low_mask(52) & ~low_mask(features_.physical_bits) : 0;
        if (format.entry_bytes == 8 && !nx) reserved |= entry_execute_disable;
        if (format.pae) reserved |= level.in_registers ? 0 : extract(~u64{0}, 62, 52) << 52;
        if (page_size_bit && !large) reserved |= level.page_size_reserved ? entry_page_size : 0;
        if (large) reserved |= level.large_reserved(features_.physical_bits);
        if (level.in_registers) reserved = 0;  // checked when they were loaded
        if (entry & reserved)
            return page_fault(error_code(control_, walk.access, PFEC::P | PFEC::RSVD), linear);

        if (!level.in_registers) {
            walk.writable &= (entry & entry_writable) != 0;
            walk.user &= (entry & entry_user) != 0;
            walk.execute_disable |= nx && format.entry_bytes == 8 && (entry & entry_execute_disable);
        }
        if (!last) {
            if (!level.in_registers)
                TRY(set_entry_bits(walk, address, format.entry_bytes, where, entry, entry_accessed));
            table = entry & (format.entry_bytes == 4 ? 0xFFFF'F000 : address_mask);
            continue;
        }

        const unsigned key = static_cast<unsigned>(extract(entry, 62, 59));
        if (const u32 cause = denied(walk, key)) return page_fault(error_code(control_, walk.access, cause), linear);
        const u64 bits = entry_accessed | (walk.access.write() ? entry_dirty : 0);
        TRY(set_entry_bits(walk, address, format.entry_bytes, where, entry, bits));
        const u64 bytes = u64{1} << level.low_bit;
        const u64 frame = format.entry_bytes == 4 && large
                              ? (entry & 0xFFC0'0000) | (extract(entry, 20, 13) << 32)  // PSE36
                              : entry & address_mask & ~(bytes - 1);
        return finish(walk, frame | (linear & (bytes - 1)), bytes, ((entry | bits) & entry_dirty) != 0, key);
    }
    return page_fault(error_code(control_, walk.access, 0), linear);  // not reached: the last level always ends
}

Result<Translation> Mmu::walk(Linear linear, Access access) {
    Walk walk{.linear = linear, .access = access};
    return walk_structures(walk);
}

Result<Translation> Mmu::explain(Linear linear, Access access, WalkLog& log) {
    Walk walk{.linear = linear, .access = access, .side_effects = false, .log = &log};
    return walk_structures(walk);
}

bool Mmu::probe(Linear linear, Physical& physical) {
    // A debugger's look: as a supervisor that SMAP does not hold back, and nothing is marked accessed.
    Walk walk{.linear = linear, .access = {AccessType::read, Privilege::supervisor_smap_off}, .side_effects = false};
    auto translation = walk_structures(walk);
    if (translation.ok()) physical = translation.value().physical;
    return translation.ok();
}

}  // namespace exeunt
