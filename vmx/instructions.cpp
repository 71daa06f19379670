// The VMX instructions: SDM 3C 30.3 "VMX Instructions", in its order of tests. VMLAUNCH and VMRESUME go on in
// vmx/entry.cpp.
//
// Not modelled: VMCALL that activates dual-monitor treatment (it is VMfail with error 1, as without that
// feature), CR0 and CR4 checks under A20M (there is no A20M).
#include "cpu/instructions.hpp"
#include "cpu/mnemonic.hpp"
#include "cpu/msrs.hpp"
#include "vmx/msrs.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

// ---- How an instruction ends. SDM 3C 30.2 "Conventions" -----------------------------------------

Result<void> Vmx::succeed() {
    cpu_.flags.set_arithmetic(0);
    return {};
}

Result<void> Vmx::fail_invalid() {
    cpu_.flags.set_arithmetic(RFLAGS::CF);
    return {};
}

/// VMfail: VMfailValid with a current VMCS, else VMfailInvalid.
Result<void> Vmx::fail(InstructionError error) {
    if (!current_) return fail_invalid();
    cpu_.flags.set_arithmetic(RFLAGS::ZF);
    current_->put(F::vm_instruction_error, static_cast<u64>(error));
    return {};
}

Result<void> Vmx::require_cpl0() const {
    if (cpu_.cpl != 0) return general_protection(0);
    return {};
}

bool Vmx::valid_region_address(u64 address) const {
    return (address & 0xFFF) == 0 && (address >> capabilities_.physical_bits()) == 0;
}

// ---- Entering and leaving VMX operation ---------------------------------------------------------

Result<void> Vmx::vmxon(const Insn& insn) {
    TRY(require_cpl0());
    if (operating_) return fail(InstructionError::vmxon_in_vmx_root_operation);
    const auto obeys = [](u64 value, u64 fixed0, u64 fixed1) {
        return (value & fixed0) == fixed0 && (value & ~fixed1) == 0;
    };
    const u64 feature_control = cpu_.msrs->stored(Msr::IA32_FEATURE_CONTROL);
    constexpr u64 locked = FEATURE_CONTROL::lock | FEATURE_CONTROL::vmxon_outside_smx;
    if (!obeys(cpu_.control.cr0, capabilities_.cr0_fixed0(), capabilities_.cr0_fixed1()) ||
        !obeys(cpu_.control.cr4, capabilities_.cr4_fixed0(), capabilities_.cr4_fixed1()) ||
        (feature_control & locked) != locked)
        return general_protection(0);
    const u64 address = TRY(cpu_.read_operand(insn, 0));
    if (!valid_region_address(address)) return fail_invalid();
    if (cpu_.memory.load<u32>(Physical{address}) != capabilities_.revision()) return fail_invalid();
    vmxon_pointer_ = address;
    current_ = nullptr;
    operating_ = true;
    cpu_.monitor_armed = false;
    return succeed();
}

/// The regions are brought up to date; VMCSs that software did not clear stay what they were to it.
Result<void> Vmx::vmxoff() {
    TRY(require_cpl0());
    current_ = nullptr;
    active_.write_back_all();
    vmxon_pointer_ = no_pointer;
    operating_ = false;
    cpu_.monitor_armed = false;
    cpu_.attention(); // INIT is not blocked any more
    return succeed();
}

// ---- VMCS pointers ------------------------------------------------------------------------------

Result<void> Vmx::vmclear(const Insn& insn) {
    TRY(require_cpl0());
    const u64 address = TRY(cpu_.read_operand(insn, 0));
    if (!valid_region_address(address)) return fail(InstructionError::vmclear_with_invalid_physical_address);
    if (address == vmxon_pointer_) return fail(InstructionError::vmclear_with_vmxon_pointer);
    if (current_ && current_->pointer().value == address) current_ = nullptr;
    active_.clear(Physical{address});
    return succeed();
}

Result<void> Vmx::vmptrld(const Insn& insn) {
    TRY(require_cpl0());
    const u64 address = TRY(cpu_.read_operand(insn, 0));
    if (!valid_region_address(address)) return fail(InstructionError::vmptrld_with_invalid_physical_address);
    if (address == vmxon_pointer_) return fail(InstructionError::vmptrld_with_vmxon_pointer);
    const u32 revision = cpu_.memory.load<u32>(Physical{address});
    const bool shadow = revision & Vmcs::shadow_indicator;
    if ((revision & ~Vmcs::shadow_indicator) != capabilities_.revision() ||
        (shadow && !capabilities_.may(secondary::vmcs_shadowing)))
        return fail(InstructionError::vmptrld_with_incorrect_vmcs_revision_identifier);
    current_ = &active_.activate(Physical{address}, current_);
    return succeed();
}

