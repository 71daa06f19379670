// Text mode of a VGA as far as software that prints to B8000H needs it: 32 KBytes of memory, the CRT
// controller's index and data registers, the retrace bits of input status register 1.
// IBM VGA XGA Technical Reference, "VGA Function".
//
// Wiring: map VgaText::memory_bytes at VgaText::memory_base; ports 3D4H-3D5H and 3DAH. screen() is for
// people.
// Not modelled: everything else; there is no picture, no other mode, no video BIOS.
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"

#include <string>
#include <vector>

namespace exeunt {

class VgaText final : public PortDevice, public MmioDevice, public Device {
public:
    static constexpr u64 memory_base = 0xB'8000, memory_bytes = 0x8000;
    static constexpr u16 crtc_index = 0x3D4, crtc_data = 0x3D5, input_status = 0x3DA;
    static constexpr unsigned columns = 80, lines = 25;

    explicit VgaText(Clock& clock) : clock_(clock), memory_(memory_bytes) { reset(); }
    VgaText(const VgaText&) = delete;
    VgaText& operator=(const VgaText&) = delete;

    /// What a monitor would show: 25 lines of 80 characters, from the CRT controller's start address.
    std::vector<std::string> screen() const;

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    u64 mmio_read(u64 offset, unsigned size) override;
    void mmio_write(u64 offset, unsigned size, u64 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    static constexpr unsigned crtc_registers = 0x19;

    Clock& clock_;
    std::vector<u8> memory_;
    u8 index_ = 0;
    u8 crtc_[crtc_registers] = {};
};

} // namespace exeunt
