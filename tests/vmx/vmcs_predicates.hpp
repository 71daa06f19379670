// The manual's checks of VM entry once more, each as a few lines written from the manual's text alone: the
// oracle of vmcs_fuzz. Nothing of vmx/entry_checks* is used; only the names of the rules are the same.
#pragma once

#include "mmu/physical_memory.hpp"
#include "vmx/vmcs_fields.hpp"

#include <array>
#include <span>
#include <string_view>

namespace exeunt::test {

/// What the checks read: the fields, and what RDMSR and CPUID say about the processor.
struct VmcsImage {
    std::array<u64, vmcs_field_count> value{};

    // IA32_VMX_TRUE_*_CTLS and the like: allowed 0-settings below, allowed 1-settings above.
    u64 msr_pin = 0, msr_proc = 0, msr_proc2 = 0, msr_exit = 0, msr_entry = 0;
    u64 msr_proc3 = 0, msr_exit2 = 0, msr_vmfunc = 0;
    u64 misc = 0, ept_vpid = 0, cr0_fixed0 = 0, cr0_fixed1 = 0, cr4_fixed0 = 0, cr4_fixed1 = 0;
    u64 efer_bits = 0, debugctl_bits = 0, perf_global_bits = 0;
    unsigned physical_bits = 46, linear_bits = 57;
    u32 revision = 0;
    bool lma = true;
    u64 current_vmcs = 0;
    PhysicalMemory* memory = nullptr;

    u64 operator[](VmcsField field) const { return value[static_cast<std::size_t>(field)]; }
    u64 at(VmcsField first, unsigned n) const { return value[static_cast<std::size_t>(first) + n]; }

    // Bits of the controls by number, 0 where they are not activated.
    bool pin(unsigned n) const { return test_bit((*this)[VmcsField::pin_based_vm_execution_controls], n); }
    bool proc(unsigned n) const {
        return test_bit((*this)[VmcsField::primary_processor_based_vm_execution_controls], n);
    }
    bool proc2(unsigned n) const {
        return proc(31) && test_bit((*this)[VmcsField::secondary_processor_based_vm_execution_controls], n);
    }
    bool proc3(unsigned n) const {
        return proc(17) && test_bit((*this)[VmcsField::tertiary_processor_based_vm_execution_controls], n);
    }
    bool exit(unsigned n) const { return test_bit((*this)[VmcsField::primary_vm_exit_controls], n); }
    bool entry(unsigned n) const { return test_bit((*this)[VmcsField::vm_entry_controls], n); }
    bool function(unsigned n) const {
        return proc2(13) && test_bit((*this)[VmcsField::vm_function_controls], n);
    }
};

enum class PredicateGroup : u8 { controls, host, guest, pdptes, msr_load };

struct Predicate {
    std::string_view id;
    PredicateGroup group;
    bool (*holds)(const VmcsImage&);
};

std::span<const Predicate> control_predicates();
std::span<const Predicate> host_predicates();
std::span<const Predicate> guest_predicates();
/// PDPTEs and the VM-entry MSR-load area, which are looked at after everything else.
std::span<const Predicate> late_predicates();

} // namespace exeunt::test
