// What reaches a guest or leaves it between two instructions, and the virtual interrupt. APM 2 15.17 "Global
// Interrupt Flag", 15.21 "Interrupt and Local APIC Support".
#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"
#include "svm/svm.hpp"

namespace exeunt {

namespace INT = VMCB::INT;

/// 15.21.1 "Physical (INTR) Interrupt Masking in EFLAGS".
bool Svm::physical_interrupts_enabled() const {
    return masks_interrupts() ? (host_.rflags & RFLAGS::IF) != 0 : cpu_.flag(RFLAGS::IF);
}

/// 15.21.4 "Injecting Virtual (INTR) Interrupts"; with AVIC V_IRQ and its companions are ignored (15.29.2).
bool Svm::virtual_interrupt_pending() const {
    if (avic_.on()) return avic_.request() != 0;
    const u64 c = interrupt_control_;
    return (c & INT::V_IRQ) && ((c & INT::V_IGN_TPR) || extract(c, 19, 16) > (c & INT::V_TPR));
}

bool Svm::virtual_interrupt_due() const {
    return cpu_.flag(RFLAGS::IF) && virtual_gif() && virtual_interrupt_pending();
}

/// 15.21.10 "NMI Virtualization".
bool Svm::virtual_nmi_pending() const {
    constexpr u64 all = INT::V_NMI_ENABLE | INT::V_NMI | INT::V_NMI_MASK;
    return (interrupt_control_ & all) == (INT::V_NMI_ENABLE | INT::V_NMI);
}

/// One boundary, one exit; what belongs to the guest itself is left to the core, which comes back. What exits
/// stays pending (15.13 "Interrupt Intercepts").
Result<void> Svm::boundary(Cpu& cpu) {
    if (trap_) { // of the instruction before
        SvmExit e = *trap_;
        if (e.code >= ExitCode::NPF) e.nrip = cpu.rip;
        return exit(e);
    }
    if (!gif_) return {};
    if (cpu.smi_pending && intercepts(ExitCode::SMI)) {
        constexpr u64 external = 1;
        return exit({.code = ExitCode::SMI, .info1 = external});
    }
    if (cpu.init_pending) {
        if (!intercepts(ExitCode::INIT)) return {};
        return exit({.code = ExitCode::INIT});
    }
    if (cpu.pending_debug && cpu.shadow != Shadow::mov_ss) return {};
    if (cpu.nmi_pending && !cpu.nmi_blocked && cpu.shadow != Shadow::mov_ss) {
        if (!intercepts(ExitCode::NMI)) return {};
        return exit({.code = ExitCode::NMI});
    }
    if (cpu.shadow != Shadow::none) return {};
    if (physical_interrupts_enabled() && cpu.controller && cpu.controller->interrupt_pending()) {
        if (!intercepts(ExitCode::INTR)) return {};
        return exit({.code = ExitCode::INTR});
    }
    if (intercepts(ExitCode::VINTR) && !avic_.on() && virtual_interrupt_due())
        return exit({.code = ExitCode::VINTR});
    return {};
}

bool Svm::interrupts_enabled(Cpu&) { return gif_ && physical_interrupts_enabled(); }

bool Svm::take_virtual_interrupt(Cpu& cpu, u8& vector) {
    const bool physical =
        physical_interrupts_enabled() && cpu.controller && cpu.controller->interrupt_pending();
    if (physical || !virtual_interrupt_due()) return false;
    if (avic_.on()) {
        vector = avic_.request();
        avic_.accept(vector);
        return true;
    }
    interrupt_control_ &= ~INT::V_IRQ;
    vector = static_cast<u8>(extract(interrupt_control_, 39, 32));
    return true;
}

/// The mask is set before the IDT is looked at.
bool Svm::take_virtual_nmi(Cpu&) {
    if (!virtual_nmi_pending() || !virtual_gif()) return false;
    interrupt_control_ = (interrupt_control_ & ~INT::V_NMI) | INT::V_NMI_MASK;
    return true;
}

void Svm::iret(Cpu& cpu) {
    if (has_vnmi()) {
        interrupt_control_ &= ~INT::V_NMI_MASK;
        cpu.attention();
    } else {
        cpu.nmi_blocked = false;
    }
}

/// 15.28 "External Interrupts", 15.21.8 "INIT Support": in a guest the intercept comes first (boundary).
bool Svm::redirects_init(const Cpu& cpu) { return cpu.msrs->stored(Msr::VM_CR) & VM_CR::R_INIT; }

/// 15.14.6 "Idle HLT Intercept": only a guest that would wait exits. The HLT intercept goes before it.
Result<void> Svm::hlt(const Insn& insn) {
    if (intercepts(ExitCode::HLT)) return instruction_exit(insn, ExitCode::HLT);
    if (virtual_interrupt_pending() || virtual_nmi_pending()) return {};
    return instruction_exit(insn, ExitCode::IDLE_HLT);
}

// ---- 15.21.2 "Virtualizing APIC.TPR" ----

Result<bool> Svm::cr8_read(Cpu&, const Insn&, u64& value) {
    if (!masks_interrupts() && !avic_.on()) return false;
    value = interrupt_control_ & INT::V_TPR;
    return true;
}

Result<bool> Svm::cr8_write(Cpu& cpu, const Insn&, u64 value) {
    interrupt_control_ = (interrupt_control_ & ~INT::V_TPR) | value;
    cpu.attention();
    if (avic_.on()) { // 15.29.4 "Accesses to CR8"
        avic_.page().set_tpr(static_cast<u8>(value << 4));
        avic_.update_ppr();
        return true;
    }
    return masks_interrupts();
}

} // namespace exeunt
