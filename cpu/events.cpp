// Events: what an exception becomes when another one is being delivered, what it leaves in registers,
// and what the extension is asked. The way through the IDT is in cpu/event_delivery.cpp. SDM 3A 6.15
// "Exception and Interrupt Reference" ("Interrupt 8"), Tables 6-4 and 6-5; 17.2, 17.3.1.1 on #DB and RF.
// Not modelled: machine checks while one is in progress.
#include "cpu/events.hpp"

#include "cpu/branch_records.hpp"

namespace exeunt {

EventClass event_class(const Event& event) {
    if (event.type != Event::Type::hardware_exception) return EventClass::benign;
    switch (static_cast<Vector>(event.vector)) {
    case Vector::DE:
    case Vector::TS:
    case Vector::NP:
    case Vector::SS:
    case Vector::GP:
    case Vector::CP: return EventClass::contributory;
    case Vector::PF:
    case Vector::VE: return EventClass::page_fault;
    case Vector::DF: return EventClass::double_fault;
    default: return EventClass::benign;
    }
}

u64 saved_rip(const Cpu& cpu, const Event& event) {
    const bool software = from_program(event) || event.type == Event::Type::privileged_software_exception;
    const u64 rip = cpu.rip + (software ? event.instruction_length : 0u);
    return cpu.code64() ? rip : rip & 0xFFFF'FFFF;
}

u64 saved_flags(const Cpu& cpu, const Event& event) {
    // SDM 3A 17.3.1.1 "Instruction-Breakpoint Exception Condition": faults save RF = 1, so that the
    // instruction restarts without its breakpoint; of #DB only general detect is a fault of that kind.
    const u64 image = cpu.rflags();
    if (from_program(event)) return image & ~RFLAGS::RF;
    if (event.type != Event::Type::hardware_exception) return image;
    switch (static_cast<Vector>(event.vector)) {
    case Vector::DB: return event.address & DR6::BD ? image | RFLAGS::RF : image;
    case Vector::DF:
    case Vector::MC: return image;
    default: return image | RFLAGS::RF;
    }
}

namespace {

/// What the event leaves in registers before its handler is called. Injection by VM entry leaves nothing
/// (SDM 3C 26.5.1 "Vectored-Event Injection").
void leave_traces(Cpu& cpu, const Event& event) {
    if (event.injected) return;
    if (event.type == Event::Type::nmi) cpu.nmi_blocked = true;
    if (event.type != Event::Type::hardware_exception) return;
    if (event.vector == static_cast<u8>(Vector::PF)) cpu.control.cr2 = event.address;
    if (event.vector == static_cast<u8>(Vector::DB)) {
        // SDM 3A 17.2.3 "Debug Status Register (DR6)": only B0 to B3 are ever cleared by the processor.
        cpu.dr6 = (cpu.dr6 & ~u64{0xF}) | event.address | DR6::fixed1;
        cpu.dr7 &= ~DR7::GD;
        cpu.debugctl &= ~(DEBUGCTL::LBR | DEBUGCTL::BTF); // (SDM 3A 17.4.1 "IA32_DEBUGCTL MSR")
    }
}

/// Whether the event is one about which the extension is asked: hardware interrupts and NMIs were looked at
/// by Virtualization::boundary().
bool to_be_asked(const Cpu& cpu, const Event& event) {
    return cpu.in_guest && !event.injected && event.type != Event::Type::external_interrupt &&
           event.type != Event::Type::nmi;
}

/// An exception met while `first` was being delivered.
Event nested_event(const Stop& stop, const Event& first) {
    Event second{.vector = static_cast<u8>(stop.vector),
                 .type = Event::Type::hardware_exception,
                 .has_error = stop.has_error,
                 .error = stop.error,
                 .address = stop.address};
    // SDM 3A 6.13 "Error Code": EXT says that the exception was met on behalf of an event from outside the
    // program.
    const bool selector_code = stop.vector == Vector::TS || stop.vector == Vector::NP ||
                               stop.vector == Vector::SS || stop.vector == Vector::GP;
    if (selector_code && !from_program(first)) second.error |= 1;
    return second;
}

/// SDM 3A Table 6-5 "Conditions for Generating a Double Fault".
bool makes_double_fault(const Event& first, const Event& second) {
    const EventClass a = event_class(first);
    const EventClass b = event_class(second);
    if (a == EventClass::contributory) return b == EventClass::contributory;
    if (a == EventClass::page_fault) return b == EventClass::contributory || b == EventClass::page_fault;
    return false;
}

/// An exception while the double-fault handler is called: shutdown, or an exit.
Result<void> triple_fault(Cpu& cpu) {
    cpu.delivering.reset();
    if (cpu.in_guest) TRY(cpu.virtualization->triple_fault(cpu));
    cpu.activity = Activity::shutdown;
    cpu.next_rip = cpu.rip;
    cpu.attention();
    return {};
}

/// `first` met `second`: what is to be delivered now, or the exit that one of them caused. Nothing: shutdown.
Result<std::optional<Event>> combine(Cpu& cpu, const Event& first, const Event& second) {
    // The second exception is looked at for itself before it becomes part of a double fault.
    if (to_be_asked(cpu, second)) TRY(cpu.virtualization->event(cpu, second));
    leave_traces(cpu, second);
    cpu.delivering.reset();
    if (event_class(first) == EventClass::double_fault && event_class(second) != EventClass::benign) {
        TRY(triple_fault(cpu));
        return std::optional<Event>{};
    }
    if (!makes_double_fault(first, second)) return std::optional<Event>{second};
    const Event double_fault{.vector = static_cast<u8>(Vector::DF),
                             .type = Event::Type::hardware_exception,
                             .has_error = true,
                             .error = 0};
    if (to_be_asked(cpu, double_fault)) TRY(cpu.virtualization->event(cpu, double_fault));
    return std::optional<Event>{double_fault};
}

/// #AC on a misaligned stack of CPL 3, whose handler is called on that stack: the same again, for ever.
bool repeats(const Event& first, const Event& second) {
    return first.vector == second.vector && first.type == second.type && !first.injected;
}

/// Delivers `event`, about which everybody has been asked, and what comes of it.
Result<void> deliver_asked(Cpu& cpu, Event event) {
    const u64 source = cpu.rip;
    for (;;) {
        cpu.delivering = event;
        const Result<void> called = call_handler(cpu, event);
        if (called.ok()) {
            cpu.delivering.reset();
            if (cpu.debugctl & DEBUGCTL::LBR) record_event(cpu, source, cpu.rip);
            cpu.event_delivered = true;
            cpu.activity = Activity::active;
            cpu.clear_shadow();
            return {};
        }
        const Stop& stop = called.stop();
        if (stop.kind == Stop::Kind::second_level) {
            // An exit with the event as IDT-vectoring information; if there is none, delivery starts again.
            TRY(cpu.virtualization->second_level_fault(cpu));
            continue;
        }
        if (stop.kind != Stop::Kind::exception) return stop;
        const auto next = TRY(combine(cpu, event, nested_event(stop, event)));
        if (!next) return {};
        if (repeats(event, *next)) {
            cpu.delivering = event;
            if (cpu.in_guest) TRY(cpu.virtualization->endless_delivery(cpu));
            return cpu.unmodelled("an exception whose delivery causes itself, for ever (the processor hangs)",
                                  "SDM 3A 6.15 \"Interrupt 17 - Alignment Check Exception (#AC)\"");
        }
        event = *next;
    }
}

} // namespace

Result<void> Cpu::deliver(const Event& event) {
    delivering.reset();
    if (to_be_asked(*this, event)) TRY(virtualization->event(*this, event));
    // Delivery ends waiting and blocking; an exit that the event itself causes finds them as they were (SDM 3C 27.1).
    activity = Activity::active;
    clear_shadow();
    leave_traces(*this, event);
    const Result<void> result = deliver_asked(*this, event);
    // After an exit nothing is under way any more; the exit has recorded what was.
    if (!result.ok()) delivering.reset();
    return result;
}

Result<void> Cpu::raise(const Stop& stop) {
    return deliver(Event{.vector = static_cast<u8>(stop.vector),
                         .type = Event::Type::hardware_exception,
                         .has_error = stop.has_error,
                         .error = stop.error,
                         .address = stop.address});
}

} // namespace exeunt
