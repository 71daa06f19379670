// AMD-V of one processor: SVM mode, the guest that runs, and the answers to what the core asks
// (cpu/virtualization.hpp). APM 2 ch. 15 "Secure Virtual Machine".
//
// Not modelled: SMM (an intercepted SMI exits; no other is taken), the TPM and the protection against DMA of
// SKINIT, shadow stacks and their check, performance counter and IBS virtualization, bus locks of uncacheable memory
// and of page walks, SEV.
// Scaling of MPERF by TSC_RATIO. None of what has a CPUID bit is offered.
#pragma once

#include "cpu/cpu.hpp"
#include "cpu/no_virtualization.hpp"
#include "mmu/npt.hpp"
#include "svm/avic.hpp"
#include "svm/exit_codes.hpp"
#include "svm/interconnect.hpp"
#include "svm/vmcb.hpp"
#include "svm/vmrun_checks.hpp"

#include <optional>
#include <vector>

namespace exeunt {

/// What a #VMEXIT records besides the guest's state.
struct SvmExit {
    u64 code;
    u64 info1 = 0, info2 = 0;
    u64 nrip = 0;
    /// A data access failed: the instruction's bytes are recorded (decode assists).
    bool records_bytes = false;
    /// Of an intercepted exception, in the format of EVENTINJ; for observers only.
    u64 event = 0;
};

class Svm final : public NoVirtualization {
public:
    /// Becomes the processor's extension and adds its MSRs.
    /// `interconnect`: the other processors; null where this is the only one.
    explicit Svm(Cpu& cpu, SvmInterconnect* interconnect = nullptr);

    // ---- What tests and tools look at -----------------------------------------------------------
    bool gif() const { return gif_; }
    const Npt& npt() const { return npt_; }
    u64 vmcb_address() const { return vmcb_address_; }
    /// The rules that the last VMRUN violated; empty when it succeeded.
    const std::vector<const VmrunCheck*>& last_refusal() const { return last_refusal_; }

    // ---- From other processors and from devices -------------------------------------------------
    u32 apic_id() const { return cpu_.index; }
    /// The vAPIC backing page may hold a new request: a guest with AVIC looks (15.29.8 "AVIC Doorbell").
    void doorbell();
    void invalidate(const BroadcastInvalidation& what);
    /// Sends a doorbell.
    void ring(u32 apic_id);

    // ---- The core's questions (cpu/virtualization.hpp) ------------------------------------------
    Result<void> instruction(Cpu& cpu, const Insn& insn, Intercept what) override;
    Result<void> cr_write(Cpu& cpu, const Insn& insn, unsigned cr, CrAccess access, u64& value) override;
    Result<void> cr_read(Cpu& cpu, const Insn& insn, unsigned cr, u64& value) override;
    Result<void> dr_access(Cpu& cpu, const Insn& insn, unsigned dr, bool write, unsigned gpr) override;
    Result<void> io(Cpu& cpu, const Insn& insn, const IoAccess& access) override;
    Result<bool> rdmsr(Cpu& cpu, const Insn& insn, u32 index, u64& value) override;
    Result<bool> wrmsr(Cpu& cpu, const Insn& insn, u32 index, u64 value) override;
    Result<void> task_switch(Cpu& cpu, const TaskSwitch& task_switch) override;
    Result<void> event(Cpu& cpu, const Event& event) override;
    Result<void> triple_fault(Cpu& cpu) override;
    Result<void> second_level_fault(Cpu& cpu) override;
    Result<void> boundary(Cpu& cpu) override;
    bool interrupts_enabled(Cpu& cpu) override;
    bool take_virtual_interrupt(Cpu& cpu, u8& vector) override;
    bool take_virtual_nmi(Cpu& cpu) override;
    void iret(Cpu& cpu) override;
    Result<u64> special_read(Cpu& cpu, u64 physical, u64 linear, unsigned bytes) override;
    Result<void> special_write(Cpu& cpu, u64 physical, u64 linear, unsigned bytes, u64 value) override;
    bool redirects_init(const Cpu& cpu) override;
    Result<bool> cr8_read(Cpu& cpu, const Insn& insn, u64& value) override;
    Result<bool> cr8_write(Cpu& cpu, const Insn& insn, u64 value) override;
    u64 guest_tsc(Cpu& cpu, u64 tsc) override;
    bool events_held(const Cpu&) override { return !gif_; }
    const InsnRow* row(u16 mnemonic) const override;
    void reset(Cpu& cpu) override;
    void visit(StateVisitor& visitor) override;

