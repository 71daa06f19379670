// What tools listen to. Observers change nothing; without one, nothing is called.
#pragma once

#include "arch/allowed_bits.hpp"
#include "arch/result.hpp"
#include "base/types.hpp"

#include <span>
#include <string_view>

namespace exeunt {

/// Everything the architecture delivers at one VM exit, whichever vendor; what does not apply is 0.
struct ExitRecord {
    u32 reason = 0;               ///< VMX: exit reason field; SVM: low half of EXITCODE
    u64 qualification = 0;        ///< SVM: EXITINFO1
    u64 qualification2 = 0;       ///< SVM: EXITINFO2
    u64 rip = 0;                  ///< as saved
    u32 instruction_length = 0;
    u32 instruction_information = 0;
    u32 interruption_information = 0, interruption_error = 0;
    u32 idt_vectoring_information = 0, idt_vectoring_error = 0;
    u64 guest_linear = 0;
    u64 guest_physical = 0;
    bool svm = false;
};

struct EntryRecord {
    u64 rip = 0;
    u32 interruption_information = 0, interruption_error = 0;  ///< the injected event
    u32 instruction_length = 0;
    bool launch = false;  ///< VMLAUNCH (false: VMRESUME or VMRUN)
    bool svm = false;
};

/// Who wrote a field last.
struct WrittenBy {
    enum class Kind : u8 {
        unknown,    ///< nobody since the VMCS was made, or it is not watched (a VMCB is memory)
        software,   ///< VMWRITE, or a store
        processor,  ///< a VM exit saved it
    } kind = Kind::unknown;
    u32 cpu = 0;
    u64 rip = 0;  ///< of the instruction; of the guest at a VM exit
    u64 tick = 0;
};

/// A rule that a VM entry violates, and one field that it finds wrong. A rule about several fields has one of these
/// for each.
struct RuleViolation {
    static constexpr u32 no_field = ~u32{0};

    std::string_view rule;  ///< id
    u32 field = no_field;   ///< VMX: encoding; SVM: offset in the VMCB
    u64 value = 0;
    AllowedBits allowed;    ///< all bits free: what is allowed is no matter of bits, the rule's words say it
    WrittenBy writer;
};

/// A VM entry that was refused: VMfail or an entry failure exit.
struct EntryFailureRecord {
    u64 rip = 0;                 ///< of the instruction that tried
    u32 reason = 0;              ///< exit reason with bit 31, or 0 for a VMfail
    u32 instruction_error = 0;   ///< VM-instruction error, or 0
    u64 qualification = 0;
    std::string_view check;      ///< id of the rule that refused
    std::span<const RuleViolation> violations{};  ///< of all rules that are violated, in their order
    bool svm = false;
};

class Observer {
public:
    virtual ~Observer() = default;
    virtual void vm_exit(unsigned /*cpu*/, u64 /*tick*/, const ExitRecord&) {}
    virtual void vm_entry(unsigned /*cpu*/, u64 /*tick*/, const EntryRecord&) {}
    virtual void vm_entry_failure(unsigned /*cpu*/, u64 /*tick*/, const EntryFailureRecord&) {}
};

}  // namespace exeunt
