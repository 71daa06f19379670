// Instructions of a guest: which the core asks about, and the VM exits they cause.
// SDM 3C 25.1 "Instructions That Cause VM Exits", 25.3 "Changes to Instruction Behavior in VMX Non-Root
// Operation".
#include "vmx/exit_qualification.hpp"
#include "vmx/instruction_information.hpp"
#include "vmx/vmx.hpp"

#include <array>

namespace exeunt {

namespace {

constexpr ExitReason no_reason{0xFFFF};

/// By Intercept; the table has a row for each, in order.
constexpr ExitReason reasons[] = {
#define INTERCEPT(name, asked, reason) ExitReason::reason,
#define NOT_INTERCEPTED(name) no_reason,
#include "vmx/intercepts.inc"
};
constexpr Intercept row_order[] = {
#define INTERCEPT(name, asked, reason) Intercept::name,
#define NOT_INTERCEPTED(name) Intercept::name,
#include "vmx/intercepts.inc"
};
constexpr bool every_intercept_has_its_row() {
    for (std::size_t i = 0; i < std::size(row_order); ++i)
        if (row_order[i] != static_cast<Intercept>(i)) return false;
    return std::size(row_order) == static_cast<std::size_t>(Intercept::count);
}
static_assert(every_intercept_has_its_row(), "vmx/intercepts.inc and arch/intercepts.inc differ");

} // namespace

/// Computes out of the current VMCS's controls what does not change until they do.
void Vmx::derive_controls() {
    const EntryContext context(*current_, capabilities_, cpu_.memory, true);
    Vmcs::Derived& d = current_->derived;
    d.pin_based = context.pin_based;
    d.primary = context.primary;
    d.secondary = context.secondary;
    d.tertiary = context.tertiary;
    d.vm_exit = context.vm_exit;
    d.vm_function = context.vm_function;

    const auto on = [&](Control c) {
        return ((c.group == ControlGroup::primary ? d.primary : d.secondary) & c.mask()) != 0;
    };
    const auto off = [&](Control c) { return !on(c); };
    const auto always = [] { return true; };
    d.intercepted.reset();
    d.undefined.reset();
#define INTERCEPT(name, asked, reason) d.intercepted.set(static_cast<std::size_t>(Intercept::name), asked);
#define NOT_INTERCEPTED(name)
#include "vmx/intercepts.inc"
    // 25.3: with these controls 0 the instructions are #UD, before any other fault.
    const auto take = [&](Intercept what, Control enable) {
        d.undefined.set(static_cast<std::size_t>(what), off(enable));
    };
    take(Intercept::rdtscp, secondary::enable_rdtscp);
    take(Intercept::rdpid, secondary::enable_rdtscp);
    take(Intercept::invpcid, secondary::enable_invpcid);
    take(Intercept::umonitor, secondary::enable_user_wait_and_pause);
    take(Intercept::umwait, secondary::enable_user_wait_and_pause);
    take(Intercept::tpause, secondary::enable_user_wait_and_pause);
    take(Intercept::xsaves, secondary::enable_xsaves_xrstors);
    take(Intercept::xrstors, secondary::enable_xsaves_xrstors);
}

/// The displacement of a memory operand, as qualifications report it; RIP-relative ones include RIP.
u64 Vmx::displacement_of(const Insn& insn) const {
    const u64 displacement = static_cast<u64>(insn.memory.displacement);
    return insn.memory.base == MemoryOperand::rip_register ? displacement + cpu_.next_rip : displacement;
}

Stop Vmx::instruction_exit(const Insn& insn, ExitReason reason, u64 qualification, u32 information) {
    return exit({.reason = reason,
                 .qualification = qualification,
                 .instruction_length = insn.length,
                 .instruction_information = information,
                 .resume_flag = VmExit::Resume::clear});
}

/// XSAVES and XRSTORS: EDX:EAX, IA32_XSS and the XSS-exiting bitmap.
bool Vmx::xss_exits(u64 requested) const {
    return requested & cpu_.xss & field(VmcsField::xss_exiting_bitmap);
}

/// 25.1.3: "PAUSE-loop exiting" counts at CPL 0 how long PAUSEs have followed each other.
bool Vmx::pause_exits() {
    if (primary() & primary::pause_exiting) return true;
    if (cpu_.cpl != 0) return false;
    const u64 now = cpu_.now();
    if (!ple_started_ || now - ple_last_ > field(VmcsField::ple_gap)) {
        ple_started_ = true;
        ple_first_ = now;
    } else if (now - ple_first_ > field(VmcsField::ple_window)) {
        return true;
    }
    ple_last_ = now;
    return false;
}

/// VMREAD and VMWRITE under VMCS shadowing: whether the bitmap leaves the access to the processor.
bool Vmx::shadowed_access(const Insn& insn, VmcsField bitmap) const {
    if (!(secondary() & secondary::vmcs_shadowing)) return false;
    const Operand& encoding = insn.operand[bitmap == VmcsField::vmread_bitmap_address ? 1 : 0];
    const u64 component = cpu_.gpr(encoding.number, insn.mode == 64 ? 8 : 4);
    if (component >> 15) return false;
    const u8 bits = cpu_.memory.load<u8>(Physical{field(bitmap) + component / 8});
    return !test_bit(bits, component % 8);
}

Result<void> Vmx::instruction(Cpu& cpu, const Insn& insn, Intercept what) {
    if (cpu.undefined_here(what)) return undefined_opcode();
    const ExitReason reason = reasons[static_cast<std::size_t>(what)];
    namespace info = instruction_information;
    switch (what) {
    case Intercept::invlpg: {
        const u64 offset = cpu.effective_address(insn);
        return instruction_exit(insn, reason,
                                cpu.linear_unchecked(insn.memory.segment, offset, insn.address_size));
    }
    case Intercept::mwait: return instruction_exit(insn, reason, cpu.monitor_armed ? 1 : 0);
    case Intercept::pause:
        if (!pause_exits()) return {};
        break;
    case Intercept::xsaves:
    case Intercept::xrstors:
        if (!xss_exits(cpu.gpr(RDX, 4) << 32 | cpu.gpr(RAX, 4))) return {};
        return instruction_exit(insn, reason, displacement_of(insn), info::memory(insn));
    case Intercept::umwait:
    case Intercept::tpause: return instruction_exit(insn, reason, 0, info::umwait(insn));
    case Intercept::rdrand:
    case Intercept::rdseed: return instruction_exit(insn, reason, 0, info::rdrand(insn));
    case Intercept::sgdt:
    case Intercept::sidt:
    case Intercept::lgdt:
    case Intercept::lidt: {
        const u32 identity = what == Intercept::sgdt   ? 0
                             : what == Intercept::sidt ? 1
                             : what == Intercept::lgdt ? 2
                                                       : 3;
        return instruction_exit(insn, reason, displacement_of(insn), info::gdtr_idtr(insn, identity));
    }
    case Intercept::sldt:
    case Intercept::str:
    case Intercept::lldt:
    case Intercept::ltr: {
        const u32 identity = what == Intercept::sldt   ? 0
                             : what == Intercept::str  ? 1
                             : what == Intercept::lldt ? 2
                                                       : 3;
        const u64 q = insn.operand[0].kind == OperandKind::memory ? displacement_of(insn) : 0;
        return instruction_exit(insn, reason, q, info::ldtr_tr(insn, identity));
    }
    case Intercept::invept:
    case Intercept::invvpid:
    case Intercept::invpcid:
        return instruction_exit(insn, reason, displacement_of(insn), info::invalidate(insn));
    case Intercept::vmclear:
    case Intercept::vmptrld:
    case Intercept::vmptrst:
    case Intercept::vmxon: return instruction_exit(insn, reason, displacement_of(insn), info::memory(insn));
    case Intercept::vmread:
    case Intercept::vmwrite: {
        const bool read = what == Intercept::vmread;
        if (shadowed_access(insn,
                            read ? VmcsField::vmread_bitmap_address : VmcsField::vmwrite_bitmap_address))
            return {};
        const bool memory = insn.operand[read ? 0 : 1].kind == OperandKind::memory;
        return instruction_exit(insn, reason, memory ? displacement_of(insn) : 0,
                                read ? info::vmread(insn) : info::vmwrite(insn));
    }
    default: break;
    }
    if (reason == no_reason) return {};
    return instruction_exit(insn, reason);
}

} // namespace exeunt
