#include "cli/recording.hpp"

#include "machine/snapshot.hpp"
#include "traces/recorder.hpp"

#include <chrono>

namespace exeunt {

namespace {

class TraceRecording final : public Recording {
public:
    explicit TraceRecording(const std::string& path) : recorder_(path) {}

    Observer* observer() override { return &recorder_; }
    InputLog* input_log() override { return &recorder_; }

    void started(Machine& machine) override {
        machine_ = &machine;
        recorder_.describe(machine.config().to_json());
        machine.loop().set_checkpoint(state_hash_interval, [this, &machine](Tick tick) {
            recorder_.state(tick, StateDigest::parse(state_hash(machine)));
        });
    }

    /// Once a native second what there is goes to the file; the bytes do not depend on when.
    void poll() override {
        const auto now = std::chrono::steady_clock::now();
        if (now - flushed_ < std::chrono::seconds(1)) return;
        flushed_ = now;
        if (!recorder_.flush())
            machine_->loop().end({.reason = EndReason::interrupted, .message = "the trace could not be written"});
    }

    void ended(const Ending& ending) override {
        recorder_.end(ending.tick, {static_cast<u32>(ending.status()), static_cast<u8>(ending.reason), StateDigest::parse(state_hash(*machine_))});
    }

private:
    Recorder recorder_;
    Machine* machine_ = nullptr;
    std::chrono::steady_clock::time_point flushed_ = std::chrono::steady_clock::now();
};

}  // namespace

std::unique_ptr<Recording> start_recording(const std::string& path) { return std::make_unique<TraceRecording>(path); }

}  // namespace exeunt
