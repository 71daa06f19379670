#include "machine/dsdt.hpp"

#include "devices/hpet.hpp"
#include "devices/pci_host.hpp"
#include "machine/aml.hpp"

#include <fmt/format.h>

namespace exeunt {

namespace {

using namespace aml;

/// 6.2.13 "_PRT (PCI Routing Table)": each pin of each device goes to a fixed GSI; for software that uses the 8259
/// to the ISA interrupt to which firmware has routed it (PciHost::assign_resources).
Bytes routing_table(const FirmwareFacts& facts, bool io_apic) {
    std::vector<Bytes> rows;
    for (const unsigned number : facts.pci_devices) {
        for (unsigned pin = 0; pin < 4; ++pin) {
            const unsigned pirq = (number + pin) % 8;
            const Bytes row[] = {integer((u64{number} << 16) | 0xFFFF), integer(pin), integer(0),
                                 integer(io_apic ? 16 + pirq : 10 + pirq % 2)};
            rows.push_back(package(row));
        }
    }
    return package(rows);
}

Bytes host_bridge(const FirmwareFacts& facts, const Bytes& children) {
    const Bytes windows = resource_template({
        bus_numbers(0, PciHost::ecam_buses - 1),
        io_ports(0xCF8, 8),
        io_window(0x0000, 0x0CF7),
        io_window(0x0D00, 0xFFFF),
        memory_window(AddressMap::vga_memory, AddressMap::vga_memory + AddressMap::vga_memory_bytes - 1),
        memory_window(static_cast<u32>(PciHost::memory_base), static_cast<u32>(PciHost::memory_end - 1)),
    });
    return device("PCI0", join({
                              name("_HID", eisa_id("PNP0A08")),
                              name("_CID", eisa_id("PNP0A03")),
                              name("_UID", integer(0)),
                              name("_SEG", integer(0)),
                              name("_BBN", integer(0)),
                              name("_CRS", windows),
                              name("PRTA", routing_table(facts, true)),
                              name("PRTP", routing_table(facts, false)),
                              method("_PRT", 0,
                                     join({if_true(reference("PICM"), return_value(reference("PRTA"))),
                                           return_value(reference("PRTP"))})),
                              children,
                          }));
}

Bytes legacy_device(std::string_view path, std::string_view id, const Bytes& resources) {
    return device(path, join({name("_HID", eisa_id(id)), name("_UID", integer(0)), name("_CRS", resources)}));
}

/// What is in use and belongs to nobody else: the configuration window, the ports of power management.
Bytes motherboard() {
    return legacy_device("MBRD", "PNP0C02",
                         resource_template({
                             memory32_fixed(static_cast<u32>(PciHost::ecam_base),
                                            static_cast<u32>(PciHost::ecam_bytes), true),
                             io_ports(AcpiPm::base, 0x80),
                             io_ports(0x4D0, 2),
                         }));
}

Bytes processors(const FirmwareFacts& facts) {
    Bytes out;
    for (unsigned cpu = 0; cpu < facts.apic_ids.size(); ++cpu) {
        const Bytes one = device(fmt::format("C{:03X}", cpu),
                                 join({name("_HID", string("ACPI0007")), name("_UID", integer(cpu))}));
        out.insert(out.end(), one.begin(), one.end());
    }
    return out;
}

}  // namespace

std::vector<u8> build_dsdt(const FirmwareFacts& facts) {
    const Bytes serial = resource_template({io_ports(facts.serial_port, 8), irq(4)});
    const Bytes rtc = resource_template({io_ports(0x70, 8), irq(8)});
    const Bytes timer = resource_template({memory32_fixed(static_cast<u32>(Hpet::default_base), 0x400, true)});
    const Bytes devices = join({
        legacy_device("COM1", "PNP0501", serial),
        legacy_device("RTC", "PNP0B00", rtc),
        legacy_device("PIC", "PNP0000", resource_template({io_ports(0x20, 2), io_ports(0xA0, 2), irq(2)})),
        legacy_device("TIMR", "PNP0100", resource_template({io_ports(0x40, 4), irq(0)})),
        legacy_device("HPET", "PNP0103", timer),
        motherboard(),
    });
    const Bytes s5[] = {integer(AcpiPm::s5_sleep_type), integer(AcpiPm::s5_sleep_type), integer(0), integer(0)};
    return join({
        name("\\_S5", package(s5)),
        // 5.8.1 "_PIC Method": which interrupt controller software uses.
        name("PICM", integer(0)),
        method("_PIC", 1, store(argument(0), reference("PICM"))),
        scope("\\_SB", join({processors(facts), host_bridge(facts, devices)})),
    });
}

}  // namespace exeunt
