// Hardware task switches, by JMP, CALL, IRET and through the IDT, between 16- and 32-bit TSSs.
// SDM 3A 7.3 "Task Switching" gives the steps, Table 7-1 the order of the checks, 7.2.1 and 7.6 the TSS
// formats. General registers that a 16-bit TSS does not hold keep their upper halves.
// Not modelled: shadow stacks (no model offers CET).
#include "cpu/task_switch.hpp"

#include <algorithm>
#include <array>

namespace exeunt {

namespace {

/// Where a TSS has what: SDM 3A Figure 7-2 "32-Bit Task-State Segment (TSS)", Figure 7-10 "16-Bit TSS
/// Format".
struct TssFormat {
    unsigned bytes; ///< of a register
    unsigned size;  ///< the smallest valid limit + 1
    unsigned ip, flags, gpr, segments, ldt;
    unsigned segment_count; ///< ES CS SS DS, and FS GS
    unsigned segment_step;
};
constexpr TssFormat tss32{4, 0x68, 0x20, 0x24, 0x28, 0x48, 0x60, 6, 4};
constexpr TssFormat tss16{2, 0x2C, 0x0E, 0x10, 0x12, 0x22, 0x2A, 4, 2};
constexpr unsigned cr3_offset = 0x1C;
constexpr unsigned trap_offset = 0x64;

const TssFormat& format_of(u32 type) { return type & 8 ? tss32 : tss16; }

/// Outside IA-32e mode, the only place where tasks are switched, linear addresses have 32 bits.
u64 at(u64 base, u64 offset) { return (base + offset) & 0xFFFF'FFFF; }
u64 current_tss_descriptor(const Cpu& cpu) { return at(cpu.gdtr.base, cpu.seg(Seg::TR).selector & 0xFFF8); }

/// A TSS as read, before anything of it is used.
struct NewTask {
    bool wide = true;
    u16 selectors[6] = {};
    u16 ldt = 0;
    u64 cr3 = 0;
    u64 ip = 0, flags = 0;
    u64 gpr[8] = {};
    bool trap = false;
};

u64 field(const u8* image, unsigned offset, unsigned bytes) {
    u64 value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= u64{image[offset + i]} << (8 * i);
    return value;
}

Result<NewTask> read_task(Cpu& cpu, const TableEntry& tss) {
    const TssFormat& f = format_of(tss.descriptor.type());
    std::array<u8, tss32.size> image{};
    TRY(cpu.load_linear_bytes(tss.descriptor.base(), image.data(), f.size, true));
    NewTask task;
    task.wide = f.bytes == 4;
    task.ip = field(image.data(), f.ip, f.bytes);
    task.flags = field(image.data(), f.flags, f.bytes);
    for (unsigned i = 0; i < 8; ++i) task.gpr[i] = field(image.data(), f.gpr + i * f.bytes, f.bytes);
    for (unsigned i = 0; i < f.segment_count; ++i)
        task.selectors[i] = static_cast<u16>(field(image.data(), f.segments + i * f.segment_step, 2));
    task.ldt = static_cast<u16>(field(image.data(), f.ldt, 2));
    if (task.wide) {
        task.cr3 = field(image.data(), cr3_offset, 4);
        task.trap = image[trap_offset] & 1;
    }
    return task;
}

/// Step 5: everything that the switch will touch is mapped, and writable where it is written.
Result<void> check_old_task(Cpu& cpu, const TableEntry& tss, TaskSwitch::Source source) {
    const Segment& tr = cpu.seg(Seg::TR);
    const TssFormat& f = format_of(tr.type());
    if (tr.limit < f.size - 1) return exception(Vector::TS, selector_error(tr.selector));
    TRY(cpu.check_linear(at(tr.base, f.ip), f.ldt - f.ip, AccessType::write, true));
    const bool nests = source == TaskSwitch::Source::call || source == TaskSwitch::Source::idt_gate;
    if (nests) {
        TRY(cpu.check_linear(tss.descriptor.base(), 2, AccessType::write, true));
    } else {
        TRY(cpu.check_linear(at(current_tss_descriptor(cpu), 5), 1, AccessType::write, true));
    }
    return cpu.check_linear(at(tss.address, 5), 1, AccessType::write, true);
}

Result<void> set_busy(Cpu& cpu, u64 descriptor, bool busy) {
    const u64 access = TRY(cpu.load_linear(at(descriptor, 5), 1, true));
    return cpu.store_linear(at(descriptor, 5), 1, busy ? access | 2 : access & ~u64{2}, true);
}

/// Steps 6 to 8.
Result<void> save_old_task(Cpu& cpu, const OutgoingTask& outgoing, TaskSwitch::Source source) {
    const Segment& tr = cpu.seg(Seg::TR);
    const TssFormat& f = format_of(tr.type());
    const bool leaves = source == TaskSwitch::Source::jmp || source == TaskSwitch::Source::iret;
    if (leaves) TRY(set_busy(cpu, current_tss_descriptor(cpu), false));
    const u64 flags = source == TaskSwitch::Source::iret ? outgoing.flags & ~RFLAGS::NT : outgoing.flags;
    TRY(cpu.store_linear(at(tr.base, f.ip), f.bytes, outgoing.rip, true));
    TRY(cpu.store_linear(at(tr.base, f.flags), f.bytes, flags, true));
    for (unsigned i = 0; i < 8; ++i)
        TRY(cpu.store_linear(at(tr.base, f.gpr + i * f.bytes), f.bytes, cpu.r[i] & low_mask(8 * f.bytes),
                             true));
    for (unsigned i = 0; i < f.segment_count; ++i)
        TRY(cpu.store_linear(at(tr.base, f.segments + i * f.segment_step), 2, cpu.segment[i].selector, true));
    return {};
}

/// The translation of the new task, when paging is on. PAE paging may refuse its PDPTEs.
struct NewTranslation {
    bool load = false;
    u64 cr3 = 0;
    u64 pdpte[4] = {};
};

Result<NewTranslation> check_translation(Cpu& cpu, const NewTask& task) {
    NewTranslation next;
    next.load = task.wide && (cpu.control.cr0 & CR0::PG);
    if (!next.load) return next;
    next.cr3 = task.cr3;
    if (!(cpu.control.cr4 & CR4::PAE)) return next;
    // The registers change with CR3, after the old task's state has been saved through the old ones.
    u64 old[4];
    std::copy_n(cpu.control.pdpte, 4, old);
    TRY(cpu.load_pdptes(next.cr3));
    std::copy_n(cpu.control.pdpte, 4, next.pdpte);
    std::copy_n(old, 4, cpu.control.pdpte);
    return next;
}

/// Step 12, all that cannot fail: registers, CR3, flags. Segments become unusable until they are loaded.
void load_registers(Cpu& cpu, const NewTask& task, const NewTranslation& translation, bool nested) {
    if (translation.load) {
        cpu.control.cr3 = translation.cr3;
        if (cpu.control.cr4 & CR4::PAE) std::copy_n(translation.pdpte, 4, cpu.control.pdpte);
        cpu.context_changed(true);
    }
    for (unsigned i = 0; i < 8; ++i)
        cpu.r[i] = task.wide ? task.gpr[i] : (cpu.r[i] & 0xFFFF'0000) | task.gpr[i];
    for (unsigned i = 0; i < 6; ++i) cpu.segment[i] = {task.selectors[i], AR::UNUSABLE, 0, 0};
    cpu.seg(Seg::LDTR) = {task.ldt, AR::UNUSABLE, 0, 0};
    const u64 flags = task.flags | (nested ? RFLAGS::NT : 0);
    const unsigned rpl = cpu.seg(Seg::CS).selector & 3;
    cpu.cpl = static_cast<u8>(flags & RFLAGS::VM ? 3 : rpl);
    cpu.control.cr0 |= CR0::TS;
    cpu.dr7 &= ~u64{0x155}; // L0 to L3 and LE are the old task's (SDM 3A 17.2.4)
    cpu.rip = cpu.next_rip = task.ip;
    cpu.set_rflags(flags);
    cpu.mode_changed();
}

// ---- Step 13: the new task's segments
// ------------------------------------------------------------------------------

/// #TS where the selector is no use at all.
Result<TableEntry> fetch_task_segment(Cpu& cpu, u16 selector) {
    if (null_selector(selector)) return exception(Vector::TS, 0);
    return fetch_descriptor(cpu, selector, Vector::TS);
}

Result<void> load_task_ldt(Cpu& cpu, u16 selector) {
    if (null_selector(selector)) return {};
    const u32 error = selector_error(selector);
    if (selector & 4) return exception(Vector::TS, error);
    const TableEntry ldt = TRY(fetch_descriptor(cpu, selector, Vector::TS));
    const Descriptor& d = ldt.descriptor;
    if (!d.system() || d.type() != SystemType::ldt || !d.present()) return exception(Vector::TS, error);
    cpu.seg(Seg::LDTR) = ldt.segment();
    return {};
}

Result<void> load_task_code_and_stack(Cpu& cpu, u16 code_selector, u16 stack_selector) {
    const u32 code_error = selector_error(code_selector);
    const u32 stack_error = selector_error(stack_selector);
    TableEntry code = TRY(fetch_task_segment(cpu, code_selector));
    const Descriptor& c = code.descriptor;
    const bool privilege = c.conforming() ? c.dpl() <= cpu.cpl : c.dpl() == cpu.cpl;
    if (!c.code() || !privilege) return exception(Vector::TS, code_error);
    TableEntry stack = TRY(fetch_task_segment(cpu, stack_selector));
    const Descriptor& s = stack.descriptor;
    const bool writable_data = !s.system() && !s.code() && (s.access() & AR::WRITABLE);
    if (!writable_data) return exception(Vector::TS, stack_error);
    if (!s.present()) return exception(Vector::SS, stack_error);
    if (s.dpl() != cpu.cpl) return exception(Vector::TS, stack_error);
    if (!c.present()) return exception(Vector::NP, code_error);
    if ((stack_selector & 3) != s.dpl()) return exception(Vector::TS, stack_error);
    TRY(mark_accessed(cpu, stack));
    cpu.seg(Seg::SS) = stack.segment();
    TRY(mark_accessed(cpu, code));
    cpu.seg(Seg::CS) = code.segment();
    return {};
}

Result<void> load_task_data(Cpu& cpu, Seg where, u16 selector) {
    if (null_selector(selector)) {
        load_null(cpu, where, selector);
        return {};
    }
    const u32 error = selector_error(selector);
    TableEntry data = TRY(fetch_descriptor(cpu, selector, Vector::TS));
    const Descriptor& d = data.descriptor;
    if (d.system() || (d.code() && !(d.access() & AR::READABLE))) return exception(Vector::TS, error);
    if (!d.present()) return exception(Vector::NP, error);
    const bool conforming = d.code() && d.conforming();
    if (!conforming && (d.dpl() < cpu.cpl || d.dpl() < (selector & 3u))) return exception(Vector::TS, error);
    TRY(mark_accessed(cpu, data));
    cpu.seg(where) = data.segment();
    return {};
}

Result<void> load_task_segments(Cpu& cpu, const NewTask& task) {
    TRY(load_task_ldt(cpu, task.ldt));
    const auto selector = [&](Seg where) { return task.selectors[static_cast<unsigned>(where)]; };
    if (cpu.v8086()) {
        for (const Seg where : {Seg::ES, Seg::CS, Seg::SS, Seg::DS, Seg::FS, Seg::GS})
            load_segment_8086(cpu, where, selector(where));
        return {};
    }
    TRY(load_task_code_and_stack(cpu, selector(Seg::CS), selector(Seg::SS)));
    for (const Seg where : {Seg::ES, Seg::DS, Seg::FS, Seg::GS})
        TRY(load_task_data(cpu, where, selector(where)));
    return {};
}

} // namespace

Result<TableEntry> available_task(Cpu& cpu, u16 selector) {
    const u32 error = selector_error(selector);
    if (selector & 4) return general_protection(error);
    const TableEntry tss = TRY(fetch_descriptor(cpu, selector, Vector::GP));
    const Descriptor& d = tss.descriptor;
    if (!d.system() || (d.type() != SystemType::tss_available && d.type() != SystemType::tss16_available))
        return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    return tss;
}

Result<SwitchedTask> switch_task(Cpu& cpu, const TableEntry& tss, const TaskSwitch& what,
                                 const OutgoingTask& outgoing) {
    // SDM 3C 25.4.2 "Treatment of Task Switches": the exit comes after the checks of gate and descriptor.
    if (cpu.in_guest) TRY(cpu.virtualization->task_switch(cpu, what));
    const TssFormat& f = format_of(tss.descriptor.type());
    if (tss.descriptor.limit() < f.size - 1) return exception(Vector::TS, selector_error(tss.selector));
    TRY(check_old_task(cpu, tss, what.source));
    const NewTask task = TRY(read_task(cpu, tss));
    const NewTranslation translation = TRY(check_translation(cpu, task));

    // From here on the switch is done.
    TRY(save_old_task(cpu, outgoing, what.source));
    const bool nested =
        what.source == TaskSwitch::Source::call || what.source == TaskSwitch::Source::idt_gate;
    if (nested) TRY(cpu.store_linear(tss.descriptor.base(), 2, cpu.seg(Seg::TR).selector, true));
    if (what.source != TaskSwitch::Source::iret) TRY(set_busy(cpu, tss.address, true));
    Segment tr = tss.segment();
    tr.access |= 2; // busy
    cpu.seg(Seg::TR) = tr;
    load_registers(cpu, task, translation, nested);
    const Result<void> loaded = load_task_segments(cpu, task);
    cpu.mode_changed();
    if (!loaded.ok()) return SwitchedTask{loaded.stop()};
    if (task.trap) {
        cpu.pending_debug |= DR6::BT;
        cpu.attention();
    }
    return SwitchedTask{};
}

Result<void> switch_task_by_instruction(Cpu& cpu, const TableEntry& tss, TaskSwitch::Source source) {
    const TaskSwitch what{.selector = tss.selector, .source = source};
    Stop fault = TRY(switch_task(cpu, tss, what, {.rip = cpu.next_rip, .flags = cpu.rflags()})).fault;
    if (fault.kind == Stop::Kind::none) fault = check_target(cpu, cpu.seg(Seg::CS), cpu.rip).stop();
    if (fault.kind == Stop::Kind::none) return {};
    // The instruction is over: the exception belongs to the new task's first.
    const Stop settled = cpu.settle(fault);
    if (settled.kind == Stop::Kind::none) return {};
    return settled;
}

} // namespace exeunt
