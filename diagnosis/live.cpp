#include "diagnosis/live.hpp"

#include "diagnosis/fields.hpp"
#include "svm/svm.hpp"
#include "vmx/vmx.hpp"

#include <fmt/format.h>

namespace exeunt {

namespace {

void add_condition(ExplainedRule& rule, bool svm, const RuleViolation& field) {
    ExplainedField explained = explain_field(svm, field);
    explained.condition = true;
    rule.fields.push_back(std::move(explained));
}

} // namespace

void add_conditions(std::vector<ExplainedRule>& rules, Cpu& cpu) {
    if (auto* vmx = dynamic_cast<Vmx*>(cpu.virtualization); vmx && vmx->current()) {
        const Vmcs& v = *vmx->current();
        for (ExplainedRule& rule : rules)
            if (const EntryCheck* check = find_entry_check(rule.id))
                for (const VmcsField f : check->fields.depends)
                    add_condition(rule, false, {rule.id, row_of(f).encoding, v[f], {}, v.writer(f)});
    }
    if (auto* svm = dynamic_cast<Svm*>(cpu.virtualization)) {
        u8 bytes[VMCB::bytes];
        cpu.memory.read_bytes(Physical{svm->vmcb_address()}, bytes, sizeof bytes);
        const VmcbView vmcb(bytes);
        for (ExplainedRule& rule : rules)
            if (const VmrunCheck* check = find_vmrun_check(rule.id))
                for (const u16 offset : check->fields.depends.all())
                    add_condition(rule, true, {rule.id, offset, vmcb.get(*VMCB::find_field(offset)), {}, {}});
    }
}

std::vector<ExplainedField> all_fields(Cpu& cpu) {
    std::vector<ExplainedField> fields;
    if (auto* vmx = dynamic_cast<Vmx*>(cpu.virtualization); vmx && vmx->current()) {
        const Vmcs& v = *vmx->current();
        for (std::size_t i = 0; i < vmcs_field_count; ++i) {
            const auto f = static_cast<VmcsField>(i);
            if (vmx->capabilities().exists(f))
                fields.push_back(explain_field(false, {"", row_of(f).encoding, v[f], {}, v.writer(f)}));
        }
    }
    if (const std::optional<Physical> at = vmcb_of(cpu)) {
        u8 bytes[VMCB::bytes];
        cpu.memory.read_bytes(*at, bytes, sizeof bytes);
        for (const VMCB::FieldRow& row : VMCB::field_rows)
            fields.push_back(explain_field(true, {"", row.offset, VmcbView(bytes).get(row), {}, {}}));
    }
    return fields;
}

std::optional<Physical> vmcb_of(Cpu& cpu) {
    const auto* svm = dynamic_cast<Svm*>(cpu.virtualization);
    if (!svm) return std::nullopt;
    return Physical{svm->vmcb_address()};
}

namespace {

/// A page fault of the guest that was intercepted.
bool is_page_fault(const Record& r) {
    if (r["vendor"] == 1) return r["reason"] == ExitCode::EXCP0 + 14;
    const u64 event = r["interruption_information"];
    return r["reason"] == 0 && (event & 0xFF) == 14 && extract(event, 10, 8) == 3;
}

AccessType access_type(u64 bits, u64 fetch, u64 write) {
    return bits & fetch ? AccessType::execute : bits & write ? AccessType::write : AccessType::read;
}

WalkQuestion page_fault_access(const Record& r) {
    const bool svm = r["vendor"] == 1;
    const u64 error = svm ? r["qualification"] : r["interruption_error"];
    WalkQuestion q;
    q.address = svm ? r["qualification2"] : r["qualification"];
    q.access.type = access_type(error, PFEC::I, PFEC::W);
    q.access.privilege = error & PFEC::U ? Privilege::user : Privilege::supervisor;
    return q;
}

} // namespace

bool is_translation_fault(const Record& r) {
    if (r.kind != RecordKind::vm_exit) return false;
    if (is_page_fault(r)) return true;
    const u64 reason = r["reason"];
    return r["vendor"] == 1 ? reason == ExitCode::NPF : reason == 48 || reason == 49;
}

WalkQuestion faulting_access(const Record& r) {
    WalkQuestion q;
    q.access.privilege = Privilege::supervisor_smap_off;
    if (!is_translation_fault(r)) return q;
    if (is_page_fault(r)) return page_fault_access(r);
    const u64 qualification = r["qualification"];
    q.linear = false;
    q.address = r["guest_physical"];
    if (r["vendor"] == 1) {
        q.access.type = access_type(qualification, PFEC::I, PFEC::W);
    } else if (r["reason"] == 48) {
        q.access.type = access_type(qualification, bit(2), bit(1));
        if (qualification & bit(7)) { // the linear address says more: both walks
            q.linear = true;
            q.address = r["guest_linear"];
        }
    }
    return q;
}

std::vector<std::string_view> rules_about(VmcsField field) {
    std::vector<std::string_view> ids;
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks)
            if (check.fields.restricted.contains(field)) ids.push_back(check.id);
    return ids;
}

std::vector<std::string_view> rules_about(const VMCB::FieldRow& field) {
    std::vector<std::string_view> ids;
    for (const VmrunCheck& check : vmrun_checks())
        for (const u16 offset : check.fields.restricted.all())
            if (offset == field.offset) ids.push_back(check.id);
    return ids;
}

std::vector<std::string> fields_of_rule(bool svm, std::string_view id) {
    std::vector<std::string> lines;
    const auto add = [&](std::string_view verb, std::string_view name, u64 place) {
        lines.push_back(fmt::format("{} {} ({})", verb, name, manual_hexadecimal(place)));
    };
    if (svm) {
        const VmrunCheck* check = find_vmrun_check(id);
        if (!check) return lines;
        for (const u16 offset : check->fields.restricted.all())
            add("restricts", VMCB::find_field(offset)->name, offset);
        for (const u16 offset : check->fields.depends.all())
            add("given", VMCB::find_field(offset)->name, offset);
    } else if (const EntryCheck* check = find_entry_check(id)) {
        for (const VmcsField f : check->fields.restricted)
            add("restricts", row_of(f).name, row_of(f).encoding);
        for (const VmcsField f : check->fields.depends) add("given", row_of(f).name, row_of(f).encoding);
    }
    return lines;
}

} // namespace exeunt
