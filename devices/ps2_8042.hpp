// 8042 keyboard controller with a minimal keyboard and no auxiliary port, and port 92H (fast A20 and INIT).
// IBM PC AT Technical Reference "Keyboard Controller"; Intel I/O Controller Hub 9 data sheet 13.7.3 "PORT92".
//
// Wiring: ports 60H, 64H and 92H. `irq1` is ISA interrupt 1. `reset_machine` is called by the pulse of the
// reset line (command FEH), output port bit 0 and port 92H bit 0; `a20` with the state of the A20 gate when
// it changes. Scan codes come through key(), at ticks of the machine's choice.
// Not modelled: scan code translation (what key() is given is what software reads); the auxiliary port.
#pragma once

#include "base/bus.hpp"

#include <functional>

namespace exeunt {

class Ps2Controller final : public PortDevice, public Device {
public:
    Ps2Controller(InterruptLine& irq1, std::function<void()> reset_machine, std::function<void(bool)> a20);
    Ps2Controller(const Ps2Controller&) = delete;
    Ps2Controller& operator=(const Ps2Controller&) = delete;

    /// A scan code from the keyboard; dropped while the keyboard is disabled or its buffer full.
    void key(u8 scan_code);
    bool a20_enabled() const { return a20_; }

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    static constexpr unsigned queue_bytes = 16;
    static constexpr u8 status_output_full = 0x01, status_system = 0x04, status_command = 0x08,
                        status_unlocked = 0x10;
    static constexpr u8 command_irq1 = 0x01, command_system = 0x04, command_keyboard_disabled = 0x10;

    u8 read_byte(u16 port);
    void write_byte(u16 port, u8 value);
    void controller_command(u8 value);
    void controller_data(u8 value);
    void keyboard_byte(u8 value);
    void write_output_port(u8 value);
    void answer(u8 value);
    void queue(u8 value);
    void refill();
    void set_a20(bool enabled);

    InterruptLine& irq1_;
    std::function<void()> reset_machine_;
    std::function<void(bool)> a20_changed_;

    u8 command_byte_ = 0, pending_command_ = 0, output_ = 0;
    bool output_full_ = false, last_was_command_ = false;
    bool a20_ = true;
    u8 ram_[32] = {};
    u8 queue_[queue_bytes] = {};
    u8 queue_first_ = 0, queue_count_ = 0;
    u8 keyboard_pending_ = 0; ///< a keyboard command that waits for its parameter
    bool scanning_ = false;
};

} // namespace exeunt
