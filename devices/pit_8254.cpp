// 8254: registers and ports here, the counting itself as arithmetic on the present cycle.
// Not modelled: a new count in mode 3 is taken at the end of the whole period, not of the half.
#include "devices/pit_8254.hpp"

#include "base/bits.hpp"
#include "devices/register_file.hpp"

namespace exeunt {

namespace {

constexpr u64 never_cycle = ~u64{0};
constexpr u64 refresh_ticks = 15'085; ///< the refresh request that port 61H bit 4 shows: 66.3 kHz

u32 from_bcd(u16 bcd) {
    return (bcd >> 12 & 15) * 1000u + (bcd >> 8 & 15) * 100u + (bcd >> 4 & 15) * 10u + (bcd & 15u);
}
u16 to_bcd(u32 value) {
    return static_cast<u16>(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                            value % 10);
}

} // namespace

Pit8254::Pit8254(Clock& clock, InterruptLine& output)
    : clock_(clock), output_(output), timer_(clock.add("pit_8254", [this] { update(); })) {
    reset();
}

void Pit8254::reset() {
    for (Channel& channel : channel_) channel = Channel{};
    channel_[2].gate = false;
    port61_ = 0;
    update();
}

// ---- Time
// -----------------------------------------------------------------------------------------------------

u64 Pit8254::cycle() const { return static_cast<u64>(u128{clock_.now()} * frequency / ticks_per_second); }

Tick Pit8254::tick_of(u64 cycle) const {
    return static_cast<Tick>((u128{cycle} * ticks_per_second + frequency - 1) / frequency);
}

u32 Pit8254::reload_value(const Channel& channel) {
    if (channel.count_register == 0) return channel.bcd() ? 10'000 : 0x1'0000;
    return channel.bcd() ? from_bcd(channel.count_register) : channel.count_register;
}

bool Pit8254::loaded(const Channel& channel) const {
    return channel.running && (!channel.gate_triggers() || channel.triggered) && cycle() >= channel.start;
}

u64 Pit8254::elapsed(const Channel& channel) const {
    return channel.held ? channel.held_at : cycle() - channel.start;
}

/// Takes a new count whose time has come.
void Pit8254::settle(Channel& channel) {
    if (channel.next_reload == 0 || cycle() < channel.next_start) return;
    channel.reload = channel.next_reload;
    channel.start = channel.next_start;
    channel.next_reload = 0;
}

u16 Pit8254::count_now(Channel& channel) {
    settle(channel);
    u64 value = channel.reload;
    if (loaded(channel)) {
        const u64 passed = elapsed(channel), n = channel.reload;
        const u64 range = channel.bcd() ? 10'000 : 0x1'0000;
        switch (channel.mode()) {
        case 2: value = n - passed % n; break;
        case 3: {
            // Even counts fall by two from n; odd ones from n - 1, with one cycle more in the high half.
            const u64 at = passed % n, high = (n + 1) / 2;
            value = (n & ~u64{1}) - 2 * (at < high ? at : at - high);
            break;
        }
        default: value = (n % range + range - passed % range) % range; break;
        }
    }
    return channel.bcd() ? to_bcd(static_cast<u32>(value % 10'000)) : static_cast<u16>(value);
}

bool Pit8254::out_now(Channel& channel) {
    settle(channel);
    if (!channel.programmed) return false;
    const bool counting = loaded(channel);
    const u64 passed = counting ? elapsed(channel) : 0, n = channel.reload;
    switch (channel.mode()) {
    case 0: return counting && passed >= n;
    case 1: return !counting || passed >= n;
    case 2: return !counting || !channel.gate || passed % n != n - 1;
    case 3: return !counting || !channel.gate || passed % n < (n + 1) / 2;
    default: return !counting || passed != n;
    }
}

/// The next cycle at which OUT may change.
u64 Pit8254::next_edge(const Channel& channel) const {
    if (!channel.programmed || !channel.running || channel.held) return never_cycle;
    if (channel.gate_triggers() && !channel.triggered) return never_cycle;
    if (channel.repeats() && !channel.gate) return never_cycle;
    const u64 now = cycle(), n = channel.reload;
    const u64 passed = now < channel.start ? 0 : now - channel.start;
    const auto next_of = [&](u64 first, u64 second) {
        if (now < channel.start + first) return channel.start + first;
        return now < channel.start + second ? channel.start + second : never_cycle;
    };
    switch (channel.mode()) {
    case 0:
    case 1: return next_of(n, n);
    case 2:
    case 3: {
        if (n < 2) return channel.next_reload ? channel.next_start : never_cycle;
        const u64 period_start = channel.start + passed / n * n;
        const u64 middle = period_start + (channel.mode() == 2 ? n - 1 : (n + 1) / 2);
        return now < middle ? middle : period_start + n;
    }
    default: return next_of(n, n + 1);
    }
}

void Pit8254::update() {
    Channel& channel = channel_[0];
    const bool level = out_now(channel);
    const u64 edge = next_edge(channel);
    clock_.arm(timer_, edge == never_cycle ? never : tick_of(edge));
    if (level == line_) return;
    line_ = level;
    output_.set(level);
}

// ---- Counts and control words
// -----------------------------------------------------------------------------------

void Pit8254::load(Channel& channel) {
    settle(channel);
    const u64 next = cycle() + 1;
    if (channel.gate_triggers()) {
        channel.running = true;
        channel.null_until = never_cycle; // loaded by the trigger
        return;
    }
    if (channel.repeats() && channel.running && channel.gate) {
        const u64 n = channel.reload;
        const u64 passed = cycle() < channel.start ? 0 : cycle() - channel.start;
        channel.next_reload = reload_value(channel);
        channel.next_start = channel.start + (passed / n + 1) * n;
        channel.null_until = channel.next_start;
        return;
    }
    channel.running = true;
    channel.reload = reload_value(channel);
    channel.start = channel.null_until = next;
    channel.next_reload = 0;
    channel.held = !channel.gate;
    channel.held_at = 0;
}

void Pit8254::write_count(Channel& channel, u8 value) {
    switch (channel.access()) {
    case 1: channel.count_register = value; break;
    case 2: channel.count_register = static_cast<u16>(value << 8); break;
    default:
        channel.write_high_next = !channel.write_high_next;
        if (channel.write_high_next) {
            channel.low_half = value;
            if (channel.mode() == 0) channel.running = false; // the first byte stops the count, OUT is low
            return;
        }
        channel.count_register = static_cast<u16>(value << 8 | channel.low_half);
        break;
    }
    load(channel);
}

u8 Pit8254::read_count(Channel& channel) {
    if (channel.status_latched) {
        channel.status_latched = false;
        return channel.latched_status;
    }
    const u16 count = channel.count_latched ? channel.latched_count : count_now(channel);
    const unsigned access = channel.access();
    const bool high = access == 2 || (access == 3 && channel.read_high_next);
    if (access == 3) channel.read_high_next = !channel.read_high_next;
    if (access != 3 || !channel.read_high_next) channel.count_latched = false;
    return static_cast<u8>(high ? count >> 8 : count);
}

void Pit8254::latch_count(Channel& channel) {
    if (channel.count_latched) return;
    channel.latched_count = count_now(channel);
    channel.count_latched = true;
}

void Pit8254::read_back(u8 value) {
    for (unsigned n = 0; n < 3; ++n) {
        Channel& channel = channel_[n];
        if (!test_bit(value, n + 1)) continue;
        if (!(value & 0x20)) latch_count(channel);
        if (!(value & 0x10) && !channel.status_latched) {
            settle(channel);
            const unsigned null_count = cycle() < channel.null_until ? 0x40 : 0;
            channel.latched_status =
                static_cast<u8>((out_now(channel) ? 0x80u : 0u) | null_count | (channel.control & 0x3Fu));
            channel.status_latched = true;
        }
    }
}

void Pit8254::control_word(u8 value) {
    const unsigned select = value >> 6;
    if (select == 3) {
        read_back(value);
        return;
    }
    Channel& channel = channel_[select];
    if ((value & 0x30) == 0) {
        latch_count(channel);
        return;
    }
    const bool gate = channel.gate;
    const u32 reload = channel.reload;
    channel = Channel{};
    channel.gate = gate;
    channel.reload = reload;
    channel.control = value & 0x3F;
    channel.programmed = true;
    channel.null_until = never_cycle;
}

void Pit8254::set_gate(Channel& channel, bool level) {
    settle(channel);
    const bool rising = level && !channel.gate, falling = !level && channel.gate;
    const u64 next = cycle() + 1;
    if (rising && channel.running) {
        if (channel.gate_triggers() || channel.repeats()) {
            channel.reload = reload_value(channel);
            channel.start = channel.null_until = next;
            channel.next_reload = 0;
            channel.triggered = true;
            channel.held = false;
        } else if (channel.held) {
            channel.start = cycle() - channel.held_at;
            channel.held = false;
        }
    }
    if (falling && channel.running && !channel.gate_triggers()) {
        channel.held_at = cycle() < channel.start ? 0 : cycle() - channel.start;
        channel.held = true;
    }
    channel.gate = level;
}

// ---- Ports
// --------------------------------------------------------------------------------------------------

u32 Pit8254::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) { return read_byte(p); });
}

