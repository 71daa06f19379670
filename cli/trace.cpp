// `exeunt trace`: list, count, compare and export what a recording holds.
#include "base/bad_input.hpp"
#include "cli/command.hpp"
#include "cli/trace_names.hpp"
#include "traces/recorder.hpp"
#include "traces/replayer.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

namespace exeunt {

namespace {

constexpr int status_difference = 12;

/// Calls `visit` with every record; it returns whether to go on.
template <class Visit>
void for_each(const std::string& directory, Visit visit) {
    PacketReader reader(RecordingPaths(directory).stream);
    Record record;
    for (auto bytes = reader.next(); !bytes.empty(); bytes = reader.next()) {
        decode(bytes, record);
        if (!visit(record)) return;
    }
    if (reader.cut()) fmt::print(stderr, "exeunt: {}: the last packet is cut short\n", directory);
}

// ---- list --------------------------------------------------------------------------------------------------------------

/// A violation about no field, or one that is no matter of bits.
bool says_nothing(std::string_view field, u64 value) {
    return (field == "may_be_1" && value == ~u64{0}) || (field == "field" && value == RuleViolation::no_field);
}

/// The fields of a record that say something: not zero, and not already in the fixed columns.
std::string details(const Record& record) {
    std::string text;
    const auto fields = record_fields(record.kind);
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const FieldRow& row = fields[i];
        if (record.kind == RecordKind::violation && (row.name == "rule" || says_nothing(row.name, record.values[i])))
            continue;
        if (row.name == "cpu" || row.name == "vendor" || row.name == "reason" || row.name == "rip") continue;
        if (row.shown == Shown::text ? record.text.empty() : record.values[i] == 0) continue;
        if (!text.empty()) text += ' ';
        text += fmt::format("{}={}", row.name, show_value(row, record.values[i], record.text));
    }
    return text;
}

struct ListOptions {
    std::string directory, reason;
    u64 first = 1, count = ~u64{0};
};

int list(const ListOptions& o) {
    u64 number = 0;
    for_each(o.directory, [&](const Record& record) {
        if (number++ == 0)  // not before there is something to read
            fmt::print("{:>8} {:>14} {:>3}  {:<16} {:<28} {:>18}  {}\n", "record", "tick", "cpu", "event", "reason", "rip",
                       "fields");
        if (number < o.first) return true;
        if (number - o.first >= o.count) return false;
        const std::string name = reason_name(record);
        if (!o.reason.empty() && name.find(o.reason) == std::string::npos) return true;
        fmt::print("{:>8} {:>14} {:>3}  {:<16} {:<28} {:>18}  {}\n", number, record.tick, record["cpu"],
                   record_name(record.kind), name, fmt::format("{:#x}", record["rip"]), details(record));
        return true;
    });
    return 0;
}

// ---- stat --------------------------------------------------------------------------------------------------------------

/// Of one exit reason: how often, and the ticks from the exit to the next entry of the same processor.
struct Count {
    std::string name;
    u64 exits = 0, entered = 0;
    Tick total = 0, least = never, most = 0;
};

int stat(const std::string& directory) {
    std::map<std::pair<u64, u64>, Count> counts;  // by vendor and reason
    struct Out {
        Tick since;
        Count* reason;
    };
    std::map<u64, Out> outside;  // by processor
    u64 exits = 0, entries = 0, failures = 0;
    Tick last = 0;
    for_each(directory, [&](const Record& record) {
        last = record.tick;
        switch (record.kind) {
            case RecordKind::vm_exit: {
                Count& count = counts[{record["vendor"], record["reason"]}];
                count.name = reason_name(record);
                ++count.exits;
                ++exits;
                outside[record["cpu"]] = {record.tick, &count};
                break;
            }
            case RecordKind::vm_entry: {
                ++entries;
                const auto found = outside.find(record["cpu"]);
                if (found == outside.end()) break;
                const Tick ticks = record.tick - found->second.since;
                Count& count = *found->second.reason;
                ++count.entered;
                count.total += ticks;
                count.least = std::min(count.least, ticks);
                count.most = std::max(count.most, ticks);
                outside.erase(found);
                break;
            }
            case RecordKind::vm_entry_failure: ++failures; break;
            default: break;
        }
        return true;
    });
    std::vector<const Count*> rows;
    Tick total = 0;
    for (const auto& [key, count] : counts) {
        rows.push_back(&count);
        total += count.total;
    }
    std::stable_sort(rows.begin(), rows.end(), [](const Count* a, const Count* b) { return a->exits > b->exits; });
    fmt::print("{:<32} {:>10} {:>8}  {:>14} {:>8} {:>10} {:>10} {:>12}\n", "VM exit", "count", "share", "ticks outside",
               "share", "min", "max", "mean");
    for (const Count* row : rows) {
        const auto share = [](u64 part, u64 whole) {
            return whole ? fmt::format("{:.2f}%", 100.0 * static_cast<double>(part) / static_cast<double>(whole)) : "-";
        };
        const std::string mean =
            row->entered ? fmt::format("{:.1f}", static_cast<double>(row->total) / static_cast<double>(row->entered)) : "-";
        fmt::print("{:<32} {:>10} {:>8}  {:>14} {:>8} {:>10} {:>10} {:>12}\n", row->name, row->exits,
                   share(row->exits, exits), row->total, share(row->total, total), row->entered ? row->least : 0,
                   row->most, mean);
    }
    fmt::print("\n{} exits, {} entries, {} entry failures; {} ticks outside the guest; last record at tick {}\n", exits,
               entries, failures, total, last);
    return 0;
}

// ---- diff --------------------------------------------------------------------------------------------------------------

int diff(const std::string& a, const std::string& b) {
    PacketReader first(RecordingPaths(a).stream), second(RecordingPaths(b).stream);
    Record x, y;
    for (u64 number = 1;; ++number) {
        const auto from_a = first.next();
        const auto from_b = second.next();
        if (from_a.empty() && from_b.empty()) {
            fmt::print("identical: {} records\n", number - 1);
            return 0;
        }
        if (from_a.empty() || from_b.empty()) {
            fmt::print("record {}: only in {}\n", number, from_a.empty() ? b : a);
            return status_difference;
        }
        if (std::equal(from_a.begin(), from_a.end(), from_b.begin(), from_b.end())) continue;
        decode(from_a, x);
        decode(from_b, y);
        fmt::print("record {} ({}): {}\n  {}: tick {}, {} {}\n  {}: tick {}, {} {}\n", number, record_name(x.kind),
                   first_difference(x, y), a, x.tick, reason_name(x), details(x), b, y.tick, reason_name(y), details(y));
        return status_difference;
    }
}

// ---- export ------------------------------------------------------------------------------------------------------------

nlohmann::ordered_json to_json(const Record& record) {
    nlohmann::ordered_json out;
    out["event"] = record_name(record.kind);
    out["tick"] = record.tick;
    const auto fields = record_fields(record.kind);
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const std::string name(fields[i].name);
        if (fields[i].shown == Shown::text) {
            out[name] = record.text;
        } else {
            out[name] = record.values[i];
        }
    }
    if (const std::string name = reason_name(record); !name.empty()) out["reason_name"] = name;
    return out;
}

