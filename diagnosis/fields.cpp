#include "diagnosis/fields.hpp"

#include "vmx/controls.hpp"
#include "vmx/exit_reasons.hpp"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>

namespace exeunt {

namespace {

using F = VmcsField;

/// The layout (diagnosis/layouts.inc) of one field.
struct FieldLayout {
    F field;
    std::string_view layout;
};
constexpr FieldLayout vmcs_layouts[] = {
    {F::guest_cr0, "cr0"},
    {F::host_cr0, "cr0"},
    {F::cr0_guest_host_mask, "cr0"},
    {F::cr0_read_shadow, "cr0"},
    {F::guest_cr4, "cr4"},
    {F::host_cr4, "cr4"},
    {F::cr4_guest_host_mask, "cr4"},
    {F::cr4_read_shadow, "cr4"},
    {F::guest_ia32_efer, "efer"},
    {F::host_ia32_efer, "efer"},
    {F::guest_rflags, "rflags"},
    {F::guest_ia32_pat, "pat"},
    {F::host_ia32_pat, "pat"},
    {F::guest_ia32_debugctl, "debugctl"},
    {F::ept_pointer, "ept_pointer"},
    {F::guest_interruptibility_state, "interruptibility"},
    {F::guest_activity_state, "activity"},
    {F::guest_pending_debug_exceptions, "pending_debug"},
    {F::vm_entry_interruption_information, "interruption"},
    {F::vm_exit_interruption_information, "interruption"},
    {F::idt_vectoring_information, "interruption"},
};

struct ControlField {
    F field;
    ControlGroup group;
};
constexpr ControlField control_fields[] = {
    {F::pin_based_vm_execution_controls, ControlGroup::pin_based},
    {F::primary_processor_based_vm_execution_controls, ControlGroup::primary},
    {F::secondary_processor_based_vm_execution_controls, ControlGroup::secondary},
    {F::tertiary_processor_based_vm_execution_controls, ControlGroup::tertiary},
    {F::primary_vm_exit_controls, ControlGroup::vm_exit},
    {F::secondary_vm_exit_controls, ControlGroup::vm_exit2},
    {F::vm_entry_controls, ControlGroup::vm_entry},
    {F::vm_function_controls, ControlGroup::vm_function},
};

/// The manual's name out of ours.
std::string spaced(std::string_view name) {
    std::string text(name);
    std::replace(text.begin(), text.end(), '_', ' ');
    return text;
}

std::vector<Words> controls_in_words(ControlGroup group, u64 value) {
    std::vector<Words> words;
    u64 unnamed = value;
    for (const ControlRow& row : control_rows()) {
        if (row.control.group != group || !(value & row.control.mask())) continue;
        unnamed &= ~row.control.mask();
        words.push_back(
            {fmt::format("bit {}", row.control.bit), spaced(row.name.substr(row.name.find('.') + 1))});
    }
    if (unnamed) words.push_back({"bits " + bit_numbers(unnamed), "without a name (default1, or reserved)"});
    return words;
}

bool same(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
        return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
    });
}

struct VmcbLayout {
    std::string_view field, layout;
};
constexpr VmcbLayout vmcb_layouts[] = {
    {"cr0", "cr0"},
    {"cr4", "cr4"},
    {"efer", "efer"},
    {"rflags", "rflags"},
    {"g_pat", "pat"},
    {"cs_attrib", "attributes"},
    {"eventinj", "svm_event"},
    {"exitintinfo", "svm_event"},
    {"nested_control", "nested_control"},
};

} // namespace

std::optional<VmcsField> find_vmcs_field(std::string_view name) {
    for (std::size_t i = 0; i < vmcs_field_count; ++i)
        if (same(vmcs_field_rows[i].name, name)) return static_cast<VmcsField>(i);
    return std::nullopt;
}

std::vector<Words> field_in_words(VmcsField field, u64 value) {
    for (const ControlField& row : control_fields)
        if (row.field == field) return controls_in_words(row.group, value);
    for (const FieldLayout& row : vmcs_layouts)
        if (row.field == field) return in_words(row.layout, value);
    const std::string_view name = row_of(field).name;
    if (name.ends_with("_selector")) return in_words("selector", value);
    if (name.ends_with("_access_rights")) return in_words("access_rights", value);
    if (field == F::exit_reason) return {{"", std::string(exit_reason_name(static_cast<u16>(value)))}};
    if (field == F::vm_instruction_error)
        return {{"", std::string(instruction_error_name(static_cast<u32>(value)))}};
    return {};
}

std::string show_field(VmcsField field, u64 value) {
    static constexpr unsigned digits[] = {4, 16, 8, 16}; // by FieldWidth
    return fmt::format("0x{:0{}x}", value, digits[static_cast<unsigned>(row_of(field).width)]);
}

const VMCB::FieldRow* find_vmcb_field(std::string_view name) {
    for (const VMCB::FieldRow& row : VMCB::field_rows)
        if (same(row.name, name)) return &row;
    return nullptr;
}

std::vector<Words> field_in_words(const VMCB::FieldRow& field, u64 value) {
    for (const VmcbLayout& row : vmcb_layouts)
        if (row.field == field.name) return in_words(row.layout, value);
    if (field.name.ends_with("_selector")) return in_words("selector", value);
    return {};
}

std::string show_field(const VMCB::FieldRow& field, u64 value) {
    return fmt::format("0x{:0{}x}", value, 2 * field.bytes);
}

} // namespace exeunt
