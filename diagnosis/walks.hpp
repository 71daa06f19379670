// Both walks of an address in a guest, level by level, with the reason of a fault. SDM 3A ch. 4, 3C 28.2 "The
// Extended Page Table Mechanism (EPT)"; APM 2 15.25 "Nested Paging".
#pragma once

#include "arch/registers.hpp"
#include "cpu/cpu.hpp"
#include "diagnosis/words.hpp"

#include <string>
#include <vector>

namespace exeunt {

/// What is asked: an address of the guest, and how it is accessed.
struct WalkQuestion {
    bool linear = true; ///< else guest-physical: the second level alone
    u64 address = 0;
    Access access;
};

/// An entry that was read.
struct WalkLine {
    bool second_level = false;
    bool in_register = false;
    Physical physical; ///< where it is
    unsigned bytes = 8;
    std::string name;     ///< "PDPTE", "EPT PDE"
    std::string where;    ///< its address; "guest-physical -> physical" for the guest's own
    std::string entry;    ///< its value
    std::string writer{}; ///< who wrote it last, when that was asked
    std::string words;    ///< its bits
};

struct ExplainedWalk {
    std::string question;           ///< "write to linear address 0x..., as supervisor"
    std::vector<std::string> roots; ///< "CR3 0x..., 4-level paging", "EPTP 0x..."
    std::vector<WalkLine> lines;
    bool translates = false;
    std::vector<std::string>
        verdict; ///< what came of it: the page, rights and memory type; or the fault and its cause
};

/// The walks in the guest that `cpu` runs, has just left, or failed to enter. `entered`: the guest's
/// registers are in the processor; else they are taken from the VMCS or VMCB.
ExplainedWalk explain_walk(Cpu& cpu, const WalkQuestion& question, bool entered);

} // namespace exeunt
