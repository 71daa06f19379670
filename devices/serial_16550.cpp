#include "devices/serial_16550.hpp"

#include <algorithm>

namespace exeunt {

namespace {

enum : unsigned { rbr_thr_dll, ier_dlm, iir_fcr, lcr, mcr, lsr, msr, scr };
constexpr u8 ier_received = 1, ier_thr_empty = 2, ier_line_status = 4, ier_modem_status = 8;
constexpr u8 iir_none = 1, iir_line_status = 6, iir_received = 4, iir_timeout = 0xC, iir_thr_empty = 2,
             iir_modem = 0;
constexpr u8 mcr_out2 = 8;
constexpr u8 msr_delta_cts = 1, msr_delta_dsr = 2, msr_trailing_ri = 4, msr_delta_dcd = 8;
constexpr u8 msr_cts = 0x10, msr_dsr = 0x20, msr_ri = 0x40, msr_dcd = 0x80;
constexpr u64 input_clock = 1'843'200;

} // namespace

Serial16550::Serial16550(Clock& clock, InterruptLine& irq, std::function<void(u8)> output, u16 base)
    : clock_(clock),
      irq_(irq),
      output_(std::move(output)),
      base_(base),
      timeout_(clock.add("serial_" + std::to_string(base), [this] {
          timed_out_ = fifo_enabled() && fifo_count_ != 0;
          update();
      })) {
    reset();
}

void Serial16550::reset() {
    ier_ = fcr_ = lcr_ = mcr_ = scr_ = 0;
    overrun_ = false;
    modem_delta_ = 0;
    modem_ = modem_lines();
    divisor_ = 1;
    thr_empty_event_ = false;
    clear_receiver();
    waiting_.clear();
    update();
}

// ---- Receiver
// -------------------------------------------------------------------------------------------------

void Serial16550::receive(std::span<const u8> data) {
    waiting_.insert(waiting_.end(), data.begin(), data.end());
    refill();
    update();
}

void Serial16550::receive_break() {
    push(0, lsr_bi);
    update();
}

/// Takes waiting input while there is room. In loopback the line is disconnected.
void Serial16550::refill() {
    if (loopback()) return;
    std::size_t taken = 0;
    while (taken < waiting_.size() && fifo_count_ < capacity()) push(waiting_[taken++], 0);
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
}

void Serial16550::push(u8 value, u8 status) {
    if (fifo_count_ >= capacity()) {
        // The FIFO keeps what it has; without it, the receiver buffer is overwritten.
        overrun_ = true;
        if (!fifo_enabled()) fifo_[fifo_first_] = value;
        return;
    }
    const unsigned at = (fifo_first_ + fifo_count_) & 15u;
    fifo_[at] = value;
    fifo_status_[at] = status;
    ++fifo_count_;
    arm_timeout();
}

u8 Serial16550::pop() {
    if (fifo_count_ == 0) return fifo_[fifo_first_];
    const u8 value = fifo_[fifo_first_];
    --fifo_count_;
    if (fifo_enabled()) fifo_first_ = (fifo_first_ + 1) & 15;
    timed_out_ = false;
    arm_timeout();
    refill();
    return value;
}

void Serial16550::clear_receiver() {
    fifo_first_ = fifo_count_ = 0;
    timed_out_ = false;
    clock_.disarm(timeout_);
}

unsigned Serial16550::trigger() const {
    constexpr u8 levels[4] = {1, 4, 8, 14};
    return levels[fcr_ >> 6];
}

/// Four characters' time without a character in or out, "Character Timeout Indication".
void Serial16550::arm_timeout() {
    if (fifo_enabled() && fifo_count_ != 0)
        clock_.arm(timeout_, clock_.now() + timeout_ticks());
    else
        clock_.disarm(timeout_);
}

u64 Serial16550::timeout_ticks() const {
    const u64 bits = 1 + 5 + (lcr_ & 3u) + (lcr_ & 8 ? 1 : 0) + (lcr_ & 4 ? 2 : 1);
    const u64 divisor = divisor_ == 0 ? 0x1'0000 : divisor_;
    return 4 * bits * divisor * 16 * ticks_per_second / input_clock;
}

// ---- Transmitter and modem
// --------------------------------------------------------------------------------------

void Serial16550::transmit(u8 value) {
    if (loopback())
        push(value, 0);
    else
        output_(value);
    thr_empty_event_ = true; // it left at once
}

u8 Serial16550::modem_lines() const {
    if (!loopback()) return msr_dcd | msr_dsr | msr_cts;
    return static_cast<u8>((mcr_ & 1 ? msr_dsr : 0) | (mcr_ & 2 ? msr_cts : 0) | (mcr_ & 4 ? msr_ri : 0) |
                           (mcr_ & 8 ? msr_dcd : 0));
}

void Serial16550::write_mcr(u8 value) {
    mcr_ = value & 0x1F;
    const u8 lines = modem_lines(), changed = lines ^ modem_;
    if (changed & msr_cts) modem_delta_ |= msr_delta_cts;
    if (changed & msr_dsr) modem_delta_ |= msr_delta_dsr;
    if (changed & msr_dcd) modem_delta_ |= msr_delta_dcd;
    if (changed & modem_ & msr_ri) modem_delta_ |= msr_trailing_ri;
    modem_ = lines;
    refill();
}

void Serial16550::write_fcr(u8 value) {
    const bool toggled = (value ^ fcr_) & 1;
    fcr_ = value & 1 ? value & 0xC9 : 0;
    if (toggled || ((value & 1) && (value & 2))) clear_receiver();
    refill();
}

// ---- Interrupts
// -----------------------------------------------------------------------------------------------

u8 Serial16550::line_status() const {
    u8 value = lsr_thre | lsr_temt;
    if (fifo_count_ != 0) value |= static_cast<u8>(lsr_dr | fifo_status_[fifo_first_]);
    if (overrun_) value |= lsr_oe;
    if (fifo_enabled())
        for (unsigned i = 0; i < fifo_count_; ++i)
            if (fifo_status_[(fifo_first_ + i) & 15u]) value |= lsr_fifo_error;
    return value;
}

/// The interrupt of highest priority, as IIR bits 3:0.
u8 Serial16550::interrupt_identification() const {
    if ((ier_ & ier_line_status) && (line_status() & (lsr_oe | lsr_bi))) return iir_line_status;
    if (ier_ & ier_received) {
        if (fifo_count_ >= (fifo_enabled() ? trigger() : 1)) return iir_received;
        if (timed_out_) return iir_timeout;
    }
    if ((ier_ & ier_thr_empty) && thr_empty_event_) return iir_thr_empty;
    if ((ier_ & ier_modem_status) && modem_delta_) return iir_modem;
    return iir_none;
}

/// On a PC the interrupt reaches the bus only while OUT2 is asserted; loopback deasserts that pin.
void Serial16550::update() {
    const bool level = interrupt_identification() != iir_none && (mcr_ & mcr_out2) && !loopback();
    if (level == irq_level_) return;
    irq_level_ = level;
    irq_.set(level);
}

// ---- Registers
// ------------------------------------------------------------------------------------------------

u32 Serial16550::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) { return read_byte(static_cast<unsigned>(p - base_)); });
}