Result<void> Vmx::vmptrst(const Insn& insn) {
    TRY(require_cpl0());
    TRY(cpu_.write_operand(insn, 0, current_ ? current_->pointer().value : no_pointer));
    return succeed();
}

// ---- VMREAD and VMWRITE -------------------------------------------------------------------------

/// The VMCS that VMREAD and VMWRITE mean: the current one, or in a guest the one that the link pointer names.
Vmcs* Vmx::accessed_vmcs() {
    if (!cpu_.in_guest) return current_;
    const u64 link = field(F::vmcs_link_pointer);
    return link == no_pointer ? nullptr : &active_.activate(Physical{link}, current_);
}

Result<void> Vmx::vmread(const Insn& insn) {
    TRY(require_cpl0());
    const Vmcs* vmcs = accessed_vmcs();
    if (!vmcs) return fail_invalid();
    const unsigned bytes = insn.mode == 64 ? 8 : 4;
    const auto component = find_component(cpu_.gpr(insn.operand[1].number, bytes));
    if (!component || !capabilities_.exists(component->field))
        return fail(InstructionError::vmread_vmwrite_from_to_unsupported_vmcs_component);
    const u64 value = (*vmcs)[component->field];
    TRY(cpu_.write_operand(insn, 0, component->high ? value >> 32 : value));
    return succeed();
}

Result<void> Vmx::vmwrite(const Insn& insn) {
    TRY(require_cpl0());
    Vmcs* vmcs = accessed_vmcs();
    if (!vmcs) return fail_invalid();
    const u64 source = TRY(cpu_.read_operand(insn, 1));
    const unsigned bytes = insn.mode == 64 ? 8 : 4;
    const auto component = find_component(cpu_.gpr(insn.operand[0].number, bytes));
    if (!component || !capabilities_.exists(component->field))
        return fail(InstructionError::vmread_vmwrite_from_to_unsupported_vmcs_component);
    const VmcsFieldRow& row = row_of(component->field);
    if (row.type == FieldType::read_only && !(capabilities_.misc() & VMX_MISC::vmwrite_any_field))
        return fail(InstructionError::vmwrite_to_read_only_vmcs_component);
    // 24.11.2: a full write of 32 bits to a longer field clears the upper half.
    const u64 value = component->high ? (source << 32) | low32((*vmcs)[component->field]) : source;
    vmcs->write(component->field, value, {cpu_.rip, cpu_.now(), cpu_.index});
    return succeed();
}

// ---- Calls --------------------------------------------------------------------------------------

Result<void> Vmx::vmcall() {
    if (cpu_.v8086() || (cpu_.long_mode_active() && !cpu_.code64())) return undefined_opcode();
    TRY(require_cpl0());
    return fail(InstructionError::vmcall_in_vmx_root_operation);
}

// ---- Invalidation -------------------------------------------------------------------------------

namespace {

struct Descriptor128 {
    u64 low = 0, high = 0;
};

Result<Descriptor128> load_descriptor(Cpu& cpu, const Insn& insn) {
    u8 bytes[16];
    TRY(cpu.load_bytes(insn.memory.segment, cpu.effective_address(insn), bytes, sizeof bytes));
    Descriptor128 d;
    for (unsigned i = 0; i < 8; ++i) {
        d.low |= u64{bytes[i]} << (8 * i);
        d.high |= u64{bytes[8 + i]} << (8 * i);
    }
    return d;
}

} // namespace

Result<void> Vmx::invept(const Insn& insn) {
    TRY(require_cpl0());
    const u64 type = cpu_.gpr(insn.operand[0].number, insn.mode == 64 ? 8 : 4);
    const bool supported = (type == 1 && capabilities_.ept_vpid(EPT_VPID_CAP::invept_single)) ||
                           (type == 2 && capabilities_.ept_vpid(EPT_VPID_CAP::invept_all));
    if (!supported) return fail(InstructionError::invalid_operand_to_invept_invvpid);
    const Descriptor128 descriptor = TRY(load_descriptor(cpu_, insn));
    if (type == 2) {
        cpu_.mmu.flush_second_level_all();
        return succeed();
    }
    // The EPTP must be one with which VM entry would succeed: the rows of VM entry decide.
    if (!valid_eptp(descriptor.low)) return fail(InstructionError::invalid_operand_to_invept_invvpid);
    cpu_.mmu.flush_second_level(EPTP::tag(descriptor.low));
    return succeed();
}

