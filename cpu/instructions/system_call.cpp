// SYSCALL and SYSRET, SYSENTER and SYSEXIT: transfers to and from privilege level 0 that look at no
// descriptor. SDM 3A 5.8.7 "Performing Fast Calls to System Procedures with the SYSENTER and SYSEXIT
// Instructions", 5.8.8 "Fast System Calls in 64-Bit Mode"; SDM 2B SYSCALL and the others; APM 3 SYSCALL,
// SYSRET, SYSENTER, SYSEXIT. Where the two differ, a quirk of the model decides (arch/quirks.inc).
// Not modelled: shadow stacks (no model offers CET).
#include "cpu/instructions.hpp"
#include "cpu/instructions/far_transfer.hpp"

namespace exeunt {

namespace {

/// The flat segments that these instructions load, whatever the tables say.
Segment flat_code(u16 selector, unsigned cpl, bool long_mode) {
    const u32 width = long_mode ? AR::L : AR::DB;
    return {selector, 0xB | AR::S | (cpl << 5) | AR::P | AR::G | width, 0xFFFF'FFFF, 0};
}
Segment flat_stack(u16 selector, unsigned cpl) {
    return {selector, 0x3 | AR::S | (cpl << 5) | AR::P | AR::G | AR::DB, 0xFFFF'FFFF, 0};
}

/// A selector out of an MSR with an offset and a privilege level.
u16 selector_at(u64 base, unsigned offset, unsigned rpl) {
    return static_cast<u16>(((base + offset) & 0xFFFC) | rpl);
}

/// RFLAGS as SYSCALL and SYSRET leave it. Whether a single-step trap follows them is decided by the TF that they load,
/// so that a kernel's IA32_FMASK keeps its entry from being stepped.
void load_flags(Cpu& cpu, u64 flags) {
    replace_flags(cpu, flags);
    cpu.event_delivered = true; // no trap for the old TF
    if (flags & RFLAGS::TF) {
        cpu.pending_debug |= DR6::BS;
        cpu.attention();
    }
}

} // namespace

Result<void> exec_SYSCALL(Cpu& cpu, const Insn&) {
    const bool anywhere = cpu.model.has(Quirk::syscall_in_compatibility_mode);
    if (!(cpu.control.efer & EFER::SCE) || (!cpu.code64() && !anywhere)) return undefined_opcode();
    const u64 base = extract(cpu.star, 47, 32);
    const bool long_mode = cpu.long_mode_active();
    u64 target = low32(cpu.star);
    u64 flags = cpu.rflags() & ~(RFLAGS::VM | RFLAGS::IF | RFLAGS::RF);
    if (long_mode) {
        target = cpu.code64() ? cpu.lstar : cpu.cstar;
        flags = cpu.rflags() & ~(cpu.sfmask | RFLAGS::RF);
        cpu.r[R11] = cpu.rflags() & ~RFLAGS::RF;
    }
    cpu.r[RCX] = cpu.next_rip;
    set_code_segment(cpu, flat_code(selector_at(base, 0, 0), 0, long_mode), 0);
    cpu.seg(Seg::SS) = flat_stack(selector_at(base, 8, 0), 0);
    cpu.next_rip = target;
    load_flags(cpu, flags);
    return {};
}

Result<void> exec_SYSRET(Cpu& cpu, const Insn& insn) {
    const bool anywhere = cpu.model.has(Quirk::syscall_in_compatibility_mode);
    if (!(cpu.control.efer & EFER::SCE) || (!cpu.code64() && !anywhere)) return undefined_opcode();
    if (cpu.cpl != 0 || cpu.real_mode()) return general_protection(0);
    const bool to64 = insn.rex_w;
    const u64 target = to64 ? cpu.r[RCX] : low32(cpu.r[RCX]);
    if (!cpu.canonical(target) && !cpu.model.has(Quirk::sysret_to_any_address)) return general_protection(0);
    const u64 base = extract(cpu.star, 63, 48);
    u64 flags = cpu.rflags() | RFLAGS::IF;
    if (cpu.code64()) flags = cpu.r[R11] & 0x3C'7FD7; // all but RF and VM
    set_code_segment(cpu, flat_code(selector_at(base, to64 ? 16 : 0, 3), 3, to64), 3);
    if (cpu.model.has(Quirk::sysret_keeps_stack_attributes)) {
        cpu.seg(Seg::SS).selector = selector_at(base, 8, 3);
    } else {
        cpu.seg(Seg::SS) = flat_stack(selector_at(base, 8, 3), 3);
    }
    cpu.next_rip = target;
    load_flags(cpu, flags);
    return {};
}

namespace {

/// SYSENTER and SYSEXIT: outside IA-32e mode always, in it by the model.
Result<void> check_sysenter(const Cpu& cpu) {
    if (cpu.long_mode_active() && !cpu.model.has(Quirk::sysenter_in_long_mode)) return undefined_opcode();
    if (cpu.real_mode() || (cpu.sysenter_cs & 0xFFFC) == 0) return general_protection(0);
    return {};
}

} // namespace

Result<void> exec_SYSENTER(Cpu& cpu, const Insn&) {
    TRY(check_sysenter(cpu));
    const bool long_mode = cpu.long_mode_active();
    set_code_segment(cpu, flat_code(selector_at(cpu.sysenter_cs, 0, 0), 0, long_mode), 0);
    cpu.seg(Seg::SS) = flat_stack(selector_at(cpu.sysenter_cs, 8, 0), 0);
    cpu.r[RSP] = long_mode ? cpu.sysenter_esp : low32(cpu.sysenter_esp);
    cpu.next_rip = long_mode ? cpu.sysenter_eip : low32(cpu.sysenter_eip);
    replace_flags(cpu, cpu.rflags() & ~(RFLAGS::VM | RFLAGS::IF | RFLAGS::RF));
    return {};
}

Result<void> exec_SYSEXIT(Cpu& cpu, const Insn& insn) {
    TRY(check_sysenter(cpu));
    if (cpu.cpl != 0) return general_protection(0);
    const bool to64 = insn.rex_w;
    const u64 target = to64 ? cpu.r[RDX] : low32(cpu.r[RDX]);
    const u64 stack = to64 ? cpu.r[RCX] : low32(cpu.r[RCX]);
    if (!cpu.canonical(target) || !cpu.canonical(stack)) return general_protection(0);
    set_code_segment(cpu, flat_code(selector_at(cpu.sysenter_cs, to64 ? 32 : 16, 3), 3, to64), 3);
    cpu.seg(Seg::SS) = flat_stack(selector_at(cpu.sysenter_cs, to64 ? 40 : 24, 3), 3);
    cpu.r[RSP] = stack;
    cpu.next_rip = target;
    cpu.mode_changed();
    return {};
}

} // namespace exeunt
