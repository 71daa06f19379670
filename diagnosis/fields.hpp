// The fields of a VMCS and of a VMCB by name, and their values in words.
#pragma once

#include "diagnosis/words.hpp"
#include "svm/vmcb.hpp"
#include "vmx/vmcs_fields.hpp"

#include <optional>

namespace exeunt {

/// By its name, as vmx/vmcs_fields.inc has it, in any case.
std::optional<VmcsField> find_vmcs_field(std::string_view name);
std::vector<Words> field_in_words(VmcsField field, u64 value);
/// As many hexadecimal digits as the field has.
std::string show_field(VmcsField field, u64 value);

const VMCB::FieldRow* find_vmcb_field(std::string_view name);
std::vector<Words> field_in_words(const VMCB::FieldRow& field, u64 value);
std::string show_field(const VMCB::FieldRow& field, u64 value);

} // namespace exeunt
