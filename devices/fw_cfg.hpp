// The firmware configuration device: items that firmware and kernels read by selector or by file name.
// QEMU documentation "QEMU Firmware Configuration (fw_cfg) Device".
//
// Wiring: ports 510H-511H and 514H-51BH. add_item() and add_file() before the machine starts; files get
// selectors from 20H in the order in which they are added.
// Not modelled: writable items (a DMA write to any item is an error).
#pragma once

#include "base/bus.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

struct FwCfgOptions {
    u64 ram_bytes = 0;
    u16 cpus = 1;     ///< selector 05H
    u16 max_cpus = 1; ///< selector 0FH
};

class FwCfg final : public PortDevice, public Device {
public:
    static constexpr u16 selector_port = 0x510, data_port = 0x511, dma_port = 0x514;
    enum Selector : u16 {
        signature = 0x00,
        id = 0x01,
        uuid = 0x02,
        ram_size = 0x03,
        nographic = 0x04,
        nb_cpus = 0x05,
        kernel_addr = 0x07,
        kernel_size = 0x08,
        initrd_addr = 0x0A,
        initrd_size = 0x0B,
        boot_device = 0x0C,
        boot_menu = 0x0E,
        max_cpus = 0x0F,
        kernel_entry = 0x10,
        kernel_data = 0x11,
        initrd_data = 0x12,
        cmdline_addr = 0x13,
        cmdline_size = 0x14,
        cmdline_data = 0x15,
        setup_addr = 0x16,
        setup_size = 0x17,
        setup_data = 0x18,
        file_dir = 0x19,
        file_first = 0x20,
    };

    FwCfg(DmaMemory& memory, const FwCfgOptions& options);
    FwCfg(const FwCfg&) = delete;
    FwCfg& operator=(const FwCfg&) = delete;

    void add_item(u16 selector, std::vector<u8> bytes);
    void add_u16(u16 selector, u16 value);
    void add_u32(u16 selector, u32 value);
    void add_u64(u16 selector, u64 value);
    /// A file of the directory; a name has at most 55 characters. Returns its selector.
    u16 add_file(std::string_view name, std::vector<u8> bytes);

    u32 port_read(u16 port, unsigned size) override;
    void port_write(u16 port, unsigned size, u32 value) override;
    void reset() override;
    void visit(StateVisitor& visitor) override;

private:
    const std::vector<u8>* selected() const;
    void rebuild_directory();
    u8 read_data();
    void dma(u64 address);

    DmaMemory& memory_;
    std::map<u16, std::vector<u8>> items_; ///< configuration, not state
    struct File {
        std::string name;
        u16 selector;
        u32 bytes;
    };
    std::vector<File> files_;
    u16 selector_ = 0;
    u64 position_ = 0;
    u32 dma_high_ = 0; ///< first half of the DMA address, as written
};

} // namespace exeunt
