// The questions that the core asks of vmx or svm while a guest runs, and of whichever extension the model has
// when its instructions are executed. The core does not know who answers.
#pragma once

#include "arch/intercept.hpp"
#include "arch/result.hpp"
#include "base/clock.hpp"
#include "base/snapshot.hpp"
#include "cpu/insn.hpp"

namespace exeunt {

struct Cpu;

/// An event on its way through the IDT: an interrupt, an exception, or an injected one.
struct Event {
    /// Numbers of the interruption type, SDM 3C Table 24-13.
    enum class Type : u8 {
        external_interrupt = 0, nmi = 2, hardware_exception = 3, software_interrupt = 4,
        privileged_software_exception = 5, software_exception = 6, other = 7,
    };
    u8 vector = 0;
    Type type = Type::hardware_exception;
    bool has_error = false;
    u32 error = 0;
    u64 address = 0;            ///< #PF: the linear address; #DB: bits for DR6
    u8 instruction_length = 0;  ///< software types: how far RIP moves
    bool injected = false;      ///< by VM entry: `event()` is not asked about this one
};

struct IoAccess {
    u16 port = 0;
    u8 bytes = 0;
    bool in = false;
    bool string = false;
    bool rep = false;
    bool immediate_port = false;
    u64 linear = 0;  ///< INS, OUTS: linear address of the memory operand
    Seg segment = Seg::DS;
    u8 address_size = 8;
};

/// Which way a control register is accessed.
enum class CrAccess : u8 { mov_to, mov_from, clts, lmsw };

struct TaskSwitch {
    u16 selector = 0;
    enum class Source : u8 { call = 0, iret = 1, jmp = 2, idt_gate = 3 } source = Source::call;
    bool has_error = false;
    u32 error = 0;
};

/// The interface. Every method has a neutral default in NoVirtualization.
class Virtualization {
public:
    virtual ~Virtualization() = default;

    /// Asked only while a guest runs (Cpu::in_guest). Each either lets the core go on (an empty Result), or
    /// performs the exit and returns Stop::Kind::world_switch. RIP is that of the instruction.
    /// @{
    virtual Result<void> instruction(Cpu& cpu, const Insn& insn, Intercept what) = 0;
    /// MOV to CR, CLTS, LMSW: `value` is the new value of the whole register as the guest asks for it; what is
    /// left in it is what the core then loads (host-owned bits are kept by the extension). `gpr` is the register
    /// of MOV; `linear` the memory operand of LMSW.
    virtual Result<void> cr_write(Cpu& cpu, const Insn& insn, unsigned cr, CrAccess access, u64& value) = 0;
    /// MOV from CR, SMSW: what the guest reads, instead of `value`.
    virtual Result<void> cr_read(Cpu& cpu, const Insn& insn, unsigned cr, u64& value) = 0;
    virtual Result<void> dr_access(Cpu& cpu, const Insn& insn, unsigned dr, bool write, unsigned gpr) = 0;
    virtual Result<void> io(Cpu& cpu, const Insn& insn, const IoAccess& access) = 0;
    /// True when the extension answered in place of the MSR (x2APIC registers of a virtual APIC).
    virtual Result<bool> rdmsr(Cpu& cpu, const Insn& insn, u32 index, u64& value) = 0;
    virtual Result<bool> wrmsr(Cpu& cpu, const Insn& insn, u32 index, u64 value) = 0;
    virtual Result<void> task_switch(Cpu& cpu, const TaskSwitch& task_switch) = 0;
    /// Before an exception or software interrupt `event` is delivered through the IDT.
    virtual Result<void> event(Cpu& cpu, const Event& event) = 0;
    /// An exception during delivery of #DF.
    virtual Result<void> triple_fault(Cpu& cpu) = 0;
    /// Delivery of an exception causes the same exception, and would for ever: no interrupt window comes any more.
    virtual Result<void> endless_delivery(Cpu& cpu) = 0;
    /// The MMU's second level refused; the reason is with the SecondLevel that did.
    virtual Result<void> second_level_fault(Cpu& cpu) = 0;
    /// At every instruction boundary at which something may be due (Cpu::attention was called or a deadline has
    /// passed), before the core takes its own events, in the order of the manual. Also asked while halted. The
    /// extension consumes what exits (INIT, NMI, external interrupt, windows, timers, traps).
    virtual Result<void> boundary(Cpu& cpu) = 0;
    /// Every instruction must be followed by a boundary (monitor trap flag). Asked before each while attention
    /// is called; false costs nothing further.
    virtual bool single_step(const Cpu& cpu) = 0;
    /// The next tick at which the extension itself has something due (VMX-preemption timer), or `never`. It is also
    /// due while the processor is halted.
    virtual Tick next_deadline(const Cpu& cpu) = 0;
    /// Whether the core may deliver an external interrupt now, apart from the shadow: RFLAGS.IF, unless the
    /// extension masks otherwise (SVM's V_INTR_MASKING).
    virtual bool interrupts_enabled(Cpu& cpu) = 0;
    /// A virtual interrupt to be delivered through the guest's IDT now, if any (APICv, AVIC, SVM's V_IRQ).
    virtual bool take_virtual_interrupt(Cpu& cpu, u8& vector) = 0;
    /// Delivers a virtual NMI (SVM's V_NMI) now, if one is due: true, and it is no longer pending.
    virtual bool take_virtual_nmi(Cpu& cpu) = 0;
    /// IRET executed: NMI unblocking as the controls say.
    virtual void iret(Cpu& cpu) = 0;
    /// CR8 under TPR shadow or V_TPR: true when the extension answered.
    virtual Result<bool> cr8_read(Cpu& cpu, const Insn& insn, u64& value) = 0;
    virtual Result<bool> cr8_write(Cpu& cpu, const Insn& insn, u64 value) = 0;
    /// The TSC that this guest sees (offset, scaling).
    virtual u64 guest_tsc(Cpu& cpu, u64 tsc) = 0;
    /// Accesses to a page that the second level marked special (APIC access page, AVIC backing page).
    virtual Result<u64> special_read(Cpu& cpu, u64 physical, u64 linear, unsigned bytes) = 0;
    virtual Result<void> special_write(Cpu& cpu, u64 physical, u64 linear, unsigned bytes, u64 value) = 0;
    /// @}

    /// Asked always: may this bit pattern be loaded (VMX fixed bits, CR4.VMXE while in VMX operation)?
    virtual bool cr0_allowed(const Cpu& cpu, u64 value) = 0;
    virtual bool cr4_allowed(const Cpu& cpu, u64 value) = 0;
    /// INIT is blocked (VMX root operation) and stays pending.
    virtual bool init_blocked(const Cpu& cpu) = 0;
    /// An INIT that would be taken now becomes #SX (SVM's VM_CR.R_INIT).
    virtual bool redirects_init(const Cpu& cpu) = 0;
    /// GIF = 0 holds back every external event (SVM).
    virtual bool events_held(const Cpu& cpu) = 0;
    /// The row of one of the extension's own instructions (by ZydisMnemonic), or nullptr.
    virtual const InsnRow* row(u16 mnemonic) const = 0;
    virtual void reset(Cpu& cpu) = 0;
    virtual void visit(StateVisitor& visitor) = 0;
};

}  // namespace exeunt
