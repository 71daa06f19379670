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

/// One cached translation of a 4-KByte page: 32 bytes, so that many fit the native caches. A tag is the linear page
/// number shifted left by 12, plus the generation of its part in the low bits; `empty` matches nothing.
struct TlbEntry {
    static constexpr u64 empty = ~u64{0};
    static constexpr u64 slow = 0x800;             ///< in `read_tag`: valid, but reads must not go straight
    static constexpr u64 last_generation = 0x7FE;  ///< generations never reach the bit `slow`, nor `empty`
    static constexpr u64 writable_bit = 1, special_bit = 2;

    u64 read_tag = empty;    ///< matches: a read may go straight to `addend` + linear
    u64 write_tag = empty;   ///< matches: a write may, too
    std::uintptr_t addend = 0;
    u64 frame = 0;           ///< physical page and the two bits above

    /// Whether the entry translates the page of `tag` (perhaps to MMIO, or to a watched page).
    bool holds(u64 tag) const { return (read_tag & ~slow) == tag; }
    u64 physical() const { return frame & ~u64{0xFFF}; }
    bool writable() const { return frame & writable_bit; }  ///< a write is allowed and the dirty flag is set
    bool special() const { return frame & special_bit; }    ///< see SecondLevelPage
    void clear() { read_tag = write_tag = empty; }
};
static_assert(sizeof(TlbEntry) == 32);

struct FetchEntry {
    u64 tag = TlbEntry::empty;
    u64 physical = 0;
};

/// The translations of one context for one privilege.
struct TlbPart {
    static constexpr unsigned data_entries = 16384;
    static constexpr unsigned fetch_entries = 512;

    u64 generation = 0;        ///< 0 to last_generation; part of every tag but `write_tag`
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
