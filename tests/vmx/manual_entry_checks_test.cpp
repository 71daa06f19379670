// The manual's list of entry checks, row by row: every one has a rule with a case at its limit and beyond, or
// belongs to a control that is refused.
#include "tests/vmx/entry_rules.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::entry_rules;

namespace {

// ---- INSTRUCTION rows ----

const Code vmlaunch = code("0f 01 c2", "vmlaunch"), vmresume = code("0f 01 c3", "vmresume");

void undefined_opcode_outside_vmx() {
    T t;
    REQUIRE(t.step(code("0f 01 c4", "vmxoff")) == Stop{});
    CHECK(t.step(vmlaunch) == undefined_opcode());
    CHECK(t.step(vmresume) == undefined_opcode());
}

void exits_in_a_guest() {
    T t;
    t.guest(vmlaunch);
    EXITED(t, ExitReason::vmlaunch);
    T u;
    u.guest(vmresume);
    EXITED(u, ExitReason::vmresume);
}

void general_protection_above_cpl_0() {
    for (const Code& what : {vmlaunch, vmresume}) {
        T t;
        t.enter_ring3();
        CHECK(t.step(what) == general_protection(0));
    }
}

// ---- The other kinds ----

/// Every rule of the row has a case, and the cases hold.
void check_rule(std::string_view rule) {
    unsigned found = 0;
    for (const auto cases : {control_rule_cases, host_rule_cases, guest_rule_cases, other_rule_cases})
        for (const RuleCase& c : cases())
            if (rule == c.id) {
                run_case(c);
                ++found;
            }
    CHECK(found > 0);
}

/// The control is refused as a reserved bit.
void check_not_offered(Control control) {
    T t;
    CHECK_MESSAGE(!t.vmx.capabilities().may(control), "offered: the row must name its rule");
    constexpr const char* groups[] = {"pin_based", "primary", "secondary", "primary",
                                      "vm_exit",   "vm_exit", "vm_entry",  "vm_functions"};
    // The tertiary and the secondary VM-exit controls have no effect until another control activates them.
    if (control.group == ControlGroup::tertiary) {
        if (t.vmx.capabilities().may(primary::activate_tertiary_controls)) return;
        control = primary::activate_tertiary_controls;
    }
    if (control.group == ControlGroup::vm_exit2) control = vm_exit::activate_secondary_controls;
    t.on(control);
    CHECK(t.enter() == refused_control(std::string("controls.") +
                                       groups[static_cast<unsigned>(control.group)] + ".reserved_bits"));
}

void check_cr4_bit(std::string_view area, unsigned number) {
    T t;
    set_bits(t, area == "host" ? F::host_cr4 : F::guest_cr4, bit(number));
    CHECK(t.enter() == refused_by(std::string(area) + ".cr4.fixed_bits"));
}

} // namespace

#define ROW(number, check) \
    TEST_CASE("VM entry: the manual's check " number) { check; }
#define RULE(number, rule, words) ROW(number, check_rule(rule))
#define NOT_OFFERED(number, control, words) ROW(number, check_not_offered(control))
#define CR4_BIT(number, area, bit, words) ROW(number, check_cr4_bit(#area, bit))
#define INSTRUCTION(number, what, words) ROW(number, what())
#define NEVER(number, reason, words)
#include "tests/vmx/manual_entry_checks.inc"
