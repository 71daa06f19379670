// Every rule of VM entry at its boundary and one beyond. SDM 3C 26.1, 26.2, 26.3.1, 26.4.
#include "tests/vmx/entry_rules.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::entry_rules;

namespace exeunt::test::entry_rules {

EntryOutcome refused_by(std::string_view id) {
    const std::string check(id);
    if (id.starts_with("controls.")) return refused_control(check);
    if (id.starts_with("host.")) return refused_host(check);
    if (id.starts_with("msr_load."))
        return {.reason = 34 | exit_reason_entry_failure, .qualification = 1, .check = check};
    if (id == "basic.blocking_by_mov_ss") return {.instruction_error = 26, .check = check};
    if (id == "basic.launch_state_clear") return {.instruction_error = 4, .check = check};
    if (id == "basic.launch_state_launched") return {.instruction_error = 5, .check = check};
    if (id.starts_with("basic.")) return {.fail_invalid = true, .check = check};
    if (id == "guest.pdptes.reserved_bits") return refused_guest(check, 2);
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& row : set.checks)
            if (row.id == id) return refused_guest(check, row.qualification);
    return {};
}

void run_case(const RuleCase& c) {
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
    CHECK(t.enter() == refused_by(c.outranked_by ? c.outranked_by : c.id));
    CHECK(!t.cpu.in_guest);
    if (!c.outranked_by) return;
    const EntryContext context(*t.vmx.current(), t.vmx.capabilities(), t.memory, t.cpu.long_mode_active());
    const auto violations = violated_rules(context);
    CHECK(std::any_of(violations.begin(), violations.end(),
                      [&](const Violation& v) { return v.check->id == id; }));
}

} // namespace exeunt::test::entry_rules

namespace {

const auto all_cases = {control_rule_cases, host_rule_cases, guest_rule_cases, other_rule_cases};

void run_cases(std::span<const RuleCase> cases) {
    for (const RuleCase& c : cases) run_case(c);
}

} // namespace

TEST_CASE(
    "VM entry: rules of the controls, at their limit and beyond: VM-instruction error 7 [SDM 3C 26.2.1]") {
    run_cases(control_rule_cases());
}

TEST_CASE("VM entry: rules of the host-state area: VM-instruction error 8 [SDM 3C 26.2.2 to 26.2.4]") {
    run_cases(host_rule_cases());
}

TEST_CASE("VM entry: rules of the guest-state area: exit reason 80000021H [SDM 3C 26.3.1]") {
    run_cases(guest_rule_cases());
}

TEST_CASE("VM entry: basic checks, PDPTEs, MSR loading [SDM 3C 26.1, 26.3.1.6, 26.4]") {
    run_cases(other_rule_cases());
}

TEST_CASE("VM entry: every rule has a case, and every case a rule") {
    std::set<std::string_view> tested, rows;
    for (const auto cases : all_cases)
        for (const RuleCase& c : cases()) tested.insert(c.id);
    for (const EntryCheckSet& set : entry_check_sets())
        for (const EntryCheck& check : set.checks) {
            CHECK_MESSAGE(rows.insert(check.id).second, check.id); // ids are unique
            CHECK_MESSAGE(tested.contains(check.id), check.id);
        }
    for (const RuleCase& c : other_rule_cases()) rows.insert(c.id);
    for (const std::string_view id : tested) CHECK_MESSAGE(rows.contains(id), id);
}

TEST_CASE("VM entry: a rule that held is evaluated again when an input of it changes") {
    for (const auto cases : {control_rule_cases, host_rule_cases, guest_rule_cases})
        for (const RuleCase& c : cases()) {
            const std::string id = c.id;
            CAPTURE(id);
            T t(c.model);
            t.run_guest(
                1000); // a first entry passes all; the zeros at RIP or the handler of their fault halt
            if (!t.in_host()) continue;
            c.holds(t);
            c.broken(t);
            const EntryOutcome outcome = t.enter();
            CHECK(outcome.check == (c.outranked_by ? c.outranked_by : c.id));
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
