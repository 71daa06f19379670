// Checks on the controls of APIC virtualization, posted interrupts and IPI virtualization.
// SDM 3C 26.2.1.1 "VM-Execution Control Fields".
#include "vmx/entry_checks.hpp"

#include <array>

namespace exeunt {

namespace {

using E = EntryContext;
using F = VmcsField;

constexpr std::string_view execution = "SDM 3C 26.2.1.1";
constexpr F primary_controls = F::primary_processor_based_vm_execution_controls,
            secondary_controls = F::secondary_processor_based_vm_execution_controls,
            tertiary_controls = F::tertiary_processor_based_vm_execution_controls;

/// A secondary control that may be 1 only while "use TPR shadow" is.
template <u8 number>
bool only_with_tpr_shadow(const E& e) {
    return !test_bit(e.secondary, number) || (e.primary & primary::use_tpr_shadow);
}

bool posts(const E& e) { return e.pin_based & pin_based::process_posted_interrupts; }
bool virtualizes_ipis(const E& e) { return e.tertiary & tertiary::ipi_virtualization; }

AllowedBits aligned_to_8(const E& e) { return {0, low_mask(e.caps.physical_bits()) & ~u64{7}}; }

/// The last byte of the PID-pointer table's last entry.
u64 end_of_pid_pointer_table(const E& e) {
    return e[F::pid_pointer_table_address] + 8 * e[F::last_pid_pointer_index] + 7;
}

constexpr std::array checks{
    EntryCheck{"controls.apic_access.bits_11_0", execution,
               "virtualize APIC accesses: bits 11:0 of the APIC-access address are 0",
               on(F::apic_access_address).given(secondary_controls).bits(allowed::page_aligned),
               [](const E& e) {
                   return !(e.secondary & secondary::virtualize_apic_accesses) ||
                          (e[F::apic_access_address] & 0xFFF) == 0;
               }},
    EntryCheck{"controls.apic_access.width", execution,
               "virtualize APIC accesses: the APIC-access address is within MAXPHYADDR",
               on(F::apic_access_address).given(secondary_controls).bits(allowed::physical),
               [](const E& e) {
                   return !(e.secondary & secondary::virtualize_apic_accesses) ||
                          e.within_physical_width(e[F::apic_access_address]);
               }},
    EntryCheck{"controls.virtualize_x2apic_mode.tpr_shadow", execution,
               "virtualize x2APIC mode needs use TPR shadow", on(secondary_controls).given(primary_controls),
               only_with_tpr_shadow<secondary::virtualize_x2apic_mode.bit>},
    EntryCheck{"controls.apic_register_virtualization.tpr_shadow", execution,
               "APIC-register virtualization needs use TPR shadow",
               on(secondary_controls).given(primary_controls),
               only_with_tpr_shadow<secondary::apic_register_virtualization.bit>},
    EntryCheck{"controls.virtual_interrupt_delivery.tpr_shadow", execution,
               "virtual-interrupt delivery needs use TPR shadow",
               on(secondary_controls).given(primary_controls),
               only_with_tpr_shadow<secondary::virtual_interrupt_delivery.bit>},
    EntryCheck{"controls.ipi_virtualization.tpr_shadow", execution, "IPI virtualization needs use TPR shadow",
               on(tertiary_controls).given(primary_controls),
               [](const E& e) { return !virtualizes_ipis(e) || (e.primary & primary::use_tpr_shadow); }},
    EntryCheck{"controls.virtualize_x2apic_mode.apic_accesses", execution,
               "virtualize x2APIC mode excludes virtualize APIC accesses", on(secondary_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::virtualize_x2apic_mode) ||
                          !(e.secondary & secondary::virtualize_apic_accesses);
               }},
    EntryCheck{"controls.virtual_interrupt_delivery.external_interrupt_exiting", execution,
               "virtual-interrupt delivery needs external-interrupt exiting",
               on(F::pin_based_vm_execution_controls).given(secondary_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::virtual_interrupt_delivery) ||
                          (e.pin_based & pin_based::external_interrupt_exiting);
               }},
    EntryCheck{"controls.posted_interrupts.virtual_interrupt_delivery", execution,
               "process posted interrupts needs virtual-interrupt delivery",
               on(F::pin_based_vm_execution_controls).given(secondary_controls),
               [](const E& e) { return !posts(e) || (e.secondary & secondary::virtual_interrupt_delivery); }},
    EntryCheck{"controls.posted_interrupts.acknowledge_interrupt_on_exit", execution,
               "process posted interrupts needs acknowledge interrupt on exit",
               on(F::primary_vm_exit_controls).given(F::pin_based_vm_execution_controls),
               [](const E& e) { return !posts(e) || (e.vm_exit & vm_exit::acknowledge_interrupt_on_exit); }},
    EntryCheck{"controls.posted_interrupts.notification_vector", execution,
               "process posted interrupts: bits 15:8 of the notification vector are 0",
               on(F::posted_interrupt_notification_vector)
                   .given(F::pin_based_vm_execution_controls)
                   .bits(allowed::low<8>),
               [](const E& e) { return !posts(e) || e[F::posted_interrupt_notification_vector] <= 0xFF; }},
    EntryCheck{
        "controls.posted_interrupts.descriptor.bits_5_0", execution,
        "process posted interrupts: bits 5:0 of the descriptor's address are 0",
        on(F::posted_interrupt_descriptor_address)
            .given(F::pin_based_vm_execution_controls)
            .bits(allowed::clear<5, 0>),
        [](const E& e) { return !posts(e) || (e[F::posted_interrupt_descriptor_address] & 0x3F) == 0; }},
    EntryCheck{"controls.posted_interrupts.descriptor.width", execution,
               "process posted interrupts: the descriptor's address is within MAXPHYADDR",
               on(F::posted_interrupt_descriptor_address)
                   .given(F::pin_based_vm_execution_controls)
                   .bits(allowed::physical),
               [](const E& e) {
                   return !posts(e) || e.within_physical_width(e[F::posted_interrupt_descriptor_address]);
               }},
    EntryCheck{"controls.pid_pointer_table.address", execution,
               "IPI virtualization: the PID-pointer table's address is 8-byte aligned and within MAXPHYADDR",
               on(F::pid_pointer_table_address).given(tertiary_controls).bits(aligned_to_8),
               [](const E& e) {
                   return !virtualizes_ipis(e) || aligned_to_8(e).allow(e[F::pid_pointer_table_address]);
               }},
    EntryCheck{"controls.pid_pointer_table.last_entry", execution,
               "IPI virtualization: the PID-pointer table's last entry is within MAXPHYADDR",
               on(F::pid_pointer_table_address, F::last_pid_pointer_index).given(tertiary_controls),
               [](const E& e) {
                   return !virtualizes_ipis(e) || e.within_physical_width(end_of_pid_pointer_table(e));
               }},
};

} // namespace

std::span<const EntryCheck> apic_virtualization_checks() { return checks; }

} // namespace exeunt
