#include "svm/avic.hpp"

#include <algorithm>

namespace exeunt {

namespace {

using AVIC::Behaviour;
using AVIC::Command;
using AVIC::Failure;
using AVIC::Outcome;

constexpr AVIC::RegisterRow rows[] = {
#define AVIC_REGISTER(first, last, name, read, write) {first, last, #name, Behaviour::read, Behaviour::write},
#include "svm/avic_registers.inc"
};

constexpr bool every_offset_has_its_row() {
    unsigned next = 0;
    for (const AVIC::RegisterRow& row : rows) {
        if (row.first != next) return false;
        next = row.last + 0x10u;
    }
    return next == 0x1000;
}
static_assert(every_offset_has_its_row(), "svm/avic_registers.inc has a gap or an overlap");

constexpr u64 page_address = low_mask(52) & ~u64{0xFFF};
/// APIC ID FFH is "all" in xAPIC mode; the table has no entry for it.
constexpr u32 xapic_ids = 0xFF;

Outcome failed(Failure failure, u32 index = 0) {
    return {.complete = false, .failure = failure, .index = index, .doorbells = {}};
}

} // namespace

std::span<const AVIC::RegisterRow> AVIC::register_rows() { return rows; }

const AVIC::RegisterRow& AVIC::register_row(unsigned offset) {
    unsigned i = 0;
    while ((offset & 0xFF0) > rows[i].last) ++i;
    return rows[i];
}

void Avic::load(const VmcbView& vmcb, u64 interrupt_control) {
    on_ = interrupt_control & VMCB::INT::AVIC_ENABLE;
    if (!on_) return;
    x2apic_ = interrupt_control & VMCB::INT::X2AVIC_ENABLE;
    backing_page_ = vmcb.get(VMCB::avic_backing_page) & page_address;
    logical_table_ = vmcb.get(VMCB::avic_logical_table) & page_address;
    const u64 physical = vmcb.get(VMCB::avic_physical_table);
    physical_table_ = physical & page_address;
    max_index_ = static_cast<u32>(physical & 0xFFF);
}

std::optional<VirtualApic> Avic::page_at(u64 address) const {
    const Physical at{address};
    if (memory_.kind(at) != PhysicalMemory::Kind::ram) return std::nullopt;
    if (memory_.has_code(at)) memory_.about_to_write(at, page_size);
    return VirtualApic(memory_.native(at));
}

// ---- Requests of the guest that runs --------------------------------------------------------------------

u8 Avic::request() const {
    const VirtualApic page = this->page();
    const u8 vector = page.highest(VirtualApic::Register::IRR);
    return VirtualApic::priority_class(vector) > VirtualApic::priority_class(page.ppr()) ? vector : u8{0};
}

void Avic::accept(u8 vector) {
    page().accept(vector);
    update_ppr();
}

void Avic::update_ppr() {
    VirtualApic page = this->page();
    page.update_ppr(page.highest(VirtualApic::Register::ISR));
}

bool Avic::post(u64 backing_page, u8 vector) const {
    auto page = page_at(backing_page);
    if (page) page->set_vector_bit(VirtualApic::Register::IRR, vector, true);
    return page.has_value();
}

// ---- Interprocessor interrupts --------------------------------------------------------------------------

bool Avic::broadcast(Command command) const {
    const u64 shorthand = extract(command.low, 19, 18);
    if (shorthand != 0) return true;
    return x2apic_ ? command.high == 0xFFFF'FFFF : command.high >> 24 == xapic_ids;
}

std::vector<Avic::Target> Avic::all_targets(bool with_self) const {
    std::vector<Target> targets;
    const u32 end = x2apic_ ? max_index_ + 1 : std::min(max_index_ + 1, xapic_ids);
    for (u32 id = 0; id < end; ++id) {
        const u64 entry = physical_entry(id);
        if (!(entry & AVIC::PHYSICAL::V)) continue;
        if (!with_self && (entry & AVIC::PHYSICAL::backing_page) == backing_page_) continue;
        targets.push_back({id, entry});
    }
    return targets;
}

/// The guest's physical APIC IDs behind a logical destination. False: an entry of the table is not valid.
bool Avic::logical_targets(Command command, std::vector<u32>& ids, Outcome& outcome) const {
    if (x2apic_) {
        for (u32 n = 0; n < 16; ++n)
            if (test_bit(command.high, n)) ids.push_back((command.high >> 16) * 16 + n);
        return true;
    }
    // DFR: flat has eight entries; a cluster has four, and cluster 15 is not used.
    const u32 destination = command.high >> 24;
    const bool flat = page().reg(VirtualApic::Register::DFR) >> 28 == 0xF;
    const u32 first = flat ? 0 : (destination >> 4) * 4;
    for (u32 n = 0; n < (flat ? 8u : 4u); ++n) {
        if (!test_bit(destination, n)) continue;
        const u32 entry = memory_.load<u32>(Physical{logical_table_ + 4 * u64{first + n}});
        if (!(entry & AVIC::LOGICAL::V)) {
            outcome = failed(Failure::invalid_target, first + n);
            return false;
        }
        ids.push_back(entry & AVIC::LOGICAL::guest_id);
    }
    return true;
}

void Avic::deliver(const std::vector<Target>& targets, u8 vector, Outcome& outcome) const {
    for (const Target& target : targets)
        if (memory_.kind(Physical{target.entry & AVIC::PHYSICAL::backing_page}) !=
            PhysicalMemory::Kind::ram) {
            outcome = failed(Failure::invalid_backing_page, target.id);
            return;
        }
    for (const Target& target : targets) {
        post(target.entry & AVIC::PHYSICAL::backing_page, vector);
        if (target.entry & AVIC::PHYSICAL::IR) {
            outcome.doorbells.push_back(static_cast<u32>(target.entry & AVIC::PHYSICAL::host_id));
        } else if (outcome.complete) {
            outcome.complete = false;
            outcome.failure = Failure::not_running;
            outcome.index = target.id;
        }
    }
}

Outcome Avic::send(Command command) const {
    const auto vector = static_cast<u8>(command.low);
    const u64 mode = extract(command.low, 10, 8), shorthand = extract(command.low, 19, 18);
    const bool level = test_bit(command.low, 15), logical = test_bit(command.low, 11);
    if (mode != 0 || level) return failed(Failure::invalid_type);
    if (vector < 16) return failed(Failure::invalid_vector);
    Outcome outcome;
    if (shorthand == 1) {
        post(backing_page_, vector); // this processor looks by itself
        return outcome;
    }
    if (broadcast(command)) {
        deliver(all_targets(shorthand != 3), vector, outcome);
        return outcome;
    }
    std::vector<u32> ids;
    if (!logical) {
        ids.push_back(x2apic_ ? command.high : command.high >> 24);
    } else if (!logical_targets(command, ids, outcome)) {
        return outcome;
    }
    std::vector<Target> targets;
    for (const u32 id : ids) {
        const u64 entry = id <= max_index_ ? physical_entry(id) : 0;
        if (!(entry & AVIC::PHYSICAL::V)) return failed(Failure::invalid_target, id & 0xFFF);
        targets.push_back({id, entry});
    }
    deliver(targets, vector, outcome);
    return outcome;
}

} // namespace exeunt
