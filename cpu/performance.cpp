#include "cpu/performance.hpp"

#include "cpu/cpu.hpp"

#include <algorithm>

namespace exeunt {

namespace {

// IA32_PERFEVTSELx, SDM 3B Figure 18-6.
constexpr u64 select_user = bit(16), select_supervisor = bit(17), select_edge = bit(18), select_interrupt = bit(20),
              select_enable = bit(22), select_invert = bit(23);
// Pre-defined architectural events by event select and unit mask, SDM 3B Table 18-1.
constexpr u64 unhalted_core_cycles = 0x003C, instructions_retired = 0x00C0, unhalted_reference_cycles = 0x013C;
/// IA32_DEBUGCTL, SDM 3B 18.2.2.1.
constexpr u64 freeze_counters_on_pmi = bit(12);
constexpr u64 value_mask = low_mask(PerformanceMonitor::width);

constexpr u64 status_bit(unsigned n) {
    return n < PerformanceMonitor::counters ? bit(n) : bit(32 + n - PerformanceMonitor::counters);
}

} // namespace

PerformanceMonitor::Counting PerformanceMonitor::configuration(unsigned n) const {
    Counting c;
    if (!(global_control_ & status_bit(n))) return c;
    if (n >= counters) {
        const u64 control = fixed_control_ >> 4 * (n - counters);
        c.supervisor = control & 1;
        c.user = control & 2;
        c.interrupts = control & 8;
        c.source = n == counters ? Source::instructions : Source::cycles;
    } else {
        const u64 select = select_[n], event = select & 0xFFFF;
        if (!(select & select_enable) || (select & select_edge)) return c;
        c.supervisor = select & select_supervisor;
        c.user = select & select_user;
        c.interrupts = select & select_interrupt;
        if (event == instructions_retired) c.source = Source::instructions;
        if (event == unhalted_core_cycles || event == unhalted_reference_cycles) c.source = Source::cycles;
        // With a counter mask, cycles are counted in which the event occurs at least that often; it occurs once in each.
        const u64 counter_mask = extract(select, 31, 24);
        const bool reached = counter_mask <= 1, inverted = (select & select_invert) && counter_mask != 0;
        if (reached == inverted) c.source = Source::nothing;
        if (inverted && !reached) c.source = Source::cycles;
    }
    if (!c.user && !c.supervisor) c.source = Source::nothing;
    return c;
}

/// Derives what follows from the controls, and when a counter overflows at the earliest.
void PerformanceMonitor::configure() {
    by_privilege_ = runs_ = false;
    u64 least = never;
    for (unsigned n = 0; n < all; ++n) {
        counting_[n] = configuration(n);
        if (counting_[n].source == Source::nothing) continue;
        runs_ = true;
        by_privilege_ |= counting_[n].user != counting_[n].supervisor;
        least = std::min(least, (u64{1} << width) - value_[n]);
    }
    deadline_ = runs_ ? cpu_.now() + least : never;
    if (runs_) cpu_.attention();
}

void PerformanceMonitor::update() {
    const u64 cycles = cpu_.cycles(), instructions = cpu_.instructions();
    const u64 new_cycles = cycles - cycles_seen_, new_instructions = instructions - instructions_seen_;
    const bool user = user_seen_;
    cycles_seen_ = cycles;
    instructions_seen_ = instructions;
    user_seen_ = cpu_.cpl != 0;
    if (!runs_) return;
    bool overflowed = false, interrupt = false;
    u64 least = never;
    for (unsigned n = 0; n < all; ++n) {
        const Counting& c = counting_[n];
        if (c.source == Source::nothing) continue;
        if (user ? c.user : c.supervisor) {
            value_[n] += c.source == Source::cycles ? new_cycles : new_instructions;
            if (value_[n] > value_mask) {
                value_[n] &= value_mask;
                status_ |= status_bit(n);
                overflowed = true;
                interrupt |= c.interrupts;
            }
        }
        least = std::min(least, (u64{1} << width) - value_[n]);
    }
    deadline_ = cpu_.now() + least;
    if (overflowed) overflow(interrupt);
}

/// SDM 3B 18.2.2.1: a performance-monitoring interrupt may stop all counters.
void PerformanceMonitor::overflow(bool interrupt) {
    if (!interrupt || !cpu_.controller) return;
    if (cpu_.debugctl & freeze_counters_on_pmi) {
        global_control_ = 0;
        configure();
    }
    cpu_.controller->performance_interrupt();
}

Result<u64> PerformanceMonitor::read(u32 index) {
    constexpr u32 fixed = u32{1} << 30;
    const u32 n = index & ~fixed;
    if (index & fixed ? n >= fixed_counters : n >= counters) return general_protection(0);
    return index & fixed ? fixed_counter(n) : counter(n);
}

u64 PerformanceMonitor::counter(unsigned n) {
    update();
    return value_[n];
}

u64 PerformanceMonitor::fixed_counter(unsigned n) { return counter(counters + n); }

u64 PerformanceMonitor::status() {
    update();
    return status_;
}

/// SDM 3B 18.2.1.1: bits 31:0 are written, with sign extension.
void PerformanceMonitor::set_counter(unsigned n, u64 value) {
    update();
    value_[n] = sign_extend(value, 32) & value_mask;
    configure();
}

void PerformanceMonitor::set_fixed_counter(unsigned n, u64 value) {
    update();
    value_[counters + n] = value;
    configure();
}

void PerformanceMonitor::set_select(unsigned n, u64 value) {
    update();
    select_[n] = value;
    configure();
}

void PerformanceMonitor::set_fixed_control(u64 value) {
    update();
    fixed_control_ = value;
    configure();
}

void PerformanceMonitor::set_global_control(u64 value) {
    if (value == global_control_) return;
    update();
    global_control_ = value;
    configure();
}

void PerformanceMonitor::clear_status(u64 bits) {
    update();
    status_ &= ~bits;
}

void PerformanceMonitor::reset() {
    for (u64& value : value_) value = 0;
    for (u64& select : select_) select = 0;
    fixed_control_ = status_ = 0;
    global_control_ = low_mask(counters);
    configure();
}

void PerformanceMonitor::visit(StateVisitor& visitor) {
    visitor.enter("performance");
    visitor.array("value", value_);
    visitor.array("select", select_);
    visitor.value("fixed_control", fixed_control_);
    visitor.value("global_control", global_control_);
    visitor.value("status", status_);
    visitor.value("cycles_seen", cycles_seen_);
    visitor.value("instructions_seen", instructions_seen_);
    visitor.value("user_seen", user_seen_);
    visitor.value("deadline", deadline_);
    for (unsigned n = 0; n < all; ++n) counting_[n] = configuration(n);
    by_privilege_ = runs_ = false;
    for (const Counting& c : counting_) {
        if (c.source == Source::nothing) continue;
        runs_ = true;
        by_privilege_ |= c.user != c.supervisor;
    }
    visitor.leave();
}

} // namespace exeunt
