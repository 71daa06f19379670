#include "vmx/vmcs.hpp"

#include <algorithm>

namespace exeunt {

namespace {

using F = VmcsField;

constexpr bool between(F field, F first, F last) { return field >= first && field <= last; }

/// Fields that no entry check reads although they are among the controls.
constexpr bool unchecked_control(F field) {
    switch (field) {
    case F::eptp_index:
    case F::tsc_offset:
    case F::exception_bitmap:
    case F::page_fault_error_code_mask:
    case F::page_fault_error_code_match:
    case F::eoi_exit_bitmap_0:
    case F::eoi_exit_bitmap_1:
    case F::eoi_exit_bitmap_2:
    case F::eoi_exit_bitmap_3:
    case F::instruction_timeout_control:
    case F::ple_gap:
    case F::ple_window:
    case F::cr0_guest_host_mask:
    case F::cr4_guest_host_mask:
    case F::cr0_read_shadow:
    case F::cr4_read_shadow:
    case F::cr3_target_value_0:
    case F::cr3_target_value_1:
    case F::cr3_target_value_2:
    case F::cr3_target_value_3:
    case F::xss_exiting_bitmap:
    // Event injection is checked at every entry that injects.
    case F::vm_entry_interruption_information:
    case F::vm_entry_exception_error_code:
    case F::vm_entry_instruction_length: return true;
    default: return false;
    }
}

constexpr u32 groups_of_guest_field(F field) {
    if (between(field, F::guest_es_selector, F::guest_tr_selector) ||
        between(field, F::guest_es_limit, F::guest_tr_access_rights) ||
        between(field, F::guest_es_base, F::guest_idtr_base))
        return CheckGroup::guest_segments;
    switch (field) {
    case F::guest_cr0:
    case F::guest_cr4: return CheckGroup::guest_registers | CheckGroup::guest_segments;
    case F::guest_cr3:
    case F::guest_dr7:
    case F::guest_ia32_debugctl:
    case F::guest_ia32_pat:
    case F::guest_ia32_efer:
    case F::guest_ia32_perf_global_ctrl:
    case F::guest_ia32_pkrs:
    case F::guest_ia32_sysenter_esp:
    case F::guest_ia32_sysenter_eip: return CheckGroup::guest_registers;
    case F::guest_rflags: return CheckGroup::guest_segments;
    default: return 0; // checked at every entry, or never
    }
}

constexpr u32 groups_of(F field) {
    switch (row_of(field).type) {
    case FieldType::read_only: return 0;
    case FieldType::host: return CheckGroup::host;
    case FieldType::guest: return groups_of_guest_field(field);
    case FieldType::control: break;
    }
    if (unchecked_control(field)) return 0;
    switch (field) {
    case F::secondary_processor_based_vm_execution_controls:
    case F::vm_entry_controls: return CheckGroup::all;
    case F::primary_vm_exit_controls: return CheckGroup::controls | CheckGroup::host;
    default: return CheckGroup::controls;
    }
}

constexpr auto make_groups() {
    std::array<u8, vmcs_field_count> groups{};
    for (std::size_t i = 0; i < vmcs_field_count; ++i)
        groups[i] = static_cast<u8>(groups_of(static_cast<F>(i)));
    return groups;
}
constexpr auto field_groups = make_groups();

static_assert(static_cast<unsigned>(F::guest_tr_selector) - static_cast<unsigned>(F::guest_es_selector) == 7);
static_assert(static_cast<unsigned>(F::guest_tr_limit) - static_cast<unsigned>(F::guest_es_limit) == 7);
static_assert(static_cast<unsigned>(F::guest_tr_access_rights) -
                  static_cast<unsigned>(F::guest_es_access_rights) ==
              7);
static_assert(static_cast<unsigned>(F::guest_tr_base) - static_cast<unsigned>(F::guest_es_base) == 7);

} // namespace

u32 check_groups_of(VmcsField field) { return field_groups[static_cast<std::size_t>(field)]; }

void Vmcs::write(VmcsField field, u64 value, FieldWriter writer) {
    const auto i = static_cast<std::size_t>(field);
    value &= row_of(field).mask();
    const u64 changed = values_[i] ^ value;
    if (changed) {
        unchecked_ |= field_groups[i];
        // Activating the secondary controls is what makes the guest checks see them.
        if (field == VmcsField::primary_processor_based_vm_execution_controls &&
            (changed & primary::activate_secondary_controls))
            unchecked_ = CheckGroup::all;
    }
    values_[i] = value;
    writers_.field[i] = writer;
}

namespace {

/// 27.3 "Saving Guest State": whether a VM exit with these VM-exit controls writes the field.
bool saved_at_exit(F field, u64 controls) {
    switch (field) {
    case F::guest_dr7:
    case F::guest_ia32_debugctl: return controls & vm_exit::save_debug_controls;
    case F::guest_ia32_pat: return controls & vm_exit::save_ia32_pat;
    case F::guest_ia32_efer: return controls & vm_exit::save_ia32_efer;
    case F::vmx_preemption_timer_value: return controls & vm_exit::save_vmx_preemption_timer_value;
    case F::guest_ia32_sysenter_cs:
    case F::guest_interruptibility_state:
    case F::guest_activity_state: return true;
    default:
        return between(field, F::guest_es_selector, F::guest_tr_selector) ||
               between(field, F::guest_es_limit, F::guest_tr_access_rights) ||
               between(field, F::guest_cr0, F::guest_idtr_base) ||
               between(field, F::guest_rsp, F::guest_ia32_sysenter_eip);
    }
}

} // namespace

WrittenBy Vmcs::writer(VmcsField field) const {
    const FieldWriter& write = writers_.field[static_cast<std::size_t>(field)];
    const FieldWriter& exit = writers_.exit;
    const auto by = [](WrittenBy::Kind kind, const FieldWriter& w) {
        return WrittenBy{kind, w.cpu, w.rip, w.tick};
    };
    const bool saved = saved_at_exit(field, (*this)[VmcsField::primary_vm_exit_controls]);
    if (exit.tick > write.tick && saved) return by(WrittenBy::Kind::processor, exit);
    if (write.tick == 0) return {};
    return by(WrittenBy::Kind::software, write);
}

void Vmcs::load(PhysicalMemory& memory) {
    u8 region[data_offset + 8 * vmcs_field_count];
    memory.read_bytes(pointer_, region, sizeof region);
    const auto word = [&](u64 offset) {
        u64 value = 0;
        for (unsigned i = 0; i < 8; ++i) value |= u64{region[offset + i]} << (8 * i);
        return value;
    };
    shadow_ = word(revision_offset) & shadow_indicator;
    launched_ = word(launch_offset) & 1;
    for (std::size_t i = 0; i < vmcs_field_count; ++i)
        values_[i] = word(data_offset + 8 * i) & vmcs_field_rows[i].mask();
    unchecked_ = CheckGroup::all;
}

void Vmcs::store(PhysicalMemory& memory) const {
    u8 region[8 + 8 * vmcs_field_count];
    const auto put_word = [&](u64 offset, u64 value) {
        for (unsigned i = 0; i < 8; ++i) region[offset + i] = static_cast<u8>(value >> (8 * i));
    };
    put_word(0, launched_ ? 1 : 0);
    for (std::size_t i = 0; i < vmcs_field_count; ++i) put_word(8 + 8 * i, values_[i]);
    memory.write_bytes(pointer_ + launch_offset, region, sizeof region);
}

namespace {

void visit_writer(StateVisitor& visitor, std::string_view name, FieldWriter& writer) {
    visitor.enter(name);
    visitor.value("rip", writer.rip);
    visitor.value("tick", writer.tick);
    visitor.value("cpu", writer.cpu);
    visitor.leave();
}

} // namespace

void VmcsWriters::visit(StateVisitor& visitor) {
    visitor.enter("writers");
    for (std::size_t i = 0; i < vmcs_field_count; ++i)
        visit_writer(visitor, vmcs_field_rows[i].name, field[i]);
    visit_writer(visitor, "last_exit", exit);
    visitor.leave();
}

void VmcsProvenance::keep(Physical pointer, const VmcsWriters& writers) {
    std::erase_if(entries_, [pointer](const Entry& e) { return e.pointer == pointer.value; });
    if (entries_.size() >= capacity) entries_.erase(entries_.begin());
    entries_.push_back({pointer.value, writers});
}

const VmcsWriters* VmcsProvenance::find(Physical pointer) const {
    for (const Entry& entry : entries_)
        if (entry.pointer == pointer.value) return &entry.writers;
    return nullptr;
}

void VmcsProvenance::visit(StateVisitor& visitor) {
    visitor.enter("vmcs_provenance");
    u64 count = entries_.size();
    visitor.value("count", count);
    entries_.resize(count);
    for (u64 i = 0; i < count; ++i) {
        visitor.enter(std::to_string(i));
        visitor.value("pointer", entries_[i].pointer);
        entries_[i].writers.visit(visitor);
        visitor.leave();
    }
    visitor.leave();
}

void Vmcs::visit(StateVisitor& visitor) {
    visitor.value("pointer", pointer_.value);
    visitor.value("launched", launched_);
    visitor.value("shadow", shadow_);
    for (std::size_t i = 0; i < vmcs_field_count; ++i) {
        visitor.field(vmcs_field_rows[i].name, values_[i], 64);
    }
    writers_.visit(visitor);
    unchecked_ = CheckGroup::all; // a restored VMCS is checked again; what is derived is derived again
}

/// To memory, and the last writers to where they are kept.
void ActiveVmcss::store(const Vmcs& vmcs) {
    vmcs.store(memory_);
    provenance_->keep(vmcs.pointer(), vmcs.writers());
}

Vmcs* ActiveVmcss::find(Physical pointer) {
    for (auto& vmcs : active_)
        if (vmcs->pointer() == pointer) return vmcs.get();
    return nullptr;
}

Vmcs& ActiveVmcss::activate(Physical pointer, const Vmcs* keep) {
    auto found =
        std::find_if(active_.begin(), active_.end(), [&](auto& v) { return v->pointer() == pointer; });
    if (found != active_.end()) {
        std::rotate(found, found + 1, active_.end());
        return *active_.back();
    }
    if (active_.size() >= capacity) {
        auto victim = std::find_if(active_.begin(), active_.end(), [&](auto& v) { return v.get() != keep; });
        store(**victim);
        active_.erase(victim);
    }
    active_.push_back(std::make_unique<Vmcs>(pointer));
    active_.back()->load(memory_);
    if (const VmcsWriters* writers = provenance_->find(pointer)) active_.back()->set_writers(*writers);
    return *active_.back();
}

void ActiveVmcss::clear(Physical pointer) {
    auto found =
        std::find_if(active_.begin(), active_.end(), [&](auto& v) { return v->pointer() == pointer; });
    if (found != active_.end()) {
        store(**found);
        active_.erase(found);
    }
    // The launch state becomes clear, also of a VMCS that was not active.
    const u64 clear_state = 0;
    memory_.write_bytes(pointer + Vmcs::launch_offset, &clear_state, sizeof clear_state);
}

void ActiveVmcss::write_back_all() {
    for (auto& vmcs : active_) store(*vmcs);
    active_.clear();
}

void ActiveVmcss::visit(StateVisitor& visitor) {
    visitor.enter("active_vmcss");
    u64 count = active_.size();
    visitor.value("count", count);
    while (active_.size() > count) active_.pop_back();
    while (active_.size() < count) active_.push_back(std::make_unique<Vmcs>(Physical{}));
    for (u64 i = 0; i < count; ++i) {
        visitor.enter(std::to_string(i));
        active_[i]->visit(visitor);
        visitor.leave();
    }
    visitor.leave();
}

} // namespace exeunt
