#include "devices/ps2_8042.hpp"

#include "devices/register_file.hpp"

#include <algorithm>

namespace exeunt {

namespace {

constexpr u16 data_port = 0x60, command_port = 0x64, port_92 = 0x92;
constexpr u8 acknowledge = 0xFA, resend = 0xFE, self_test_passed = 0xAA;
constexpr u8 command_byte_after_post = 0x45; ///< interrupt 1, system flag, translation
/// Commands of the controller that a data byte follows.
constexpr u8 write_output_port_command = 0xD1, write_output_buffer = 0xD2, aux_loopback = 0xD3,
             write_aux = 0xD4;

} // namespace

Ps2Controller::Ps2Controller(InterruptLine& irq1, std::function<void()> reset_machine,
                             std::function<void(bool)> a20)
    : irq1_(irq1), reset_machine_(std::move(reset_machine)), a20_changed_(std::move(a20)) {
    reset();
}

void Ps2Controller::reset() {
    command_byte_ = command_byte_after_post;
    pending_command_ = output_ = keyboard_pending_ = 0;
    output_full_ = last_was_command_ = false;
    std::fill(std::begin(ram_), std::end(ram_), 0);
    std::fill(std::begin(queue_), std::end(queue_), 0);
    queue_first_ = queue_count_ = 0;
    scanning_ = true;
    set_a20(true);
    irq1_.set(false);
}

void Ps2Controller::set_a20(bool enabled) {
    if (enabled == a20_) return;
    a20_ = enabled;
    a20_changed_(enabled);
}

// ---- The keyboard
// ---------------------------------------------------------------------------------------------

void Ps2Controller::key(u8 scan_code) {
    if (!scanning_) return;
    queue(scan_code);
    refill();
}

void Ps2Controller::queue(u8 value) {
    if (queue_count_ == queue_bytes) return;
    queue_[(queue_first_ + queue_count_++) % queue_bytes] = value;
}

void Ps2Controller::keyboard_byte(u8 value) {
    command_byte_ = static_cast<u8>(command_byte_ & ~command_keyboard_disabled);
    if (const u8 command = keyboard_pending_; command != 0) {
        keyboard_pending_ = 0;
        queue(acknowledge);
        if (command == 0xF0 && value == 0) queue(2); // which scan code set
        return;
    }
    switch (value) {
    case 0xED: // indicators
    case 0xF0: // scan code set
    case 0xF3: // typematic rate
        keyboard_pending_ = value;
        queue(acknowledge);
        break;
    case 0xEE: queue(0xEE); break;
    case 0xF2:
        for (const u8 byte : {acknowledge, u8{0xAB}, u8{0x83}}) queue(byte);
        break;
    case 0xF4:
    case 0xF5:
    case 0xF6:
        scanning_ = value != 0xF5;
        queue(acknowledge);
        break;
    case 0xFF:
        scanning_ = true;
        queue_count_ = 0;
        queue(acknowledge);
        queue(self_test_passed);
        break;
    default: queue(resend); break;
    }
}

// ---- The controller
// -------------------------------------------------------------------------------------------

/// The controller's own bytes go before the keyboard's.
void Ps2Controller::answer(u8 value) {
    output_ = value;
    output_full_ = true;
}

void Ps2Controller::refill() {
    if (!output_full_ && queue_count_ != 0 && !(command_byte_ & command_keyboard_disabled)) {
        answer(queue_[queue_first_]);
        queue_first_ = static_cast<u8>((queue_first_ + 1u) % queue_bytes);
        --queue_count_;
    }
    irq1_.set(output_full_ && (command_byte_ & command_irq1));
}

void Ps2Controller::write_output_port(u8 value) {
    set_a20(value & 2);
    if (!(value & 1)) reset_machine_();
}

void Ps2Controller::controller_command(u8 value) {
    last_was_command_ = true;
    pending_command_ = 0;
    if (value >= 0x20 && value < 0x40) {
        answer(value == 0x20 ? command_byte_ : ram_[value & 0x1F]);
    } else if ((value >= 0x60 && value < 0x80) ||
               (value >= write_output_port_command && value <= write_aux)) {
        pending_command_ = value;
    } else if (value >= 0xF0) {
        if (!(value & 1)) reset_machine_(); // pulses the lines whose bits are 0
    } else {
        switch (value) {
        case 0xA9: answer(0x01); break; // no auxiliary port: its clock line is stuck low
        case 0xAA:
            command_byte_ |= command_system;
            answer(0x55);
            break;
        case 0xAB: answer(0x00); break;
        case 0xAD: command_byte_ |= command_keyboard_disabled; break;
        case 0xAE: command_byte_ = static_cast<u8>(command_byte_ & ~command_keyboard_disabled); break;
        case 0xC0: answer(0xA0); break; // keyboard not locked
        case 0xD0: answer(static_cast<u8>(0x01 | (a20_ ? 0x02 : 0) | (output_full_ ? 0x10 : 0))); break;
        default: break;
        }
    }
}

void Ps2Controller::controller_data(u8 value) {
    last_was_command_ = false;
    const u8 command = pending_command_;
    pending_command_ = 0;
    if (command == 0)
        keyboard_byte(value);
    else if (command == 0x60)
        command_byte_ = value;
    else if (command < 0x80)
        ram_[command & 0x1F] = value;
    else if (command == write_output_port_command)
        write_output_port(value);
    else if (command == write_output_buffer || command == aux_loopback)
        answer(value);
}

// ---- Ports
// ----------------------------------------------------------------------------------------------------

u8 Ps2Controller::read_byte(u16 port) {
    switch (port) {
    case data_port: {
        const u8 value = output_;
        output_full_ = false;
        refill();
        return value;
    }
    case command_port:
        return static_cast<u8>(status_unlocked | (output_full_ ? status_output_full : 0) |
                               (command_byte_ & command_system ? status_system : 0) |
                               (last_was_command_ ? status_command : 0));
    case port_92: return a20_ ? 2 : 0;
    default: return 0xFF;
    }
}

void Ps2Controller::write_byte(u16 port, u8 value) {
    switch (port) {
    case data_port: controller_data(value); break;
    case command_port: controller_command(value); break;
    case port_92:
        set_a20(value & 2);
        if (value & 1) reset_machine_();
        return;
    default: return;
    }
    refill();
}

// The ports are not neighbours: only the first byte of a wider access is theirs.
u32 Ps2Controller::port_read(u16 port, unsigned size) {
    const u32 rest = size >= 4 ? 0xFFFF'FF00 : size == 2 ? 0xFF00 : 0;
    return rest | read_byte(port);
}

void Ps2Controller::port_write(u16 port, unsigned, u32 value) { write_byte(port, static_cast<u8>(value)); }

void Ps2Controller::visit(StateVisitor& visitor) {
    visitor.value("command_byte", command_byte_);
    visitor.value("pending_command", pending_command_);
    visitor.value("output", output_);
    visitor.value("output_full", output_full_);
    visitor.value("last_was_command", last_was_command_);
    visitor.value("a20", a20_);
    visitor.bytes("ram", ram_);
    visitor.bytes("queue", queue_);
    visitor.value("queue_first", queue_first_);
    visitor.value("queue_count", queue_count_);
    visitor.value("keyboard_pending", keyboard_pending_);
    visitor.value("scanning", scanning_);
}

} // namespace exeunt
