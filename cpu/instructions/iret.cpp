// IRET, IRETD, IRETQ: back from a handler, in every mode, to every mode.
// SDM 2A IRET/IRETD/IRETQ; the checks stand in the order of "Operation" there. SDM 3B 20.3 "Interrupt and
// Exception Handling in Virtual-8086 Mode"; SDM 3A 6.7.1 "Handling Multiple NMIs".
#include "cpu/instructions.hpp"
#include "cpu/instructions/far_transfer.hpp"
#include "cpu/task_switch.hpp"

namespace exeunt {

namespace {

/// The three values that every IRET pops, still on the stack.
struct ReturnFrame {
    u64 offset = 0;
    u16 selector = 0;
    u64 flags = 0;
};

Result<ReturnFrame> peek_frame(Cpu& cpu, unsigned bytes) {
    ReturnFrame frame;
    frame.offset = TRY(cpu.peek_stack(0, bytes));
    frame.selector = static_cast<u16>(TRY(cpu.peek_stack(bytes, bytes)));
    frame.flags = TRY(cpu.peek_stack(2 * bytes, bytes));
    return frame;
}

/// The bits of RFLAGS in `mask` come from `image`.
u64 merge_flags(const Cpu& cpu, u64 image, u64 mask) { return (cpu.rflags() & ~mask) | (image & mask); }

/// What a return in protected mode may change, by the privilege that it starts from.
u64 writable_flags(const Cpu& cpu, unsigned bytes) {
    u64 mask = RFLAGS::arithmetic | RFLAGS::TF | RFLAGS::DF | RFLAGS::NT;
    if (bytes >= 4) mask |= RFLAGS::RF | RFLAGS::AC | RFLAGS::ID;
    if (cpu.cpl <= cpu.iopl()) mask |= RFLAGS::IF;
    if (cpu.cpl == 0) mask |= RFLAGS::IOPL | (bytes >= 4 ? RFLAGS::VIF | RFLAGS::VIP : 0);
    return mask;
}

Result<void> return_real(Cpu& cpu, unsigned bytes) {
    const ReturnFrame frame = TRY(peek_frame(cpu, bytes));
    TRY(check_target(cpu, cpu.seg(Seg::CS), frame.offset));
    cpu.add_rsp(3 * bytes);
    enter_code_8086(cpu, frame.selector, frame.offset);
    replace_flags(cpu, merge_flags(cpu, frame.flags, bytes == 2 ? 0xFFFF : 0x257FD5));
    return {};
}

/// "RETURN-FROM-VIRTUAL-8086-MODE": stays in virtual-8086 mode.
Result<void> return_in_8086(Cpu& cpu, unsigned bytes) {
    const bool virtual_interrupts = cpu.iopl() < 3;
    if (virtual_interrupts && (bytes != 2 || !(cpu.control.cr4 & CR4::VME))) return general_protection(0);
    const ReturnFrame frame = TRY(peek_frame(cpu, bytes));
    TRY(check_target(cpu, cpu.seg(Seg::CS), frame.offset));
    u64 mask = writable_flags(cpu, bytes) & ~RFLAGS::IOPL;
    u64 image = frame.flags;
    if (virtual_interrupts) {
        if ((image & RFLAGS::TF) || ((image & RFLAGS::IF) && cpu.flag(RFLAGS::VIP)))
            return general_protection(0);
        mask = (mask & ~RFLAGS::IF) | RFLAGS::VIF;
        image = image & RFLAGS::IF ? image | RFLAGS::VIF : image & ~RFLAGS::VIF;
    }
    cpu.add_rsp(3 * bytes);
    enter_code_8086(cpu, frame.selector, frame.offset);
    replace_flags(cpu, merge_flags(cpu, image, mask));
    return {};
}

/// "RETURN-TO-VIRTUAL-8086-MODE": from privilege level 0, with all segment registers on the stack.
Result<void> return_to_8086(Cpu& cpu, const ReturnFrame& frame) {
    static constexpr Seg order[] = {Seg::SS, Seg::ES, Seg::DS, Seg::FS, Seg::GS};
    const u64 esp = TRY(cpu.peek_stack(12, 4));
    u16 selectors[5];
    for (unsigned i = 0; i < 5; ++i) selectors[i] = static_cast<u16>(TRY(cpu.peek_stack(16 + 4 * i, 4)));
    if (frame.offset > 0xFFFF) return general_protection(0);
    cpu.cpl = 3;
    cpu.flags.rest |= RFLAGS::VM;
    for (unsigned i = 0; i < 5; ++i) load_segment_8086(cpu, order[i], selectors[i]);
    cpu.r[RSP] = esp;
    enter_code_8086(cpu, frame.selector, frame.offset);
    replace_flags(cpu, frame.flags);
    return {};
}

/// "TASK-RETURN"
Result<void> return_to_task(Cpu& cpu) {
    const auto link = static_cast<u16>(TRY(cpu.load_linear(cpu.seg(Seg::TR).base, 2, true)));
    const u32 error = selector_error(link);
    if (link & 4) return exception(Vector::TS, error);
    const TableEntry tss = TRY(fetch_descriptor(cpu, link, Vector::TS));
    const Descriptor& d = tss.descriptor;
    if (!d.system() || (d.type() != SystemType::tss_busy && d.type() != SystemType::tss16_busy))
        return exception(Vector::TS, error);
    if (!d.present()) return exception(Vector::NP, error);
    return switch_task_by_instruction(cpu, tss, TaskSwitch::Source::iret);
}

/// "PROTECTED-MODE-RETURN" and "IA-32e-MODE-RETURN"
Result<void> return_protected(Cpu& cpu, const ReturnFrame& frame, unsigned bytes) {
    TableEntry code = TRY(fetch_return_segment(cpu, frame.selector));
    const unsigned cpl = frame.selector & 3;
    const bool outer = cpl > cpu.cpl;
    // In 64-bit mode SS:RSP is always there.
    const bool pops_stack = outer || cpu.code64();
    Segment ss;
    u64 pointer = 0;
    if (pops_stack) {
        pointer = TRY(cpu.peek_stack(3 * bytes, bytes));
        const auto selector = static_cast<u16>(TRY(cpu.peek_stack(4 * bytes, bytes)));
        ss = TRY(outer_stack_segment(cpu, code.segment(), selector));
    }
    TRY(check_target(cpu, code.segment(), frame.offset));
    TRY(mark_accessed(cpu, code));
    const u64 flags = merge_flags(cpu, frame.flags, writable_flags(cpu, bytes));
    if (!pops_stack) cpu.add_rsp(3 * bytes);
    set_code_segment(cpu, code.segment(), cpl);
    cpu.next_rip = frame.offset;
    if (pops_stack) set_outer_stack(cpu, ss, pointer);
    if (outer) drop_inner_data_segments(cpu);
    replace_flags(cpu, flags);
    return {};
}

Result<void> interrupt_return(Cpu& cpu, unsigned bytes) {
    // NMIs are unblocked even when the instruction faults (SDM 3A 6.7.1).
    if (cpu.in_guest) {
        cpu.virtualization->iret(cpu);
    } else {
        cpu.nmi_blocked = false;
    }
    if (cpu.nmi_pending) cpu.attention();
    if (cpu.real_mode()) return return_real(cpu, bytes);
    if (cpu.v8086()) return return_in_8086(cpu, bytes);
    if (cpu.flag(RFLAGS::NT)) {
        if (cpu.long_mode_active()) return general_protection(0);
        return return_to_task(cpu);
    }
    const ReturnFrame frame = TRY(peek_frame(cpu, bytes));
    if ((frame.flags & RFLAGS::VM) && bytes == 4 && cpu.cpl == 0 && !cpu.long_mode_active())
        return return_to_8086(cpu, frame);
    return return_protected(cpu, frame, bytes);
}

} // namespace

Result<void> exec_IRET(Cpu& cpu, const Insn&) { return interrupt_return(cpu, 2); }
Result<void> exec_IRETD(Cpu& cpu, const Insn&) { return interrupt_return(cpu, 4); }
Result<void> exec_IRETQ(Cpu& cpu, const Insn&) { return interrupt_return(cpu, 8); }

} // namespace exeunt
