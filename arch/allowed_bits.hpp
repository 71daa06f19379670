// The bits that a rule lets a field have, as the rules of both vendors say it.
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// Those of `must` are 1, those outside of `may` are 0.
struct AllowedBits {
    u64 must = 0, may = ~u64{0};

    constexpr bool restrict_anything() const { return must != 0 || may != ~u64{0}; }
    constexpr bool allow(u64 value) const { return (value & must) == must && (value & ~may) == 0; }
};

} // namespace exeunt
