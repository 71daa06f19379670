// The definition block of the machine (ACPI 6.4 5.2.11.1 "Differentiated System Description Table (DSDT)"): what
// an operating system can not enumerate by itself.
#pragma once

#include "devices/acpi_pm.hpp"
#include "machine/firmware_tables.hpp"

namespace exeunt {

/// Ports of the ACPI fixed hardware (devices/acpi_pm.hpp).
namespace Pm {
inline constexpr u16 event = AcpiPm::base, control = AcpiPm::base + 4, timer = AcpiPm::base + 8,
                     gpe0 = AcpiPm::base + 0x20;
inline constexpr u8 gpe0_bytes = 16;
}  // namespace Pm

/// The AML after the table header.
std::vector<u8> build_dsdt(const FirmwareFacts& facts);

}  // namespace exeunt
