#include "mmu/npt.hpp"

#include "mmu/paging_formats.hpp"

namespace exeunt {

namespace {

constexpr u64 entry_present = bit(0), entry_writable = bit(1), entry_user = bit(2), entry_accessed = bit(5),
              entry_dirty = bit(6), entry_page_size = bit(7), entry_no_execute = bit(63);

/// What one walk gathered: the entries, and the rights that all of them give.
struct Walk {
    struct Step {
        Physical where;
        u64 entry = 0;
        bool flags = true; ///< has accessed and dirty bits (PAE's first level has none)
    };
    Step step[5];
    unsigned steps = 0;
    bool writable = true, user = true, no_execute = false;
};

/// Bits that must be 0 in this entry.
u64 reserved_bits(const PagingFormat& format, const PagingLevel& level, u64 entry, bool large, bool nx,
                  unsigned physical_bits) {
    u64 reserved = 0;
    if (format.entry_bytes == 8) {
        reserved = low_mask(52) & ~low_mask(physical_bits);
        if (!nx) reserved |= entry_no_execute;
    }
    if (format.pae) reserved |= extract(~u64{0}, 62, 52) << 52;
    if (level.in_registers) reserved |= entry_no_execute | 0x1E6;
    if ((entry & entry_page_size) && !large && level.page_size_reserved) reserved |= entry_page_size;
    if (large) reserved |= level.large_reserved(physical_bits);
    return reserved;
}

} // namespace

/// APM 2 15.25.6 "Nested versus Guest Page Faults": every access is a user's at the nested level, and those
/// to a guest's tables are writes.
Stop Npt::refuse(GuestPhysical address, const SecondLevelAccess& access, u64 cause) {
    if (access.probe && !access.log) return stopped(Stop::Kind::second_level);
    u64 error = cause | PFEC::U;
    if (access.paging_structure) {
        error |= NPF::guest_tables;
        if (writes(access)) error |= PFEC::W;
    } else {
        error |= NPF::final_address;
        if (access.type == AccessType::write) error |= PFEC::W;
        const bool reports_fetch = (host_.efer & EFER::NXE) && (host_.cr4 & CR4::PAE);
        if (access.type == AccessType::execute && reports_fetch) error |= PFEC::I;
        if (access.type == AccessType::execute && execute_trap_ && !access.user) error &= ~u64{PFEC::U};
    }
    fault_ = {error, address.value};
    return stopped(Stop::Kind::second_level);
}

bool Npt::writes(const SecondLevelAccess& access) const {
    return access.type == AccessType::write || (access.paging_structure && !read_only_tables_);
}

Result<SecondLevelPage> Npt::translate(GuestPhysical address, const SecondLevelAccess& access) {
    const PagingFormat& format = paging_format(host_);
    const u64 frame_mask = format.entry_bytes == 4 ? 0xFFFF'F000 : low_mask(physical_bits_) & ~u64{0xFFF};
    const bool nx = host_.efer & EFER::NXE;
    const bool write = writes(access);
    const bool execute = access.type == AccessType::execute && !access.paging_structure;
    if (access.log) access.log->begin(address);
    // Beyond what the format can translate, nothing is mapped.
    if (address.value >> (format.level[0].high_bit + 1)) return refuse(address, access, 0);
    Walk walk;
    u64 table = host_.cr3 & (format.pae ? 0xFFFF'FFE0 : frame_mask);
    for (unsigned i = 0; i < format.levels; ++i) {
        const PagingLevel& level = format.level[i];
        const Physical where{table +
                             extract(address.value, level.high_bit, level.low_bit) * format.entry_bytes};
        const u64 entry = format.entry_bytes == 8 ? memory_.load<u64>(where) : memory_.load<u32>(where);
        if (access.log)
            access.log->step({.second_level = true,
                              .level = format.levels - i,
                              .bytes = format.entry_bytes,
                              .where = where,
                              .at = {},
                              .entry = entry});
        if (!(entry & entry_present)) return refuse(address, access, 0);
        const bool large = (entry & entry_page_size) && level.large_page_if(host_.cr4, gigabyte_pages_);
        if (entry & reserved_bits(format, level, entry, large, nx, physical_bits_))
            return refuse(address, access, PFEC::P | PFEC::RSVD);
        walk.step[walk.steps++] = {where, entry, !level.in_registers};
        if (!level.in_registers) {
            walk.writable &= (entry & entry_writable) != 0;
            walk.user &= (entry & entry_user) != 0;
            walk.no_execute |= nx && (entry & entry_no_execute);
        }
        if (!large && level.low_bit != 12) {
            table = entry & frame_mask;
            continue;
        }
        const bool user_refused = execute_trap_ ? execute && walk.user && !access.user : !walk.user;
        if (user_refused || (write && !walk.writable) || (execute && walk.no_execute))
            return refuse(address, access, PFEC::P);
        for (unsigned n = 0; n < walk.steps && !access.probe; ++n) {
            Walk::Step& step = walk.step[n];
            const u64 flags =
                !step.flags ? 0 : entry_accessed | (write && n + 1 == walk.steps ? entry_dirty : 0);
            if ((step.entry & flags) == flags) continue;
            step.entry |= flags;
            if (format.entry_bytes == 8) {
                memory_.store<u64>(step.where, step.entry);
            } else {
                memory_.store<u32>(step.where, low32(step.entry));
            }
        }
        const u64 last = walk.step[walk.steps - 1].entry;
        SecondLevelPage page;
        page.bytes = u64{1} << level.low_bit;
        const u64 frame = format.entry_bytes == 4 && large
                              ? (last & 0xFFC0'0000) | (extract(last, 20, 13) << 32) // PSE36
                              : last & frame_mask & ~(page.bytes - 1);
        page.physical = Physical{frame | (address.value & (page.bytes - 1))};
        page.write = walk.writable && (last & entry_dirty);
        page.execute = !walk.no_execute && !(execute_trap_ && walk.user && !access.user);
        const bool final = !access.paging_structure;
        if (special_ && final && GuestPhysical{address.value & ~u64{0xFFF}} == special_page_) [[unlikely]] {
            page.physical = Physical{special_instead_.value | (address.value & 0xFFF)};
            page.bytes = page_size;
            page.special = true;
        }
        return page;
    }
    return refuse(address, access, 0); // not reached: the last level always ends
}

} // namespace exeunt
