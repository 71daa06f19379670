#include "machine/firmware_tables.hpp"

#include "devices/hpet.hpp"
#include "devices/pci_host.hpp"
#include "machine/aml.hpp"
#include "machine/dsdt.hpp"

#include <doctest/doctest.h>
#include <map>
#include <numeric>
#include <string>

using namespace exeunt;

namespace {

/// The tables of a machine with `cpus` processors, as software finds them.
struct Tables {
    explicit Tables(unsigned cpus = 2) {
        FirmwareFacts facts;
        for (unsigned i = 0; i < cpus; ++i) facts.apic_ids.push_back(i);
        facts.pci_devices = {1};
        acpi = build_acpi_tables(facts);
        for (u64 at = number(xsdt() + 4, 4) + xsdt(), i = xsdt() + 36; i < at; i += 8) {
            const u64 table = number(i, 8);
            by_signature[text(table, 4)] = table;
        }
        by_signature["DSDT"] = number(by_signature["FACP"] + 140, 8);
    }
    u64 number(u64 address, unsigned bytes) const {
        u64 value = 0;
        for (unsigned i = 0; i < bytes; ++i) value |= u64{acpi.bytes.at(address - AddressMap::bios + i)} << (8 * i);
        return value;
    }
    std::string text(u64 address, unsigned bytes) const {
        std::string out;
        for (unsigned i = 0; i < bytes; ++i) out.push_back(static_cast<char>(number(address + i, 1)));
        return out;
    }
    u8 sum(u64 address, u64 bytes) const {
        u8 out = 0;
        for (u64 i = 0; i < bytes; ++i) out = static_cast<u8>(out + number(address + i, 1));
        return out;
    }
    u64 xsdt() const { return number(acpi.rsdp + 24, 8); }

    AcpiTables acpi;
    std::map<std::string, u64> by_signature;
};

}  // namespace

