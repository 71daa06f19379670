#include "cli/selection.hpp"

#include "base/bad_input.hpp"
#include "traces/packets.hpp"
#include "traces/recorder.hpp"

#include <fmt/format.h>

namespace exeunt {

void add_record_options(CLI::App& verb, RecordChoice& choice, bool directory_required) {
    auto* directory = verb.add_option("DIR", choice.directory, "recording made by `exeunt run --trace DIR`");
    if (directory_required) directory->required();
    auto* record =
        verb.add_option("--record", choice.record, "number of the record, as `exeunt trace list` counts")
            ->check(CLI::PositiveNumber);
    verb.add_option("--exit", choice.exit, "the N-th VM exit instead")
        ->check(CLI::PositiveNumber)
        ->excludes(record);
}

ChosenRecord choose_record(const RecordChoice& choice) {
    const RecordingPaths paths(choice.directory);
    if (choice.record == 0 && choice.exit == 0) throw BadInput("expected --record N or --exit N");
    PacketReader reader(paths.stream);
    ChosenRecord chosen;
    u64 number = 0, exits = 0;
    bool found = false;
    Record record;
    for (auto bytes = reader.next(); !bytes.empty(); bytes = reader.next()) {
        decode(bytes, record);
        ++number;
        if (found) {
            if (record.kind != RecordKind::violation) return chosen;
            add_violation(chosen.rules, record);
            continue;
        }
        exits += record.kind == RecordKind::vm_exit;
        found = choice.record ? number == choice.record : exits == choice.exit;
        if (!found) continue;
        chosen.record = record;
        chosen.number = number;
        if (record.kind == RecordKind::violation) {
            add_violation(chosen.rules, record);
            return chosen;
        }
        if (record.kind != RecordKind::vm_entry_failure) return chosen;
    }
    if (found) return chosen;
    throw BadInput(choice.directory, choice.record ? "--record" : "--exit",
                   choice.record ? fmt::format("a number up to {}", number)
                                 : fmt::format("a number up to {}: so many VM exits it holds", exits));
}

std::string record_heading(const ChosenRecord& chosen) {
    const Record& r = chosen.record;
    std::string text = fmt::format("record {}: {} at tick {}", chosen.number, record_name(r.kind), r.tick);
    const bool of_a_cpu = r.kind != RecordKind::state && r.kind != RecordKind::end;
    if (of_a_cpu) text += fmt::format(", CPU {}, {}", r["cpu"], r["vendor"] == 1 ? "AMD-V" : "VT-x");
    return text;
}

} // namespace exeunt
