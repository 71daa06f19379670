#include "traces/replayer.hpp"

#include "traces/recorder.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

Replayer::Replayer(const std::string& directory, std::function<void()> differs)
    : reader_(RecordingPaths(directory).stream), differs_(std::move(differs)) {}

void Replayer::vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) { compare(tick, cpu, record); }
void Replayer::vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) { compare(tick, cpu, record); }
void Replayer::vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) {
    compare(tick, cpu, record);
    for (const RuleViolation& violation : record.violations) compare(tick, cpu, ViolationRecord{violation, record.svm});
}
void Replayer::state(Tick tick, const StateDigest& hash) {
    ++states_;
    compare(tick, hash);
}
void Replayer::end(Tick tick, const EndRecord& record) { compare(tick, record); }

void Replayer::finish() {
    if (exhausted_ || !difference_.empty()) return;
    Record expected;
    const std::span<const u8> recorded = reader_.next();
    if (recorded.empty()) return;
    decode(recorded, expected);
    report(fmt::format("record {} ({}), recorded at tick {}, did not come again", compared_ + 1,
                       record_name(expected.kind), expected.tick));
}

void Replayer::report(std::string text) {
    difference_ = std::move(text);
    differs_();
}

template <class... Arguments>
void Replayer::compare(Tick tick, const Arguments&... arguments) {
    if (exhausted_ || !difference_.empty()) return;
    encode(bytes_, tick, arguments...);
    const std::span<const u8> recorded = reader_.next();
    if (recorded.empty()) {
        exhausted_ = true;
        differs_();
        return;
    }
    if (std::equal(recorded.begin(), recorded.end(), bytes_.begin(), bytes_.end())) {
        ++compared_;
        return;
    }
    Record expected, found;
    decode(recorded, expected);
    decode(bytes_, found);
    report(fmt::format("record {} ({}): {}\n  recorded at tick {}, replayed at tick {}", compared_ + 1,
                       record_name(expected.kind), first_difference(expected, found), expected.tick, found.tick));
}

std::optional<Record> last_record(const std::string& directory) {
    PacketReader reader(RecordingPaths(directory).stream);
    std::optional<Record> record;
    for (auto bytes = reader.next(); !bytes.empty(); bytes = reader.next()) {
        if (!record) record.emplace();
        decode(bytes, *record);
    }
    return record;
}

std::string first_difference(const Record& a, const Record& b) {
    if (a.kind != b.kind) return fmt::format("kind: {}, {}", record_name(a.kind), record_name(b.kind));
    if (a.tick != b.tick) return fmt::format("tick: {}, {}", a.tick, b.tick);
    const auto fields = record_fields(a.kind);
    for (std::size_t i = 0; i < fields.size(); ++i) {
        const bool same = fields[i].shown == Shown::text ? a.text == b.text : a.values[i] == b.values[i];
        if (!same)
            return fmt::format("{}: {}, {}", fields[i].name, show_value(fields[i], a.values[i], a.text),
                               show_value(fields[i], b.values[i], b.text));
    }
    return {};
}

}  // namespace exeunt
