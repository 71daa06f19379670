// Checks on the VM-execution, VM-exit and VM-entry control fields. SDM 3C 26.2.1 "Checks on VMX Controls".
#include "vmx/entry_checks.hpp"

#include "arch/registers.hpp"

#include <array>

namespace exeunt {

namespace {

using E = EntryContext;
using F = VmcsField;

constexpr std::string_view execution = "SDM 3C 26.2.1.1", exit = "SDM 3C 26.2.1.2", entry = "SDM 3C 26.2.1.3";

bool page_aligned(u64 address) { return (address & 0xFFF) == 0; }
bool page(const E& e, F field) { return page_aligned(e[field]) && e.within_physical_width(e[field]); }

/// An MSR area of `count` 16-byte entries ends within the physical-address width.
bool area_fits(const E& e, F address, F count) {
    const u128 last = u128{e[address]} + u128{e[count]} * 16 - 1;
    return e[count] == 0 || (last >> e.caps.physical_bits()) == 0;
}
bool area_aligned(const E& e, F address, F count) {
    return e[count] == 0 || ((e[address] & 15) == 0 && e.within_physical_width(e[address]));
}

namespace allowed_here {
AllowedBits eptp(const E& e) { return {0, low_mask(e.caps.physical_bits()) & ~u64{0xF00}}; }
AllowedBits msr_area(const E& e) { return {0, low_mask(e.caps.physical_bits()) & ~u64{15}}; }
} // namespace allowed_here

/// Exceptions that push an error code.
bool pushes_error_code(unsigned vector) {
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

constexpr std::array execution_checks{
    EntryCheck{"controls.pin_based.reserved_bits", execution,
               "reserved bits as IA32_VMX_TRUE_PINBASED_CTLS says",
               on(F::pin_based_vm_execution_controls).bits(allowed::controls<ControlGroup::pin_based>),
               [](const E& e) { return e.caps.allowed(ControlGroup::pin_based, e.pin_based); }},
    EntryCheck{
        "controls.primary.reserved_bits", execution, "reserved bits as IA32_VMX_TRUE_PROCBASED_CTLS says",
        on(F::primary_processor_based_vm_execution_controls).bits(allowed::controls<ControlGroup::primary>),
        [](const E& e) { return e.caps.allowed(ControlGroup::primary, e.primary); }},
    EntryCheck{"controls.secondary.reserved_bits", execution,
               "when activated, only bits that IA32_VMX_PROCBASED_CTLS2 allows",
               on(F::secondary_processor_based_vm_execution_controls)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::controls<ControlGroup::secondary>),
               [](const E& e) { return e.caps.allowed(ControlGroup::secondary, e.secondary); }},
    EntryCheck{"controls.tertiary.reserved_bits", execution,
               "when activated, only bits that IA32_VMX_PROCBASED_CTLS3 allows",
               on(F::tertiary_processor_based_vm_execution_controls)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::controls<ControlGroup::tertiary>),
               [](const E& e) { return e.caps.allowed(ControlGroup::tertiary, e.tertiary); }},
    EntryCheck{"controls.cr3_target_count", execution, "CR3-target count at most IA32_VMX_MISC[24:16]",
               on(F::cr3_target_count),
               [](const E& e) { return e[F::cr3_target_count] <= e.caps.cr3_targets(); }},
    EntryCheck{
        "controls.io_bitmaps.bits_11_0", execution, "use I/O bitmaps: bits 11:0 of both addresses are 0",
        on(F::address_of_io_bitmap_a, F::address_of_io_bitmap_b)
            .given(F::primary_processor_based_vm_execution_controls)
            .bits(allowed::page_aligned),
        [](const E& e) {
            return !(e.primary & primary::use_io_bitmaps) ||
                   (page_aligned(e[F::address_of_io_bitmap_a]) && page_aligned(e[F::address_of_io_bitmap_b]));
        }},
    EntryCheck{"controls.io_bitmaps.width", execution, "use I/O bitmaps: both addresses within MAXPHYADDR",
               on(F::address_of_io_bitmap_a, F::address_of_io_bitmap_b)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::physical),
               [](const E& e) {
                   return !(e.primary & primary::use_io_bitmaps) ||
                          (e.within_physical_width(e[F::address_of_io_bitmap_a]) &&
                           e.within_physical_width(e[F::address_of_io_bitmap_b]));
               }},
    EntryCheck{"controls.msr_bitmaps.bits_11_0", execution, "use MSR bitmaps: bits 11:0 of the address are 0",
               on(F::address_of_msr_bitmaps)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::page_aligned),
               [](const E& e) {
                   return !(e.primary & primary::use_msr_bitmaps) ||
                          page_aligned(e[F::address_of_msr_bitmaps]);
               }},
    EntryCheck{"controls.msr_bitmaps.width", execution, "use MSR bitmaps: the address is within MAXPHYADDR",
               on(F::address_of_msr_bitmaps)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::physical),
               [](const E& e) {
                   return !(e.primary & primary::use_msr_bitmaps) ||
                          e.within_physical_width(e[F::address_of_msr_bitmaps]);
               }},
    EntryCheck{"controls.virtual_apic.bits_11_0", execution, "use TPR shadow: bits 11:0 of the address are 0",
               on(F::virtual_apic_address)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::page_aligned),
               [](const E& e) {
                   return !(e.primary & primary::use_tpr_shadow) || page_aligned(e[F::virtual_apic_address]);
               }},
    EntryCheck{"controls.virtual_apic.width", execution, "use TPR shadow: the address is within MAXPHYADDR",
               on(F::virtual_apic_address)
                   .given(F::primary_processor_based_vm_execution_controls)
                   .bits(allowed::physical),
               [](const E& e) {
                   return !(e.primary & primary::use_tpr_shadow) ||
                          e.within_physical_width(e[F::virtual_apic_address]);
               }},
    EntryCheck{"controls.tpr_threshold.bits_31_4", execution,
               "use TPR shadow without virtual-interrupt delivery: bits 31:4 of the TPR threshold are 0",
               on(F::tpr_threshold)
                   .given(F::primary_processor_based_vm_execution_controls,
                          F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::low<4>),
               [](const E& e) {
                   return !(e.primary & primary::use_tpr_shadow) ||
                          (e.secondary & secondary::virtual_interrupt_delivery) || e[F::tpr_threshold] <= 15;
               }},
    EntryCheck{"controls.virtual_nmis", execution, "virtual NMIs needs NMI exiting",
               on(F::pin_based_vm_execution_controls),
               [](const E& e) {
                   return (e.pin_based & pin_based::nmi_exiting) || !(e.pin_based & pin_based::virtual_nmis);
               }},
    EntryCheck{"controls.nmi_window_exiting", execution, "NMI-window exiting needs virtual NMIs",
               on(F::primary_processor_based_vm_execution_controls).given(F::pin_based_vm_execution_controls),
               [](const E& e) {
                   return (e.pin_based & pin_based::virtual_nmis) ||
                          !(e.primary & primary::nmi_window_exiting);
               }},
    EntryCheck{"controls.vpid", execution, "enable VPID: the VPID is not 0000H",
               on(F::virtual_processor_identifier).given(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::enable_vpid) || e[F::virtual_processor_identifier] != 0;
               }},
    EntryCheck{"controls.eptp.memory_type", execution, "enable EPT: EPTP[2:0] is a supported memory type",
               on(F::ept_pointer).given(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   const u64 type = e[F::ept_pointer] & 7;
                   return !(e.secondary & secondary::enable_ept) ||
                          (type == 0 && e.caps.ept_vpid(EPT_VPID_CAP::uncacheable)) ||
                          (type == 6 && e.caps.ept_vpid(EPT_VPID_CAP::write_back));
               }},
    EntryCheck{"controls.eptp.walk_length", execution,
               "enable EPT: EPTP[5:3] is a supported page-walk length less 1",
               on(F::ept_pointer).given(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   const u64 length = extract(e[F::ept_pointer], 5, 3);
                   return !(e.secondary & secondary::enable_ept) ||
                          (length == 3 && e.caps.ept_vpid(EPT_VPID_CAP::walk_4)) ||
                          (length == 4 && e.caps.ept_vpid(EPT_VPID_CAP::walk_5));
               }},
    EntryCheck{"controls.eptp.accessed_dirty", execution,
               "enable EPT: EPTP[6] is 0 unless flags are supported",
               on(F::ept_pointer)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::clear<6, 6>),
               [](const E& e) {
                   return !(e.secondary & secondary::enable_ept) || !(e[F::ept_pointer] & bit(6)) ||
                          e.caps.ept_vpid(EPT_VPID_CAP::accessed_dirty);
               }},
    EntryCheck{"controls.eptp.supervisor_shadow_stack", execution,
               "enable EPT: EPTP[7] is 0 unless supervisor shadow-stack control is supported",
               on(F::ept_pointer)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::clear<7, 7>),
               [](const E& e) {
                   return !(e.secondary & secondary::enable_ept) || !(e[F::ept_pointer] & bit(7)) ||
                          e.caps.ept_vpid(EPT_VPID_CAP::supervisor_shadow_stack);
               }},
    EntryCheck{
        "controls.eptp.reserved_bits", execution, "enable EPT: EPTP[11:8] and EPTP[63:MAXPHYADDR] are 0",
        on(F::ept_pointer).given(F::secondary_processor_based_vm_execution_controls).bits(allowed_here::eptp),
        [](const E& e) {
            return !(e.secondary & secondary::enable_ept) ||
                   (extract(e[F::ept_pointer], 11, 8) == 0 && e.within_physical_width(e[F::ept_pointer]));
        }},
    EntryCheck{"controls.pml.ept", execution, "enable PML needs enable EPT",
               on(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::enable_pml) || (e.secondary & secondary::enable_ept);
               }},
    EntryCheck{
        "controls.pml.address", execution, "enable PML: the address is page-aligned and within MAXPHYADDR",
        on(F::pml_address).given(F::secondary_processor_based_vm_execution_controls).bits(allowed::page),
        [](const E& e) { return !(e.secondary & secondary::enable_pml) || page(e, F::pml_address); }},
    EntryCheck{"controls.unrestricted_guest.ept", execution, "unrestricted guest needs enable EPT",
               on(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) { return !e.unrestricted() || (e.secondary & secondary::enable_ept); }},
    EntryCheck{"controls.sub_pages.ept", execution, "sub-page write permissions for EPT needs enable EPT",
               on(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::sub_page_write_permissions_for_ept) ||
                          (e.secondary & secondary::enable_ept);
               }},
    EntryCheck{"controls.sub_pages.table", execution,
               "sub-page write permissions for EPT: the table pointer is page-aligned and within MAXPHYADDR",
               on(F::sub_page_permission_table_pointer)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::page),
               [](const E& e) {
                   return !(e.secondary & secondary::sub_page_write_permissions_for_ept) ||
                          page(e, F::sub_page_permission_table_pointer);
               }},
    EntryCheck{"controls.mode_based_execute.ept", execution,
               "mode-based execute control for EPT needs enable EPT",
               on(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   return !(e.secondary & secondary::mode_based_execute_control_for_ept) ||
                          (e.secondary & secondary::enable_ept);
               }},
    EntryCheck{"controls.vm_functions.reserved_bits", execution,
               "enable VM functions: only bits that IA32_VMX_VMFUNC allows",
               on(F::vm_function_controls)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::controls<ControlGroup::vm_function>),
               [](const E& e) { return e.caps.allowed(ControlGroup::vm_function, e.vm_function); }},
    EntryCheck{"controls.eptp_switching.ept", execution, "EPTP switching needs enable EPT",
               on(F::secondary_processor_based_vm_execution_controls).given(F::vm_function_controls),
               [](const E& e) {
                   return !(e.vm_function & vm_function::eptp_switching) ||
                          (e.secondary & secondary::enable_ept);
               }},
    EntryCheck{"controls.eptp_switching.list_address", execution,
               "EPTP switching: the EPTP-list address is page-aligned and within MAXPHYADDR",
               on(F::eptp_list_address).given(F::vm_function_controls).bits(allowed::page),
               [](const E& e) {
                   return !(e.vm_function & vm_function::eptp_switching) || page(e, F::eptp_list_address);
               }},
    EntryCheck{"controls.vmread_bitmap", execution,
               "VMCS shadowing: the VMREAD-bitmap address is page-aligned and within MAXPHYADDR",
               on(F::vmread_bitmap_address)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::page),
               [](const E& e) {
                   return !(e.secondary & secondary::vmcs_shadowing) || page(e, F::vmread_bitmap_address);
               }},
    EntryCheck{"controls.vmwrite_bitmap", execution,
               "VMCS shadowing: the VMWRITE-bitmap address is page-aligned and within MAXPHYADDR",
               on(F::vmwrite_bitmap_address)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::page),
               [](const E& e) {
                   return !(e.secondary & secondary::vmcs_shadowing) || page(e, F::vmwrite_bitmap_address);
               }},
    EntryCheck{"controls.ept_violation_ve.address", execution,
               "EPT-violation #VE: the information address is page-aligned and within MAXPHYADDR",
               on(F::virtualization_exception_information_address)
                   .given(F::secondary_processor_based_vm_execution_controls)
                   .bits(allowed::page),
               [](const E& e) {
                   return !(e.secondary & secondary::ept_violation_ve) ||
                          page(e, F::virtualization_exception_information_address);
               }},
    EntryCheck{
        "controls.tsc_multiplier", execution, "use TSC scaling: the TSC multiplier is not 0",
        on(F::tsc_multiplier).given(F::secondary_processor_based_vm_execution_controls),
        [](const E& e) { return !(e.secondary & secondary::use_tsc_scaling) || e[F::tsc_multiplier] != 0; }},
};

