// What reaches a guest or leaves it between two instructions, and the virtual interrupt. APM 2 15.17 "Global
// Interrupt Flag", 15.21 "Interrupt and Local APIC Support".
#include "svm/svm.hpp"

namespace exeunt {

namespace INT = VMCB::INT;

/// 15.21.1 "Physical (INTR) Interrupt Masking in EFLAGS".
bool Svm::physical_interrupts_enabled() const {
    return masks_interrupts() ? (host_.rflags & RFLAGS::IF) != 0 : cpu_.flag(RFLAGS::IF);
}

/// 15.21.4 "Injecting Virtual (INTR) Interrupts".
bool Svm::virtual_interrupt_due() const {
    const u64 c = interrupt_control_;
    if (!(c & INT::V_IRQ) || !cpu_.flag(RFLAGS::IF)) return false;
    if (has_vgif() && !(c & INT::V_GIF)) return false;
    return (c & INT::V_IGN_TPR) || extract(c, 19, 16) > (c & INT::V_TPR);
}

/// One boundary, one exit; what belongs to the guest itself is left to the core, which comes back. What exits
/// stays pending (15.13 "Interrupt Intercepts").
Result<void> Svm::boundary(Cpu& cpu) {
    if (!gif_) return {};
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
    if (intercepts(ExitCode::VINTR) && virtual_interrupt_due()) return exit({.code = ExitCode::VINTR});
    return {};
}

bool Svm::interrupts_enabled(Cpu&) { return gif_ && physical_interrupts_enabled(); }

bool Svm::take_virtual_interrupt(Cpu& cpu, u8& vector) {
    const bool physical =
        physical_interrupts_enabled() && cpu.controller && cpu.controller->interrupt_pending();
    if (physical || !virtual_interrupt_due()) return false;
    interrupt_control_ &= ~INT::V_IRQ;
    vector = static_cast<u8>(extract(interrupt_control_, 39, 32));
    return true;
}

// ---- 15.21.2 "Virtualizing APIC.TPR" ----

Result<bool> Svm::cr8_read(Cpu&, const Insn&, u64& value) {
    if (!masks_interrupts()) return false;
    value = interrupt_control_ & INT::V_TPR;
    return true;
}

Result<bool> Svm::cr8_write(Cpu& cpu, const Insn&, u64 value) {
    interrupt_control_ = (interrupt_control_ & ~INT::V_TPR) | value;
    cpu.attention();
    return masks_interrupts();
}

} // namespace exeunt
