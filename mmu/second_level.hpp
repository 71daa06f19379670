// The question the MMU asks of EPT and nested paging.
#pragma once

#include "arch/address.hpp"
#include "arch/result.hpp"
#include "mmu/access.hpp"
#include "mmu/walk_log.hpp"

namespace exeunt {

/// One access to a guest-physical address and all that a violation wants to report of it.
struct SecondLevelAccess {
    AccessType type = AccessType::read;
    bool user = false;               ///< CPL = 3 (nested paging's U/S)
    bool linear_valid = false;       ///< it stems from a linear address
    u64 linear = 0;
    bool paging_structure = false;   ///< it reads or updates a guest paging-structure entry, not the final page
    bool supervisor_page = false;    ///< final translation only: the linear address is a supervisor one
    bool writable_page = false;      ///< ... R/W = 1 in every entry
    bool execute_disable_page = false;  ///< ... XD = 1 in some entry
    bool probe = false;              ///< a debugger looks: no flag is set, nothing is logged
    WalkLog* log = nullptr;          ///< an explanation, which is a probe too, wants to know the steps and the fault
};

/// The translation, with what it allows beyond the access that was made.
struct SecondLevelPage {
    Physical physical;       ///< of the address asked for
    u64 bytes = page_size;   ///< size of the second-level page
    bool read = true, write = true, execute = true;  ///< `write` only once the dirty flag is set
    bool special = false;    ///< accesses go to Virtualization::special_read / special_write (APIC pages)
};

class SecondLevel {
public:
    virtual ~SecondLevel() = default;
    /// On refusal: Stop::Kind::second_level; the implementor keeps the reason for the exit that follows.
    virtual Result<SecondLevelPage> translate(GuestPhysical address, const SecondLevelAccess& access) = 0;
    /// PAE paging reads its PDPTEs from memory at every walk, not into registers with CR3 (nested paging).
    virtual bool pdptes_in_memory() const { return false; }
};

}  // namespace exeunt
