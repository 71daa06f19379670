// `exeunt explain`: what a record of a recording means, what an exit, a field or a rule of the manuals is,
// and both walks of an address at a record.
#include "base/bad_input.hpp"
#include "cli/command.hpp"
#include "cli/numbers.hpp"
#include "cli/replaying.hpp"
#include "cli/selection.hpp"
#include "cli/text.hpp"
#include "diagnosis/fields.hpp"
#include "diagnosis/live.hpp"
#include "diagnosis/memory_watch.hpp"
#include "diagnosis/walks.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace exeunt {

using nlohmann::ordered_json;

namespace {

struct ExplainOptions {
    RecordChoice choice;
    std::string linear, guest_physical, access, format = "text";
    bool user = false, writers = false, fields = false;
};

// ---- A record
// ---------------------------------------------------------------------------------------------------

std::string walk_text(const ExplainedWalk& walk) {
    std::string text = bold(walk.question) + "\n";
    for (const std::string& root : walk.roots) text += "  " + root + "\n";
    std::vector<std::vector<std::string>> rows{{"", "entry at", "value", "bits"}};
    for (const WalkLine& line : walk.lines)
        rows.push_back(
            {(line.second_level ? "  " : "") + line.name, line.where, line.entry, line.words, line.writer});
    if (rows.size() > 1) text += table(rows, 2);
    for (const std::string& verdict : walk.verdict) text += "  " + verdict + "\n";
    return text;
}

ordered_json walk_json(const ExplainedWalk& walk) {
    ordered_json lines = ordered_json::array();
    for (const WalkLine& line : walk.lines)
        lines.push_back({{"level", line.name},
                         {"second_level", line.second_level},
                         {"at", line.where},
                         {"entry", line.entry},
                         {"bits", line.words},
                         {"writer", line.writer}});
    return {{"question", walk.question},
            {"roots", walk.roots},
            {"entries", lines},
            {"translates", walk.translates},
            {"verdict", walk.verdict}};
}

std::string fields_text(const std::vector<ExplainedField>& fields) {
    std::vector<std::vector<std::string>> rows{{"field", "place", "value", "last writer", "in words"}};
    for (const ExplainedField& f : fields) rows.push_back({f.name, f.place, f.value, f.writer, f.words});
    return table(rows);
}

/// The addresses that the user asks about, or the one about which the record is.
std::vector<WalkQuestion> questions_of(const ExplainOptions& o, const Record& record) {
    std::vector<WalkQuestion> questions;
    const WalkQuestion by_record = faulting_access(record);
    WalkQuestion q = by_record;
    if (o.access == "read") q.access.type = AccessType::read;
    if (o.access == "write") q.access.type = AccessType::write;
    if (o.access == "execute") q.access.type = AccessType::execute;
    if (o.user) q.access.privilege = Privilege::user;
    if (!o.linear.empty()) {
        q.linear = true;
        q.address = parse_number(o.linear, "--linear");
        questions.push_back(q);
    }
    if (!o.guest_physical.empty()) {
        q.linear = false;
        q.address = parse_number(o.guest_physical, "--guest-physical");
        questions.push_back(q);
    }
    if (questions.empty() && is_translation_fault(record)) questions.push_back(q);
    return questions;
}

/// Runs the recording once more, with a watch on the pages of which it is now known that they matter.
void add_writers(const std::string& directory, ChosenRecord& chosen, std::vector<ExplainedWalk>& walks,
                 const std::optional<Physical>& vmcb) {
    std::unique_ptr<MemoryWatch> watch;
    const auto prepare = [&](Machine& machine) {
        watch = std::make_unique<MemoryWatch>(machine);
        if (vmcb) watch->watch(*vmcb);
        for (const ExplainedWalk& walk : walks)
            for (const WalkLine& line : walk.lines)
                if (!line.in_register) watch->watch(line.physical);
    };
    replay_to(
        directory, chosen.number,
        [&](Machine&, unsigned) {
            for (ExplainedWalk& walk : walks)
                for (WalkLine& line : walk.lines)
                    if (!line.in_register)
                        line.writer = writer_in_words(watch->writer(line.physical, line.bytes));
            for (ExplainedRule& rule : chosen.rules)
                for (ExplainedField& field : rule.fields)
                    if (vmcb && field.number < VMCB::bytes)
                        field.writer = writer_in_words(watch->writer(*vmcb + field.number, field.bytes));
        },
        prepare);
}

bool in_a_world(RecordKind kind) {
    return kind == RecordKind::vm_exit || kind == RecordKind::vm_entry ||
           kind == RecordKind::vm_entry_failure;
}

int explain_recorded(const ExplainOptions& o) {
    ChosenRecord chosen = choose_record(o.choice);
    const Record& record = chosen.record;
    const std::vector<WalkQuestion> questions = questions_of(o, record);
    const bool asked = !o.linear.empty() || !o.guest_physical.empty() || o.fields;
    if (asked && !in_a_world(record.kind))
        throw BadInput("--record", fmt::format("{}", chosen.number), "a VM exit, a VM entry or its failure");
    std::vector<ExplainedWalk> walks;
    std::optional<Physical> vmcb;
    std::vector<ExplainedField> fields;
    if (!questions.empty() || record.kind == RecordKind::vm_entry_failure || o.fields)
        replay_to(o.choice.directory, chosen.number, [&](Machine& machine, unsigned number) {
            Cpu& cpu = machine.cpu(number);
            const bool entered = record.kind != RecordKind::vm_entry_failure;
            for (const WalkQuestion& q : questions) walks.push_back(explain_walk(cpu, q, entered));
            if (!entered) add_conditions(chosen.rules, cpu);
            vmcb = vmcb_of(cpu);
            if (o.fields) fields = all_fields(cpu);
        });
    if (o.writers) add_writers(o.choice.directory, chosen, walks, vmcb);
    const std::vector<Explained> lines = explain_record(record);
    if (o.format == "json") {
        ordered_json out{{"record", chosen.number},
                         {"event", record_name(record.kind)},
                         {"tick", record.tick},
                         {"fields", explained_json(lines)},
                         {"violated", rules_json(chosen.rules)},
                         {"walks", ordered_json::array()}};
        for (const ExplainedWalk& walk : walks) out["walks"].push_back(walk_json(walk));
        for (const ExplainedField& field : fields) out[vmcb ? "vmcb" : "vmcs"][field.name] = field.value;
        fmt::print("{}\n", out.dump(2));
        return 0;
    }
    fmt::print("{}\n{}", bold(record_heading(chosen)), explained_text(lines, 2));
    if (!chosen.rules.empty()) {
        fmt::print("\n{} violated rule{}, in the processor's order; the first one decides what happens:\n\n",
                   chosen.rules.size(), chosen.rules.size() == 1 ? "" : "s");
        fmt::print("{}", rules_text(chosen.rules, 2));
    }
    for (const ExplainedWalk& walk : walks) fmt::print("\n{}", walk_text(walk));
    if (!fields.empty()) fmt::print("\n{}", fields_text(fields));
    return 0;
}

// ---- A number or a name of the manuals
// --------------------------------------------------------------------------

void print_parts(const std::vector<Words>& parts) {
    std::vector<std::vector<std::string>> rows;
    std::vector<Words> flags;
    for (const Words& words : parts)
        if (words.name.empty()) {
            flags.push_back(words);
        } else {
            rows.push_back({words.name, words.words});
        }
    fmt::print("{}", table(rows, 4));
    if (!flags.empty()) fmt::print("    {}\n", on_one_line(flags));
}

struct ManualOptions {
    std::string what, value, second, vendor = "intel";
    bool svm() const { return vendor == "amd"; }
};

int explain_exit(const ManualOptions& o) {
    u64 reason = 0;
    if (!find_exit(o.svm(), o.what, reason)) reason = parse_number(o.what, "REASON");
    const u64 qualification = o.value.empty() ? 0 : parse_number(o.value, "QUALIFICATION");
    const u64 second = o.second.empty() ? 0 : parse_number(o.second, "INFORMATION");
    const std::string name = exit_name(o.svm(), reason);
    if (name.empty())
        throw BadInput("REASON", o.what, o.svm() ? "an exit code of AMD-V" : "a basic exit reason");
    fmt::print("{}\n", bold(fmt::format("{} {}: {}", o.svm() ? "EXITCODE" : "exit reason",
                                        manual_hexadecimal(reason), name)));
    if (!o.svm() && (reason >> 31)) fmt::print("  the VM entry failed (bit 31)\n");
    if (!o.svm()) fmt::print("  VM-exit instruction length: {}\n", length_rule(reason));
    if (!o.value.empty()) {
        const auto words = qualification_in_words(o.svm(), reason, qualification);
        fmt::print("  {} {:#x}{}\n", o.svm() ? "EXITINFO1" : "exit qualification", qualification,
                   words.empty() ? ": says nothing" : ":");
        print_parts(words);
    }
    if (!o.second.empty()) {
        const auto words = o.svm() ? second_qualification_in_words(reason, second)
                                   : instruction_information_in_words(reason, second);
        fmt::print("  {} {:#x}{}\n", o.svm() ? "EXITINFO2" : "instruction information", second,
                   words.empty() ? ": says nothing" : ":");
        print_parts(words);
    }
    return 0;
}

int explain_vmcs_field(const ManualOptions& o) {
    std::optional<VmcsField> field = find_vmcs_field(o.what);
    bool high = false;
    if (!field) {
        const auto component = find_component(parse_number(o.what, "FIELD", 16));
        if (!component) throw BadInput("FIELD", o.what, "the name or the encoding of a VMCS field");
        field = component->field;
        high = component->high;
    }
    const u64 value = o.value.empty() ? 0 : parse_number(o.value, "VALUE");
    static constexpr std::string_view widths[] = {"16 bits", "64 bits", "32 bits", "natural width"};
    static constexpr std::string_view types[] = {"control", "read-only data", "guest state", "host state"};
    const VmcsFieldRow& row = row_of(*field);
    fmt::print("{}\n  {}, {}{}\n", bold(fmt::format("{} ({})", row.name, manual_hexadecimal(row.encoding))),
               types[static_cast<unsigned>(row.type)], widths[static_cast<unsigned>(row.width)],
               high ? "; this encoding is its high half" : "");
    if (!o.value.empty()) {
        fmt::print("  value {}\n", show_field(*field, value));
        print_parts(field_in_words(*field, value));
    }
    for (const std::string_view id : rules_about(*field)) {
        const ExplainedRule rule = explain_rule(false, id);
        fmt::print("  rule {} ({}): {}\n", rule.id, rule.citation, rule.words);
    }
    return 0;
}

int explain_vmcb_field(const ManualOptions& o) {
    const VMCB::FieldRow* row = find_vmcb_field(o.what);
    if (!row)
        row =
            VMCB::find_field(static_cast<u32>(std::min(parse_number(o.what, "FIELD", 16), u64{VMCB::bytes})));
    if (!row) throw BadInput("FIELD", o.what, "the name or the offset of a VMCB field");
    const u64 value = o.value.empty() ? 0 : parse_number(o.value, "VALUE");
    fmt::print("{}\n  {} bytes\n",
               bold(fmt::format("{} (offset {})", row->name, manual_hexadecimal(row->offset))), row->bytes);
    if (!o.value.empty()) {
        fmt::print("  value {}\n", show_field(*row, value));
        print_parts(field_in_words(*row, value));
    }
    for (const std::string_view id : rules_about(*row)) {
        const ExplainedRule rule = explain_rule(true, id);
        fmt::print("  rule {} ({}): {}\n", rule.id, rule.citation, rule.words);
    }
    return 0;
}

int explain_a_rule(const ManualOptions& o) {
    for (const bool svm : {false, true}) {
        const ExplainedRule rule = explain_rule(svm, o.what);
        if (rule.words.empty()) continue;
        fmt::print("{}  {}\n  {}\n", bold(rule.id), rule.citation, rule.words);
        for (const std::string& field : fields_of_rule(svm, o.what)) fmt::print("  {}\n", field);
        return 0;
    }
    throw BadInput("ID", o.what, "the id of a rule, such as guest.dr7.bits_63_32 or VMRUN-001");
}

CLI::App* add_manual(CLI::App& verb, const char* name, const char* what,
                     const std::shared_ptr<ManualOptions>& o, const char* value, const char* placeholder) {
    CLI::App* sub = verb.add_subcommand(name, what);
    sub->add_option(placeholder, o->what)->required();
    if (value) sub->add_option(value, o->value);
    if (value)
        sub->add_option("--vendor", o->vendor, "intel: VT-x; amd: AMD-V")
            ->check(CLI::IsMember({"intel", "amd"}))
            ->capture_default_str();
    return sub;
}

constexpr const char* footer = R"(Forms:
  exeunt explain DIR --record N                        a record in words; why a VM entry was refused, with the
                                                       rules, values and last writers; an EPT violation or nested
                                                       page fault with both walks
  exeunt explain DIR --record N --linear ADDR          both walks of an address in the guest, at that record
  exeunt explain DIR --record N --guest-physical ADDR
  exeunt explain DIR --record N --fields               the whole VMCS or VMCB, with the last writers of a VMCS
  exeunt explain exit REASON [QUALIFICATION [INFO]]    an exit reason (EXITCODE with --vendor amd), its fields
  exeunt explain field ENCODING|NAME [VALUE]           a field of the VMCS (of the VMCB with --vendor amd)
  exeunt explain rule ID                               a rule of VM entry

What the trace does not hold is found by replaying the recording up to the record.)";

} // namespace

