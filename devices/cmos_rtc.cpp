#include "devices/cmos_rtc.hpp"

#include "base/bits.hpp"
#include "devices/register_file.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u64 update_ticks = 244'000;        ///< UIP is set this long before the update
constexpr u64 divider_release = 500'000'000; ///< the first update after the divider is released
constexpr u64 seconds_per_day = 86'400;
constexpr u8 d_valid = 0x80;

constexpr bool leap(u32 year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }
constexpr u8 days_of_month(u32 year, unsigned month) {
    constexpr u8 days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && leap(year) ? 29 : days[month - 1];
}

} // namespace

CmosRtc::CmosRtc(Clock& clock, InterruptLine& irq, u64 start_seconds)
    : clock_(clock),
      irq_(irq),
      timer_(clock.add("cmos_rtc",
                       [this] {
                           collect();
                           update();
                       })),
      start_seconds_(start_seconds),
      base_seconds_(start_seconds),
      base_tick_(clock.now()) {
    seen_seconds_ = start_seconds_;
    set_memory_size(0, 0);
    reset();
}

// RESET#: interrupts are disabled and their flags cleared; the battery keeps the rest.
void CmosRtc::reset() {
    index_ = 0;
    nmi_masked_ = false;
    b_ = static_cast<u8>(b_ & ~(b_pie | b_aie | b_uie | 0x08));
    collect();
    c_ = 0;
    update();
}

void CmosRtc::set_byte(u8 index, u8 value) {
    if (index > reg_d && index < sizeof ram_) ram_[index] = value;
}

