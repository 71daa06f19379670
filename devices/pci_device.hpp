// What every PCI function has: configuration space, base address registers, INTx, MSI and MSI-X.
// PCI Local Bus Specification 3.0 ch. 6 "Configuration Space"; PCI Express Base Specification 2.0 ch. 7.
//
// Wiring: derive, add rows, BARs and capabilities in the constructor, and attach to a PciHost.
// Not modelled: expansion ROMs, power states other than D0, error reporting.
#pragma once

#include "base/bits.hpp"
#include "base/bus.hpp"
#include "devices/register_file.hpp"

#include <array>
#include <span>
#include <string>

namespace exeunt {

struct PciIdentity {
    u16 vendor = 0xFFFF, device = 0xFFFF;
    u32 class_code = 0; ///< class, subclass, programming interface
    u8 revision = 0;
    u16 subsystem_vendor = 0, subsystem = 0;
};

class PciDevice : public Device {
public:
    enum class BarKind : u8 { none, memory32, memory64, upper, io };
    static constexpr unsigned bars = 6, config_bytes = 4096;
    static constexpr u16 command_io = 1, command_memory = 2, command_master = 4, command_intx_disable = 0x400;

    explicit PciDevice(const PciIdentity& identity);
    PciDevice(const PciDevice&) = delete;
    PciDevice& operator=(const PciDevice&) = delete;

    /// Configuration space; `size` is 1, 2 or 4 and the access is aligned.
    u32 config_read(unsigned offset, unsigned size);
    void config_write(unsigned offset, unsigned size, u32 value);

    /// The BAR, and how far into it, that decodes a memory address or a port; false: none.
    struct Hit {
        unsigned bar = 0;
        u64 offset = 0;
    };
    bool decodes(bool io, u64 address, Hit& hit) const;
    /// An access to a BAR. MSI-X tables are answered here, everything else by bar_read() and bar_write().
    u64 region_read(const Hit& hit, unsigned size);
    void region_write(const Hit& hit, unsigned size, u64 value);

    BarKind bar_kind(unsigned bar) const { return bar_[bar].kind; }
    u64 bar_bytes(unsigned bar) const { return bar_[bar].bytes; }
    u64 bar_address(unsigned bar) const;
    u8 interrupt_pin() const { return config_[0x3D]; }

    /// Where interrupts go; called by PciHost::attach().
    void connect(InterruptLine& intx, MessageSink& messages);

    void reset() override;
    void visit(StateVisitor& visitor) override;

protected:
    virtual u64 bar_read(unsigned bar, u64 offset, unsigned size);
    virtual void bar_write(unsigned bar, u64 offset, unsigned size, u64 value);
    /// Before configuration space is read: a chance to put() what changes by itself.
    virtual void config_reading(unsigned offset, unsigned size);
    /// After a write to configuration space changed something.
    virtual void config_written(unsigned offset, unsigned size);
    /// Registers outside configuration space: after the common ones were reset.
    virtual void device_reset() {}
    virtual void device_visit(StateVisitor&) {}

    /// Declares a register: reset value and which bits software can change.
    void add_register(const RegisterRow& row);
    void add_bar(unsigned bar, BarKind kind, u64 bytes); ///< bytes: a power of two
    void set_interrupt_pin(u8 pin);                      ///< 1 is INTA
    /// Appends a capability of `bytes` bytes (ID and pointer included) and returns its offset.
    u8 add_capability(u8 id, unsigned bytes);
    /// Vendor-specific structures and the like: the bytes of a capability after ID and pointer.
    void set_capability_byte(unsigned offset, u8 value) { reset_[offset] = config_[offset] = value; }
    void add_msi();
    void add_msix(unsigned vectors, unsigned bar, u32 table_offset, u32 pending_offset);

    void set_intx(bool level);
    bool msi_enabled() const;
    bool msix_enabled() const;
    void send_msi();
    /// Sends vector `n`, or makes it pending while masked. Nothing for a vector that does not exist.
    void send_msix(unsigned n);
    bool bus_master() const { return command() & command_master; }
    u16 command() const { return static_cast<u16>(get(0x04, 2)); }

    u32 get(unsigned offset, unsigned bytes) const;
    void put(unsigned offset, unsigned bytes, u32 value);

private:
    struct Bar {
        BarKind kind = BarKind::none;
        u64 bytes = 0;
    };
    static constexpr unsigned max_vectors = 64;

    void update_intx();
    u64 msix_read(u32 offset, unsigned size);
    void msix_write(u32 offset, unsigned size, u64 value);
    void send_pending();
    void fire(unsigned n);

    std::array<u8, config_bytes> config_{}, reset_{}, writable_{}, clears_{};
    std::array<Bar, bars> bar_{};
    u8 last_capability_ = 0, next_free_ = 0x40;
    u8 msi_ = 0, msix_ = 0;
    unsigned msix_vectors_ = 0, msix_bar_ = 0;
    u32 msix_table_ = 0, msix_pending_offset_ = 0;
    u32 msix_entry_[max_vectors][4] = {};
    u64 msix_pending_ = 0;
    bool intx_ = false;
    InterruptLine* intx_line_ = nullptr;
    MessageSink* messages_ = nullptr;
};

} // namespace exeunt
