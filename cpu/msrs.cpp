// The joined table of MSRs of one processor.
#include "cpu/msrs.hpp"

#include "base/ensure.hpp"
#include "cpu/cpu.hpp"
#include "cpu/msr_rules.hpp"
#include "cpu/performance_rules.hpp"

#include <algorithm>
#include <array>

namespace exeunt {

namespace {

using namespace msr_rules;

constexpr std::array core_rows{
#define MSR(index, name, present_with, reset, writable, read, write) \
    MsrRow{index, #name, present_with, reset, writable, read, write},
#include "cpu/msrs.inc"
};

/// MSRs that belong to the local APIC, present with a feature of its own.
bool controller_msr(const Cpu& cpu, u32 index) {
    if (!cpu.controller) return false;
    if (index == apic_base_msr) return cpu.has(Feature::APIC);
    if (index == tsc_deadline_msr) return cpu.has(Feature::TSC_DEADLINE);
    return index >= 0x800 && index <= 0x8FF && cpu.has(Feature::x2APIC);
}

} // namespace

Msrs::Msrs(const Cpu& cpu) : model_(cpu.model) { add(core_rows); }

void Msrs::add(std::span<const MsrRow> rows) {
    for (const MsrRow& row : rows) {
        if (!row.present_with.in(model_)) continue;
        const auto at =
            std::lower_bound(entries_.begin(), entries_.end(), row.index,
                             [](const Entry& entry, u32 index) { return entry.row->index < index; });
        ENSURE(at == entries_.end() || at->row->index != row.index);
        entries_.insert(at, Entry{&row, row.reset});
    }
}

const Msrs::Entry* Msrs::find(u32 index) const {
    const auto at =
        std::lower_bound(entries_.begin(), entries_.end(), index,
                         [](const Entry& entry, u32 wanted) { return entry.row->index < wanted; });
    return at != entries_.end() && at->row->index == index ? &*at : nullptr;
}

Msrs::Entry* Msrs::find(u32 index) { return const_cast<Entry*>(std::as_const(*this).find(index)); }

u64 Msrs::stored(u32 index) const {
    const Entry* entry = find(index);
    return entry ? entry->value : 0;
}

u64* Msrs::slot(u32 index) {
    Entry* entry = find(index);
    return entry ? &entry->value : nullptr;
}

void Msrs::store(u32 index, u64 value) {
    if (Entry* entry = find(index)) entry->value = value;
}

Result<u64> Msrs::read(Cpu& cpu, u32 index) {
    if (controller_msr(cpu, index)) {
        u64 value = 0;
        if (!cpu.controller->read_msr(index, value)) return general_protection(0);
        return value;
    }
    const Entry* entry = find(index);
    if (!entry) return general_protection(0);
    return entry->row->read ? entry->row->read(cpu, entry->value) : Result<u64>(entry->value);
}

Result<void> Msrs::write(Cpu& cpu, u32 index, u64 value) {
    if (controller_msr(cpu, index)) {
        if (!cpu.controller->write_msr(index, value)) return general_protection(0);
        return {};
    }
    Entry* entry = find(index);
    if (!entry) return general_protection(0);
    const MsrRow& row = *entry->row;
    const Result<u64> current = row.read ? row.read(cpu, entry->value) : Result<u64>(entry->value);
    const u64 changed = value ^ (current.ok() ? current.value() : 0);
    if (row.writable == 0 || (changed & ~row.writable)) return general_protection(0);
    entry->value = row.write ? TRY(row.write(cpu, entry->value, value)) : value;
    return {};
}

void Msrs::reset() {
    for (Entry& entry : entries_) entry.value = entry.row->reset;
}

void Msrs::visit(StateVisitor& visitor) {
    visitor.enter("msrs");
    for (Entry& entry : entries_) visitor.value(entry.row->name, entry.value);
    visitor.leave();
}

bool execute_disable_available(const Cpu& cpu) {
    return cpu.has(Feature::NX) && !(cpu.misc_enable & MiscEnable::XD_disable);
}

bool canonical_for_model(const Cpu& cpu, u64 address) {
    return sign_extend(address, std::max(cpu.model.linear_bits, 48u)) == address;
}

void set_firmware_mtrrs(Cpu& cpu) {
    constexpr u64 UC = 0, WP = 5, WB = 6, each_byte = 0x0101'0101'0101'0101, gbyte = u64{1} << 30;
    Msrs& msrs = *cpu.msrs;
    msrs.store(Msr::IA32_MTRR_FIX64K_00000, WB * each_byte);
    msrs.store(Msr::IA32_MTRR_FIX16K_80000, WB * each_byte);
    msrs.store(Msr::IA32_MTRR_FIX16K_A0000, UC * each_byte);
    for (u32 index = Msr::IA32_MTRR_FIX4K_C0000; index <= Msr::IA32_MTRR_FIX4K_F8000; ++index)
        msrs.store(index, WP * each_byte);
    msrs.store(Msr::IA32_MTRR_PHYSBASE0, 3 * gbyte | UC);
    msrs.store(Msr::IA32_MTRR_PHYSMASK0, (low_mask(cpu.model.physical_bits) & ~(gbyte - 1)) | bit(11));
    msrs.store(Msr::IA32_MTRR_DEF_TYPE, bit(11) | bit(10) | WB);
}

} // namespace exeunt
