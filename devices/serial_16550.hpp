// A 16550A UART. National Semiconductor PC16550D data sheet.
//
// Wiring: eight ports from `base` (3F8H). `irq` is ISA interrupt 4. Every transmitted byte goes to `output`
// at once. Input comes through receive(), at ticks of the machine's choice (it stamps and logs them); bytes
// for which there is no room wait in line, as behind hardware flow control, so none is lost.
// Not modelled: the time that a character takes to be transmitted; parity and framing errors; the modem is
// always there (CTS, DSR and DCD asserted).
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"
#include "devices/register_file.hpp"

#include <array>
#include <functional>
#include <span>
#include <vector>

namespace exeunt {

class Serial16550 final : public PortDevice, public Device {
public:
    /// What reads back as written; RBR/THR, IIR/FCR, LSR and MSR behave and have no row.
    static constexpr std::array rows = {
        //           offset name  bytes reset writable
        RegisterRow{1, "IER", 1, 0x00, 0x0F},
        RegisterRow{3, "LCR", 1, 0x00, 0xFF},
        RegisterRow{4, "MCR", 1, 0x00, 0x1F},
        RegisterRow{7, "SCR", 1, 0x00, 0xFF},
    };

    Serial16550(Clock& clock, InterruptLine& irq, std::function<void(u8)> output, u16 base = 0x3F8);
    Serial16550(const Serial16550&) = delete;
    Serial16550& operator=(const Serial16550&) = delete;

    void receive(std::span<const u8> data);
    /// The line is held at space: a break.
    void receive_break();
    u16 base() const { return base_; }

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    enum : u8 {
        lsr_dr = 0x01,
        lsr_oe = 0x02,
        lsr_bi = 0x10,
        lsr_thre = 0x20,
        lsr_temt = 0x40,
        lsr_fifo_error = 0x80
    };

    u8 read_byte(unsigned offset);
    void write_byte(unsigned offset, u8 value);
    bool dlab() const { return lcr_ & 0x80; }
    bool loopback() const { return mcr_ & 0x10; }
    bool fifo_enabled() const { return fcr_ & 1; }
    unsigned capacity() const { return fifo_enabled() ? 16 : 1; }
    unsigned trigger() const;
    u8 modem_lines() const;
    u8 interrupt_identification() const;
    u8 line_status() const;
    void transmit(u8 value);
    void push(u8 value, u8 status);
    u8 pop();
    void refill();
    void clear_receiver();
    void write_fcr(u8 value);
    void write_mcr(u8 value);
    u64 timeout_ticks() const;
    void arm_timeout();
    void update();

    Clock& clock_;
    InterruptLine& irq_;
    std::function<void(u8)> output_;
    u16 base_;
    Clock::TimerId timeout_;

    u8 ier_ = 0, fcr_ = 0, lcr_ = 0, mcr_ = 0, scr_ = 0;
    bool overrun_ = false; ///< LSR.OE
    u8 modem_delta_ = 0;   ///< MSR bits 3:0
    u8 modem_ = 0;         ///< MSR bits 7:4
    u16 divisor_ = 1;
    bool thr_empty_event_ = false; ///< the THRE interrupt is pending
    bool timed_out_ = false;       ///< character timeout indication
    u8 fifo_[16] = {}, fifo_status_[16] = {};
    u8 fifo_first_ = 0, fifo_count_ = 0;
    bool irq_level_ = false;
    std::vector<u8> waiting_; ///< input for which there was no room yet
};

} // namespace exeunt
