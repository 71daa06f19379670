#include "devices/hpet.hpp"

namespace exeunt {

namespace {

constexpr u64 gen_conf = 0x010, gintr_sta = 0x020, main_cnt = 0x0F0, first_timer = 0x100, timer_stride = 0x20;
constexpr u64 tn_conf = 0x00, tn_comp = 0x08;

} // namespace

Hpet::Hpet(Clock& clock, const std::array<InterruptLine*, 32>& routes, InterruptLine& irq0,
           InterruptLine& irq8)
    : clock_(clock), routes_(routes), legacy_line_{&irq0, &irq8} {
    for (unsigned n = 0; n < 2; ++n) {
        gate_[n].output = legacy_line_[n];
        gate_[n].hpet = this;
    }
    for (unsigned n = 0; n < comparators; ++n)
        timer_[n] = clock.add("hpet_" + std::to_string(n), [this, n] { expired(n); });
    reset();
}

void Hpet::Gate::set(bool value) {
    level = value;
    if (!hpet->legacy()) output->set(value);
}

void Hpet::reset() {
    for (unsigned n = 0; n < comparators; ++n) {
        drive(n, false);
        comparator_[n] = Comparator{};
        clock_.disarm(timer_[n]);
    }
    config_ = status_ = 0;
    counter_base_ = 0;
    counter_start_ = clock_.now();
    for (Gate& gate : gate_) gate.output->set(gate.level);
}

u64 Hpet::counter() const {
    return counting() ? counter_base_ + (clock_.now() - counter_start_) / ticks_per_count : counter_base_;
}

u32 Hpet::route_capability() const {
    u32 mask = 0;
    for (unsigned n = 0; n < 32; ++n)
        if (routes_[n]) mask |= u32{1} << n;
    return mask;
}

InterruptLine* Hpet::line(unsigned n) const {
    if (legacy() && n < 2) return legacy_line_[n];
    return routes_[extract(comparator_[n].config, 13, 9)];
}

void Hpet::drive(unsigned n, bool level) {
    InterruptLine* output = line(n);
    comparator_[n].level = level && output;
    if (output) output->set(level);
}

void Hpet::refresh(unsigned n) {
    const u64 config = comparator_[n].config;
    drive(n, (config & conf_level) && (config & conf_enable) && test_bit(status_, n));
}

// ---- Comparators
// ------------------------------------------------------------------------------------------------

u64 Hpet::width_mask(const Comparator& comparator) {
    return comparator.config & conf_32bit ? 0xFFFF'FFFF : ~u64{0};
}

void Hpet::arm(unsigned n, bool after_match) {
    const Comparator& comparator = comparator_[n];
    clock_.disarm(timer_[n]);
    if (!counting()) return;
    const u64 mask = width_mask(comparator), now_count = counter();
    u64 left = (comparator.compare - now_count) & mask;
    if (left == 0 && after_match) {
        if (mask == ~u64{0}) return;
        left = mask + 1;
    }
    if (left > bit(56)) return; // centuries away
    const u64 counted = (clock_.now() - counter_start_) / ticks_per_count;
    clock_.arm(timer_[n], counter_start_ + (counted + left) * ticks_per_count);
}

void Hpet::expired(unsigned n) {
    Comparator& comparator = comparator_[n];
    if (comparator.config & conf_level) status_ |= bit(n);
    if (comparator.config & conf_enable) {
        // An edge-triggered line stays up, so that an 8259 still finds it at INTA, and falls before the next
        // edge.
        if (!(comparator.config & conf_level)) drive(n, false);
        drive(n, true);
    }
    if (comparator.config & conf_periodic) {
        const u64 mask = width_mask(comparator), period = comparator.period & mask;
        if (period == 0) return;
        const u64 late = (counter() - comparator.compare) & mask;
        comparator.compare = (comparator.compare + (late / period + 1) * period) & mask;
    }
    arm(n, true);
}

void Hpet::write_config(u64 value) {
    const u64 changed = (value ^ config_) & 3;
    const u64 now_count = counter();
    if (changed & 2)
        for (unsigned n = 0; n < 2; ++n) drive(n, false);
    config_ = value & 3;
    if (changed & 1) {
        counter_base_ = now_count;
        counter_start_ = clock_.now();
        for (unsigned n = 0; n < comparators; ++n) arm(n, false);
    }
    if (changed & 2) {
        for (unsigned n = 0; n < 2; ++n) {
            gate_[n].output->set(legacy() ? false : gate_[n].level);
            refresh(n);
        }
    }
}

void Hpet::write_counter(u64 value) {
    counter_base_ = value;
    counter_start_ = clock_.now();
    for (unsigned n = 0; n < comparators; ++n) arm(n, false);
}

void Hpet::write_comparator_config(unsigned n, u64 value) {
    Comparator& comparator = comparator_[n];
    const u64 old = comparator.config;
    drive(n, false);
    comparator.config = value & (conf_writable | conf_set_value);
    if (comparator.config & conf_32bit) {
        comparator.compare &= 0xFFFF'FFFF;
        comparator.period &= 0xFFFF'FFFF;
    }
    if (!(comparator.config & conf_level)) status_ &= ~bit(n);
    refresh(n);
    // Only what matters to the match re-arms, so that a match of this very count is not seen twice.
    if ((old ^ comparator.config) & (conf_32bit | conf_periodic)) arm(n, true);
}

// HPET 2.3.9.2.2 "Periodic Mode": a write sets the period; the accumulator only with Tn_VAL_SET_CNF.
void Hpet::write_comparator(unsigned n, u64 value) {
    Comparator& comparator = comparator_[n];
    value &= width_mask(comparator);
    const bool periodic = comparator.config & conf_periodic;
    if (periodic) comparator.period = value;
    if (!periodic || (comparator.config & conf_set_value)) comparator.compare = value;
    comparator.config &= ~conf_set_value;
    arm(n, false);
}

// ---- Registers
// --------------------------------------------------------------------------------------------------

u64 Hpet::read_register(u64 offset) const {
    switch (offset) {
    case 0: return capabilities;
    case gen_conf: return config_;
    case gintr_sta: return status_;
    case main_cnt: return counter();
    default: break;
    }
    const u64 n = (offset - first_timer) / timer_stride;
    if (offset < first_timer || n >= comparators) return 0;
    const Comparator& comparator = comparator_[n];
    switch ((offset - first_timer) % timer_stride) {
    case tn_conf:
        return (comparator.config & conf_writable) | conf_periodic_capable | conf_64bit_capable |
               (u64{route_capability()} << 32);
    case tn_comp: return comparator.compare;
    default: return 0;
    }
}

void Hpet::write_register(u64 offset, u64 value, u64 written_mask) {
    const auto merged = [&](u64 old) { return (old & ~written_mask) | (value & written_mask); };
    switch (offset) {
    case gen_conf: write_config(merged(config_)); return;
    case gintr_sta:
        status_ &= ~(value & written_mask);
        for (unsigned n = 0; n < comparators; ++n)
            if (comparator_[n].config & conf_level) refresh(n);
        return;
    case main_cnt: write_counter(merged(counter())); return;
    default: break;
    }
    const u64 n = (offset - first_timer) / timer_stride;
    if (offset < first_timer || n >= comparators) return;
    const Comparator& comparator = comparator_[n];
    const bool period_only = (comparator.config & conf_periodic) && !(comparator.config & conf_set_value);
    switch ((offset - first_timer) % timer_stride) {
    case tn_conf: write_comparator_config(static_cast<unsigned>(n), merged(comparator.config)); return;
    case tn_comp:
        write_comparator(static_cast<unsigned>(n),
                         merged(period_only ? comparator.period : comparator.compare));
        return;
    default: return;
    }
}

u64 Hpet::mmio_read(u64 offset, unsigned size) {
    return part(read_register(offset & ~u64{7}), static_cast<unsigned>(offset & 7), size);
}

void Hpet::mmio_write(u64 offset, unsigned size, u64 value) {
    const unsigned first = static_cast<unsigned>(offset & 7);
    write_register(offset & ~u64{7}, with_part(0, first, size, value), with_part(0, first, size, ~u64{0}));
}

void Hpet::visit(StateVisitor& visitor) {
    visitor.value("config", config_);
    visitor.value("status", status_);
    visitor.value("counter_base", counter_base_);
    visitor.value("counter_start", counter_start_);
    visitor.value("pit_level", gate_[0].level);
    visitor.value("rtc_level", gate_[1].level);
    for (unsigned n = 0; n < comparators; ++n) {
        visitor.enter("comparator_" + std::to_string(n));
        visitor.value("config", comparator_[n].config);
        visitor.value("compare", comparator_[n].compare);
        visitor.value("period", comparator_[n].period);
        visitor.value("level", comparator_[n].level);
        visitor.leave();
    }
}

} // namespace exeunt
