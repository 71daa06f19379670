// CPUID: leaves out of the model's features, its caches and the processor's state.
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// INVLPGB: how many pages more than one it takes at most (APM 3 E.4.7 "Function 8000_0008h", InvlpgbCountMax).
inline constexpr u32 invlpgb_count_max = 7;

struct Cpu;
struct CpuModel;

struct CpuidResult {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
    constexpr bool operator==(const CpuidResult&) const = default;
};

/// What CPUID gives now (OSXSAVE, OSPKE, the size of the XSAVE area and the like follow the state).
CpuidResult cpuid(const Cpu& cpu, u32 leaf, u32 subleaf);

/// Family, model and stepping: EAX of leaf 1, and EDX after reset.
u32 processor_signature(const CpuModel& model);

/// Virtual frequencies, as leaves 15H and 16H state them: the TSC counts ticks, the APIC timer the crystal.
inline constexpr u32 tsc_hertz = 1'000'000'000, crystal_hertz = 100'000'000;

} // namespace exeunt
