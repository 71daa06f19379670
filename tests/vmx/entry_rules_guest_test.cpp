// The rules of the guest-state area at their limits. SDM 3C 26.3.1. Evaluated by entry_checks_test.cpp.
#include "tests/vmx/entry_rules.hpp"

namespace exeunt::test::entry_rules {

namespace {

const RuleCase guest_cases[] = {
    {"guest.cr0.fixed_bits", nothing, [](T& t) { clear_bits(t, F::guest_cr0, CR0::NE); }},
    {"guest.cr0.fixed_bits",
     [](T& t) { // PE and PG are free with unrestricted guest
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
    {"guest.perf_global_ctrl",
     [](T& t) {
         t.on(vm_entry::load_ia32_perf_global_ctrl);
         t.set(F::guest_ia32_perf_global_ctrl, 0x7'0000'000F);
     },
     [](T& t) { t.set(F::guest_ia32_perf_global_ctrl, u64{8} << 32); }},
    {"guest.pkrs",
     [](T& t) {
         t.on(vm_entry::load_pkrs);
         t.set(F::guest_ia32_pkrs, 0xFFFF'FFFF);
     },
     [](T& t) { t.set(F::guest_ia32_pkrs, bit(32)); }},
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
    {"guest.ldtr.granularity", usable_ldtr,
     [](T& t) { set_bits(t, access(Seg::LDTR), AR::G), t.set(limit(Seg::LDTR), 0x1000); }},
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
    {"guest.activity.sipi_event", [](T& t) { t.set(F::guest_activity_state, 3); },
     [](T& t) { inject(t, 2, 2); }},
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
    {"guest.pending_debug.rtm", nothing,
     [](T& t) { t.set(F::guest_pending_debug_exceptions, bit(16) | bit(12)); }},
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

} // namespace

std::span<const RuleCase> guest_rule_cases() { return guest_cases; }

} // namespace exeunt::test::entry_rules
