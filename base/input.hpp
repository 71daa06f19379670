// The door through which everything comes that the machine's state does not determine: keys on the serial line.
// Each piece is stamped with a tick and logged; a replay reads that log instead of the world.
#pragma once

#include "base/clock.hpp"

#include <span>
#include <vector>

namespace exeunt {

/// Where input comes from: a terminal, a pipe, or the log of an earlier run.
class InputSource {
public:
    virtual ~InputSource() = default;
    /// Whether anything can still come.
    virtual bool open() const = 0;
    /// At most `room` bytes that have come by `now`. Asked at the ends of slices and after waits only, so that a
    /// replay, which knows the ticks, finds the same moments.
    virtual std::vector<u8> take(Tick now, std::size_t room) = 0;
    /// Every processor waits and nothing is due between `from` and `to` (`never`: nothing at all). Returns the
    /// tick, after `from` and no later than `to`, at which input came, or `to`.
    virtual Tick wait(Tick from, Tick to) = 0;
};

/// No input at all.
class NoInput final : public InputSource {
public:
    bool open() const override { return false; }
    std::vector<u8> take(Tick, std::size_t) override { return {}; }
    Tick wait(Tick, Tick to) override { return to; }
};

/// Who keeps what came in.
class InputLog {
public:
    virtual ~InputLog() = default;
    virtual void input(Tick tick, std::span<const u8> bytes) = 0;
};

}  // namespace exeunt
