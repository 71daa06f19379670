// Names for the numbers in a trace: the manual's, from the tables of vmx and svm.
#pragma once

#include "svm/exit_codes.hpp"
#include "traces/records.hpp"
#include "vmx/exit_reasons.hpp"

#include <string>

namespace exeunt {

/// Why a guest was left, why an entry failed, or the rule that it violates; empty for other records.
inline std::string reason_name(const Record& record) {
    if (record.kind == RecordKind::violation) return record.text;
    if (record.kind != RecordKind::vm_exit && record.kind != RecordKind::vm_entry_failure) return {};
    if (record["vendor"] == 1) return exit_code_name(static_cast<u32>(record["reason"]));
    if (const u64 error = record["instruction_error"]; error != 0)
        return std::string(instruction_error_name(static_cast<u32>(error)));
    if (record.kind == RecordKind::vm_entry_failure && record["reason"] == 0) return "VMfailInvalid";
    return std::string(exit_reason_name(static_cast<u16>(record["reason"])));
}

}  // namespace exeunt
