// Replay: the records of a run under way are compared with those of a recording, one by one; the first difference
// ends it.
#pragma once

#include "traces/packets.hpp"
#include "traces/records.hpp"

#include <functional>
#include <optional>
#include <string>

namespace exeunt {

class Replayer final : public Observer {
public:
    /// `differs` is called once, at the first difference. Throws BadInput when the recording can not be read.
    Replayer(const std::string& directory, std::function<void()> differs);

    void vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) override;
    void vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) override;
    void vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) override;
    void state(Tick tick, const StateDigest& hash);
    void end(Tick tick, const EndRecord& record);
    /// The run is over: a record that did not come again is a difference, too.
    void finish();

    /// What differs, in a few lines for people; empty while nothing does.
    const std::string& difference() const { return difference_; }
    u64 compared() const { return compared_; }
    u64 states_compared() const { return states_; }
    /// Every record of an incomplete recording was reached: what follows can not be compared.
    bool exhausted() const { return exhausted_; }

private:
    template <class... Arguments>
    void compare(Tick tick, const Arguments&... arguments);
    void report(std::string text);

    PacketReader reader_;
    std::function<void()> differs_;
    RecordBytes bytes_;
    std::string difference_;
    u64 compared_ = 0, states_ = 0;
    bool exhausted_ = false;
};

/// The last record, if there is any; its kind is `end` in a recording that was closed. Throws BadInput.
std::optional<Record> last_record(const std::string& directory);

/// The first way in which two records differ: "field: a, b"; empty when they are the same.
std::string first_difference(const Record& a, const Record& b);

}  // namespace exeunt
