// ACPI fixed hardware: PM1a event and control blocks, power-management timer, a GPE0 block, and the reset
// register. ACPI Specification 6.3 ch. 4.8 "ACPI Register Model"; Intel I/O Controller Hub 9 data sheet
// 13.8.3.
//
// Wiring: ports AcpiPm::base to +7FH, B2H-B3H (SMI command), and byte CF9H. `sci` is GSI 9 (level).
// `power_off` is called when software enters S5, `reset_machine` when it writes the reset register. FADT:
// PM1a_EVT 600H/4, PM1a_CNT 604H/2, PM_TMR 608H/4, GPE0 620H/16; reset register CF9H, value 06H; ACPI
// enable/disable 02H/03H through B2H, or SMI_CMD = 0 where `sci_enabled` is set from the start.
// Not modelled: sleep states S1 to S4 (writing SLP_EN for them does nothing); SMIs; PM1b, GPE1, PM2.
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"
#include "devices/register_file.hpp"

#include <array>
#include <functional>

namespace exeunt {

struct AcpiPmOptions {
    bool sci_enabled = true; ///< PM1 control SCI_EN after reset: the machine starts in ACPI mode
    bool timer_32bit = true; ///< FADT flag TMR_VAL_EXT
};

class AcpiPm final : public PortDevice, public Device {
public:
    static constexpr u16 base = 0x600, smi_command = 0xB2, reset_control = 0xCF9;
    static constexpr u64 timer_frequency = 3'579'545;
    static constexpr u8 enable_value = 0x02, disable_value = 0x03, reset_value = 0x06;
    static constexpr u8 s5_sleep_type = 0; ///< SLP_TYP of \_S5
    static constexpr std::array rows = {
        //           offset name     bytes reset   writable  write one to clear
        RegisterRow{0x00, "PM1_STS", 2, 0, 0, 0x8731},
        RegisterRow{0x02, "PM1_EN", 2, 0, 0x0721},
        RegisterRow{0x20, "GPE0_STS", 8, 0, 0, ~u64{0}},
        RegisterRow{0x28, "GPE0_EN", 8, 0, ~u64{0}},
    };

    AcpiPm(Clock& clock, InterruptLine& sci, std::function<void()> power_off,
           std::function<void()> reset_machine, const AcpiPmOptions& options = {});
    AcpiPm(const AcpiPm&) = delete;
    AcpiPm& operator=(const AcpiPm&) = delete;

    /// The power button is pressed: PWRBTN_STS.
    void press_power_button();

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    static constexpr u16 status_timer = 0x0001, status_global = 0x0020, status_power_button = 0x0100,
                         control_sci_enable = 0x0001, control_sleep_enable = 0x2000,
                         control_writable = 0x1C06;

    u64 timer_count() const;
    unsigned timer_bits() const { return options_.timer_32bit ? 32 : 24; }
    u16 status();
    u8 read_byte(u16 port);
    void write_block(u32 offset, unsigned size, u64 value);
    void write_register(const RegisterRow& row, u64 value, u64 mask);
    void write_control(u16 value);
    void write_reset_control(u8 value);
    void update();

    Clock& clock_;
    InterruptLine& sci_;
    std::function<void()> power_off_, reset_machine_;
    AcpiPmOptions options_;
    Clock::TimerId timer_;

    u16 status_ = 0, enable_ = 0, control_ = 0;
    u64 gpe0_status_ = 0, gpe0_enable_ = 0;
    u8 smi_command_ = 0, smi_data_ = 0, reset_control_ = 0;
    u64 seen_half_periods_ = 0; ///< changes of the timer's top bit that TMR_STS has reported
};

} // namespace exeunt