constexpr std::array threshold_checks{
    EntryCheck{"controls.tpr_threshold.vtpr", execution,
               "use TPR shadow, neither virtualize APIC accesses nor virtual-interrupt delivery: "
               "the TPR threshold is not above VTPR[7:4]",
               on(F::tpr_threshold)
                   .given(F::virtual_apic_address, F::primary_processor_based_vm_execution_controls,
                          F::secondary_processor_based_vm_execution_controls)
                   .in_memory(),
               [](const E& e) {
                   if (!(e.primary & primary::use_tpr_shadow) ||
                       (e.secondary &
                        (secondary::virtualize_apic_accesses | secondary::virtual_interrupt_delivery)))
                       return true;
                   const u8 vtpr = e.memory.load<u8>(Physical{e[F::virtual_apic_address] + 0x80});
                   return (e[F::tpr_threshold] & 15) <= static_cast<u64>(vtpr >> 4);
               }},
};

constexpr std::array exit_checks{
    EntryCheck{"controls.vm_exit.reserved_bits", exit, "reserved bits as IA32_VMX_TRUE_EXIT_CTLS says",
               on(F::primary_vm_exit_controls).bits(allowed::controls<ControlGroup::vm_exit>),
               [](const E& e) { return e.caps.allowed(ControlGroup::vm_exit, e.vm_exit); }},
    EntryCheck{"controls.save_preemption_timer", exit,
               "save VMX-preemption timer value needs activate VMX-preemption timer",
               on(F::primary_vm_exit_controls).given(F::pin_based_vm_execution_controls),
               [](const E& e) {
                   return (e.pin_based & pin_based::activate_vmx_preemption_timer) ||
                          !(e.vm_exit & vm_exit::save_vmx_preemption_timer_value);
               }},
    EntryCheck{
        "controls.exit_msr_store.address", exit,
        "VM-exit MSR-store count not 0: the address is 16-byte aligned and within MAXPHYADDR",
        on(F::vm_exit_msr_store_address).given(F::vm_exit_msr_store_count).bits(allowed_here::msr_area),
        [](const E& e) { return area_aligned(e, F::vm_exit_msr_store_address, F::vm_exit_msr_store_count); }},
    EntryCheck{
        "controls.exit_msr_store.end", exit, "VM-exit MSR-store area: the last byte is within MAXPHYADDR",
        on(F::vm_exit_msr_store_address, F::vm_exit_msr_store_count),
        [](const E& e) { return area_fits(e, F::vm_exit_msr_store_address, F::vm_exit_msr_store_count); }},
    EntryCheck{
        "controls.exit_msr_load.address", exit,
        "VM-exit MSR-load count not 0: the address is 16-byte aligned and within MAXPHYADDR",
        on(F::vm_exit_msr_load_address).given(F::vm_exit_msr_load_count).bits(allowed_here::msr_area),
        [](const E& e) { return area_aligned(e, F::vm_exit_msr_load_address, F::vm_exit_msr_load_count); }},
    EntryCheck{
        "controls.exit_msr_load.end", exit, "VM-exit MSR-load area: the last byte is within MAXPHYADDR",
        on(F::vm_exit_msr_load_address, F::vm_exit_msr_load_count),
        [](const E& e) { return area_fits(e, F::vm_exit_msr_load_address, F::vm_exit_msr_load_count); }},
};

