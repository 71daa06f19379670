// `exeunt trace show`: one record of a recording with every field in words.
#include "cli/command.hpp"
#include "cli/selection.hpp"
#include "cli/text.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace exeunt {

namespace {

struct ShowOptions {
    RecordChoice choice;
    std::string format = "text";
};

int show(const ShowOptions& o) {
    const ChosenRecord chosen = choose_record(o.choice);
    const std::vector<Explained> lines = explain_record(chosen.record);
    if (o.format == "json") {
        nlohmann::ordered_json out{{"record", chosen.number},
                                   {"event", record_name(chosen.record.kind)},
                                   {"tick", chosen.record.tick},
                                   {"fields", explained_json(lines)}};
        if (!chosen.rules.empty()) out["violated"] = rules_json(chosen.rules);
        fmt::print("{}\n", out.dump(2));
        return 0;
    }
    fmt::print("{}\n{}", bold(record_heading(chosen)), explained_text(lines, 2));
    if (chosen.record.kind == RecordKind::vm_entry_failure && !chosen.rules.empty())
        fmt::print("  violated rules, in the processor's order:\n");
    fmt::print("{}", rules_text(chosen.rules, 4));
    return 0;
}

} // namespace

void add_trace_show(CLI::App& trace, Session& session) {
    CLI::App* verb = trace.add_subcommand("show", "Print one record with all its fields in words");
    auto o = std::make_shared<ShowOptions>();
    add_record_options(*verb, o->choice, true);
    verb->add_option("--format", o->format, "text or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->capture_default_str();
    verb->footer(
        "Of a VM entry that was refused, every violated rule: id, section of the manual, the rule in words,\n"
        "its fields with their values, what was allowed, and who wrote the field last.");
    verb->callback([o, &session] { session.status = show(*o); });
}

} // namespace exeunt