void add_explain(CLI::App& app, Session& session) {
    CLI::App* verb =
        app.add_subcommand("explain", "Say what a VM exit, a refused VM entry, a field or a rule means");
    auto o = std::make_shared<ExplainOptions>();
    add_record_options(*verb, o->choice, false);
    verb->add_option("--linear", o->linear, "walk this linear address of the guest")->type_name("ADDR");
    verb->add_option("--guest-physical", o->guest_physical, "walk this guest-physical address")
        ->type_name("ADDR");
    verb->add_option("--access", o->access,
                     "read, write or execute (default: what the record's fault did, or read)")
        ->check(CLI::IsMember({"read", "write", "execute"}));
    verb->add_flag("--user", o->user, "as user-mode access");
    verb->add_flag("--writers", o->writers,
                   "who wrote each entry of the walks, or each field of the VMCB, last");
    verb->add_flag("--fields", o->fields,
                   "every field of the VMCS (or VMCB) at the record; as JSON, for `exeunt check`");
    verb->add_option("--format", o->format, "text or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->capture_default_str();
    verb->footer(footer);

    auto manual = std::make_shared<ManualOptions>();
    CLI::App* sub =
        add_manual(*verb, "exit", "An exit reason and its qualification", manual, "QUALIFICATION", "REASON");
    sub->add_option("INFORMATION", manual->second, "instruction information, or EXITINFO2");
    sub->callback([manual, &session] { session.status = explain_exit(*manual); });
    sub = add_manual(*verb, "field", "A field of the VMCS or VMCB, and a value of it", manual, "VALUE",
                     "FIELD");
    sub->callback([manual, &session] {
        session.status = manual->svm() ? explain_vmcb_field(*manual) : explain_vmcs_field(*manual);
    });
    sub = add_manual(*verb, "rule", "A rule of VM entry", manual, nullptr, "ID");
    sub->callback([manual, &session] { session.status = explain_a_rule(*manual); });
    verb->callback([o, verb, &session] {
        if (!verb->get_subcommands().empty()) return;
        if (o->choice.directory.empty())
            throw BadInput("explain: expected DIR, exit, field or rule (see --help)");
        session.status = explain_recorded(*o);
    });
}

} // namespace exeunt
