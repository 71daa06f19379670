// Cached translations. A context holds what the manual tags together (VMX root or VPID and EPTP, ASID and nested
// CR3, PCID); several are alive at once, so that a VM entry or exit switches a pointer and flushes nothing.
// SDM 3A 4.10 "Caching Translation Information", SDM 3C 28.3.
#pragma once

#include "arch/address.hpp"
#include "mmu/access.hpp"

#include <array>

namespace exeunt {

/// What tags a translation.
struct TlbKey {
    u64 second_level_root = 0;  ///< EPTP or nested CR3; 0 without
    u32 world = 0;              ///< 0: VMX root and SVM host; else 1 + VPID, or 1 + ASID
    u16 pcid = 0;

    constexpr bool operator==(const TlbKey&) const = default;
};

/// One cached translation of a 4-KByte page. A tag is the linear page number shifted left by 12, plus the
/// generation of its part in the low 12 bits; `empty` matches nothing.
struct TlbEntry {
    static constexpr u64 empty = ~u64{0};

    u64 read_tag = empty;    ///< matches: a read may go straight to `addend` + linear
    u64 write_tag = empty;   ///< matches: a write may, too
    std::uintptr_t addend = 0;
    u64 tag = empty;         ///< matches: the fields below are valid (also for MMIO and watched pages)
    u64 physical = 0;        ///< page frame
    bool writable = false;   ///< a write is allowed and the dirty flag is set
    bool special = false;    ///< see SecondLevelPage
};

struct FetchEntry {
    u64 tag = TlbEntry::empty;
    u64 physical = 0;
};

/// The translations of one context for one privilege.
struct TlbPart {
    static constexpr unsigned data_entries = 4096;
    static constexpr unsigned fetch_entries = 512;

    u64 generation = 0;        ///< 0 to FFEH; part of every tag but `write_tag`
    u64 write_generation = 0;  ///< the same for `write_tag`
    u64 epoch = 0;       ///< unique over all parts and time: names this set of translations to chained blocks
    std::array<TlbEntry, data_entries> data{};
    std::array<FetchEntry, fetch_entries> fetch{};

    TlbEntry& entry(u64 linear) { return data[(linear >> 12) % data_entries]; }
    FetchEntry& fetch_entry(u64 linear) { return fetch[(linear >> 12) % fetch_entries]; }
    /// The tag that an access ending at `last_byte` must find.
    u64 tag_of(u64 last_byte) const { return (last_byte & ~u64{0xFFF}) | generation; }
    u64 write_tag_of(u64 last_byte) const { return (last_byte & ~u64{0xFFF}) | write_generation; }

    void flush(u64 new_epoch);
    /// Makes every write take the slow way once; translations stay.
    void forget_writes();
    void drop(u64 linear, u64 new_epoch);
};

struct TlbContext {
    TlbKey key;
    u64 last_used = 0;
    /// The span of linear addresses in which a page larger than 4 KBytes was cached: INVLPG there drops all.
    u64 large_first = ~u64{0}, large_last = 0;
    std::array<TlbPart, 3> parts;  ///< by Privilege
};

}  // namespace exeunt
