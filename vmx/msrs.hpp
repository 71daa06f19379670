// Indices and bits of VT-x's MSRs (vmx/msrs.inc).
#pragma once

#include "arch/msr.hpp"
#include "base/bits.hpp"

#include <span>

namespace exeunt {

namespace Msr {
#define MSR(index, name, present_with, reset, writable, read, write) inline constexpr u32 name = index;
#include "vmx/msrs.inc"
} // namespace Msr

/// IA32_FEATURE_CONTROL. SDM 3C 23.7.
namespace FEATURE_CONTROL {
inline constexpr u64 lock = bit(0), vmxon_inside_smx = bit(1), vmxon_outside_smx = bit(2);
} // namespace FEATURE_CONTROL

/// For Msrs::add(); a processor to which they are added has a Vmx as its virtualization.
std::span<const MsrRow> vmx_msr_rows();

} // namespace exeunt
