// The engine: from a boundary between instructions to the next one at which something is due.
//
// run() alternates between the boundary, where pending events are looked at in the manual's order (SDM 3A 6.9), and
// blocks of decoded operations, which chain to one another until the countdown `remaining` ends or something needs
// the dispatcher. Every tick is exact: a block that would overrun the countdown is executed instruction by
// instruction, and a handler that stops gives back the ticks that did not happen.
#include "cpu/blocks.hpp"
#include "cpu/branch_records.hpp"
#include "cpu/fast/threaded.hpp"
#include "cpu/instructions.hpp"
#include "cpu/performance.hpp"

#include "base/ensure.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt {

// ---- The countdown ------------------------------------------------------------------------------------------------

/// Leaves `keep` ticks to run; the others are held back until release().
void Cpu::hold_back(i64 keep) {
    held_back_ += remaining - keep;
    remaining = keep;
}

void Cpu::release() {
    remaining += held_back_;
    held_back_ = 0;
}

void Cpu::attention() {
    attention_ = true;
    hold_back(0);
}

void Cpu::shorten(Tick deadline) {
    if (deadline >= deadline_) return;
    const Tick present = now();
    const i64 left = deadline > present ? static_cast<i64>(deadline - present) : 0;
    held_back_ = left - remaining;
    deadline_ = present + static_cast<Tick>(left);
    attention();
}

// ---- Derived state ---------------------------------------------------------------------------------------------------

