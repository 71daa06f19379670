// The only source of chance in the machine: a seeded generator whose stream is part of the state.
#pragma once

#include "base/snapshot.hpp"
#include "base/types.hpp"

namespace exeunt {

/// SplitMix64: every seed gives a full-period stream; the same on every native machine.
class Random {
public:
    explicit Random(u64 seed = 0) : state_(seed) {}

    u64 next() {
        state_ += 0x9E37'79B9'7F4A'7C15;
        u64 z = state_;
        z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9;
        z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EB;
        return z ^ (z >> 31);
    }
    void visit(StateVisitor& visitor) { visitor.value("state", state_); }

private:
    u64 state_;
};

}  // namespace exeunt
