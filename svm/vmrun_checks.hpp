// The rules whose violation makes VMRUN end with VMEXIT_INVALID, each with an id. APM 2 15.5.1 "Basic
// Operation", "Canonicalization and Consistency Checks".
//
// No rules about shadow stacks (S_CET, CR4.CET, the supervisor shadow stack check) and SEV: CR4.CET is an MBZ
// bit where shadow stacks are not offered, and the options of what is not offered are ignored.
#pragma once

#include "arch/allowed_bits.hpp"
#include "cpu/cpu.hpp"
#include "svm/exit_codes.hpp"
#include "svm/vmcb.hpp"

#include <array>
#include <span>
#include <string_view>

namespace exeunt {

/// What the rules look at: the merged VMCB, the processor, and the host's paging.
struct VmrunContext {
    VmcbView vmcb;
    const Cpu& cpu;
};

/// What a rule is about, for explanations: on(VMCB::cr4).given(VMCB::efer).bits(function).
struct VmrunFields {
    /// Offsets of a few fields.
    struct List {
        std::array<u16, 4> offset{};
        u8 count = 0;

        constexpr std::span<const u16> all() const { return {offset.data(), count}; }
        template <class... T>
        static constexpr List of(VmcbField<T>... fields) {
            return {{fields.offset...}, sizeof...(fields)};
        }
    };

    List restricted;                                       ///< the fields that it restricts
    List depends{};                                        ///< those that say whether, and how
    AllowedBits (*allowed)(const VmrunContext&) = nullptr; ///< where it is about bits of the restricted field
    bool reads_processor = false;                          ///< what the VMCB holds does not decide alone

    template <class... T>
    constexpr VmrunFields given(VmcbField<T>... fields) const {
        return {restricted, List::of(fields...), allowed, reads_processor};
    }
    constexpr VmrunFields bits(AllowedBits (*function)(const VmrunContext&)) const {
        return {restricted, depends, function, reads_processor};
    }
    constexpr VmrunFields in_processor() const { return {restricted, depends, allowed, true}; }
};
template <class... T>
constexpr VmrunFields on(VmcbField<T>... fields) {
    return {.restricted = VmrunFields::List::of(fields...)};
}

struct VmrunCheck {
    std::string_view id;
    std::string_view illegal; ///< the manual's words for what must not be
    std::string_view citation;
    VmrunFields fields;
    bool (*violated)(const VmrunContext&);
};

std::span<const VmrunCheck> vmrun_checks();
/// The rule of this id, also vmrun_pdpte_check; null: there is none.
const VmrunCheck* find_vmrun_check(std::string_view id);
/// Offsets of all fields that a rule restricts or depends on, each once.
std::span<const u16> vmrun_checked_fields();
/// PAE paging without nested paging: the last rule, looked at when the PDPTEs are loaded.
extern const VmrunCheck vmrun_pdpte_check;

} // namespace exeunt
