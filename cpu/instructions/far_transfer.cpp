// Far JMP, CALL and RET: to code segments, through call gates, to tasks, back to outer levels.
// SDM 2A JMP, CALL; SDM 2B RET; SDM 3A 5.8 "Privilege Level Checking when Transferring Program Control
// between Code Segments". The checks stand in the order of "Operation" there.
// Not modelled: shadow stacks (no model offers CET).
#include "cpu/instructions/far_transfer.hpp"

#include "cpu/instructions.hpp"
#include "cpu/task_switch.hpp"

namespace exeunt {

Result<FarPointer> load_far_pointer(Cpu& cpu, const Insn& insn, unsigned bytes) {
    if (bytes == 8 && cpu.model.has(Quirk::far_pointers_of_32_bits)) bytes = 4;
    const u64 at = cpu.effective_address(insn);
    const u64 offset = TRY(cpu.load(insn.memory.segment, at, bytes));
    const u64 selector =
        TRY(cpu.load(insn.memory.segment, (at + bytes) & low_mask(8 * insn.address_size), 2));
    return FarPointer{static_cast<u16>(selector), offset};
}

void enter_code_8086(Cpu& cpu, u16 selector, u64 offset) {
    load_segment_8086(cpu, Seg::CS, selector);
    cpu.next_rip = offset;
    cpu.mode_changed();
}

void enter_code(Cpu& cpu, const Segment& code, unsigned cpl, u64 offset) {
    set_code_segment(cpu, code, cpl);
    cpu.next_rip = offset;
    cpu.mode_changed();
}

namespace {

Result<FarPointer> target_of(Cpu& cpu, const Insn& insn) {
    if (insn.operand[0].kind == OperandKind::far_pointer)
        return FarPointer{insn.immediate2, insn.immediate & low_mask(8 * insn.operand_size)};
    return load_far_pointer(cpu, insn, insn.operand_size);
}

bool in_8086_style(const Cpu& cpu) { return cpu.real_mode() || cpu.v8086(); }

/// A code segment named directly: "CONFORMING-CODE-SEGMENT" and "NONCONFORMING-CODE-SEGMENT".
Result<void> check_direct_target(const Cpu& cpu, const TableEntry& code) {
    const Descriptor& d = code.descriptor;
    const u32 error = selector_error(code.selector);
    TRY(check_code_width(cpu, code));
    const bool allowed =
        d.conforming() ? d.dpl() <= cpu.cpl : (code.selector & 3u) <= cpu.cpl && d.dpl() == cpu.cpl;
    if (!allowed) return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    return {};
}

/// What else a far JMP or CALL can name.
enum class Target : u8 { code, call_gate, task_gate, tss };

Result<Target> classify(const Cpu& cpu, const TableEntry& entry) {
    const Descriptor& d = entry.descriptor;
    if (d.code()) return Target::code;
    const bool legacy = !cpu.long_mode_active();
    if (d.system()) switch (d.type()) {
        case SystemType::call_gate: return Target::call_gate;
        case SystemType::call_gate16:
            if (legacy) return Target::call_gate;
            break;
        case SystemType::task_gate:
            if (legacy) return Target::task_gate;
            break;
        case SystemType::tss_available:
        case SystemType::tss16_available:
        case SystemType::tss_busy:
        case SystemType::tss16_busy:
            if (legacy) return Target::tss;
            break;
        default: break;
        }
    return general_protection(selector_error(entry.selector));
}

/// A call gate that may be used, and the code segment behind it.
struct CallGate {
    TableEntry code;
    u64 offset = 0;
    unsigned bytes = 8;
    unsigned parameters = 0;
};

/// "CALL-GATE": the gate's own privilege, then the segment behind it, as far as JMP and CALL agree.
Result<CallGate> open_call_gate(Cpu& cpu, TableEntry entry) {
    const Descriptor& d = entry.descriptor;
    const u32 error = selector_error(entry.selector);
    if (d.dpl() < cpu.cpl || (entry.selector & 3u) > d.dpl()) return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    TRY(fetch_upper(cpu, entry, Vector::GP));
    const u16 selector = d.gate_selector();
    if (null_selector(selector)) return general_protection(0);
    CallGate gate;
    gate.code = TRY(fetch_descriptor(cpu, selector, Vector::GP));
    const Descriptor& code = gate.code.descriptor;
    if (!code.code() || code.dpl() > cpu.cpl) return general_protection(selector_error(selector));
    if (cpu.long_mode_active() && (code.access() & (AR::L | AR::DB)) != AR::L)
        return general_protection(selector_error(selector));
    if (!code.present()) return exception(Vector::NP, selector_error(selector));
    if (cpu.long_mode_active()) {
        gate.offset = d.gate_offset() | (entry.upper << 32);
    } else {
        const bool wide = d.type() == SystemType::call_gate;
        gate.bytes = wide ? 4 : 2;
        gate.offset = wide ? d.gate_offset() : d.gate_offset() & 0xFFFF;
        gate.parameters = d.gate_parameters();
    }
    return gate;
}

/// "TASK-GATE" and "TASK-STATE-SEGMENT".
Result<void> transfer_to_task(Cpu& cpu, const TableEntry& entry, Target kind, TaskSwitch::Source source) {
    const Descriptor& d = entry.descriptor;
    const u32 error = selector_error(entry.selector);
    if (d.dpl() < cpu.cpl || (entry.selector & 3u) > d.dpl()) return general_protection(error);
    if (kind == Target::tss)
        return switch_task_by_instruction(cpu, TRY(available_task(cpu, entry.selector)), source);
    if (!d.present()) return exception(Vector::NP, error);
    return switch_task_by_instruction(cpu, TRY(available_task(cpu, d.gate_selector())), source);
}

// ---- JMP
// ---------------------------------------------------------------------------------------------------------

Result<void> jump_through_gate(Cpu& cpu, const TableEntry& entry) {
    CallGate gate = TRY(open_call_gate(cpu, entry));
    // A jump never changes CPL.
    if (!gate.code.descriptor.conforming() && gate.code.descriptor.dpl() != cpu.cpl)
        return general_protection(selector_error(gate.code.selector));
    TRY(check_target(cpu, gate.code.segment(), gate.offset));
    TRY(mark_accessed(cpu, gate.code));
    enter_code(cpu, gate.code.segment(), cpu.cpl, gate.offset);
    return {};
}

// ---- CALL
// --------------------------------------------------------------------------------------------------------

Result<void> call_direct(Cpu& cpu, TableEntry code, u64 offset, unsigned bytes) {
    TRY(check_direct_target(cpu, code));
    StackFrame frame(cpu, current_stack(cpu), cpu.cpl, 0);
    TRY(frame.push(cpu.seg(Seg::CS).selector, bytes));
    TRY(frame.push(cpu.next_rip, bytes));
    TRY(check_target(cpu, code.segment(), offset));
    TRY(mark_accessed(cpu, code));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    enter_code(cpu, code.segment(), cpu.cpl, offset);
    return {};
}

/// "SAME-PRIVILEGE"
Result<void> call_gate_same(Cpu& cpu, CallGate& gate) {
    StackFrame frame(cpu, current_stack(cpu, gate.code.segment()), cpu.cpl, 0);
    TRY(frame.push(cpu.seg(Seg::CS).selector, gate.bytes));
    TRY(frame.push(cpu.next_rip, gate.bytes));
    TRY(check_target(cpu, gate.code.segment(), gate.offset));
    TRY(mark_accessed(cpu, gate.code));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    enter_code(cpu, gate.code.segment(), cpu.cpl, gate.offset);
    return {};
}

/// "MORE-PRIVILEGE"
Result<void> call_gate_inner(Cpu& cpu, CallGate& gate) {
    const unsigned cpl = gate.code.descriptor.dpl();
    const StackPointer stack = TRY(inner_stack(cpu, cpl));
    StackFrame frame(cpu, stack, cpl, selector_error(stack.ss.selector));
    TRY(frame.push(cpu.seg(Seg::SS).selector, gate.bytes));
    TRY(frame.push(cpu.r[RSP], gate.bytes));
    for (unsigned i = gate.parameters; i-- > 0;)
        TRY(frame.push(TRY(cpu.peek_stack(i * gate.bytes, gate.bytes)), gate.bytes));
    TRY(frame.push(cpu.seg(Seg::CS).selector, gate.bytes));
    TRY(frame.push(cpu.next_rip, gate.bytes));
    TRY(check_target(cpu, gate.code.segment(), gate.offset));
    TRY(mark_accessed(cpu, gate.code));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    cpu.seg(Seg::SS) = stack.ss;
    enter_code(cpu, gate.code.segment(), cpl, gate.offset);
    return {};
}

Result<void> call_through_gate(Cpu& cpu, const TableEntry& entry) {
    CallGate gate = TRY(open_call_gate(cpu, entry));
    const Descriptor& code = gate.code.descriptor;
    const bool inner = !code.conforming() && code.dpl() < cpu.cpl;
    return inner ? call_gate_inner(cpu, gate) : call_gate_same(cpu, gate);
}

/// Real-address and virtual-8086 mode.
Result<void> call_8086(Cpu& cpu, const FarPointer& to, unsigned bytes) {
    StackFrame frame(cpu, current_stack(cpu), cpu.cpl, 0);
    TRY(frame.push(cpu.seg(Seg::CS).selector, bytes));
    TRY(frame.push(cpu.next_rip, bytes));
    TRY(check_target(cpu, cpu.seg(Seg::CS), to.offset));
    TRY(frame.write());
    cpu.r[RSP] = frame.pointer();
    enter_code_8086(cpu, to.selector, to.offset);
    return {};
}

} // namespace

Result<void> far_jump(Cpu& cpu, const Insn& insn) {
    const FarPointer to = TRY(target_of(cpu, insn));
    if (in_8086_style(cpu)) {
        TRY(check_target(cpu, cpu.seg(Seg::CS), to.offset));
        enter_code_8086(cpu, to.selector, to.offset);
        return {};
    }
    if (null_selector(to.selector)) return general_protection(0);
    TableEntry entry = TRY(fetch_descriptor(cpu, to.selector, Vector::GP));
    const Target kind = TRY(classify(cpu, entry));
    if (kind == Target::call_gate) return jump_through_gate(cpu, entry);
    if (kind != Target::code) return transfer_to_task(cpu, entry, kind, TaskSwitch::Source::jmp);
    TRY(check_direct_target(cpu, entry));
    TRY(check_target(cpu, entry.segment(), to.offset));
    TRY(mark_accessed(cpu, entry));
    enter_code(cpu, entry.segment(), cpu.cpl, to.offset);
    return {};
}

Result<void> far_call(Cpu& cpu, const Insn& insn) {
    const FarPointer to = TRY(target_of(cpu, insn));
    if (in_8086_style(cpu)) return call_8086(cpu, to, insn.operand_size);
    if (null_selector(to.selector)) return general_protection(0);
    const TableEntry entry = TRY(fetch_descriptor(cpu, to.selector, Vector::GP));
    const Target kind = TRY(classify(cpu, entry));
    if (kind == Target::call_gate) return call_through_gate(cpu, entry);
    if (kind != Target::code) return transfer_to_task(cpu, entry, kind, TaskSwitch::Source::call);
    return call_direct(cpu, entry, to.offset, insn.operand_size);
}

// ---- RET
// ---------------------------------------------------------------------------------------------------------

Result<Segment> outer_stack_segment(Cpu& cpu, const Segment& code, u16 selector) {
    const unsigned cpl = code.selector & 3;
    if (null_selector(selector)) {
        const bool allowed = is_code64(cpu, code) && cpl != 3 && (selector & 3u) == cpl;
        if (!allowed) return general_protection(0);
        return null_stack_segment(cpl, selector);
    }
    TableEntry stack = TRY(fetch_stack_segment(cpu, selector, cpl, Vector::GP));
    TRY(mark_accessed(cpu, stack));
    return stack.segment();
}

void set_outer_stack(Cpu& cpu, const Segment& ss, u64 pointer) {
    cpu.seg(Seg::SS) = ss;
    switch (cpu.stack_bytes()) {
    case 2: cpu.r[RSP] = (cpu.r[RSP] & ~u64{0xFFFF}) | (pointer & 0xFFFF); break;
    case 4: cpu.r[RSP] = low32(pointer); break;
    default: cpu.r[RSP] = pointer; break;
    }
}

Result<void> far_return(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size;
    const unsigned parameters = insn.opcode == 0xCA ? insn.immediate & 0xFFFF : 0;
    const u64 offset = TRY(cpu.peek_stack(0, bytes));
    const auto selector = static_cast<u16>(TRY(cpu.peek_stack(bytes, bytes)));
    if (in_8086_style(cpu)) {
        TRY(check_target(cpu, cpu.seg(Seg::CS), offset));
        cpu.add_rsp(2 * bytes + parameters);
        enter_code_8086(cpu, selector, offset);
        return {};
    }
    TableEntry code = TRY(fetch_return_segment(cpu, selector));
    const unsigned cpl = selector & 3;
    if (cpl == cpu.cpl) {
        TRY(check_target(cpu, code.segment(), offset));
        TRY(mark_accessed(cpu, code));
        cpu.add_rsp(2 * bytes + parameters);
        enter_code(cpu, code.segment(), cpl, offset);
        return {};
    }
    // "RETURN-OUTER-PRIVILEGE-LEVEL": the parameters lie on both stacks.
    const u64 pointer = TRY(cpu.peek_stack(2 * bytes + parameters, bytes));
    const auto stack_selector = static_cast<u16>(TRY(cpu.peek_stack(3 * bytes + parameters, bytes)));
    const Segment ss = TRY(outer_stack_segment(cpu, code.segment(), stack_selector));
    TRY(check_target(cpu, code.segment(), offset));
    TRY(mark_accessed(cpu, code));
    enter_code(cpu, code.segment(), cpl, offset);
    set_outer_stack(cpu, ss, pointer + parameters);
    drop_inner_data_segments(cpu);
    return {};
}

} // namespace exeunt
