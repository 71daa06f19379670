// Event injection at VM entry. SDM 3C 26.5 "Event Injection". What becomes of an event whose delivery exits
// again is in the IDT-vectoring information (vmx/exit.cpp).
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

Result<void> Vmx::inject() {
    const u64 information = field(F::vm_entry_interruption_information);
    if (!(information >> 31)) return stopped(Stop::Kind::world_switch);
    Event event;
    event.vector = static_cast<u8>(information);
    event.type = static_cast<Event::Type>(extract(information, 10, 8));
    event.injected = true;
    if (event.type == Event::Type::other)
        return stopped(Stop::Kind::world_switch); // pending MTF (arm_timers)
    event.has_error = information & bit(11);
    if (event.has_error) event.error = static_cast<u32>(field(F::vm_entry_exception_error_code));
    const bool software = event.type == Event::Type::software_interrupt ||
                          event.type == Event::Type::privileged_software_exception ||
                          event.type == Event::Type::software_exception;
    // Software types push the RIP after the instruction that the VMM stands in for.
    if (software) {
        event.instruction_length = static_cast<u8>(field(F::vm_entry_instruction_length));
        cpu_.next_rip = cpu_.rip + event.instruction_length;
    }
    // 26.5.1.1: CR2 is left as it is by an injected page fault, DR6 by an injected debug exception.
    if (event.vector == static_cast<u8>(Vector::PF)) event.address = cpu_.control.cr2;

    const bool nmi = event.type == Event::Type::nmi;
    const bool virtual_nmis = pin_based() & pin_based::virtual_nmis;
    if (nmi) (virtual_nmis ? virtual_nmi_blocking_ : cpu_.nmi_blocked) = true;
    const Result<void> delivered = cpu_.deliver(event);
    if (!delivered.ok()) {
        const Stop stop = cpu_.settle(delivered.stop());
        if (stop.kind == Stop::Kind::unmodelled) return stop;
    }
    if (nmi && virtual_nmis && cpu_.in_guest) cpu_.nmi_blocked = false;
    return stopped(Stop::Kind::world_switch);
}

} // namespace exeunt
