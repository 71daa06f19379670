// One logical processor: its state, how instructions reach registers, memory, ports and events, and run().
//
// While an instruction executes, `rip` is its address and `next_rip` the address of the one after it (a branch
// changes `next_rip`). Handlers compute, then commit: until the last thing that can stop has passed, nothing
// visible has changed.
#pragma once

#include "arch/features.hpp"
#include "arch/intercept.hpp"
#include "arch/observer.hpp"
#include "arch/result.hpp"
#include "base/bus.hpp"
#include "base/clock.hpp"
#include "base/random.hpp"
#include "cpu/insn.hpp"
#include "cpu/state.hpp"
#include "cpu/virtualization.hpp"
#include "mmu/mmu.hpp"

#include <memory>
#include <optional>
#include <string>

namespace exeunt {

class BlockCache;
class Msrs;
class PerformanceMonitor;
struct Block;
struct Op;
struct Link;

/// What a store or RMW was translated to, between its checks and its commit.
struct WriteTarget {
    u64 linear = 0;
    u64 physical = 0, physical2 = 0;  ///< of the first byte; of the first byte on the second page
    unsigned bytes = 0;
    unsigned first = 0;               ///< bytes on the first page
    u8* native = nullptr;                 ///< set when all bytes are ordinary memory that can be written at once
    bool special = false, special2 = false;
};

/// Why Cpu::run() came back.
enum class RunEnd : u8 {
    deadline,    ///< the tick given was reached
    halted,      ///< nothing to execute until an event arrives (HLT, MWAIT, wait-for-SIPI)
    shutdown,    ///< triple fault outside a guest
    yielded,     ///< PAUSE or a request to stop: other processors may run
    unmodelled,  ///< see unmodelled_reason()
};

struct Cpu : CpuState {
    Cpu(unsigned index, const CpuModel& model, PhysicalMemory& memory, IoBus& bus, u64 random_seed);
    ~Cpu();
    Cpu(const Cpu&) = delete;
    Cpu& operator=(const Cpu&) = delete;

    // ---- Parts -----------------------------------------------------------------------------------------
    const unsigned index;
    unsigned cpu_count = 1;  ///< processors of the machine, all in one package; APIC IDs are 0 to cpu_count - 1
    const CpuModel& model;
    PhysicalMemory& memory;
    IoBus& bus;
    Mmu mmu;
    Random random;                              ///< RDRAND and RDSEED
    InterruptController* controller = nullptr;  ///< the local APIC
    Virtualization* virtualization;             ///< never null; NoVirtualization when the model has neither
    Observer* observer = nullptr;               ///< null: nothing listens
    std::unique_ptr<Msrs> msrs;
    std::unique_ptr<PerformanceMonitor> performance;  ///< null: the model has no performance monitoring
    std::unique_ptr<BlockCache> blocks;

    bool has(Feature feature) const { return model.features.has(feature); }

    // ---- Instruction pointer and time --------------------------------------------------------------------
    u64 rip = 0;
    u64 next_rip = 0;

    /// The tick at this instruction.
    Tick now() const { return deadline_ - static_cast<u64>(remaining + held_back_); }
    /// Ticks in which this processor ran, and those of them in which an instruction completed.
    u64 cycles() const { return busy_ + (now() - run_start_); }
    u64 instructions() const { return cycles() - unretired_; }
    /// IA32_TIME_STAMP_COUNTER as the running software sees it (with a guest's offset and scaling).
    u64 tsc() const {
        const u64 raw = now() + tsc_offset;
        return in_guest ? virtualization->guest_tsc(const_cast<Cpu&>(*this), raw) : raw;
    }

    // ---- Guest mode ----------------------------------------------------------------------------------------
    bool in_guest = false;       ///< VMX non-root operation or an SVM guest
    TlbKey guest_tlb_key;        ///< tags of the guest's translations; the extension sets it at entry (PCID is added)
    InterceptSet intercepted;    ///< while in_guest: instructions about which `virtualization` wants to be asked
    InterceptSet undefined;      ///< of these, those that the extension's controls take away: #UD before all else
    /// The last instruction was a REP string instruction that has iterations left.
    bool repeating = false;
    bool event_delivered = false;  ///< since the engine last cleared it: INT n and SYSCALL end the single-step trap of their TF
    std::optional<Event> delivering;  ///< the event whose delivery is under way (IDT-vectoring, EXITINTINFO)

