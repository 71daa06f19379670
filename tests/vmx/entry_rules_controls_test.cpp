// The rules of the VM-execution, VM-exit and VM-entry controls at their limits. SDM 3C 26.2.1. Evaluated by
// entry_checks_test.cpp.
#include "tests/vmx/entry_rules.hpp"

namespace exeunt::test::entry_rules {

namespace {

void delivers_virtual_interrupts(T& t) {
    t.on(primary::use_tpr_shadow);
    t.on(pin_based::external_interrupt_exiting);
    t.on(secondary::virtual_interrupt_delivery);
}
void processes_posted_interrupts(T& t) {
    delivers_virtual_interrupts(t);
    t.on(vm_exit::acknowledge_interrupt_on_exit);
    t.on(pin_based::process_posted_interrupts);
    t.set(F::posted_interrupt_descriptor_address, T::posted_interrupts);
}
void virtualizes_ipis(T& t) {
    t.on(primary::use_tpr_shadow);
    t.on(primary::activate_tertiary_controls);
    t.on(tertiary::ipi_virtualization);
    t.set(F::pid_pointer_table_address, T::pid_pointers);
}

const RuleCase control_cases[] = {
    {"controls.pin_based.reserved_bits", nothing,
     [](T& t) { clear_bits(t, F::pin_based_vm_execution_controls, 2); }},
    {"controls.primary.reserved_bits", nothing,
     [](T& t) { set_bits(t, F::primary_processor_based_vm_execution_controls, 1); }},
    {"controls.secondary.reserved_bits",
     [](T& t) { // without activation nobody looks
         t.off(primary::activate_secondary_controls);
         t.set(F::secondary_processor_based_vm_execution_controls, ~u64{0});
     },
     [](T& t) { t.on(primary::activate_secondary_controls); }},
    {"controls.cr3_target_count", [](T& t) { t.set(F::cr3_target_count, 4); },
     [](T& t) { t.set(F::cr3_target_count, 5); }},
    {"controls.io_bitmaps.bits_11_0", [](T& t) { t.on(primary::use_io_bitmaps); },
     [](T& t) { set_bits(t, F::address_of_io_bitmap_b, 0x800); }},
    {"controls.io_bitmaps.width",
     [](T& t) {
         t.on(primary::use_io_bitmaps);
         t.set(F::address_of_io_bitmap_a, width - 0x1000);
     },
     [](T& t) { t.set(F::address_of_io_bitmap_a, width); }},
    {"controls.msr_bitmaps.bits_11_0", [](T& t) { t.on(primary::use_msr_bitmaps); },
     [](T& t) { set_bits(t, F::address_of_msr_bitmaps, 1); }},
    {"controls.msr_bitmaps.width",
     [](T& t) {
         t.on(primary::use_msr_bitmaps);
         t.set(F::address_of_msr_bitmaps, width - 0x1000);
     },
     [](T& t) { t.set(F::address_of_msr_bitmaps, width); }},
    {"controls.virtual_apic.bits_11_0", [](T& t) { t.on(primary::use_tpr_shadow); },
     [](T& t) { set_bits(t, F::virtual_apic_address, 0x10); }},
    {"controls.virtual_apic.width", [](T& t) { t.on(primary::use_tpr_shadow); },
     [](T& t) { t.set(F::virtual_apic_address, width); }},
    {"controls.tpr_threshold.bits_31_4",
     [](T& t) {
         t.on(primary::use_tpr_shadow);
         t.write(T::virtual_apic + 0x80, 0xF0, 1);
         t.set(F::tpr_threshold, 15);
     },
     [](T& t) { t.set(F::tpr_threshold, 16); }},
    {"controls.tpr_threshold.vtpr",
     [](T& t) {
         t.on(primary::use_tpr_shadow);
         t.write(T::virtual_apic + 0x80, 0x70, 1);
         t.set(F::tpr_threshold, 7);
     },
     [](T& t) { t.write(T::virtual_apic + 0x80, 0x6F, 1); }},
    {"controls.tertiary.reserved_bits",
     [](T& t) { // without activation nobody looks
         t.set(F::tertiary_processor_based_vm_execution_controls, ~u64{0});
     },
     [](T& t) { t.on(primary::activate_tertiary_controls); }},
    {"controls.apic_access.bits_11_0",
     [](T& t) {
         t.on(secondary::virtualize_apic_accesses);
         t.set(F::apic_access_address, T::apic_access);
     },
     [](T& t) { t.set(F::apic_access_address, T::apic_access + 0x800); }},
    {"controls.apic_access.width",
     [](T& t) {
         t.on(secondary::virtualize_apic_accesses);
         t.set(F::apic_access_address, width - 0x1000);
     },
     [](T& t) { t.set(F::apic_access_address, width); }},
    {"controls.virtualize_x2apic_mode.tpr_shadow",
     [](T& t) {
         t.on(primary::use_tpr_shadow);
         t.on(secondary::virtualize_x2apic_mode);
     },
     [](T& t) { t.off(primary::use_tpr_shadow); }},
    {"controls.apic_register_virtualization.tpr_shadow",
     [](T& t) {
         t.on(primary::use_tpr_shadow);
         t.on(secondary::apic_register_virtualization);
     },
     [](T& t) { t.off(primary::use_tpr_shadow); }},
    {"controls.virtual_interrupt_delivery.tpr_shadow", delivers_virtual_interrupts,
     [](T& t) { t.off(primary::use_tpr_shadow); }},
    {"controls.ipi_virtualization.tpr_shadow", virtualizes_ipis,
     [](T& t) { t.off(primary::use_tpr_shadow); }},
    {"controls.virtualize_x2apic_mode.apic_accesses",
     [](T& t) {
         t.on(primary::use_tpr_shadow);
         t.on(secondary::virtualize_x2apic_mode);
     },
     [](T& t) { t.on(secondary::virtualize_apic_accesses); }},
    {"controls.virtual_interrupt_delivery.external_interrupt_exiting", delivers_virtual_interrupts,
     [](T& t) { t.off(pin_based::external_interrupt_exiting); }},
    {"controls.posted_interrupts.virtual_interrupt_delivery", processes_posted_interrupts,
     [](T& t) { t.off(secondary::virtual_interrupt_delivery); }},
    {"controls.posted_interrupts.acknowledge_interrupt_on_exit", processes_posted_interrupts,
     [](T& t) { t.off(vm_exit::acknowledge_interrupt_on_exit); }},
    {"controls.posted_interrupts.notification_vector",
     [](T& t) {
         processes_posted_interrupts(t);
         t.set(F::posted_interrupt_notification_vector, 0xFF);
     },
     [](T& t) { t.set(F::posted_interrupt_notification_vector, 0x100); }},
    {"controls.posted_interrupts.descriptor.bits_5_0", processes_posted_interrupts,
     [](T& t) { set_bits(t, F::posted_interrupt_descriptor_address, 0x20); }},
    {"controls.posted_interrupts.descriptor.width",
     [](T& t) {
         processes_posted_interrupts(t);
         t.set(F::posted_interrupt_descriptor_address, width - 0x40);
     },
     [](T& t) { t.set(F::posted_interrupt_descriptor_address, width); }},
    {"controls.pid_pointer_table.address", virtualizes_ipis,
     [](T& t) { set_bits(t, F::pid_pointer_table_address, 4); }},
    {"controls.pid_pointer_table.last_entry",
     [](T& t) {
         virtualizes_ipis(t);
         t.set(F::pid_pointer_table_address, width - 0x18);
         t.set(F::last_pid_pointer_index, 2);
     },
     [](T& t) { t.set(F::last_pid_pointer_index, 3); }},
    {"controls.virtual_nmis",
     [](T& t) {
         t.on(pin_based::nmi_exiting);
         t.on(pin_based::virtual_nmis);
     },
     [](T& t) { t.off(pin_based::nmi_exiting); }},
    {"controls.nmi_window_exiting",
     [](T& t) {
         t.on(pin_based::nmi_exiting);
         t.on(pin_based::virtual_nmis);
         t.on(primary::nmi_window_exiting);
     },
     [](T& t) { t.off(pin_based::virtual_nmis); }},
    {"controls.vpid",
     [](T& t) {
         t.on(secondary::enable_vpid);
         t.set(F::virtual_processor_identifier, 1);
     },
     [](T& t) { t.set(F::virtual_processor_identifier, 0); }},
    {"controls.eptp.memory_type", [](T& t) { t.use_ept(0 | 3 << 3); },
     [](T& t) { t.set(F::ept_pointer, T::ept_tables | 1 | 3 << 3); }},
    {"controls.eptp.walk_length", [](T& t) { t.use_ept(); },
     [](T& t) { t.set(F::ept_pointer, T::ept_tables | 6 | 2 << 3); }},
    {"controls.eptp.accessed_dirty", [](T& t) { t.use_ept(); },
     [](T& t) { set_bits(t, F::ept_pointer, bit(6)); }, "nehalem"},
    {"controls.eptp.supervisor_shadow_stack", [](T& t) { t.use_ept(6 | 3 << 3 | bit(6)); },
     [](T& t) { set_bits(t, F::ept_pointer, bit(7)); }},
    {"controls.eptp.reserved_bits", [](T& t) { t.use_ept(); },
     [](T& t) { set_bits(t, F::ept_pointer, bit(8)); }},
    {"controls.eptp.reserved_bits", [](T& t) { t.use_ept(); },
     [](T& t) { set_bits(t, F::ept_pointer, width); }},
    {"controls.pml.ept",
     [](T& t) {
         t.use_ept(6 | 3 << 3 | bit(6));
         t.on(secondary::enable_pml);
     },
     [](T& t) { t.off(secondary::enable_ept); }},
    {"controls.pml.address",
     [](T& t) {
         t.use_ept(6 | 3 << 3 | bit(6));
         t.on(secondary::enable_pml);
     },
     [](T& t) { set_bits(t, F::pml_address, 1); }},
    {"controls.unrestricted_guest.ept",
     [](T& t) {
         t.use_ept();
         t.on(secondary::unrestricted_guest);
     },
     [](T& t) { t.off(secondary::enable_ept); }},
    {"controls.sub_pages.ept",
     [](T& t) {
         t.use_ept();
         t.on(secondary::sub_page_write_permissions_for_ept);
     },
     [](T& t) { t.off(secondary::enable_ept); }},
    {"controls.sub_pages.table",
     [](T& t) {
         t.use_ept();
         t.on(secondary::sub_page_write_permissions_for_ept);
         t.set(F::sub_page_permission_table_pointer, width - 0x1000);
     },
     [](T& t) { t.set(F::sub_page_permission_table_pointer, width); }},
    {"controls.mode_based_execute.ept",
     [](T& t) {
         t.use_ept();
         t.on(secondary::mode_based_execute_control_for_ept);
     },
     [](T& t) { t.off(secondary::enable_ept); }},
    {"controls.vm_functions.reserved_bits", [](T& t) { t.on(secondary::enable_vm_functions); },
     [](T& t) { t.set(F::vm_function_controls, 2); }},
    {"controls.eptp_switching.ept",
     [](T& t) {
         t.use_ept();
         t.on(secondary::enable_vm_functions);
         t.set(F::vm_function_controls, 1);
     },
     [](T& t) { t.off(secondary::enable_ept); }},
    {"controls.eptp_switching.list_address",
     [](T& t) {
         t.use_ept();
         t.on(secondary::enable_vm_functions);
         t.set(F::vm_function_controls, 1);
     },
     [](T& t) { t.set(F::eptp_list_address, 0x123); }},
    {"controls.vmread_bitmap", [](T& t) { t.on(secondary::vmcs_shadowing); },
     [](T& t) { t.set(F::vmread_bitmap_address, width); }},
    {"controls.vmwrite_bitmap", [](T& t) { t.on(secondary::vmcs_shadowing); },
     [](T& t) { t.set(F::vmwrite_bitmap_address, 0x800); }},
    {"controls.ept_violation_ve.address",
     [](T& t) {
         t.on(secondary::ept_violation_ve);
         t.set(F::virtualization_exception_information_address, width - 0x1000);
     },
     [](T& t) { t.set(F::virtualization_exception_information_address, width); }},
    {"controls.ept_violation_ve.address", [](T& t) { t.on(secondary::ept_violation_ve); },
     [](T& t) { t.set(F::virtualization_exception_information_address, 0x800); }},
    {"controls.tsc_multiplier",
     [](T& t) {
         t.on(secondary::use_tsc_scaling);
         t.set(F::tsc_multiplier, 1);
     },
     [](T& t) { t.set(F::tsc_multiplier, 0); }},
    {"controls.vm_exit.reserved_bits", nothing,
     [](T& t) { set_bits(t, F::primary_vm_exit_controls, bit(23)); }},
    {"controls.save_preemption_timer",
     [](T& t) {
         t.on(pin_based::activate_vmx_preemption_timer);
         t.on(vm_exit::save_vmx_preemption_timer_value);
         t.set(F::vmx_preemption_timer_value, 1000);
     },
     [](T& t) { t.off(pin_based::activate_vmx_preemption_timer); }},
    {"controls.exit_msr_store.address", [](T& t) { t.set(F::vm_exit_msr_store_address, 8); },
     [](T& t) { t.set(F::vm_exit_msr_store_count, 1); }},
    {"controls.exit_msr_store.end",
     [](T& t) {
         t.set(F::vm_exit_msr_store_address, width - 16);
         t.set(F::vm_exit_msr_store_count, 1);
     },
     [](T& t) { t.set(F::vm_exit_msr_store_count, 2); }},
    {"controls.exit_msr_load.address", [](T& t) { t.set(F::vm_exit_msr_load_address, width); },
     [](T& t) { t.set(F::vm_exit_msr_load_count, 1); }},
    {"controls.exit_msr_load.end",
     [](T& t) {
         t.set(F::vm_exit_msr_load_address, width - 16);
         t.set(F::vm_exit_msr_load_count, 1);
     },
     [](T& t) { t.set(F::vm_exit_msr_load_count, 0xFFFF'FFFF); }},
    {"controls.vm_entry.reserved_bits", nothing, [](T& t) { set_bits(t, F::vm_entry_controls, bit(10)); }},
    {"controls.injection.type", [](T& t) { inject(t, 7, 0); }, [](T& t) { inject(t, 1, 0); }},
    {"controls.injection.nmi_vector", [](T& t) { inject(t, 2, 2); }, [](T& t) { inject(t, 2, 3); }},
    {"controls.injection.exception_vector", [](T& t) { inject(t, 3, 31); }, [](T& t) { inject(t, 3, 32); }},
    {"controls.injection.other_vector", [](T& t) { inject(t, 7, 0); }, [](T& t) { inject(t, 7, 1); }},
    {"controls.injection.deliver_error_code", [](T& t) { inject(t, 3, 13, bit(11)); },
     [](T& t) { inject(t, 3, 13); }},
    {"controls.injection.deliver_error_code", [](T& t) { inject(t, 3, 6); },
     [](T& t) { inject(t, 3, 6, bit(11)); }},
    {"controls.injection.deliver_error_code",
     [](T& t) {
         real_guest(t);
         inject(t, 3, 13);
     },
     [](T& t) { inject(t, 3, 13, bit(11)); }},
    {"controls.injection.reserved_bits", [](T& t) { inject(t, 3, 6); },
     [](T& t) { inject(t, 3, 6, bit(12)); }},
    {"controls.injection.error_code",
     [](T& t) {
         inject(t, 3, 14, bit(11));
         t.set(F::vm_entry_exception_error_code, 0xFFFF);
     },
     [](T& t) { t.set(F::vm_entry_exception_error_code, 0x1'0000); }},
    {"controls.injection.instruction_length",
     [](T& t) {
         inject(t, 6, 3);
         t.set(F::vm_entry_instruction_length, 15);
     },
     [](T& t) { t.set(F::vm_entry_instruction_length, 16); }},
    {"controls.entry_msr_load.address", [](T& t) { t.set(F::vm_entry_msr_load_address, 1); },
     [](T& t) { t.set(F::vm_entry_msr_load_count, 1); }},
    {"controls.entry_msr_load.end", [](T& t) { t.set(F::vm_entry_msr_load_address, width - 16); },
     [](T& t) { t.set(F::vm_entry_msr_load_count, 2); }},
};

} // namespace

std::span<const RuleCase> control_rule_cases() { return control_cases; }

} // namespace exeunt::test::entry_rules
