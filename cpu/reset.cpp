// RESET# and INIT. SDM 3A 9.1 "Initialization Overview", Table 9-1 "IA-32 and Intel 64 Processor States
// Following Power-up, Reset, or INIT"; APM 2 14.1.3 "Processor Initialization State".
//
// INIT leaves x87, SSE and AVX state, caches, TSC, MTRRs and most MSRs as they are. The local APIC hears of
// reset and INIT from the machine. What a processor other than the first does next (wait for SIPI) is the
// machine's and the events' business.
#include "cpu/cpu.hpp"
#include "cpu/cpuid.hpp"
#include "cpu/msrs.hpp"
#include "cpu/performance.hpp"

namespace exeunt {

namespace {

constexpr u32 data_access = AR::P | AR::S | AR::WRITABLE | AR::ACCESSED;
constexpr u32 code_access = data_access | AR::CODE;

void reset_segments(CpuState& state) {
    for (Segment& segment : state.segment) segment = {0, data_access, 0xFFFF, 0};
    state.segment[static_cast<unsigned>(Seg::CS)] = {0xF000, code_access, 0xFFFF, 0xFFFF'0000};
    state.segment[static_cast<unsigned>(Seg::LDTR)] = {0, AR::P | SystemType::ldt, 0xFFFF, 0};
    state.segment[static_cast<unsigned>(Seg::TR)] = {0, AR::P | SystemType::tss_busy, 0xFFFF, 0};
    state.gdtr = state.idtr = {0, 0xFFFF};
}

/// What both RESET and INIT set.
void reset_common(CpuState& state, const CpuModel& model) {
    for (u64& gpr : state.r) gpr = 0;
    state.r[RDX] = processor_signature(model);
    state.flags.set_arithmetic(0);
    state.flags.rest = RFLAGS::FIXED1;
    reset_segments(state);
    state.control.cr2 = state.control.cr3 = state.control.cr4 = 0;
    state.control.efer = 0;
    for (u64& dr : state.dr) dr = 0;
    state.dr6 = DR6::fixed1;
    state.dr7 = DR7::fixed1;
    state.cpl = 0;
    state.activity = Activity::active;
    state.shadow = Shadow::none;
    state.nmi_blocked = state.smi_blocked = state.in_smm = false;
    state.nmi_pending = state.smi_pending = state.init_pending = state.sipi_pending = false;
    state.pending_debug = 0;
    state.monitor_armed = false;
    state.wait_until = never;
    state.wait_is_limited = false;
}

/// What only RESET sets.
void reset_rest(CpuState& state, const CpuModel& model) {
    state.x87 = X87State{};
    state.x87.control = 0x0040;
    state.x87.empty = 0; // Table 9-1: the tag word is 5555H, every register holds +0
    for (VectorRegister& vector : state.vector) vector = {};
    state.mxcsr = 0x1F80;
    state.control.xcr0 = XCR0::X87;
    state.control.pkru = state.control.pkrs = 0;
    state.tsc_offset = state.tsc_adjust = state.tsc_aux = 0;
    state.sysenter_cs = state.sysenter_esp = state.sysenter_eip = 0;
    state.star = state.lstar = state.cstar = state.sfmask = state.kernel_gs_base = 0;
    state.debugctl = 0;
    state.pat = 0x0007'0406'0007'0406;
    state.xss = 0;
    state.misc_enable = 0;
    if (model.has(Quirk::intel_platform_msrs))
        state.misc_enable = MiscEnable::fast_strings | MiscEnable::BTS_unavailable |
                            MiscEnable::PEBS_unavailable |
                            (model.has(Feature::MONITOR) ? MiscEnable::MONITOR : 0) |
                            (model.has(Feature::PDCM) ? MiscEnable::performance_monitoring : 0);
}

} // namespace

void Cpu::reset(bool init) {
    // INIT keeps CR0.CD and NW; ET is always 1.
    const u64 kept = init ? control.cr0 & (CR0::CD | CR0::NW) : CR0::CD | CR0::NW;
    reset_common(*this, model);
    control.cr0 = kept | CR0::ET;
    if (!init) {
        reset_rest(*this, model);
        // The counter is 0 at reset, whenever that is.
        tsc_offset = u64{0} - now();
        msrs->reset();
        if (performance) performance->reset();
    } else {
        debugctl = 0;
    }
    in_guest = false;
    intercepted.reset();
    delivering.reset();
    virtualization->reset(*this);
    clear_shadow();
    rip = next_rip = 0xFFF0;
    mmu.flush_all();
    context_changed(false);
    mode_changed();
    attention();
}

} // namespace exeunt
