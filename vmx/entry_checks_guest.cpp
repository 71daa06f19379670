// Checks on guest registers and non-register state. SDM 3C 26.3.1.1 "Checks on Guest Control Registers, Debug
// Registers, and MSRs", 26.3.1.4 "Checks on Guest RIP and RFLAGS", 26.3.1.5 "Checks on Guest Non-Register
// State". Segment and descriptor-table registers: entry_checks_guest_segments.cpp. PDPTEs: entry.cpp.
#include "vmx/entry_checks.hpp"

#include "arch/registers.hpp"

#include <array>

namespace exeunt {

namespace {

using E = EntryContext;
using F = VmcsField;

constexpr std::string_view registers = "SDM 3C 26.3.1.1", rip = "SDM 3C 26.3.1.4",
                           non_register = "SDM 3C 26.3.1.5";

bool loads_debug(const E& e) { return e.vm_entry & vm_entry::load_debug_controls; }
bool loads_efer(const E& e) { return e.vm_entry & vm_entry::load_ia32_efer; }
bool obeys(u64 value, u64 fixed0, u64 fixed1) { return (value & fixed0) == fixed0 && (value & ~fixed1) == 0; }

AllowedBits allowed_cr0(const E& e) {
    const u64 free = e.unrestricted() ? CR0::PE | CR0::PG : 0;
    return {e.caps.cr0_fixed0() & ~free, e.caps.cr0_fixed1()};
}
AllowedBits allowed_debugctl(const E& e) { return {0, e.caps.debugctl_bits()}; }
AllowedBits allowed_rflags(const E&) { return {bit(1), low_mask(22) & ~(bit(15) | bit(5) | bit(3))}; }

constexpr std::array register_rows{
    EntryCheck{
        "guest.cr0.fixed_bits", registers,
        "CR0 as IA32_VMX_CR0_FIXED0 and FIXED1 say (CD and NW are free, with unrestricted guest PE and PG)",
        on(F::guest_cr0).given(F::secondary_processor_based_vm_execution_controls).bits(allowed_cr0),
        [](const E& e) {
            const u64 free = e.unrestricted() ? CR0::PE | CR0::PG : 0;
            return obeys(e.cr0, e.caps.cr0_fixed0() & ~free, e.caps.cr0_fixed1());
        }},
    EntryCheck{"guest.cr0.pg_needs_pe", registers, "CR0.PG = 1 needs CR0.PE = 1", on(F::guest_cr0),
               [](const E& e) { return !(e.cr0 & CR0::PG) || (e.cr0 & CR0::PE); }},
    EntryCheck{"guest.cr4.fixed_bits", registers, "CR4 as IA32_VMX_CR4_FIXED0 and FIXED1 say",
               on(F::guest_cr4).bits(allowed::cr4),
               [](const E& e) { return obeys(e[F::guest_cr4], e.caps.cr4_fixed0(), e.caps.cr4_fixed1()); }},
    EntryCheck{"guest.debugctl.reserved_bits", registers,
               "load debug controls: reserved bits of IA32_DEBUGCTL are 0",
               on(F::guest_ia32_debugctl).given(F::vm_entry_controls).bits(allowed_debugctl),
               [](const E& e) {
                   return !loads_debug(e) || (e[F::guest_ia32_debugctl] & ~e.caps.debugctl_bits()) == 0;
               }},
    EntryCheck{
        "guest.ia_32e.pg_pae", registers, "IA-32e mode guest: CR0.PG and CR4.PAE are 1",
        on(F::guest_cr0, F::guest_cr4).given(F::vm_entry_controls),
        [](const E& e) { return !e.ia_32e_guest() || ((e.cr0 & CR0::PG) && (e[F::guest_cr4] & CR4::PAE)); }},
    EntryCheck{"guest.cr4.pcide", registers, "outside IA-32e mode CR4.PCIDE is 0",
               on(F::guest_cr4).given(F::vm_entry_controls).bits(allowed::clear<17, 17>),
               [](const E& e) { return e.ia_32e_guest() || !(e[F::guest_cr4] & CR4::PCIDE); }},
    EntryCheck{"guest.cr3.width", registers, "CR3 bits 63:MAXPHYADDR are 0",
               on(F::guest_cr3).bits(allowed::physical),
               [](const E& e) { return e.within_physical_width(e[F::guest_cr3]); }},
    EntryCheck{"guest.dr7.bits_63_32", registers, "load debug controls: DR7 bits 63:32 are 0",
               on(F::guest_dr7).given(F::vm_entry_controls).bits(allowed::low<32>),
               [](const E& e) { return !loads_debug(e) || high32(e[F::guest_dr7]) == 0; }},
    EntryCheck{"guest.sysenter.canonical", registers, "IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical",
               on(F::guest_ia32_sysenter_esp, F::guest_ia32_sysenter_eip),
               [](const E& e) {
                   return e.canonical({F::guest_ia32_sysenter_esp, F::guest_ia32_sysenter_eip});
               }},
    EntryCheck{"guest.perf_global_ctrl", registers, "load IA32_PERF_GLOBAL_CTRL: reserved bits are 0",
               on(F::guest_ia32_perf_global_ctrl).given(F::vm_entry_controls).bits(allowed::perf_global_ctrl),
               [](const E& e) {
                   return !(e.vm_entry & vm_entry::load_ia32_perf_global_ctrl) ||
                          allowed::perf_global_ctrl(e).allow(e[F::guest_ia32_perf_global_ctrl]);
               }},
    EntryCheck{"guest.pat", registers, "load IA32_PAT: each byte is 0, 1, 4, 5, 6 or 7",
               on(F::guest_ia32_pat).given(F::vm_entry_controls),
               [](const E& e) {
                   return !(e.vm_entry & vm_entry::load_ia32_pat) || valid_pat(e[F::guest_ia32_pat]);
               }},
    EntryCheck{
        "guest.efer.reserved_bits", registers, "load IA32_EFER: reserved bits are 0",
        on(F::guest_ia32_efer).given(F::vm_entry_controls).bits(allowed::efer),
        [](const E& e) { return !loads_efer(e) || (e[F::guest_ia32_efer] & ~e.caps.efer_bits()) == 0; }},
    EntryCheck{"guest.efer.lma", registers, "load IA32_EFER: LMA is IA-32e mode guest",
               on(F::guest_ia32_efer).given(F::vm_entry_controls),
               [](const E& e) {
                   return !loads_efer(e) || ((e[F::guest_ia32_efer] & EFER::LMA) != 0) == e.ia_32e_guest();
               }},
    EntryCheck{"guest.efer.lme", registers, "load IA32_EFER with CR0.PG = 1: LME is LMA",
               on(F::guest_ia32_efer).given(F::guest_cr0, F::vm_entry_controls),
               [](const E& e) {
                   const u64 efer = e[F::guest_ia32_efer];
                   return !loads_efer(e) || !(e.cr0 & CR0::PG) ||
                          ((efer & EFER::LMA) != 0) == ((efer & EFER::LME) != 0);
               }},
    EntryCheck{
        "guest.pkrs", registers, "load PKRS: bits 63:32 are 0",
        on(F::guest_ia32_pkrs).given(F::vm_entry_controls).bits(allowed::low<32>),
        [](const E& e) { return !(e.vm_entry & vm_entry::load_pkrs) || high32(e[F::guest_ia32_pkrs]) == 0; }},
};

constexpr std::array rip_rows{
    EntryCheck{"guest.rip.bits_63_32", rip, "outside 64-bit mode RIP bits 63:32 are 0",
               on(F::guest_rip).given(F::vm_entry_controls, F::guest_cs_access_rights).bits(allowed::low<32>),
               [](const E& e) {
                   return (e.ia_32e_guest() && (e[F::guest_cs_access_rights] & bit(13))) ||
                          high32(e[F::guest_rip]) == 0;
               }},
    EntryCheck{"guest.rip.bits_63_n", rip,
               "in 64-bit mode RIP bits 63:N are identical, N the linear-address width",
               on(F::guest_rip).given(F::vm_entry_controls, F::guest_cs_access_rights),
               [](const E& e) {
                   if (!e.ia_32e_guest() || !(e[F::guest_cs_access_rights] & bit(13))) return true;
                   const u64 top = e[F::guest_rip] >> e.caps.linear_bits();
                   return top == 0 || top == ~u64{0} >> e.caps.linear_bits();
               }},
    EntryCheck{"guest.rflags.reserved_bits", rip, "RFLAGS bits 63:22, 15, 5 and 3 are 0 and bit 1 is 1",
               on(F::guest_rflags).bits(allowed_rflags),
               [](const E& e) {
                   return (e.rflags & (~low_mask(22) | bit(15) | bit(5) | bit(3) | bit(1))) == bit(1);
               }},
    EntryCheck{"guest.rflags.vm", rip, "RFLAGS.VM is 0 in IA-32e mode and with CR0.PE = 0",
               on(F::guest_rflags).given(F::vm_entry_controls, F::guest_cr0),
               [](const E& e) { return !e.v8086() || (!e.ia_32e_guest() && (e.cr0 & CR0::PE)); }},
    EntryCheck{"guest.rflags.if", rip, "injecting an external interrupt needs RFLAGS.IF = 1",
               on(F::guest_rflags).given(F::vm_entry_interruption_information),
               [](const E& e) { return !e.injects() || e.event_type() != 0 || (e.rflags & RFLAGS::IF); }},
};

enum Activity : u64 { active, hlt, shutdown, wait_for_sipi };
constexpr u64 by_sti = bit(0), by_mov_ss = bit(1), by_smi = bit(2), by_nmi = bit(3), enclave = bit(4);
constexpr u64 pending_rtm = bit(16), pending_bs = bit(14);

u64 blocking(const E& e) { return e[F::guest_interruptibility_state]; }
bool links(const E& e) { return e[F::vmcs_link_pointer] != ~u64{0}; }
bool single_steps(const E& e) { return (e.rflags & RFLAGS::TF) && !(e[F::guest_ia32_debugctl] & bit(1)); }
bool holds_debug_trap(const E& e) {
    return (blocking(e) & (by_sti | by_mov_ss)) || e[F::guest_activity_state] == hlt;
}

/// B3 to B0, enabled breakpoint, BS and RTM.
AllowedBits allowed_pending_debug(const E&) { return {0, low_mask(4) | bit(12) | pending_bs | pending_rtm}; }

constexpr std::array non_register_rows{
    EntryCheck{"guest.activity.supported", non_register,
               "the activity state is one that IA32_VMX_MISC supports", on(F::guest_activity_state),
               [](const E& e) {
                   const u64 state = e[F::guest_activity_state];
                   return state == active || (state <= wait_for_sipi && (e.caps.misc() >> (5 + state) & 1));
               }},
    EntryCheck{"guest.activity.hlt_dpl", non_register, "HLT needs SS.DPL = 0",
               on(F::guest_activity_state).given(F::guest_ss_access_rights),
               [](const E& e) {
                   return e[F::guest_activity_state] != hlt ||
                          extract(e[F::guest_ss_access_rights], 6, 5) == 0;
               }},
    EntryCheck{"guest.activity.blocking", non_register, "blocking by STI or MOV SS needs the active state",
               on(F::guest_activity_state).given(F::guest_interruptibility_state),
               [](const E& e) {
                   return !(blocking(e) & (by_sti | by_mov_ss)) || e[F::guest_activity_state] == active;
               }},
    EntryCheck{"guest.activity.hlt_event", non_register,
               "in HLT only interrupts, NMIs, #DB, #MC and pending MTF VM exits are injected",
               on(F::vm_entry_interruption_information).given(F::guest_activity_state),
               [](const E& e) {
                   if (!e.injects() || e[F::guest_activity_state] != hlt) return true;
                   const unsigned type = e.event_type(), vector = e.event_vector();
                   return type == 0 || type == 2 || (type == 3 && (vector == 1 || vector == 18)) ||
                          (type == 7 && vector == 0);
               }},
    EntryCheck{"guest.activity.shutdown_event", non_register, "in shutdown only NMIs and #MC are injected",
               on(F::vm_entry_interruption_information).given(F::guest_activity_state),
               [](const E& e) {
                   if (!e.injects() || e[F::guest_activity_state] != shutdown) return true;
                   return e.event_type() == 2 || (e.event_type() == 3 && e.event_vector() == 18);
               }},
    EntryCheck{"guest.activity.sipi_event", non_register, "in wait-for-SIPI nothing is injected",
               on(F::vm_entry_interruption_information).given(F::guest_activity_state),
               [](const E& e) { return !e.injects() || e[F::guest_activity_state] != wait_for_sipi; }},
    EntryCheck{"guest.interruptibility.reserved_bits", non_register, "interruptibility bits 31:5 are 0",
               on(F::guest_interruptibility_state).bits(allowed::low<5>),
               [](const E& e) { return (blocking(e) >> 5) == 0; }},
    EntryCheck{"guest.interruptibility.sti_and_mov_ss", non_register, "not blocking by both STI and MOV SS",
               on(F::guest_interruptibility_state),
               [](const E& e) { return (blocking(e) & (by_sti | by_mov_ss)) != (by_sti | by_mov_ss); }},
    EntryCheck{"guest.interruptibility.sti_if", non_register, "blocking by STI needs RFLAGS.IF = 1",
               on(F::guest_interruptibility_state).given(F::guest_rflags),
               [](const E& e) { return !(blocking(e) & by_sti) || (e.rflags & RFLAGS::IF); }},
    EntryCheck{"guest.interruptibility.interrupt", non_register,
               "injecting an external interrupt: no blocking by STI or MOV SS",
               on(F::guest_interruptibility_state).given(F::vm_entry_interruption_information),
               [](const E& e) {
                   return !e.injects() || e.event_type() != 0 || !(blocking(e) & (by_sti | by_mov_ss));
               }},
    EntryCheck{"guest.interruptibility.nmi_mov_ss", non_register, "injecting an NMI: no blocking by MOV SS",
               on(F::guest_interruptibility_state).given(F::vm_entry_interruption_information),
               [](const E& e) { return !e.injects() || e.event_type() != 2 || !(blocking(e) & by_mov_ss); }},
    // 26.3.1.5 leaves this one to the implementation; the stricter processors have it, with a qualification
    // of 3.
    EntryCheck{"guest.interruptibility.nmi_sti", non_register, "injecting an NMI: no blocking by STI",
               on(F::guest_interruptibility_state).given(F::vm_entry_interruption_information),
               [](const E& e) { return !e.injects() || e.event_type() != 2 || !(blocking(e) & by_sti); }, 3},
    EntryCheck{"guest.interruptibility.smi", non_register, "outside SMM no blocking by SMI",
               on(F::guest_interruptibility_state),
               [](const E& e) { return e.in_smm || !(blocking(e) & by_smi); }},
    EntryCheck{"guest.interruptibility.nmi_nmi", non_register,
               "injecting an NMI with virtual NMIs: no blocking by NMI",
               on(F::guest_interruptibility_state)
                   .given(F::vm_entry_interruption_information, F::pin_based_vm_execution_controls),
               [](const E& e) {
                   return !(e.pin_based & pin_based::virtual_nmis) || !e.injects() || e.event_type() != 2 ||
                          !(blocking(e) & by_nmi);
               }},
    EntryCheck{"guest.interruptibility.enclave", non_register, "enclave interruption needs SGX",
               on(F::guest_interruptibility_state).bits(allowed::clear<4, 4>),
               [](const E& e) { return !(blocking(e) & enclave); }},
    EntryCheck{"guest.pending_debug.reserved_bits", non_register,
               "pending debug exceptions: bits 11:4, 13, 15 and 63:17 are 0",
               on(F::guest_pending_debug_exceptions).bits(allowed_pending_debug),
               [](const E& e) {
                   const u64 reserved = extract(~u64{0}, 11, 4) << 4 | bit(13) | bit(15) | ~low_mask(17);
                   return (e[F::guest_pending_debug_exceptions] & reserved) == 0;
               }},
    EntryCheck{"guest.pending_debug.bs_set", non_register,
               "blocking by STI or MOV SS, or HLT, with TF = 1 and BTF = 0: BS is 1",
               on(F::guest_pending_debug_exceptions)
                   .given(F::guest_interruptibility_state, F::guest_activity_state, F::guest_rflags,
                          F::guest_ia32_debugctl),
               [](const E& e) {
                   return !holds_debug_trap(e) || !single_steps(e) ||
                          (e[F::guest_pending_debug_exceptions] & pending_bs);
               }},
    EntryCheck{"guest.pending_debug.bs_clear", non_register,
               "blocking by STI or MOV SS, or HLT, with TF = 0 or BTF = 1: BS is 0",
               on(F::guest_pending_debug_exceptions)
                   .given(F::guest_interruptibility_state, F::guest_activity_state, F::guest_rflags,
                          F::guest_ia32_debugctl),
               [](const E& e) {
                   return !holds_debug_trap(e) || single_steps(e) ||
                          !(e[F::guest_pending_debug_exceptions] & pending_bs);
               }},
    EntryCheck{"guest.pending_debug.rtm", non_register, "pending debug exceptions: RTM needs RTM",
               on(F::guest_pending_debug_exceptions).bits(allowed::clear<16, 16>),
               [](const E& e) { return !(e[F::guest_pending_debug_exceptions] & pending_rtm); }},
    EntryCheck{"guest.link_pointer.bits_11_0", non_register, "VMCS link pointer: bits 11:0 are 0",
               on(F::vmcs_link_pointer).bits(allowed::page_aligned),
               [](const E& e) { return !links(e) || (e[F::vmcs_link_pointer] & 0xFFF) == 0; }, 4},
    EntryCheck{"guest.link_pointer.width", non_register, "VMCS link pointer: within MAXPHYADDR",
               on(F::vmcs_link_pointer).bits(allowed::physical),
               [](const E& e) { return !links(e) || e.within_physical_width(e[F::vmcs_link_pointer]); }, 4},
    EntryCheck{"guest.link_pointer.revision", non_register,
               "VMCS link pointer: revision identifier, and bit 31 is VMCS shadowing",
               on(F::vmcs_link_pointer).given(F::secondary_processor_based_vm_execution_controls).in_memory(),
               [](const E& e) {
                   if (!links(e)) return true;
                   const u64 expected =
                       e.caps.revision() |
                       (e.secondary & secondary::vmcs_shadowing ? Vmcs::shadow_indicator : 0);
                   return e.memory.load<u32>(Physical{e[F::vmcs_link_pointer]}) == expected;
               },
               4},
    EntryCheck{"guest.link_pointer.not_current", non_register, "VMCS link pointer: not the current VMCS",
               on(F::vmcs_link_pointer),
               [](const E& e) { return !links(e) || Physical{e[F::vmcs_link_pointer]} != e.vmcs.pointer(); },
               4},
};

} // namespace

bool usual_non_register_state(const EntryContext& e) {
    return e[F::guest_activity_state] == active && (blocking(e) & ~by_nmi) == 0 &&
           e[F::guest_pending_debug_exceptions] == 0 && !links(e) &&
           !(e.injects() && e.event_type() == 2 && blocking(e) != 0);
}

std::span<const EntryCheck> guest_register_checks() { return register_rows; }
std::span<const EntryCheck> guest_rip_checks() { return rip_rows; }
std::span<const EntryCheck> guest_non_register_checks() { return non_register_rows; }

} // namespace exeunt
