// TPR, PPR, EOI and self-IPI virtualization, pending virtual interrupts and their delivery, CR8 and the
// x2APIC MSRs. SDM 3C 29.1 "Virtual APIC State", 29.2 "Evaluation and Delivery of Virtual Interrupts", 29.3
// "Virtualizing CR8-Based TPR Accesses", 29.5 "Virtualizing MSR-Based APIC Accesses".
//
// Not modelled: user interrupts (CR4.UINTR is not offered), RTM and enclaves, which delivery would end.
#include "vmx/vmx.hpp"

#include <algorithm>

namespace exeunt {

using F = VmcsField;
using Register = VirtualApic::Register;

/// The virtual-APIC page. Where there is no RAM it reads as what is there, and is not written.
VirtualApic Vmx::virtual_apic() {
    const Physical page{field(F::virtual_apic_address)};
    PhysicalMemory& memory = cpu_.memory;
    if (u8* native = memory.native_for_write(page)) [[likely]]
        return VirtualApic(native);
    if (memory.kind(page) == PhysicalMemory::Kind::ram) {
        memory.about_to_write(page, page_size);
        return VirtualApic(memory.native(page));
    }
    memory.read_bytes(page, no_virtual_apic_.data(), no_virtual_apic_.size());
    return VirtualApic(no_virtual_apic_.data());
}

/// Trap-like: taken at the boundary after this instruction, or after VM entry.
void Vmx::set_apic_trap(ExitReason reason, unsigned qualification) {
    apic_.trap = static_cast<u16>(reason);
    apic_.trap_qualification = static_cast<u16>(qualification);
    cpu_.attention();
}

/// 26.3.2.5 "Updating Non-Register State", 26.6.7 "VM Exits Induced by the TPR Threshold".
void Vmx::arm_virtual_apic() {
    if (!(primary() & primary::use_tpr_shadow)) return;
    if (secondary() & secondary::virtual_interrupt_delivery) {
        const u64 status = field(F::guest_interrupt_status);
        apic_.rvi = static_cast<u8>(status);
        apic_.svi = static_cast<u8>(status >> 8);
        virtual_apic().update_ppr(apic_.svi);
        evaluate_virtual_interrupts();
    } else if (secondary() & secondary::virtualize_apic_accesses) {
        virtualize_tpr();
    }
}

/// Everything of APIC virtualization that is due between two instructions; above all other events.
Result<void> Vmx::apic_boundary() {
    if (apic_.written_bytes != 0) emulate_apic_write();
    if (apic_.trap == 0 || cpu_.activity == Activity::shutdown) return {};
    return exit({.reason = static_cast<ExitReason>(apic_.trap),
                 .qualification = apic_.trap_qualification,
                 .keeps_pending_debug = true});
}

// ---- The elementary operations -------------------------------------------------------------------------

/// 29.1.2 "TPR Virtualization".
void Vmx::virtualize_tpr() {
    VirtualApic apic = virtual_apic();
    if (secondary() & secondary::virtual_interrupt_delivery) {
        apic.update_ppr(apic_.svi);
        evaluate_virtual_interrupts();
    } else if ((apic.tpr() >> 4) < static_cast<int>(field(F::tpr_threshold) & 15)) {
        set_apic_trap(ExitReason::tpr_below_threshold, 0);
    }
}

/// 29.1.4 "EOI Virtualization".
void Vmx::virtualize_eoi() {
    VirtualApic apic = virtual_apic();
    const u8 vector = apic_.svi;
    apic_.svi = apic.end_service(vector);
    apic.update_ppr(apic_.svi);
    if (test_bit(current_->at(F::eoi_exit_bitmap_0, vector >> 6), vector & 63)) {
        set_apic_trap(ExitReason::virtualized_eoi, vector);
    } else {
        evaluate_virtual_interrupts();
    }
}

/// 29.1.5 "Self-IPI Virtualization".
void Vmx::virtualize_self_ipi(u8 vector) {
    virtual_apic().set_vector_bit(Register::IRR, vector, true);
    apic_.rvi = std::max(apic_.rvi, vector);
    evaluate_virtual_interrupts();
}

/// 29.2.1 "Evaluation of Pending Virtual Interrupts".
void Vmx::evaluate_virtual_interrupts() {
    apic_.recognized =
        !(primary() & primary::interrupt_window_exiting) &&
        VirtualApic::priority_class(apic_.rvi) > VirtualApic::priority_class(virtual_apic().ppr());
    if (apic_.recognized) cpu_.attention();
}

/// Whether a virtual interrupt is to be delivered now, where nothing blocks interrupts but RFLAGS.IF. Even
/// masked it ends an MWAIT that says so.
bool Vmx::virtual_interrupt_due() {
    if (!apic_.recognized) return false;
    if (cpu_.flag(RFLAGS::IF)) return true;
    if (cpu_.activity == Activity::mwait && cpu_.mwait_break_on_interrupt) cpu_.activity = Activity::active;
    return false;
}

/// 29.2.2 "Virtual-Interrupt Delivery". The core asks when nothing blocks interrupts but RFLAGS.IF.
bool Vmx::take_virtual_interrupt(Cpu& cpu, u8& vector) {
    if (!apic_.recognized || !cpu.flag(RFLAGS::IF)) return false;
    VirtualApic apic = virtual_apic();
    vector = apic_.rvi;
    apic_.svi = vector;
    apic.set_ppr(vector & 0xF0);
    apic_.rvi = apic.accept(vector);
    apic_.recognized = false;
    return true;
}

// ---- CR8. 29.3 -----------------------------------------------------------------------------------------

Result<bool> Vmx::cr8_read(Cpu&, const Insn&, u64& value) {
    if (!(primary() & primary::use_tpr_shadow)) return false;
    value = virtual_apic().tpr() >> 4;
    return true;
}

Result<bool> Vmx::cr8_write(Cpu&, const Insn&, u64 value) {
    if (!(primary() & primary::use_tpr_shadow)) return false;
    virtual_apic().set_tpr(static_cast<u8>(value << 4)); // bits 31:8 and 3:0 of VTPR become 0
    virtualize_tpr();
    return true;
}

// ---- MSRs 800H to 8FFH. 29.5 ---------------------------------------------------------------------------

namespace {
constexpr u32 msr_of(Register reg) { return LocalApic::msr_x2apic_first + (reg >> 4); }
} // namespace

/// Whether the register comes out of the virtual-APIC page, whatever mode the local APIC is in.
bool Vmx::x2apic_read(u32 index, u64& value) {
    const bool arv = secondary() & secondary::apic_register_virtualization;
    if ((index & ~u32{0xFF}) != LocalApic::msr_x2apic_first || (!arv && index != msr_of(Register::TPR)))
        return false;
    value = virtual_apic().load((index & 0xFF) << 4, 8);
    return true;
}

Result<bool> Vmx::x2apic_write(u32 index, u64 value) {
    const bool vid = secondary() & secondary::virtual_interrupt_delivery;
    const bool ipiv = current_->derived.tertiary & tertiary::ipi_virtualization;
    const auto put = [&](Register reg) { virtual_apic().store(reg, 8, value); };
    switch (index) {
    case msr_of(Register::TPR):
        if (value >> 8) return general_protection(0);
        put(Register::TPR);
        virtualize_tpr();
        return true;
    case msr_of(Register::EOI):
        if (!vid) return false;
        if (value != 0) return general_protection(0);
        put(Register::EOI);
        virtualize_eoi();
        return true;
    case msr_of(Register::SELF_IPI):
        if (!vid) return false;
        if (value >> 8) return general_protection(0);
        put(Register::SELF_IPI);
        if (value >= 16) {
            virtualize_self_ipi(static_cast<u8>(value));
        } else {
            set_apic_trap(ExitReason::apic_write, Register::SELF_IPI);
        }
        return true;
    case msr_of(Register::ICR_LOW): {
        if (!ipiv) return false;
        constexpr u64 reserved = 0xFFF3'2000,
                      beyond = 0x000C'9F00; // shorthand, 15, 12, logical, delivery mode
        if (value & reserved) return general_protection(0);
        put(Register::ICR_LOW);
        if (value & beyond) {
            set_apic_trap(ExitReason::apic_write, Register::ICR_LOW);
        } else {
            virtualize_ipi(static_cast<u8>(value), high32(value));
        }
        return true;
    }
    default: return false;
    }
}

} // namespace exeunt
