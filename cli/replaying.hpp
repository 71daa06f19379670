// A recorded machine, made again and ready to run: every record is compared with the recording's.
#pragma once

#include "machine/machine.hpp"
#include "traces/recorder.hpp"
#include "traces/replayer.hpp"

#include <functional>
#include <optional>
#include <string>

namespace exeunt {

class ReplayedMachine {
public:
    /// Throws BadInput, also when an image has changed.
    explicit ReplayedMachine(const std::string& directory);

    /// Makes the machine ready to run: reads its images.
    void boot() { machine.boot(); }
    bool ended_from_outside() const;

    RecordingDescription description;
    Tick last_tick = 0;                 ///< of the last record
    std::optional<Record> recorded_end; ///< none when the recording was not closed
    Machine machine;
    Replayer replayer;
    RecordedInput input;
};

/// A line on a terminal that says how far it is; nothing elsewhere.
class ReplayProgress {
public:
    void show(const Replayer& replayer, Tick tick);
    ~ReplayProgress();

private:
    Tick shown_ = 0;
};

/// Runs the recording up to record `number` (of a VM exit, a VM entry or its failure) and calls `reached`
/// there, while the machine is as it was then; `prepare`, if given, before the first instruction. Throws
/// BadInput when the run differs before, or has no such record.
void replay_to(const std::string& directory, u64 number,
               const std::function<void(Machine&, unsigned cpu)>& reached,
               const std::function<void(Machine&)>& prepare = {});

} // namespace exeunt
