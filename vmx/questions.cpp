// Accesses of a guest to control and debug registers, ports and MSRs; its exceptions, task switches and
// second-level faults. SDM 3C 25.1.3 "Instructions That Cause VM Exits Conditionally", 25.2 "Other Causes of
// VM Exits", 25.3 "Changes to Instruction Behavior in VMX Non-Root Operation".
#include "cpu/events.hpp"
#include "vmx/exit_qualification.hpp"
#include "vmx/instruction_information.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

// ---- Control registers --------------------------------------------------------------------------

/// MOV to CR0 and CLTS; CR4 is like CR0's MOV.
Result<void> Vmx::cr0_write(const Insn& insn, CrAccess access, u64& value) {
    const u64 mask = field(VmcsField::cr0_guest_host_mask), shadow = field(VmcsField::cr0_read_shadow);
    const u64 old = cpu_.control.cr0;
    if (access == CrAccess::clts) {
        // CLTS exits if it would clear a bit that the host owns and the guest sees as 1.
        if (mask & shadow & CR0::TS)
            return instruction_exit(insn, ExitReason::control_register_access,
                                    CrQualification{.access = access}.encode());
    } else if ((value ^ shadow) & mask) {
        const CrQualification q{.cr = 0, .access = access, .gpr = insn.operand[1].number};
        return instruction_exit(insn, ExitReason::control_register_access, q.encode());
    }
    value = (value & ~mask) | (old & mask);
    return {};
}

Result<void> Vmx::lmsw(const Insn& insn, u64& value) {
    const u64 mask = field(VmcsField::cr0_guest_host_mask), shadow = field(VmcsField::cr0_read_shadow);
    const u64 source = TRY(cpu_.read_operand(insn, 0)) & 0xFFFF;
    constexpr u64 others = CR0::MP | CR0::EM | CR0::TS;
    // LMSW never clears PE, so only a setting that the guest does not see exits.
    const bool sets_pe = mask & source & ~shadow & CR0::PE;
    if (sets_pe || ((source ^ shadow) & mask & others)) {
        const bool memory = insn.operand[0].kind == OperandKind::memory;
        const CrQualification q{
            .access = CrAccess::lmsw, .memory = memory, .source = static_cast<u16>(source)};
        const u64 linear = memory ? cpu_.linear_unchecked(insn.memory.segment, cpu_.effective_address(insn),
                                                          insn.address_size)
                                  : 0;
        return exit({.reason = ExitReason::control_register_access,
                     .qualification = q.encode(),
                     .instruction_length = insn.length,
                     .guest_linear = linear,
                     .resume_flag = VmExit::Resume::clear});
    }
    const u64 old = cpu_.control.cr0;
    const u64 loaded = (old & ~others) | (source & (others | CR0::PE));
    value = (loaded & ~mask) | (old & mask);
    return {};
}

Result<void> Vmx::cr_write(Cpu& cpu, const Insn& insn, unsigned cr, CrAccess access, u64& value) {
    const CrQualification q{.cr = cr, .access = CrAccess::mov_to, .gpr = insn.operand[1].number};
    switch (cr) {
    case 0: return access == CrAccess::lmsw ? lmsw(insn, value) : cr0_write(insn, access, value);
    case 3: {
        if (!(primary() & primary::cr3_load_exiting)) return {};
        for (unsigned i = 0; i < field(VmcsField::cr3_target_count); ++i)
            if (current_->at(VmcsField::cr3_target_value_0, i) == value) return {};
        return instruction_exit(insn, ExitReason::control_register_access, q.encode());
    }
    case 4: {
        const u64 mask = field(VmcsField::cr4_guest_host_mask);
        if ((value ^ field(VmcsField::cr4_read_shadow)) & mask)
            return instruction_exit(insn, ExitReason::control_register_access, q.encode());
        value = (value & ~mask) | (cpu.control.cr4 & mask);
        return {};
    }
    case 8:
        if (primary() & primary::cr8_load_exiting)
            return instruction_exit(insn, ExitReason::control_register_access, q.encode());
        return {};
    default: return {};
    }
}

