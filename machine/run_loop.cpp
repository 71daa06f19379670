#include "machine/run_loop.hpp"

#include "base/ensure.hpp"
#include "cpu/cpu.hpp"
#include "machine/bus.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

namespace {

/// How long every processor may sit in HLT with interrupts disabled before the machine counts as hung. Timers that
/// nobody can hear go on for ever; NMIs, which could be heard, do not take ten seconds.
constexpr Tick deaf_limit = 10 * ticks_per_second;
/// The most that comes in at one moment.
constexpr std::size_t input_piece = 256;

}  // namespace

int Ending::status() const {
    switch (reason) {
        case EndReason::powered_off:
        case EndReason::quit: return 0;
        case EndReason::debug_exit: return static_cast<int>((value * 2 + 1) & 0xFF);
        case EndReason::limit:
        case EndReason::interrupted: return 8;
        case EndReason::shutdown:
        case EndReason::hung: return 10;
        case EndReason::unmodelled: return 4;
    }
    return 6;
}

RunLoop::RunLoop(const Schedule& schedule, Bus& bus) : schedule_(schedule), bus_(bus), random_(schedule.seed) {
    schedule_.slice = std::max<Tick>(schedule_.slice, 1);
}

void RunLoop::add(Cpu& cpu) {
    cpus_.push_back(&cpu);
    waiting_.push_back(false);
}

void RunLoop::set_input(InputSource& source, InputPort port, InputLog* log) {
    input_ = &source;
    input_port_ = std::move(port);
    input_log_ = log;
}

void RunLoop::set_checkpoint(Tick interval, std::function<void(Tick)> checkpoint) {
    checkpoint_interval_ = interval;
    checkpoint_ = std::move(checkpoint);
    next_checkpoint_ = interval;
}

Tick RunLoop::now() const { return running_ ? running_->now() : now_; }

void RunLoop::deadline_changed(Tick next) {
    if (!running_ || next >= run_deadline_) return;
    run_deadline_ = next;
    running_->shorten(next);
}

void RunLoop::end(Ending ending) {
    if (ending_) return;
    ending.tick = now();
    ending_ = std::move(ending);
    if (running_) running_->request_stop();
}

void RunLoop::between_slices(std::function<void()> action) {
    actions_.push_back(std::move(action));
    if (running_) running_->request_stop();
}

const Ending& RunLoop::run() {
    ENSURE(clock_ && !cpus_.empty());
    while (!ending_) step();
    if (slice_end_hook_) slice_end_hook_();
    return *ending_;
}

void RunLoop::step() {
    expire();
    if (ending_) return;
    if (now_ >= schedule_.limit) {
        end({.reason = EndReason::limit, .message = fmt::format("the limit of {} ticks was reached", now_)});
        return;
    }
    if (all_wait()) {
        jump();
    } else {
        if (!in_slice_) begin_slice();
        run_slice();
    }
}

/// Runs the timers that are due, and what was put off to a moment between instructions.
void RunLoop::expire() {
    while (clock_->next() <= now_) {
        clock_->run_due();
        wake_all();
    }
    while (!actions_.empty()) {
        auto actions = std::exchange(actions_, {});
        for (auto& action : actions) action();
        wake_all();
        in_slice_ = false;
    }
}

/// Chooses the next processor that may have something to do.
void RunLoop::begin_slice() {
    const unsigned count = static_cast<unsigned>(cpus_.size());
    Tick length = schedule_.slice;
    unsigned next = current_ + 1;
    if (schedule_.seed != 0 && count > 1) {
        next = static_cast<unsigned>(random_.next() % count);
        length = 1 + random_.next() % (2 * schedule_.slice - 1);
    }
    for (unsigned i = 0; i < count; ++i) {
        current_ = (next + i) % count;
        if (!waiting_[current_]) break;
    }
    slice_end_ = never - now_ < length ? never : now_ + length;
    in_slice_ = true;
    bus_.set_current(current_);
}

