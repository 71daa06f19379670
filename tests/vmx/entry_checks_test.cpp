// Every rule of VM entry at its boundary and one beyond. SDM 3C 26.2, 26.3.1.
#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;
using Change = void (*)(T&);

/// A rule: with `holds` VM entry succeeds, with `broken` on top of it this rule is the one that refuses.
struct RuleCase {
    const char* id;
    Change holds;
    Change broken;
    const char* model = "intel-max";
};

constexpr u64 width = u64{1} << 46;  // MAXPHYADDR of intel-max
constexpr u64 not_canonical = u64{1} << 56;  // with 57-bit linear addresses
constexpr u64 canonical_edge = (u64{1} << 56) - 1;
constexpr u64 valid_event = u64{1} << 31;

F at(F first, Seg s) { return static_cast<F>(static_cast<unsigned>(first) + static_cast<unsigned>(s)); }
F selector(Seg s) { return at(F::guest_es_selector, s); }
F base(Seg s) { return at(F::guest_es_base, s); }
F limit(Seg s) { return at(F::guest_es_limit, s); }
F access(Seg s) { return at(F::guest_es_access_rights, s); }
void nothing(T&) {}

void set_bits(T& t, F f, u64 bits) { t.set(f, t.get(f) | bits); }
void clear_bits(T& t, F f, u64 bits) { t.set(f, t.get(f) & ~bits); }
void inject(T& t, unsigned type, unsigned vector, u64 more = 0) {
    t.set(F::vm_entry_interruption_information, valid_event | type << 8 | vector | more);
}
void set_type(T& t, Seg s, u64 type) { t.set(access(s), (t.get(access(s)) & ~u64{15}) | type); }
void usable_ldtr(T& t) {
    t.set(selector(Seg::LDTR), 0x58);
    t.set(access(Seg::LDTR), AR::P | SystemType::ldt);
    t.set(limit(Seg::LDTR), 0xFFF);
}
void compatibility_guest(T& t) {
    t.set(access(Seg::CS), (t.get(access(Seg::CS)) & ~u64{AR::L}) | AR::DB);
    t.set(selector(Seg::CS), Harness::code32_0);
}
void v8086_guest(T& t) { t.guest_mode(Mode::v8086); }
void real_guest(T& t) { t.guest_mode(Mode::real); }
void interrupts_on(T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF); }
void link_to_spare(T& t) {
    t.write(T::spare_region, t.vmx.capabilities().revision(), 4);
    t.set(F::vmcs_link_pointer, T::spare_region);
}

