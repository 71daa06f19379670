#include "mmu/mmu.hpp"

#include <algorithm>

namespace exeunt {

namespace {
/// Contexts that stay alive. Linux uses six PCIDs, twice with page-table isolation, on either side of a VM entry.
constexpr std::size_t max_contexts = 24;
}  // namespace

Mmu::Mmu(PhysicalMemory& memory, const ControlRegisters& control) : memory_(memory), control_(control) {
    select(TlbKey{});
}

void Mmu::select(const TlbKey& key) {
    if (current_ && current_->key == key) return;
    auto found = std::find_if(contexts_.begin(), contexts_.end(), [&](const auto& c) { return c->key == key; });
    if (found == contexts_.end()) {
        if (contexts_.size() < max_contexts) {
            contexts_.push_back(std::make_unique<TlbContext>());
            found = contexts_.end() - 1;
        } else {
            found = std::min_element(contexts_.begin(), contexts_.end(),
                                     [](const auto& a, const auto& b) { return a->last_used < b->last_used; });
        }
        (*found)->key = key;
        flush(**found);
    }
    current_ = found->get();
    current_->last_used = ++uses_;
    set_privilege(privilege_);
}

void Mmu::flush(TlbContext& context) {
    for (TlbPart& part : context.parts) part.flush(next_epoch());
    context.large_first = ~u64{0};
    context.large_last = 0;
}

template <class Visit>
void Mmu::for_contexts(Visit visit) {
    for (auto& context : contexts_) visit(*context);
}

void Mmu::flush_all() {
    for_contexts([&](TlbContext& c) { flush(c); });
}
void Mmu::flush_current() { flush(*current_); }
void Mmu::flush_world(u32 world) {
    for_contexts([&](TlbContext& c) {
        if (c.key.world == world) flush(c);
    });
}
void Mmu::flush_pcid(u32 world, u16 pcid) {
    for_contexts([&](TlbContext& c) {
        if (c.key.world == world && c.key.pcid == pcid) flush(c);
    });
}
void Mmu::flush_second_level(u64 root) {
    for_contexts([&](TlbContext& c) {
        if (c.key.second_level_root == root) flush(c);
    });
}
void Mmu::flush_second_level_all() {
    for_contexts([&](TlbContext& c) {
        if (c.key.second_level_root != 0) flush(c);
    });
}

void Mmu::drop_page(Linear linear) { drop_page(linear, current_->key.world); }

void Mmu::drop_page(Linear linear, u32 world) {
    for_contexts([&](TlbContext& c) {
        if (c.key.world != world) return;
        if (linear.value >= c.large_first && linear.value <= c.large_last) {
            flush(c);
        } else {
            for (TlbPart& part : c.parts) part.drop(linear.value, next_epoch());
        }
    });
}

void Mmu::forget_writes() {
    for_contexts([](TlbContext& c) {
        for (TlbPart& part : c.parts) part.forget_writes();
    });
}

void Mmu::renew_epochs() {
    for_contexts([this](TlbContext& c) {
        for (TlbPart& part : c.parts) part.epoch = next_epoch();
    });
}

void Mmu::watch_pages(std::vector<u64> linear_pages) {
    watched_ = std::move(linear_pages);
    flush_all();
}

void Mmu::note_large(Linear linear, u64 bytes) {
    if (bytes <= page_size) return;
    const u64 first = linear.value & ~(bytes - 1);
    current_->large_first = std::min(current_->large_first, first);
    current_->large_last = std::max(current_->large_last, first + bytes - 1);
}

Result<TlbEntry*> Mmu::lookup(Linear linear, Access access) {
    TlbPart& part = this->part(access.privilege);
    TlbEntry& e = part.entry(linear.value);
    const u64 tag = part.tag_of(linear.value);
    if (e.holds(tag) && (!access.write() || e.writable())) {
        // The page may have lost its decoded code meanwhile: writes may go straight again.
        if (access.write() && e.read_tag == tag && memory_.native_for_write(Physical{e.physical()}))
            e.write_tag = part.write_tag_of(linear.value);
        return &e;
    }

    const Translation t = TRY(walk(linear, access));
    note_large(linear, t.bytes);
    const Physical page = t.physical.page();
    const bool watched = std::find(watched_.begin(), watched_.end(), linear.page().value) != watched_.end();
    e.read_tag = tag | TlbEntry::slow;
    e.write_tag = TlbEntry::empty;
    e.frame = page.value | (t.write ? TlbEntry::writable_bit : 0) | (t.special ? TlbEntry::special_bit : 0);
    u8* native = memory_.native(page);
    if (native && !watched && !t.special && direct_) {
        e.addend = reinterpret_cast<std::uintptr_t>(native) - linear.page().value;
        if (t.read) e.read_tag = tag;
        if (t.write && memory_.native_for_write(page)) e.write_tag = part.write_tag_of(linear.value);
    }
    return &e;
}

Result<Physical> Mmu::lookup_fetch(Linear linear, Privilege privilege) {
    TlbPart& part = this->part(privilege);
    FetchEntry& f = part.fetch_entry(linear.value);
    const u64 tag = part.tag_of(linear.value);
    if (f.tag != tag) {
        const Translation t = TRY(walk(linear, {AccessType::execute, privilege}));
        note_large(linear, t.bytes);
        f.tag = tag;
        f.physical = t.physical.page().value;
    }
    return Physical{f.physical + linear.page_offset()};
}

}  // namespace exeunt
