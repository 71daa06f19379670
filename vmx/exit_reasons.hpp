// The basic exit reasons of vmx/exit_reasons.inc and the VM-instruction errors of vmx/instruction_errors.inc.
#pragma once

#include "base/types.hpp"

#include <string_view>

namespace exeunt {

/// SDM 3D App. C "VMX Basic Exit Reasons".
enum class ExitReason : u16 {
#define EXIT_REASON(number, name, manual, qualification, information, length) name = number,
#include "vmx/exit_reasons.inc"
};

/// Bit 31 of the exit reason: the VM entry failed. SDM 3C 24.9.1 "Basic VM-Exit Information".
inline constexpr u32 exit_reason_entry_failure = u32{1} << 31;

// clang-format off
/// The manual's words for a basic exit reason, or "unknown".
constexpr std::string_view exit_reason_name(u16 number) {
    switch (number) {
#define EXIT_REASON(number, name, manual, qualification, information, length) case number: return manual;
#include "vmx/exit_reasons.inc"
        default: return "unknown";
    }
}
// clang-format on

/// SDM 3C Table 30-1 "VM-Instruction Error Numbers".
enum class InstructionError : u8 {
#define INSTRUCTION_ERROR(number, name, manual) name = number,
#include "vmx/instruction_errors.inc"
};

// clang-format off
constexpr std::string_view instruction_error_name(u32 number) {
    switch (number) {
#define INSTRUCTION_ERROR(number, name, manual) case number: return manual;
#include "vmx/instruction_errors.inc"
        default: return "unknown";
    }
}
// clang-format on

/// SDM 3C 27.7 "VMX Aborts".
enum class VmxAbort : u32 {
    saving_guest_msrs = 1,
    host_pdptes = 2,
    corrupted_vmcs = 3,
    loading_host_msrs = 4,
    machine_check = 5,
    ia_32e_mode_to_32_bit_host = 6,
};

} // namespace exeunt