constexpr std::array entry_checks{
    EntryCheck{"controls.vm_entry.reserved_bits", entry, "reserved bits as IA32_VMX_TRUE_ENTRY_CTLS says",
               on(F::vm_entry_controls).bits(allowed::controls<ControlGroup::vm_entry>),
               [](const E& e) { return e.caps.allowed(ControlGroup::vm_entry, e.vm_entry); }},
};

constexpr std::array event_checks{
    EntryCheck{"controls.injection.type", entry,
               "the interruption type is not 1, and 7 only if monitor trap flag is supported",
               on(F::vm_entry_interruption_information),
               [](const E& e) {
                   return e.event_type() != 1 &&
                          (e.event_type() != 7 || e.caps.may(primary::monitor_trap_flag));
               }},
    EntryCheck{"controls.injection.nmi_vector", entry, "an NMI has vector 2",
               on(F::vm_entry_interruption_information),
               [](const E& e) { return e.event_type() != 2 || e.event_vector() == 2; }},
    EntryCheck{"controls.injection.exception_vector", entry,
               "a hardware exception has a vector of at most 31", on(F::vm_entry_interruption_information),
               [](const E& e) { return e.event_type() != 3 || e.event_vector() <= 31; }},
    EntryCheck{"controls.injection.other_vector", entry, "another event has vector 0 (pending MTF VM exit)",
               on(F::vm_entry_interruption_information),
               [](const E& e) { return e.event_type() != 7 || e.event_vector() == 0; }},
    EntryCheck{
        "controls.injection.deliver_error_code", entry,
        "deliver error code is 1 exactly for a hardware exception that has one, outside real-address mode",
        on(F::vm_entry_interruption_information)
            .given(F::guest_cr0, F::secondary_processor_based_vm_execution_controls),
        [](const E& e) {
            const bool protected_mode = !e.unrestricted() || (e.cr0 & CR0::PE);
            const bool expected =
                protected_mode && e.event_type() == 3 && pushes_error_code(e.event_vector());
            return ((e.event() >> 11) & 1) == (expected ? 1u : 0u);
        }},
    EntryCheck{"controls.injection.reserved_bits", entry, "bits 30:12 of the interruption information are 0",
               on(F::vm_entry_interruption_information).bits(allowed::clear<30, 12>),
               [](const E& e) { return extract(e.event(), 30, 12) == 0; }},
    // The pinned edition says 31:15; later ones, and processors with SGX, let bit 15 (SGX) of #PF through.
    EntryCheck{"controls.injection.error_code", entry, "bits 31:16 of a delivered error code are 0",
               on(F::vm_entry_exception_error_code)
                   .given(F::vm_entry_interruption_information)
                   .bits(allowed::low<16>),
               [](const E& e) {
                   return !(e.event() & bit(11)) || extract(e[F::vm_entry_exception_error_code], 31, 16) == 0;
               }},
    EntryCheck{"controls.injection.instruction_length", entry,
               "software interrupts and exceptions: length 1 to 15, 0 only with IA32_VMX_MISC[30]",
               on(F::vm_entry_instruction_length).given(F::vm_entry_interruption_information),
               [](const E& e) {
                   if (e.event_type() < 4 || e.event_type() > 6) return true;
                   const u64 length = e[F::vm_entry_instruction_length];
                   return length <= 15 && (length != 0 || (e.caps.misc() & VMX_MISC::zero_length_injection));
               }},
};

