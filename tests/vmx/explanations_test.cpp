// What explains a refused VM entry: the fields of each rule, the bits that it allows, and who is to blame.
// SDM 3C 26.2, 26.3.1.
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

TEST_CASE("VM-entry rules: where it can not be told which field is wrong, all of the rule's are named") {
    T t;
    t.off(secondary::unrestricted_guest);
    set_bits(t, selector(Seg::SS), 3);
    CHECK(wrong(t, "guest.ss.selector_rpl") == std::vector{selector(Seg::SS), selector(Seg::CS)});
}
