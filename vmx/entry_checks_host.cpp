// Checks on the host-state area and on the address-space size. SDM 3C 26.2.2 "Checks on Host Control
// Registers and MSRs", 26.2.3 "Checks on Host Segment and Descriptor-Table Registers", 26.2.4 "Checks Related
// to Address-Space Size". The manual gives the last no error number of their own; like the others they are
// host-state errors here.
#include "vmx/entry_checks.hpp"

#include "arch/registers.hpp"

#include <array>

namespace exeunt {

namespace {

using E = EntryContext;
using F = VmcsField;

constexpr std::string_view registers = "SDM 3C 26.2.2", segments = "SDM 3C 26.2.3",
                           address_space = "SDM 3C 26.2.4";

bool host64(const E& e) { return e.vm_exit & vm_exit::host_address_space_size; }
bool obeys(u64 value, u64 fixed0, u64 fixed1) { return (value & fixed0) == fixed0 && (value & ~fixed1) == 0; }

AllowedBits allowed_cr0(const E& e) { return {e.caps.cr0_fixed0(), e.caps.cr0_fixed1()}; }

constexpr std::array checks{
    EntryCheck{"host.cr0.fixed_bits", registers,
               "CR0 as IA32_VMX_CR0_FIXED0 and FIXED1 say (CD and NW are free)",
               on(F::host_cr0).bits(allowed_cr0),
               [](const E& e) { return obeys(e[F::host_cr0], e.caps.cr0_fixed0(), e.caps.cr0_fixed1()); }},
    EntryCheck{"host.cr4.fixed_bits", registers, "CR4 as IA32_VMX_CR4_FIXED0 and FIXED1 say",
               on(F::host_cr4).bits(allowed::cr4),
               [](const E& e) { return obeys(e[F::host_cr4], e.caps.cr4_fixed0(), e.caps.cr4_fixed1()); }},
    EntryCheck{"host.cr3.width", registers, "CR3 bits 63:MAXPHYADDR are 0",
               on(F::host_cr3).bits(allowed::physical),
               [](const E& e) { return e.within_physical_width(e[F::host_cr3]); }},
    EntryCheck{"host.sysenter_esp.canonical", registers, "IA32_SYSENTER_ESP is canonical",
               on(F::host_ia32_sysenter_esp),
               [](const E& e) { return e.canonical(e[F::host_ia32_sysenter_esp]); }},
    EntryCheck{"host.sysenter_eip.canonical", registers, "IA32_SYSENTER_EIP is canonical",
               on(F::host_ia32_sysenter_eip),
               [](const E& e) { return e.canonical(e[F::host_ia32_sysenter_eip]); }},
    EntryCheck{"host.perf_global_ctrl", registers, "load IA32_PERF_GLOBAL_CTRL: reserved bits are 0",
               on(F::host_ia32_perf_global_ctrl).given(F::primary_vm_exit_controls).bits(allowed::perf_global_ctrl),
               [](const E& e) {
                   return !(e.vm_exit & vm_exit::load_ia32_perf_global_ctrl) ||
                          allowed::perf_global_ctrl(e).allow(e[F::host_ia32_perf_global_ctrl]);
               }},
    EntryCheck{
        "host.pat", registers, "load IA32_PAT: each byte is 0, 1, 4, 5, 6 or 7",
        on(F::host_ia32_pat).given(F::primary_vm_exit_controls),
        [](const E& e) { return !(e.vm_exit & vm_exit::load_ia32_pat) || valid_pat(e[F::host_ia32_pat]); }},
    EntryCheck{"host.efer.reserved_bits", registers, "load IA32_EFER: reserved bits are 0",
               on(F::host_ia32_efer).given(F::primary_vm_exit_controls).bits(allowed::efer),
               [](const E& e) {
                   return !(e.vm_exit & vm_exit::load_ia32_efer) ||
                          (e[F::host_ia32_efer] & ~e.caps.efer_bits()) == 0;
               }},
    EntryCheck{"host.efer.lma_lme", registers, "load IA32_EFER: LMA and LME are both host address-space size",
               on(F::host_ia32_efer).given(F::primary_vm_exit_controls),
               [](const E& e) {
                   const u64 both = host64(e) ? EFER::LMA | EFER::LME : 0;
                   return !(e.vm_exit & vm_exit::load_ia32_efer) ||
                          (e[F::host_ia32_efer] & (EFER::LMA | EFER::LME)) == both;
               }},
    EntryCheck{
        "host.pkrs", registers, "load PKRS: bits 63:32 are 0",
        on(F::host_ia32_pkrs).given(F::primary_vm_exit_controls).bits(allowed::low<32>),
        [](const E& e) { return !(e.vm_exit & vm_exit::load_pkrs) || high32(e[F::host_ia32_pkrs]) == 0; }},

    EntryCheck{"host.selectors.rpl_ti", segments, "bits 2:0 of CS, SS, DS, ES, FS, GS and TR selectors are 0",
               on(F::host_es_selector, F::host_cs_selector, F::host_ss_selector, F::host_ds_selector,
                  F::host_fs_selector, F::host_gs_selector, F::host_tr_selector)
                   .bits(allowed::clear<2, 0>),
               [](const E& e) {
                   u64 bits = 0;
                   for (unsigned i = 0; i < 7; ++i) bits |= e.vmcs.at(F::host_es_selector, i);
                   return (bits & 7) == 0;
               }},
    EntryCheck{"host.cs.not_null", segments, "the CS selector is not 0000H", on(F::host_cs_selector),
               [](const E& e) { return e[F::host_cs_selector] != 0; }},
    EntryCheck{"host.tr.not_null", segments, "the TR selector is not 0000H", on(F::host_tr_selector),
               [](const E& e) { return e[F::host_tr_selector] != 0; }},
    EntryCheck{"host.ss.not_null", segments,
               "the SS selector is not 0000H unless host address-space size is 1",
               on(F::host_ss_selector).given(F::primary_vm_exit_controls),
               [](const E& e) { return host64(e) || e[F::host_ss_selector] != 0; }},
    EntryCheck{"host.bases.canonical", segments, "the bases of FS, GS, GDTR, IDTR and TR are canonical",
               on(F::host_fs_base, F::host_gs_base, F::host_gdtr_base, F::host_idtr_base, F::host_tr_base),
               [](const E& e) {
                   return e.canonical({F::host_fs_base, F::host_gs_base, F::host_gdtr_base, F::host_idtr_base,
                                       F::host_tr_base});
               }},

    EntryCheck{"host.address_space.outside_ia_32e", address_space,
               "outside IA-32e mode, IA-32e mode guest and host address-space size are 0",
               on(F::vm_entry_controls, F::primary_vm_exit_controls),
               [](const E& e) { return e.lma || (!e.ia_32e_guest() && !host64(e)); }},
    EntryCheck{"host.address_space.in_ia_32e", address_space, "in IA-32e mode, host address-space size is 1",
               on(F::primary_vm_exit_controls), [](const E& e) { return !e.lma || host64(e); }},
    EntryCheck{"host.address_space.guest", address_space, "host address-space size 0: IA-32e mode guest is 0",
               on(F::vm_entry_controls).given(F::primary_vm_exit_controls),
               [](const E& e) { return host64(e) || !e.ia_32e_guest(); }},
    EntryCheck{"host.cr4.pcide", address_space, "host address-space size 0: CR4.PCIDE is 0",
               on(F::host_cr4).given(F::primary_vm_exit_controls).bits(allowed::clear<17, 17>),
               [](const E& e) { return host64(e) || !(e[F::host_cr4] & CR4::PCIDE); }},
    EntryCheck{"host.rip.bits_63_32", address_space, "host address-space size 0: RIP bits 63:32 are 0",
               on(F::host_rip).given(F::primary_vm_exit_controls).bits(allowed::low<32>),
               [](const E& e) { return host64(e) || high32(e[F::host_rip]) == 0; }},
    EntryCheck{"host.cr4.pae", address_space, "host address-space size 1: CR4.PAE is 1",
               on(F::host_cr4).given(F::primary_vm_exit_controls),
               [](const E& e) { return !host64(e) || (e[F::host_cr4] & CR4::PAE); }},
    EntryCheck{"host.rip.canonical", address_space, "host address-space size 1: RIP is canonical",
               on(F::host_rip).given(F::primary_vm_exit_controls),
               [](const E& e) { return !host64(e) || e.canonical(e[F::host_rip]); }},
};

} // namespace

std::span<const EntryCheck> host_checks() { return checks; }

} // namespace exeunt
