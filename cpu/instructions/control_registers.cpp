// Control and debug registers: MOV, CLTS, LMSW, SMSW. SDM 3A 2.5 "Control Registers"; SDM 3B 17.2 "Debug
// Registers"; the manual's page of each mnemonic. A guest's extension is asked after the faults that outrank
// VM exits (SDM 3C 25.1.1) and before those that depend on the value.
//
// Not modelled: AMD's LOCK MOV CR0 for CR8 (AltMovCr8), CR4.CET, CR4.SMXE, DR6.RTM and DR7.RTM.
#include "cpu/instructions/system.hpp"
#include "cpu/msrs.hpp"

namespace exeunt {

namespace {

constexpr u64 cr0_defined = CR0::PE | CR0::MP | CR0::EM | CR0::TS | CR0::ET | CR0::NE | CR0::WP | CR0::AM |
                            CR0::NW | CR0::CD | CR0::PG;

struct Cr4Row {
    u64 bit;
    Feature feature;
};

constexpr Cr4Row cr4_rows[] = {
    {CR4::VME, Feature::VME},     {CR4::PVI, Feature::VME},        {CR4::TSD, Feature::TSC},
    {CR4::DE, Feature::DE},       {CR4::PSE, Feature::PSE},        {CR4::PAE, Feature::PAE},
    {CR4::MCE, Feature::MCE},     {CR4::PGE, Feature::PGE},        {CR4::PCE, Feature::MMX},
    {CR4::OSFXSR, Feature::FXSR}, {CR4::OSXMMEXCPT, Feature::SSE}, {CR4::UMIP, Feature::UMIP},
    {CR4::LA57, Feature::LA57},   {CR4::VMXE, Feature::VMX},       {CR4::FSGSBASE, Feature::FSGSBASE},
    {CR4::PCIDE, Feature::PCID},  {CR4::OSXSAVE, Feature::XSAVE},  {CR4::SMEP, Feature::SMEP},
    {CR4::SMAP, Feature::SMAP},   {CR4::PKE, Feature::PKU},        {CR4::PKS, Feature::PKS},
};

/// What cached translations of the current world were made with is no longer so.
void drop_translations(Cpu& cpu) { cpu.mmu.flush_world(cpu.mmu.key().world); }

/// PAE paging is what will be in use (SDM 3A Table 4-1).
bool pae_paging(const Cpu& cpu, u64 cr0, u64 cr4) {
    return (cr0 & CR0::PG) && (cr4 & CR4::PAE) && !(cpu.control.efer & EFER::LME);
}

bool tss16(const Cpu& cpu) {
    const u32 type = cpu.seg(Seg::TR).type();
    return type == SystemType::tss16_available || type == SystemType::tss16_busy;
}

/// SDM 3A 9.8.5 "Initializing IA-32e Mode": what setting CR0.PG with IA32_EFER.LME = 1 needs.
bool may_activate_long_mode(const Cpu& cpu) {
    return (cpu.control.cr4 & CR4::PAE) && !cpu.seg(Seg::CS).long_mode() && !tss16(cpu);
}

} // namespace

u64 cr4_supported(const CpuModel& model) {
    u64 mask = 0;
    for (const Cr4Row& row : cr4_rows)
        if (model.has(row.feature)) mask |= row.bit;
    return mask;
}

void load_pkru(Cpu& cpu, u32 value) {
    if (cpu.control.pkru == value) return;
    cpu.control.pkru = value;
    if (cpu.control.cr4 & CR4::PKE) drop_translations(cpu);
}

Result<void> load_cr0(Cpu& cpu, u64 value) {
    const u64 old = cpu.control.cr0;
    if (high32(value)) return general_protection(0);
    value = (value & cr0_defined) | CR0::ET; // reserved bits stay clear; ET is hardwired
    const u64 changed = old ^ value;
    if ((value & CR0::PG) && !(value & CR0::PE)) return general_protection(0);
    if ((value & CR0::NW) && !(value & CR0::CD)) return general_protection(0);
    if (!cpu.virtualization->cr0_allowed(cpu, value)) return general_protection(0);
    const bool long_mode = cpu.control.efer & EFER::LME;
    if (changed & CR0::PG) {
        if ((value & CR0::PG) && long_mode && !may_activate_long_mode(cpu)) return general_protection(0);
        if (!(value & CR0::PG) && ((cpu.control.cr4 & CR4::PCIDE) || cpu.code64()))
            return general_protection(0);
    }
    // SDM 3A 4.4.1 "PDPTE Registers".
    if (pae_paging(cpu, value, cpu.control.cr4) && (changed & (CR0::PG | CR0::CD | CR0::NW)))
        TRY(cpu.load_pdptes(cpu.control.cr3));
    cpu.control.cr0 = value;
    cpu.control.efer &= ~EFER::LMA;
    if (long_mode && (value & CR0::PG)) cpu.control.efer |= EFER::LMA;
    if (changed & (CR0::PG | CR0::WP)) drop_translations(cpu);
    cpu.mode_changed();
    return {};
}

Result<void> load_cr3(Cpu& cpu, u64 value) {
    const bool pcids = cpu.control.cr4 & CR4::PCIDE;
    const bool keep = pcids && (value & bit(63)); // SDM 3A 4.10.4.1: translations of the new PCID stay
    if (pcids) value &= ~bit(63);
    if (value & ~low_mask(cpu.model.physical_bits)) return general_protection(0);
    if (pae_paging(cpu, cpu.control.cr0, cpu.control.cr4)) TRY(cpu.load_pdptes(value));
    cpu.control.cr3 = value;
    cpu.context_changed(false);
    if (!keep) cpu.context_changed(true);
    return {};
}

Result<void> load_cr4(Cpu& cpu, u64 value) {
    const u64 old = cpu.control.cr4, changed = old ^ value;
    if (value & ~cr4_supported(cpu.model)) return general_protection(0);
    if (!cpu.virtualization->cr4_allowed(cpu, value)) return general_protection(0);
    if (cpu.long_mode_active() && (!(value & CR4::PAE) || (changed & CR4::LA57)))
        return general_protection(0);
    if ((changed & value & CR4::PCIDE) && (!cpu.long_mode_active() || (cpu.control.cr3 & 0xFFF)))
        return general_protection(0);
    if (pae_paging(cpu, cpu.control.cr0, value) && (changed & (CR4::PAE | CR4::PGE | CR4::PSE | CR4::SMEP)))
        TRY(cpu.load_pdptes(cpu.control.cr3));
    cpu.control.cr4 = value;
    constexpr u64 translation =
        CR4::PSE | CR4::PAE | CR4::PGE | CR4::LA57 | CR4::PCIDE | CR4::SMEP | CR4::SMAP | CR4::PKE | CR4::PKS;
    if (changed & translation) {
        drop_translations(cpu);
        cpu.context_changed(false);
    }
    cpu.mode_changed();
    return {};
}

// ---- MOV, control registers
// ------------------------------------------------------------------------------------

namespace {

Result<void> write_cr8(Cpu& cpu, const Insn& insn, u64 value) {
    if (value >> 4) return general_protection(0);
    if (cpu.in_guest && TRY(cpu.virtualization->cr8_write(cpu, insn, value))) return {};
    if (cpu.controller) cpu.controller->set_cr8(static_cast<u8>(value));
    return {};
}

Result<u64> read_cr8(Cpu& cpu, const Insn& insn) {
    u64 value = 0;
    if (cpu.in_guest && TRY(cpu.virtualization->cr8_read(cpu, insn, value))) return value;
    return cpu.controller ? u64{cpu.controller->cr8()} : u64{0};
}

Result<void> mov_to_cr(Cpu& cpu, const Insn& insn, unsigned cr, const Operand& source) {
    u64 value = cpu.gpr(source.number, insn.mode == 64 ? 8 : 4);
    if (cpu.in_guest) TRY(cpu.virtualization->cr_write(cpu, insn, cr, CrAccess::mov_to, value));
    switch (cr) {
    case 0: return load_cr0(cpu, value);
    case 2: cpu.control.cr2 = value; return {};
    case 3: return load_cr3(cpu, value);
    case 4: return load_cr4(cpu, value);
    default: return write_cr8(cpu, insn, value);
    }
}

Result<void> mov_from_cr(Cpu& cpu, const Insn& insn, unsigned cr, const Operand& destination) {
    u64 value = 0;
    switch (cr) {
    case 0: value = cpu.control.cr0; break;
    case 2: value = cpu.control.cr2; break;
    case 3: value = cpu.control.cr3; break;
    case 4: value = cpu.control.cr4; break;
    default: break;
    }
    if (cpu.in_guest) TRY(cpu.virtualization->cr_read(cpu, insn, cr, value));
    if (cr == 8) value = TRY(read_cr8(cpu, insn));
    cpu.set_gpr(destination.number, insn.mode == 64 ? 8 : 4, value);
    return {};
}

} // namespace

Result<void> mov_cr(Cpu& cpu, const Insn& insn) {
    const bool write = insn.operand[0].kind == OperandKind::control;
    const unsigned cr = insn.operand[write ? 0 : 1].number;
    if ((cr > 4 && cr != 8) || cr == 1) return undefined_opcode();
    if (cpu.cpl != 0) return general_protection(0);
    return write ? mov_to_cr(cpu, insn, cr, insn.operand[1]) : mov_from_cr(cpu, insn, cr, insn.operand[0]);
}

Result<void> exec_CLTS(Cpu& cpu, const Insn& insn) {
    u64 value = cpu.control.cr0 & ~CR0::TS;
    if (cpu.in_guest) TRY(cpu.virtualization->cr_write(cpu, insn, 0, CrAccess::clts, value));
    return load_cr0(cpu, value);
}

// LMSW: CR0.PE, MP, EM and TS out of a 16-bit source; PE is not cleared.
Result<void> exec_LMSW(Cpu& cpu, const Insn& insn) {
    const u64 source = TRY(cpu.read_operand(insn, 0));
    constexpr u64 others = CR0::MP | CR0::EM | CR0::TS;
    u64 value = (cpu.control.cr0 & ~others) | (source & (others | CR0::PE));
    if (cpu.in_guest) TRY(cpu.virtualization->cr_write(cpu, insn, 0, CrAccess::lmsw, value));
    return load_cr0(cpu, value);
}

// SMSW: a memory operand takes 16 bits, a register as many as the operand size says.
Result<void> exec_SMSW(Cpu& cpu, const Insn& insn) {
    if (cpu.cpl == 3 && (cpu.control.cr4 & CR4::UMIP)) return general_protection(0);
    u64 value = cpu.control.cr0;
    if (cpu.in_guest) TRY(cpu.virtualization->cr_read(cpu, insn, 0, value));
    return cpu.write_operand(insn, 0, value);
}

// ---- MOV, debug registers
// --------------------------------------------------------------------------------------

namespace {

Result<void> write_dr(Cpu& cpu, unsigned dr, u64 value) {
    switch (dr) {
    case 6:
        if (high32(value)) return general_protection(0);
        cpu.dr6 =
            (value & (DR6::B0 | DR6::B1 | DR6::B2 | DR6::B3 | DR6::BD | DR6::BS | DR6::BT)) | DR6::fixed1;
        return {};
    case 7: {
        if (high32(value)) return general_protection(0);
        constexpr u64 reserved = bit(11) | bit(12) | bit(14) | bit(15);
        cpu.dr7 = (value & ~reserved) | DR7::fixed1;
        break;
    }
    default: cpu.dr[dr] = value; break;
    }
    cpu.mode_changed();
    return {};
}

} // namespace

Result<void> mov_dr(Cpu& cpu, const Insn& insn) {
    const bool write = insn.operand[0].kind == OperandKind::debug;
    unsigned dr = insn.operand[write ? 0 : 1].number;
    const unsigned gpr = insn.operand[write ? 1 : 0].number;
    const unsigned bytes = insn.mode == 64 ? 8 : 4;
    if (dr > 7) return undefined_opcode();
    // SDM 3C 25.1.3 "Instructions That Cause VM Exits Conditionally", MOV DR: the exit outranks the faults
    // below.
    if (cpu.in_guest) TRY(cpu.virtualization->dr_access(cpu, insn, dr, write, gpr));
    if (dr == 4 || dr == 5) {
        if (cpu.control.cr4 & CR4::DE) return undefined_opcode();
        dr += 2;
    }
    if (cpu.cpl != 0) return general_protection(0);
    if (cpu.dr7 & DR7::GD) return debug_exception(DR6::BD);
    if (write) return write_dr(cpu, dr, cpu.gpr(gpr, bytes));
    cpu.set_gpr(gpr, bytes, dr == 6 ? cpu.dr6 : dr == 7 ? cpu.dr7 : cpu.dr[dr]);
    return {};
}

} // namespace exeunt
