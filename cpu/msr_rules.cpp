// What the core's MSRs may hold, and what reading and writing them does. SDM 3C Table 35-2; SDM 3A 11.11
// "Memory Type Range Registers (MTRRs)", 11.12 "Page Attribute Table (PAT)"; APM 2 App. A.
#include "cpu/msr_rules.hpp"

#include "cpu/cpu.hpp"
#include "cpu/msrs.hpp"

namespace exeunt::msr_rules {

namespace {

Stop refused() { return general_protection(0); }

/// Encodings of SDM 3A Table 11-8 "Memory Types That Can Be Encoded in MTRRs": UC, WC, WT, WP, WB.
constexpr bool mtrr_type(u64 type) { return type <= 6 && type != 2 && type != 3; }

/// Bits at or above MAXPHYADDR.
u64 beyond_physical(const Cpu& cpu) { return ~low_mask(cpu.model.physical_bits); }

/// A register that is a field of CpuState and has no rule but its writable bits.
Result<u64> set(u64& field, u64 value) {
    field = value;
    return u64{0};
}

Result<u64> set_canonical(Cpu& cpu, u64& field, u64 value) {
    if (!canonical_for_model(cpu, value)) return refused();
    return set(field, value);
}

/// The controller compares IA32_TSC_DEADLINE with the counter: it must hear that the counter jumped.
void move_tsc(Cpu& cpu, u64 offset) {
    cpu.tsc_offset = offset;
    u64 deadline = 0;
    if (cpu.has(Feature::TSC_DEADLINE) && cpu.controller &&
        cpu.controller->read_msr(tsc_deadline_msr, deadline) && deadline != 0)
        cpu.controller->write_msr(tsc_deadline_msr, deadline);
}

} // namespace

Result<u64> write_only(Cpu&, u64) { return refused(); }

Result<u64> arch_capabilities(Cpu& cpu, u64) { return cpu.model.arch_capabilities; }

Result<u64> patch_level_read(Cpu& cpu, u64) { return u64{cpu.model.microcode}; }

/// IA32_PRED_CMD and IA32_FLUSH_CMD: there is no predictor and no cache to flush.
Result<u64> command_write(Cpu&, u64, u64) { return u64{0}; }

Result<u64> microcode_update(Cpu& cpu, u64, u64) {
    return cpu.unmodelled("loading a microcode update", "SDM 3A 9.11.6 \"Microcode Update Loader\"");
}

/// Bit 1 needs STIBP, bit 2 SSBD. They hold back speculation, of which there is none.
Result<u64> spec_ctrl_write(Cpu& cpu, u64, u64 value) {
    if ((value & 2) && !cpu.has(Feature::STIBP)) return refused();
    if ((value & 4) && !cpu.has(Feature::SSBD)) return refused();
    return value;
}

/// APM 2 3.2.9 "Speculation Control MSRs": STIBP has a feature of its own.
Result<u64> amd_spec_ctrl_write(Cpu& cpu, u64, u64 value) {
    if ((value & 2) && !cpu.has(Feature::AMD_STIBP)) return refused();
    return value;
}

// ---- Time
// ------------------------------------------------------------------------------------------------------

Result<u64> tsc_read(Cpu& cpu, u64) { return cpu.tsc(); }

/// SDM 3B 17.15.3 "Time-Stamp Counter Adjustment": IA32_TSC_ADJUST follows.
Result<u64> tsc_write(Cpu& cpu, u64, u64 value) {
    const u64 offset = value - cpu.now();
    cpu.tsc_adjust += offset - cpu.tsc_offset;
    move_tsc(cpu, offset);
    return u64{0};
}

Result<u64> tsc_adjust_read(Cpu& cpu, u64) { return cpu.tsc_adjust; }
Result<u64> tsc_adjust_write(Cpu& cpu, u64, u64 value) {
    const u64 offset = cpu.tsc_offset + (value - cpu.tsc_adjust);
    cpu.tsc_adjust = value;
    move_tsc(cpu, offset);
    return u64{0};
}

/// MPERF and APERF: the frequency never changes, so both count ticks, from what was written on.
Result<u64> ticks_read(Cpu& cpu, u64 stored) { return stored + cpu.now(); }
Result<u64> ticks_write(Cpu& cpu, u64, u64 value) { return value - cpu.now(); }

Result<u64> tsc_aux_read(Cpu& cpu, u64) { return cpu.tsc_aux; }
Result<u64> tsc_aux_write(Cpu& cpu, u64, u64 value) { return set(cpu.tsc_aux, value); }

// ---- System calls and segment bases
// ------------------------------------------------------------------------------

Result<u64> sysenter_cs_read(Cpu& cpu, u64) { return cpu.sysenter_cs; }
Result<u64> sysenter_cs_write(Cpu& cpu, u64, u64 value) { return set(cpu.sysenter_cs, value); }
Result<u64> sysenter_esp_read(Cpu& cpu, u64) { return cpu.sysenter_esp; }
Result<u64> sysenter_esp_write(Cpu& cpu, u64, u64 value) {
    return cpu.model.has(Quirk::sysenter_msrs_any_address) ? set(cpu.sysenter_esp, value)
                                                           : set_canonical(cpu, cpu.sysenter_esp, value);
}
Result<u64> sysenter_eip_read(Cpu& cpu, u64) { return cpu.sysenter_eip; }
Result<u64> sysenter_eip_write(Cpu& cpu, u64, u64 value) {
    return cpu.model.has(Quirk::sysenter_msrs_any_address) ? set(cpu.sysenter_eip, value)
                                                           : set_canonical(cpu, cpu.sysenter_eip, value);
}
Result<u64> star_read(Cpu& cpu, u64) { return cpu.star; }
Result<u64> star_write(Cpu& cpu, u64, u64 value) { return set(cpu.star, value); }
Result<u64> lstar_read(Cpu& cpu, u64) { return cpu.lstar; }
Result<u64> lstar_write(Cpu& cpu, u64, u64 value) { return set_canonical(cpu, cpu.lstar, value); }
Result<u64> cstar_read(Cpu& cpu, u64) { return cpu.cstar; }
Result<u64> cstar_write(Cpu& cpu, u64, u64 value) { return set_canonical(cpu, cpu.cstar, value); }
Result<u64> fmask_read(Cpu& cpu, u64) { return cpu.sfmask; }
Result<u64> fmask_write(Cpu& cpu, u64, u64 value) { return set(cpu.sfmask, value); }
Result<u64> fs_base_read(Cpu& cpu, u64) { return cpu.seg(Seg::FS).base; }
Result<u64> fs_base_write(Cpu& cpu, u64, u64 value) {
    return set_canonical(cpu, cpu.seg(Seg::FS).base, value);
}
Result<u64> gs_base_read(Cpu& cpu, u64) { return cpu.seg(Seg::GS).base; }
Result<u64> gs_base_write(Cpu& cpu, u64, u64 value) {
    return set_canonical(cpu, cpu.seg(Seg::GS).base, value);
}
Result<u64> kernel_gs_read(Cpu& cpu, u64) { return cpu.kernel_gs_base; }
Result<u64> kernel_gs_write(Cpu& cpu, u64, u64 value) {
    return set_canonical(cpu, cpu.kernel_gs_base, value);
}

// ---- Modes
// -------------------------------------------------------------------------------------------------------

Result<u64> efer_read(Cpu& cpu, u64) { return cpu.control.efer; }

/// SDM 3A 2.2.1 "Extended Feature Enable Register"; APM 2 3.1.7 "Extended Feature Enable Register (EFER)".
Result<u64> efer_write(Cpu& cpu, u64, u64 value) {
    const u64 old = cpu.control.efer;
    u64 allowed = EFER::LMA; // read-only: what is written there is ignored
    if (cpu.has(Feature::SYSCALL)) allowed |= EFER::SCE;
    if (cpu.has(Feature::LM)) allowed |= EFER::LME;
    if (execute_disable_available(cpu)) allowed |= EFER::NXE;
    if (cpu.has(Feature::SVM) && !(cpu.msrs->stored(vm_cr_msr) & bit(4))) allowed |= EFER::SVME;
    if (cpu.has(Feature::FFXSR)) allowed |= EFER::FFXSR;
    if (cpu.has(Feature::AutomaticIBRS)) allowed |= EFER_AIBRSE;
    if (cpu.has(Feature::MCOMMIT)) allowed |= EFER::MCOMMIT;
    if ((value & EFER::LMSLE) && cpu.model.has(Quirk::amd_platform_msrs) && cpu.has(Feature::LM) &&
        !cpu.has(Feature::EferLmsleUnsupported))
        return cpu.unmodelled("EFER.LMSLE", "APM 2 4.12.2 \"Data Limit Checks in 64-bit Mode\"");
    if (value & ~allowed) return refused();
    if (((value ^ old) & EFER::LME) && (cpu.control.cr0 & CR0::PG)) return refused();
    cpu.control.efer = (value & ~EFER::LMA) | (old & EFER::LMA);
    if ((value ^ old) & EFER::NXE) cpu.mmu.flush_world(cpu.mmu.key().world);
    cpu.mode_changed();
    return u64{0};
}

Result<u64> misc_enable_read(Cpu& cpu, u64) { return cpu.misc_enable; }

/// SDM 3C Table 35-2, register 1A0H: fast strings, MONITOR FSM, limit CPUID maxval, XD bit disable.
Result<u64> misc_enable_write(Cpu& cpu, u64, u64 value) {
    if ((value & MiscEnable::XD_disable) && !cpu.has(Feature::NX)) return refused();
    if ((value & MiscEnable::MONITOR) && !cpu.has(Feature::MONITOR)) return refused();
    return set(cpu.misc_enable, value);
}

Result<u64> debugctl_read(Cpu& cpu, u64) { return cpu.debugctl; }
Result<u64> debugctl_write(Cpu& cpu, u64, u64 value) {
    constexpr u64 freeze_on_pmi = bit(11) | bit(12); // with performance monitoring only
    if ((value & freeze_on_pmi) && !cpu.performance) return refused();
    if ((value & DEBUGCTL::LBR) && !cpu.model.has(Quirk::amd_platform_msrs))
        return cpu.unmodelled("IA32_DEBUGCTL.LBR", "SDM 3B 17.4.1 \"IA32_DEBUGCTL MSR\"");
    cpu.debugctl = value;
    cpu.flags_changed();
    return u64{0};
}

Result<u64> pkrs_read(Cpu& cpu, u64) { return u64{cpu.control.pkrs}; }
Result<u64> pkrs_write(Cpu& cpu, u64, u64 value) {
    if (cpu.control.pkrs != low32(value)) cpu.mmu.flush_world(cpu.mmu.key().world);
    cpu.control.pkrs = low32(value);
    return u64{0};
}

Result<u64> xss_read(Cpu& cpu, u64) { return cpu.xss; }
Result<u64> xss_write(Cpu& cpu, u64, u64 value) {
    if (value & ~xss_supported) return refused();
    return set(cpu.xss, value);
}

// ---- Memory types
// ------------------------------------------------------------------------------------------------

Result<u64> pat_read(Cpu& cpu, u64) { return cpu.pat; }

/// SDM 3A 11.12.2 "IA32_PAT MSR": every field holds a memory type of Table 11-10.
Result<u64> pat_write(Cpu& cpu, u64, u64 value) {
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = extract(value, 8 * i + 7, 8 * i);
        if (!mtrr_type(type) && type != 7) return refused();
    }
    return set(cpu.pat, value);
}

