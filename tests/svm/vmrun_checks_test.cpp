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
    // Not reachable here: 009 needs a processor without long mode, 021 a host without paging.
    seen.insert("VMRUN-009");
    seen.insert("VMRUN-021");
    for (const VmrunCheck& check : vmrun_checks())
        CHECK_MESSAGE(seen.contains(std::string(check.id)), check.id);
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

TEST_CASE("VMRUN: each rule names the VMCB fields that it is about, and the bits that it allows [APM 2 15.5.1]") {
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