    // ---- The instructions (svm/instructions.cpp, svm/vmrun.cpp) ---------------------------------
    Result<void> vmrun(const Insn& insn);
    Result<void> vmload(const Insn& insn);
    Result<void> vmsave(const Insn& insn);
    void set_gif(bool value);
    Result<void> invlpga(const Insn& insn);
    Result<void> invlpgb(const Insn& insn);
    Result<void> skinit();
    /// A guest that its VMCB does not allow INVLPGB and TLBSYNC gets #UD.
    bool broadcasts_allowed() const;

    /// Performs a #VMEXIT (svm/vmexit.cpp). Returns Stop::Kind::world_switch.
    Stop exit(SvmExit exit);

private:
    /// What VMRUN keeps of the host. APM 2 15.5.1 "Basic Operation"; kept on chip.
    struct Host {
        Segment segment[4]; ///< ES, CS, SS, DS
        TableRegister gdtr, idtr;
        u64 efer = 0, cr0 = 0, cr3 = 0, cr4 = 0;
        u64 rflags = 0, rip = 0, rsp = 0, rax = 0, pat = 0, spec_ctrl = 0;
        u64 lbr[5] = {}; ///< DBGCTL, BR_FROM, BR_TO, LASTEXCPFROM, LASTEXCPTO
    };

    // ---- Controls in effect: those of the copy of the VMCB that VMRUN took ----
    bool intercepts(u64 code) const { return words_[code / 32] >> (code % 32) & 1; }
    bool nested_paging() const { return nested_control_ & VMCB::NP_ENABLE; }
    bool masks_interrupts() const { return interrupt_control_ & VMCB::INT::V_INTR_MASKING; }
    /// 15.33.1 "VMSAVE and VMLOAD Virtualization": with nested paging and a 64-bit host.
    bool virtualizes_vmload() const {
        return cpu_.has(Feature::VMSAVEvirt) && nested_paging() && (host_.efer & EFER::LMA) &&
               (guest_.get(VMCB::virtualization_control) & VMCB::VIRTUAL_VMLOAD_VMSAVE);
    }
    bool has_vgif() const { return interrupt_control_ & VMCB::INT::V_GIF_ENABLE; }
    bool has_vnmi() const { return interrupt_control_ & VMCB::INT::V_NMI_ENABLE; }
    bool virtualizes_lbr() const {
        return cpu_.has(Feature::LbrVirt) &&
               (guest_.get(VMCB::virtualization_control) & VMCB::LBR_VIRTUALIZATION);
    }

    // ---- Questions (svm/questions.cpp, svm/permission_maps.cpp, svm/interrupts.cpp) ----
    Stop instruction_exit(const Insn& insn, u64 code, u64 info1 = 0, u64 info2 = 0);
    bool write_faults(unsigned cr, u64 value) const;
    bool io_exits(const IoAccess& access) const;
    bool msr_exits(u32 index, bool write) const;
    Result<void> msr(const Insn& insn, u32 index, bool write);
    bool pause_exits();
    Result<void> bus_lock();
    bool physical_interrupts_enabled() const;
    bool virtual_gif() const { return !has_vgif() || (interrupt_control_ & VMCB::INT::V_GIF); }
    bool virtual_interrupt_pending() const;
    bool virtual_interrupt_due() const;
    bool virtual_nmi_pending() const;
    Result<void> hlt(const Insn& insn);

