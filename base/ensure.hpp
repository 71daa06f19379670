// ENSURE: invariants of exeunt itself, on in every build. What a guest does wrong is never an ENSURE.
#pragma once

#include <functional>
#include <string>

namespace exeunt {

/// Adds what should be printed when an invariant breaks (registers, last instructions). Returns nothing to undo:
/// the last reporter set wins, and an empty function removes it.
void set_invariant_reporter(std::function<std::string()> reporter);

/// Prints the broken invariant and the reporter's text, and ends the process with status 6.
[[noreturn]] void invariant_broken(const char* condition, const char* file, int line);

}  // namespace exeunt

#define ENSURE(condition)                                                               \
    do {                                                                                \
        if (!(condition)) [[unlikely]]                                                  \
            ::exeunt::invariant_broken(#condition, __FILE__, __LINE__);                 \
    } while (false)
