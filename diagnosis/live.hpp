// What only the machine itself knows at a record: the fields on which the violated rules depend, and what
// access a fault was about.
#pragma once

#include "diagnosis/violations.hpp"
#include "diagnosis/walks.hpp"
#include "svm/vmcb.hpp"
#include "vmx/vmcs_fields.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

/// To each rule the fields that say whether it applies, with their values and last writers, out of the
/// current VMCS or the VMCB of this processor.
void add_conditions(std::vector<ExplainedRule>& rules, Cpu& cpu);

/// Every field of the current VMCS that the processor has, with its last writer; or of the VMCB.
std::vector<ExplainedField> all_fields(Cpu& cpu);

/// Where the VMCB of this processor is, if it has AMD-V.
std::optional<Physical> vmcb_of(Cpu& cpu);

/// An EPT violation, an EPT misconfiguration, a nested page fault, or a page fault that was intercepted.
bool is_translation_fault(const Record& record);
/// The access that a record's fault is about; a read of address 0 for other records.
WalkQuestion faulting_access(const Record& record);

/// Ids of the rules that restrict a field.
std::vector<std::string_view> rules_about(VmcsField field);
std::vector<std::string_view> rules_about(const VMCB::FieldRow& field);
/// "restricts guest_dr7 (681AH)", "given vm_entry_controls (4012H)".
std::vector<std::string> fields_of_rule(bool svm, std::string_view id);

} // namespace exeunt
