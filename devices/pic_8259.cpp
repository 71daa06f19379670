#include "devices/pic_8259.hpp"

#include "devices/register_file.hpp"

namespace exeunt {

namespace {

constexpr u16 elcr_first = 0x4D0;
constexpr unsigned cascade = 2;

} // namespace

Pic8259::Pic8259(InterruptLine& output) : output_(output) {
    for (unsigned n = 0; n < 16; ++n) {
        input_[n].pic = this;
        input_[n].index = n;
    }
    reset();
}

void Pic8259::reset() {
    for (Chip& chip : chip_) {
        const u8 lines = chip.lines;
        chip = Chip{};
        chip.lines = lines;
        chip.imr = 0xFF;
    }
    update();
}

// ---- Inputs
// -------------------------------------------------------------------------------------------------

void Pic8259::input_changed(unsigned irq, bool level) {
    if (irq == cascade) return;
    set_input(chip_[irq >> 3], irq & 7, level);
    update();
}

// "The interrupt request input must remain high until after the first INTA": a request goes with its line.
void Pic8259::set_input(Chip& chip, unsigned n, bool level) {
    const u8 mask = static_cast<u8>(1u << n);
    const bool was = chip.lines & mask;
    chip.lines = static_cast<u8>(level ? chip.lines | mask : chip.lines & ~mask);
    if (!level)
        chip.irr = static_cast<u8>(chip.irr & ~mask);
    else if (!was || chip.level_triggered(n))
        chip.irr |= mask;
}

// ---- Priority
// -----------------------------------------------------------------------------------------------

int Pic8259::highest(const Chip& chip, unsigned inputs) {
    for (unsigned rank = 0; rank < 8; ++rank) {
        const unsigned n = (chip.lowest + 1u + rank) & 7;
        if ((inputs >> n) & 1) return static_cast<int>(n);
    }
    return -1;
}

/// The input that INT is for, or -1.
int Pic8259::requested(const Chip& chip) const {
    if (chip.next_icw != 0) return -1;
    const int request = highest(chip, chip.irr & ~chip.imr & 0xFFu);
    if (request < 0) return -1;
    unsigned blocking = chip.isr;
    if (chip.special_mask) blocking &= ~unsigned{chip.imr};
    if (&chip == &chip_[0] && chip.special_fully_nested()) blocking &= ~(1u << cascade);
    const int in_service = highest(chip, blocking);
    if (in_service >= 0 &&
        chip.rank(static_cast<unsigned>(request)) >= chip.rank(static_cast<unsigned>(in_service)))
        return -1;
    return request;
}

/// The INTA cycle of one chip: the vector's low bits, 7 when the request went away.
u8 Pic8259::take(Chip& chip, int n) {
    if (n < 0) return 7;
    const u8 mask = static_cast<u8>(1 << n);
    if (!chip.level_triggered(static_cast<unsigned>(n))) chip.irr = static_cast<u8>(chip.irr & ~mask);
    if (!chip.automatic_eoi())
        chip.isr |= mask;
    else if (chip.rotate_on_aeoi)
        chip.lowest = static_cast<u8>(n);
    return static_cast<u8>(n);
}

u8 Pic8259::acknowledge() {
    const u8 n = take(chip_[0], requested(chip_[0]));
    u8 vector = static_cast<u8>(chip_[0].icw2 | n);
    if (n == cascade) vector = static_cast<u8>(chip_[1].icw2 | take(chip_[1], requested(chip_[1])));
    update();
    return vector;
}

// The slave's INT is IR2 of the master; it falls and rises again within INTA, so IR2 follows it as a level.
void Pic8259::update() {
    const bool slave = requested(chip_[1]) >= 0;
    Chip& master = chip_[0];
    const u8 mask = 1u << cascade;
    master.lines = static_cast<u8>(slave ? master.lines | mask : master.lines & ~mask);
    master.irr = static_cast<u8>(slave ? master.irr | mask : master.irr & ~mask);
    const bool level = requested(master) >= 0;
    if (level == intr_) return;
    intr_ = level;
    output_.set(level);
}

// ---- Ports
// --------------------------------------------------------------------------------------------------

u32 Pic8259::port_read(u16 port, unsigned size) {
    return read_bytewise(port, size, [this](u16 p) { return read_byte(p); });
}

void Pic8259::port_write(u16 port, unsigned size, u32 value) {
    write_bytewise(port, size, value, [this](u16 p, u8 v) { write_byte(p, v); });
}

u8 Pic8259::read_byte(u16 port) {
    if (port == elcr_first || port == elcr_first + 1) return chip_[port & 1].elcr;
    if ((port & ~0x81) != 0x20) return 0xFF;
    Chip& chip = chip_[(port >> 7) & 1];
    if (chip.poll) return poll_word(chip);
    if (port & 1) return chip.imr;
    return chip.read_isr ? chip.isr : chip.irr;
}

u8 Pic8259::poll_word(Chip& chip) {
    chip.poll = false;
    const int n = requested(chip);
    if (n < 0) return 0;
    take(chip, n);
    update();
    return static_cast<u8>(0x80 | n);
}

void Pic8259::write_byte(u16 port, u8 value) {
    if (port == elcr_first || port == elcr_first + 1) {
        // IRQ 0, 1, 2, 8 and 13 are always edge-triggered.
        Chip& chip = chip_[port & 1];
        chip.elcr = value & (port & 1 ? 0xDE : 0xF8);
        chip.irr |= static_cast<u8>(chip.lines & chip.elcr);
    } else if ((port & ~0x81) == 0x20) {
        Chip& chip = chip_[(port >> 7) & 1];
        if (port & 1)
            data(chip, value);
        else
            command(chip, value);
    } else {
        return;
    }
    update();
}

void Pic8259::command(Chip& chip, u8 value) {
    if (value & 0x10) { // ICW1
        const u8 lines = chip.lines, elcr = chip.elcr;
        const u8 icw2 = chip.icw2, icw3 = chip.icw3;
        chip = Chip{};
        chip.lines = lines;
        chip.elcr = elcr;
        chip.icw2 = icw2;
        chip.icw3 = icw3;
        chip.irr = lines & elcr; // edges are forgotten
        chip.icw1 = value;
        chip.next_icw = 2;
    } else if (value & 0x08) { // OCW3
        if (value & 0x04) chip.poll = true;
        if (value & 0x02) chip.read_isr = value & 0x01;
        if (value & 0x40) chip.special_mask = value & 0x20;
    } else {
        ocw2(chip, value);
    }
}

void Pic8259::ocw2(Chip& chip, u8 value) {
    const bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    const u8 level = value & 7;
    if (!eoi) {
        if (!specific)
            chip.rotate_on_aeoi = rotate;
        else if (rotate)
            chip.lowest = level; // set priority
        return;                  // (specific without rotate is no operation)
    }
    // In special mask mode a non-specific EOI leaves masked levels in service.
    const unsigned served = chip.special_mask ? chip.isr & ~unsigned{chip.imr} : chip.isr;
    const int n = specific ? level : highest(chip, served);
    if (n < 0) return;
    chip.isr = static_cast<u8>(chip.isr & ~(1 << n));
    if (rotate) chip.lowest = static_cast<u8>(n);
}

void Pic8259::data(Chip& chip, u8 value) {
    const bool single = chip.icw1 & 2, has_icw4 = chip.icw1 & 1;
    switch (chip.next_icw) {
    case 2:
        chip.icw2 = value & 0xF8;
        chip.next_icw = single ? (has_icw4 ? 4 : 0) : 3;
        break;
    case 3:
        chip.icw3 = value;
        chip.next_icw = has_icw4 ? 4 : 0;
        break;
    case 4:
        chip.icw4 = value;
        chip.next_icw = 0;
        break;
    default: chip.imr = value; break;
    }
}

void Pic8259::visit(StateVisitor& visitor) {
    for (unsigned n = 0; n < 2; ++n) {
        Chip& c = chip_[n];
        visitor.enter(n == 0 ? "master" : "slave");
        visitor.value("irr", c.irr);
        visitor.value("isr", c.isr);
        visitor.value("imr", c.imr);
        visitor.value("lines", c.lines);
        visitor.value("elcr", c.elcr);
        visitor.value("icw1", c.icw1);
        visitor.value("icw2", c.icw2);
        visitor.value("icw3", c.icw3);
        visitor.value("icw4", c.icw4);
        visitor.value("next_icw", c.next_icw);
        visitor.value("lowest", c.lowest);
        visitor.value("read_isr", c.read_isr);
        visitor.value("poll", c.poll);
        visitor.value("special_mask", c.special_mask);
        visitor.value("rotate_on_aeoi", c.rotate_on_aeoi);
        visitor.leave();
    }
    visitor.value("intr", intr_);
}

} // namespace exeunt
