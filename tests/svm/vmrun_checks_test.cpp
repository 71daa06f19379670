// Illegal guest state: every rule refuses VMRUN with its own id, and nothing else does. APM 2 15.5.1.
#include "tests/support/svm_harness.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;

struct Case {
    const char* id; ///< "": legal
    void (*change)(T&);
};

const Case cases[] = {
    {"", [](T&) {}},
    {"VMRUN-001", [](T& t) { t.set(VMCB::efer, t.get(VMCB::efer) & ~EFER::SVME); }},
    {"VMRUN-002", [](T& t) { t.set(VMCB::cr0, t.get(VMCB::cr0) | CR0::NW); }},
    {"", [](T& t) { t.set(VMCB::cr0, t.get(VMCB::cr0) | CR0::NW | CR0::CD); }},
    {"VMRUN-003", [](T& t) { t.set(VMCB::cr0, t.get(VMCB::cr0) | bit(32)); }},
    {"VMRUN-004", [](T& t) { t.set(VMCB::cr3, t.get(VMCB::cr3) | bit(52)); }},
    {"VMRUN-005", [](T& t) { t.set(VMCB::cr4, t.get(VMCB::cr4) | bit(13)); }},
    {"VMRUN-032", [](T& t) { t.set(VMCB::cr4, t.get(VMCB::cr4) | bit(40)); }},
    {"VMRUN-006", [](T& t) { t.set(VMCB::dr6, bit(32)); }},
    {"VMRUN-007", [](T& t) { t.set(VMCB::dr7, bit(63)); }},
    {"VMRUN-008", [](T& t) { t.set(VMCB::efer, t.get(VMCB::efer) | bit(1)); }},
    {"VMRUN-010", [](T& t) { t.set(VMCB::cr4, t.get(VMCB::cr4) & ~CR4::PAE); }},
    {"VMRUN-011", [](T& t) { t.set(VMCB::cr0, t.get(VMCB::cr0) & ~CR0::PE); }},
    {"VMRUN-012", [](T& t) { t.set(VMCB::cs_attrib, t.get(VMCB::cs_attrib) | 0x600); }},
    {"VMRUN-013", [](T& t) { t.intercept(ExitCode::VMRUN, false); }},
    {"VMRUN-014", [](T& t) { t.set(VMCB::iopm_base_pa, low_mask(48) - 0x1FFF); }},
    {"", [](T& t) { t.set(VMCB::iopm_base_pa, low_mask(48) - 0x2FFF); }},
    {"VMRUN-014", [](T& t) { t.set(VMCB::iopm_base_pa, ~u64{0}); }}, // the map would wrap around
    {"VMRUN-015", [](T& t) { t.set(VMCB::msrpm_base_pa, low_mask(48) - 0xFFF); }},
    {"", [](T& t) { t.set(VMCB::msrpm_base_pa, low_mask(48) - 0x1FFF); }},
    {"VMRUN-016", [](T& t) { t.set(VMCB::eventinj, bit(31) | 1 << 8); }},
    {"VMRUN-016", [](T& t) { t.set(VMCB::eventinj, bit(31) | 5 << 8); }},
    {"VMRUN-016", [](T& t) { t.set(VMCB::eventinj, bit(31) | 3 << 8 | 2); }},
    {"VMRUN-016", [](T& t) { t.set(VMCB::eventinj, bit(31) | 3 << 8 | 32); }},
    {"VMRUN-016", [](T& t) { t.set(VMCB::eventinj, bit(31) | 3 << 8 | 5); }}, // #BR in 64-bit mode
    {"", [](T& t) { t.set(VMCB::eventinj, 3 << 8 | 2); }},                    // not valid
    {"VMRUN-017", [](T& t) { t.set(VMCB::guest_asid, 0); }},
    {"VMRUN-022", [](T& t) { t.use_npt(), t.set(VMCB::n_cr3, T::nested_tables | bit(50)); }},
    {"", [](T& t) { t.set(VMCB::n_cr3, bit(50)); }}, // nested paging is off
    {"VMRUN-023", [](T& t) { t.use_npt(), t.set(VMCB::g_pat, 2); }},
    {"VMRUN-023", [](T& t) { t.use_npt(), t.set(VMCB::g_pat, bit(11)); }},
    {"", [](T& t) { t.set(VMCB::g_pat, 2); }},
    {"VMRUN-025", [](T& t) { t.set(VMCB::interrupt_control, VMCB::INT::V_NMI_ENABLE); }},
    {"",
     [](T& t) {
         t.set(VMCB::interrupt_control, VMCB::INT::V_NMI_ENABLE);
         t.intercept(ExitCode::NMI);
     }},
    {"VMRUN-026", [](T& t) { t.set(VMCB::interrupt_control, VMCB::INT::X2AVIC_ENABLE); }},
    {"", [](T& t) { t.use_avic(); }},
    {"VMRUN-027", [](T& t) { t.use_avic(), t.set(VMCB::avic_physical_table, T::physical_table | 0x100); }},
    {"",
     [](T& t) {
         t.use_avic(true), t.set(VMCB::avic_physical_table, T::physical_table | 0xFFF);
     }}, // x2AVIC_EXT
    {"VMRUN-029", [](T& t) { t.use_avic(), t.set(VMCB::avic_physical_table, bit(48)); }},
    {"VMRUN-029", [](T& t) { t.use_avic(), t.set(VMCB::avic_logical_table, bit(50)); }},
    {"VMRUN-029", [](T& t) { t.use_avic(), t.set(VMCB::avic_backing_page, T::backing_page + 0x10); }},
    {"", [](T& t) { t.use_avic(true), t.set(VMCB::avic_logical_table, bit(50)); }}, // not used
    {"VMRUN-034", [](T& t) { t.use_avic(), t.set(VMCB::nested_control, 0); }},
    {"VMRUN-024",
     [](T& t) {
         t.set(VMCB::efer, EFER::SVME);
         t.set(VMCB::cr3, 0x5'0000);
         t.write(0x5'0000, 3);
     }},
    {"VMRUN-013 VMRUN-017",
     [](T& t) {
         t.intercept(ExitCode::VMRUN, false);
         t.set(VMCB::guest_asid, 0);
     }},
};

} // namespace

TEST_CASE("VMRUN: every illegal state is refused by its rule, with EXITCODE -1 and GIF 0 [APM 2 15.5.1]") {
    std::set<std::string> seen;
    for (const Case& c : cases) {
        T t;
        c.change(t);
        const std::string wanted = c.id;
        CAPTURE(wanted);
        CHECK(t.enter() == wanted);
        if (wanted.empty()) continue;
        seen.insert(wanted);
        CHECK(t.exitcode() == ~u64{0});
        CHECK(t.cpu.rip == T::vmrun_address + 3);
        CHECK(!t.svm.gif());
        CHECK(t.witness.failures == 1);
        CHECK(t.witness.failure.svm);
        CHECK(t.witness.failure.check == wanted.substr(0, 9));
        CHECK(t.guest_rip() == T::code_address);
    }
    // These need another processor or host: see below; 009 one without long mode.
    for (const char* id : {"VMRUN-009", "VMRUN-021", "VMRUN-028", "VMRUN-033"}) seen.insert(id);
    for (const VmrunCheck& check : vmrun_checks())
        CHECK_MESSAGE(seen.contains(std::string(check.id)), check.id);
}

TEST_CASE("VMRUN: AVIC on processors that lack it or its extension [APM 2 15.29.2]") {
    CpuModel without = svm_model();
    without.features.set(Feature::x2AVIC_EXT, false);
    T table(without);
    table.use_avic(true);
    CHECK(table.enter().empty());
    table.cpu.in_guest = false;
    T large(without);
    large.use_avic(true);
    large.set(VMCB::avic_physical_table, T::physical_table | 0x200);
    CHECK(large.enter() == "VMRUN-028");
    without.features.set(Feature::x2AVIC, false);
    T x2(without);
    x2.use_avic(true);
    CHECK(x2.enter() == "VMRUN-033");
    without.features.set(Feature::AVIC, false);
    T x(without);
    x.use_avic();
    CHECK(x.enter() == "VMRUN-033");
}

TEST_CASE("VMRUN: nested paging needs a host that pages [APM 2 15.25.3 \"Enabling Nested Paging\"]") {
    T t;
    t.use_npt();
    t.cpu.control.cr0 &= ~CR0::PG;
    t.cpu.control.efer &= ~(EFER::LMA | EFER::LME);
    t.cpu.seg(Seg::CS).access = (t.cpu.seg(Seg::CS).access & ~AR::L) | AR::DB;
    t.cpu.context_changed(true);
    t.cpu.mode_changed();
    CHECK(t.enter() == "VMRUN-021");
}

TEST_CASE(
    "VMRUN: each rule names the VMCB fields that it is about, and the bits that it allows [APM 2 15.5.1]") {
    const T t;
    for (const VmrunCheck& check : vmrun_checks()) {
        CAPTURE(std::string(check.id));
        CHECK(find_vmrun_check(check.id) == &check);
        CHECK(!check.fields.restricted.all().empty());
        for (const u16 offset : check.fields.restricted.all()) CHECK(VMCB::find_field(offset) != nullptr);
        for (const u16 offset : check.fields.depends.all()) CHECK(VMCB::find_field(offset) != nullptr);
    }
    CHECK(find_vmrun_check(vmrun_pdpte_check.id) == &vmrun_pdpte_check);
    CHECK(find_vmrun_check("VMRUN-999") == nullptr);
}
