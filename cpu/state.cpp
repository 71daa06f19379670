// The one list of the fields of a processor's state, for snapshots, hashes, dumps and comparison.
#include "cpu/cpu.hpp"
#include "cpu/msrs.hpp"
#include "cpu/performance.hpp"

namespace exeunt {

namespace {

constexpr const char* gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* segment_names[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

void visit_segment(StateVisitor& visitor, const char* name, Segment& segment) {
    visitor.enter(name);
    visitor.value("selector", segment.selector);
    visitor.value("access", segment.access);
    visitor.value("limit", segment.limit);
    visitor.value("base", segment.base);
    visitor.leave();
}

void visit_table(StateVisitor& visitor, const char* name, TableRegister& table) {
    visitor.enter(name);
    visitor.value("base", table.base);
    visitor.value("limit", table.limit);
    visitor.leave();
}

/// RFLAGS as one number: how it is kept between instructions is the engine's business.
void visit_flags(StateVisitor& visitor, Flags& flags) {
    u64 rflags = flags.value();
    visitor.value("rflags", rflags);
    flags.set_arithmetic(rflags);
    flags.rest = rflags & ~RFLAGS::arithmetic;
}

void visit_control(StateVisitor& visitor, ControlRegisters& control) {
    visitor.value("cr0", control.cr0);
    visitor.value("cr2", control.cr2);
    visitor.value("cr3", control.cr3);
    visitor.value("cr4", control.cr4);
    visitor.value("efer", control.efer);
    visitor.value("xcr0", control.xcr0);
    visitor.array("pdpte", control.pdpte);
    visitor.value("pkru", control.pkru);
    visitor.value("pkrs", control.pkrs);
}

void visit_x87(StateVisitor& visitor, X87State& x87) {
    visitor.enter("x87");
    for (unsigned i = 0; i < 8; ++i) {
        visitor.enter("r" + std::to_string(i));
        visitor.value("significand", x87.st[i].significand);
        visitor.value("sign_exponent", x87.st[i].sign_exponent);
        visitor.leave();
    }
    visitor.value("control", x87.control);
    visitor.value("status", x87.status);
    visitor.value("empty", x87.empty);
    visitor.value("opcode", x87.opcode);
    visitor.value("instruction_pointer", x87.instruction_pointer);
    visitor.value("data_pointer", x87.data_pointer);
    visitor.value("instruction_selector", x87.instruction_selector);
    visitor.value("data_selector", x87.data_selector);
    visitor.leave();
}

void visit_vectors(StateVisitor& visitor, CpuState& state) {
    for (unsigned i = 0; i < std::size(state.vector); ++i)
        visitor.array("ymm" + std::to_string(i), state.vector[i].q);
    visitor.value("mxcsr", state.mxcsr);
}

void visit_msrs(StateVisitor& visitor, CpuState& state) {
    visitor.value("tsc_offset", state.tsc_offset);
    visitor.value("tsc_adjust", state.tsc_adjust);
    visitor.value("tsc_aux", state.tsc_aux);
    visitor.value("sysenter_cs", state.sysenter_cs);
    visitor.value("sysenter_esp", state.sysenter_esp);
    visitor.value("sysenter_eip", state.sysenter_eip);
    visitor.value("star", state.star);
    visitor.value("lstar", state.lstar);
    visitor.value("cstar", state.cstar);
    visitor.value("sfmask", state.sfmask);
    visitor.value("kernel_gs_base", state.kernel_gs_base);
    visitor.value("debugctl", state.debugctl);
    visitor.value("pat", state.pat);
    visitor.value("xss", state.xss);
    visitor.value("misc_enable", state.misc_enable);
}

/// What holds events back, and what waits to be delivered.
void visit_events(StateVisitor& visitor, CpuState& state) {
    visitor.value("activity", state.activity);
    visitor.value("shadow", state.shadow);
    visitor.value("nmi_blocked", state.nmi_blocked);
    visitor.value("smi_blocked", state.smi_blocked);
    visitor.value("in_smm", state.in_smm);
    visitor.value("nmi_pending", state.nmi_pending);
    visitor.value("smi_pending", state.smi_pending);
    visitor.value("init_pending", state.init_pending);
    visitor.value("sipi_pending", state.sipi_pending);
    visitor.value("sipi_vector", state.sipi_vector);
    visitor.value("pending_debug", state.pending_debug);
    visitor.value("monitor_armed", state.monitor_armed);
    visitor.value("mwait_break_on_interrupt", state.mwait_break_on_interrupt);
    visitor.value("wait_until", state.wait_until);
    visitor.value("wait_is_limited", state.wait_is_limited);
    visitor.value("monitor_address", state.monitor_address);
    visitor.array("monitor_line", state.monitor_line);
}

} // namespace

void CpuState::visit(StateVisitor& visitor) {
    for (unsigned i = 0; i < std::size(gpr_names); ++i) visitor.value(gpr_names[i], r[i]);
    visit_flags(visitor, flags);
    visit_control(visitor, control);
    for (unsigned i = 0; i < std::size(segment_names); ++i)
        visit_segment(visitor, segment_names[i], segment[i]);
    visit_table(visitor, "gdtr", gdtr);
    visit_table(visitor, "idtr", idtr);
    visitor.array("dr", dr);
    visitor.value("dr6", dr6);
    visitor.value("dr7", dr7);
    visitor.value("cpl", cpl);
    visit_x87(visitor, x87);
    visit_vectors(visitor, *this);
    visit_msrs(visitor, *this);
    visit_events(visitor, *this);
}

// What else is state of a processor: its place in the code, its chance, its other MSRs, its extension. What follows
// from these (decoded code, translations, the guest's intercepts) is derived again after a restore.
void Cpu::visit(StateVisitor& visitor) {
    CpuState::visit(visitor);
    visitor.value("rip", rip);
    visitor.value("in_guest", in_guest);
    visitor.value("next_shadow", new_shadow_);
    visitor.enter("random");
    random.visit(visitor);
    visitor.leave();
    msrs->visit(visitor);
    visitor.enter("virtualization");
    virtualization->visit(visitor);
    visitor.leave();
    u64 busy = cycles();
    visitor.value("cycles", busy);
    visitor.value("unretired", unretired_);
    busy_ = busy;
    run_start_ = now();
    if (performance) performance->visit(visitor);
}

} // namespace exeunt
