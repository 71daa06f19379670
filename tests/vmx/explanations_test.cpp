// What explains a refused VM entry: the fields of each rule, the bits that it allows, and who is to blame.
// SDM 3C 26.2, 26.3.1.
#include "tests/support/code.hpp"
#include "tests/vmx/entry_rules.hpp"
#include "vmx/entry_checks.hpp"

#include <doctest/doctest.h>
#include <set>
#include <string>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::entry_rules;

namespace {

std::vector<Violation> violations_of(T& t) {
    return violated_rules({*t.vmx.current(), t.vmx.capabilities(), t.memory, t.cpu.long_mode_active()});
}

std::vector<F> wrong(T& t, std::string_view id) {
    for (const Violation& v : violations_of(t))
        if (v.check->id == id) return v.fields;
    return {};
}

} // namespace

TEST_CASE("VM-entry rules: each names the fields that it restricts, which exist") {
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks) {
            CAPTURE(std::string(check.id));
            const FieldList& restricted = check.fields.restricted;
            CHECK(restricted.begin() != restricted.end());
            for (const F field : check.fields.depends) CHECK(!restricted.contains(field));
            CHECK(find_entry_check(check.id) == &check);
        }
    for (const EntryCheck& check : explained_checks()) CHECK(find_entry_check(check.id) == &check);
    CHECK(find_entry_check("guest.no_such_rule") == nullptr);
}

TEST_CASE("VM-entry rules: a rule about bits is broken when a field of it has others, and only then") {
    for (const RuleCase& c : guest_rule_cases()) {
        const EntryCheck& check = *find_entry_check(c.id);
        if (!check.fields.allowed) continue;
        CAPTURE(std::string(check.id));
        T t(c.model);
        c.holds(t);
        c.broken(t);
        const EntryContext context(*t.vmx.current(), t.vmx.capabilities(), t.memory, true);
        REQUIRE(!check.holds(context));
        for (const F field : wrong_fields(check, context))
            CHECK(!check.fields.allowed(context).allow(context[field]));
    }
}

TEST_CASE("VM-entry rules: of several segments the wrong ones are named") {
    T t;
    clear_bits(t, access(Seg::DS), AR::P);
    clear_bits(t, access(Seg::GS), AR::P);
    CHECK(wrong(t, "guest.segments.p") == std::vector{access(Seg::DS), access(Seg::GS)});
    t.set(base(Seg::GS), not_canonical);
    CHECK(wrong(t, "guest.bases.canonical") == std::vector{base(Seg::GS)});
    t.set(F::host_tr_base, not_canonical);
    t.set(F::host_fs_selector, 4);
    CHECK(wrong(t, "host.bases.canonical") == std::vector{F::host_tr_base});
    CHECK(wrong(t, "host.selectors.rpl_ti") == std::vector{F::host_fs_selector});
}

namespace {

/// Keeps the violations of the last entry failure.
struct Violations final : Observer {
    void vm_entry_failure(unsigned, u64, const EntryFailureRecord& record) override {
        all.assign(record.violations.begin(), record.violations.end());
    }
    std::vector<RuleViolation> all;
};

} // namespace

TEST_CASE("VM-entry failure: observers get every violated rule, with value, allowed bits and last writer") {
    T t;
    Violations seen;
    t.cpu.observer = &seen;
    t.on(vm_entry::load_debug_controls);
    t.vmx.current()->write(F::guest_dr7, u64{1} << 32, {0x1234, 55, 0});
    set_bits(t, F::host_cr3, width);
    CHECK(!t.enter().entered);
    REQUIRE(seen.all.size() == 2);
    CHECK(seen.all[0].rule == "host.cr3.width");
    CHECK(seen.all[0].field == row_of(F::host_cr3).encoding);
    CHECK(seen.all[0].allowed.may == width - 1);
    CHECK(seen.all[1].rule == "guest.dr7.bits_63_32");
    CHECK(seen.all[1].value == u64{1} << 32);
    CHECK(seen.all[1].writer.kind == WrittenBy::Kind::software);
    CHECK(seen.all[1].writer.rip == 0x1234);
    CHECK(seen.all[1].writer.tick == 55);
}

TEST_CASE(
    "Last writers: what a VM exit saved is the processor's, what VMWRITE wrote after it is software's") {
    T t;
    t.guest(code("f4", "hlt"));
    REQUIRE(t.in_host());
    const Vmcs& vmcs = *t.vmx.current();
    const WrittenBy saved = vmcs.writer(F::guest_rip);
    CHECK(saved.kind == WrittenBy::Kind::processor);
    CHECK(saved.rip == vmcs[F::guest_rip]);
    CHECK(vmcs.writer(F::host_rip).kind != WrittenBy::Kind::processor);
    t.vmx.current()->write(F::guest_rip, 0x1000, {0x77, saved.tick + 1, 0});
    CHECK(t.vmx.current()->writer(F::guest_rip).kind == WrittenBy::Kind::software);
    CHECK(t.vmx.current()->writer(F::guest_rip).rip == 0x77);
}

TEST_CASE("Last writers: VMCLEAR and migration to another processor do not forget them") {
    T t;
    const auto provenance = std::make_shared<VmcsProvenance>();
    ActiveVmcss here(t.memory, provenance), there(t.memory, provenance);
    here.activate(Physical{T::spare_region}, nullptr).write(F::host_cr3, 0x5000, {0x1234, 55, 2});
    here.clear(Physical{T::spare_region});
    const WrittenBy writer = there.activate(Physical{T::spare_region}, nullptr).writer(F::host_cr3);
    CHECK(writer.kind == WrittenBy::Kind::software);
    CHECK(writer.rip == 0x1234);
    CHECK(writer.tick == 55);
    CHECK(writer.cpu == 2);
}

TEST_CASE("VM-entry rules: where it can not be told which field is wrong, all of the rule's are named") {
    T t;
    t.off(secondary::unrestricted_guest);
    set_bits(t, selector(Seg::SS), 3);
    CHECK(wrong(t, "guest.ss.selector_rpl") == std::vector{selector(Seg::SS), selector(Seg::CS)});
}
