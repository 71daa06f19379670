// SDM 3C 26.2 "Checks on VMX Controls and Host-State Area"; the guest's are in vmcs_predicates_guest.cpp.
#include "tests/vmx/vmcs_predicates.hpp"

namespace exeunt::test {

namespace {

using I = VmcsImage;
using F = VmcsField;
using enum PredicateGroup;

bool allowed(u64 msr, u64 value) { return (low32(msr) & ~value) == 0 && (value & ~(msr >> 32)) == 0; }
bool fits(const I& s, u64 address) { return address < u64{1} << s.physical_bits; }
bool aligned(u64 address, u64 bytes) { return address % bytes == 0; }
bool page(const I& s, F field) { return aligned(s[field], 4096) && fits(s, s[field]); }
bool area_start(const I& s, F address, F count) {
    return s[count] == 0 || (aligned(s[address], 16) && fits(s, s[address]));
}
bool area_end(const I& s, F address, F count) {
    if (s[count] == 0) return true;
    const u64 start = s[address], bytes = s[count] * 16;
    return start + (bytes - 1) >= start && fits(s, start + (bytes - 1));
}
bool canonical(const I& s, u64 a) {
    const u64 top = a >> (s.linear_bits - 1);
    return top == 0 || top == ~u64{0} >> (s.linear_bits - 1);
}
bool memory_types(u64 pat) {
    for (; pat != 0; pat >>= 8)
        if ((pat & 0xFF) > 7 || (pat & 0xFF) == 2 || (pat & 0xFF) == 3) return false;
    return true;
}

// ---- The event to be injected ----
u64 event(const I& s) { return s[F::vm_entry_interruption_information]; }
bool valid(const I& s) { return event(s) >= 0x8000'0000; }
u64 type(const I& s) { return event(s) / 0x100 % 8; }
u64 vector(const I& s) { return event(s) % 0x100; }

constexpr Predicate controls_table[] = {
    {"controls.pin_based.reserved_bits", controls,
     [](const I& s) { return allowed(s.msr_pin, s[F::pin_based_vm_execution_controls]); }},
    {"controls.primary.reserved_bits", controls,
     [](const I& s) { return allowed(s.msr_proc, s[F::primary_processor_based_vm_execution_controls]); }},
    {"controls.secondary.reserved_bits", controls,
     [](const I& s) {
         return !s.proc(31) || allowed(s.msr_proc2, s[F::secondary_processor_based_vm_execution_controls]);
     }},
    {"controls.tertiary.reserved_bits", controls,
     [](const I& s) {
         return !s.proc(17) || (s[F::tertiary_processor_based_vm_execution_controls] & ~s.msr_proc3) == 0;
     }},
    {"controls.cr3_target_count", controls,
     [](const I& s) { return s[F::cr3_target_count] <= extract(s.misc, 24, 16); }},
    {"controls.io_bitmaps.bits_11_0", controls,
     [](const I& s) {
         return !s.proc(25) || aligned(s[F::address_of_io_bitmap_a] | s[F::address_of_io_bitmap_b], 4096);
     }},
    {"controls.io_bitmaps.width", controls,
     [](const I& s) {
         return !s.proc(25) || fits(s, s[F::address_of_io_bitmap_a] | s[F::address_of_io_bitmap_b]);
     }},
    {"controls.msr_bitmaps.bits_11_0", controls,
     [](const I& s) { return !s.proc(28) || aligned(s[F::address_of_msr_bitmaps], 4096); }},
    {"controls.msr_bitmaps.width", controls,
     [](const I& s) { return !s.proc(28) || fits(s, s[F::address_of_msr_bitmaps]); }},
    {"controls.virtual_apic.bits_11_0", controls,
     [](const I& s) { return !s.proc(21) || aligned(s[F::virtual_apic_address], 4096); }},
    {"controls.virtual_apic.width", controls,
     [](const I& s) { return !s.proc(21) || fits(s, s[F::virtual_apic_address]); }},
    {"controls.tpr_threshold.bits_31_4", controls,
     [](const I& s) { return !s.proc(21) || s.proc2(9) || s[F::tpr_threshold] < 16; }},
    {"controls.tpr_threshold.vtpr", controls,
     [](const I& s) {
         if (!s.proc(21) || s.proc2(0) || s.proc2(9) || !page(s, F::virtual_apic_address)) return true;
         const u32 vtpr = s.memory->load<u8>(Physical{s[F::virtual_apic_address] + 0x80});
         return s[F::tpr_threshold] % 16 <= vtpr / 16;
     }},
    {"controls.apic_access.bits_11_0", controls,
     [](const I& s) { return !s.proc2(0) || aligned(s[F::apic_access_address], 4096); }},
    {"controls.apic_access.width", controls,
     [](const I& s) { return !s.proc2(0) || fits(s, s[F::apic_access_address]); }},
    {"controls.virtualize_x2apic_mode.tpr_shadow", controls,
     [](const I& s) { return s.proc(21) || !s.proc2(4); }},
    {"controls.apic_register_virtualization.tpr_shadow", controls,
     [](const I& s) { return s.proc(21) || !s.proc2(8); }},
    {"controls.virtual_interrupt_delivery.tpr_shadow", controls,
     [](const I& s) { return s.proc(21) || !s.proc2(9); }},
    {"controls.ipi_virtualization.tpr_shadow", controls,
     [](const I& s) { return s.proc(21) || !s.proc3(4); }},
    {"controls.virtualize_x2apic_mode.apic_accesses", controls,
     [](const I& s) { return !(s.proc2(0) && s.proc2(4)); }},
    {"controls.virtual_interrupt_delivery.external_interrupt_exiting", controls,
     [](const I& s) { return s.pin(0) || !s.proc2(9); }},
    {"controls.posted_interrupts.virtual_interrupt_delivery", controls,
     [](const I& s) { return s.proc2(9) || !s.pin(7); }},
    {"controls.posted_interrupts.acknowledge_interrupt_on_exit", controls,
     [](const I& s) { return s.exit(15) || !s.pin(7); }},
    {"controls.posted_interrupts.notification_vector", controls,
     [](const I& s) { return !s.pin(7) || s[F::posted_interrupt_notification_vector] < 256; }},
    {"controls.posted_interrupts.descriptor.bits_5_0", controls,
     [](const I& s) { return !s.pin(7) || aligned(s[F::posted_interrupt_descriptor_address], 64); }},
    {"controls.posted_interrupts.descriptor.width", controls,
     [](const I& s) { return !s.pin(7) || fits(s, s[F::posted_interrupt_descriptor_address]); }},
    {"controls.pid_pointer_table.address", controls,
     [](const I& s) {
         const u64 table = s[F::pid_pointer_table_address];
         return !s.proc3(4) || (aligned(table, 8) && fits(s, table));
     }},
    {"controls.pid_pointer_table.last_entry", controls,
     [](const I& s) {
         const u64 last = s[F::pid_pointer_table_address] + s[F::last_pid_pointer_index] * 8;
         return !s.proc3(4) || fits(s, last + 7);
     }},
    {"controls.virtual_nmis", controls, [](const I& s) { return s.pin(3) || !s.pin(5); }},
    {"controls.nmi_window_exiting", controls, [](const I& s) { return s.pin(5) || !s.proc(22); }},
    {"controls.vpid", controls,
     [](const I& s) { return !s.proc2(5) || s[F::virtual_processor_identifier] != 0; }},
    {"controls.eptp.memory_type", controls,
     [](const I& s) {
         const u64 t = s[F::ept_pointer] % 8;
         return !s.proc2(1) || (t == 0 && test_bit(s.ept_vpid, 8)) || (t == 6 && test_bit(s.ept_vpid, 14));
     }},
    {"controls.eptp.walk_length", controls,
     [](const I& s) {
         const u64 n = extract(s[F::ept_pointer], 5, 3) + 1;
         return !s.proc2(1) || (n == 4 && test_bit(s.ept_vpid, 6)) || (n == 5 && test_bit(s.ept_vpid, 7));
     }},
    {"controls.eptp.accessed_dirty", controls,
     [](const I& s) { return !s.proc2(1) || !test_bit(s[F::ept_pointer], 6) || test_bit(s.ept_vpid, 21); }},
    {"controls.eptp.supervisor_shadow_stack", controls,
     [](const I& s) { return !s.proc2(1) || !test_bit(s[F::ept_pointer], 7) || test_bit(s.ept_vpid, 23); }},
    {"controls.eptp.reserved_bits", controls,
     [](const I& s) {
         return !s.proc2(1) || (extract(s[F::ept_pointer], 11, 8) == 0 && fits(s, s[F::ept_pointer]));
     }},
    {"controls.pml.ept", controls, [](const I& s) { return !s.proc2(17) || s.proc2(1); }},
    {"controls.pml.address", controls, [](const I& s) { return !s.proc2(17) || page(s, F::pml_address); }},
    {"controls.unrestricted_guest.ept", controls, [](const I& s) { return !s.proc2(7) || s.proc2(1); }},
    {"controls.sub_pages.ept", controls, [](const I& s) { return !s.proc2(23) || s.proc2(1); }},
    {"controls.sub_pages.table", controls,
     [](const I& s) { return !s.proc2(23) || page(s, F::sub_page_permission_table_pointer); }},
    {"controls.mode_based_execute.ept", controls, [](const I& s) { return !s.proc2(22) || s.proc2(1); }},
    {"controls.vm_functions.reserved_bits", controls,
     [](const I& s) { return !s.proc2(13) || (s[F::vm_function_controls] & ~s.msr_vmfunc) == 0; }},
    {"controls.eptp_switching.ept", controls, [](const I& s) { return !s.function(0) || s.proc2(1); }},
    {"controls.eptp_switching.list_address", controls,
     [](const I& s) { return !s.function(0) || page(s, F::eptp_list_address); }},
    {"controls.vmread_bitmap", controls,
     [](const I& s) { return !s.proc2(14) || page(s, F::vmread_bitmap_address); }},
    {"controls.vmwrite_bitmap", controls,
     [](const I& s) { return !s.proc2(14) || page(s, F::vmwrite_bitmap_address); }},
    {"controls.ept_violation_ve.address", controls,
     [](const I& s) { return !s.proc2(18) || page(s, F::virtualization_exception_information_address); }},
    {"controls.tsc_multiplier", controls,
     [](const I& s) { return !s.proc2(25) || s[F::tsc_multiplier] != 0; }},

    {"controls.vm_exit.reserved_bits", controls,
     [](const I& s) { return allowed(s.msr_exit, s[F::primary_vm_exit_controls]); }},
    {"controls.save_preemption_timer", controls, [](const I& s) { return s.pin(6) || !s.exit(22); }},
    {"controls.exit_msr_store.address", controls,
     [](const I& s) { return area_start(s, F::vm_exit_msr_store_address, F::vm_exit_msr_store_count); }},
    {"controls.exit_msr_store.end", controls,
     [](const I& s) { return area_end(s, F::vm_exit_msr_store_address, F::vm_exit_msr_store_count); }},
    {"controls.exit_msr_load.address", controls,
     [](const I& s) { return area_start(s, F::vm_exit_msr_load_address, F::vm_exit_msr_load_count); }},
    {"controls.exit_msr_load.end", controls,
     [](const I& s) { return area_end(s, F::vm_exit_msr_load_address, F::vm_exit_msr_load_count); }},

    {"controls.vm_entry.reserved_bits", controls,
     [](const I& s) { return allowed(s.msr_entry, s[F::vm_entry_controls]); }},
    {"controls.injection.type", controls,
     [](const I& s) { return !valid(s) || (type(s) != 1 && (type(s) != 7 || test_bit(s.msr_proc, 59))); }},
    {"controls.injection.nmi_vector", controls,
     [](const I& s) { return !valid(s) || type(s) != 2 || vector(s) == 2; }},
    {"controls.injection.exception_vector", controls,
     [](const I& s) { return !valid(s) || type(s) != 3 || vector(s) < 32; }},
    {"controls.injection.other_vector", controls,
     [](const I& s) { return !valid(s) || type(s) != 7 || vector(s) == 0; }},
    {"controls.injection.deliver_error_code", controls,
     [](const I& s) {
         if (!valid(s)) return true;
         bool code = false;
         for (const u64 v : {8, 10, 11, 12, 13, 14, 17}) code = code || v == vector(s);
         const bool protected_mode = test_bit(s[F::guest_cr0], 0) || !s.proc2(7);
         return test_bit(event(s), 11) == (protected_mode && type(s) == 3 && code);
     }},
    {"controls.injection.reserved_bits", controls,
     [](const I& s) { return !valid(s) || (event(s) & 0x7FFF'F000) == 0; }},
    {"controls.injection.error_code", controls,
     [](const I& s) {
         return !valid(s) || !test_bit(event(s), 11) || s[F::vm_entry_exception_error_code] < 0x1'0000;
     }},
    {"controls.injection.instruction_length", controls,
     [](const I& s) {
         if (!valid(s) || type(s) < 4 || type(s) > 6) return true;
         const u64 length = s[F::vm_entry_instruction_length];
         return length < 16 && (length > 0 || test_bit(s.misc, 30));
     }},
    {"controls.entry_msr_load.address", controls,
     [](const I& s) { return area_start(s, F::vm_entry_msr_load_address, F::vm_entry_msr_load_count); }},
    {"controls.entry_msr_load.end", controls,
     [](const I& s) { return area_end(s, F::vm_entry_msr_load_address, F::vm_entry_msr_load_count); }},
};

/// Every bit that must be 1 is, and none that must be 0.
bool fixed(u64 value, u64 fixed0, u64 fixed1) { return (fixed0 & ~value) == 0 && (value & ~fixed1) == 0; }

constexpr Predicate host_table[] = {
    {"host.cr0.fixed_bits", host,
     [](const I& s) {
         constexpr u64 cd_nw = 0x6000'0000;
         return fixed(s[F::host_cr0] | (s.cr0_fixed0 & cd_nw), s.cr0_fixed0, s.cr0_fixed1 | cd_nw);
     }},
    {"host.cr4.fixed_bits", host,
     [](const I& s) { return fixed(s[F::host_cr4], s.cr4_fixed0, s.cr4_fixed1); }},
    {"host.cr3.width", host, [](const I& s) { return fits(s, s[F::host_cr3]); }},
    {"host.sysenter_esp.canonical", host,
     [](const I& s) { return canonical(s, s[F::host_ia32_sysenter_esp]); }},
    {"host.sysenter_eip.canonical", host,
     [](const I& s) { return canonical(s, s[F::host_ia32_sysenter_eip]); }},
    {"host.perf_global_ctrl", host,
     [](const I& s) { return !s.exit(12) || (s[F::host_ia32_perf_global_ctrl] & ~s.perf_global_bits) == 0; }},
    {"host.pat", host, [](const I& s) { return !s.exit(19) || memory_types(s[F::host_ia32_pat]); }},
    {"host.efer.reserved_bits", host,
     [](const I& s) { return !s.exit(21) || (s[F::host_ia32_efer] & ~s.efer_bits) == 0; }},
    {"host.efer.lma_lme", host,
     [](const I& s) {
         const u64 efer = s[F::host_ia32_efer];
         return !s.exit(21) || (test_bit(efer, 8) == s.exit(9) && test_bit(efer, 10) == s.exit(9));
     }},
    {"host.pkrs", host, [](const I& s) { return !s.exit(29) || s[F::host_ia32_pkrs] < u64{1} << 32; }},
    {"host.selectors.rpl_ti", host,
     [](const I& s) {
         for (const F f : {F::host_cs_selector, F::host_ss_selector, F::host_ds_selector, F::host_es_selector,
                           F::host_fs_selector, F::host_gs_selector, F::host_tr_selector})
             if (s[f] % 8 != 0) return false;
         return true;
     }},
    {"host.cs.not_null", host, [](const I& s) { return s[F::host_cs_selector] != 0; }},
    {"host.tr.not_null", host, [](const I& s) { return s[F::host_tr_selector] != 0; }},
    {"host.ss.not_null", host, [](const I& s) { return s.exit(9) || s[F::host_ss_selector] != 0; }},
    {"host.bases.canonical", host,
     [](const I& s) {
         for (const F f :
              {F::host_fs_base, F::host_gs_base, F::host_gdtr_base, F::host_idtr_base, F::host_tr_base})
             if (!canonical(s, s[f])) return false;
         return true;
     }},
    {"host.address_space.outside_ia_32e", host,
     [](const I& s) { return s.lma || (!s.entry(9) && !s.exit(9)); }},
    {"host.address_space.in_ia_32e", host, [](const I& s) { return !s.lma || s.exit(9); }},
    {"host.address_space.guest", host, [](const I& s) { return s.exit(9) || !s.entry(9); }},
    {"host.cr4.pcide", host, [](const I& s) { return s.exit(9) || !test_bit(s[F::host_cr4], 17); }},
    {"host.rip.bits_63_32", host, [](const I& s) { return s.exit(9) || s[F::host_rip] >> 32 == 0; }},
    {"host.cr4.pae", host, [](const I& s) { return !s.exit(9) || test_bit(s[F::host_cr4], 5); }},
    {"host.rip.canonical", host, [](const I& s) { return !s.exit(9) || canonical(s, s[F::host_rip]); }},
};

} // namespace

std::span<const Predicate> control_predicates() { return controls_table; }
std::span<const Predicate> host_predicates() { return host_table; }

} // namespace exeunt::test
