// The test device of kvm-unit-tests: an I/O latch, a flush port, interrupt lines that software drives, and
// memory that is answered as a device. QEMU hw/misc "pc-testdev".
//
// Wiring: ports E0H-E3H and E8H-EBH (the same latch of 4 bytes), E4H (flush: calls `flush`), 2000H-2017H
// (port 2000H + n sets `lines[n]`, null where there is none, to the value written), and 64 KBytes of MMIO at
// PcTestdev::mmio_base. `flush` is told a physical page whose translations are to be forgotten.
#pragma once

#include "base/bus.hpp"

#include <array>
#include <functional>
#include <vector>

namespace exeunt {

class PcTestdev final : public PortDevice, public MmioDevice, public Device {
public:
    static constexpr u64 mmio_base = 0xFF00'0000, mmio_bytes = 0x1'0000;
    static constexpr u16 irq_base = 0x2000;

    PcTestdev(const std::array<InterruptLine*, 24>& lines, std::function<void(u64 page)> flush);
    PcTestdev(const PcTestdev&) = delete;
    PcTestdev& operator=(const PcTestdev&) = delete;

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    u64 mmio_read(u64 offset, unsigned size) override;
    void mmio_write(u64 offset, unsigned size, u64 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    std::array<InterruptLine*, 24> lines_;
    std::function<void(u64)> flush_;
    u8 latch_[4] = {};
    std::vector<u8> memory_;
};

} // namespace exeunt
