#include "diagnosis/violations.hpp"

#include "diagnosis/fields.hpp"
#include "svm/vmrun_checks.hpp"
#include "vmx/entry_checks.hpp"

#include <fmt/format.h>

namespace exeunt {

ExplainedRule explain_rule(bool svm, std::string_view id) {
    ExplainedRule rule{.id = std::string(id), .citation = {}, .words = {}, .fields = {}};
    if (svm) {
        if (const VmrunCheck* check = find_vmrun_check(id)) {
            rule.citation = check->citation;
            rule.words = "illegal: " + std::string(check->illegal);
        }
    } else if (const EntryCheck* check = find_entry_check(id)) {
        rule.citation = check->citation;
        rule.words = check->rule;
    }
    return rule;
}

std::string allowed_in_words(const AllowedBits& allowed, u64 value) {
    if (!allowed.restrict_anything()) return {};
    std::string text;
    if (allowed.must) text += fmt::format("must be 1: {:#x}; ", allowed.must);
    text += fmt::format("may be 1: {:#x}", allowed.may);
    const u64 missing = allowed.must & ~value, excess = value & ~allowed.may;
    if (missing) text += fmt::format("; wrongly 0: bits {}", bit_numbers(missing));
    if (excess) text += fmt::format("; wrongly 1: bits {}", bit_numbers(excess));
    return text;
}

std::string writer_in_words(const WrittenBy& writer) {
    if (writer.kind == WrittenBy::Kind::unknown) return {};
    return fmt::format("{} {:#x}, tick {}, CPU {}",
                       writer.kind == WrittenBy::Kind::software ? "written at"
                                                                : "saved by the VM exit at guest RIP",
                       writer.rip, writer.tick, writer.cpu);
}

namespace {

/// Of controls, of which there are many, those that are wrong; of other fields all bits.
u64 interesting_bits(VmcsField field, const RuleViolation& v) {
    const bool controls = row_of(field).name.ends_with("_controls");
    if (!controls || !v.allowed.restrict_anything()) return v.value;
    return (v.allowed.must & ~v.value) | (v.value & ~v.allowed.may);
}

} // namespace

ExplainedField explain_field(bool svm, const RuleViolation& v) {
    ExplainedField field;
    field.number = v.field;
    if (svm) {
        const VMCB::FieldRow* row = VMCB::find_field(v.field);
        if (row) field.bytes = row->bytes;
        field.place = manual_hexadecimal(v.field);
        field.name = row ? std::string(row->name) : "?";
        field.value = row ? show_field(*row, v.value) : fmt::format("{:#x}", v.value);
        if (row) field.words = on_one_line(field_in_words(*row, v.value));
    } else {
        const auto component = find_component(v.field);
        field.place = manual_hexadecimal(v.field);
        field.name = component ? std::string(row_of(component->field).name) : "?";
        field.value = component ? show_field(component->field, v.value) : fmt::format("{:#x}", v.value);
        if (component)
            field.words =
                on_one_line(field_in_words(component->field, interesting_bits(component->field, v)));
    }
    field.allowed = allowed_in_words(v.allowed, v.value);
    field.writer = writer_in_words(v.writer);
    return field;
}

void add_violation(std::vector<ExplainedRule>& rules, bool svm, const RuleViolation& violation) {
    if (rules.empty() || rules.back().id != violation.rule)
        rules.push_back(explain_rule(svm, violation.rule));
    if (violation.field != RuleViolation::no_field)
        rules.back().fields.push_back(explain_field(svm, violation));
}

void add_violation(std::vector<ExplainedRule>& rules, const Record& r) {
    const u64 by = r["written_by"];
    const RuleViolation violation{
        .rule = r.text,
        .field = static_cast<u32>(r["field"]),
        .value = r["value"],
        .allowed = {r["must_be_1"], r["may_be_1"]},
        .writer = {by <= 2 ? static_cast<WrittenBy::Kind>(by) : WrittenBy::Kind::unknown,
                   static_cast<u32>(r["writer_cpu"]), r["writer_rip"], r["writer_tick"]}};
    add_violation(rules, r["vendor"] == 1, violation);
}

} // namespace exeunt