    /// Whether the guest's controls leave no such instruction (SDM 3C 25.3, e.g. "enable RDTSCP" = 0).
    bool undefined_here(Intercept what) const { return in_guest && undefined.test(static_cast<std::size_t>(what)); }
    /// The common way into an instruction that can be intercepted.
    Result<void> ask(const Insn& insn, Intercept what) {
        if (in_guest && intercepted.test(static_cast<std::size_t>(what)))
            return virtualization->instruction(*this, insn, what);
        return {};
    }

    // ---- Registers -----------------------------------------------------------------------------------------
    /// 1, 2, 4 or 8 bytes of a general register, zero-extended. Writing 4 bytes clears the upper half.
    u64 gpr(unsigned number, unsigned bytes) const;
    void set_gpr(unsigned number, unsigned bytes, u64 value);
    u64 rflags() const { return flags.value(); }
    /// Replaces all of RFLAGS (reserved bits are forced); calls flags_changed().
    void set_rflags(u64 value);
    bool flag(u64 mask) const { return flags.rest & mask; }  ///< for flags outside the arithmetic ones
    Segment& seg(Seg s) { return segment[static_cast<unsigned>(s)]; }
    const Segment& seg(Seg s) const { return segment[static_cast<unsigned>(s)]; }

    bool protected_mode() const { return control.cr0 & CR0::PE; }
    bool v8086() const { return flags.rest & RFLAGS::VM; }
    bool real_mode() const { return !protected_mode(); }
    bool long_mode_active() const { return control.efer & EFER::LMA; }        ///< IA-32e mode
    bool code64() const { return long_mode_active() && seg(Seg::CS).long_mode(); }
    unsigned iopl() const { return static_cast<unsigned>(flags.rest >> 12) & 3; }
    unsigned code_bits() const { return code64() ? 64 : seg(Seg::CS).big() ? 32 : 16; }
    /// Bytes of the stack pointer in use: 8, 4 or 2.
    unsigned stack_bytes() const { return code64() ? 8 : seg(Seg::SS).big() ? 4 : 2; }
    unsigned linear_bits() const { return control.cr4 & CR4::LA57 ? 57 : 48; }
    bool canonical(u64 address) const { return sign_extend(address, linear_bits()) == address; }

    /// To be called after CS, CPL, CR0, CR3, CR4, EFER, DR7, RFLAGS.TF/AC/VM or the guest state as a whole
    /// changed: everything that is derived from them (code mode, privilege, TLB context) is derived again.
    void mode_changed();
    /// After RFLAGS bits IF, TF, AC, VM or RF changed by an instruction.
    void flags_changed();
    /// CR3, or anything else that tags translations, changed: selects the TLB context; `flush` drops its
    /// non-global translations first.
    void context_changed(bool flush);
    /// PAE paging: loads the four PDPTEs from CR3 (SDM 3A 4.4.1). #GP(0) when a reserved bit is set.
    Result<void> load_pdptes(u64 cr3);

    // ---- Memory --------------------------------------------------------------------------------------------
    /// Offset of the memory operand in its segment, truncated to the address size.
    u64 effective_address(const Insn& insn) const;
    /// Segmentation: rights, limit, canonical. Gives the linear address. #SS for SS, else #GP.
    Result<u64> linear(Seg where, u64 offset, unsigned bytes, AccessType type);
    /// Only base + offset, as it would be computed, without checks (for qualifications).
    u64 linear_unchecked(Seg where, u64 offset, unsigned address_bytes) const;

    /// Data at CPL's privilege, T unsigned and of 1 to 8 bytes.
    template <class T>
    Result<T> load(Seg where, u64 offset);
    template <class T>
    Result<void> store(Seg where, u64 offset, T value);
    /// The same with a size at run time (1, 2, 4, 8).
    Result<u64> load(Seg where, u64 offset, unsigned bytes);
    Result<void> store(Seg where, u64 offset, unsigned bytes, u64 value);
    /// Any length up to 4096, e.g. XSAVE areas, vectors; all is checked before anything is written.
    Result<void> load_bytes(Seg where, u64 offset, void* to, unsigned bytes);
    Result<void> store_bytes(Seg where, u64 offset, const void* from, unsigned bytes);
    /// Checks a write in full and remembers the target; commit() can not fail (for a special page it may).
    Result<WriteTarget> prepare_write(Seg where, u64 offset, unsigned bytes);
    Result<u64> read_target(const WriteTarget& target);
    Result<void> commit(const WriteTarget& target, u64 value);

