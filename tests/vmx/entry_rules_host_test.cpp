// The rules of the host-state area and of the address-space size at their limits. SDM 3C 26.2.2 to 26.2.4.
// Evaluated by entry_checks_test.cpp.
#include "tests/vmx/entry_rules.hpp"

namespace exeunt::test::entry_rules {

namespace {

const RuleCase host_cases[] = {
    {"host.cr0.fixed_bits", [](T& t) { set_bits(t, F::host_cr0, CR0::CD | CR0::NW); },
     [](T& t) { clear_bits(t, F::host_cr0, CR0::NE); }},
    {"host.cr0.fixed_bits", nothing, [](T& t) { set_bits(t, F::host_cr0, bit(32)); }},
    {"host.cr4.fixed_bits", nothing, [](T& t) { clear_bits(t, F::host_cr4, CR4::VMXE); }},
    {"host.cr4.fixed_bits", nothing, [](T& t) { set_bits(t, F::host_cr4, bit(15)); }},
    {"host.cr3.width", [](T& t) { t.set(F::host_cr3, width - 0x1000); },
     [](T& t) { t.set(F::host_cr3, width); }},
    {"host.sysenter_esp.canonical", [](T& t) { t.set(F::host_ia32_sysenter_esp, canonical_edge); },
     [](T& t) { t.set(F::host_ia32_sysenter_esp, not_canonical); }},
    {"host.sysenter_eip.canonical", [](T& t) { t.set(F::host_ia32_sysenter_eip, ~u64{0}); },
     [](T& t) { t.set(F::host_ia32_sysenter_eip, u64{1} << 63); }},
    {"host.pat", [](T& t) { t.set(F::host_ia32_pat, 0x0200'0000'0000'0000); },
     [](T& t) { t.on(vm_exit::load_ia32_pat); }},
    {"host.efer.reserved_bits", nothing, [](T& t) { set_bits(t, F::host_ia32_efer, bit(12)); }},
    {"host.efer.lma_lme", nothing, [](T& t) { clear_bits(t, F::host_ia32_efer, EFER::LME); }},
    {"host.perf_global_ctrl",
     [](T& t) {
         t.on(vm_exit::load_ia32_perf_global_ctrl);
         t.set(F::host_ia32_perf_global_ctrl, 0x7'0000'000F);
     },
     [](T& t) { t.set(F::host_ia32_perf_global_ctrl, 0x10); }},
    {"host.pkrs",
     [](T& t) {
         t.on(vm_exit::load_pkrs);
         t.set(F::host_ia32_pkrs, 0xFFFF'FFFF);
     },
     [](T& t) { t.set(F::host_ia32_pkrs, bit(32)); }},
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
    {"host.ss.not_null", [](T& t) { t.host32(); }, [](T& t) { t.set(F::host_ss_selector, 0); }},
    {"host.address_space.outside_ia_32e", [](T& t) { t.host32(); },
     [](T& t) { t.on(vm_entry::ia_32e_mode_guest); }},
    {"host.address_space.outside_ia_32e", [](T& t) { t.host32(); },
     [](T& t) {
         t.on(vm_exit::host_address_space_size);
         t.set(F::host_ia32_efer, EFER::NXE | EFER::LMA | EFER::LME);
     }},
    // Whichever mode the host is in, the rule about it comes first.
    {"host.address_space.guest", [](T& t) { t.host32(); }, [](T& t) { t.on(vm_entry::ia_32e_mode_guest); },
     "intel-max", "host.address_space.outside_ia_32e"},
    {"host.cr4.pcide", [](T& t) { t.host32(); }, [](T& t) { set_bits(t, F::host_cr4, CR4::PCIDE); }},
    {"host.rip.bits_63_32", [](T& t) { t.host32(), t.set(F::host_rip, 0xFFFF'FFFF); },
     [](T& t) { t.set(F::host_rip, bit(32)); }},
};

} // namespace

std::span<const RuleCase> host_rule_cases() { return host_cases; }

} // namespace exeunt::test::entry_rules