void Cpu::update_fetch_key() {
    // The low bits say how bytes become instructions, the rest which translations and which decoded code hold.
    const u64 mode = code64() ? 3 : seg(Seg::CS).big() ? 2 : (real_mode() || v8086()) ? 0 : 1;
    const TlbPart& part = mmu.part(fetch_privilege());
    const bool chainable = code64() || (seg(Seg::CS).base == 0 && seg(Seg::CS).limit == 0xFFFF'FFFF);
    // Code segments that are not flat are found anew each time: no key ever matches 0.
    fetch_key = chainable ? part.epoch << 3 | mode << 1 | 1 : 0;
}

void Cpu::code_changed() {
    mmu.renew_epochs();
    update_fetch_key();
}

void Cpu::mode_changed() {
    if (performance && performance->by_privilege()) performance->update();
    const bool smap_off = !(control.cr4 & CR4::SMAP) || (flags.rest & RFLAGS::AC);
    mmu.set_privilege(cpl == 3   ? Privilege::user
                      : smap_off ? Privilege::supervisor_smap_off
                                 : Privilege::supervisor);
    mmu.set_direct(!(cpl == 3 && (control.cr0 & CR0::AM) && (flags.rest & RFLAGS::AC)));
    update_fetch_key();
    watch_debug_addresses();
    if ((flags.rest & (RFLAGS::TF | RFLAGS::RF)) || (dr7 & DR7::enables)) attention();
}

void Cpu::flags_changed() {
    mode_changed();
    attention();
}

void Cpu::set_rflags(u64 value) {
    value = (value & RFLAGS::all) | RFLAGS::FIXED1;
    const u64 changed = flags.value() ^ value;
    flags.set_arithmetic(value);
    flags.rest = value & ~RFLAGS::arithmetic;
    if (changed & ~(RFLAGS::arithmetic | RFLAGS::DF | RFLAGS::ID | RFLAGS::NT | RFLAGS::IOPL)) flags_changed();
}

void Cpu::context_changed(bool flush) {
    if (flush) mmu.flush_current();
    TlbKey key = in_guest ? guest_tlb_key : TlbKey{};
    if (control.cr4 & CR4::PCIDE) key.pcid = static_cast<u16>(control.cr3 & 0xFFF);
    mmu.select(key);
    update_fetch_key();
}

Result<void> Cpu::load_pdptes(u64 cr3) {
    if (mmu.second_level() && mmu.second_level()->pdptes_in_memory()) return {};
    u64 entries[4];
    for (unsigned i = 0; i < 4; ++i) {
        GuestPhysical at{(cr3 & 0xFFFF'FFE0) + 8 * i};
        Physical physical{at.value};
        if (SecondLevel* second = mmu.second_level()) physical = TRY(second->translate(at, {})).physical;
        entries[i] = memory.load<u64>(physical);
        const u64 reserved = (low_mask(52) & ~low_mask(mmu.features().physical_bits)) | (u64{0xFFF} << 52) | 0x1E6;
        if ((entries[i] & 1) && (entries[i] & reserved)) return general_protection(0);
    }
    for (unsigned i = 0; i < 4; ++i) control.pdpte[i] = entries[i];
    return {};
}

// ---- Leaving a block ---------------------------------------------------------------------------------------------------

const Op* leave(Cpu& cpu, const Op* op, const Stop& stop) {
    Block& block = *cpu.current_block;
    if (stop.kind != Stop::Kind::world_switch) {  // a VM entry or exit has set RIP
        const u64 mask = cpu.code64() ? ~u64{0} : 0xFFFF'FFFF;
        cpu.rip = (cpu.r[MemoryOperand::rip_register] + op->offset) & mask;
        cpu.next_rip = (cpu.rip + op->length) & mask;
    }
    // What was not reached did not happen. The stopped instruction itself is a tick (the event it causes), unless
    // it is only to be tried again.
    cpu.remaining += block.ticks - op->position - (stop.kind == Stop::Kind::retry ? 0 : 1);
    if (stop.kind == Stop::Kind::exception || stop.kind == Stop::Kind::second_level) ++cpu.unretired_;
    if (stop.kind == Stop::Kind::retry) cpu.blocks->split_after(block.physical + op->offset);
    cpu.block_stop = stop;
    return nullptr;
}

namespace {

/// Any instruction in the middle of a block, by its general handler.
const Op* general_plain(Cpu& cpu, const Op* op) {
    const Insn& insn = *op->insn;
    cpu.rip = cpu.r[MemoryOperand::rip_register] + op->offset;
    cpu.next_rip = cpu.rip + op->length;
    cpu.last_of_block = op->last;
    const Result<void> result = insn.row->execute(cpu, insn);
    cpu.last_of_block = true;
    if (!result.ok()) [[unlikely]]
        return leave(cpu, op, result.stop());
    NEXT_OP(cpu, op + 1);
}

/// Any instruction that ends its block, by its general handler.
const Op* general_last(Cpu& cpu, const Op* op) {
    const Insn& insn = *op->insn;
    const u64 mask = insn.mode == 64 ? ~u64{0} : 0xFFFF'FFFF;
    cpu.rip = (cpu.r[MemoryOperand::rip_register] + op->offset) & mask;
    cpu.next_rip = (cpu.rip + op->length) & mask;
    const Result<void> result = execute(cpu, insn);
    if (!result.ok()) [[unlikely]]
        return leave(cpu, op, result.stop());
    if (insn.repeat != Repeat::none) cpu.repeating = cpu.next_rip == cpu.rip;
    if (cpu.activity != Activity::active) [[unlikely]] {
        cpu.rip = cpu.next_rip;
        return nullptr;
    }
    TAKE_JUMP(cpu, cpu.next_rip);
}

/// An instruction of the model that exeunt does not execute.
const Op* not_modelled(Cpu& cpu, const Op* op) {
    cpu.rip = cpu.r[MemoryOperand::rip_register] + op->offset;
    const Insn& insn = *op->insn;
    std::string bytes;
    for (unsigned i = 0; i < insn.length; ++i) bytes += fmt::format(" {:02x}", insn.bytes[i]);
    const std::string text = disassemble(cpu.current_block->mode, {insn.bytes.data(), insn.length}, cpu.rip);
    return leave(cpu, op, cpu.unmodelled(fmt::format("the instruction{} \"{}\"", bytes, text),
                                         "SDM 2A 3.1 \"Interpreting the Instruction Reference Pages\""));
}

const Op* end_of_block(Cpu& cpu, const Op*) {
    const Block& block = *cpu.current_block;
    const u64 after = cpu.r[MemoryOperand::rip_register] + static_cast<u64>(block.link[0].offset);
    TAKE_LINK(cpu, 0, block.mode == CodeMode::long64 ? after : after & 0xFFFF'FFFF);
}

}  // namespace

Handler general_handler(const Insn& insn) {
    if (!insn.row) return not_modelled;
    bool last = insn.row->ends == Ends::block || insn.row->intercept != Intercept::none || insn.row->fault;
    last |= insn.repeat != Repeat::none && insn.operand_count == 0;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        const OperandKind kind = insn.operand[i].kind;
        last |= kind == OperandKind::control || kind == OperandKind::debug ||
                (kind == OperandKind::segment && i == 0);
    }
    return last ? general_last : general_plain;
}

Handler end_of_block_handler() { return end_of_block; }

// ---- Running -----------------------------------------------------------------------------------------------------------

/// Whether the next instruction must be executed alone, with a look at the boundary before and after it.
bool Cpu::must_step() const {
    if ((flags.rest & (RFLAGS::TF | RFLAGS::RF)) || shadow != Shadow::none || retry_single_) return true;
    if ((dr7 & DR7::enables) || (debugctl & DEBUGCTL::LBR)) return true;
    return in_guest && virtualization->single_step(*this);
}

/// A direct branch in 64-bit mode to an address that is not canonical faults itself; only a fall-through faults where
/// it arrives. SDM 2A JMP, Jcc.
void Cpu::refuse_branch() {
    if (open_link != &current_block->link[1]) return;
    const auto branch = std::find_if(current_block->ops.rbegin(), current_block->ops.rend(),
                                     [](const Op& op) { return op.length != 0; });
    rip = r[MemoryOperand::rip_register] + branch->offset;
    next_rip = rip + branch->length;
    open_link = nullptr;
    block_stop = general_protection(0);
    ++unretired_;
}

Stop Cpu::execute_block(bool single) {
    Link* link = open_link;
    open_link = nullptr;
    if (blocks->collect()) link = nullptr;
    JumpEntry& jump = blocks->jump(rip);
    Block* block = jump.block;
    const bool known = !single && fetch_key && jump.key == fetch_key && jump.rip == rip;
    if (!known || remaining < block->ticks) {
        auto found = blocks->find(single);
        if (found.ok() && !single && remaining < found.value()->ticks) found = blocks->find(true);
        if (!found.ok()) {
            event_tick();
            return found.stop();
        }
        block = found.value();
    }
    if (!block->single && fetch_key) {
        jump = {fetch_key, rip, block};
        if (link) {
            link->target = block;
            link->key = fetch_key;
            link->rip = rip;
        }
    }
    block_stop = {};
    stepped_length_ = block->bytes;
    const Op* op = enter(*this, block, rip);
    while (op) op = op->handler(*this, op);
    if (open_link && code64() && !canonical(rip)) [[unlikely]]
        refuse_branch();
    current_block = nullptr;
    return block_stop;
}

Stop Cpu::settle(const Stop& stop) {
    switch (stop.kind) {
        case Stop::Kind::none:
        case Stop::Kind::world_switch:
        case Stop::Kind::unmodelled: return stop;
        case Stop::Kind::retry: retry_single_ = true; return {};
        case Stop::Kind::exception: {
            const Result<void> result = raise(stop);
            return result.ok() ? Stop{} : settle(result.stop());
        }
        case Stop::Kind::second_level: {
            const Result<void> result = virtualization->second_level_fault(*this);
            return result.ok() ? Stop{} : settle(result.stop());
        }
    }
    return stop;
}

/// After an instruction executed alone: traps, and the flags that last one instruction.
Stop Cpu::after_step(u64 rip_before, bool trap_flag) {
    const bool branched = rip != rip_before + stepped_length_;
    if (branched && !repeating && !event_delivered && (debugctl & DEBUGCTL::LBR))
        record_branch(*this, rip_before, rip);
    if (trap_flag && !event_delivered) {
        const bool branch_only = debugctl & DEBUGCTL::BTF;
        if (!branch_only || branched) pending_debug |= DR6::BS;
    }
    return {};
}

Result<void> Cpu::own_events() {
    // SDM 3A Table 6-2 "Priority Among Simultaneous Exceptions and Interrupts".
    const bool held = virtualization->events_held(*this);
    if (init_pending && !held && !virtualization->init_blocked(*this)) {
        init_pending = false;
        if (virtualization->redirects_init(*this)) {
            constexpr u32 redirected_init = 1; // APM 2 8.2.24 "#SX—Security Exception (Vector 30)"
            return deliver_trap({.vector = static_cast<u8>(Vector::SX), .has_error = true, .error = redirected_init});
        }
        // A SIPI that is pending, too, came after the INIT (signals).
        const bool sipi = sipi_pending;
        reset(true);
        sipi_pending = sipi;
        if (controller) controller->init();
        // SDM 3A 8.4.2 "MP Initialization Protocol Algorithm": only the bootstrap processor goes on by itself.
        if (index != 0) activity = Activity::wait_for_sipi;
        return stopped(Stop::Kind::world_switch);
    }
    if (sipi_pending && activity == Activity::wait_for_sipi) {
        sipi_pending = false;
        seg(Seg::CS).selector = static_cast<u16>(sipi_vector << 8);
        seg(Seg::CS).base = u64{sipi_vector} << 12;
        rip = 0;
        activity = Activity::active;
        mode_changed();
        return stopped(Stop::Kind::world_switch);
    }
    sipi_pending = false;
    if (activity == Activity::wait_for_sipi || activity == Activity::shutdown) return {};
    if (pending_debug && shadow != Shadow::mov_ss) {
        const u64 bits = pending_debug;
        pending_debug = 0;
        return deliver_trap(Event{.vector = 1, .type = Event::Type::hardware_exception, .address = bits});
    }
    if (nmi_pending && !nmi_blocked && !held && shadow != Shadow::mov_ss) {
        nmi_pending = false;
        return deliver_trap(Event{.vector = 2, .type = Event::Type::nmi});
    }
    if (shadow != Shadow::none || held) return {};
    if (in_guest && virtualization->take_virtual_nmi(*this))
        return deliver_trap(Event{.vector = 2, .type = Event::Type::nmi, .injected = true});
    u8 virtual_vector = 0;
    if (in_guest && virtualization->take_virtual_interrupt(*this, virtual_vector))
        return deliver_trap(Event{.vector = virtual_vector, .type = Event::Type::external_interrupt});
    const bool enabled = in_guest ? virtualization->interrupts_enabled(*this) : flag(RFLAGS::IF);
    if (enabled && controller && controller->interrupt_pending()) {
        const Event event{.vector = controller->acknowledge(), .type = Event::Type::external_interrupt};
        return deliver_trap(event);
    }
    return {};
}

/// A tick in which no instruction completes.
void Cpu::event_tick() {
    --remaining;
    ++unretired_;
}

/// An event that is delivered between instructions; its delivery is a tick of its own.
Result<void> Cpu::deliver_trap(const Event& event) {
    monitor_armed = false;
    next_rip = rip;
    event_tick();
    const Result<void> result = deliver(event);
    if (result.ok()) return stopped(Stop::Kind::world_switch);
    const Stop stop = settle(result.stop());
    return stop.kind == Stop::Kind::unmodelled ? stop : stopped(Stop::Kind::world_switch);
}

/// Looks at everything that may be due between two instructions. Stop::world_switch: something was; look again.
Result<void> Cpu::boundary() {
    if (!repeating) [[likely]]
        return events_due();
    // SDM 3B 17.3.1.1: an event between two iterations of a REP string instruction saves RF = 1.
    repeating = false;
    const u64 rest = flags.rest;
    flags.rest |= RFLAGS::RF;
    TRY(events_due());
    flags.rest = rest;
    repeating = true;
    return {};
}

Result<void> Cpu::events_due() {
    if (in_guest) TRY(virtualization->boundary(*this));
    return own_events();
}

/// How many ticks blocks may chain before the dispatcher looks again.
i64 Cpu::chain_ticks() const {
    // A handler that a compiler did not turn into a tail call leaves a frame behind: chains are bounded, so that
    // these never use up the native stack.
    constexpr i64 longest = 1 << 16;
    if (own_deadline_ == never) return longest;
    const Tick present = now();
    return own_deadline_ > present ? static_cast<i64>(std::min<Tick>(longest, own_deadline_ - present)) : 1;
}

RunEnd Cpu::run(Tick start, Tick deadline) {
    PerformanceMonitor* const counters = performance.get();
    busy_ = cycles();
    run_start_ = start;
    deadline_ = deadline;
    remaining = static_cast<i64>(deadline - start);
    held_back_ = 0;
    attention_ = true;
    stop_requested_ = false;
    for (;;) {
        // The boundary: everything that may be due is looked at before the next instruction.
        if (attention_) {
            attention_ = false;
            release();
            shadow = new_shadow_;
            new_shadow_ = Shadow::none;
            if (remaining <= 0) {
                new_shadow_ = shadow;
                attention_ = true;
                return RunEnd::deadline;
            }
            if (counters && counters->deadline() != never && counters->deadline() <= now()) [[unlikely]]
                counters->update();
            const Result<void> event = boundary();
            if (!event.ok()) {
                attention_ = true;
                if (event.stop().kind == Stop::Kind::unmodelled) return RunEnd::unmodelled;
                if (settle(event.stop()).kind == Stop::Kind::unmodelled) return RunEnd::unmodelled;
                if (activity != Activity::shutdown) continue;
            }
            if (activity == Activity::shutdown && !in_guest) return RunEnd::shutdown;
            if (activity != Activity::active) {
                if (activity > Activity::wait_for_sipi && wait_over()) {
                    activity = Activity::active;
                } else {
                    return RunEnd::halted;
                }
            }
            if (stop_requested_) {
                new_shadow_ = shadow;
                return RunEnd::yielded;
            }
            own_deadline_ = in_guest ? virtualization->next_deadline(*this) : never;
            if (counters) own_deadline_ = std::min(own_deadline_, counters->deadline());
        }
        if (remaining <= 0) {
            attention_ = true;
            continue;
        }
        hold_back(std::min(remaining, chain_ticks()));
        const bool stepping = must_step();
        Stop stop;
        if (stepping) {
            stop = step_one();
        } else {
            stop = execute_block(false);
            if (stop.kind != Stop::Kind::none) stop = settle(stop);
        }
        if (stop.kind == Stop::Kind::unmodelled) return RunEnd::unmodelled;
        if (stepping || stop.kind != Stop::Kind::none || activity != Activity::active) attention_ = true;
    }
}

/// One instruction alone: breakpoints before it, traps after it.
Stop Cpu::step_one() {
    retry_single_ = false;
    const bool trap_flag = flag(RFLAGS::TF);
    const bool resume_flag = flag(RFLAGS::RF);
    if (const auto hit = check_code_breakpoints(); !hit.ok()) {
        event_tick();
        return settle(hit.stop());
    }
    const u64 rip_before = rip;
    event_delivered = false;
    // RF lasts until the instruction completes; then RF is what IRET or a task switch loaded, else 0.
    flags.rest &= ~RFLAGS::RF;
    hold_back(1);
    Stop stop = execute_block(true);
    release();
    const bool completed = stop.kind == Stop::Kind::none && rip != rip_before;
    if (resume_flag && !completed && stop.kind != Stop::Kind::world_switch) flags.rest |= RFLAGS::RF;
    if (stop.kind == Stop::Kind::none) return after_step(rip_before, trap_flag);
    return settle(stop);
}

Stop Cpu::step() {
    deadline_ = now() + 1'000'000;
    remaining = 1'000'000;
    held_back_ = 0;
    attention_ = false;
    shadow = new_shadow_;
    new_shadow_ = Shadow::none;
    if (const auto event = boundary(); !event.ok()) return event.stop();
    if (activity != Activity::active) return {};
    retry_single_ = true;
    hold_back(1);
    Stop stop = execute_block(true);
    release();
    retry_single_ = false;
    if (stop.kind != Stop::Kind::none) settle(stop);
    return stop;
}

Stop Cpu::unmodelled(std::string what, std::string section) {
    unmodelled_reason_ = std::move(what) + " (" + std::move(section) + ")";
    return stopped(Stop::Kind::unmodelled);
}

}  // namespace exeunt