Result<void> Vmx::cr_read(Cpu&, const Insn& insn, unsigned cr, u64& value) {
    const CrQualification q{.cr = cr, .access = CrAccess::mov_from, .gpr = insn.operand[0].number};
    const bool exits = (cr == 3 && (primary() & primary::cr3_store_exiting)) ||
                       (cr == 8 && (primary() & primary::cr8_store_exiting));
    if (exits) return instruction_exit(insn, ExitReason::control_register_access, q.encode());
    if (cr == 0 || cr == 4) {
        const u64 mask = field(cr == 0 ? VmcsField::cr0_guest_host_mask : VmcsField::cr4_guest_host_mask);
        const u64 shadow = field(cr == 0 ? VmcsField::cr0_read_shadow : VmcsField::cr4_read_shadow);
        value = (value & ~mask) | (shadow & mask);
    }
    return {};
}

// ---- Debug registers, ports, MSRs ---------------------------------------------------------------

Result<void> Vmx::dr_access(Cpu&, const Insn& insn, unsigned dr, bool write, unsigned gpr) {
    if (!(primary() & primary::mov_dr_exiting)) return {};
    return instruction_exit(insn, ExitReason::mov_dr,
                            DrQualification{.dr = dr, .from = !write, .gpr = gpr}.encode());
}

bool Vmx::io_exits(const IoAccess& access) const {
    if (!(primary() & primary::use_io_bitmaps)) return primary() & primary::unconditional_io_exiting;
    for (unsigned i = 0; i < access.bytes; ++i) {
        const u32 port = u32{access.port} + i;
        if (port > 0xFFFF) return true; // the access wraps around the I/O space
        const u64 map =
            field(port < 0x8000 ? VmcsField::address_of_io_bitmap_a : VmcsField::address_of_io_bitmap_b);
        if (test_bit(cpu_.memory.load<u8>(Physical{map + (port & 0x7FFF) / 8}), port % 8)) return true;
    }
    return false;
}

Result<void> Vmx::io(Cpu& cpu, const Insn& insn, const IoAccess& access) {
    if (!io_exits(access)) return {};
    const IoQualification q{.bytes = access.bytes,
                            .in = access.in,
                            .string = access.string,
                            .rep = access.rep,
                            .immediate = access.immediate_port,
                            .port = access.port};
    VmExit exit_{.reason = ExitReason::io_instruction,
                 .qualification = q.encode(),
                 .instruction_length = insn.length,
                 .resume_flag = VmExit::Resume::clear};
    if (access.string) {
        exit_.instruction_information =
            instruction_information::ins_outs(access.address_size, access.segment);
        if (!cpu.seg(access.segment).unusable() || cpu.code64()) exit_.guest_linear = access.linear;
    }
    return exit(exit_);
}

