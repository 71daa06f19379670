// MC146818-compatible real-time clock with 128 bytes of CMOS RAM. Motorola MC146818A data sheet; Intel I/O
// Controller Hub 9 data sheet 13.6 "Real Time Clock Registers".
//
// Wiring: ports 70H-71H. `irq` is ISA interrupt 8 (through Hpet::rtc_input() where there is an HPET). The
// machine calls set_memory_size(), and may set other bytes with set_byte().
// Not modelled: daylight saving (B.DSE) and square-wave output (B.SQWE) bits are kept and have no effect; the
// weekday is that of the date, whatever was written.
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"

namespace exeunt {

class CmosRtc final : public PortDevice, public Device {
public:
    /// Seconds from 1970-01-01 to 2020-01-01 00:00:00 UTC.
    static constexpr u64 default_start = 1'577'836'800;

    CmosRtc(Clock& clock, InterruptLine& irq, u64 start_seconds = default_start);
    CmosRtc(const CmosRtc&) = delete;
    CmosRtc& operator=(const CmosRtc&) = delete;

    /// RAM below 4 GiB and from 4 GiB up, in the bytes where firmware looks for it.
    void set_memory_size(u64 low_bytes, u64 high_bytes);
    /// A byte of CMOS RAM (0EH to 7FH).
    void set_byte(u8 index, u8 value);
    u8 byte(u8 index) const { return ram_[index & 0x7F]; }
    /// Port 70H bit 7.
    bool nmi_masked() const { return nmi_masked_; }

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    struct DateTime {
        u32 year = 1970;
        u8 month = 1, day = 1, hour = 0, minute = 0, second = 0;
        u8 weekday = 4; ///< 0 is Sunday
    };
    enum : u8 {
        reg_seconds = 0,
        reg_seconds_alarm,
        reg_minutes,
        reg_minutes_alarm,
        reg_hours,
        reg_hours_alarm,
        reg_weekday,
        reg_day,
        reg_month,
        reg_year,
        reg_a,
        reg_b,
        reg_c,
        reg_d,
        reg_century = 0x32,
    };
    enum : u8 { b_24h = 2, b_binary = 4, b_uie = 0x10, b_aie = 0x20, b_pie = 0x40, b_set = 0x80 };
    enum : u8 { c_uf = 0x10, c_af = 0x20, c_pf = 0x40, c_irqf = 0x80 };

    static DateTime date_of(u64 seconds);
    static u64 seconds_of(const DateTime& date);
    bool divider_held() const { return (a_ & 0x60) == 0x60; }
    bool frozen() const { return (b_ & b_set) || divider_held(); }
    u64 seconds() const;
    bool update_in_progress() const;
    u8 encode(unsigned value) const;
    unsigned decode(u8 value) const;
    u8 encode_hour(unsigned hour) const;
    unsigned decode_hour(u8 value) const;
    void store_date(const DateTime& date);
    DateTime stored_date() const;
    static bool is_time(u8 index);
    u8 read_register(u8 index);
    void write_register(u8 index, u8 value);
    void write_a(u8 value);
    void write_b(u8 value);
    void thaw(bool divider_released);
    unsigned periodic_shift() const;
    u64 periods() const;
    u64 next_alarm(u64 after) const;
    void collect();
    void update();

    Clock& clock_;
    InterruptLine& irq_;
    Clock::TimerId timer_;
    u64 start_seconds_;

    u8 index_ = 0;
    bool nmi_masked_ = false;
    u8 ram_[128] = {}; ///< alarm bytes too; time bytes only while the calendar stands
    u8 a_ = 0x26, b_ = 0x02, c_ = 0;
    /// The calendar showed `base_seconds_` at tick `base_tick_` (modulo 2^64); while it stands, `ram_` has
    /// it.
    u64 base_seconds_ = 0;
    Tick base_tick_ = 0;
    /// Updates and periodic cycles up to here are in `c_`.
    u64 seen_seconds_ = 0;
    u64 seen_periods_ = 0;
};

} // namespace exeunt
