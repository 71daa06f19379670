// Flag control instructions: SDM 1 5.1.11; each by its name in volume 2. Interrupt flags in
// virtual-8086 mode and with protected-mode virtual interrupts: SDM 3B 20.3, 20.4.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

// ---- Arithmetic flags and DF -----------------------------------------------------------------------------

Result<void> exec_CLC(Cpu& cpu, const Insn&) {
    cpu.flags.cf = 0;
    return {};
}
Result<void> exec_STC(Cpu& cpu, const Insn&) {
    cpu.flags.cf = 1;
    return {};
}
Result<void> exec_CMC(Cpu& cpu, const Insn&) {
    cpu.flags.cf ^= 1;
    return {};
}
Result<void> exec_CLD(Cpu& cpu, const Insn&) {
    cpu.flags.rest &= ~RFLAGS::DF;
    return {};
}
Result<void> exec_STD(Cpu& cpu, const Insn&) {
    cpu.flags.rest |= RFLAGS::DF;
    return {};
}
/// AL = CF ? FFH : 0.
Result<void> exec_SALC(Cpu& cpu, const Insn&) {
    cpu.set_gpr(RAX, 1, cpu.flags.cf ? 0xFF : 0);
    return {};
}

Result<void> exec_LAHF(Cpu& cpu, const Insn&) {
    cpu.r[RAX] = deposit(cpu.r[RAX], 15, 8, cpu.rflags() & 0xFF);
    return {};
}
Result<void> exec_SAHF(Cpu& cpu, const Insn&) {
    const u64 of = cpu.flags.of ? u64{RFLAGS::OF} : 0;
    cpu.flags.set_arithmetic(extract(cpu.r[RAX], 15, 8) | of);
    return {};
}

// ---- IF and VIF ------------------------------------------------------------------------------------------

namespace {

/// What CLI and STI act on: IF where IOPL allows it, else VIF where an extension gives it, else nothing.
enum class InterruptFlag : u8 { real, virtual_, none };

InterruptFlag interrupt_flag(const Cpu& cpu) {
    if (cpu.cpl <= cpu.iopl())
        return InterruptFlag::real; // real-address mode has CPL 0, virtual-8086 mode CPL 3
    const bool extension =
        cpu.v8086() ? cpu.control.cr4 & CR4::VME : cpu.cpl == 3 && (cpu.control.cr4 & CR4::PVI);
    return extension ? InterruptFlag::virtual_ : InterruptFlag::none;
}

} // namespace

Result<void> exec_CLI(Cpu& cpu, const Insn&) {
    switch (interrupt_flag(cpu)) {
    case InterruptFlag::none: return general_protection(0);
    case InterruptFlag::virtual_: cpu.flags.rest &= ~RFLAGS::VIF; return {};
    case InterruptFlag::real: break;
    }
    cpu.flags.rest &= ~RFLAGS::IF;
    cpu.flags_changed();
    return {};
}

Result<void> exec_STI(Cpu& cpu, const Insn&) {
    switch (interrupt_flag(cpu)) {
    case InterruptFlag::none: return general_protection(0);
    case InterruptFlag::virtual_:
        if (cpu.flag(RFLAGS::VIP)) return general_protection(0);
        cpu.flags.rest |= RFLAGS::VIF;
        return {};
    case InterruptFlag::real: break;
    }
    // Interrupts are recognized after the instruction that follows, unless they already were.
    if (!cpu.flag(RFLAGS::IF)) cpu.set_shadow(Shadow::sti);
    cpu.flags.rest |= RFLAGS::IF;
    cpu.flags_changed();
    return {};
}

// ---- PUSHF and POPF --------------------------------------------------------------------------------------

namespace {

/// Virtual-8086 mode with IOPL < 3: only with the extensions, and then VIF stands for IF.
bool virtualized_flags(const Cpu& cpu) { return cpu.v8086() && cpu.iopl() < 3; }

Result<void> check_virtualized(const Cpu& cpu, unsigned bytes) {
    if (virtualized_flags(cpu) && (bytes != 2 || !(cpu.control.cr4 & CR4::VME))) return general_protection(0);
    return {};
}

Result<void> push_flags(Cpu& cpu, unsigned bytes) {
    TRY(check_virtualized(cpu, bytes));
    u64 image = cpu.rflags() & ~(RFLAGS::VM | RFLAGS::RF);
    if (virtualized_flags(cpu)) {
        image = (image & ~RFLAGS::IF) | RFLAGS::IOPL;
        if (cpu.flag(RFLAGS::VIF)) image |= RFLAGS::IF;
    }
    return cpu.push(image & low_mask(8 * bytes), bytes);
}

/// The flags that POPF may change at this privilege.
u64 poppable(const Cpu& cpu, unsigned bytes) {
    u64 mask = RFLAGS::all & ~(RFLAGS::VM | RFLAGS::RF | RFLAGS::VIF | RFLAGS::VIP);
    if (bytes == 2) mask &= 0xFFFF;
    if (cpu.v8086() || cpu.cpl != 0) mask &= ~RFLAGS::IOPL;
    if (cpu.cpl > cpu.iopl()) mask &= ~RFLAGS::IF;
    return mask;
}

Result<void> pop_flags(Cpu& cpu, unsigned bytes) {
    TRY(check_virtualized(cpu, bytes));
    const u64 image = TRY(cpu.peek_stack(0, bytes));
    const u64 mask = poppable(cpu, bytes);
    u64 next = (cpu.rflags() & ~mask) | (image & mask);
    if (virtualized_flags(cpu)) {
        if ((cpu.flag(RFLAGS::VIP) && (image & RFLAGS::IF)) || (image & RFLAGS::TF))
            return general_protection(0);
        next = image & RFLAGS::IF ? next | RFLAGS::VIF : next & ~RFLAGS::VIF;
    }
    cpu.add_rsp(static_cast<i64>(bytes));
    cpu.set_rflags(next & ~RFLAGS::RF);
    return {};
}

} // namespace

Result<void> exec_PUSHF(Cpu& cpu, const Insn&) { return push_flags(cpu, 2); }
Result<void> exec_PUSHFD(Cpu& cpu, const Insn&) { return push_flags(cpu, 4); }
Result<void> exec_PUSHFQ(Cpu& cpu, const Insn&) { return push_flags(cpu, 8); }
Result<void> exec_POPF(Cpu& cpu, const Insn&) { return pop_flags(cpu, 2); }
Result<void> exec_POPFD(Cpu& cpu, const Insn&) { return pop_flags(cpu, 4); }
Result<void> exec_POPFQ(Cpu& cpu, const Insn&) { return pop_flags(cpu, 8); }

} // namespace exeunt
