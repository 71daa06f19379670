// The I/O APIC: 24 pins, redirection table, EOI register (version 20H).
// Intel 82093AA I/O APIC data sheet; Intel I/O Controller Hub 9 data sheet 13.5 "Advanced Programmable
// Interrupt Controller (APIC)". SDM 3A 10.8.5 "Signaling Interrupt Servicing Completion".
//
// Wiring: map 4 KBytes at IoApic::default_base; drive pin(n) with the line of GSI n (8259 IRQ 0 is usually
// pin 2). Messages go to `sink` (the ApicBus, or an IOMMU before it) in the format of SDM 3A 10.11; EOIs come
// from the ApicBus, to which it attaches itself.
// Not modelled: Boot DT bit (interrupts always travel as messages); remappable-format entries.
#pragma once

#include "apic/ipi.hpp"
#include "base/bus.hpp"

namespace exeunt {

class IoApic final : public MmioDevice, public EoiListener, public Device {
public:
    static constexpr u64 default_base = 0xFEC0'0000;
    static constexpr unsigned pins = 24;
    static constexpr u32 version = 0x0017'0020;
    /// Bits of a redirection table entry that software can write.
    static constexpr u64 entry_writable = 0xFF00'0000'0001'AFFF;
    static constexpr u64 entry_reset = 0x0000'0000'0001'0000;

    IoApic(MessageSink& sink, ApicBus& bus, u8 id = 0);
    IoApic(const IoApic&) = delete;
    IoApic& operator=(const IoApic&) = delete;

    /// The input of pin n (0 to 23). `true` is asserted, whatever voltage that is: the polarity bit is kept
    /// and has no effect.
    InterruptLine& pin(unsigned n) { return pin_[n]; }
    u64 mmio_read(u64 offset, unsigned size) override;
    void mmio_write(u64 offset, unsigned size, u64 value) override;
    void eoi(u8 vector) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    class Pin final : public InterruptLine {
    public:
        void set(bool level) override { io_apic->pin_changed(index, level); }
        IoApic* io_apic = nullptr;
        unsigned index = 0;
    };
    static constexpr u64 masked = bit(16), level_triggered = bit(15), remote_irr = bit(14);

    void pin_changed(unsigned index, bool level);
    void deliver(unsigned index);
    void deliver_if_level(unsigned index);
    u32 read_indirect() const;
    void write_indirect(u32 value);

    MessageSink& sink_;
    Pin pin_[pins];
    u8 initial_id_;
    u8 select_ = 0;
    u32 id_ = 0;
    u64 entry_[pins] = {};
    bool asserted_[pins] = {};
};

} // namespace exeunt
