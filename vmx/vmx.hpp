// VT-x of one processor: VMX operation, its VMCSs, and the answers to what the core asks
// (cpu/virtualization.hpp). SDM 3C ch. 23 to 30.
//
// Not modelled: dual-monitor treatment of SMIs and SMM, and what vmx/controls.inc calls not_modelled. None of
// it is offered.
#pragma once

#include "apic/virtual_apic.hpp"
#include "cpu/cpu.hpp"
#include "cpu/no_virtualization.hpp"
#include "mmu/ept.hpp"
#include "vmx/apic_access_page.hpp"
#include "vmx/apic_virtualization.hpp"
#include "vmx/capabilities.hpp"
#include "vmx/entry_checks.hpp"
#include "vmx/exit_reasons.hpp"
#include "vmx/vmcs.hpp"

#include <array>

namespace exeunt {

/// A VM exit on its way: what it records, and how the guest's state is saved. SDM 3C ch. 27.
struct VmExit {
    /// What becomes of RFLAGS.RF in the saved image (27.3.3).
    enum class Resume : u8 { unchanged, clear, set };

    ExitReason reason;
    u64 qualification = 0;
    u32 interruption_information = 0, interruption_error = 0;
    u32 instruction_length = 0, instruction_information = 0;
    u64 guest_linear = 0, guest_physical = 0;
    Resume resume_flag = Resume::unchanged;
    /// Indirect: the event under delivery goes to the IDT-vectoring information.
    bool reports_delivery = false;
    /// Pending debug exceptions stay pending (27.3.4).
    bool keeps_pending_debug = false;
    /// Directly caused by an NMI: NMIs are blocked afterwards.
    bool by_nmi = false;
};

class Vmx final : public NoVirtualization {
public:
    /// Becomes the processor's extension and adds its MSRs. `first`: that of the machine's first processor, if there
    /// is one already. Throws ModelError.
    explicit Vmx(Cpu& cpu, const Vmx* first = nullptr);

    static constexpr u64 no_pointer = ~u64{0};

    // ---- State that instructions and tools look at ----------------------------------------------
    const VmxCapabilities& capabilities() const { return capabilities_; }
    bool operating() const { return operating_; } ///< VMX operation, root or non-root
    Vmcs* current() { return current_; }
    const Ept& ept() const { return ept_; }
    u64 vmxon_pointer() const { return vmxon_pointer_; }
    ActiveVmcss& active() { return active_; }
    /// Id and citation of the rule that refused the last VM entry; empty when it succeeded.
    std::string_view last_refusal() const { return last_refusal_; }

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
    Result<void> endless_delivery(Cpu& cpu) override;
    Result<void> second_level_fault(Cpu& cpu) override;
    Result<void> boundary(Cpu& cpu) override;
    bool single_step(const Cpu& cpu) override;
    Tick next_deadline(const Cpu& cpu) override;
    bool interrupts_enabled(Cpu& cpu) override;
    void iret(Cpu& cpu) override;
    bool take_virtual_interrupt(Cpu& cpu, u8& vector) override;
    Result<u64> special_read(Cpu& cpu, u64 physical, u64 linear, unsigned bytes) override;
    Result<void> special_write(Cpu& cpu, u64 physical, u64 linear, unsigned bytes, u64 value) override;
    Result<bool> cr8_read(Cpu& cpu, const Insn& insn, u64& value) override;
    Result<bool> cr8_write(Cpu& cpu, const Insn& insn, u64 value) override;
    u64 guest_tsc(Cpu& cpu, u64 tsc) override;
    bool cr0_allowed(const Cpu& cpu, u64 value) override;
    bool cr4_allowed(const Cpu& cpu, u64 value) override;
    bool init_blocked(const Cpu& cpu) override;
    const InsnRow* row(u16 mnemonic) const override;
    void reset(Cpu& cpu) override;
    void visit(StateVisitor& visitor) override;

    // ---- The instructions (vmx/instructions.cpp) ------------------------------------------------
    Result<void> vmxon(const Insn& insn);
    Result<void> vmxoff();
    Result<void> vmclear(const Insn& insn);
    Result<void> vmptrld(const Insn& insn);
    Result<void> vmptrst(const Insn& insn);
    Result<void> vmread(const Insn& insn);
    Result<void> vmwrite(const Insn& insn);
    Result<void> vmcall();
    Result<void> vmfunc(const Insn& insn);
    Result<void> invept(const Insn& insn);
    Result<void> invvpid(const Insn& insn);
    /// VMLAUNCH and VMRESUME (vmx/entry.cpp).
    Result<void> enter(bool launch);

    /// Performs a VM exit (vmx/exit.cpp). Returns Stop::Kind::world_switch.
    Stop exit(const VmExit& exit);

private:
    /// Writes dirty-log entries through the current VMCS (vmx/page_modification_log.cpp).
    class Log final : public PageModificationLog {
    public:
        explicit Log(Vmx& vmx) : vmx_(vmx) {}
        bool full() const override;
        void add(GuestPhysical page) override;

    private:
        Vmx& vmx_;
    };

    // ---- Flags that tell how an instruction ended. SDM 3C 30.2 "Conventions" ----
    Result<void> succeed();
    Result<void> fail(InstructionError error);
    Result<void> fail_invalid();
    Result<void> require_cpl0() const;
    bool valid_region_address(u64 address) const;
    Vmcs* accessed_vmcs();
    bool valid_eptp(u64 eptp) const;

    // ---- Controls in effect; only while a VMCS is current ----
    u64 pin_based() const { return current_->derived.pin_based; }
    u64 primary() const { return current_->derived.primary; }
    u64 secondary() const { return current_->derived.secondary; }
    u64 field(VmcsField f) const { return (*current_)[f]; }

