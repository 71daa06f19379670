// The names of arch/intercepts.inc.
#pragma once

#include "base/types.hpp"

#include <bitset>

namespace exeunt {

enum class Intercept : u8 {
#define INTERCEPT(name) name,
#include "arch/intercepts.inc"
    count
};

using InterceptSet = std::bitset<static_cast<std::size_t>(Intercept::count)>;

}  // namespace exeunt
