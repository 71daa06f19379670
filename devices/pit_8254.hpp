// 8254 programmable interval timer at 1.193182 MHz, and port 61H: gate and output of channel 2, refresh
// toggle. Intel 8254 data sheet; Intel I/O Controller Hub 9 data sheet 5.7, 13.3, 13.7.1 "NMI Status and
// Control".
//
// Wiring: ports 40H-43H and 61H. `output` is channel 0's OUT, to ISA interrupt 0 (through Hpet::pit_input()
// where there is an HPET).
// Not modelled: the loudspeaker makes no sound; NMI sources of port 61H do not exist.
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"

namespace exeunt {

class Pit8254 final : public PortDevice, public Device {
public:
    static constexpr u64 frequency = 1'193'182;

    Pit8254(Clock& clock, InterruptLine& output);
    Pit8254(const Pit8254&) = delete;
    Pit8254& operator=(const Pit8254&) = delete;

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    /// Time is counted in input clock cycles since tick 0, so nothing drifts.
    struct Channel {
        u8 control = 0;          ///< RW1:0, M2:0, BCD as written
        bool programmed = false; ///< a control word was written
        bool gate = true;
        // Writing and reading in halves.
        u16 count_register = 0;
        u8 low_half = 0;
        bool write_high_next = false, read_high_next = false;
        bool status_latched = false, count_latched = false;
        u8 latched_status = 0;
        u16 latched_count = 0;
        // The counting element.
        bool running = false;   ///< it has, or at `start` will have, a count
        bool triggered = false; ///< modes 1 and 5: the gate has risen since the count was written
        bool held = false;      ///< the gate stopped it after `held_at` cycles
        u32 reload = 1;         ///< the count loaded at cycle `start`
        u64 start = 0;
        u64 held_at = 0;
        u32 next_reload = 0; ///< modes 2 and 3: the count to be loaded at cycle `next_start`; 0: none
        u64 next_start = 0;
        u64 null_until = 0; ///< status bit 6 is 1 before this cycle

        unsigned mode() const {
            const unsigned m = (control >> 1) & 7;
            return m > 5 ? m - 4 : m;
        }
        bool bcd() const { return control & 1; }
        unsigned access() const { return (control >> 4) & 3; }
        bool gate_triggers() const { return mode() == 1 || mode() == 5; }
        bool repeats() const { return mode() == 2 || mode() == 3; }
    };

    u64 cycle() const;
    Tick tick_of(u64 cycle) const;
    u8 read_byte(u16 port);
    void write_byte(u16 port, u8 value);
    u8 read_count(Channel& channel);
    void write_count(Channel& channel, u8 value);
    void load(Channel& channel);
    void control_word(u8 value);
    void read_back(u8 value);
    void latch_count(Channel& channel);
    void set_gate(Channel& channel, bool level);
    static u32 reload_value(const Channel& channel);
    bool loaded(const Channel& channel) const;
    u64 elapsed(const Channel& channel) const;
    void settle(Channel& channel);
    u16 count_now(Channel& channel);
    bool out_now(Channel& channel);
    u64 next_edge(const Channel& channel) const;
    void update();

    Clock& clock_;
    InterruptLine& output_;
    Clock::TimerId timer_;
    Channel channel_[3];
    u8 port61_ = 0;     ///< bits 3:0 as written
    bool line_ = false; ///< `output` as driven
};

} // namespace exeunt
