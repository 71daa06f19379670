#include "mmu/tlb.hpp"

namespace exeunt {

void TlbPart::forget_writes() {
    if (++write_generation <= TlbEntry::last_generation) return;
    write_generation = 0;
    for (TlbEntry& entry : data) entry.write_tag = TlbEntry::empty;
}

void TlbPart::flush(u64 new_epoch) {
    epoch = new_epoch;
    forget_writes();
    // A new generation makes every tag stale at once; only when generations run out are the entries touched.
    if (++generation <= TlbEntry::last_generation) return;
    generation = 0;
    for (TlbEntry& entry : data) entry.clear();
    for (FetchEntry& entry : fetch) entry.tag = TlbEntry::empty;
}

void TlbPart::drop(u64 linear, u64 new_epoch) {
    entry(linear).clear();
    FetchEntry& f = fetch_entry(linear);
    if (f.tag != TlbEntry::empty) {
        f.tag = TlbEntry::empty;
        epoch = new_epoch;
    }
}

}  // namespace exeunt
