// Delivery of one event through the interrupt vector table or the IDT. Cpu::deliver() is built on it.
// SDM 3A ch. 6 "Interrupt and Exception Handling", SDM 3B 20.3 "Interrupt and Exception Handling in
// Virtual-8086 Mode".
#pragma once

#include "cpu/cpu.hpp"

namespace exeunt {

/// SDM 3A Table 6-4 "Interrupt and Exception Classes".
enum class EventClass : u8 { benign, contributory, page_fault, double_fault };
EventClass event_class(const Event& event);

/// INT n, INT3, INTO: delivered under control of the program (EXT = 0, gate DPL is checked).
constexpr bool from_program(const Event& event) {
    return event.type == Event::Type::software_interrupt || event.type == Event::Type::software_exception;
}

/// The return address and the RFLAGS image that this event saves.
u64 saved_rip(const Cpu& cpu, const Event& event);
u64 saved_flags(const Cpu& cpu, const Event& event);

/// Calls the handler. What stops it changed nothing, except after a task switch: then it is a fault of the
/// new task. Error codes come without EXT.
Result<void> call_handler(Cpu& cpu, const Event& event);

/// INT n in virtual-8086 mode with its bit clear in the redirection bitmap: the 8086 program's own handler, as in
/// real-address mode (SDM 3B 20.3.3, methods 5 and 6 of Table 20-2). `next_rip` is saved, and becomes the handler's.
Result<void> interrupt_8086(Cpu& cpu, u8 vector);

} // namespace exeunt
