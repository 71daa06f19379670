// Every rule of VM entry at its boundary and one beyond. SDM 3C 26.2, 26.3.1.
#include "tests/vmx/entry_rules.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::entry_rules;

namespace {

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

/// Rows that this processor can not show broken without breaking an earlier one.
const std::set<std::string_view> unreachable = {
    "host.ss.not_null",                  // needs a 32-bit host
    "host.address_space.outside_ia_32e", // needs a 32-bit host
    "host.address_space.guest",          // host.address_space.in_ia_32e or outside_ia_32e comes first
    "host.cr4.pcide",                    // needs a 32-bit host
    "host.rip.bits_63_32",               // needs a 32-bit host
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

} // namespace

TEST_CASE(
    "VM entry: rules of the controls, at their limit and beyond: VM-instruction error 7 [SDM 3C 26.2.1]") {
    run_cases(control_cases, [](const char* id) { return refused_control(id); });
}

TEST_CASE("VM entry: rules of the host-state area: VM-instruction error 8 [SDM 3C 26.2.2 to 26.2.4]") {
    run_cases(host_cases, [](const char* id) { return refused_host(id); });
}

TEST_CASE("VM entry: rules of the guest-state area: exit reason 80000021H [SDM 3C 26.3.1]") {
    run_cases(guest_rule_cases(), [](const char* id) { return refused_guest(id, qualification_of(id)); });
}

TEST_CASE("VM entry: every rule has a case, and every case a rule") {
    std::set<std::string_view> tested = unreachable, rows;
    for (const auto cases : {std::span<const RuleCase>(control_cases), std::span<const RuleCase>(host_cases),
                             guest_rule_cases()})
        for (const RuleCase& c : cases) tested.insert(c.id);
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks) {
            CHECK_MESSAGE(rows.insert(check.id).second, check.id); // ids are unique
            CHECK_MESSAGE(tested.contains(check.id), check.id);
        }
    for (const std::string_view id : tested) CHECK_MESSAGE(rows.contains(id), id);
}

TEST_CASE("VM entry: a rule that held is evaluated again when an input of it changes") {
    for (const auto cases : {std::span<const RuleCase>(control_cases), std::span<const RuleCase>(host_cases),
                             guest_rule_cases()})
        for (const RuleCase& c : cases) {
            const std::string id = c.id;
            CAPTURE(id);
            T t(c.model);
            t.run_guest(
                1000); // a first entry passes all; the zeros at RIP or the handler of their fault halt
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
        for (const u64 event :
             {u64{0}, valid_event | 0x40, valid_event | 2 << 8 | 2, valid_event | 3 << 8 | 6}) {
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
