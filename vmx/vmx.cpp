#include "vmx/vmx.hpp"

#include "cpu/msrs.hpp"
#include "vmx/msrs.hpp"

namespace exeunt {

namespace {

/// SDM 3C 23.7: once locked, WRMSR faults until power-up reset.
Result<u64> unless_locked(Cpu&, u64 stored, u64 value) {
    if (stored & FEATURE_CONTROL::lock) return general_protection(0);
    return value;
}

/// RDMSR of a capability MSR that this processor does not have is #GP(0).
template <u32 number>
Result<u64> capability(Cpu& cpu, u64) {
    const auto value = static_cast<Vmx&>(*cpu.virtualization).capabilities().msr(number);
    if (!value) return general_protection(0);
    return *value;
}

constexpr std::nullptr_t plain = nullptr;

constexpr MsrRow msr_rows[] = {
#define MSR(index, name, present_with, reset, writable, read, write) \
    {index, #name, present_with, reset, writable, read, write},
#include "vmx/msrs.inc"
};

} // namespace

std::span<const MsrRow> vmx_msr_rows() { return msr_rows; }

Vmx::Vmx(Cpu& cpu, const Vmx* first)
    : cpu_(cpu), capabilities_(cpu.model),
      active_(cpu.memory, first ? first->active_.provenance() : std::make_shared<VmcsProvenance>()), ept_(cpu.memory) {
    ept_.set_features({.execute_only = capabilities_.ept_vpid(EPT_VPID_CAP::execute_only),
                       .pages_2m = capabilities_.ept_vpid(EPT_VPID_CAP::pages_2m),
                       .pages_1g = capabilities_.ept_vpid(EPT_VPID_CAP::pages_1g),
                       .advanced_information = capabilities_.ept_vpid(EPT_VPID_CAP::advanced_information),
                       .physical_bits = capabilities_.physical_bits()});
    cpu.msrs->add(msr_rows);
    cpu.virtualization = this;
}

/// SDM 3C 23.8 "Restrictions on VMX Operation". With unrestricted guest, PE and PG are the guest's to change.
bool Vmx::cr0_allowed(const Cpu& cpu, u64 value) {
    if (!operating_) return true;
    u64 fixed0 = capabilities_.cr0_fixed0();
    if (cpu.in_guest && (secondary() & secondary::unrestricted_guest)) fixed0 &= ~(CR0::PE | CR0::PG);
    return (value & fixed0) == fixed0;
}

bool Vmx::cr4_allowed(const Cpu&, u64 value) {
    return !operating_ || (value & capabilities_.cr4_fixed0()) == capabilities_.cr4_fixed0();
}

/// INIT is blocked in VMX root operation, and in a guest it is boundary()'s.
bool Vmx::init_blocked(const Cpu&) { return operating_; }

/// RESET# and INIT leave VMX operation; the memory of active VMCSs is brought up to date.
void Vmx::reset(Cpu& cpu) {
    active_.write_back_all();
    current_ = nullptr;
    operating_ = false;
    vmxon_pointer_ = no_pointer;
    cpu.in_guest = false;
    cpu.mmu.set_second_level(nullptr);
    virtual_nmi_blocking_ = mtf_pending_ = ple_started_ = false;
    apic_ = {};
    preemption_deadline_ = mtf_from_ = unblocking_iret_tick_ = never;
}

void Vmx::visit(StateVisitor& visitor) {
    visitor.enter("vmx");
    active_.visit(visitor);
    if (cpu_.index == 0) active_.provenance()->visit(visitor); // it is the whole machine's
    u64 current = current_ ? current_->pointer().value : no_pointer;
    visitor.value("current", current);
    current_ = current == no_pointer ? nullptr : active_.find(Physical{current});
    visitor.value("operating", operating_);
    visitor.value("vmxon_pointer", vmxon_pointer_);
    visitor.value("virtual_nmi_blocking", virtual_nmi_blocking_);
    visitor.value("preemption_deadline", preemption_deadline_);
    visitor.value("mtf_pending", mtf_pending_);
    visitor.value("mtf_from", mtf_from_);
    apic_.visit(visitor);
    visitor.value("unblocking_iret_tick", unblocking_iret_tick_);
    visitor.value("ple_first", ple_first_);
    visitor.value("ple_last", ple_last_);
    visitor.value("ple_started", ple_started_);
    visitor.leave();
    if (cpu_.in_guest && current_) { // what the guest's controls imply
        derive_controls();
        cpu_.intercepted = current_->derived.intercepted;
        cpu_.undefined = current_->derived.undefined;
        bind_guest_translations();
    } else {
        cpu_.mmu.set_second_level(nullptr);
    }
}

} // namespace exeunt
