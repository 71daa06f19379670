#include "mmu/ept.hpp"

namespace exeunt {

namespace {

/// Bits of EPT paging-structure entries. SDM 3C Tables 28-1 to 28-6.
constexpr u64 entry_read = bit(0), entry_write = bit(1), entry_execute = bit(2), entry_page = bit(7),
              entry_accessed = bit(8), entry_dirty = bit(9), entry_user_execute = bit(10),
              entry_sub_pages = bit(61), entry_suppress_ve = bit(63);
constexpr u64 rights_mask = entry_read | entry_write | entry_execute;

constexpr bool is_write(const SecondLevelAccess& access) { return access.type == AccessType::write; }

/// Level 1 holds 4-KByte pages, 2 the page directory, 3 the page-directory-pointer table, 4 and 5 what is
/// above.
constexpr unsigned shift_of(unsigned level) { return 12 + 9 * (level - 1); }

} // namespace

Stop Ept::refuse(EptFault::Kind kind, GuestPhysical address, const SecondLevelAccess& access,
                 u64 qualification) {
    if (!access.probe || access.log)
        fault_ = {kind, qualification, address.value, access.linear_valid ? access.linear : 0, {}};
    return stopped(Stop::Kind::second_level);
}

u64 Ept::presence() const { return rights_mask | (mode_based_execute_ ? entry_user_execute : 0); }

u64 Ept::execute_right(const SecondLevelAccess& access) const {
    return mode_based_execute_ && !access.supervisor_page ? entry_user_execute : entry_execute;
}

/// SDM 3C 28.2.3.1 "EPT Misconfigurations": what is wrong with an entry, or nothing.
std::string_view Ept::misconfiguration(u64 entry, unsigned level, bool leaf) const {
    if (!(entry & entry_read)) {
        if (entry & entry_write) return "write permission without read permission";
        if ((entry & presence()) && !features_.execute_only)
            return "execute permission only, which this processor does not support";
    }
    constexpr std::string_view reserved_set = "a reserved bit set";
    u64 reserved = low_mask(52) & ~low_mask(features_.physical_bits);
    if (!leaf) {
        // Bit 7 of a PDPTE or PDE that is no page is 0 already; where pages of that size do not exist it is
        // reserved.
        reserved |= level >= 4 ? extract(~u64{0}, 7, 3) << 3 : extract(~u64{0}, 6, 3) << 3;
        if (level == 3 && !features_.pages_1g) reserved |= entry_page;
        if (level == 2 && !features_.pages_2m) reserved |= entry_page;
        return entry & reserved ? reserved_set : std::string_view{};
    }
    if (level > 1) reserved |= low_mask(shift_of(level)) & ~u64{0xFFF};
    const u64 memory_type = extract(entry, 5, 3);
    if (entry & reserved) return reserved_set;
    if (memory_type == 2 || memory_type == 3 || memory_type == 7) return "a reserved memory type";
    return {};
}

/// SDM 3C Table 27-7 "Exit Qualification for EPT Violations".
u64 Ept::qualification(const SecondLevelAccess& access, const Walk& walk, bool present) const {
    u64 q = access.type == AccessType::execute ? bit(2) : is_write(access) ? bit(1) : bit(0);
    // With accessed and dirty flags on, the processor's accesses to guest paging structures are treated as
    // writes.
    if (walk.accessed_dirty && access.paging_structure) q = bit(0) | bit(1);
    if (present) {
        q |= (walk.rights & rights_mask) << 3;
        if (mode_based_execute_ && (walk.rights & entry_user_execute)) q |= bit(6);
    }
    if (access.linear_valid) {
        q |= bit(7);
        if (!access.paging_structure) {
            q |= bit(8);
            if (features_.advanced_information) {
                if (!access.supervisor_page) q |= bit(9);
                if (access.writable_page) q |= bit(10);
                if (access.execute_disable_page) q |= bit(11);
            }
        }
    }
    return q;
}

/// Walks to the entry that maps a page. False: an entry was not present.
Result<bool> Ept::find_leaf(Walk& walk, const SecondLevelAccess& access) {
    u64 table = eptp_ & low_mask(features_.physical_bits) & ~u64{0xFFF};
    for (unsigned level = static_cast<unsigned>(extract(eptp_, 5, 3)) + 1; level >= 1; --level) {
        const unsigned shift = shift_of(level);
        const Physical where{table + extract(walk.address.value, shift + 8, shift) * 8};
        const u64 entry = memory_.load<u64>(where);
        walk.where[walk.entries] = where;
        walk.entry[walk.entries++] = entry;
        if (access.log)
            access.log->step(
                {.second_level = true, .level = level, .where = where, .at = {}, .entry = entry});
        if ((entry & presence()) == 0) return false;
        const bool large = (entry & entry_page) &&
                           ((level == 2 && features_.pages_2m) || (level == 3 && features_.pages_1g));
        const bool leaf = level == 1 || large;
        if (const std::string_view cause = misconfiguration(entry, level, leaf); !cause.empty()) {
            const Stop stop = refuse(EptFault::Kind::misconfiguration, walk.address, access, 0);
            fault_.cause = cause;
            return stop;
        }
        walk.rights &= entry;
        if (leaf) {
            walk.page_bytes = u64{1} << shift;
            return true;
        }
        table = entry & low_mask(features_.physical_bits) & ~u64{0xFFF};
    }
    return true; // not reached: level 1 is a leaf
}

/// SDM 3C 28.2.4 "Accessed and Dirty Flags for EPT", 28.2.5: with the log full nothing is changed.
Result<void> Ept::set_flags(Walk& walk, const SecondLevelAccess& access, bool write) {
    const unsigned leaf = walk.entries - 1;
    const bool sets_dirty = write && !(walk.entry[leaf] & entry_dirty);
    bool sets_any = sets_dirty;
    for (unsigned i = 0; i < walk.entries; ++i) sets_any |= !(walk.entry[i] & entry_accessed);
    if (!sets_any || access.probe) return {};
    if (log_ && sets_dirty && log_->full()) return refuse(EptFault::Kind::log_full, walk.address, access, 0);
    for (unsigned i = 0; i < walk.entries; ++i) {
        const u64 flags = entry_accessed | (i == leaf && write ? entry_dirty : 0);
        if ((walk.entry[i] & flags) != flags) memory_.store<u64>(walk.where[i], walk.entry[i] |= flags);
    }
    if (log_ && sets_dirty) log_->add(walk.address.page());
    return {};
}

/// "Write Accesses That Are Eligible for Sub-Page Write Permissions" (later editions, 28.3.4.1): to a 4-KByte
/// page whose entry alone withholds the right, and says that sub-pages decide.
bool Ept::eligible_for_sub_pages(const Walk& walk, const SecondLevelAccess& access) const {
    if (!sub_page_table_ || !is_write(access) || access.paging_structure || !access.linear_valid)
        return false;
    if (walk.page_bytes != page_size || !(walk.rights & entry_read)) return false;
    for (unsigned i = 0; i + 1 < walk.entries; ++i)
        if (!(walk.entry[i] & entry_write)) return false;
    return walk.entry[walk.entries - 1] & entry_sub_pages;
}

/// "Determining an Access's Sub-Page Write Permission" (28.3.4.2): a bit of 64 for each 128 bytes, the odd
/// ones reserved, in a table of four levels.
Result<bool> Ept::sub_page_writable(GuestPhysical address, const SecondLevelAccess& access) {
    constexpr u64 valid = bit(0), miss = bit(11), odd_bits = 0xAAAA'AAAA'AAAA'AAAA;
    const u64 address_bits = low_mask(features_.physical_bits) & ~u64{0xFFF};
    Physical table = *sub_page_table_;
    for (unsigned level = 4; level > 1; --level) {
        const unsigned shift = shift_of(level);
        const u64 entry = memory_.load<u64>(table + extract(address.value, shift + 8, shift) * 8);
        if (!(entry & valid)) return refuse(EptFault::Kind::sub_page_event, address, access, miss);
        if (entry & ~(address_bits | valid))
            return refuse(EptFault::Kind::sub_page_event, address, access, 0);
        table = Physical{entry & address_bits};
    }
    const u64 permissions = memory_.load<u64>(table + extract(address.value, 20, 12) * 8);
    if (permissions & odd_bits) return refuse(EptFault::Kind::sub_page_event, address, access, 0);
    return test_bit(permissions, static_cast<unsigned>(2 * extract(address.value, 11, 7)));
}

Result<SecondLevelPage> Ept::translate(GuestPhysical address, const SecondLevelAccess& access) {
    Walk walk;
    walk.address = address;
    if (access.log) access.log->begin(address);
    walk.accessed_dirty = eptp_ & EPTP::accessed_dirty;
    const bool present = TRY(find_leaf(walk, access));
    const bool write = is_write(access) || (walk.accessed_dirty && access.paging_structure);
    const u64 needed = access.type == AccessType::execute ? execute_right(access)
                       : write                            ? entry_write | (is_write(access) ? 0 : entry_read)
                                                          : entry_read;
    bool allowed = present && (walk.rights & needed) == needed;
    // Such a page is never cached as writable: every write asks again.
    if (!allowed && present && eligible_for_sub_pages(walk, access))
        allowed = TRY(sub_page_writable(address, access));
    if (!allowed) {
        const Stop stop =
            refuse(EptFault::Kind::violation, address, access, qualification(access, walk, present));
        if (!access.probe) fault_.convertible = !(walk.entry[walk.entries - 1] & entry_suppress_ve);
        return stop;
    }
    if (walk.accessed_dirty) TRY(set_flags(walk, access, write));

    const u64 leaf = walk.entry[walk.entries - 1];
    SecondLevelPage page;
    page.bytes = walk.page_bytes;
    const u64 frame = leaf & low_mask(features_.physical_bits) & ~(walk.page_bytes - 1);
    page.physical = Physical{frame | (address.value & (walk.page_bytes - 1))};
    page.read = walk.rights & entry_read;
    page.write = (walk.rights & entry_write) && (!walk.accessed_dirty || (leaf & entry_dirty));
    page.execute = walk.rights & execute_right(access);
    return page;
}

} // namespace exeunt
