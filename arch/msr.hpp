// Row type of the msrs.inc tables. Each folder has a table of the MSRs whose behaviour it owns; class Msrs
// (cpu/msrs.hpp) joins them. SDM 3C ch. 35 "Model-Specific Registers (MSRs)".
#pragma once

#include "arch/features.hpp"
#include "arch/result.hpp"

namespace exeunt {

struct Cpu;

/// What announces an MSR: a feature, or a quirk of the model where no CPUID bit does.
struct MsrPresence {
    Feature feature = Feature::none;
    Quirk quirk = Quirk::count;

    constexpr MsrPresence(Feature f) : feature(f) {}
    constexpr MsrPresence(Quirk q) : quirk(q) {}
    bool in(const CpuModel& model) const {
        return (feature == Feature::none || model.has(feature)) &&
               (quirk == Quirk::count || model.has(quirk));
    }
};

/// What RDMSR gives, out of what is stored. Faults are values.
using MsrRead = Result<u64> (*)(Cpu& cpu, u64 stored);
/// What WRMSR of `value` stores. #GP(0) for what may not be written.
using MsrWrite = Result<u64> (*)(Cpu& cpu, u64 stored, u64 value);

struct MsrRow {
    u32 index;
    std::string_view name;
    MsrPresence present_with;
    /// Stored at power-up; INIT leaves it (SDM 3A Table 9-1).
    u64 reset;
    /// Bits that WRMSR may change; an attempt to change another is #GP(0). With 0, every WRMSR is.
    u64 writable;
    MsrRead read;   ///< nullptr: what is stored
    MsrWrite write; ///< nullptr: `value` is stored. Called after the check of `writable`.
};

} // namespace exeunt
