// The rules whose violation makes VMRUN end with VMEXIT_INVALID, each with an id. APM 2 15.5.1 "Basic
// Operation", "Canonicalization and Consistency Checks".
#pragma once

#include "cpu/cpu.hpp"
#include "svm/vmcb.hpp"

#include <span>
#include <string_view>

namespace exeunt {

/// What the rules look at: the merged VMCB, the processor, and the host's paging.
struct VmrunContext {
    VmcbView vmcb;
    const Cpu& cpu;
};

struct VmrunCheck {
    std::string_view id;
    std::string_view illegal; ///< the manual's words for what must not be
    std::string_view citation;
    bool (*violated)(const VmrunContext&);
};

std::span<const VmrunCheck> vmrun_checks();
/// PAE paging without nested paging: the last rule, looked at when the PDPTEs are loaded.
extern const VmrunCheck vmrun_pdpte_check;

} // namespace exeunt
