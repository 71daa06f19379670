// The way from an event to the first instruction of its handler, in every mode.
// SDM 3A 6.12 "Exception and Interrupt Handling", 6.14 "Exception and Interrupt Handling in 64-bit
// Mode"; the order of the checks is that of SDM 2A INT n/INTO/INT3/INT1 "Operation". Real-address mode:
// SDM 3B 20.1.4 "Interrupt and Exception Handling".
// Not modelled: shadow stacks (no model offers CET).
#include "cpu/events.hpp"
#include "cpu/instructions/io.hpp"
#include "cpu/stack_frame.hpp"
#include "cpu/task_switch.hpp"

namespace exeunt {

namespace {

/// An interrupt or trap gate, whichever its width.
struct Gate {
    u16 selector = 0;
    u64 offset = 0;
    unsigned bytes = 8; ///< of each value pushed
    unsigned ist = 0;
    bool interrupt = false; ///< clears IF
};

/// The error code that names an entry of the IDT: index, and bit 1 (SDM 3A Figure 6-6 "Error Code").
u32 idt_error(const Event& event) { return event.vector * 8u + 2; }

// ---- Real-address mode
// -------------------------------------------------------------------------------------------

Result<void> call_real(Cpu& cpu, const Event& event) {
    if (event.vector * 4u + 3 > cpu.idtr.limit) return general_protection(0);
    const u64 vector = TRY(cpu.load_linear((cpu.idtr.base + event.vector * 4u) & 0xFFFF'FFFF, 4, true));
    StackFrame frame(cpu, current_stack(cpu), cpu.cpl, 0);
    TRY(frame.push(saved_flags(cpu, event), 2));
    TRY(frame.push(cpu.seg(Seg::CS).selector, 2));
    TRY(frame.push(saved_rip(cpu, event), 2));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    load_segment_8086(cpu, Seg::CS, static_cast<u16>(vector >> 16));
    cpu.rip = cpu.next_rip = vector & 0xFFFF;
    cpu.flags.rest &= ~(RFLAGS::IF | RFLAGS::TF | RFLAGS::AC | RFLAGS::RF);
    cpu.mode_changed();
    return {};
}

// ---- Gates
// -------------------------------------------------------------------------------------------------------

Result<TableEntry> read_gate(Cpu& cpu, const Event& event) {
    const unsigned size = cpu.long_mode_active() ? 16 : 8;
    if (event.vector * size + size - 1 > cpu.idtr.limit) return general_protection(idt_error(event));
    TableEntry gate;
    const u64 address = cpu.idtr.base + event.vector * size;
    gate.address = cpu.long_mode_active() ? address : address & 0xFFFF'FFFF;
    gate.descriptor.raw = TRY(cpu.load_linear(gate.address, 8, true));
    if (size == 16) gate.upper = TRY(cpu.load_linear(gate.address + 8, 8, true));
    return gate;
}

bool gate_type_valid(const Cpu& cpu, const Descriptor& gate) {
    if (!gate.system()) return false;
    switch (gate.type()) {
    case SystemType::interrupt_gate:
    case SystemType::trap_gate: return true;
    case SystemType::task_gate:
    case SystemType::interrupt_gate16:
    case SystemType::trap_gate16: return !cpu.long_mode_active();
    default: return false;
    }
}

Gate gate_of(const Cpu& cpu, const TableEntry& entry) {
    const Descriptor& d = entry.descriptor;
    Gate gate;
    gate.selector = d.gate_selector();
    gate.interrupt = d.type() == SystemType::interrupt_gate || d.type() == SystemType::interrupt_gate16;
    if (cpu.long_mode_active()) {
        gate.offset = d.gate_offset() | (u64{low32(entry.upper)} << 32);
        gate.ist = d.gate_ist();
    } else if (d.type() & 8) {
        gate.bytes = 4;
        gate.offset = d.gate_offset();
    } else {
        gate.bytes = 2;
        gate.offset = d.gate_offset() & 0xFFFF;
    }
    return gate;
}

/// The handler's code segment, checked against CPL.
Result<TableEntry> handler_segment(Cpu& cpu, const Gate& gate) {
    if (null_selector(gate.selector)) return general_protection(0);
    const TableEntry code = TRY(fetch_descriptor(cpu, gate.selector, Vector::GP));
    const Descriptor& d = code.descriptor;
    const u32 error = selector_error(gate.selector);
    if (!d.code() || d.dpl() > cpu.cpl) return general_protection(error);
    if (cpu.long_mode_active() && (d.access() & (AR::L | AR::DB)) != AR::L) return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    // Virtual-8086 mode is left for privilege level 0 only.
    if (cpu.v8086() && (d.conforming() || d.dpl() != 0)) return general_protection(error);
    return code;
}

// ---- Through an interrupt or trap gate
// ---------------------------------------------------------------------------

/// What every handler finds: the flags that delivery clears (SDM 3A 6.12.1.2 "Flag Usage By Exception- or
/// Interrupt-Handler Procedure").
void enter_handler(Cpu& cpu, const Gate& gate, const Segment& code, unsigned cpl) {
    set_code_segment(cpu, code, cpl);
    cpu.rip = cpu.next_rip = gate.offset;
    cpu.flags.rest &=
        ~(RFLAGS::TF | RFLAGS::NT | RFLAGS::VM | RFLAGS::RF | (gate.interrupt ? RFLAGS::IF : 0));
    cpu.mode_changed();
}

/// SDM 3A 6.14.2 "64-Bit Mode Stack Frame" to 6.14.5 "Interrupt Stack Table".
Result<void> call_long(Cpu& cpu, const Event& event, const Gate& gate) {
    TableEntry code = TRY(handler_segment(cpu, gate));
    const unsigned cpl = code.descriptor.conforming() ? cpu.cpl : code.descriptor.dpl();
    const bool inner = cpl < cpu.cpl;
    StackPointer stack{cpu.seg(Seg::SS), cpu.r[RSP], 8};
    if (inner || gate.ist) stack = TRY(inner_stack(cpu, cpl, gate.ist));
    stack.pointer = align_down(stack.pointer, 16);
    StackFrame frame(cpu, stack, cpl, 0);
    TRY(frame.push(cpu.seg(Seg::SS).selector, 8));
    TRY(frame.push(cpu.r[RSP], 8));
    TRY(frame.push(saved_flags(cpu, event), 8));
    TRY(frame.push(cpu.seg(Seg::CS).selector, 8));
    TRY(frame.push(saved_rip(cpu, event), 8));
    if (event.has_error) TRY(frame.push(event.error, 8));
    TRY(check_target(cpu, code.segment(), gate.offset));
    TRY(mark_accessed(cpu, code));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    // SS stays unless CPL changes; then it is null.
    if (inner) cpu.seg(Seg::SS) = stack.ss;
    enter_handler(cpu, gate, code.segment(), cpl);
    return {};
}

Result<void> call_protected(Cpu& cpu, const Event& event, const Gate& gate) {
    TableEntry code = TRY(handler_segment(cpu, gate));
    const unsigned cpl = code.descriptor.conforming() ? cpu.cpl : code.descriptor.dpl();
    const bool inner = cpl < cpu.cpl;
    const bool from_8086 = cpu.v8086();
    const StackPointer stack = inner ? TRY(inner_stack(cpu, cpl)) : current_stack(cpu);
    const unsigned bytes = gate.bytes;
    StackFrame frame(cpu, stack, cpl, inner ? selector_error(stack.ss.selector) : 0);
    if (from_8086)
        for (const Seg where : {Seg::GS, Seg::FS, Seg::DS, Seg::ES})
            TRY(frame.push(cpu.seg(where).selector, bytes));
    if (inner) {
        TRY(frame.push(cpu.seg(Seg::SS).selector, bytes));
        TRY(frame.push(cpu.r[RSP], bytes));
    }
    TRY(frame.push(saved_flags(cpu, event), bytes));
    TRY(frame.push(cpu.seg(Seg::CS).selector, bytes));
    TRY(frame.push(saved_rip(cpu, event), bytes));
    if (event.has_error) TRY(frame.push(event.error, bytes));
    TRY(check_target(cpu, code.segment(), gate.offset));
    TRY(mark_accessed(cpu, code));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    if (inner) cpu.seg(Seg::SS) = stack.ss;
    if (from_8086)
        for (const Seg where : {Seg::GS, Seg::FS, Seg::DS, Seg::ES}) load_null(cpu, where, 0);
    enter_handler(cpu, gate, code.segment(), cpl);
    return {};
}

// ---- Through a task gate
// -----------------------------------------------------------------------------------------

/// SDM 3A 6.12.2 "Interrupt Tasks".
Result<void> call_task(Cpu& cpu, const Event& event, u16 selector) {
    const TableEntry tss = TRY(available_task(cpu, selector));
    const TaskSwitch what{.selector = selector,
                          .source = TaskSwitch::Source::idt_gate,
                          .has_error = event.has_error,
                          .error = event.error};
    const OutgoingTask outgoing{.rip = saved_rip(cpu, event), .flags = saved_flags(cpu, event)};
    const Stop fault = TRY(switch_task(cpu, tss, what, outgoing)).fault;
    if (fault.kind != Stop::Kind::none) return fault;
    if (event.has_error) {
        StackFrame frame(cpu, current_stack(cpu), cpu.cpl, 0);
        TRY(frame.push(event.error, cpu.seg(Seg::TR).type() & 8 ? 4 : 2));
        TRY(frame.write());
        cpu.r[RSP] = frame.pointer();
    }
    return check_target(cpu, cpu.seg(Seg::CS), cpu.rip);
}

} // namespace

Result<void> interrupt_8086(Cpu& cpu, u8 vector) {
    const u64 entry = TRY(cpu.load_linear(4u * vector, 4, true));
    const bool own_flags = cpu.iopl() == 3;
    const u64 interrupt_flag = own_flags ? RFLAGS::IF : RFLAGS::VIF;
    u64 image = cpu.rflags() & 0xFFFF;
    if (!own_flags) {
        image = (image & ~RFLAGS::IF) | RFLAGS::IOPL;
        if (cpu.flag(RFLAGS::VIF)) image |= RFLAGS::IF;
    }
    const u64 words[3] = {image, cpu.seg(Seg::CS).selector, cpu.next_rip & 0xFFFF};
    WriteTarget targets[3];
    const u64 mask = low_mask(8 * cpu.stack_bytes());
    for (unsigned i = 0; i < 3; ++i)
        targets[i] = TRY(cpu.prepare_write(Seg::SS, (cpu.r[RSP] - 2 * (i + 1)) & mask, 2));
    for (unsigned i = 0; i < 3; ++i) TRY(cpu.commit(targets[i], words[i]));
    cpu.add_rsp(-6);
    Segment& cs = cpu.seg(Seg::CS);
    cs.selector = static_cast<u16>(entry >> 16);
    cs.base = u64{cs.selector} << 4;
    cpu.next_rip = entry & 0xFFFF;
    cpu.set_rflags(cpu.rflags() & ~(interrupt_flag | RFLAGS::TF));
    cpu.mode_changed();
    return {};
}

Result<void> call_handler(Cpu& cpu, const Event& event) {
    if (cpu.real_mode()) return call_real(cpu, event);
    if (cpu.v8086() && event.injected && event.type == Event::Type::software_interrupt) {
        // INT n itself was sorted out by the instruction; here it comes from VM entry, which looks at the redirection
        // bitmap, too, but not at IOPL (SDM 3C 26.5.1.1).
        if ((cpu.control.cr4 & CR4::VME) && !TRY(redirection_bit(cpu, event.vector))) {
            cpu.next_rip = saved_rip(cpu, event);
            TRY(interrupt_8086(cpu, event.vector));
            cpu.rip = cpu.next_rip;
            return {};
        }
    }
    const TableEntry entry = TRY(read_gate(cpu, event));
    const Descriptor& d = entry.descriptor;
    if (!gate_type_valid(cpu, d)) return general_protection(idt_error(event));
    if (from_program(event) && d.dpl() < cpu.cpl) return general_protection(idt_error(event));
    if (!d.present()) return exception(Vector::NP, idt_error(event));
    if (d.type() == SystemType::task_gate) return call_task(cpu, event, d.gate_selector());
    const Gate gate = gate_of(cpu, entry);
    return cpu.long_mode_active() ? call_long(cpu, event, gate) : call_protected(cpu, event, gate);
}

} // namespace exeunt
