// Basic checks, PDPTEs and VM-entry MSR loading at their limits. SDM 3C 26.1, 26.3.1.6, 26.4. Evaluated by
// entry_checks_test.cpp.
#include "cpu/msrs.hpp"
#include "tests/vmx/entry_rules.hpp"

namespace exeunt::test::entry_rules {

namespace {

/// One entry to load: the low half of `index` is the MSR, the high half is reserved.
void load_msr(T& t, u64 index, u64 value = 0) {
    t.write(T::msr_area, index);
    t.write(T::msr_area + 8, value);
    t.set(F::vm_entry_msr_load_address, T::msr_area);
    t.set(F::vm_entry_msr_load_count, 1);
}

/// A guest with PAE paging whose page directory is at A000H.
constexpr u64 pdpt = 0x9000, pdpte = 0xA000 | 1;
void pae_guest(T& t, bool ept) {
    t.guest_mode(Mode::protected32);
    set_bits(t, F::guest_cr0, CR0::PG);
    t.set(F::guest_cr3, pdpt);
    if (!ept) {
        t.off(secondary::unrestricted_guest);
        t.off(secondary::enable_ept);
    }
}

void use_shadow_vmcs(T& t) {
    t.write(T::spare_region, t.vmx.capabilities().revision() | Vmcs::shadow_indicator, 4);
    t.write(T::data_address, T::spare_region);
    t.cpu.r[RAX] = T::data_address;
    t.step(code("0f c7 30", "vmptrld [rax]"));
}
void clear_vmcs(T& t) {
    t.write(T::data_address, T::vmcs_region);
    t.cpu.r[RAX] = T::data_address;
    t.step(code("66 0f c7 30", "vmclear [rax]"));
}

const RuleCase other_cases[] = {
    {"basic.current_vmcs", nothing, clear_vmcs},
    {"basic.shadow_vmcs", nothing, use_shadow_vmcs},
    {"basic.blocking_by_mov_ss", [](T& t) { t.cpu.set_shadow(Shadow::sti); },
     [](T& t) { t.cpu.set_shadow(Shadow::mov_ss); }},
    {"basic.launch_state_clear", [](T& t) { t.launching = true; },
     [](T& t) {
         t.launching = true;
         t.vmx.current()->set_launched();
     }},
    {"basic.launch_state_launched",
     [](T& t) {
         t.launching = false;
         t.vmx.current()->set_launched();
     },
     [](T& t) {
         clear_vmcs(t);
         t.step(code("0f c7 30", "vmptrld [rax]"));
     }},

    {"guest.pdptes.reserved_bits", // bits 11:9 are ignored, and so is an entry that is not present
     [](T& t) {
         pae_guest(t, false);
         t.write(pdpt, pdpte | 0xE18);
         t.write(pdpt + 8, ~u64{1});
     },
     [](T& t) { t.write(pdpt, pdpte | bit(5)); }},
    {"guest.pdptes.reserved_bits",
     [](T& t) {
         pae_guest(t, true);
         t.set(F::guest_pdpte0, pdpte | 0xE18);
         t.set(F::guest_pdpte3, ~u64{1});
     },
     [](T& t) { t.set(F::guest_pdpte3, 1 | width); }},

    {"msr_load.fs_gs_base", [](T& t) { load_msr(t, Msr::IA32_KERNEL_GS_BASE); },
     [](T& t) { load_msr(t, Msr::IA32_GS_BASE); }},
    {"msr_load.fs_gs_base", nothing, [](T& t) { load_msr(t, Msr::IA32_FS_BASE); }},
    {"msr_load.x2apic", nothing, [](T& t) { load_msr(t, 0x800); }},
    {"msr_load.x2apic", nothing, [](T& t) { load_msr(t, 0x8FF); }},
    {"msr_load.smm_only", nothing, [](T& t) { load_msr(t, 0x9B); }},
    {"msr_load.model_specific", nothing, [](T& t) { load_msr(t, Msr::IA32_BIOS_SIGN_ID); }},
    {"msr_load.bits_63_32", [](T& t) { load_msr(t, Msr::IA32_STAR); },
     [](T& t) { load_msr(t, Msr::IA32_STAR | bit(32)); }},
    {"msr_load.wrmsr", [](T& t) { load_msr(t, Msr::IA32_LSTAR, canonical_edge); },
     [](T& t) { load_msr(t, Msr::IA32_LSTAR, not_canonical); }},
};

} // namespace

std::span<const RuleCase> other_rule_cases() { return other_cases; }

} // namespace exeunt::test::entry_rules
