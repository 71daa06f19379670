// Instructions, register accesses, exceptions, task switches and nested page faults of a guest. APM 2 15.7.1
// "State Saved on Exit", 15.8 "Decode Assists", 15.9 "Instruction Intercepts", 15.12 "Exception Intercepts",
// 15.14 "Miscellaneous Intercepts".
//
// Not modelled: what of a guest's freeze for FERR# is not intercepted.
#include "cpu/events.hpp"
#include "cpu/instructions/system.hpp"
#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"
#include "svm/svm.hpp"

namespace exeunt {

namespace {

constexpr u64 no_code = ~u64{0};

/// By Intercept; the table has a row for each, in order.
constexpr u64 codes[] = {
#define INTERCEPT(name, code) ExitCode::code,
#define NOT_INTERCEPTED(name) no_code,
#include "svm/intercepts.inc"
};
constexpr Intercept row_order[] = {
#define INTERCEPT(name, code) Intercept::name,
#define NOT_INTERCEPTED(name) Intercept::name,
#include "svm/intercepts.inc"
};
constexpr bool every_intercept_has_its_row() {
    for (std::size_t i = 0; i < std::size(row_order); ++i)
        if (row_order[i] != static_cast<Intercept>(i)) return false;
    return std::size(row_order) == static_cast<std::size_t>(Intercept::count);
}
static_assert(every_intercept_has_its_row(), "svm/intercepts.inc and arch/intercepts.inc differ");

/// 15.8.1 "MOV CRx/DRx Intercepts": EXITINFO1 of MOV; that of CLTS, LMSW and SMSW is 0.
constexpr u64 mov_cr_information(unsigned gpr) { return bit(63) | gpr; }

} // namespace

// ---- Instructions -------------------------------------------------------------------------------

Stop Svm::instruction_exit(const Insn& insn, u64 code, u64 info1, u64 info2) {
    const u64 next = cpu_.rip + insn.length;
    return exit({.code = code, .info1 = info1, .info2 = info2, .nrip = insn.mode == 64 ? next : low32(next)});
}

/// 15.14.4 "Pause Intercept Filtering": of the PAUSEs that follow each other closely, as many as the count
/// says go by.
bool Svm::pause_exits() {
    if (!cpu_.has(Feature::PauseFilter)) return true;
    const u64 threshold = guest_.get(VMCB::pause_filter_threshold);
    const Tick now = cpu_.now(), elapsed = now - last_pause_;
    last_pause_ = now;
    if (cpu_.has(Feature::PauseFilterThreshold) && threshold != 0 && elapsed > threshold) {
        pause_count_ = guest_.get(VMCB::pause_filter_count);
        return false;
    }
    if (pause_count_ == 0) return true;
    --pause_count_;
    return false;
}

/// 15.14.5 "Bus Lock Threshold": as many as the counter says go by; then there is an exit before each.
Result<void> Svm::bus_lock() {
    if (!cpu_.has(Feature::BusLockThreshold)) return {};
    if (bus_lock_counter_ == 0) return exit({.code = ExitCode::BUSLOCK});
    --bus_lock_counter_;
    return {};
}

Result<void> Svm::instruction(Cpu& cpu, const Insn& insn, Intercept what) {
    const u64 code = codes[static_cast<std::size_t>(what)];
    const bool assists = cpu.has(Feature::DecodeAssists);
    switch (what) {
    case Intercept::pause:
        if (!pause_exits()) return {};
        break;
    case Intercept::hlt: return hlt(insn);
    case Intercept::bus_lock: return bus_lock();
    case Intercept::mwait:
        if (cpu.monitor_armed && intercepts(ExitCode::MWAIT_CONDITIONAL))
            return instruction_exit(insn, ExitCode::MWAIT_CONDITIONAL);
        if (!intercepts(ExitCode::MWAIT)) return {};
        break;
    case Intercept::invlpg: {
        const u64 linear =
            cpu.linear_unchecked(insn.memory.segment, cpu.effective_address(insn), insn.address_size);
        return instruction_exit(insn, code, assists ? linear : 0);
    }
    case Intercept::intn: return instruction_exit(insn, code, assists ? insn.immediate & 0xFF : 0);
    default: break;
    }
    return instruction_exit(insn, code);
}

// ---- Control and debug registers ----------------------------------------------------------------

/// Whether the core will refuse this value: such a #GP outranks the intercept (Table 15-7).
bool Svm::write_faults(unsigned cr, u64 value) const {
    const ControlRegisters& c = cpu_.control;
    switch (cr) {
    case 0:
        if (high32(value) || ((value & CR0::PG) && !(value & CR0::PE))) return true;
        if ((value & CR0::NW) && !(value & CR0::CD)) return true;
        return !(value & CR0::PG) && (c.cr0 & CR0::PG) && cpu_.code64();
    case 3:
        if (c.cr4 & CR4::PCIDE) value &= ~bit(63);
        return (value >> cpu_.model.physical_bits) != 0;
    case 4: return (value & ~cr4_supported(cpu_.model)) || (cpu_.long_mode_active() && !(value & CR4::PAE));
    case 8: return (value >> 4) != 0;
    default: return false;
    }
}

Result<void> Svm::cr_write(Cpu& cpu, const Insn& insn, unsigned cr, CrAccess access, u64& value) {
    const bool mov = access == CrAccess::mov_to;
    if (mov && write_faults(cr, value)) return {};
    const u64 info = mov && cpu.has(Feature::DecodeAssists) ? mov_cr_information(insn.operand[1].number) : 0;
    if (intercepts(ExitCode::CR0_WRITE + cr)) return instruction_exit(insn, ExitCode::CR0_WRITE + cr, info);
    if (intercepts(ExitCode::CR0_WRITE_TRAP + cr)) trap_after({.code = ExitCode::CR0_WRITE_TRAP + cr});
    if (cr != 0 || !intercepts(ExitCode::CR0_SEL_WRITE) || access == CrAccess::clts) return {};
    // Only bits other than TS and MP count; LMSW is not looked into.
    if (mov && !((value ^ cpu.control.cr0) & ~(CR0::TS | CR0::MP))) return {};
    return instruction_exit(insn, ExitCode::CR0_SEL_WRITE, info);
}

Result<void> Svm::cr_read(Cpu& cpu, const Insn& insn, unsigned cr, u64&) {
    if (!intercepts(ExitCode::CR0_READ + cr)) return {};
    const bool mov = insn.operand[1].kind == OperandKind::control;
    const u64 info = mov && cpu.has(Feature::DecodeAssists) ? mov_cr_information(insn.operand[0].number) : 0;
    return instruction_exit(insn, ExitCode::CR0_READ + cr, info);
}

Result<void> Svm::dr_access(Cpu& cpu, const Insn& insn, unsigned dr, bool write, unsigned gpr) {
    const u64 code = (write ? ExitCode::DR0_WRITE : ExitCode::DR0_READ) + dr;
    if (!intercepts(code)) return {};
    // All normal exceptions come first; the core raises them.
    if ((dr == 4 || dr == 5) && (cpu.control.cr4 & CR4::DE)) return {};
    if (cpu.cpl != 0 || (cpu.dr7 & DR7::GD)) return {};
    if (write && dr >= 4 && high32(cpu.gpr(gpr, insn.mode == 64 ? 8 : 4))) return {};
    return instruction_exit(insn, code, cpu.has(Feature::DecodeAssists) ? gpr : 0);
}

// ---- Events -------------------------------------------------------------------------------------

Result<void> Svm::event(Cpu& cpu, const Event& event) {
    const bool hardware = event.type == Event::Type::hardware_exception;
    // The instruction that faults has written no register.
    if (hardware && trap_ && trap_->code < ExitCode::INVLPGB) trap_.reset();
    // External interrupts, NMIs, INT n and INT1 are not subject to exception intercepts.
    if (event.injected || (!hardware && event.type != Event::Type::software_exception)) return {};
    if (event.vector > 31 || event.vector == 2 || event.vector == 9) return {};
    if (!intercepts(ExitCode::EXCP0 + event.vector)) return {};
    SvmExit e{.code = ExitCode::EXCP0 + event.vector, .event = EVENT::encode(event)};
    e.info1 = event.has_error ? event.error : 0;
    if (!hardware) e.nrip = cpu.rip + event.instruction_length;
    const auto vector = static_cast<Vector>(event.vector);
    if (hardware && vector == Vector::PF) {
        e.info2 = event.address;
        e.records_bytes = !(event.error & PFEC::I) && !cpu.delivering;
    }
    if (hardware && vector == Vector::DB) { // DR6 and DR7 are written before the intercept
        cpu.dr6 = (cpu.dr6 & ~u64{0xF}) | event.address | DR6::fixed1;
        cpu.dr7 &= ~DR7::GD;
    }
    return exit(e);
}

/// Without the intercept the processor shuts down, and nobody is left to be the host.
Result<void> Svm::triple_fault(Cpu& cpu) {
    if (intercepts(ExitCode::SHUTDOWN)) return exit({.code = ExitCode::SHUTDOWN});
    cpu.in_guest = false;
    cpu.mmu.set_second_level(nullptr);
    cpu.context_changed(false);
    return {};
}

/// 15.14.1 "Task Switch Intercept".
Result<void> Svm::task_switch(Cpu& cpu, const TaskSwitch& what) {
    if (!intercepts(ExitCode::TASK_SWITCH)) return {};
    u64 info2 = what.has_error ? bit(44) | what.error : 0;
    if (what.source == TaskSwitch::Source::iret) info2 |= bit(36);
    if (what.source == TaskSwitch::Source::jmp) info2 |= bit(38);
    const u64 flags = cpu.delivering ? saved_flags(cpu, *cpu.delivering) : cpu.rflags();
    if (flags & RFLAGS::RF) info2 |= bit(48);
    return exit({.code = ExitCode::TASK_SWITCH, .info1 = what.selector, .info2 = info2});
}

Result<void> Svm::second_level_fault(Cpu& cpu) {
    const NestedFault fault = npt_.fault();
    const bool fetch = (fault.error & PFEC::I) != 0;
    return exit({.code = ExitCode::NPF,
                 .info1 = fault.error,
                 .info2 = fault.guest_physical,
                 .records_bytes = !fetch && !cpu.delivering});
}

// ---- Time ---------------------------------------------------------------------------------------

/// 15.30.5 "TSC Ratio MSR (C000_0104h)": the guest's counter is scaled, then offset.
u64 Svm::guest_tsc(Cpu& cpu, u64 tsc) {
    if (cpu.has(Feature::TscRateMsr))
        tsc = static_cast<u64>((u128{tsc} * cpu.msrs->stored(Msr::TSC_RATIO)) >> 32);
    return tsc + guest_.get(VMCB::tsc_offset);
}

} // namespace exeunt