    // ---- AVIC: what its page and its MSRs do to the guest that runs (svm/avic_accesses.cpp) ----
    Result<void> avic_read(unsigned offset);
    Result<void> avic_write(unsigned offset, unsigned bytes, u64 value);
    void avic_command(AVIC::Command command);
    void avic_eoi();
    Result<u64> x2avic_read(u32 index);
    Result<void> x2avic_write(u32 index, u64 value);
    bool x2avic_answers(u32 index) const { return avic_.x2apic() && index >= 0x800 && index <= 0x8FF; }

    /// An exit after the instruction, at the boundary that follows it.
    void trap_after(const SvmExit& exit);

    // ---- VMRUN (svm/vmrun.cpp, svm/event_injection.cpp) ----
    bool same_state_as_checked();
    void check_state();
    Result<void> check_avic_page();
    void switch_lbr_to_guest();
    void switch_lbr_to_host();
    u8* vmcb_bytes(u64 address);
    Result<u64> vmcb_operand(const Insn& insn) const;
    Result<u64> vmcb_of_load_or_save(const Insn& insn, AccessType type);
    void take_copy(u64 address);
    void derive_controls();
    Stop refuse(u64 rip);
    void save_host();
    void load_guest();
    void select_guest_translations();
    void bind_guest_translations();
    void control_tlb();
    bool load_guest_pdptes();
    Result<void> inject();

    // ---- #VMEXIT (svm/vmexit.cpp) ----
    void save_guest(VmcbView memory);
    void record(VmcbView memory, const SvmExit& exit, u64 exitintinfo);
    void record_instruction_bytes(VmcbView memory);
    void observe(const SvmExit& exit, u64 exitintinfo);
    void load_host();

    // ---- Rights with which each world's translations were made (svm/translations.cpp) ----
    struct TranslationRights {
        u64 cr0 = 0, cr4 = 0, efer = 0;
        u32 pkru = 0;
        bool operator==(const TranslationRights&) const = default;
    };
    TranslationRights translation_rights() const;
    TranslationRights& rights_of(u32 world);
    void note_translation_rights();
    void check_translation_rights(u32 world);

    void visit_trap(StateVisitor& visitor);

    Cpu& cpu_;
    Npt npt_;
    Avic avic_;
    SvmInterconnect* interconnect_;
    u64* spec_ctrl_ = nullptr; ///< the MSR, where it is virtualized
    bool gif_ = true;
    Host host_;

    u64 vmcb_address_ = 0;
    /// The address for which `copy_` is what the processor knows (clean bits); ~0: none.
    u64 copy_address_ = ~u64{0};
    u8 copy_[VMCB::bytes] = {};
    u8 nowhere_[VMCB::bytes]; ///< a VMCB outside of memory reads as ones
    VmcbView guest_{copy_};

    // ---- While a guest runs: out of the copy ----
    u32 words_[6] = {};
    u64 interrupt_control_ = 0, nested_control_ = 0;
    u32 asid_ = 0;
    u64 pause_count_ = 0;
    Tick last_pause_ = 0;
    u16 bus_lock_counter_ = 0;
    InterceptSet intercepted_; ///< of words_
    std::optional<SvmExit> trap_;

    std::vector<TranslationRights> rights_; ///< by TlbKey::world
    std::vector<const VmrunCheck*> last_refusal_;
    std::vector<u64> checked_; ///< what the rules were last asked about; no state, it only saves asking again
};

/// EVENTINJ and EXITINTINFO. APM 2 15.20 "Event Injection", 15.7.2 "Exit During Event Delivery".
namespace EVENT {
inline constexpr u64 error_valid = bit(11), valid = bit(31);
u64 encode(const Event& event);
} // namespace EVENT

} // namespace exeunt
