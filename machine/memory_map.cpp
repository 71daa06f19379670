#include "machine/memory_map.hpp"

#include "devices/pci_host.hpp"

namespace exeunt {

std::vector<MemoryRange> memory_map(u64 low_ram, u64 high_ram) {
    using namespace AddressMap;
    std::vector<MemoryRange> map = {
        {0, low_ram_end, MemoryType::usable},
        {ebda, ebda_bytes, MemoryType::reserved},
        {bios, bios_bytes, MemoryType::reserved},
        {one_mib, low_ram - one_mib, MemoryType::usable},
        {PciHost::ecam_base, PciHost::ecam_bytes, MemoryType::reserved},
    };
    if (high_ram != 0) map.push_back({four_gib, high_ram, MemoryType::usable});
    return map;
}

}  // namespace exeunt