void Pit8254::port_write(u16 port, unsigned size, u32 value) {
    write_bytewise(port, size, value, [this](u16 p, u8 v) { write_byte(p, v); });
}

u8 Pit8254::read_byte(u16 port) {
    if (port >= 0x40 && port <= 0x42) return read_count(channel_[port - 0x40]);
    if (port != 0x61) return 0xFF;
    const unsigned refresh = clock_.now() / refresh_ticks & 1 ? 0x10 : 0;
    return static_cast<u8>(port61_ | refresh | (out_now(channel_[2]) ? 0x20u : 0u));
}

void Pit8254::write_byte(u16 port, u8 value) {
    if (port >= 0x40 && port <= 0x42) {
        write_count(channel_[port - 0x40], value);
    } else if (port == 0x43) {
        control_word(value);
    } else if (port == 0x61) {
        port61_ = value & 0x0F;
        set_gate(channel_[2], value & 1);
        return;
    } else {
        return;
    }
    update();
}

void Pit8254::visit(StateVisitor& visitor) {
    for (unsigned n = 0; n < 3; ++n) {
        Channel& c = channel_[n];
        visitor.enter("channel_" + std::to_string(n));
        visitor.value("control", c.control);
        visitor.value("programmed", c.programmed);
        visitor.value("gate", c.gate);
        visitor.value("count_register", c.count_register);
        visitor.value("low_half", c.low_half);
        visitor.value("write_high_next", c.write_high_next);
        visitor.value("read_high_next", c.read_high_next);
        visitor.value("status_latched", c.status_latched);
        visitor.value("count_latched", c.count_latched);
        visitor.value("latched_status", c.latched_status);
        visitor.value("latched_count", c.latched_count);
        visitor.value("running", c.running);
        visitor.value("triggered", c.triggered);
        visitor.value("held", c.held);
        visitor.value("reload", c.reload);
        visitor.value("start", c.start);
        visitor.value("held_at", c.held_at);
        visitor.value("next_reload", c.next_reload);
        visitor.value("next_start", c.next_start);
        visitor.value("null_until", c.null_until);
        visitor.leave();
    }
    visitor.value("port61", port61_);
    visitor.value("line", line_);
}

} // namespace exeunt
