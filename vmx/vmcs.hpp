// Virtual-machine control structures: one as native numbers, and the active ones of a processor.
// SDM 3C 24.1 "Overview", 24.2 "Format of the VMCS Region", 24.11 "Software Use of the VMCS".
//
// An active VMCS lives here and not in its region; VMCLEAR (and eviction, when very many are active) writes
// it to the region in exeunt's own layout, and VMPTRLD reads it from there.
#pragma once

#include "arch/address.hpp"
#include "arch/intercept.hpp"
#include "arch/observer.hpp"
#include "base/clock.hpp"
#include "mmu/physical_memory.hpp"
#include "vmx/controls.hpp"
#include "vmx/vmcs_fields.hpp"

#include <memory>
#include <vector>

namespace exeunt {

/// What must be checked again at the next VM entry because an input of it changed since it last passed.
namespace CheckGroup {
inline constexpr u32 controls = 1, ///< VM-execution, VM-exit and VM-entry controls
    host = 2,                      ///< host-state area and address-space size
    guest_registers = 4,           ///< guest control and debug registers and MSRs
    guest_segments = 8,            ///< guest segment and descriptor-table registers
    all = 15;
} // namespace CheckGroup

/// Who wrote a field last by VMWRITE. Tick 0: nobody.
struct FieldWriter {
    u64 rip = 0;
    Tick tick = 0;
    u32 cpu = 0;
};

/// Who wrote each field of one VMCS last.
struct VmcsWriters {
    FieldWriter field[vmcs_field_count] = {};
    FieldWriter exit; ///< the last VM exit

    void visit(StateVisitor& visitor);
};

/// The last writers of VMCSs that are not active: VMCLEAR does not make an explanation forget them, nor does
/// migration to another processor of the machine. The most recently cleared stay.
class VmcsProvenance {
public:
    void keep(Physical pointer, const VmcsWriters& writers);
    /// Null: unknown.
    const VmcsWriters* find(Physical pointer) const;
    void visit(StateVisitor& visitor);

private:
    static constexpr std::size_t capacity = 64;

    struct Entry {
        u64 pointer = 0;
        VmcsWriters writers;
    };
    std::vector<Entry> entries_; ///< most recently kept last
};

class Vmcs {
public:
    explicit Vmcs(Physical pointer) : pointer_(pointer) {}

    static constexpr u32 shadow_indicator = u32{1} << 31;
    /// Where the region holds what (SDM 3C Table 24-1 fixes the first two).
    static constexpr u64 revision_offset = 0, abort_offset = 4, launch_offset = 8, data_offset = 16;

    Physical pointer() const { return pointer_; }
    bool launched() const { return launched_; }
    void set_launched() { launched_ = true; }
    bool shadow() const { return shadow_; }

    u64 operator[](VmcsField field) const { return values_[static_cast<std::size_t>(field)]; }
    /// The same for fields that follow one another in the table (segments, CR3 targets, PDPTEs).
    u64 at(VmcsField first, unsigned n) const { return values_[static_cast<std::size_t>(first) + n]; }

    /// The processor writes a field of which no entry check depends (exit information).
    void put(VmcsField field, u64 value) { values_[static_cast<std::size_t>(field)] = value; }
    /// The processor saves guest state: what changed is gathered in `changed`.
    void save(VmcsField field, u64 value, u64& changed) { save_at(field, 0, value, changed); }
    void save_at(VmcsField first, unsigned n, u64 value, u64& changed) {
        u64& stored = values_[static_cast<std::size_t>(first) + n];
        changed |= stored ^ value;
        stored = value;
    }
    /// Software writes a field (VMWRITE): remembers what has to be checked again, and who it was.
    void write(VmcsField field, u64 value, FieldWriter writer);
    /// A VM exit saved the guest's state.
    void saved(FieldWriter exit) { writers_.exit = exit; }
    /// Who wrote this field last: VMWRITE, or the last VM exit.
    WrittenBy writer(VmcsField field) const;
    const VmcsWriters& writers() const { return writers_; }
    void set_writers(const VmcsWriters& writers) { writers_ = writers; }

    void mark(u32 check_groups) { unchecked_ |= check_groups; }
    void passed(u32 check_groups) { unchecked_ &= ~check_groups; }
    u32 unchecked() const { return unchecked_; }

    /// Reads and writes the region.
    void load(PhysicalMemory& memory);
    void store(PhysicalMemory& memory) const;
    void visit(StateVisitor& visitor);

    // ---- Computed from the controls at VM entry -------------------------------------------------
    struct Derived {
        InterceptSet intercepted, undefined;
        u64 pin_based = 0, primary = 0, secondary = 0, tertiary = 0, vm_exit = 0, vm_function = 0;
    } derived;
    /// IA32_EFER.LMA when the host group last passed: ADDR checks compare with it.
    bool checked_lma = false;

private:
    Physical pointer_;
    bool launched_ = false;
    bool shadow_ = false;
    u32 unchecked_ = CheckGroup::all;
    u64 values_[vmcs_field_count] = {};
    VmcsWriters writers_;
};

/// The entry checks that read a field.
u32 check_groups_of(VmcsField field);

/// The VMCSs that are active on one processor.
class ActiveVmcss {
public:
    ActiveVmcss(PhysicalMemory& memory, std::shared_ptr<VmcsProvenance> provenance)
        : memory_(memory), provenance_(std::move(provenance)) {}

    Vmcs* find(Physical pointer);
    /// The VMCS of this region, read from memory unless it is active already. The most recently used stay.
    Vmcs& activate(Physical pointer, const Vmcs* keep);
    /// VMCLEAR: to memory, and no longer active.
    void clear(Physical pointer);
    /// All to memory; they stay active as far as software can tell.
    void write_back_all();
    void visit(StateVisitor& visitor);
    const std::shared_ptr<VmcsProvenance>& provenance() const { return provenance_; }

private:
    void store(const Vmcs& vmcs);

    /// More than this many at a time are written back, least recently used first.
    static constexpr std::size_t capacity = 64;

    PhysicalMemory& memory_;
    std::shared_ptr<VmcsProvenance> provenance_; ///< of the whole machine
    std::vector<std::unique_ptr<Vmcs>> active_;  ///< most recently used last
};

} // namespace exeunt
