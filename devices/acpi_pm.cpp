#include "devices/acpi_pm.hpp"

#include "base/bits.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u32 block_bytes = 0x80;
constexpr u32 pm1_control = 0x04, pm_timer = 0x08;

} // namespace

AcpiPm::AcpiPm(Clock& clock, InterruptLine& sci, std::function<void()> power_off,
               std::function<void()> reset_machine, const AcpiPmOptions& options)
    : clock_(clock),
      sci_(sci),
      power_off_(std::move(power_off)),
      reset_machine_(std::move(reset_machine)),
      options_(options),
      timer_(clock.add("acpi_pm", [this] { update(); })) {
    reset();
}

void AcpiPm::reset() {
    status_ = enable_ = 0;
    control_ = options_.sci_enabled ? control_sci_enable : 0;
    gpe0_status_ = gpe0_enable_ = 0;
    smi_command_ = smi_data_ = reset_control_ = 0;
    seen_half_periods_ = timer_count() >> (timer_bits() - 1);
    update();
}

void AcpiPm::press_power_button() {
    status_ |= status_power_button;
    update();
}

/// Counts of the 3.579545 MHz clock since tick 0, not truncated.
u64 AcpiPm::timer_count() const {
    return static_cast<u64>(u128{clock_.now()} * timer_frequency / ticks_per_second);
}

// ACPI 4.8.2.1 "Power Management Timer": TMR_STS is set when the most significant bit changes.
u16 AcpiPm::status() {
    const u64 half_periods = timer_count() >> (timer_bits() - 1);
    if (half_periods != seen_half_periods_) status_ |= status_timer;
    seen_half_periods_ = half_periods;
    return status_;
}

void AcpiPm::update() {
    const bool event = (status() & enable_ & 0x0721) || (gpe0_status_ & gpe0_enable_);
    sci_.set(event && (control_ & control_sci_enable));
    Tick next = never;
    if ((enable_ & status_timer) && !(status_ & status_timer)) {
        const u128 count = u128{seen_half_periods_ + 1} << (timer_bits() - 1);
        next = static_cast<Tick>((count * ticks_per_second + timer_frequency - 1) / timer_frequency);
    }
    clock_.arm(timer_, next);
}

// ---- Ports
// ----------------------------------------------------------------------------------------------------

u8 AcpiPm::read_byte(u16 port) {
    if (port == smi_command) return smi_command_;
    if (port == smi_command + 1) return smi_data_;
    if (port == reset_control) return reset_control_;
    const u32 offset = port - u32{base};
    if (port < base || offset >= block_bytes) return 0xFF;
    const auto byte = [offset](u64 value, u32 first) {
        return static_cast<u8>(value >> (8 * (offset - first)));
    };
    if (offset < 0x02) return byte(status(), 0x00);
    if (offset < 0x04) return byte(enable_, 0x02);
    if (offset >= pm1_control && offset < pm1_control + 2) return byte(control_, pm1_control);
    if (offset >= pm_timer && offset < pm_timer + 4)
        return byte(timer_count() & low_mask(timer_bits()), pm_timer);
    if (offset >= 0x20 && offset < 0x28) return byte(gpe0_status_, 0x20);
    if (offset >= 0x28 && offset < 0x30) return byte(gpe0_enable_, 0x28);
    return 0;
}

u32 AcpiPm::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) { return read_byte(p); });
}

void AcpiPm::port_write(u16 port, unsigned size, u32 value) {
    if (port >= base && port < base + block_bytes) {
        write_block(port - u32{base}, size, value);
        return;
    }
    write_bytewise(port, size, value, [this](u16 p, u8 v) {
        if (p == reset_control) {
            write_reset_control(v);
        } else if (p == smi_command + 1) {
            smi_data_ = v;
        } else if (p == smi_command) {
            // ACPI 4.8.2.5 "SMI Command": what firmware's SMI handler would do.
            smi_command_ = v;
            if (v == enable_value) control_ |= control_sci_enable;
            if (v == disable_value) control_ = static_cast<u16>(control_ & ~control_sci_enable);
            update();
        }
    });
}

void AcpiPm::write_block(u32 offset, unsigned size, u64 value) {
    // An access may cover a part of a register, or two registers.
    const auto overlap = [&](u32 first, u32 bytes, u64& piece, u64& mask) {
        piece = mask = 0;
        for (u32 i = 0; i < size; ++i) {
            if (offset + i < first || offset + i >= first + bytes) continue;
            piece |= ((value >> (8 * i)) & 0xFF) << (8 * (offset + i - first));
            mask |= u64{0xFF} << (8 * (offset + i - first));
        }
        return mask != 0;
    };
    u64 piece = 0, mask = 0;
    for (const RegisterRow& row : rows)
        if (overlap(row.offset, row.bytes, piece, mask)) write_register(row, piece, mask);
    if (overlap(pm1_control, 2, piece, mask))
        write_control(static_cast<u16>((control_ & ~mask) | (piece & mask)));
    update();
}

void AcpiPm::write_register(const RegisterRow& row, u64 value, u64 mask) {
    const auto apply = [&](u64 old) {
        return row.written(old, (old & row.writable & ~mask) | (value & mask));
    };
    switch (row.offset) {
    case 0x00: status_ = static_cast<u16>(apply(status())); break;
    case 0x02: enable_ = static_cast<u16>(apply(enable_)); break;
    case 0x20: gpe0_status_ = apply(gpe0_status_); break;
    case 0x28: gpe0_enable_ = apply(gpe0_enable_); break;
    default: break;
    }
}

// ACPI 4.8.3.2.1 "PM1 Control Registers"; 16.1 "Sleeping States": SLP_EN enters the state of SLP_TYP.
void AcpiPm::write_control(u16 value) {
    control_ = static_cast<u16>((control_ & ~control_writable) | (value & control_writable));
    if ((value & control_sleep_enable) && extract(value, 12, 10) == s5_sleep_type) power_off_();
}

// ICH9 13.7.5 "RST_CNT": a reset when RST_CPU goes from 0 to 1.
void AcpiPm::write_reset_control(u8 value) {
    const bool reset_now = (value & 4) && !(reset_control_ & 4);
    reset_control_ = value & 0x0A;
    if (reset_now) reset_machine_();
}

void AcpiPm::visit(StateVisitor& visitor) {
    visitor.value("status", status_);
    visitor.value("enable", enable_);
    visitor.value("control", control_);
    visitor.value("gpe0_status", gpe0_status_);
    visitor.value("gpe0_enable", gpe0_enable_);
    visitor.value("smi_command", smi_command_);
    visitor.value("smi_data", smi_data_);
    visitor.value("reset_control", reset_control_);
    visitor.value("seen_half_periods", seen_half_periods_);
}

} // namespace exeunt