    /// At a linear address. `implicit`: supervisor access whatever CPL is (descriptor tables, TSS, IDT).
    Result<u64> load_linear(u64 linear, unsigned bytes, bool implicit = false);
    Result<void> store_linear(u64 linear, unsigned bytes, u64 value, bool implicit = false);
    Result<void> load_linear_bytes(u64 linear, void* to, unsigned bytes, bool implicit = false);
    Result<void> store_linear_bytes(u64 linear, const void* from, unsigned bytes, bool implicit = false);
    Result<WriteTarget> prepare_linear(u64 linear, unsigned bytes, bool implicit = false);
    Result<WriteTarget> translate_write(u64 linear, unsigned bytes, Privilege privilege);
    /// #AC(0) where alignment checking is in force and the operand is not at a multiple of its size, a power
    /// of two (SDM 3A Table 6-7); the accesses above that are no `implicit` ones of up to 8 bytes do it
    /// themselves.
    Result<void> check_alignment(u64 linear, unsigned bytes) const;
    /// Whether every byte could be accessed so: faults as the access would, and does nothing else.
    Result<void> check_linear(u64 linear, unsigned bytes, AccessType type, bool implicit = false);

    /// The linear address of the next page; outside 64-bit mode addresses wrap at 4 GiB, except in the tables and
    /// stacks that IA-32e mode has above.
    u64 next_page(u64 linear) const {
        const u64 next = (linear | 0xFFF) + 1;
        return code64() || high32(linear) ? next : next & 0xFFFF'FFFF;
    }
    /// Data breakpoints in DR0 to DR3: remembers in `pending_debug` what this access hit.
    void note_data_breakpoint(u64 linear, unsigned bytes, bool write) {
        if (dr7 & DR7::enables) [[unlikely]]
            match_data_breakpoint(linear, bytes, write);
    }
    /// An extension ends the instruction under way, if there is one: it does not retire.
    void abandon_instruction() {
        if (current_block) ++unretired_;
    }
    void match_data_breakpoint(u64 linear, unsigned bytes, bool write);

    // ---- Operands ------------------------------------------------------------------------------------------
    /// Explicit operand `i`: register, memory or immediate of at most 8 bytes, zero-extended.
    Result<u64> read_operand(const Insn& insn, unsigned i);
    Result<void> write_operand(const Insn& insn, unsigned i, u64 value);
    /// Asks the extension about a bus lock: a locked access that crosses a line of 64 bytes.
    Result<void> note_bus_lock(const Insn& insn, const WriteTarget& target);
    /// For read-modify-write: the destination is known writable before anything is computed.
    struct Destination {
        u64 value = 0;
        std::optional<WriteTarget> target;  ///< set for memory
    };
    Result<Destination> modify_operand(const Insn& insn, unsigned i);
    Result<void> commit(const Insn& insn, unsigned i, const Destination& destination, u64 value);

    // ---- Stack and near transfers ----------------------------------------------------------------------------
    /// PUSH and POP of `bytes` with the stack's address size; RSP changes only on success.
    Result<void> push(u64 value, unsigned bytes);
    Result<u64> pop(unsigned bytes);
    /// As pop(), without moving RSP; `offset` counts from the top.
    Result<u64> peek_stack(unsigned offset, unsigned bytes);
    void add_rsp(i64 bytes);
    /// Checks a near target (canonical, CS limit) and makes it `next_rip`. `bytes`: operand size (16-bit wraps).
    Result<void> jump_near(u64 target, unsigned bytes);

    // ---- Events --------------------------------------------------------------------------------------------
    /// The next boundary looks at pending events, however far the deadline is.
    void attention();
    /// Delivers the exception of the instruction at `rip`. cpu/events.cpp.
    Result<void> raise(const Stop& stop);
    /// Delivers an event with all that may follow (exits, double and triple fault). cpu/events.cpp.
    Result<void> deliver(const Event& event);
    /// MONITOR: watches the 64-byte line of this physical address; MWAIT ends when its contents change.
    void arm_monitor(u64 physical);
    /// What does not exist here stops the machine with these words; `section` cites the manual.
    Stop unmodelled(std::string what, std::string section);
    const std::string& unmodelled_reason() const { return unmodelled_reason_; }
    /// Signals of the interrupt controllers.
    ProcessorSignals& signals();
    /// RESET# (power-up) or INIT. SDM 3A Table 9-1.
    void reset(bool init);