Result<u64> mtrr_base_write(Cpu& cpu, u64, u64 value) {
    if (!mtrr_type(value & 0xFF) || (value & 0xF00) || (value & beyond_physical(cpu))) return refused();
    return value;
}

Result<u64> mtrr_mask_write(Cpu& cpu, u64, u64 value) {
    if ((value & 0x7FF) || (value & beyond_physical(cpu))) return refused();
    return value;
}

/// With SYSCFG.MtrrFixDramModEn, bits 4 and 3 of each field are RdMem and WrMem (APM 2 7.9.1).
Result<u64> mtrr_fixed_write(Cpu& cpu, u64, u64 value) {
    const bool extended = cpu.msrs->stored(Msr::SYSCFG) & bit(19);
    for (unsigned i = 0; i < 8; ++i) {
        const u64 field = extract(value, 8 * i + 7, 8 * i);
        if (!mtrr_type(extended ? field & ~u64{0x18} : field)) return refused();
    }
    return value;
}

Result<u64> mtrr_def_type_write(Cpu&, u64, u64 value) {
    if (!mtrr_type(value & 0xFF)) return refused();
    return value;
}

/// SDM 3B 15.3.2.2 "IA32_MCi_STATUS MSRS": only 0 may be written; on AMD, HWCR.McStatusWrEn lifts that.
Result<u64> mc_status_write(Cpu& cpu, u64, u64 value) {
    if (value != 0 && !(cpu.msrs->stored(Msr::HWCR) & bit(18))) return refused();
    return value;
}

} // namespace exeunt::msr_rules
