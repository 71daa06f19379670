#include "cli/replaying.hpp"

#include "base/bad_input.hpp"
#include "cli/console.hpp"
#include "cli/recording.hpp"
#include "machine/snapshot.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>

namespace exeunt {

namespace {

/// The `end` record; none when the recording was not closed. `last_tick`: of the last record.
std::optional<Record> find_end(const std::string& directory, bool complete, Tick& last_tick) {
    std::optional<Record> last = last_record(directory);
    const bool closed = last && last->kind == RecordKind::end;
    if (complete && !closed)
        throw BadInput(RecordingPaths(directory).stream, "end",
                       "the last record of a recording that was closed");
    last_tick = last ? last->tick : 0;
    return closed ? last : std::nullopt;
}

/// Passes everything on to the replayer, and tells when the record with the number sought has come.
class Seeker final : public Observer {
public:
    Seeker(Replayer& replayer, u64 number, std::function<void(unsigned)> reached)
        : replayer_(replayer), number_(number), reached_(std::move(reached)) {}

    void vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) override {
        replayer_.vm_exit(cpu, tick, record);
        look(cpu);
    }
    void vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) override {
        replayer_.vm_entry(cpu, tick, record);
        look(cpu);
    }
    void vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) override {
        replayer_.vm_entry_failure(cpu, tick, record);
        look(cpu);
    }
    bool found() const { return found_; }

private:
    void look(unsigned cpu) {
        if (found_ || replayer_.compared() < number_) return;
        found_ = true;
        reached_(cpu);
    }

    Replayer& replayer_;
    u64 number_;
    std::function<void(unsigned)> reached_;
    bool found_ = false;
};

} // namespace

ReplayedMachine::ReplayedMachine(const std::string& directory)
    : description(read_description(directory)),
      recorded_end(find_end(directory, description.complete, last_tick)),
      machine(MachineConfig::from_json(description.configuration, RecordingPaths(directory).description)),
      replayer(directory, [this] { machine.loop().end({.reason = EndReason::quit}); }),
      input(directory) {
    machine.set_observer(&replayer);
    machine.set_input(input, nullptr);
    machine.loop().set_checkpoint(state_hash_interval, [this](Tick tick) {
        replayer.state(tick, StateDigest::parse(state_hash(machine)));
    });
    machine.loop().set_limit(std::min(machine.config().schedule.limit, last_tick + 1));
}

bool ReplayedMachine::ended_from_outside() const {
    if (!recorded_end) return false;
    const auto reason = static_cast<EndReason>((*recorded_end)["reason"]);
    return reason == EndReason::interrupted || reason == EndReason::quit;
}

namespace {

bool on_a_terminal() { return isatty(STDERR_FILENO) == 1; }

} // namespace

void ReplayProgress::show(const Replayer& replayer, Tick tick) {
    if (!on_a_terminal() || tick - shown_ < ticks_per_second / 4) return;
    shown_ = tick;
    fmt::print(stderr, "\rreplay: {} records, tick {} ", replayer.compared(), tick);
}

ReplayProgress::~ReplayProgress() {
    if (shown_ > 0) fmt::print(stderr, "\r\033[K");
}

void replay_to(const std::string& directory, u64 number,
               const std::function<void(Machine&, unsigned cpu)>& reached,
               const std::function<void(Machine&)>& prepare) {
    ReplayedMachine replayed(directory);
    Machine& machine = replayed.machine;
    Seeker seeker(replayed.replayer, number, [&](unsigned cpu) {
        reached(machine, cpu);
        machine.loop().end({.reason = EndReason::quit});
    });
    machine.set_observer(&seeker);
    replayed.boot();
    if (prepare) prepare(machine);
    bool interrupted = false;
    {
        const StopSignals signals;
        ReplayProgress progress;
        machine.loop().set_slice_end([&] {
            progress.show(replayed.replayer, machine.now());
            interrupted = StopSignals::received() != 0;
            if (interrupted) machine.loop().end({.reason = EndReason::interrupted});
        });
        machine.run();
    }
    if (seeker.found()) return;
    if (interrupted) throw BadInput("interrupted before the record was reached");
    throw BadInput(directory, "replay",
                   "the same records as in the recording; different: " + replayed.replayer.difference());
}

} // namespace exeunt