void RunLoop::run_slice() {
    Cpu& cpu = *cpus_[current_];
    const Tick before = now_;
    run_deadline_ = std::min({slice_end_, clock_->next(), schedule_.limit});
    running_ = &cpu;
    const RunEnd end_of_run = cpu.run(now_, run_deadline_);
    now_ = cpu.now();
    running_ = nullptr;
    if (now_ != before) {
        wake_all();
        deaf_since_ = never;
    }
    switch (end_of_run) {
        case RunEnd::deadline: break;
        case RunEnd::halted:
            waiting_[current_] = true;
            in_slice_ = false;
            break;
        case RunEnd::yielded:
            // Where a run ends is not a yield: a replay that ends at this tick by its limit has the same state.
            if (!ending_) in_slice_ = in_slice_ && cpus_.size() == 1;
            break;
        case RunEnd::shutdown:
            end({.reason = EndReason::shutdown,
                 .cpu = current_,
                 .message = fmt::format("CPU {} shut down (triple fault) at RIP {:#x}, tick {}", current_, cpu.rip,
                                        now_)});
            break;
        case RunEnd::unmodelled:
            end({.reason = EndReason::unmodelled,
                 .cpu = current_,
                 .message = fmt::format("not modelled: {} (CPU {}, RIP {:#x}, tick {})", cpu.unmodelled_reason(),
                                        current_, cpu.rip, now_)});
            break;
    }
    if (now_ >= slice_end_) in_slice_ = false;
    if (!in_slice_ && now_ != before) end_slice();
}

/// Only here, and after a jump, does anything enter from outside: moments that a replay finds again.
void RunLoop::end_slice() {
    if (ending_) return;
    take_input();
    if (now_ >= next_checkpoint_) {
        checkpoint_(now_);
        next_checkpoint_ = now_ - now_ % checkpoint_interval_ + checkpoint_interval_;
    }
    if (slice_end_hook_) slice_end_hook_();
}

bool RunLoop::all_wait() const { return std::find(waiting_.begin(), waiting_.end(), false) == waiting_.end(); }

/// Whether an interrupt could wake any of the waiting processors.
bool RunLoop::can_wake() const {
    return std::any_of(cpus_.begin(), cpus_.end(), [](const Cpu* cpu) {
        return cpu->wakes_without_if() || cpu->flag(RFLAGS::IF) || cpu->activity == Activity::active;
    });
}

/// The next tick at which anything happens by itself.
Tick RunLoop::next_due() const {
    Tick due = clock_->next();
    for (const Cpu* cpu : cpus_) due = std::min(due, cpu->wakes_at());
    return std::max(due, now_ + 1);
}

/// Every processor waits: on to the next deadline, or to input.
void RunLoop::jump() {
    in_slice_ = false;
    if (slice_end_hook_) slice_end_hook_();
    if (ending_) return;
    const Tick due = next_due();
    if (!can_wake()) {
        if (deaf_since_ == never) deaf_since_ = now_;
        if (now_ - deaf_since_ >= deaf_limit || due == never)
            return give_up("every CPU waits with interrupts disabled");
    }
    const Tick target = std::min(due, schedule_.limit);
    if (due == never && !input_->open()) return give_up("every CPU waits and no timer is armed");
    const Tick reached = input_->wait(now_, target);
    // Where there was nothing to wait for but input, and none came, only a signal or its end can have ended it.
    if (reached == never) return;
    ENSURE(reached > now_ && reached <= target);
    now_ = reached;
    wake_all();
    take_input();
}

void RunLoop::give_up(std::string message) {
    if (schedule_.limit != never) message += fmt::format(" before the limit of {} ticks", schedule_.limit);
    end({.reason = EndReason::hung,
         .message = fmt::format("hung for ever: {} (CPU {} at RIP {:#x}, tick {})", message, current_,
                                cpus_[current_]->rip, now_)});
}

void RunLoop::take_input() {
    const std::vector<u8> bytes = input_->take(now_, input_piece);
    if (bytes.empty()) return;
    if (input_log_) input_log_->input(now_, bytes);
    if (input_port_) input_port_(bytes);
    wake_all();
    deaf_since_ = never;
}

void RunLoop::visit(StateVisitor& visitor) {
    visitor.enter("run_loop");
    visitor.value("now", now_);
    visitor.value("current", current_);
    visitor.value("slice_end", slice_end_);
    visitor.value("in_slice", in_slice_);
    visitor.enter("schedule");
    random_.visit(visitor);
    visitor.leave();
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
        bool waiting = waiting_[i];
        visitor.value("waiting" + std::to_string(i), waiting);
        waiting_[i] = waiting;
    }
    visitor.leave();
}

}  // namespace exeunt
