// Nested paging: the walk from a guest-physical to a physical address in the format of the host's own paging,
// nested page faults, accessed and dirty bits. APM 2 15.25 "Nested Paging".
//
// Not modelled: supervisor shadow stacks (not offered). Memory types are without effect.
#pragma once

#include "arch/registers.hpp"
#include "mmu/physical_memory.hpp"
#include "mmu/second_level.hpp"

namespace exeunt {

/// Why the last translation was refused: EXITINFO1 and EXITINFO2 of #VMEXIT(NPF).
struct NestedFault {
    u64 error = 0;
    u64 guest_physical = 0;
};

/// Bits of NestedFault::error beyond those of a page fault. APM 2 15.25.6 "Nested versus Guest Page Faults".
namespace NPF {
inline constexpr u64 final_address = bit(32), guest_tables = bit(33);
} // namespace NPF

class Npt final : public SecondLevel {
public:
    explicit Npt(PhysicalMemory& memory) : memory_(memory) {}

    void set_features(unsigned physical_bits, bool gigabyte_pages) {
        physical_bits_ = physical_bits;
        gigabyte_pages_ = gigabyte_pages;
    }
    /// nCR3, and the host's CR4 and EFER, which say what format the tables have (15.25.3 "Enabling Nested
    /// Paging").
    void set_tables(u64 n_cr3, u64 host_cr4, u64 host_efer) {
        special_ = false;
        execute_trap_ = read_only_tables_ = false;
        host_.cr3 = n_cr3;
        host_.cr4 = host_cr4;
        host_.efer = host_efer;
    }

    /// The VMCB's options, which set_tables() turns off: guest mode execute trap, under which U/S says who
    /// may execute and holds back no data access; read-only guest page tables, under which reading a guest's
    /// tables is a read and not a write.
    void set_options(bool execute_trap, bool read_only_tables) {
        execute_trap_ = execute_trap;
        read_only_tables_ = read_only_tables;
    }
    /// Where `page` is mapped, accesses go to `instead` and are special (15.29.3 "AVIC Backing Page").
    void set_special_page(GuestPhysical page, Physical instead) {
        special_ = true;
        special_page_ = page;
        special_instead_ = instead;
    }

    Result<SecondLevelPage> translate(GuestPhysical address, const SecondLevelAccess& access) override;
    /// 15.25.10 "Legacy PAE Mode": a guest's PDPTEs are read when they are used, not with CR3.
    bool pdptes_in_memory() const override { return true; }
    const NestedFault& fault() const { return fault_; }
    /// nCR3 as CR3, and the host's CR4 and EFER.
    const ControlRegisters& tables() const { return host_; }

private:
    /// Accesses to a guest's tables count as writes, read or not, unless those are read-only.
    bool writes(const SecondLevelAccess& access) const;
    Stop refuse(GuestPhysical address, const SecondLevelAccess& access, u64 cause);

    PhysicalMemory& memory_;
    ControlRegisters host_;
    unsigned physical_bits_ = 48;
    bool gigabyte_pages_ = true;
    bool execute_trap_ = false, read_only_tables_ = false, special_ = false;
    GuestPhysical special_page_{0};
    Physical special_instead_{0};
    NestedFault fault_;
};

} // namespace exeunt
