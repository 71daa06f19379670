// 8254 programmable interval timer at 1.193182 MHz, and port 61H: gate and output of channel 2, refresh toggle.
// Intel 8254 data sheet; Intel I/O Controller Hub 9 data sheet 5.7, 13.3, 13.7.1 "NMI Status and Control".
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
        u8 control = 0;            ///< RW1:0, M2:0, BCD as written
        u16 count_register = 0;    ///< as written
        u16 write_latch = 0;
        bool write_high_next = false, read_high_next = false;
        bool null_count = true;    ///< written but not yet loaded
        bool count_latched = false, status_latched = false;
        u16 latched_count = 0;
        u8 latched_status = 0;
        bool read_latched_high_next = false;
        bool gate = true;
        // The counting element: loaded with `reload` at cycle `start`.
        bool programmed = false;   ///< a control word was written
        bool running = false;      ///< loaded; counts (or is held by the gate)
        bool triggered = false;    ///< modes 1 and 5: the trigger's pulse is still to come
        u32 reload = 0;            ///< 1 to 10000H (or 10000 in BCD)
        u64 start = 0;
        u64 held_at = 0;           ///< counted cycles at which the gate stopped it
        bool held = false;
        u32 next_reload = 0;       ///< modes 2 and 3: taken at the end of the current cycle; 0 is none

        unsigned mode() const { return (control >> 1) & 7; }
        bool bcd() const { return control & 1; }
        unsigned access() const { return (control >> 4) & 3; }
    };

    u64 cycle() const;
    Tick tick_of(u64 cycle) const;
    u8 read_byte(u16 port);
    void write_byte(u16 port, u8 value);
    u8 read_count(Channel& channel);
    void write_count(unsigned index, u8 value);
    void load(unsigned index);
    void control_word(u8 value);
    void set_gate(unsigned index, bool level);
    u64 elapsed(const Channel& channel) const;
    void settle(Channel& channel);
    u32 period(const Channel& channel) const;
    u16 count_now(Channel& channel);
    bool out_now(Channel& channel);
    u64 next_edge(const Channel& channel) const;
    void update(unsigned index);

    Clock& clock_;
    InterruptLine& output_;
    Clock::TimerId timer_;
    Channel channel_[3];
    bool speaker_enabled_ = false;
    bool nmi_masks_[2] = {};
};

}  // namespace exeunt
