// The tables that firmware leaves for an operating system: ACPI (ACPI 6.4 ch. 5 "ACPI Software Programming
// Model"; PCI Firmware Specification 3.0 4.1.2 "MCFG"; IA-PC HPET Specification 1.0a 3.2.4) and the BIOS data area.
//
// Not modelled: BIOS services (each answers that it does not exist), SMBIOS, the MP configuration table, S1 to S4, hot plug.
#pragma once

#include "machine/memory_map.hpp"
#include "mmu/physical_memory.hpp"

#include <vector>

namespace exeunt {

/// What the tables say of the machine.
struct FirmwareFacts {
    std::vector<u32> apic_ids;          ///< of each processor
    unsigned io_apic_id = 0;
    unsigned sci = 9;                   ///< GSI of the system control interrupt: level, active high
    u16 serial_port = 0x3F8;
    std::vector<unsigned> pci_devices;  ///< numbers of the devices on bus 0 that have an interrupt pin
};

struct AcpiTables {
    std::vector<u8> bytes;  ///< to stand at AddressMap::bios
    u64 rsdp = 0;           ///< physical address
};

AcpiTables build_acpi_tables(const FirmwareFacts& facts);

/// Writes the tables, the FACS, the BIOS data area, and handlers for BIOS interrupts. Returns the address of the RSDP.
u64 write_firmware_tables(const FirmwareFacts& facts, PhysicalMemory& memory);

}  // namespace exeunt
