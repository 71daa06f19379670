// The APIC timer: one-shot, periodic and TSC-deadline. SDM 3A 10.5.4 "APIC Timer", 10.5.4.1 "TSC-Deadline
// Mode".
//
// Nothing counts: `count_` counts were left at `count_start_`, and the rest is arithmetic on the present
// tick. The clock is armed only while an expiry would interrupt; settle_timer() makes up for expiries nobody
// saw.
#include "apic/local_apic.hpp"

namespace exeunt {

// SDM 3A Figure 10-10 "Divide Configuration Register".
u64 LocalApic::timer_period() const {
    const u32 divide = reg(DIVIDE_CONFIG);
    const unsigned code = ((divide >> 1) & 4) | (divide & 3);
    return ticks_per_count * (code == 7 ? 1 : u64{2} << code);
}

void LocalApic::settle_timer() {
    if (timer_mode() == TimerMode::tsc_deadline) {
        // While it is not masked, a deadline that passed is timer_expired()'s to clear.
        if ((reg(LVT_TIMER) & lvt_mask) && !before_deadline()) tsc_deadline_ = 0;
        return;
    }
    if (count_ == 0) return;
    const u64 elapsed = (clock_.now() - count_start_) / timer_period();
    if (elapsed < count_) return;
    const u32 initial = reg(INITIAL_COUNT);
    if (timer_mode() != TimerMode::periodic || initial == 0) {
        count_ = 0;
        return;
    }
    const u64 cycles = 1 + (elapsed - count_) / initial; // times the count came to 0
    count_start_ += (count_ + (cycles - 1) * initial) * timer_period();
    count_ = initial;
}

/// An expiry that is due but not yet run by the clock happens before anything that looks at the timer.
void LocalApic::catch_up() {
    if (clock_.deadline(timer_) <= clock_.now()) {
        clock_.disarm(timer_);
        timer_expired();
    }
    settle_timer();
}

u32 LocalApic::current_count() {
    catch_up();
    if (timer_mode() == TimerMode::tsc_deadline || count_ == 0) return 0;
    return count_ - static_cast<u32>((clock_.now() - count_start_) / timer_period());
}

void LocalApic::start_count(u32 count) {
    count_ = count;
    count_start_ = clock_.now();
    arm_timer();
}

void LocalApic::arm_timer() {
    if (reg(LVT_TIMER) & lvt_mask) {
        clock_.disarm(timer_);
    } else if (timer_mode() == TimerMode::tsc_deadline) {
        if (tsc_deadline_ == 0) {
            clock_.disarm(timer_);
            return;
        }
        const Tick now = clock_.now();
        const u64 tsc = now + tsc_.tsc_offset();
        const u64 left = tsc >= tsc_deadline_ ? 0 : tsc_deadline_ - tsc;
        clock_.arm(timer_, left >= never - now ? never : now + left);
    } else if (count_ == 0) {
        clock_.disarm(timer_);
    } else {
        clock_.arm(timer_, count_start_ + count_ * timer_period());
    }
}

void LocalApic::timer_expired() {
    if (timer_mode() == TimerMode::tsc_deadline) {
        // The TSC may have been set back since the deadline was computed.
        if (before_deadline()) {
            arm_timer();
            return;
        }
        tsc_deadline_ = 0;
    } else {
        settle_timer();
    }
    arm_timer();
    deliver_lvt(LVT_TIMER);
}

bool LocalApic::before_deadline() const {
    return tsc_deadline_ != 0 && clock_.now() + tsc_.tsc_offset() < tsc_deadline_;
}

void LocalApic::initial_count_written(u32 old, u32 value) {
    if (timer_mode() == TimerMode::tsc_deadline) {
        reg(INITIAL_COUNT) = old; // SDM 3A 10.5.4.1: writes are ignored
        return;
    }
    reg(INITIAL_COUNT) = old;
    catch_up();
    reg(INITIAL_COUNT) = value;
    start_count(value);
}

void LocalApic::divide_written(u32 old, u32) {
    const u32 divide = reg(DIVIDE_CONFIG);
    reg(DIVIDE_CONFIG) = old;
    const u32 left = current_count();
    reg(DIVIDE_CONFIG) = divide;
    if (count_ != 0) start_count(left);
}

// Changing between one-shot and periodic lets the count go on; into or out of TSC-deadline mode disarms.
void LocalApic::lvt_timer_written(u32 old, u32 value) {
    const u32 written = reg(LVT_TIMER);
    reg(LVT_TIMER) = old;
    catch_up();
    const TimerMode before = timer_mode();
    reg(LVT_TIMER) = written;
    lvt_written(old, value);
    if (before != timer_mode() &&
        (before == TimerMode::tsc_deadline || timer_mode() == TimerMode::tsc_deadline)) {
        count_ = 0;
        tsc_deadline_ = 0;
    }
    arm_timer();
}

} // namespace exeunt
