// Indices and bits of SVM's MSRs (svm/msrs.inc). APM 2 15.30 "SVM Related MSRs".
#pragma once

#include "arch/msr.hpp"
#include "base/bits.hpp"

#include <span>

namespace exeunt {

namespace Msr {
#define MSR(index, name, present_with, reset, writable, read, write) inline constexpr u32 name = index;
#include "svm/msrs.inc"
} // namespace Msr

namespace VM_CR {
inline constexpr u64 DPD = bit(0), R_INIT = bit(1), DIS_A20M = bit(2), LOCK = bit(3), SVMDIS = bit(4);
} // namespace VM_CR

/// For Msrs::add(); a processor to which they are added has an Svm as its virtualization.
std::span<const MsrRow> svm_msr_rows();

} // namespace exeunt
