// A pair of 8259A programmable interrupt controllers, the second on IR2 of the first, with the edge/level
// control registers of EISA. Intel 8259A data sheet; Intel I/O Controller Hub 9 data sheet 5.8, 13.4.
//
// Wiring: ports 20H-21H, A0H-A1H, 4D0H-4D1H. Drive irq(n) for n = 0..15 (2 is the cascade and not connected);
// `output` is INTR, to LINT0 of the processors and pin 0 of the I/O APIC where one is wired so. It is the
// InterruptSource that local APICs ask in an INTA cycle.
// Not modelled: the 8080 mode's three-byte CALL (ICW4.uPM = 0 works as 8086 mode); buffered mode has no
// visible effect.
#pragma once

#include "base/bus.hpp"

namespace exeunt {

class Pic8259 final : public PortDevice, public InterruptSource, public Device {
public:
    explicit Pic8259(InterruptLine& output);
    Pic8259(const Pic8259&) = delete;
    Pic8259& operator=(const Pic8259&) = delete;

    InterruptLine& irq(unsigned n) { return input_[n & 15]; }
    u8 acknowledge() override;
    bool interrupt_requested() const { return intr_; }

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    struct Chip {
        u8 irr = 0, isr = 0, imr = 0;
        u8 lines = 0; ///< input levels
        u8 elcr = 0;  ///< level-triggered inputs
        u8 icw1 = 0, icw2 = 0, icw3 = 0, icw4 = 0;
        u8 next_icw = 0; ///< 2 to 4 during initialization, else 0
        u8 lowest = 7;   ///< the input of lowest priority
        bool read_isr = false, poll = false, special_mask = false, rotate_on_aeoi = false;

        /// ICW1.LTIM is replaced by the edge/level control register.
        bool level_triggered(unsigned n) const { return (elcr >> n) & 1; }
        bool automatic_eoi() const { return icw4 & 2; }
        bool special_fully_nested() const { return icw4 & 16; }
        /// 0 is the highest priority.
        unsigned rank(unsigned n) const { return (n - lowest - 1u) & 7; }
    };
    class Input final : public InterruptLine {
    public:
        void set(bool level) override { pic->input_changed(index, level); }
        Pic8259* pic = nullptr;
        unsigned index = 0;
    };

    u8 read_byte(u16 port);
    void write_byte(u16 port, u8 value);
    void input_changed(unsigned irq, bool level);
    void set_input(Chip& chip, unsigned n, bool level);
    void command(Chip& chip, u8 value);
    void ocw2(Chip& chip, u8 value);
    void data(Chip& chip, u8 value);
    int requested(const Chip& chip) const;
    static int highest(const Chip& chip, unsigned inputs);
    u8 take(Chip& chip, int n);
    u8 poll_word(Chip& chip);
    void update();

    InterruptLine& output_;
    Input input_[16];
    Chip chip_[2];
    bool intr_ = false;
};

} // namespace exeunt
