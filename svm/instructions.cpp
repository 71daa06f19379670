// The SVM instructions. APM 3 ch. 4 "System Instruction Reference". VMRUN goes on in svm/vmrun.cpp, SKINIT is
// in svm/skinit.cpp, INVLPGB in svm/broadcast.cpp.
#include "cpu/instructions.hpp"
#include "cpu/mnemonic.hpp"
#include "svm/svm.hpp"

namespace exeunt {

namespace {

/// Bases and system-call targets are made canonical, not checked (APM 2 15.5.1).
u64 canonicalized(const Cpu& cpu, u64 address) {
    return sign_extend(address, std::max(cpu.model.linear_bits, 48u));
}

} // namespace

// ---- VMLOAD, VMSAVE: what VMRUN and #VMEXIT leave alone -----------------------------------------

/// The VMCB that rAX names; for a guest with virtual VMLOAD and VMSAVE it is translated by nested paging.
Result<u64> Svm::vmcb_of_load_or_save(const Insn& insn, AccessType type) {
    const u64 address = TRY(vmcb_operand(insn));
    if (!cpu_.in_guest || !virtualizes_vmload()) return address;
    const SecondLevelAccess access{.type = type, .user = true};
    return TRY(npt_.translate(GuestPhysical{address}, access)).physical.value;
}

Result<void> Svm::vmload(const Insn& insn) {
    const VmcbView v(vmcb_bytes(TRY(vmcb_of_load_or_save(insn, AccessType::read))));
    cpu_.seg(Seg::FS) = v.segment(VMCB::fs_selector, false);
    cpu_.seg(Seg::GS) = v.segment(VMCB::gs_selector, false);
    cpu_.seg(Seg::LDTR) = v.segment(VMCB::ldtr_selector, false);
    cpu_.seg(Seg::TR) = v.segment(VMCB::tr_selector, false);
    for (const Seg which : {Seg::FS, Seg::GS, Seg::LDTR, Seg::TR})
        cpu_.seg(which).base = canonicalized(cpu_, cpu_.seg(which).base);
    cpu_.kernel_gs_base = canonicalized(cpu_, v.get(VMCB::kernel_gs_base));
    cpu_.star = v.get(VMCB::star);
    cpu_.lstar = canonicalized(cpu_, v.get(VMCB::lstar));
    cpu_.cstar = canonicalized(cpu_, v.get(VMCB::cstar));
    cpu_.sfmask = low32(v.get(VMCB::sfmask));
    cpu_.sysenter_cs = v.get(VMCB::sysenter_cs);
    cpu_.sysenter_esp = v.get(VMCB::sysenter_esp);
    cpu_.sysenter_eip = v.get(VMCB::sysenter_eip);
    return {};
}

Result<void> Svm::vmsave(const Insn& insn) {
    VmcbView v(vmcb_bytes(TRY(vmcb_of_load_or_save(insn, AccessType::write))));
    v.put_segment(VMCB::fs_selector, cpu_.seg(Seg::FS));
    v.put_segment(VMCB::gs_selector, cpu_.seg(Seg::GS));
    v.put_segment(VMCB::ldtr_selector, cpu_.seg(Seg::LDTR));
    v.put_segment(VMCB::tr_selector, cpu_.seg(Seg::TR));
    v.put(VMCB::kernel_gs_base, cpu_.kernel_gs_base);
    v.put(VMCB::star, cpu_.star);
    v.put(VMCB::lstar, cpu_.lstar);
    v.put(VMCB::cstar, cpu_.cstar);
    v.put(VMCB::sfmask, cpu_.sfmask);
    v.put(VMCB::sysenter_cs, cpu_.sysenter_cs);
    v.put(VMCB::sysenter_esp, cpu_.sysenter_esp);
    v.put(VMCB::sysenter_eip, cpu_.sysenter_eip);
    return {};
}

// ---- STGI, CLGI, INVLPGA ------------------------------------------------------------------------

/// STGI and CLGI; a guest with a virtual GIF changes that one (APM 2 15.33.2 "VGIF").
void Svm::set_gif(bool value) {
    if (cpu_.in_guest && has_vgif()) {
        interrupt_control_ =
            value ? interrupt_control_ | VMCB::INT::V_GIF : interrupt_control_ & ~VMCB::INT::V_GIF;
    } else {
        gif_ = value;
    }
    cpu_.attention(); // what was held back may be due
}

Result<void> Svm::invlpga(const Insn& insn) {
    const u32 asid = static_cast<u32>(cpu_.gpr(RCX, 4));
    cpu_.mmu.drop_page(Linear{cpu_.gpr(RAX, insn.address_size)}, asid == 0 ? 0 : 1 + asid);
    cpu_.context_changed(false);
    return {};
}

// ---- Rows ---------------------------------------------------------------------------------------

namespace {

Svm& svm_of(Cpu& cpu) { return static_cast<Svm&>(*cpu.virtualization); }

Result<void> ud_without_svme(const Cpu& cpu, const Insn&) {
    if (!(cpu.control.efer & EFER::SVME)) return undefined_opcode();
    return {};
}

Result<void> privileged(const Cpu& cpu) {
    if (cpu.real_mode() || cpu.v8086()) return undefined_opcode();
    if (cpu.cpl != 0) return general_protection(0);
    return {};
}

Result<void> ud_or_gp(const Cpu& cpu, const Insn& insn) {
    TRY(ud_without_svme(cpu, insn));
    return privileged(cpu);
}

/// STGI also exists while SVM is off, where SKINIT does.
Result<void> ud_or_gp_stgi(const Cpu& cpu, const Insn& insn) {
    if (!cpu.has(Feature::SKINIT)) TRY(ud_without_svme(cpu, insn));
    return privileged(cpu);
}

Result<void> ud_or_gp_skinit(const Cpu& cpu, const Insn&) {
    if (!cpu.has(Feature::SKINIT)) return undefined_opcode();
    return privileged(cpu);
}

Result<void> ud_or_gp_broadcast(const Cpu& cpu, const Insn&) {
    if (!static_cast<const Svm&>(*cpu.virtualization).broadcasts_allowed()) return undefined_opcode();
    if (cpu.cpl != 0) return general_protection(0);
    return {};
}

Result<void> exec_VMRUN(Cpu& cpu, const Insn& insn) { return svm_of(cpu).vmrun(insn); }
Result<void> exec_VMLOAD(Cpu& cpu, const Insn& insn) { return svm_of(cpu).vmload(insn); }
Result<void> exec_VMSAVE(Cpu& cpu, const Insn& insn) { return svm_of(cpu).vmsave(insn); }
Result<void> exec_VMMCALL(Cpu&, const Insn&) { return undefined_opcode(); } // where it is not intercepted
Result<void> exec_STGI(Cpu& cpu, const Insn&) {
    svm_of(cpu).set_gif(true);
    return {};
}
Result<void> exec_CLGI(Cpu& cpu, const Insn&) {
    svm_of(cpu).set_gif(false);
    return {};
}
Result<void> exec_INVLPGA(Cpu& cpu, const Insn& insn) { return svm_of(cpu).invlpga(insn); }
Result<void> exec_SKINIT(Cpu& cpu, const Insn&) { return svm_of(cpu).skinit(); }
Result<void> exec_INVLPGB(Cpu& cpu, const Insn& insn) { return svm_of(cpu).invlpgb(insn); }
/// Broadcast invalidations are complete when INVLPGB is.
Result<void> exec_TLBSYNC(Cpu&, const Insn&) { return {}; }

constexpr InsnRow rows[] = {
#define INSN(mnemonic, fault, intercept, ends) \
    {#mnemonic, fault, Intercept::intercept, Ends::ends, exec_##mnemonic},
#include "svm/instructions.inc"
};
constexpr u16 mnemonics[] = {
#define INSN(mnemonic, fault, intercept, ends) ZYDIS_MNEMONIC_##mnemonic,
#include "svm/instructions.inc"
};

} // namespace

const InsnRow* Svm::row(u16 mnemonic) const {
    for (std::size_t i = 0; i < std::size(rows); ++i)
        if (mnemonics[i] == mnemonic) return &rows[i];
    return nullptr;
}

} // namespace exeunt
