// What the processor keeps of a guest's virtual APIC besides the virtual-APIC page. SDM 3C ch. 29 "APIC
// Virtualization and Virtual Interrupts".
#pragma once

#include "base/snapshot.hpp"
#include "vmx/exit_reasons.hpp"

namespace exeunt {

/// Meaningful while a guest runs; empty otherwise.
struct VirtualApicState {
    u8 rvi = 0, svi = 0;     ///< requesting and servicing virtual interrupt (24.4.2 "Guest interrupt status")
    bool recognized = false; ///< a pending virtual interrupt (29.2.1)
    /// A virtualized write of the operation under way, whose emulation is due at the boundary (29.4.3.2).
    u16 written_offset = 0;
    u8 written_bytes = 0; ///< 0: there was none
    /// A trap-like VM exit that is due at the boundary: TPR below threshold, virtualized EOI or APIC write.
    u16 trap = 0; ///< its ExitReason; 0: none
    u16 trap_qualification = 0;

    void visit(StateVisitor& visitor) {
        visitor.value("rvi", rvi);
        visitor.value("svi", svi);
        visitor.value("virtual_interrupt_recognized", recognized);
        visitor.value("apic_written_offset", written_offset);
        visitor.value("apic_written_bytes", written_bytes);
        visitor.value("apic_trap", trap);
        visitor.value("apic_trap_qualification", trap_qualification);
    }
};

} // namespace exeunt