TEST_CASE("RSDP: signature, both checksums, on a 16-byte boundary where software looks [ACPI 6.4 5.2.5]") {
    const Tables t;
    CHECK(t.text(t.acpi.rsdp, 8) == "RSD PTR ");
    CHECK(t.acpi.rsdp % 16 == 0);
    CHECK(t.acpi.rsdp >= 0xE'0000);
    CHECK(t.acpi.rsdp < 0x10'0000);
    CHECK(t.sum(t.acpi.rsdp, 20) == 0);
    CHECK(t.sum(t.acpi.rsdp, 36) == 0);
    CHECK(t.number(t.acpi.rsdp + 15, 1) == 2);
}

TEST_CASE("every table: length within the area, bytes that sum to zero [ACPI 6.4 5.2.6]") {
    const Tables t(64);
    CHECK(t.by_signature.size() == 5);
    for (const auto& [signature, address] : t.by_signature) {
        CAPTURE(signature);
        CHECK(t.text(address, 4) == signature);
        CHECK(t.sum(address, t.number(address + 4, 4)) == 0);
    }
    const u64 rsdt = t.number(t.acpi.rsdp + 16, 4);
    CHECK(t.sum(rsdt, t.number(rsdt + 4, 4)) == 0);
    CHECK((t.number(rsdt + 4, 4) - 36) / 4 == (t.number(t.xsdt() + 4, 4) - 36) / 8);
}

TEST_CASE("FADT: PM timer, PM1 blocks, reset register; not hardware-reduced [ACPI 6.4 5.2.9]") {
    const Tables t;
    const u64 fadt = t.by_signature.at("FACP");
    CHECK(t.number(fadt + 4, 4) == 276);
    CHECK(t.number(fadt + 46, 2) == 9);
    CHECK(t.number(fadt + 56, 4) == AcpiPm::base);
    CHECK(t.number(fadt + 76, 4) == Pm::timer);
    CHECK(t.number(fadt + 88, 4) == 0x0400'0204);
    const u64 flags = t.number(fadt + 112, 4);
    CHECK((flags & (1u << 10)) != 0);
    CHECK((flags & (1u << 20)) == 0);
    CHECK(t.number(fadt + 116, 1) == 1);
    CHECK(t.number(fadt + 120, 8) == AcpiPm::reset_control);
    CHECK(t.number(fadt + 128, 1) == AcpiPm::reset_value);
    CHECK(t.number(fadt + 36, 4) == AddressMap::facs);
    CHECK(t.number(fadt + 140, 8) == t.number(fadt + 40, 4));
}

TEST_CASE("MADT: a local APIC for each processor, the I/O APIC, ISA interrupt 0 at GSI 2 [ACPI 6.4 5.2.12]") {
    const Tables t(3);
    const u64 madt = t.by_signature.at("APIC");
    const u64 end = madt + t.number(madt + 4, 4);
    std::map<u64, unsigned> types;
    for (u64 at = madt + 44; at < end; at += t.number(at + 1, 1)) {
        const u64 type = t.number(at, 1);
        REQUIRE(t.number(at + 1, 1) >= 6);
        if (type == 0) CHECK(t.number(at + 3, 1) == types[0]);
        if (type == 2 && t.number(at + 3, 1) == 0) CHECK(t.number(at + 4, 4) == 2);
        if (type == 2 && t.number(at + 3, 1) == 9) CHECK(t.number(at + 8, 2) == 0xD);
        ++types[type];
    }
    CHECK(types == std::map<u64, unsigned>{{0, 3}, {1, 1}, {2, 2}, {4, 1}});
}

TEST_CASE("MCFG and HPET tables: where the windows are [PCI Firmware Specification 3.0 4.1.2]") {
    const Tables t;
    const u64 mcfg = t.by_signature.at("MCFG");
    CHECK(t.number(mcfg + 44, 8) == PciHost::ecam_base);
    CHECK(t.number(mcfg + 55, 1) == PciHost::ecam_buses - 1);
    CHECK(t.number(t.by_signature.at("HPET") + 44, 8) == Hpet::default_base);
}

TEST_CASE("AML: package lengths count themselves at every size [ACPI 6.4 20.2.4]") {
    for (const std::size_t body : {0u, 40u, 62u, 63u, 64u, 4000u, 4093u, 4094u, 70000u}) {
        CAPTURE(body);
        const aml::Bytes data(body, 0xA5);
        const aml::Bytes out = aml::scope("\\_SB", data);
        const unsigned more = out[1] >> 6;
        std::size_t length = more == 0 ? out[1] & 0x3F : out[1] & 0xF;
        for (unsigned i = 0; i < more; ++i) length |= std::size_t{out[2 + i]} << (4 + 8 * i);
        CHECK(length == out.size() - 1);
    }
}

TEST_CASE("AML: integers take the shortest form, EISA identifiers their bytes [ACPI 6.4 20.2.3, 19.3.4]") {
    CHECK(aml::integer(0) == aml::Bytes{0x00});
    CHECK(aml::integer(1) == aml::Bytes{0x01});
    CHECK(aml::integer(0xFF) == aml::Bytes{0x0A, 0xFF});
    CHECK(aml::integer(0x100) == aml::Bytes{0x0B, 0x00, 0x01});
    CHECK(aml::integer(0x1'0000) == aml::Bytes{0x0C, 0x00, 0x00, 0x01, 0x00});
    CHECK(aml::eisa_id("PNP0501") == aml::Bytes{0x0C, 0x41, 0xD0, 0x05, 0x01});
    CHECK(aml::name("_UID", aml::integer(1)) == aml::Bytes{0x08, '_', 'U', 'I', 'D', 0x01});
}

TEST_CASE("AML: methods with their flags, If and Return with their operands [ACPI 6.4 20.2.5.2, 20.2.5.3]") {
    const aml::Bytes body = aml::store(aml::argument(0), aml::reference("PICM"));
    CHECK(body == aml::Bytes{0x70, 0x68, 'P', 'I', 'C', 'M'});
    CHECK(aml::method("_PIC", 1, body) ==
          aml::Bytes{0x14, 12, '_', 'P', 'I', 'C', 1, 0x70, 0x68, 'P', 'I', 'C', 'M'});
    CHECK(aml::if_true(aml::argument(1), aml::return_value(aml::integer(0))) ==
          aml::Bytes{0xA0, 4, 0x69, 0xA4, 0x00});
}

TEST_CASE("BIOS: every interrupt vector leads to code in ROM, and so does the reset vector") {
    PhysicalMemory memory(u64{16} << 20);
    memory.map(Physical{AddressMap::bios}, AddressMap::bios_bytes, PhysicalMemory::Kind::rom);
    memory.map(Physical{AddressMap::four_gib - 0x1'0000}, 0x1'0000, PhysicalMemory::Kind::rom);
    FirmwareFacts facts;
    facts.apic_ids = {0};
    write_firmware_tables(facts, memory);
    for (u64 vector = 0; vector < 256; ++vector) {
        const u32 target = memory.load<u32>(Physical{4 * vector});
        const u64 address = (u64{target >> 16} << 4) + (target & 0xFFFF);
        const u8 first = memory.load<u8>(Physical{address});
        CHECK((first == 0xCF || first == 0x55 || first == 0xB8));  // iret; push bp; mov ax
    }
    CHECK(memory.load<u16>(Physical{0xFFFF'FFF0}) == 0xF4FA);      // cli; hlt
    CHECK(memory.load<u16>(Physical{0x413}) == 639);
    CHECK(memory.load<u16>(Physical{0x40E}) == AddressMap::ebda >> 4);
}

TEST_CASE("memory map: in order, without overlap, with the hole of the EBDA and the ECAM window") {
    const auto map = memory_map(u64{3} << 30, u64{5} << 30);
    u64 last = 0, usable = 0;
    for (const MemoryRange& range : map) {
        CHECK(range.start >= last);
        last = range.end();
        if (range.type == MemoryType::usable) usable += range.bytes;
    }
    CHECK(last == u64{9} << 30);
    CHECK(usable == (u64{8} << 30) - (0x10'0000 - 0x9'FC00));
    CHECK(memory_map(u64{1} << 30, 0).back().start == PciHost::ecam_base);
}