void Serial16550::port_write(u16 port, unsigned size, u32 value) {
    write_bytewise(port, size, value,
                   [this](u16 p, u8 v) { write_byte(static_cast<unsigned>(p - base_), v); });
}

u8 Serial16550::read_byte(unsigned offset) {
    u8 value = 0;
    switch (offset) {
    case rbr_thr_dll:
        if (dlab()) return static_cast<u8>(divisor_);
        value = pop();
        break;
    case ier_dlm: return dlab() ? static_cast<u8>(divisor_ >> 8) : ier_;
    case iir_fcr: {
        const u8 id = interrupt_identification();
        if (id == iir_thr_empty) thr_empty_event_ = false;
        value = static_cast<u8>(id | (fifo_enabled() ? 0xC0 : 0));
        break;
    }
    case lcr: return lcr_;
    case mcr: return mcr_;
    case lsr:
        value = line_status();
        overrun_ = false;
        if (fifo_count_ != 0) fifo_status_[fifo_first_] = 0;
        break;
    case msr:
        value = modem_ | modem_delta_;
        modem_delta_ = 0;
        break;
    case scr: return scr_;
    default: return 0xFF;
    }
    update();
    return value;
}

void Serial16550::write_byte(unsigned offset, u8 value) {
    switch (offset) {
    case rbr_thr_dll:
        if (dlab())
            divisor_ = static_cast<u16>((divisor_ & 0xFF00) | value);
        else
            transmit(value);
        break;
    case ier_dlm:
        if (dlab()) {
            divisor_ = static_cast<u16>((divisor_ & 0x00FF) | value << 8);
            break;
        }
        if (value & ~ier_ & ier_thr_empty) thr_empty_event_ = true;
        ier_ = value & 0x0F;
        break;
    case iir_fcr: write_fcr(value); break;
    case lcr: lcr_ = value; break;
    case mcr: write_mcr(value); break;
    case scr: scr_ = value; break;
    default: break;
    }
    update();
}

void Serial16550::visit(StateVisitor& visitor) {
    visitor.value("ier", ier_);
    visitor.value("fcr", fcr_);
    visitor.value("lcr", lcr_);
    visitor.value("mcr", mcr_);
    visitor.value("scr", scr_);
    visitor.value("overrun", overrun_);
    visitor.value("modem_delta", modem_delta_);
    visitor.value("modem", modem_);
    visitor.value("divisor", divisor_);
    visitor.value("thr_empty_event", thr_empty_event_);
    visitor.value("timed_out", timed_out_);
    visitor.bytes("fifo", fifo_);
    visitor.bytes("fifo_status", fifo_status_);
    visitor.value("fifo_first", fifo_first_);
    visitor.value("fifo_count", fifo_count_);
    visitor.value("irq_level", irq_level_);
    visitor.buffer("waiting", waiting_);
}

} // namespace exeunt
