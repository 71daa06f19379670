// The rules of VM entry on a dump: what silicon would refuse, and why. SDM 3C 26.2, 26.3.1; APM 2 15.5.1.
//
// Not modelled: what a dump does not hold: memory (MSR areas, PDPTEs without EPT, the virtual-APIC page), and
// the capability MSRs of the processor that it is from.
#pragma once

#include "arch/features.hpp"
#include "diagnosis/dumps.hpp"
#include "diagnosis/violations.hpp"

#include <string>
#include <vector>

namespace exeunt {

struct DumpCheck {
    std::vector<ExplainedRule> violated;
    /// Violated with what was assumed, or as this model has it: the dump alone does not decide. `words` says
    /// why.
    std::vector<ExplainedRule> undecided;
    std::vector<std::string>
        missing; ///< fields that the dump does not have: taken for 0 unless `assumed` says else
    std::vector<std::string> assumed; ///< sentences
};

/// `strict`: the model is the processor, not only one that has everything: control bits that it does not have
/// are violations.
DumpCheck check_dump(const Dump& dump, const CpuModel& model, bool strict);

} // namespace exeunt
