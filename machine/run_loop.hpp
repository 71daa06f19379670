// Who runs when. One global tick counter; the processors take turns in slices of ticks, so that the order of
// everything is a function of the configuration and of the schedule seed. When every processor waits, time jumps
// to the next thing that is due.
#pragma once

#include "base/clock.hpp"
#include "base/input.hpp"
#include "base/random.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace exeunt {

struct Cpu;
class Bus;

/// Why a run is over.
enum class EndReason : u8 {
    powered_off,  ///< ACPI S5
    debug_exit,   ///< isa-debug-exit; `value` is what was written
    limit,        ///< the tick limit
    interrupted,  ///< asked to stop from outside (a signal)
    quit,         ///< the user quit
    shutdown,     ///< triple fault outside a guest
    hung,         ///< every processor waits and nothing can ever wake one
    unmodelled,   ///< something that exeunt does not model
};

struct Ending {
    EndReason reason = EndReason::powered_off;
    Tick tick = 0;
    unsigned cpu = 0;     ///< shutdown, unmodelled: which processor
    u32 value = 0;        ///< debug_exit
    std::string message{};  ///< one line for people; empty when there is nothing to say

    /// The exit status of `exeunt` (docs/exit-status.md): even numbers are exeunt's, odd ones the guest's.
    int status() const;
};

/// How the processors take turns.
struct Schedule {
    Tick slice = 20'000;  ///< ticks that a processor runs before it is another's turn
    u64 seed = 0;         ///< 0: in order of their numbers; else order and lengths are drawn from this seed
    Tick limit = never;   ///< where the run ends
};

class RunLoop final : public TimeSource {
public:
    RunLoop(const Schedule& schedule, Bus& bus);

    void add(Cpu& cpu);
    void set_clock(Clock& clock) { clock_ = &clock; }
    /// A run that ended at its limit goes on with run() after a new one.
    void set_limit(Tick limit) {
        schedule_.limit = limit;
        if (ending_ && ending_->reason == EndReason::limit) ending_.reset();
    }
    /// Where input comes from, who takes it, and who keeps it (null: nobody).
    using InputPort = std::function<void(std::span<const u8>)>;
    void set_input(InputSource& source, InputPort port, InputLog* log);
    /// Called natively often (at the end of each slice): to write out buffers, to look for signals.
    void set_slice_end(std::function<void()> slice_end) { slice_end_hook_ = std::move(slice_end); }
    /// Called at the first end of a slice after every `interval` ticks; the same moments in every run.
    void set_checkpoint(Tick interval, std::function<void(Tick)> checkpoint);

    /// Runs until something ends the run.
    const Ending& run();
    /// Ends the run at the next boundary. The first call counts.
    void end(Ending ending);
    bool ended() const { return ending_.has_value(); }
    /// Runs `action` between two slices (a reset can not happen inside an instruction).
    void between_slices(std::function<void()> action);

    Tick now() const override;
    void deadline_changed(Tick next) override;
    /// The processor whose instruction is under way, or nullptr.
    Cpu* running() { return running_; }

    void visit(StateVisitor& visitor);

private:
    void step();
    void expire();
    void begin_slice();
    void end_slice();
    void run_slice();
    void jump();
    void wake_all() { waiting_.assign(waiting_.size(), false); }
    bool all_wait() const;
    bool can_wake() const;
    Tick next_due() const;
    void take_input();
    void give_up(std::string message);

    Schedule schedule_;
    Bus& bus_;
    Clock* clock_ = nullptr;
    std::vector<Cpu*> cpus_;
    std::vector<bool> waiting_;  ///< ran last without progress, and nothing has happened since
    unsigned current_ = 0;
    Tick now_ = 0;
    Tick slice_end_ = 0;
    bool in_slice_ = false;
    Random random_;
    Tick deaf_since_ = never;    ///< since when every processor has waited with interrupts disabled

    Cpu* running_ = nullptr;
    Tick run_deadline_ = never;
    std::optional<Ending> ending_;
    std::vector<std::function<void()>> actions_;
    NoInput no_input_;
    InputSource* input_ = &no_input_;
    InputPort input_port_;
    InputLog* input_log_ = nullptr;
    std::function<void()> slice_end_hook_;
    Tick checkpoint_interval_ = never, next_checkpoint_ = never;
    std::function<void(Tick)> checkpoint_;
};

}  // namespace exeunt
