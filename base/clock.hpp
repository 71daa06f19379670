// Virtual time. A tick is one retired instruction, one iteration of a REP string instruction, one delivered
// event or VM exit, or the same length of time spent halted; it is also one nanosecond of virtual time.
// It is the only clock: every timer of the machine is a function of it.
#pragma once

#include "base/snapshot.hpp"
#include "base/types.hpp"

#include <functional>
#include <string>
#include <vector>

namespace exeunt {

using Tick = u64;

inline constexpr Tick never = ~Tick{0};
inline constexpr u64 ticks_per_second = 1'000'000'000;

/// Where the present moment comes from (the machine knows how far the running processor has come), and whom to
/// tell that the next deadline moved, so that the processor stops in time.
class TimeSource {
public:
    virtual ~TimeSource() = default;
    virtual Tick now() const = 0;
    virtual void deadline_changed(Tick next) = 0;
};

/// Deadlines of the machine's timers. Callbacks run in order of deadline, then of registration, at their tick.
class Clock {
public:
    using TimerId = std::size_t;

    explicit Clock(TimeSource& source) : source_(source) {}

    Tick now() const { return source_.now(); }
    /// Registers a timer, disarmed. `name` identifies it in snapshots.
    TimerId add(std::string name, std::function<void()> expired);
    /// Arms (or re-arms) a timer for an absolute tick; a deadline in the past expires as soon as possible.
    void arm(TimerId timer, Tick deadline);
    void disarm(TimerId timer) { arm(timer, never); }
    Tick deadline(TimerId timer) const { return timers_[timer].deadline; }
    /// The earliest deadline, or `never`.
    Tick next() const;
    /// Runs every callback that is due at now().
    void run_due();
    void visit(StateVisitor& visitor);

private:
    struct Timer {
        std::string name;
        std::function<void()> expired;
        Tick deadline = never;
    };
    TimeSource& source_;
    std::vector<Timer> timers_;
};

}  // namespace exeunt
