#include "machine/firmware_tables.hpp"

#include "apic/io_apic.hpp"
#include "apic/local_apic.hpp"
#include "base/bits.hpp"
#include "base/ensure.hpp"
#include "devices/acpi_pm.hpp"
#include "devices/hpet.hpp"
#include "devices/pci_host.hpp"
#include "machine/dsdt.hpp"
#include "machine/loader_placement.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

namespace exeunt {

namespace {

constexpr std::string_view oem_id = "EXEUNT", oem_table_id = "EXEUNT  ", creator_id = "EXNT";
/// What stands in for a BIOS in the segment F000H, beyond the tables. Offsets in it.
namespace BiosCode {
constexpr u16 service = 0xFF00, memory_size = 0xFF20, ignore = 0xFF30, reset_vector = 0xFFF0;
constexpr u16 segment = AddressMap::bios >> 4;
/// A service that does not exist: CF = 1 (and ZF = 1, no key) in the caller's flags, AH = 86H.
/// push bp; mov bp, sp; or byte [bp+6], 0x41; pop bp; mov ah, 0x86; iret
constexpr std::array<u8, 11> service_bytes{0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x41, 0x5D, 0xB4, 0x86, 0xCF};
/// INT 12H: mov ax, 639; iret
constexpr std::array<u8, 4> memory_size_bytes{0xB8, 0x7F, 0x02, 0xCF};
constexpr std::array<u8, 1> ignore_bytes{0xCF};  // iret
/// An INIT of the bootstrap processor ends here: cli; hlt; jmp -3
constexpr std::array<u8, 4> reset_bytes{0xFA, 0xF4, 0xEB, 0xFD};
}  // namespace BiosCode

constexpr std::size_t header_bytes = 36, checksum_offset = 9;

/// 5.2.3.2 "Generic Address Structure" of an I/O port.
void put_port(ByteWriter& out, u16 port, unsigned bits) {
    if (port == 0) {
        out.zeros(12);
        return;
    }
    const unsigned access_size = bits == 32 ? 3 : bits == 16 ? 2 : 1;
    out.u8s({1, bits, 0, access_size}).qword(port);
}

void put_memory(ByteWriter& out, u64 address) { out.u8s({0, 64, 0, 0}).qword(address); }

u8 checksum(std::span<const u8> bytes) {
    return static_cast<u8>(0x100 - (std::accumulate(bytes.begin(), bytes.end(), 0u) & 0xFF));
}

/// 5.2.6 "System Description Table Header" before `body`.
std::vector<u8> table(std::string_view signature, u8 revision, const ByteWriter& body) {
    ByteWriter out;
    out.text(signature).dword(header_bytes + body.size()).byte(revision).byte(0);
    out.text(oem_id).text(oem_table_id).dword(1).text(creator_id).dword(1);
    out.append(body.bytes());
    out.patch(checksum_offset, checksum(out.bytes()), 1);
    return out.bytes();
}

/// 5.2.9 "Fixed ACPI Description Table (FADT)".
std::vector<u8> fadt(const FirmwareFacts& facts, u64 dsdt) {
    constexpr u32 WBINVD = 1u << 0, PROC_C1 = 1u << 2, PWR_BUTTON = 1u << 4, SLP_BUTTON = 1u << 5,
                  TMR_VAL_EXT = 1u << 8, RESET_REG_SUP = 1u << 10;
    constexpr u32 legacy_devices = 1u << 0, vga_not_present = 1u << 2;
    ByteWriter out;
    out.dword(AddressMap::facs).dword(dsdt).byte(0).byte(4);  // reserved, preferred profile: enterprise server
    out.word(facts.sci).dword(0).u8s({0, 0, 0, 0});           // SCI_INT; no SMI_CMD: always in ACPI mode
    out.dword(Pm::event).dword(0).dword(Pm::control).dword(0).dword(0).dword(Pm::timer);
    out.dword(Pm::gpe0).dword(0);
    out.u8s({4, 2, 0, 4, Pm::gpe0_bytes, 0, 0, 0});
    out.word(0xFFFF).word(0xFFFF);  // no C2, no C3
    out.word(0).word(0);            // WBINVD works, so no flush sizes
    out.u8s({0, 0, 0, 0, 0x32});    // duty cycle, alarms, century register
    out.word(legacy_devices | vga_not_present).byte(0);
    out.dword(WBINVD | PROC_C1 | PWR_BUTTON | SLP_BUTTON | TMR_VAL_EXT | RESET_REG_SUP);
    put_port(out, AcpiPm::reset_control, 8);
    out.byte(AcpiPm::reset_value).word(0).byte(4);  // ARM_BOOT_ARCH, minor version: ACPI 6.4
    out.qword(0).qword(dsdt);                     // X_FIRMWARE_CTRL: 0 while FIRMWARE_CTRL is used
    put_port(out, Pm::event, 32);
    put_port(out, 0, 0);
    put_port(out, Pm::control, 16);
    put_port(out, 0, 0);
    put_port(out, 0, 0);
    put_port(out, Pm::timer, 32);
    put_port(out, Pm::gpe0, Pm::gpe0_bytes * 8);
    put_port(out, 0, 0);
    put_port(out, 0, 0);  // sleep control and status: of hardware-reduced ACPI
    put_port(out, 0, 0);
    out.qword(0);  // hypervisor vendor
    ENSURE(header_bytes + out.size() == 276);
    return table("FACP", 6, out);
}

/// 5.2.12 "Multiple APIC Description Table (MADT)".
std::vector<u8> madt(const FirmwareFacts& facts) {
    constexpr u32 PCAT_COMPAT = 1, enabled = 1, active_high_level = 0xD;
    ByteWriter out;
    out.dword(LocalApic::default_base).dword(PCAT_COMPAT);
    for (unsigned cpu = 0; cpu < facts.apic_ids.size(); ++cpu)
        out.u8s({0, 8, cpu, facts.apic_ids[cpu]}).dword(enabled);
    out.u8s({1, 12, facts.io_apic_id, 0}).dword(IoApic::default_base).dword(0);
    out.u8s({2, 10, 0, 0}).dword(2).word(0);  // ISA interrupt 0 is GSI 2
    out.u8s({2, 10, 0, facts.sci}).dword(facts.sci).word(active_high_level);
    out.u8s({4, 6, 0xFF, 0, 0, 1});  // NMI at LINT1 of every processor
    return table("APIC", 5, out);
}

std::vector<u8> hpet() {
    ByteWriter out;
    out.dword(low32(Hpet::capabilities));
    put_memory(out, Hpet::default_base);
    out.byte(0).word(0x80).byte(0);  // number, minimum tick in periodic mode, page protection
    return table("HPET", 1, out);
}

std::vector<u8> mcfg() {
    ByteWriter out;
    out.qword(0).qword(PciHost::ecam_base).word(0).u8s({0, PciHost::ecam_buses - 1}).dword(0);
    return table("MCFG", 1, out);
}

/// 5.2.5.3 "Root System Description Pointer (RSDP) Structure".
std::vector<u8> rsdp(u64 rsdt, u64 xsdt) {
    ByteWriter out;
    out.text("RSD PTR ").byte(0).text(oem_id).byte(2).dword(rsdt).dword(36).qword(xsdt).dword(0);
    out.patch(8, checksum(std::span(out.bytes()).first(20)), 1);
    out.patch(32, checksum(out.bytes()), 1);
    return out.bytes();
}

/// 5.2.10 "Firmware ACPI Control Structure (FACS)".
std::vector<u8> facs() {
    ByteWriter out;
    out.text("FACS").dword(64).zeros(24).byte(2).zeros(31);
    return out.bytes();
}

}  // namespace

AcpiTables build_acpi_tables(const FirmwareFacts& facts) {
    // The RSDP first, where software looks for it; then the tables, each at a multiple of 16.
    ByteWriter out;
    out.zeros(64);
    const auto put = [&](const std::vector<u8>& bytes) {
        out.align(16);
        const u64 address = AddressMap::bios + out.size();
        out.append(bytes);
        return address;
    };
    const u64 dsdt = put(table("DSDT", 2, ByteWriter().append(build_dsdt(facts))));
    const std::vector<u64> addresses{put(fadt(facts, dsdt)), put(madt(facts)), put(hpet()), put(mcfg())};
    ByteWriter narrow, wide;
    for (const u64 address : addresses) {
        narrow.dword(address);
        wide.qword(address);
    }
    const u64 rsdt = put(table("RSDT", 1, narrow)), xsdt = put(table("XSDT", 1, wide));
    const std::vector<u8> root = rsdp(rsdt, xsdt);
    std::copy(root.begin(), root.end(), out.bytes().begin());
    ENSURE(out.size() <= BiosCode::service);
    return {out.bytes(), AddressMap::bios};
}

/// An interrupt vector table and handlers, so that real-mode software that asks a BIOS learns that there is none.
void write_bios_code(PhysicalMemory& memory) {
    const auto put = [&](u16 offset, std::span<const u8> code) {
        memory.write_bytes(Physical{AddressMap::bios + offset}, code.data(), code.size());
        memory.write_bytes(Physical{AddressMap::four_gib - AddressMap::bios_bytes + offset}, code.data(), code.size());
    };
    put(BiosCode::service, BiosCode::service_bytes);
    put(BiosCode::memory_size, BiosCode::memory_size_bytes);
    put(BiosCode::ignore, BiosCode::ignore_bytes);
    put(BiosCode::reset_vector, BiosCode::reset_bytes);
    for (u32 vector = 0; vector < 256; ++vector) {
        const bool service = vector >= 0x10 && vector <= 0x1A;
        const u16 offset = vector == 0x12 ? BiosCode::memory_size : service ? BiosCode::service : BiosCode::ignore;
        memory.store<u32>(Physical{vector * 4}, u32{BiosCode::segment} << 16 | offset);
    }
}

u64 write_firmware_tables(const FirmwareFacts& facts, PhysicalMemory& memory) {
    const AcpiTables tables = build_acpi_tables(facts);
    memory.write_bytes(Physical{AddressMap::bios}, tables.bytes.data(), tables.bytes.size());
    const std::vector<u8> control = facs();
    memory.write_bytes(Physical{AddressMap::facs}, control.data(), control.size());
    write_bios_code(memory);
    // BIOS data area: COM1's port, the segment of the EBDA, KBytes of RAM below it; the EBDA's own size.
    memory.store<u16>(Physical{AddressMap::bios_data_area}, facts.serial_port);
    memory.store<u16>(Physical{AddressMap::bios_data_area + 0x0E}, static_cast<u16>(AddressMap::ebda >> 4));
    memory.store<u16>(Physical{AddressMap::bios_data_area + 0x13}, static_cast<u16>(AddressMap::low_ram_end / 1024));
    memory.store<u8>(Physical{AddressMap::ebda}, static_cast<u8>(AddressMap::ebda_bytes / 1024));
    return tables.rsdp;
}

}  // namespace exeunt