constexpr std::array msr_list_checks{
    EntryCheck{
        "controls.entry_msr_load.address", entry,
        "VM-entry MSR-load count not 0: the address is 16-byte aligned and within MAXPHYADDR",
        on(F::vm_entry_msr_load_address).given(F::vm_entry_msr_load_count).bits(allowed_here::msr_area),
        [](const E& e) { return area_aligned(e, F::vm_entry_msr_load_address, F::vm_entry_msr_load_count); }},
    EntryCheck{
        "controls.entry_msr_load.end", entry, "VM-entry MSR-load area: the last byte is within MAXPHYADDR",
        on(F::vm_entry_msr_load_address, F::vm_entry_msr_load_count),
        [](const E& e) { return area_fits(e, F::vm_entry_msr_load_address, F::vm_entry_msr_load_count); }},
};

} // namespace

std::span<const EntryCheck> execution_control_checks() { return execution_checks; }
std::span<const EntryCheck> tpr_threshold_checks() { return threshold_checks; }
std::span<const EntryCheck> exit_control_checks() { return exit_checks; }
std::span<const EntryCheck> entry_control_checks() { return entry_checks; }
std::span<const EntryCheck> injection_checks() { return event_checks; }
std::span<const EntryCheck> entry_msr_list_checks() { return msr_list_checks; }

} // namespace exeunt