    /// The instruction shadow: the next boundary takes no maskable interrupt (STI) or no event at all (MOV SS).
    void set_shadow(Shadow s) { new_shadow_ = s; attention(); }
    /// A VM exit or an event's delivery ends every shadow.
    void clear_shadow() { shadow = new_shadow_ = Shadow::none; }
    /// Turns the Stop of the instruction at `rip` into what the architecture does with it (cpu/engine.cpp).
    Stop settle(const Stop& stop);

    // ---- Running -------------------------------------------------------------------------------------------
    /// Executes until tick `deadline`, or until one of the other reasons. now() tells how far it came.
    RunEnd run(Tick now, Tick deadline);
    /// When a waiting processor has something due by itself (VMX-preemption timer, TPAUSE's deadline), or `never`.
    Tick wakes_at() const {
        const Tick due = in_guest ? virtualization->next_deadline(*this) : never;
        return activity > Activity::wait_for_sipi && wait_until < due ? wait_until : due;
    }
    /// Whether an interrupt that RFLAGS.IF holds back may end what it waits for.
    bool wakes_without_if() const { return in_guest || activity > Activity::wait_for_sipi; }
    /// Called by devices' timers through the machine: come back at `deadline` at the latest.
    void shorten(Tick deadline);
    /// Ends run() at the next boundary with RunEnd::yielded.
    void request_stop() { stop_requested_ = true; attention(); }
    /// One instruction from a fresh boundary, for tests and debuggers. A delivered exception is returned too.
    Stop step();

    void visit(StateVisitor& visitor);

    /// The privilege with which code is fetched.
    Privilege fetch_privilege() const { return cpl == 3 ? Privilege::user : Privilege::supervisor; }
    /// Decoded code changed, or how it is found: every chain to a block must be resolved again.
    void code_changed();

    // ---- The engine's own (cpu/engine.cpp, cpu/fast/) ---------------------------------------------------------
    i64 remaining = 0;          ///< ticks left before the countdown must be looked at
    u64 fetch_key = 0;          ///< names translation, privilege and code mode to chained blocks
    Block* current_block = nullptr;
    Link* open_link = nullptr;  ///< the way out of a block that the dispatcher shall resolve
    Stop block_stop{};          ///< why the block under way was left before its end
    /// The instruction under way is the last of its block, so it may touch devices and decoded code.
    bool last_of_block = true;

private:
    friend class CpuSignals;

    void update_fetch_key();
    void hold_back(i64 keep);
    void release();
    Result<void> boundary();
    Result<void> events_due();
    Result<void> own_events();
    bool must_step() const;
    i64 chain_ticks() const;
    Stop execute_block(bool single);
    Stop after_step(u64 rip_before, bool trap_flag);
    Result<void> check_code_breakpoints();

    Stop step_one();
    Result<void> deliver_trap(const Event& event);
    bool wait_over();
    bool monitor_hit() const;
    void event_tick();
    friend const Op* leave(Cpu& cpu, const Op* op, const Stop& stop);
    void refuse_branch();
    void watch_debug_addresses();

    /// The extension's next_deadline(), and that of the performance counters, as of the last boundary.
    Tick own_deadline_ = never;
    u64 busy_ = 0;         ///< ticks of the runs before the last one
    Tick run_start_ = 0;   ///< of the last one
    u64 unretired_ = 0;    ///< ticks in which no instruction completed
    bool retry_single_ = false;
    unsigned stepped_length_ = 0;
    u64 watched_dr7_ = 0;
    Tick deadline_ = 0;
    i64 held_back_ = 0;         ///< ticks taken from `remaining` by attention()
    Shadow new_shadow_ = Shadow::none;
    bool attention_ = false;
    bool stop_requested_ = false;
    std::string unmodelled_reason_;
    std::unique_ptr<ProcessorSignals> signals_;
    std::unique_ptr<Virtualization> no_virtualization_;
};

template <class T>
Result<T> Cpu::load(Seg where, u64 offset) {
    const u64 value = TRY(load(where, offset, sizeof(T)));
    return static_cast<T>(value);
}
template <class T>
Result<void> Cpu::store(Seg where, u64 offset, T value) {
    return store(where, offset, sizeof(T), value);
}

}  // namespace exeunt