// What a PC's firmware leaves for operating systems: KBytes of base and extended memory, and the units of 64
// KBytes above 16 MBytes and above 4 GBytes; the checksum of 10H to 2DH.
void CmosRtc::set_memory_size(u64 low_bytes, u64 high_bytes) {
    const auto put16 = [this](u8 index, u64 value) {
        ram_[index] = static_cast<u8>(value);
        ram_[index + 1] = static_cast<u8>(value >> 8);
    };
    const auto above = [](u64 bytes, u64 from, unsigned shift) {
        return bytes <= from ? 0 : std::min<u64>((bytes - from) >> shift, 0xFFFF);
    };
    put16(0x15, 640);
    put16(0x17, above(low_bytes, u64{1} << 20, 10));
    put16(0x30, above(low_bytes, u64{1} << 20, 10));
    put16(0x34, above(low_bytes, u64{16} << 20, 16));
    const u64 high = std::min<u64>(high_bytes >> 16, 0xFF'FFFF);
    put16(0x5B, high);
    ram_[0x5D] = static_cast<u8>(high >> 16);
    u16 sum = 0;
    for (unsigned i = 0x10; i <= 0x2D; ++i) sum = static_cast<u16>(sum + ram_[i]);
    ram_[0x2E] = static_cast<u8>(sum >> 8);
    ram_[0x2F] = static_cast<u8>(sum);
}

// ---- Calendar
// -------------------------------------------------------------------------------------------------

CmosRtc::DateTime CmosRtc::date_of(u64 seconds) {
    DateTime date;
    const u64 of_day = seconds % seconds_per_day;
    u64 days = seconds / seconds_per_day;
    date.weekday = static_cast<u8>((4 + days) % 7);
    date.second = static_cast<u8>(of_day % 60);
    date.minute = static_cast<u8>(of_day / 60 % 60);
    date.hour = static_cast<u8>(of_day / 3600);
    constexpr u64 days_of_400_years = 146'097;
    date.year = static_cast<u32>(1970 + days / days_of_400_years * 400);
    days %= days_of_400_years;
    while (days >= (leap(date.year) ? 366u : 365u)) days -= leap(date.year++) ? 366u : 365u;
    while (days >= days_of_month(date.year, date.month)) days -= days_of_month(date.year, date.month++);
    date.day = static_cast<u8>(days + 1);
    return date;
}

/// Fields out of range carry into the next; a year before 1970 counts as 1970.
u64 CmosRtc::seconds_of(const DateTime& date) {
    u64 days = 0;
    for (u32 year = 1970; year < date.year; ++year) days += leap(year) ? 366 : 365;
    const unsigned month = std::clamp<unsigned>(date.month, 1, 12);
    for (unsigned m = 1; m < month; ++m) days += days_of_month(date.year, m);
    days += std::max<unsigned>(date.day, 1) - 1;
    return days * seconds_per_day + date.hour * 3600u + date.minute * 60u + date.second;
}

u64 CmosRtc::seconds() const {
    return frozen() ? base_seconds_ : base_seconds_ + (clock_.now() - base_tick_) / ticks_per_second;
}

bool CmosRtc::update_in_progress() const {
    return !frozen() && (clock_.now() - base_tick_) % ticks_per_second >= ticks_per_second - update_ticks;
}

u8 CmosRtc::encode(unsigned value) const {
    if (b_ & b_binary) return static_cast<u8>(value);
    return static_cast<u8>((value / 10 % 10) << 4 | value % 10);
}

unsigned CmosRtc::decode(u8 value) const {
    return b_ & b_binary ? value : (value >> 4) * 10u + (value & 15u);
}

u8 CmosRtc::encode_hour(unsigned hour) const {
    if (b_ & b_24h) return encode(hour);
    return static_cast<u8>(encode((hour + 11) % 12 + 1) | (hour >= 12 ? 0x80u : 0u));
}

unsigned CmosRtc::decode_hour(u8 value) const {
    if (b_ & b_24h) return decode(value);
    return decode(value & 0x7F) % 12 + (value & 0x80 ? 12 : 0);
}

bool CmosRtc::is_time(u8 index) {
    return index == reg_seconds || index == reg_minutes || index == reg_hours ||
           (index >= reg_weekday && index <= reg_year) || index == reg_century;
}

void CmosRtc::store_date(const DateTime& date) {
    ram_[reg_seconds] = encode(date.second);
    ram_[reg_minutes] = encode(date.minute);
    ram_[reg_hours] = encode_hour(date.hour);
    ram_[reg_weekday] = encode(date.weekday + 1u);
    ram_[reg_day] = encode(date.day);
    ram_[reg_month] = encode(date.month);
    ram_[reg_year] = encode(date.year % 100);
    ram_[reg_century] = encode(date.year / 100);
}

CmosRtc::DateTime CmosRtc::stored_date() const {
    DateTime date;
    date.second = static_cast<u8>(decode(ram_[reg_seconds]));
    date.minute = static_cast<u8>(decode(ram_[reg_minutes]));
    date.hour = static_cast<u8>(decode_hour(ram_[reg_hours]));
    date.day = static_cast<u8>(decode(ram_[reg_day]));
    date.month = static_cast<u8>(decode(ram_[reg_month]));
    date.year = decode(ram_[reg_century]) * 100 + decode(ram_[reg_year]);
    return date;
}

/// The calendar goes on from what `ram_` has.
void CmosRtc::thaw(bool divider_released) {
    base_seconds_ = seen_seconds_ = seconds_of(stored_date());
    const u64 phase = divider_released ? divider_release : (clock_.now() - base_tick_) % ticks_per_second;
    base_tick_ = clock_.now() - phase;
}

// ---- Interrupts
// -----------------------------------------------------------------------------------------------

/// The periodic rate is 32768 Hz >> shift; 0 is off.
unsigned CmosRtc::periodic_shift() const {
    const unsigned rate = a_ & 15u;
    return rate == 0 ? 0 : rate <= 2 ? rate + 6 : rate - 1;
}

u64 CmosRtc::periods() const {
    const unsigned shift = periodic_shift();
    if (shift == 0 || divider_held()) return 0;
    return static_cast<u64>(u128{clock_.now()} * 32'768 / ticks_per_second) >> shift;
}

/// The first second later than `after` that the alarm bytes match, or never.
u64 CmosRtc::next_alarm(u64 after) const {
    const u8 s = ram_[reg_seconds_alarm], m = ram_[reg_minutes_alarm], h = ram_[reg_hours_alarm];
    const auto any = [](u8 value) { return (value & 0xC0) == 0xC0; };
    const u64 from = after + 1, day = from - from % seconds_per_day;
    unsigned hour = static_cast<unsigned>(from % seconds_per_day / 3600);
    unsigned minute = static_cast<unsigned>(from / 60 % 60), second = static_cast<unsigned>(from % 60);
    for (unsigned i = 0; i <= 24; ++i, minute = 0, second = 0) {
        const unsigned at_hour = hour + i;
        if (!any(h) && decode_hour(h) != at_hour % 24) continue;
        for (; minute < 60; ++minute, second = 0) {
            if (!any(m) && decode(m) != minute) continue;
            for (; second < 60; ++second)
                if (any(s) || decode(s) == second) return day + at_hour * 3600u + minute * 60u + second;
        }
    }
    return never;
}

/// Puts into `c_` what happened since the last time.
void CmosRtc::collect() {
    if (const u64 p = periods(); p != seen_periods_) {
        c_ |= c_pf;
        seen_periods_ = p;
    }
    if (const u64 now = seconds(); !frozen() && now > seen_seconds_) {
        c_ |= c_uf;
        if (next_alarm(seen_seconds_) <= now) c_ |= c_af;
        seen_seconds_ = now;
    }
}

void CmosRtc::update() {
    const bool requested = c_ & b_ & (b_pie | b_aie | b_uie);
    c_ = static_cast<u8>(requested ? c_ | c_irqf : c_ & ~c_irqf);
    irq_.set(requested);
    Tick next = never;
    if (!requested) {
        const auto tick_of = [this](u64 s) { return base_tick_ + (s - base_seconds_) * ticks_per_second; };
        if (const unsigned shift = periodic_shift(); (b_ & b_pie) && shift != 0 && !divider_held())
            next =
                static_cast<Tick>(((u128{seen_periods_ + 1} << shift) * ticks_per_second + 32'767) / 32'768);
        if ((b_ & b_uie) && !frozen()) next = std::min(next, tick_of(seen_seconds_ + 1));
        if ((b_ & b_aie) && !frozen())
            if (const u64 alarm = next_alarm(seen_seconds_); alarm != never)
                next = std::min(next, tick_of(alarm));
    }
    clock_.arm(timer_, next);
}

// ---- Registers
// ------------------------------------------------------------------------------------------------

u8 CmosRtc::read_register(u8 index) {
    if (is_time(index) && !frozen()) store_date(date_of(seconds()));
    switch (index) {
    case reg_a: return static_cast<u8>(a_ | (update_in_progress() ? 0x80u : 0u));
    case reg_b: return b_;
    case reg_c: {
        collect();
        update();
        const u8 value = c_;
        c_ = 0;
        update();
        return value;
    }
    case reg_d: return d_valid;
    default: return ram_[index];
    }
}

void CmosRtc::write_register(u8 index, u8 value) {
    collect();
    switch (index) {
    case reg_a: write_a(value); break;
    case reg_b: write_b(value); break;
    case reg_c:
    case reg_d: return;
    default:
        if (is_time(index) && !frozen()) {
            store_date(date_of(seconds()));
            ram_[index] = value;
            thaw(false);
        } else {
            ram_[index] = value;
        }
        break;
    }
    update();
}

void CmosRtc::write_a(u8 value) {
    const bool was_frozen = frozen(), was_held = divider_held();
    if (!was_frozen) store_date(date_of(seconds()));
    const u64 now_seconds = seconds();
    a_ = value & 0x7F;
    if (!was_frozen && frozen()) base_seconds_ = now_seconds;
    if (was_frozen && !frozen())
        thaw(was_held);
    else if (was_held && !divider_held())
        base_tick_ = clock_.now() - divider_release;
    seen_periods_ = periods();
}

void CmosRtc::write_b(u8 value) {
    const bool was_frozen = frozen();
    if (!was_frozen) store_date(date_of(seconds()));
    const u64 now_seconds = seconds();
    b_ = value & b_set ? static_cast<u8>(value & ~b_uie) : value;
    if (!was_frozen && frozen()) base_seconds_ = now_seconds;
    if (was_frozen && !frozen()) thaw(false);
}

u32 CmosRtc::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) { return p == 0x71 ? read_register(index_) : u8{0xFF}; });
}

void CmosRtc::port_write(u16 port, unsigned size, u32 value) {
    write_bytewise(port, size, value, [this](u16 p, u8 v) {
        if (p == 0x70) {
            index_ = v & 0x7F;
            nmi_masked_ = v & 0x80;
        } else if (p == 0x71) {
            write_register(index_, v);
        }
    });
}

void CmosRtc::visit(StateVisitor& visitor) {
    visitor.value("index", index_);
    visitor.value("nmi_masked", nmi_masked_);
    visitor.bytes("ram", ram_);
    visitor.value("a", a_);
    visitor.value("b", b_);
    visitor.value("c", c_);
    visitor.value("base_seconds", base_seconds_);
    visitor.value("base_tick", base_tick_);
    visitor.value("seen_seconds", seen_seconds_);
    visitor.value("seen_periods", seen_periods_);
}

} // namespace exeunt
