// System instructions that are neither control registers nor caches: MSRs, time, identification, idling,
// extended control registers, chance, protection keys. The manual's page of each mnemonic.
//
// Not modelled: SMX (GETSEC is #UD, for
// CR4.SMXE can not be set), SMM.
#include "cpu/instructions/system.hpp"

#include "cpu/cpuid.hpp"
#include "cpu/instructions/xsave.hpp"
#include "cpu/msrs.hpp"
#include "cpu/performance.hpp"

namespace exeunt {

namespace {

/// EDX:EAX, the upper halves of RDX and RAX cleared.
void set_edx_eax(Cpu& cpu, u64 value) {
    cpu.set_gpr(RAX, 4, low32(value));
    cpu.set_gpr(RDX, 4, high32(value));
}

u64 edx_eax(const Cpu& cpu) { return cpu.gpr(RDX, 4) << 32 | cpu.gpr(RAX, 4); }

} // namespace

// ---- MSRs
// --------------------------------------------------------------------------------------------------------

Result<void> exec_RDMSR(Cpu& cpu, const Insn& insn) {
    const u32 index = static_cast<u32>(cpu.gpr(RCX, 4));
    u64 value = 0;
    if (!cpu.in_guest || !TRY(cpu.virtualization->rdmsr(cpu, insn, index, value)))
        value = TRY(cpu.msrs->read(cpu, index));
    set_edx_eax(cpu, value);
    return {};
}

Result<void> exec_WRMSR(Cpu& cpu, const Insn& insn) {
    const u32 index = static_cast<u32>(cpu.gpr(RCX, 4));
    const u64 value = edx_eax(cpu);
    if (cpu.in_guest && TRY(cpu.virtualization->wrmsr(cpu, insn, index, value))) return {};
    return cpu.msrs->write(cpu, index, value);
}

// ---- Time and identification
// -----------------------------------------------------------------------------------

Result<void> exec_RDTSC(Cpu& cpu, const Insn&) {
    set_edx_eax(cpu, cpu.tsc());
    return {};
}

Result<void> exec_RDTSCP(Cpu& cpu, const Insn&) {
    set_edx_eax(cpu, cpu.tsc());
    cpu.set_gpr(RCX, 4, low32(cpu.tsc_aux));
    return {};
}

// RDPRU: APM 3 "RDPRU". A register that does not exist reads as 0.
Result<void> exec_RDPRU(Cpu& cpu, const Insn&) {
    constexpr u32 registers[] = {Msr::IA32_MPERF, Msr::IA32_APERF};
    const u64 number = cpu.gpr(RCX, 4);
    set_edx_eax(cpu, number < std::size(registers) ? TRY(cpu.msrs->read(cpu, registers[number])) : 0);
    return {};
}

// MCOMMIT: every store is complete, and none of them failed. APM 3 "MCOMMIT": CF = 1, the other arithmetic flags 0.
Result<void> exec_MCOMMIT(Cpu& cpu, const Insn&) {
    cpu.flags.set_arithmetic(RFLAGS::CF);
    return {};
}

Result<void> exec_RDPID(Cpu& cpu, const Insn& insn) {
    cpu.set_gpr(insn.operand[0].number, insn.mode == 64 ? 8 : 4, low32(cpu.tsc_aux));
    return {};
}

Result<void> exec_RDPMC(Cpu& cpu, const Insn& insn) {
    if (cpu.cpl > 0 && !(cpu.control.cr4 & CR4::PCE)) return general_protection(0);
    TRY(cpu.ask(insn, Intercept::rdpmc));
    if (!cpu.performance) return general_protection(0);
    set_edx_eax(cpu, TRY(cpu.performance->read(static_cast<u32>(cpu.gpr(RCX, 4)))));
    return {};
}

Result<void> exec_CPUID(Cpu& cpu, const Insn&) {
    const u32 leaf = static_cast<u32>(cpu.gpr(RAX, 4));
    const CpuidResult result = cpuid(cpu, leaf, static_cast<u32>(cpu.gpr(RCX, 4)));
    // SDM 3A 9.11.7.1 "Determining the Signature": CPUID leaf 1 leaves the revision in IA32_BIOS_SIGN_ID.
    if (leaf == 1 && cpu.model.has(Quirk::intel_platform_msrs))
        cpu.msrs->store(Msr::IA32_BIOS_SIGN_ID, u64{cpu.model.microcode} << 32);
    cpu.set_gpr(RAX, 4, result.eax);
    cpu.set_gpr(RBX, 4, result.ebx);
    cpu.set_gpr(RCX, 4, result.ecx);
    cpu.set_gpr(RDX, 4, result.edx);
    return {};
}

// ---- Idling
// ------------------------------------------------------------------------------------------------------

Result<void> exec_HLT(Cpu& cpu, const Insn&) {
    cpu.activity = Activity::hlt;
    cpu.attention();
    return {};
}

namespace {

/// HWCR.MonMwaitDis and MonMwaitUserEn (APM 2 App. A; APM 3 MONITOR); IA32_MISC_ENABLE's bit 18.
Result<void> monitor_usable(const Cpu& cpu) {
    constexpr u64 MonMwaitDis = bit(9), MonMwaitUserEn = bit(10);
    const u64 hwcr = cpu.msrs->stored(Msr::HWCR);
    if (hwcr & MonMwaitDis) return undefined_opcode();
    if (cpu.cpl > 0 && !(hwcr & MonMwaitUserEn)) return undefined_opcode();
    if (cpu.model.has(Quirk::intel_platform_msrs) && !(cpu.misc_enable & MiscEnable::MONITOR))
        return undefined_opcode();
    return {};
}

} // namespace

// MONITOR: arms the 64-byte line at DS:rAX, which is checked as the load of a byte.
Result<void> exec_MONITOR(Cpu& cpu, const Insn& insn) {
    TRY(monitor_usable(cpu));
    TRY(cpu.ask(insn, Intercept::monitor));
    if (cpu.gpr(RCX, 4) != 0) return general_protection(0);
    const Seg where = insn.has_segment_override ? insn.memory.segment : Seg::DS;
    const u64 linear = TRY(cpu.linear(where, cpu.gpr(RAX, insn.address_size), 1, AccessType::read));
    const TlbEntry line = TRY(touch(cpu, linear));
    if (line.special())
        return cpu.unmodelled("MONITOR of a virtual APIC's page", "SDM 3C 29.4.6.1 \"Instruction-Specific Considerations\"");
    cpu.arm_monitor(line.physical() + (linear & 0xFFF));
    return {};
}

// MWAIT: waits for a store to the armed line, or for an event. With ECX[0] an interrupt ends it even while it
// is masked. It may also end for no reason (SDM 2B MWAIT, "implementation-dependent events").
Result<void> exec_MWAIT(Cpu& cpu, const Insn& insn) {
    TRY(monitor_usable(cpu));
    TRY(cpu.ask(insn, Intercept::mwait));
    const u64 extensions = cpu.gpr(RCX, 4);
    if (extensions & ~u64{1}) return general_protection(0);
    if (!cpu.monitor_armed) return {};
    cpu.mwait_break_on_interrupt = extensions & 1;
    cpu.wait_until = never;
    cpu.activity = Activity::mwait;
    cpu.attention();
    return {};
}

namespace {

/// No wait lasts longer by itself; both instructions may end for reasons of the implementation.
constexpr Tick longest_wait = Tick{1} << 40;

/// In how many ticks the time-stamp counter that the running software sees will have gone on by `counts`.
Tick ticks_until(Cpu& cpu, u64 counts) {
    const auto at = [&](Tick after) {
        const u64 raw = cpu.now() + cpu.tsc_offset + after;
        return cpu.in_guest ? cpu.virtualization->guest_tsc(cpu, raw) : raw;
    };
    const u64 start = at(0);
    Tick low = 0, high = longest_wait;
    while (low < high) {
        const Tick middle = low + (high - low) / 2;
        if (at(middle) - start >= counts)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/// UMWAIT and TPAUSE: waits until the counter has the value in EDX:EAX, or for as long as IA32_UMWAIT_CONTROL
/// allows. Whether it waits in C0.1 or C0.2, bit 0 of the operand, makes no difference here.
Result<void> user_wait(Cpu& cpu, const Insn& insn, Activity activity) {
    if (cpu.gpr(insn.operand[0].number, 4) & ~u64{1}) return general_protection(0);
    const u64 deadline = edx_eax(cpu), present = cpu.tsc();
    const u64 limit = cpu.msrs->stored(Msr::IA32_UMWAIT_CONTROL) & ~u64{3};
    const bool limited = limit != 0 && deadline > present && deadline - present > limit;
    cpu.flags.set_arithmetic(0);
    if (deadline <= present || (activity == Activity::mwait && !cpu.monitor_armed)) return {};
    cpu.wait_until = cpu.now() + ticks_until(cpu, limited ? limit : deadline - present);
    cpu.wait_is_limited = limited;
    cpu.mwait_break_on_interrupt = true;
    cpu.activity = activity;
    cpu.attention();
    return {};
}

} // namespace

// UMONITOR: as MONITOR, at any CPL, with the address in its operand.
Result<void> exec_UMONITOR(Cpu& cpu, const Insn& insn) {
    const Seg where = insn.has_segment_override ? insn.memory.segment : Seg::DS;
    const u64 offset = cpu.gpr(insn.operand[0].number, insn.address_size);
    const u64 linear = TRY(cpu.linear(where, offset, 1, AccessType::read));
    const TlbEntry* entry = TRY(cpu.mmu.lookup(Linear{linear}, {AccessType::read, cpu.mmu.privilege()}));
    cpu.arm_monitor(entry->physical() + (linear & 0xFFF));
    return {};
}

Result<void> exec_UMWAIT(Cpu& cpu, const Insn& insn) { return user_wait(cpu, insn, Activity::mwait); }
Result<void> exec_TPAUSE(Cpu& cpu, const Insn& insn) { return user_wait(cpu, insn, Activity::tpause); }

// ---- Extended control registers
// --------------------------------------------------------------------------------

Result<void> exec_XGETBV(Cpu& cpu, const Insn&) {
    if (!(cpu.control.cr4 & CR4::OSXSAVE)) return undefined_opcode();
    const u64 index = cpu.gpr(RCX, 4);
    if (index == 0) {
        set_edx_eax(cpu, cpu.control.xcr0);
    } else if (index == 1 && cpu.has(Feature::XGETBV_ECX1)) {
        set_edx_eax(cpu, cpu.control.xcr0 & xsave_in_use(cpu));
    } else {
        return general_protection(0);
    }
    return {};
}

// XSETBV: SDM 3A 2.6 "Extended Control Registers (Including XCR0)".
Result<void> exec_XSETBV(Cpu& cpu, const Insn& insn) {
    if (!(cpu.control.cr4 & CR4::OSXSAVE)) return undefined_opcode();
    TRY(cpu.ask(insn, Intercept::xsetbv_at_any_privilege));
    if (cpu.cpl != 0) return general_protection(0);
    TRY(cpu.ask(insn, Intercept::xsetbv));
    const u64 value = edx_eax(cpu);
    if (cpu.gpr(RCX, 4) != 0 || (value & ~xcr0_supported(cpu.model)) || !(value & XCR0::X87))
        return general_protection(0);
    if ((value & XCR0::AVX) && !(value & XCR0::SSE)) return general_protection(0);
    cpu.control.xcr0 = value;
    return {};
}

// ---- Chance
// ------------------------------------------------------------------------------------------------------

// RDRAND, RDSEED: the generator never runs dry, so CF = 1; OF, SF, ZF, AF and PF are 0.
Result<void> exec_RDRAND(Cpu& cpu, const Insn& insn) {
    cpu.set_gpr(insn.operand[0].number, insn.operand[0].bytes, cpu.random.next());
    cpu.flags.set_arithmetic(RFLAGS::CF);
    return {};
}

Result<void> exec_RDSEED(Cpu& cpu, const Insn& insn) { return exec_RDRAND(cpu, insn); }

// ---- Access rights
// -----------------------------------------------------------------------------------------------

Result<void> exec_CLAC(Cpu& cpu, const Insn&) {
    if (cpu.cpl != 0) return undefined_opcode();
    cpu.flags.rest &= ~RFLAGS::AC;
    cpu.mode_changed();
    return {};
}

Result<void> exec_STAC(Cpu& cpu, const Insn&) {
    if (cpu.cpl != 0) return undefined_opcode();
    cpu.flags.rest |= RFLAGS::AC;
    cpu.mode_changed();
    return {};
}

Result<void> exec_RDPKRU(Cpu& cpu, const Insn&) {
    if (!(cpu.control.cr4 & CR4::PKE)) return undefined_opcode();
    if (cpu.gpr(RCX, 4) != 0) return general_protection(0);
    set_edx_eax(cpu, cpu.control.pkru);
    return {};
}

Result<void> exec_WRPKRU(Cpu& cpu, const Insn&) {
    if (!(cpu.control.cr4 & CR4::PKE)) return undefined_opcode();
    if (cpu.gpr(RCX, 4) != 0 || cpu.gpr(RDX, 4) != 0) return general_protection(0);
    load_pkru(cpu, static_cast<u32>(cpu.gpr(RAX, 4)));
    return {};
}

// ---- Modes that are not there
// ------------------------------------------------------------------------------------

Result<void> exec_GETSEC(Cpu&, const Insn&) { return undefined_opcode(); }

Result<void> exec_RSM(Cpu& cpu, const Insn& insn) {
    TRY(cpu.ask(insn, Intercept::rsm)); // APM 2 Table 15-7: before all exceptions
    if (!cpu.in_smm) return undefined_opcode();
    return cpu.unmodelled("RSM", "SDM 3C 34.3 \"Exiting from SMM\"");
}

} // namespace exeunt
