// A case of a VM-entry rule, and what cases have in common.
#pragma once

#include "tests/support/vmx_harness.hpp"

namespace exeunt::test::entry_rules {

using F = VmcsField;
using T = VmxHarness;
using Change = void (*)(T&);

/// A rule: with `holds` VM entry succeeds, with `broken` on top of it this rule is the one that refuses.
struct RuleCase {
    const char* id;
    Change holds;
    Change broken;
    const char* model = "intel-max";
    /// A rule that `broken` can not help violating and that comes before this one, if there is such a rule.
    const char* outranked_by = nullptr;
};

inline constexpr u64 width = u64{1} << 46;         // MAXPHYADDR of intel-max
inline constexpr u64 not_canonical = u64{1} << 56; // with 57-bit linear addresses
inline constexpr u64 canonical_edge = (u64{1} << 56) - 1;
inline constexpr u64 valid_event = u64{1} << 31;

inline F at(F first, Seg s) {
    return static_cast<F>(static_cast<unsigned>(first) + static_cast<unsigned>(s));
}
inline F selector(Seg s) { return at(F::guest_es_selector, s); }
inline F base(Seg s) { return at(F::guest_es_base, s); }
inline F limit(Seg s) { return at(F::guest_es_limit, s); }
inline F access(Seg s) { return at(F::guest_es_access_rights, s); }
inline void nothing(T&) {}

inline void set_bits(T& t, F f, u64 bits) { t.set(f, t.get(f) | bits); }
inline void clear_bits(T& t, F f, u64 bits) { t.set(f, t.get(f) & ~bits); }
inline void inject(T& t, unsigned type, unsigned vector, u64 more = 0) {
    t.set(F::vm_entry_interruption_information, valid_event | type << 8 | vector | more);
}
inline void set_type(T& t, Seg s, u64 type) { t.set(access(s), (t.get(access(s)) & ~u64{15}) | type); }
inline void usable_ldtr(T& t) {
    t.set(selector(Seg::LDTR), 0x58);
    t.set(access(Seg::LDTR), AR::P | SystemType::ldt);
    t.set(limit(Seg::LDTR), 0xFFF);
}
inline void compatibility_guest(T& t) {
    t.set(access(Seg::CS), (t.get(access(Seg::CS)) & ~u64{AR::L}) | AR::DB);
    t.set(selector(Seg::CS), Harness::code32_0);
}
inline void v8086_guest(T& t) { t.guest_mode(Mode::v8086); }
inline void real_guest(T& t) { t.guest_mode(Mode::real); }
inline void interrupts_on(T& t) { t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF); }
inline void link_to_spare(T& t) {
    t.write(T::spare_region, t.vmx.capabilities().revision(), 4);
    t.set(F::vmcs_link_pointer, T::spare_region);
}

std::span<const RuleCase> control_rule_cases();
std::span<const RuleCase> host_rule_cases();
std::span<const RuleCase> guest_rule_cases();
/// Basic checks, PDPTEs, MSR loading: rules that are not rows of entry_check_sets().
std::span<const RuleCase> other_rule_cases();

/// How VM entry ends when this rule refuses.
EntryOutcome refused_by(std::string_view id);
/// Whether `holds` enters and `broken` is refused, each on a fresh processor.
void run_case(const RuleCase& c);

} // namespace exeunt::test::entry_rules
