// `exeunt replay`: runs a recorded machine again and compares every record and the state hashes.
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/replaying.hpp"
#include "machine/snapshot.hpp"

#include <fmt/format.h>
#include <memory>

namespace exeunt {

namespace {

constexpr int status_difference = 12;

/// What came of it, for people and as exit status.
int verdict(const Replayer& replayer, bool closed, Tick tick) {
    if (!replayer.difference().empty()) {
        fmt::print("different: {}\n", replayer.difference());
        return status_difference;
    }
    if (replayer.exhausted() && closed) {
        fmt::print("different: the replay went on after record {}, the last of the recording\n", replayer.compared());
        return status_difference;
    }
    if (!closed) {
        fmt::print("identical as far as it goes: {} records, {} state hashes; the recording was not closed\n",
                   replayer.compared(), replayer.states_compared());
        return 0;
    }
    fmt::print("identical: {} records, {} state hashes, {} ticks\n", replayer.compared(),
               replayer.states_compared() + 1, tick);
    return 0;
}

int replay(const std::string& directory) {
    ReplayedMachine replayed(directory);
    Machine& machine = replayed.machine;
    Replayer& replayer = replayed.replayer;
    const std::optional<Record>& recorded_end = replayed.recorded_end;
    // A user's quit or a signal ended the recorded run between two slices: nothing in the machine says when.
    const bool from_outside = replayed.ended_from_outside();
    replayed.boot(); // refuses images whose hashes differ
    bool interrupted = false;
    Ending ending;
    {
        const StopSignals signals;
        ReplayProgress progress;
        machine.loop().set_slice_end([&] {
            progress.show(replayer, machine.now());
            if (from_outside && machine.now() >= replayed.last_tick) machine.loop().end({.reason = EndReason::quit});
            if (StopSignals::received() == 0) return;
            interrupted = true;
            machine.loop().end({.reason = EndReason::interrupted});
        });
        ending = machine.run();
    }
    if (interrupted) {
        fmt::print(stderr, "exeunt: interrupted after {} identical records\n", replayer.compared());
        return ending.status();
    }
    if (replayer.difference().empty() && !replayer.exhausted() && recorded_end) {
        EndRecord end{static_cast<u32>(ending.status()), static_cast<u8>(ending.reason),
                      StateDigest::parse(state_hash(machine))};
        if (from_outside && ending.reason == EndReason::quit) {
            end.status = static_cast<u32>((*recorded_end)["status"]);
            end.reason = static_cast<u8>((*recorded_end)["reason"]);
        }
        replayer.end(ending.tick, end);
    }
    replayer.finish();
    return verdict(replayer, recorded_end.has_value(), ending.tick);
}

}  // namespace

void add_replay(CLI::App& app, Session& session) {
    CLI::App* verb = app.add_subcommand("replay", "Run a recording again and compare every record");
    auto directory = std::make_shared<std::string>();
    verb->add_option("DIR", *directory, "recording made by `exeunt run --trace DIR`")->required();
    verb->footer("Images must be where they were and have the same contents. Status 0: identical; 12: different, with\n"
                 "the record, its first field that differs, and the tick.");
    verb->callback([directory, &session] { session.status = replay(*directory); });
}

}  // namespace exeunt