Result<void> Vmx::invvpid(const Insn& insn) {
    TRY(require_cpl0());
    constexpr u64 individual_address = 0, all_contexts = 2,
                  single_context_keep_globals = 3; // 1: single context
    constexpr u64 needs[] = {EPT_VPID_CAP::invvpid_address, EPT_VPID_CAP::invvpid_single,
                             EPT_VPID_CAP::invvpid_all, EPT_VPID_CAP::invvpid_keep_globals};
    const u64 type = cpu_.gpr(insn.operand[0].number, insn.mode == 64 ? 8 : 4);
    if (type > single_context_keep_globals || !capabilities_.ept_vpid(needs[type]))
        return fail(InstructionError::invalid_operand_to_invept_invvpid);
    const Descriptor128 descriptor = TRY(load_descriptor(cpu_, insn));
    const u64 vpid = descriptor.low & 0xFFFF;
    const bool invalid = (descriptor.low >> 16) != 0 || (type != all_contexts && vpid == 0) ||
                         (type == individual_address &&
                          sign_extend(descriptor.high, capabilities_.linear_bits()) != descriptor.high);
    if (invalid) return fail(InstructionError::invalid_operand_to_invept_invvpid);
    const u32 number = 1 + static_cast<u32>(vpid);
    switch (type) {
    case individual_address: cpu_.mmu.drop_page(Linear{descriptor.high}, number); break;
    case all_contexts:
        for (const World& w : worlds_) // every VPID that ran but 0000H
            if (w.number > 1) cpu_.mmu.flush_world(w.number);
        break;
    default: cpu_.mmu.flush_world(number); break;
    }
    return succeed();
}

// ---- Rows ---------------------------------------------------------------------------------------

namespace {

Vmx& vmx_of(Cpu& cpu) { return static_cast<Vmx&>(*cpu.virtualization); }
const Vmx& vmx_of(const Cpu& cpu) { return static_cast<const Vmx&>(*cpu.virtualization); }

/// No VMX instruction in real-address, virtual-8086 or compatibility mode.
bool mode_allows(const Cpu& cpu) {
    return cpu.protected_mode() && !cpu.v8086() && !(cpu.long_mode_active() && !cpu.code64());
}

Result<void> ud_outside_vmx(const Cpu& cpu, const Insn&) {
    if (!vmx_of(cpu).operating() || !mode_allows(cpu)) return undefined_opcode();
    return {};
}
Result<void> ud_no_vmxon(const Cpu& cpu, const Insn&) {
    if (!(cpu.control.cr4 & CR4::VMXE) || !mode_allows(cpu)) return undefined_opcode();
    return {};
}
Result<void> ud_no_vmcall(const Cpu& cpu, const Insn&) {
    if (!vmx_of(cpu).operating()) return undefined_opcode();
    return {};
}
Result<void> ud_no_invept(const Cpu& cpu, const Insn& insn) {
    if (!vmx_of(cpu).capabilities().ept_vpid(EPT_VPID_CAP::invept)) return undefined_opcode();
    return ud_outside_vmx(cpu, insn);
}
Result<void> ud_no_invvpid(const Cpu& cpu, const Insn& insn) {
    if (!vmx_of(cpu).capabilities().ept_vpid(EPT_VPID_CAP::invvpid)) return undefined_opcode();
    return ud_outside_vmx(cpu, insn);
}

Result<void> exec_VMXON(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmxon(insn); }
Result<void> exec_VMXOFF(Cpu& cpu, const Insn&) { return vmx_of(cpu).vmxoff(); }
Result<void> exec_VMCLEAR(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmclear(insn); }
Result<void> exec_VMPTRLD(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmptrld(insn); }
Result<void> exec_VMPTRST(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmptrst(insn); }
Result<void> exec_VMREAD(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmread(insn); }
Result<void> exec_VMWRITE(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmwrite(insn); }
Result<void> exec_VMLAUNCH(Cpu& cpu, const Insn&) { return vmx_of(cpu).enter(true); }
Result<void> exec_VMRESUME(Cpu& cpu, const Insn&) { return vmx_of(cpu).enter(false); }
Result<void> exec_INVEPT(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).invept(insn); }
Result<void> exec_INVVPID(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).invvpid(insn); }
Result<void> exec_VMCALL(Cpu& cpu, const Insn&) { return vmx_of(cpu).vmcall(); }
Result<void> exec_VMFUNC(Cpu& cpu, const Insn& insn) { return vmx_of(cpu).vmfunc(insn); }

constexpr InsnRow rows[] = {
#define INSN(mnemonic, fault, intercept, ends) \
    {#mnemonic, fault, Intercept::intercept, Ends::ends, exec_##mnemonic},
#include "vmx/instructions.inc"
};
constexpr u16 mnemonics[] = {
#define INSN(mnemonic, fault, intercept, ends) ZYDIS_MNEMONIC_##mnemonic,
#include "vmx/instructions.inc"
};

} // namespace

const InsnRow* Vmx::row(u16 mnemonic) const {
    for (std::size_t i = 0; i < std::size(rows); ++i)
        if (mnemonics[i] == mnemonic) return &rows[i];
    return nullptr;
}

} // namespace exeunt
