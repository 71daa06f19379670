// All that a device sees of the machine, and all that the machine sees of a device.
#pragma once

#include "base/snapshot.hpp"
#include "base/types.hpp"

namespace exeunt {

/// What every part of the machine outside the processors can do.
class Device {
public:
    virtual ~Device() = default;
    /// The state after power-up. Output lines go to their reset levels.
    virtual void reset() = 0;
    virtual void visit(StateVisitor& visitor) = 0;
};

/// A device that answers a range of physical addresses. `offset` counts from the start of its range;
/// `size` is 1, 2, 4 or 8 bytes and an access never crosses an aligned 8-byte boundary.
class MmioDevice {
public:
    virtual ~MmioDevice() = default;
    virtual u64 mmio_read(u64 offset, unsigned size) = 0;
    virtual void mmio_write(u64 offset, unsigned size, u64 value) = 0;
};

/// A device that answers I/O ports. `port` is the absolute port; `size` is 1, 2 or 4 bytes.
class PortDevice {
public:
    virtual ~PortDevice() = default;
    virtual u32 port_read(u16 port, unsigned size) = 0;
    virtual void port_write(u16 port, unsigned size, u32 value) = 0;
};

/// The input of an interrupt controller that a device drives: high is asserted.
class InterruptLine {
public:
    virtual ~InterruptLine() = default;
    virtual void set(bool level) = 0;
};

/// Writes of message-signalled interrupts: the address and data of SDM 3A 10.11.
class MessageSink {
public:
    virtual ~MessageSink() = default;
    virtual void message(u64 address, u32 data) = 0;
};

/// What answers an INTA cycle: the 8259 behind ExtINT.
class InterruptSource {
public:
    virtual ~InterruptSource() = default;
    virtual u8 acknowledge() = 0;
};

/// Guest RAM as bus masters see it. Bytes outside RAM read as FFH and are not written.
class DmaMemory {
public:
    virtual ~DmaMemory() = default;
    virtual void read(u64 at, void* to, u64 bytes) = 0;
    virtual void write(u64 at, const void* from, u64 bytes) = 0;
};

/// What a processor asks its local interrupt controller (the local APIC, and the 8259 behind LINT0).
class InterruptController {
public:
    virtual ~InterruptController() = default;
    /// Whether an unmasked interrupt of sufficient priority waits (RFLAGS.IF is the processor's to check).
    virtual bool interrupt_pending() = 0;
    /// Takes the interrupt: IRR to ISR, or the 8259's INTA cycle for ExtINT. Returns the vector.
    virtual u8 acknowledge() = 0;
    /// TPR bits 7:4, the value of CR8.
    virtual u8 cr8() = 0;
    virtual void set_cr8(u8 value) = 0;
    /// MSRs that belong to the controller (IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC 800H-8FFH).
    /// False: no such MSR now, or a reserved bit: the instruction faults with #GP(0).
    virtual bool read_msr(u32 index, u64& value) = 0;
    virtual bool write_msr(u32 index, u64 value) = 0;
    /// As a write to the EOI register, which the processor does by itself after a notification of posted interrupts.
    virtual void end_of_interrupt() {}
    /// Sends a fixed interrupt to one processor and leaves the ICR as it is. `destination`: an x2APIC ID in x2APIC
    /// mode, else an APIC ID in bits 15:8.
    virtual void send_notification(u32 /*destination*/, u8 /*vector*/) {}
    /// The processor takes an INIT (not merely receives one): SDM 3A 10.4.7.3.
    virtual void init() {}
    /// A performance counter overflowed: the LVT's entry for it.
    virtual void performance_interrupt() {}
};

/// What interrupt controllers and the machine say to a processor.
class ProcessorSignals {
public:
    virtual ~ProcessorSignals() = default;
    /// interrupt_pending() of the controller may have changed.
    virtual void interrupt_changed() = 0;
    virtual void nmi() = 0;
    virtual void smi() = 0;
    virtual void init() = 0;
    virtual void sipi(u8 vector) = 0;
};

/// The machine's physical address space outside RAM, and its I/O ports, as a processor uses them.
class IoBus {
public:
    virtual ~IoBus() = default;
    virtual u32 port_read(u16 port, unsigned size) = 0;
    virtual void port_write(u16 port, unsigned size, u32 value) = 0;
    virtual u64 mmio_read(u64 physical, unsigned size) = 0;
    virtual void mmio_write(u64 physical, unsigned size, u64 value) = 0;
};

}  // namespace exeunt
