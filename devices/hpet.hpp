// High precision event timer: 64-bit counter at 10 MHz, three comparators, periodic mode, legacy replacement.
// IA-PC HPET Specification 1.0a.
//
// Wiring: map 1 KByte at Hpet::default_base. `routes[n]` is an input of GSI n, null where a comparator can
// not be routed (the capability is what is not null). `irq0` and `irq8` are ISA interrupts 0 and 8: connect
// the PIT to pit_input() and the RTC to rtc_input(), which reach them unless legacy replacement is on.
// Not modelled: FSB delivery (not offered).
#pragma once

#include "base/bits.hpp"
#include "base/bus.hpp"
#include "base/clock.hpp"
#include "devices/register_file.hpp"

#include <array>

namespace exeunt {

class Hpet final : public MmioDevice, public Device {
public:
    static constexpr u64 default_base = 0xFED0'0000;
    static constexpr u64 ticks_per_count = 100;
    static constexpr u64 period_fs = ticks_per_count * 1'000'000;
    static constexpr unsigned comparators = 3;
    /// Revision 1, three comparators, 64 bits, legacy replacement, vendor 8086H.
    static constexpr u64 capabilities = (period_fs << 32) | 0x8086'A201;
    static constexpr std::array rows = {
        //           offset  name          bytes reset writable
        RegisterRow{0x000, "GCAP_ID", 8, capabilities, 0},
        RegisterRow{0x010, "GEN_CONF", 8, 0, 0x3},
        RegisterRow{0x020, "GINTR_STA", 8, 0, 0, 0x7},
        RegisterRow{0x0F0, "MAIN_CNT", 8, 0, ~u64{0}},
        RegisterRow{0x108, "TIM0_COMP", 8, ~u64{0}, ~u64{0}},
        RegisterRow{0x128, "TIM1_COMP", 8, ~u64{0}, ~u64{0}},
        RegisterRow{0x148, "TIM2_COMP", 8, ~u64{0}, ~u64{0}},
    };

    Hpet(Clock& clock, const std::array<InterruptLine*, 32>& routes, InterruptLine& irq0,
         InterruptLine& irq8);
    Hpet(const Hpet&) = delete;
    Hpet& operator=(const Hpet&) = delete;

    InterruptLine& pit_input() { return gate_[0]; }
    InterruptLine& rtc_input() { return gate_[1]; }

    u64 mmio_read(u64 offset, unsigned size) override;
    void mmio_write(u64 offset, unsigned size, u64 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    /// Lets a legacy source through unless the HPET has taken its interrupt.
    class Gate final : public InterruptLine {
    public:
        void set(bool value) override;
        bool level = false;
        InterruptLine* output = nullptr;
        const Hpet* hpet = nullptr;
    };
    struct Comparator {
        u64 config = 0; ///< writable bits of TIMn_CONF_CAP
        u64 compare = ~u64{0};
        u64 period = 0;     ///< last value written, periodic mode
        bool level = false; ///< the line as driven
    };
    static constexpr u64 conf_level = bit(1), conf_enable = bit(2), conf_periodic = bit(3),
                         conf_periodic_capable = bit(4), conf_64bit_capable = bit(5), conf_set_value = bit(6),
                         conf_32bit = bit(8), conf_route = 0x3E00;
    static constexpr u64 conf_writable = conf_level | conf_enable | conf_periodic | conf_32bit | conf_route;

    bool counting() const { return config_ & 1; }
    bool legacy() const { return config_ & 2; }
    u64 counter() const;
    u32 route_capability() const;
    u64 read_register(u64 offset) const;
    void write_register(u64 offset, u64 value, u64 written_mask);
    void write_config(u64 value);
    void write_counter(u64 value);
    void write_comparator_config(unsigned n, u64 value);
    void write_comparator(unsigned n, u64 value);
    static u64 width_mask(const Comparator& comparator);
    /// `after_match`: a counter equal to the comparator has been seen.
    void arm(unsigned n, bool after_match);
    void expired(unsigned n);
    void drive(unsigned n, bool level);
    /// Puts the line down, or up again for a level-triggered comparator with its status bit set.
    void refresh(unsigned n);
    InterruptLine* line(unsigned n) const;

    Clock& clock_;
    std::array<InterruptLine*, 32> routes_;
    InterruptLine* legacy_line_[2];
    Gate gate_[2];
    Clock::TimerId timer_[comparators];

    u64 config_ = 0, status_ = 0;
    u64 counter_base_ = 0; ///< the counter at `counter_start_`, or now when it stands
    Tick counter_start_ = 0;
    Comparator comparator_[comparators];
};

} // namespace exeunt