void export_jsonl(const std::string& directory) {
    for_each(directory, [](const Record& record) {
        fmt::print("{}\n", to_json(record).dump());
        return true;
    });
}

/// Chrome's trace event format, which Perfetto reads: a slice for each stay in the guest, by processor.
void export_perfetto(const std::string& directory) {
    fmt::print("{{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n");
    std::map<u64, Tick> entered;
    bool first = true;
    const auto put = [&first](const nlohmann::ordered_json& event) {
        fmt::print("{}{}", first ? "" : ",\n", event.dump());
        first = false;
    };
    for_each(directory, [&](const Record& record) {
        const u64 cpu = record["cpu"];
        const double microseconds = static_cast<double>(record.tick) / 1000.0;
        if (record.kind == RecordKind::vm_entry) entered[cpu] = record.tick;
        if (record.kind == RecordKind::vm_exit) {
            const auto since = entered.find(cpu);
            if (since != entered.end())
                put({{"name", "guest"}, {"ph", "X"}, {"pid", 0}, {"tid", cpu},
                     {"ts", static_cast<double>(since->second) / 1000.0},
                     {"dur", static_cast<double>(record.tick - since->second) / 1000.0}});
        }
        if (record.kind == RecordKind::vm_exit || record.kind == RecordKind::vm_entry_failure)
            put({{"name", reason_name(record)}, {"ph", "i"}, {"s", "t"}, {"pid", 0}, {"tid", cpu},
                 {"ts", microseconds}, {"args", to_json(record)}});
        return true;
    });
    fmt::print("\n]}}\n");
}

}  // namespace

void add_trace(CLI::App& app, Session& session) {
    CLI::App* verb = app.add_subcommand("trace", "List, show, count, compare and export a recording's VM exits");
    verb->require_subcommand(1);

    auto l = std::make_shared<ListOptions>();
    CLI::App* sub = verb->add_subcommand("list", "Print the records, a line each");
    sub->add_option("DIR", l->directory, "recording")->required();
    sub->add_option("--first", l->first, "number of the first record to print")->capture_default_str();
    sub->add_option("--count", l->count, "how many records");
    sub->add_option("--reason", l->reason, "only records whose reason contains this text");
    sub->callback([l, &session] { session.status = list(*l); });

    add_trace_show(*verb, session);

    auto directory = std::make_shared<std::string>();
    sub = verb->add_subcommand("stat", "Count the exits by reason, with the ticks spent outside the guest");
    sub->add_option("DIR", *directory, "recording")->required();
    sub->callback([directory, &session] { session.status = stat(*directory); });

    auto other = std::make_shared<std::string>();
    sub = verb->add_subcommand("diff", "Find the first record in which two recordings differ (status 12)");
    sub->add_option("A", *directory, "recording")->required();
    sub->add_option("B", *other, "recording")->required();
    sub->callback([directory, other, &session] { session.status = diff(*directory, *other); });

    auto format = std::make_shared<std::string>("jsonl");
    sub = verb->add_subcommand("export", "Write the records to standard output in another format");
    sub->add_option("DIR", *directory, "recording")->required();
    sub->add_option("--format", *format, "jsonl (JSON Lines) or perfetto (Perfetto's JSON)")
        ->check(CLI::IsMember({"jsonl", "perfetto"}))
        ->capture_default_str();
    sub->callback([directory, format, &session] {
        *format == "jsonl" ? export_jsonl(*directory) : export_perfetto(*directory);
        session.status = 0;
    });
    verb->footer("A recording is CTF 1.8: babeltrace2 and Trace Compass read it, too.");
}

}  // namespace exeunt
