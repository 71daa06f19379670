// virtio block device on PCI, modern interface. Virtual I/O Device (VIRTIO) Version 1.0: 2.4 "Virtqueues",
// 4.1 "Virtio Over PCI Bus", 5.2 "Block Device".
//
// Wiring: construct over guest RAM and a BlockBackend, attach to a PciHost. Requests complete within the
// write that notifies the queue. Interrupts: MSI-X, else INTA.
// Not modelled: the legacy interface; indirect and event-index features (not offered); more than one queue.
// A ring that breaks the rules sets DEVICE_NEEDS_RESET, as 2.1.2 asks.
#pragma once

#include "devices/pci_device.hpp"

#include <span>
#include <vector>

namespace exeunt {

/// What holds the sectors. The machine implements it over a file.
class BlockBackend {
public:
    virtual ~BlockBackend() = default;
    virtual u64 sectors() const = 0; ///< of 512 bytes
    virtual bool read_only() const = 0;
    /// Within sectors(). False: the medium failed.
    virtual bool read(u64 sector, std::span<u8> to) = 0;
    virtual bool write(u64 sector, std::span<const u8> from) = 0;
    virtual bool flush() = 0;
};

class VirtioBlock final : public PciDevice {
public:
    VirtioBlock(DmaMemory& memory, BlockBackend& backend);

protected:
    u64 bar_read(unsigned bar, u64 offset, unsigned size) override;
    void bar_write(unsigned bar, u64 offset, unsigned size, u64 value) override;
    void config_reading(unsigned offset, unsigned size) override;
    void config_written(unsigned offset, unsigned size) override;
    void device_reset() override;
    void device_visit(StateVisitor& visitor) override;

private:
    static constexpr u16 queue_max = 256;
    static constexpr u16 no_vector = 0xFFFF;
    static constexpr unsigned vectors = 2;
    static constexpr u32 segment_max = 1 << 16; ///< SIZE_MAX

    struct Segment {
        u64 address;
        u32 bytes;
    };
    /// A request: what the driver wrote, and what it wants written.
    struct Chain {
        std::vector<Segment> readable, writable;
    };

    u64 offered_features() const;
    u64 common_read(u64 offset, unsigned size) const;
    void common_write(u64 offset, unsigned size, u64 value);
    u64 device_config(u64 offset, unsigned size) const;
    void set_status(u8 value);
    void write_queue_address(u64& address, u64 offset, unsigned size, u64 value);
    void notify();
    bool gather(u16 head, Chain& chain);
    bool process(u16 head);
    u8 execute(const Chain& chain, u64& written);
    u8 transfer(const std::vector<Segment>& data, bool to_driver, u64 skip, u64 bytes, u64 sector);
    void copy(const std::vector<Segment>& segments, u64 skip, std::span<u8> buffer, bool to_guest);
    void complete(u16 head, u32 written);
    void interrupt(bool configuration);
    void broken();
    u16 load16(u64 at);

    DmaMemory& memory_;
    BlockBackend& backend_;

    u8 window_ = 0; ///< offset of the capability through which BARs are reached (4.1.4.7)
    u64 driver_features_ = 0;
    u32 device_feature_select_ = 0, driver_feature_select_ = 0;
    u8 status_ = 0, isr_ = 0;
    u16 config_vector_ = no_vector, queue_select_ = 0;
    u16 queue_size_ = queue_max, queue_vector_ = no_vector;
    bool queue_enabled_ = false;
    u64 descriptors_ = 0, available_ = 0, used_ = 0;
    u16 next_available_ = 0, next_used_ = 0;
};

} // namespace exeunt
