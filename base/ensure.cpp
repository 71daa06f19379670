#include "base/ensure.hpp"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace exeunt {

namespace {
// The one piece of process-wide state: whom to ask for words when exeunt itself is wrong.
std::function<std::string()>& reporter() {
    static std::function<std::string()> instance;
    return instance;
}
}  // namespace

void set_invariant_reporter(std::function<std::string()> function) { reporter() = std::move(function); }

void invariant_broken(const char* condition, const char* file, int line) {
    std::fprintf(stderr, "exeunt: an invariant of exeunt broke: %s (%s:%d)\n", condition, file, line);
    if (auto function = std::exchange(reporter(), nullptr)) std::fputs(function().c_str(), stderr);
    std::exit(6);
}

}  // namespace exeunt
