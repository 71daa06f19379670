// Who listens to a walk of paging structures that explains a translation. Nothing else is logged.
#pragma once

#include "arch/address.hpp"

namespace exeunt {

/// An entry that a walk read.
struct WalkStep {
    bool second_level = false; ///< of EPT or nested paging; else of the guest's own structures
    bool in_register = false;  ///< a PDPTE register of PAE paging
    unsigned level = 1;        ///< 1: a page table's; counts up to the root
    unsigned bytes = 8;
    Physical where;
    GuestPhysical at; ///< the guest's own: where the guest has it
    u64 entry = 0;
};

class WalkLog {
public:
    virtual ~WalkLog() = default;
    /// A walk of EPT or nested paging begins.
    virtual void begin(GuestPhysical address) = 0;
    virtual void step(const WalkStep& step) = 0;
};

} // namespace exeunt