const RuleCase control_cases[] = {
    {"controls.pin_based.reserved_bits", nothing, [](T& t) { clear_bits(t, F::pin_based_vm_execution_controls, 2); }},
    {"controls.primary.reserved_bits", nothing,
     [](T& t) { set_bits(t, F::primary_processor_based_vm_execution_controls, 1); }},
    {"controls.secondary.reserved_bits",
     [](T& t) {  // without activation nobody looks
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
    {"controls.eptp.accessed_dirty", [](T& t) { t.use_ept(); }, [](T& t) { set_bits(t, F::ept_pointer, bit(6)); },
     "nehalem"},
    {"controls.eptp.supervisor_shadow_stack", [](T& t) { t.use_ept(6 | 3 << 3 | bit(6)); },
     [](T& t) { set_bits(t, F::ept_pointer, bit(7)); }},
    {"controls.eptp.reserved_bits", [](T& t) { t.use_ept(); }, [](T& t) { set_bits(t, F::ept_pointer, bit(8)); }},
    {"controls.eptp.reserved_bits", [](T& t) { t.use_ept(); }, [](T& t) { set_bits(t, F::ept_pointer, width); }},
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
    {"controls.tsc_multiplier",
     [](T& t) {
         t.on(secondary::use_tsc_scaling);
         t.set(F::tsc_multiplier, 1);
     },
     [](T& t) { t.set(F::tsc_multiplier, 0); }},
    {"controls.vm_exit.reserved_bits", nothing, [](T& t) { set_bits(t, F::primary_vm_exit_controls, bit(23)); }},
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
    {"controls.injection.reserved_bits", [](T& t) { inject(t, 3, 6); }, [](T& t) { inject(t, 3, 6, bit(12)); }},
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

const RuleCase host_cases[] = {
    {"host.cr0.fixed_bits", [](T& t) { set_bits(t, F::host_cr0, CR0::CD | CR0::NW); },
     [](T& t) { clear_bits(t, F::host_cr0, CR0::NE); }},
    {"host.cr0.fixed_bits", nothing, [](T& t) { set_bits(t, F::host_cr0, bit(32)); }},
    {"host.cr4.fixed_bits", nothing, [](T& t) { clear_bits(t, F::host_cr4, CR4::VMXE); }},
    {"host.cr4.fixed_bits", nothing, [](T& t) { set_bits(t, F::host_cr4, bit(15)); }},
    {"host.cr3.width", [](T& t) { t.set(F::host_cr3, width - 0x1000); }, [](T& t) { t.set(F::host_cr3, width); }},
    {"host.sysenter_esp.canonical", [](T& t) { t.set(F::host_ia32_sysenter_esp, canonical_edge); },
     [](T& t) { t.set(F::host_ia32_sysenter_esp, not_canonical); }},
    {"host.sysenter_eip.canonical", [](T& t) { t.set(F::host_ia32_sysenter_eip, ~u64{0}); },
     [](T& t) { t.set(F::host_ia32_sysenter_eip, u64{1} << 63); }},
    {"host.pat", [](T& t) { t.set(F::host_ia32_pat, 0x0200'0000'0000'0000); },
     [](T& t) { t.on(vm_exit::load_ia32_pat); }},
    {"host.efer.reserved_bits", nothing, [](T& t) { set_bits(t, F::host_ia32_efer, bit(12)); }},
    {"host.efer.lma_lme", nothing, [](T& t) { clear_bits(t, F::host_ia32_efer, EFER::LME); }},
    {"host.selectors.rpl_ti", nothing, [](T& t) { t.set(F::host_gs_selector, 0x14); }},
    {"host.cs.not_null", nothing, [](T& t) { t.set(F::host_cs_selector, 0); }},
    {"host.tr.not_null", nothing, [](T& t) { t.set(F::host_tr_selector, 0); }},
    {"host.bases.canonical", [](T& t) { t.set(F::host_gs_base, canonical_edge); },
     [](T& t) { t.set(F::host_gs_base, not_canonical); }},
    {"host.bases.canonical", nothing, [](T& t) { t.set(F::host_idtr_base, not_canonical); }},
    {"host.address_space.in_ia_32e", nothing,
     [](T& t) {
         t.off(vm_exit::host_address_space_size);
         clear_bits(t, F::host_ia32_efer, EFER::LME | EFER::LMA);
     }},
    {"host.cr4.pae", nothing, [](T& t) { clear_bits(t, F::host_cr4, CR4::PAE); }},
    {"host.rip.canonical", [](T& t) { t.set(F::host_rip, canonical_edge); },
     [](T& t) { t.set(F::host_rip, not_canonical); }},
};

const RuleCase guest_cases[] = {
    {"guest.cr0.fixed_bits", nothing, [](T& t) { clear_bits(t, F::guest_cr0, CR0::NE); }},
    {"guest.cr0.fixed_bits",
     [](T& t) {  // PE and PG are free with unrestricted guest
         t.guest_mode(Mode::protected32);
     },
     [](T& t) { t.off(secondary::unrestricted_guest); }},
    {"guest.cr0.pg_needs_pe", real_guest, [](T& t) { set_bits(t, F::guest_cr0, CR0::PG); }},
    {"guest.cr4.fixed_bits", nothing, [](T& t) { clear_bits(t, F::guest_cr4, CR4::VMXE); }},
    {"guest.cr4.fixed_bits", nothing, [](T& t) { set_bits(t, F::guest_cr4, bit(19)); }},
    {"guest.debugctl.reserved_bits",
     [](T& t) {
         t.on(vm_entry::load_debug_controls);
         t.set(F::guest_ia32_debugctl, 2);
     },
     [](T& t) { t.set(F::guest_ia32_debugctl, bit(2)); }},
    {"guest.debugctl.reserved_bits",
     [](T& t) {
         t.off(vm_entry::load_debug_controls);
         t.set(F::guest_ia32_debugctl, bit(2));
     },
     [](T& t) { t.on(vm_entry::load_debug_controls); }},
    {"guest.ia_32e.pg_pae", nothing, [](T& t) { clear_bits(t, F::guest_cr4, CR4::PAE); }},
    {"guest.cr4.pcide", [](T& t) { t.guest_mode(Mode::protected32); },
     [](T& t) { set_bits(t, F::guest_cr4, CR4::PCIDE); }},
    {"guest.cr3.width", nothing, [](T& t) { set_bits(t, F::guest_cr3, width); }},
    {"guest.dr7.bits_63_32",
     [](T& t) {
         t.off(vm_entry::load_debug_controls);
         t.set(F::guest_dr7, bit(32) | 0x400);
     },
     [](T& t) { t.on(vm_entry::load_debug_controls); }},
    {"guest.sysenter.canonical", [](T& t) { t.set(F::guest_ia32_sysenter_esp, canonical_edge); },
     [](T& t) { t.set(F::guest_ia32_sysenter_esp, not_canonical); }},
    {"guest.sysenter.canonical", nothing, [](T& t) { t.set(F::guest_ia32_sysenter_eip, not_canonical); }},
    {"guest.pat", [](T& t) { t.set(F::guest_ia32_pat, 8); }, [](T& t) { t.on(vm_entry::load_ia32_pat); }},
    {"guest.efer.reserved_bits", nothing, [](T& t) { set_bits(t, F::guest_ia32_efer, bit(1)); }},
    {"guest.efer.lma", nothing, [](T& t) { clear_bits(t, F::guest_ia32_efer, EFER::LMA | EFER::LME); }},
    {"guest.efer.lme", nothing, [](T& t) { clear_bits(t, F::guest_ia32_efer, EFER::LME); }},
    {"guest.tr.selector_ti", nothing, [](T& t) { set_bits(t, selector(Seg::TR), 4); }},
    {"guest.ldtr.selector_ti", usable_ldtr, [](T& t) { set_bits(t, selector(Seg::LDTR), 4); }},
    {"guest.ss.selector_rpl", nothing,
     [](T& t) {
         set_bits(t, selector(Seg::SS), 3);
         set_bits(t, access(Seg::SS), AR::DPL);
     }},
    {"guest.segments.v8086_base", v8086_guest, [](T& t) { t.set(base(Seg::ES), 0x10); }},
    {"guest.bases.canonical", [](T& t) { t.set(base(Seg::FS), canonical_edge); },
     [](T& t) { t.set(base(Seg::FS), not_canonical); }},
    {"guest.ldtr.base_canonical", usable_ldtr, [](T& t) { t.set(base(Seg::LDTR), not_canonical); }},
    {"guest.cs.base_63_32", [](T& t) { t.set(base(Seg::CS), 0xFFFF'FFFF); },
     [](T& t) { t.set(base(Seg::CS), bit(32)); }},
    {"guest.data.base_63_32",
     [](T& t) {
         t.set(access(Seg::DS), AR::UNUSABLE);
         t.set(base(Seg::DS), bit(32));
     },
     [](T& t) { t.set(base(Seg::ES), bit(32)); }},
    {"guest.segments.v8086_limit", v8086_guest, [](T& t) { t.set(limit(Seg::GS), 0x1'FFFF); }},
    {"guest.segments.v8086_access", v8086_guest, [](T& t) { t.set(access(Seg::DS), 0x93); }},
    {"guest.cs.type", [](T& t) { set_type(t, Seg::CS, 9); }, [](T& t) { set_type(t, Seg::CS, 8); }},
    {"guest.cs.type", real_guest, [](T& t) { set_type(t, Seg::CS, 2); }},
    {"guest.ss.type", [](T& t) { set_type(t, Seg::SS, 7); }, [](T& t) { set_type(t, Seg::SS, 5); }},
    {"guest.data.type", [](T& t) { set_type(t, Seg::DS, 11); }, [](T& t) { set_type(t, Seg::DS, 9); }},
    {"guest.segments.s", nothing, [](T& t) { clear_bits(t, access(Seg::FS), AR::S); }},
    {"guest.cs.dpl_type_3", real_guest, [](T& t) { set_bits(t, access(Seg::CS), AR::DPL); }},
    {"guest.cs.dpl_nonconforming", nothing, [](T& t) { set_bits(t, access(Seg::CS), AR::DPL); }},
    {"guest.cs.dpl_conforming", [](T& t) { set_type(t, Seg::CS, 15); },
     [](T& t) { set_bits(t, access(Seg::CS), 1 << 5); }},
    {"guest.ss.dpl_rpl", nothing,
     [](T& t) {
         set_bits(t, access(Seg::SS), AR::DPL);
         set_bits(t, access(Seg::CS), AR::DPL);
     }},
    {"guest.ss.dpl_real_mode",
     [](T& t) {
         real_guest(t);
         set_type(t, Seg::CS, 11);
     },
     [](T& t) {
         set_bits(t, access(Seg::CS), AR::DPL);
         set_bits(t, access(Seg::SS), AR::DPL);
     }},
    {"guest.data.dpl",
     [](T& t) {
         set_bits(t, selector(Seg::DS), 3);
         set_bits(t, access(Seg::DS), AR::DPL);
     },
     [](T& t) { t.set(access(Seg::DS), t.get(access(Seg::DS)) & ~u64{1 << 5}); }},
    {"guest.segments.p", [](T& t) { t.set(access(Seg::GS), AR::UNUSABLE); },
     [](T& t) { clear_bits(t, access(Seg::CS), AR::P); }},
    {"guest.segments.access_11_8", nothing, [](T& t) { set_bits(t, access(Seg::SS), bit(8)); }},
    {"guest.cs.l_and_d", nothing, [](T& t) { set_bits(t, access(Seg::CS), AR::DB); }},
    {"guest.segments.granularity",
     [](T& t) {
         t.set(limit(Seg::DS), 0xF'FFFF);
         clear_bits(t, access(Seg::DS), AR::G);
     },
     [](T& t) { t.set(limit(Seg::DS), 0x10'0FFF); }},
    {"guest.segments.granularity", [](T& t) { t.set(limit(Seg::DS), 0xFFF); },
     [](T& t) { t.set(limit(Seg::DS), 0x1FFE); }},
    {"guest.segments.access_31_17", nothing, [](T& t) { set_bits(t, access(Seg::ES), bit(17)); }},
    {"guest.tr.type", nothing, [](T& t) { set_type(t, Seg::TR, SystemType::tss16_busy); }},
    {"guest.tr.type",
     [](T& t) {
         t.guest_mode(Mode::protected32);
         set_type(t, Seg::TR, SystemType::tss16_busy);
     },
     [](T& t) { set_type(t, Seg::TR, SystemType::tss_available); }},
    {"guest.tr.access", nothing, [](T& t) { set_bits(t, access(Seg::TR), AR::UNUSABLE); }},
    {"guest.tr.granularity", nothing, [](T& t) { t.set(limit(Seg::TR), 0x10'0067); }},
    {"guest.ldtr.access", usable_ldtr, [](T& t) { set_type(t, Seg::LDTR, 3); }},
    {"guest.ldtr.granularity", usable_ldtr, [](T& t) { set_bits(t, access(Seg::LDTR), AR::G), t.set(limit(Seg::LDTR), 0x1000); }},
    {"guest.tables.base_canonical", [](T& t) { t.set(F::guest_gdtr_base, canonical_edge); },
     [](T& t) { t.set(F::guest_gdtr_base, not_canonical); }},
    {"guest.tables.limit_31_16", [](T& t) { t.set(F::guest_idtr_limit, 0xFFFF); },
     [](T& t) { t.set(F::guest_idtr_limit, 0x1'0000); }},
    {"guest.rip.bits_63_32", compatibility_guest, [](T& t) { t.set(F::guest_rip, bit(32)); }},
    // A RIP that is not canonical in its bit N-1 alone passes.
    {"guest.rip.bits_63_n", [](T& t) { t.set(F::guest_rip, u64{1} << 56); },
     [](T& t) { t.set(F::guest_rip, u64{1} << 57); }},
    {"guest.rflags.reserved_bits", [](T& t) { set_bits(t, F::guest_rflags, RFLAGS::ID); },
     [](T& t) { set_bits(t, F::guest_rflags, bit(22)); }},
    {"guest.rflags.reserved_bits", nothing, [](T& t) { clear_bits(t, F::guest_rflags, bit(1)); }},
    {"guest.rflags.vm",
     [](T& t) {
         v8086_guest(t);
         clear_bits(t, F::guest_rflags, 0);
     },
     [](T& t) { clear_bits(t, F::guest_cr0, CR0::PE); }},
    {"guest.rflags.if",
     [](T& t) {
         interrupts_on(t);
         inject(t, 0, 0x40);
     },
     [](T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1); }},
    {"guest.activity.supported", [](T& t) { t.set(F::guest_activity_state, 3); },
     [](T& t) { t.set(F::guest_activity_state, 4); }},
    {"guest.activity.hlt_dpl", [](T& t) { t.set(F::guest_activity_state, 1); },
     [](T& t) {
         for (const Seg s : {Seg::CS, Seg::SS}) {
             set_bits(t, selector(s), 3);
             set_bits(t, access(s), AR::DPL);
         }
     }},
    {"guest.activity.blocking", [](T& t) { t.set(F::guest_interruptibility_state, 2); },
     [](T& t) { t.set(F::guest_activity_state, 2); }},
    {"guest.activity.hlt_event",
     [](T& t) {
         t.set(F::guest_activity_state, 1);
         inject(t, 3, 18);
     },
     [](T& t) { inject(t, 3, 6); }},
    {"guest.activity.shutdown_event",
     [](T& t) {
         t.set(F::guest_activity_state, 2);
         inject(t, 2, 2);
     },
     [](T& t) { inject(t, 3, 1); }},
    {"guest.activity.sipi_event", [](T& t) { t.set(F::guest_activity_state, 3); }, [](T& t) { inject(t, 2, 2); }},
    {"guest.interruptibility.reserved_bits", [](T& t) { t.set(F::guest_interruptibility_state, 8); },
     [](T& t) { t.set(F::guest_interruptibility_state, 32); }},
    {"guest.interruptibility.sti_and_mov_ss",
     [](T& t) {
         interrupts_on(t);
         t.set(F::guest_interruptibility_state, 1);
     },
     [](T& t) { t.set(F::guest_interruptibility_state, 3); }},
    {"guest.interruptibility.sti_if",
     [](T& t) {
         interrupts_on(t);
         t.set(F::guest_interruptibility_state, 1);
     },
     [](T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1); }},
    {"guest.interruptibility.interrupt",
     [](T& t) {
         interrupts_on(t);
         inject(t, 0, 0x40);
     },
     [](T& t) { t.set(F::guest_interruptibility_state, 2); }},
    {"guest.interruptibility.nmi_mov_ss", [](T& t) { inject(t, 2, 2); },
     [](T& t) { t.set(F::guest_interruptibility_state, 2); }},
    {"guest.interruptibility.nmi_sti",
     [](T& t) {
         interrupts_on(t);
         inject(t, 2, 2);
     },
     [](T& t) { t.set(F::guest_interruptibility_state, 1); }},
    {"guest.interruptibility.smi", nothing, [](T& t) { t.set(F::guest_interruptibility_state, 4); }},
    {"guest.interruptibility.nmi_nmi",
     [](T& t) {
         inject(t, 2, 2);
         t.set(F::guest_interruptibility_state, 8);
     },
     [](T& t) {
         t.on(pin_based::nmi_exiting);
         t.on(pin_based::virtual_nmis);
     }},
    {"guest.interruptibility.enclave", nothing, [](T& t) { t.set(F::guest_interruptibility_state, 16); }},
    {"guest.pending_debug.reserved_bits", [](T& t) { t.set(F::guest_pending_debug_exceptions, 0x500F); },
     [](T& t) { t.set(F::guest_pending_debug_exceptions, bit(13)); }},
    {"guest.pending_debug.bs_set",
     [](T& t) {
         t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::TF);
         t.set(F::guest_interruptibility_state, 2);
         t.set(F::guest_pending_debug_exceptions, DR6::BS);
     },
     [](T& t) { t.set(F::guest_pending_debug_exceptions, 0); }},
    {"guest.pending_debug.bs_clear", [](T& t) { t.set(F::guest_interruptibility_state, 2); },
     [](T& t) { t.set(F::guest_pending_debug_exceptions, DR6::BS); }},
    {"guest.pending_debug.rtm", nothing, [](T& t) { t.set(F::guest_pending_debug_exceptions, bit(16) | bit(12)); }},
    {"guest.link_pointer.bits_11_0", link_to_spare, [](T& t) { set_bits(t, F::vmcs_link_pointer, 0x800); }},
    {"guest.link_pointer.width", link_to_spare, [](T& t) { set_bits(t, F::vmcs_link_pointer, width); }},
    {"guest.link_pointer.revision", link_to_spare, [](T& t) { t.write(T::spare_region, 1, 4); }},
    {"guest.link_pointer.revision",
     [](T& t) {
         link_to_spare(t);
         t.on(secondary::vmcs_shadowing);
         t.write(T::spare_region, t.vmx.capabilities().revision() | u64{1} << 31, 4);
     },
     [](T& t) { t.off(secondary::vmcs_shadowing); }},
    {"guest.link_pointer.not_current", link_to_spare,
     [](T& t) { t.set(F::vmcs_link_pointer, T::vmcs_region); }},
};

/// Rows that this processor can not show broken without breaking an earlier one.
const std::set<std::string_view> unreachable = {
    "host.ss.not_null",                    // needs a 32-bit host
    "host.address_space.outside_ia_32e",   // needs a 32-bit host
    "host.address_space.guest",            // host.address_space.in_ia_32e or outside_ia_32e comes first
    "host.cr4.pcide",                      // needs a 32-bit host
    "host.rip.bits_63_32",                 // needs a 32-bit host
};

u64 qualification_of(std::string_view id) {
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks)
            if (check.id == id) return check.qualification;
    return ~u64{0};
}

template <class Expect>
void run_cases(std::span<const RuleCase> cases, Expect expect) {
    for (const RuleCase& c : cases) {
        const std::string id = c.id;
            CAPTURE(id);
        {
            T t(c.model);
            c.holds(t);
            CHECK(t.enter() == entered());
        }
        T t(c.model);
        c.holds(t);
        c.broken(t);
        CHECK(t.enter() == expect(c.id));
        CHECK(!t.cpu.in_guest);
    }
}

}  // namespace

TEST_CASE("VM entry: rules of the controls, at their limit and beyond: VM-instruction error 7 [SDM 3C 26.2.1]") {
    run_cases(control_cases, [](const char* id) { return refused_control(id); });
}

TEST_CASE("VM entry: rules of the host-state area: VM-instruction error 8 [SDM 3C 26.2.2 to 26.2.4]") {
    run_cases(host_cases, [](const char* id) { return refused_host(id); });
}

TEST_CASE("VM entry: rules of the guest-state area: exit reason 80000021H [SDM 3C 26.3.1]") {
    run_cases(guest_cases, [](const char* id) { return refused_guest(id, qualification_of(id)); });
}

TEST_CASE("VM entry: every rule has a case, and every case a rule") {
    std::set<std::string_view> tested = unreachable, rows;
    for (const auto cases : {std::span<const RuleCase>(control_cases), std::span<const RuleCase>(host_cases),
                             std::span<const RuleCase>(guest_cases)})
        for (const RuleCase& c : cases) tested.insert(c.id);
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks) {
            CHECK_MESSAGE(rows.insert(check.id).second, check.id);  // ids are unique
            CHECK_MESSAGE(tested.contains(check.id), check.id);
        }
    for (const std::string_view id : tested) CHECK_MESSAGE(rows.contains(id), id);
}

TEST_CASE("VM entry: a rule that held is evaluated again when an input of it changes") {
    for (const auto cases : {std::span<const RuleCase>(control_cases), std::span<const RuleCase>(host_cases),
                             std::span<const RuleCase>(guest_cases)})
        for (const RuleCase& c : cases) {
            const std::string id = c.id;
            CAPTURE(id);
            T t(c.model);
            t.run_guest(1000);  // a first entry passes all; the zeros at RIP or the handler of their fault halt
            if (!t.in_host()) continue;
            c.holds(t);
            c.broken(t);
            const EntryOutcome outcome = t.enter();
            CHECK(outcome.check == c.id);
        }
}

TEST_CASE("VM entry: what makes the non-register state usual breaks no rule of it") {
    T t;
    for (const u64 blocking : {u64{0}, u64{8}})
        for (const u64 event : {u64{0}, valid_event | 0x40, valid_event | 2 << 8 | 2, valid_event | 3 << 8 | 6}) {
            t.set(F::guest_interruptibility_state, blocking);
            t.set(F::vm_entry_interruption_information, event);
            interrupts_on(t);
            for (const bool virtual_nmis : {false, true}) {
                t.on(pin_based::nmi_exiting, virtual_nmis);
                t.on(pin_based::virtual_nmis, virtual_nmis);
                const EntryContext context(*t.vmx.current(), t.vmx.capabilities(), t.memory, true);
                if (!usual_non_register_state(context)) continue;
                for (const EntryCheck& check : guest_non_register_checks())
                    CHECK_MESSAGE(check.holds(context), check.id);
            }
        }
}

TEST_CASE("VM entry: an explanation lists every violated rule, in order") {
    T t;
    t.set(F::cr3_target_count, 9);
    t.set(F::host_cs_selector, 0);
    t.set(F::guest_activity_state, 9);
    const EntryContext context(*t.vmx.current(), t.vmx.capabilities(), t.memory, true);
    const auto violations = violated_rules(context);
    REQUIRE(violations.size() == 3);
    CHECK(violations[0].check->id == "controls.cr3_target_count");
    CHECK(violations[1].check->id == "host.cs.not_null");
    CHECK(violations[2].check->id == "guest.activity.supported");
}
