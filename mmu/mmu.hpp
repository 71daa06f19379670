// Translation of linear addresses, cached: the TLB contexts of one logical processor and the walk behind them.
// Loads and stores take the fast way here, inline, and the slow way in cpu/memory.
#pragma once

#include "arch/registers.hpp"
#include "arch/result.hpp"
#include "mmu/physical_memory.hpp"
#include "mmu/second_level.hpp"
#include "mmu/tlb.hpp"

#include <memory>
#include <vector>

namespace exeunt {

/// What the walk found: the physical address and what may be done there.
struct Translation {
    Physical physical;
    u64 bytes = page_size;  ///< size of the smaller of the two pages, first and second level
    bool read = true;
    bool write = false;     ///< allowed, and the dirty flag is set
    bool execute = false;
    bool special = false;
};

/// Facts of the processor model that the walk needs.
struct PagingFeatures {
    unsigned physical_bits = 46;  ///< MAXPHYADDR
    bool gigabyte_pages = true;
};

class Mmu {
public:
    Mmu(PhysicalMemory& memory, const ControlRegisters& control);

    PhysicalMemory& memory() { return memory_; }
    void set_features(PagingFeatures features) { features_ = features; }
    const PagingFeatures& features() const { return features_; }

    /// EPT or nested paging for what follows, or nullptr. Give the matching context with select().
    void set_second_level(SecondLevel* second_level) { second_level_ = second_level; }
    SecondLevel* second_level() const { return second_level_; }

    /// Makes the context of `key` the current one (a new one, empty, when none is alive).
    void select(const TlbKey& key);
    const TlbKey& key() const { return current_->key; }
    /// Makes the part for `privilege` the one that data() uses.
    void set_privilege(Privilege privilege) {
        privilege_ = privilege;
        part_ = &current_->parts[static_cast<unsigned>(privilege)];
    }
    Privilege privilege() const { return privilege_; }
    TlbPart& part() { return *part_; }
    TlbPart& part(Privilege privilege) { return current_->parts[static_cast<unsigned>(privilege)]; }

    /// Walks the paging structures (SDM 3A ch. 4), setting accessed and dirty flags, without looking at the TLB.
    Result<Translation> walk(Linear linear, Access access);
    /// As walk(), without side effects and never stopping: for debuggers. False where nothing is mapped.
    bool probe(Linear linear, Physical& physical);
    /// As walk(), without side effects; `log` is told every entry that was read.
    Result<Translation> explain(Linear linear, Access access, WalkLog& log);

    /// The cached translation, or a walk whose result is cached. `entry` stays valid until the next call.
    Result<TlbEntry*> lookup(Linear linear, Access access);
    /// The physical address of an instruction byte.
    Result<Physical> lookup_fetch(Linear linear, Privilege privilege);

    /// SDM 3A 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches".
    void flush_all();                     ///< every context
    void flush_current();                 ///< the current context
    void flush_world(u32 world);          ///< every context with this `world`
    void flush_pcid(u32 world, u16 pcid);
    void flush_second_level(u64 root);    ///< INVEPT single-context
    void flush_second_level_all();        ///< INVEPT all-context
    void drop_page(Linear linear);        ///< INVLPG: in every PCID of the current world
    void drop_page(Linear linear, u32 world);

    /// A page gained decoded code: stores must look again whether they may go straight to memory.
    void forget_writes();
    /// Every name of a set of translations changes: whatever was found under one must be found again.
    void renew_epochs();
    /// Without direct access every load and store takes the slow way (alignment checks, tests).
    void set_direct(bool direct) {
        if (direct_ != direct) flush_all();
        direct_ = direct;
    }
    /// Pages in which data breakpoints or other watchers need the slow way. Flushes.
    void watch_pages(std::vector<u64> linear_pages);

private:
    struct Walk;
    template <class Visit>
    void for_contexts(Visit visit);
    void flush(TlbContext& context);
    void note_large(Linear linear, u64 bytes);
    Result<Translation> walk_structures(Walk& walk);
    Result<u64> read_entry(Walk& walk, u64 address, unsigned bytes, Physical& where);
    Result<void> set_entry_bits(Walk& walk, u64 address, unsigned bytes, Physical where, u64 entry, u64 bits);
    u32 denied(const Walk& walk, unsigned protection_key) const;
    Result<Translation> finish(Walk& walk, u64 physical, u64 bytes, bool dirty, unsigned protection_key);
    u64 next_epoch() { return ++epochs_; }

    PhysicalMemory& memory_;
    const ControlRegisters& control_;
    PagingFeatures features_;
    SecondLevel* second_level_ = nullptr;
    std::vector<std::unique_ptr<TlbContext>> contexts_;
    TlbContext* current_ = nullptr;
    TlbPart* part_ = nullptr;
    Privilege privilege_ = Privilege::supervisor;
    u64 epochs_ = 0;
    u64 uses_ = 0;
    bool direct_ = true;
    std::vector<u64> watched_;
};

}  // namespace exeunt