    // ---- Questions (vmx/questions.cpp, vmx/intercepts.cpp) ----
    Stop instruction_exit(const Insn& insn, ExitReason reason, u64 qualification = 0, u32 information = 0);
    u64 displacement_of(const Insn& insn) const;
    bool xss_exits(u64 supported_mask) const;
    bool pause_exits();
    bool shadowed_access(const Insn& insn, VmcsField bitmap) const;
    bool io_exits(const IoAccess& access) const;
    bool msr_exits(u32 index, bool write) const;
    bool page_fault_exits(u32 error) const;
    Result<void> cr0_write(const Insn& insn, CrAccess access, u64& value);
    Result<void> lmsw(const Insn& insn, u64& value);
    u32 nmi_unblocking() const;
    bool becomes_virtualization_exception(const EptFault& fault, u64 qualification);
    VmExit::Resume resume_flag_of(const Event& event) const;

    // ---- Entry (vmx/entry.cpp, vmx/guest_state.cpp, vmx/event_injection.cpp) ----
    void derive_controls();
    const EntryCheck* first_violation(const EntryContext& context, EntryConsequence& consequence);
    Result<void> refuse_entry(InstructionError error, std::string_view check);
    std::vector<RuleViolation> violations(std::string_view refused_by) const;
    Stop fail_entry(ExitReason reason, u64 qualification, std::string_view check, u64 rip);
    void load_guest_state();
    void load_guest_segments();
    void load_guest_non_register_state();
    bool load_guest_pdptes();
    void bind_guest_translations();
    void select_guest_translations();
    void arm_timers(bool injects);
    Result<void> inject();
    void complete_entry(bool launch);

    // ---- Exit (vmx/exit.cpp, vmx/guest_state.cpp, vmx/host_state.cpp) ----
    void record(const VmExit& exit);
    void save_guest_state(const VmExit& exit);
    void save_guest_segments();
    void save_guest_non_register_state(const VmExit& exit);
    void observe_exit(u32 reason, u64 rip);
    void load_host_state(bool nmis_blocked);
    void load_host_segments(bool host64);
    void select_host_translations();

    // ---- Rights with which each world's translations were made (vmx/host_state.cpp) ----
    struct TranslationRights {
        u64 cr0 = 0, cr4 = 0, efer = 0;
        u32 pkru = 0, pkrs = 0;
        bool mode_based_execute = false;
        bool operator==(const TranslationRights&) const = default;
    };
    struct World {
        u32 number; ///< TlbKey::world
        TranslationRights rights;
    };
    TranslationRights translation_rights() const;
    World& world(u32 number);
    void note_translation_rights();
    void check_translation_rights(u32 number);
    Stop abort(VmxAbort cause);
    static u32 information_of(const Event& event, bool protected_mode);

    // ---- MSR areas (vmx/msr_lists.cpp) ----
    /// 0 when all were loaded, else the number of the first entry that was refused, counted from 1.
    u32 load_msrs(u64 address, u64 count, std::string_view& check);
    bool store_msrs(u64 address, u64 count);
    /// The id of the rule that keeps this MSR out of load areas, or an empty one.
    std::string_view unloadable(u32 index, u32 reserved) const;

    // ---- Timers and traps (vmx/timers_and_traps.cpp) ----
    Result<void> external_events();
    u32 preemption_timer_now() const;

    // ---- APIC virtualization (vmx/apic_virtualization.cpp, vmx/apic_accesses.cpp,
    // vmx/posted_interrupts.cpp) ----
    VirtualApic virtual_apic();
    void set_apic_trap(ExitReason reason, unsigned qualification);
    void arm_virtual_apic();
    Result<void> apic_boundary();
    void virtualize_tpr();
    void virtualize_eoi();
    void virtualize_self_ipi(u8 vector);
    void virtualize_ipi(u8 vector, u32 target);
    void evaluate_virtual_interrupts();
    bool virtual_interrupt_due();
    void process_posted_interrupts();
    bool x2apic_read(u32 index, u64& value);
    Result<bool> x2apic_write(u32 index, u64 value);
    bool apic_access_virtualized(unsigned offset, unsigned bytes, bool write) const;
    Stop apic_access_exit(ApicAccess type, u64 offset);
    void emulate_apic_write();

    Cpu& cpu_;
    const VmxCapabilities capabilities_;
    ActiveVmcss active_;
    Ept ept_;
    Log log_{*this};
    ApicAccessPage apic_page_;
    /// What a virtual-APIC page outside of RAM reads as.
    std::array<u8, page_size> no_virtual_apic_{};

    World host_world_{0, {}};
    std::vector<World> worlds_; ///< of every VPID that ran, and of guests without one
    std::size_t last_world_ = 0;

    bool operating_ = false;
    u64 vmxon_pointer_ = no_pointer;
    Vmcs* current_ = nullptr;
    std::string_view last_refusal_;

    bool nmi_blocking_before_entry_ = false;

    // ---- While a guest runs ----
    bool virtual_nmi_blocking_ = false;
    Tick preemption_deadline_ = never;
    bool mtf_pending_ = false; ///< a monitor-trap-flag exit is due at the next boundary
    Tick mtf_from_ = never;    ///< the boundary after which one instruction makes it due
    VirtualApicState apic_;
    Tick unblocking_iret_tick_ = never; ///< when an IRET removed NMI blocking, for a fault of that IRET
    // PAUSE-loop exiting (25.1.3): first and last PAUSE of the loop under way, in TSC time.
    u64 ple_first_ = 0, ple_last_ = 0;
    bool ple_started_ = false;
};

} // namespace exeunt
