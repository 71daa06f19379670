// EVENTINJ and EXITINTINFO. APM 2 15.20 "Event Injection", 15.7.2 "State Saved on Exit".
#include "svm/svm.hpp"

namespace exeunt {

u64 EVENT::encode(const Event& event) {
    u64 type = 0;
    switch (event.type) {
    case Event::Type::external_interrupt: type = 0; break;
    case Event::Type::nmi: type = 2; break;
    case Event::Type::software_interrupt: type = 4; break;
    default: type = 3; break; // INT1, INT3 and INTO too
    }
    return event.vector | type << 8 | (event.has_error ? error_valid | u64{event.error} << 32 : 0) | valid;
}

Result<void> Svm::inject() {
    const u64 injected = guest_.get(VMCB::eventinj);
    const bool valid = injected & EVENT::valid;
    const u64 type = extract(injected, 10, 8);
    Event event;
    if (valid) {
        event.vector = type == 2 ? u8{2} : static_cast<u8>(injected);
        event.type = static_cast<Event::Type>(type);
        event.injected = true;
        event.has_error = injected & EVENT::error_valid;
        event.error = event.has_error ? high32(injected) : 0;
        // INT3 and INTO are exceptions by type, and behave as the instructions do.
        if (type == 3 && (event.vector == 3 || event.vector == 4))
            event.type = Event::Type::software_exception;
    }
    if (cpu_.observer) {
        EntryRecord record{.rip = cpu_.rip, .svm = true};
        if (valid) {
            record.interruption_information = low32(injected);
            record.interruption_error = event.error;
        }
        cpu_.observer->vm_entry(cpu_.index, cpu_.now(), record);
    }
    // 15.21.10: with NMI virtualization an injected NMI is under way until IRET.
    if (valid && event.type == Event::Type::nmi && has_vnmi()) interrupt_control_ |= VMCB::INT::V_NMI_MASK;
    if (!valid) return stopped(Stop::Kind::world_switch);
    const bool software =
        event.type == Event::Type::software_interrupt || event.type == Event::Type::software_exception;
    // These push nRIP, the address after the instruction that the VMM stands in for.
    if (software && cpu_.has(Feature::NRIPS)) {
        const u64 nrip = guest_.get(VMCB::nrip), length = nrip - cpu_.rip;
        if (length < 256) {
            event.instruction_length = static_cast<u8>(length);
        } else {
            cpu_.rip = nrip;
        }
        cpu_.next_rip = nrip;
    }
    if (event.vector == static_cast<u8>(Vector::PF)) event.address = cpu_.control.cr2;
    const Result<void> delivered = cpu_.deliver(event);
    if (!delivered.ok()) {
        const Stop stop = cpu_.settle(delivered.stop());
        if (stop.kind == Stop::Kind::unmodelled) return stop;
    }
    return stopped(Stop::Kind::world_switch);
}

} // namespace exeunt
