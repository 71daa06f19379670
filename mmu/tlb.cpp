#include "mmu/tlb.hpp"

namespace exeunt {

void TlbPart::forget_writes() {
    if (++write_generation < 0xFFF) return;
    write_generation = 0;
    for (TlbEntry& entry : data) entry.write_tag = TlbEntry::empty;
}

void TlbPart::flush(u64 new_epoch) {
    epoch = new_epoch;
    forget_writes();
    // A new generation makes every tag stale at once; only when generations run out are the entries touched.
    if (++generation < 0xFFF) return;
    generation = 0;
    for (TlbEntry& entry : data) entry.read_tag = entry.write_tag = entry.tag = TlbEntry::empty;
    for (FetchEntry& entry : fetch) entry.tag = TlbEntry::empty;
}

void TlbPart::drop(u64 linear, u64 new_epoch) {
    TlbEntry& e = entry(linear);
    e.read_tag = e.write_tag = e.tag = TlbEntry::empty;
    FetchEntry& f = fetch_entry(linear);
    if (f.tag != TlbEntry::empty) {
        f.tag = TlbEntry::empty;
        epoch = new_epoch;
    }
}

}  // namespace exeunt
