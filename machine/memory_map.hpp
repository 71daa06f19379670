// Where things are in the machine's physical address space, and the memory map that boot protocols hand over
// (ACPI 6.4 15 "System Address Map Interfaces").
#pragma once

#include "base/types.hpp"

#include <vector>

namespace exeunt {

namespace AddressMap {
inline constexpr u64 bios_data_area = 0x400;
inline constexpr u64 low_ram_end = 0x9FC00;        ///< start of the extended BIOS data area
inline constexpr u64 ebda = low_ram_end, ebda_bytes = 0x400;
inline constexpr u64 facs = ebda + 0x40;           ///< the one ACPI table that software writes
inline constexpr u64 vga_memory = 0xA0000, vga_memory_bytes = 0x20000;
inline constexpr u64 option_roms = 0xC0000, option_roms_bytes = 0x30000;
inline constexpr u64 bios = 0xF0000, bios_bytes = 0x10000;  ///< ACPI tables
inline constexpr u64 one_mib = 0x10'0000;
inline constexpr u64 four_gib = u64{1} << 32;
}  // namespace AddressMap

/// Address range types of ACPI 6.4 Table 15.1, with the numbers that every boot protocol uses.
enum class MemoryType : u32 { usable = 1, reserved = 2, acpi_reclaimable = 3, acpi_nvs = 4 };

struct MemoryRange {
    u64 start = 0, bytes = 0;
    MemoryType type = MemoryType::usable;

    u64 end() const { return start + bytes; }
};

/// The map of a machine with `low_ram` bytes below 4 GiB and `high_ram` bytes from 4 GiB up, in order.
std::vector<MemoryRange> memory_map(u64 low_ram, u64 high_ram);

}  // namespace exeunt
