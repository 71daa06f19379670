// What leaves a guest between two instructions: the preemption timer, the monitor trap flag, windows,
// interrupts, NMIs, INIT and SIPI. SDM 3C 25.2 "Other Causes of VM Exits", 25.5 "Features Specific to VMX
// Non-Root Operation", 26.6 "Special Features of VM Entry".
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

/// 26.6.4 "VMX-Preemption Timer", 26.6.8 "Pending MTF VM Exits".
void Vmx::arm_timers(bool injects) {
    preemption_deadline_ = never;
    if (pin_based() & pin_based::activate_vmx_preemption_timer) {
        // It counts down whenever bit `rate` of the time-stamp counter changes.
        const unsigned rate = capabilities_.preemption_timer_rate();
        const u64 tsc = cpu_.now() + cpu_.tsc_offset;
        const u64 expires = ((tsc >> rate) + field(F::vmx_preemption_timer_value)) << rate;
        const u64 left = expires > tsc ? expires - tsc : 0;
        preemption_deadline_ = cpu_.now() + left;
    }
    const bool other_event = injects && extract(field(F::vm_entry_interruption_information), 10, 8) == 7;
    mtf_pending_ = other_event || (injects && (primary() & primary::monitor_trap_flag));
    mtf_from_ = never;
}

/// The value that "save VMX-preemption timer value" stores (25.5.1).
u32 Vmx::preemption_timer_now() const {
    const Tick now = cpu_.now();
    if (preemption_deadline_ == never) return static_cast<u32>(field(F::vmx_preemption_timer_value));
    if (preemption_deadline_ <= now) return 0;
    const unsigned rate = capabilities_.preemption_timer_rate();
    const u64 tsc = now + cpu_.tsc_offset;
    const u64 expires = tsc + (preemption_deadline_ - now);
    return static_cast<u32>((expires >> rate) - (tsc >> rate));
}

Tick Vmx::next_deadline(const Cpu& cpu) { return cpu.in_guest ? preemption_deadline_ : never; }

bool Vmx::single_step(const Cpu& cpu) { return cpu.in_guest && (primary() & primary::monitor_trap_flag); }

/// Table "Priority Among Simultaneous Events" of SDM 3A 6.9 as 25.2 and 26.6 refine it. One boundary, one
/// exit; what belongs to the guest itself (debug traps, interrupts that do not exit) is left to the core,
/// which comes back.
Result<void> Vmx::boundary(Cpu& cpu) {
    if (!cpu.in_guest) return {};
    if (cpu.activity == Activity::wait_for_sipi) {
        if (!cpu.sipi_pending) return {};
        cpu.sipi_pending = false;
        return exit({.reason = ExitReason::start_up_ipi, .qualification = cpu.sipi_vector});
    }
    const bool shutdown = cpu.activity == Activity::shutdown;
    TRY(apic_boundary());
    if (cpu.init_pending) {
        cpu.init_pending = false;
        return exit({.reason = ExitReason::init_signal, .keeps_pending_debug = true});
    }
    if (primary() & primary::monitor_trap_flag) {
        // 25.5.2: due once an instruction has been executed, or an event delivered, since VM entry.
        if (mtf_from_ == never) mtf_from_ = cpu.cycles();
        if (cpu.cycles() > mtf_from_) mtf_pending_ = true;
    }
    if (mtf_pending_ && !shutdown)
        return exit({.reason = ExitReason::monitor_trap_flag, .keeps_pending_debug = true});
    if (cpu.pending_debug && cpu.shadow != Shadow::mov_ss && !shutdown) return {};
    if (preemption_deadline_ <= cpu.now()) return exit({.reason = ExitReason::vmx_preemption_timer_expired});
    return external_events();
}

/// NMIs and interrupts, with their windows.
Result<void> Vmx::external_events() {
    const bool shutdown = cpu_.activity == Activity::shutdown;
    const bool virtual_nmis = pin_based() & pin_based::virtual_nmis;
    if ((primary() & primary::nmi_window_exiting) && !virtual_nmi_blocking_ && cpu_.shadow != Shadow::mov_ss)
        return exit({.reason = ExitReason::nmi_window});
    // With virtual NMIs, NMIs are not blocked in VMX non-root operation (26.6.1).
    if (cpu_.nmi_pending && (virtual_nmis || !cpu_.nmi_blocked) && cpu_.shadow != Shadow::mov_ss) {
        if (!(pin_based() & pin_based::nmi_exiting)) return {}; // the guest's
        cpu_.nmi_pending = false;
        const Event nmi{.vector = 2, .type = Event::Type::nmi};
        return exit({.reason = ExitReason::exception_or_nmi,
                     .interruption_information = information_of(nmi, true),
                     .by_nmi = true});
    }
    if (shutdown || cpu_.shadow != Shadow::none) return {};
    if ((primary() & primary::interrupt_window_exiting) && cpu_.flag(RFLAGS::IF))
        return exit({.reason = ExitReason::interrupt_window});
    // A virtual interrupt comes before a physical one (29.2.2); the core takes it.
    if (virtual_interrupt_due()) return {};
    if (!(pin_based() & pin_based::external_interrupt_exiting) || !cpu_.controller) return {};
    while (cpu_.controller->interrupt_pending()) {
        if (!(current_->derived.vm_exit & vm_exit::acknowledge_interrupt_on_exit))
            return exit({.reason = ExitReason::external_interrupt});
        const Event interrupt{.vector = cpu_.controller->acknowledge(),
                              .type = Event::Type::external_interrupt};
        const bool notification = (pin_based() & pin_based::process_posted_interrupts) &&
                                  interrupt.vector == field(F::posted_interrupt_notification_vector);
        if (!notification)
            return exit({.reason = ExitReason::external_interrupt,
                         .interruption_information = information_of(interrupt, true)});
        process_posted_interrupts();
        if (virtual_interrupt_due()) return {};
    }
    return {};
}

bool Vmx::interrupts_enabled(Cpu& cpu) {
    return !(pin_based() & pin_based::external_interrupt_exiting) && cpu.flag(RFLAGS::IF);
}

} // namespace exeunt
