// How `run` records: what --trace attaches to the machine before it boots, and closes after it.
#pragma once

#include "machine/machine.hpp"

#include <memory>
#include <string>

namespace exeunt {

class Recording {
public:
    virtual ~Recording() = default;
    /// The listeners of the machine.
    virtual Observer* observer() = 0;
    virtual InputLog* input_log() = 0;
    /// After boot(), when the hashes of the images are known, and before the first instruction.
    virtual void started(Machine& machine) = 0;
    /// Called at the end of each slice.
    virtual void poll() {}
    /// The run is over: what was recorded is complete.
    virtual void ended(const Ending& ending) = 0;
};

/// Ticks between two hashes of the whole state in a recording.
inline constexpr Tick state_hash_interval = 1'000'000'000;

/// A recording in the new directory `path`. Throws BadInput.
std::unique_ptr<Recording> start_recording(const std::string& path);

}  // namespace exeunt
