#include "base/clock.hpp"

#include <algorithm>

namespace exeunt {

Clock::TimerId Clock::add(std::string name, std::function<void()> expired) {
    timers_.push_back({std::move(name), std::move(expired), never});
    return timers_.size() - 1;
}

void Clock::arm(TimerId timer, Tick deadline) {
    const Tick before = next();
    timers_[timer].deadline = deadline;
    if (const Tick after = next(); after != before) source_.deadline_changed(after);
}

Tick Clock::next() const {
    Tick earliest = never;
    for (const Timer& timer : timers_) earliest = std::min(earliest, timer.deadline);
    return earliest;
}

void Clock::run_due() {
    for (;;) {
        auto due = std::min_element(timers_.begin(), timers_.end(),
                                    [](const Timer& a, const Timer& b) { return a.deadline < b.deadline; });
        if (due == timers_.end() || due->deadline > now()) return;
        due->deadline = never;
        due->expired();
    }
}

void Clock::visit(StateVisitor& visitor) {
    for (Timer& timer : timers_) visitor.value(timer.name, timer.deadline);
}

}  // namespace exeunt