/// SDM 3C 24.6.9 "MSR-Bitmap Address".
bool Vmx::msr_exits(u32 index, bool write) const {
    if (!(primary() & primary::use_msr_bitmaps)) return true;
    const u32 in_range = index & 0x1FFF;
    const u32 range = index & ~u32{0x1FFF};
    if (range != 0 && range != 0xC000'0000) return true;
    const u64 offset = (range ? 0x400 : 0) + (write ? 0x800 : 0) + in_range / 8;
    return test_bit(cpu_.memory.load<u8>(Physical{field(VmcsField::address_of_msr_bitmaps) + offset}),
                    in_range % 8);
}

Result<bool> Vmx::rdmsr(Cpu&, const Insn& insn, u32 index, u64& value) {
    if (msr_exits(index, false)) return instruction_exit(insn, ExitReason::rdmsr);
    return (secondary() & secondary::virtualize_x2apic_mode) && x2apic_read(index, value);
}

Result<bool> Vmx::wrmsr(Cpu&, const Insn& insn, u32 index, u64 value) {
    if (msr_exits(index, true)) return instruction_exit(insn, ExitReason::wrmsr);
    if (!(secondary() & secondary::virtualize_x2apic_mode)) return false;
    return x2apic_write(index, value);
}

// ---- Events -------------------------------------------------------------------------------------

/// 25.2: the page-fault error-code mask and match decide what bit 14 of the exception bitmap means.
bool Vmx::page_fault_exits(u32 error) const {
    const bool matches = (error & field(VmcsField::page_fault_error_code_mask)) ==
                         field(VmcsField::page_fault_error_code_match);
    return test_bit(field(VmcsField::exception_bitmap), 14) == matches;
}

/// Bit 12: the exit came from a fault of an IRET that removed NMI blocking.
u32 Vmx::nmi_unblocking() const {
    const bool defined = !(pin_based() & pin_based::nmi_exiting) || (pin_based() & pin_based::virtual_nmis);
    return defined && !cpu_.delivering && unblocking_iret_tick_ == cpu_.now() ? nmi_unblocking_due_to_iret
                                                                              : 0;
}

/// 27.3.3: RF is saved as in the image of RFLAGS that delivery of the event saves.
VmExit::Resume Vmx::resume_flag_of(const Event& event) const {
    return saved_flags(cpu_, event) & RFLAGS::RF ? VmExit::Resume::set : VmExit::Resume::clear;
}

Result<void> Vmx::event(Cpu& cpu, const Event& event) {
    if (event.injected) return {};
    switch (event.type) {
    case Event::Type::hardware_exception:
    case Event::Type::privileged_software_exception:
    case Event::Type::software_exception: break;
    default: return {}; // interrupts and NMIs that arrive here are the guest's
    }
    const auto vector = static_cast<Vector>(event.vector);
    const bool exits = vector == Vector::PF ? page_fault_exits(event.error)
                                            : test_bit(field(VmcsField::exception_bitmap), event.vector & 31);
    if (!exits) return {};
    const bool hardware = event.type == Event::Type::hardware_exception;
    VmExit exit_{.reason = ExitReason::exception_or_nmi};
    exit_.interruption_information = information_of(event, cpu.protected_mode());
    if (vector != Vector::DF) exit_.interruption_information |= nmi_unblocking();
    exit_.interruption_error = event.has_error ? event.error : 0;
    if (hardware && vector == Vector::DB) exit_.qualification = DebugQualification{event.address}.encode();
    if (hardware && vector == Vector::PF) exit_.qualification = event.address;
    if (!hardware) exit_.instruction_length = event.instruction_length;
    exit_.resume_flag = resume_flag_of(event);
    exit_.reports_delivery = vector != Vector::DF;
    return exit(exit_);
}

Result<void> Vmx::triple_fault(Cpu&) { return exit({.reason = ExitReason::triple_fault}); }

/// "Instruction timeout": every instruction boundary is an interrupt window here, so that only this has none.
/// The VM context is valid.
Result<void> Vmx::endless_delivery(Cpu&) {
    if (!(secondary() & secondary::instruction_timeout)) return {};
    return exit({.reason = ExitReason::instruction_timeout, .reports_delivery = true});
}

Result<void> Vmx::task_switch(Cpu& cpu, const TaskSwitch& task_switch) {
    const bool by_gate = task_switch.source == TaskSwitch::Source::idt_gate;
    VmExit exit_{.reason = ExitReason::task_switch,
                 .qualification = TaskSwitchQualification{task_switch.selector, task_switch.source}.encode(),
                 .reports_delivery = by_gate};
    if (!by_gate) {
        exit_.instruction_length = static_cast<u32>(cpu.next_rip - cpu.rip) & 15;
    } else if (cpu.delivering) {
        exit_.resume_flag = resume_flag_of(*cpu.delivering);
    }
    return exit(exit_);
}

/// 25.5.6.1 "Convertible EPT Violations", 25.5.6.2 "Virtualization-Exception Information": the area is
/// filled, and stays so until the guest clears its second doubleword.
bool Vmx::becomes_virtualization_exception(const EptFault& fault, u64 qualification) {
    if (!(secondary() & secondary::ept_violation_ve) || !fault.convertible || !cpu_.protected_mode() ||
        cpu_.delivering)
        return false;
    const Physical area{field(VmcsField::virtualization_exception_information_address)};
    if (cpu_.memory.load<u32>(area + 4) != 0) return false;
    cpu_.memory.store<u32>(area, static_cast<u32>(ExitReason::ept_violation));
    cpu_.memory.store<u32>(area + 4, 0xFFFF'FFFF);
    cpu_.memory.store<u64>(area + 8, qualification);
    cpu_.memory.store<u64>(area + 16, fault.guest_linear);
    cpu_.memory.store<u64>(area + 24, fault.guest_physical);
    cpu_.memory.store<u16>(area + 32, static_cast<u16>(field(VmcsField::eptp_index)));
    return true;
}

Result<void> Vmx::second_level_fault(Cpu& cpu) {
    if (const auto refusal = apic_page_.take_refusal())
        return apic_access_exit(refusal->type, refusal->offset);
    const EptFault& fault = ept_.fault();
    if (fault.kind == EptFault::Kind::violation &&
        becomes_virtualization_exception(fault, fault.qualification | nmi_unblocking()))
        return exception(Vector::VE);
    VmExit exit_{.reason = ExitReason::ept_violation, .reports_delivery = true};
    if (cpu.delivering) {
        exit_.resume_flag = resume_flag_of(*cpu.delivering);
    } else {
        exit_.resume_flag = VmExit::Resume::set;
        // The manual leaves the length undefined here; processors report that of the instruction.
        if (!(fault.qualification & bit(2)))
            exit_.instruction_length = static_cast<u32>(cpu.next_rip - cpu.rip) & 15;
    }
    switch (fault.kind) {
    case EptFault::Kind::violation:
        exit_.qualification = fault.qualification | nmi_unblocking();
        exit_.guest_linear = fault.guest_linear;
        exit_.guest_physical = fault.guest_physical;
        break;
    case EptFault::Kind::misconfiguration:
        exit_.reason = ExitReason::ept_misconfiguration;
        exit_.guest_physical = fault.guest_physical;
        break;
    case EptFault::Kind::log_full:
        exit_.reason = ExitReason::page_modification_log_full;
        exit_.qualification = nmi_unblocking();
        break;
    case EptFault::Kind::sub_page_event:
        exit_.reason = ExitReason::spp_related_event;
        exit_.qualification = fault.qualification | nmi_unblocking();
        exit_.guest_linear = fault.guest_linear;
        exit_.guest_physical = fault.guest_physical;
        break;
    case EptFault::Kind::none: break;
    }
    return exit(exit_);
}

/// 25.3 "IRET": with NMI exiting, the blocking that IRET removes is that of virtual NMIs, if there is one.
void Vmx::iret(Cpu& cpu) {
    const bool virtual_nmis = pin_based() & pin_based::virtual_nmis;
    if (!virtual_nmis && (pin_based() & pin_based::nmi_exiting)) return;
    bool& blocking = virtual_nmis ? virtual_nmi_blocking_ : cpu.nmi_blocked;
    if (!blocking) return;
    blocking = false;
    unblocking_iret_tick_ = cpu.now();
    cpu.attention();
}

/// 25.3 "RDTSC": offset and scaling.
u64 Vmx::guest_tsc(Cpu&, u64 tsc) {
    if (!(primary() & primary::use_tsc_offsetting)) return tsc;
    if (secondary() & secondary::use_tsc_scaling)
        tsc = static_cast<u64>((u128{tsc} * field(VmcsField::tsc_multiplier)) >> 48);
    return tsc + field(VmcsField::tsc_offset);
}

} // namespace exeunt
