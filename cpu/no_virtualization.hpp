// A processor without VT-x and AMD-V: every question has its neutral answer. vmx and svm derive from it and
// override what they have to say.
#pragma once

#include "cpu/virtualization.hpp"

namespace exeunt {

class NoVirtualization : public Virtualization {
public:
    Result<void> instruction(Cpu&, const Insn&, Intercept) override { return {}; }
    Result<void> cr_write(Cpu&, const Insn&, unsigned, CrAccess, u64&) override { return {}; }
    Result<void> cr_read(Cpu&, const Insn&, unsigned, u64&) override { return {}; }
    Result<void> dr_access(Cpu&, const Insn&, unsigned, bool, unsigned) override { return {}; }
    Result<void> io(Cpu&, const Insn&, const IoAccess&) override { return {}; }
    Result<bool> rdmsr(Cpu&, const Insn&, u32, u64&) override { return false; }
    Result<bool> wrmsr(Cpu&, const Insn&, u32, u64) override { return false; }
    Result<void> task_switch(Cpu&, const TaskSwitch&) override { return {}; }
    Result<void> event(Cpu&, const Event&) override { return {}; }
    Result<void> triple_fault(Cpu&) override { return {}; }
    Result<void> endless_delivery(Cpu&) override { return {}; }
    Result<void> second_level_fault(Cpu&) override { return {}; }
    Result<void> boundary(Cpu&) override { return {}; }
    bool single_step(const Cpu&) override { return false; }
    Tick next_deadline(const Cpu&) override { return never; }
    bool interrupts_enabled(Cpu&) override { return false; }
    bool take_virtual_interrupt(Cpu&, u8&) override { return false; }
    bool take_virtual_nmi(Cpu&) override { return false; }
    void iret(Cpu&) override {}
    Result<bool> cr8_read(Cpu&, const Insn&, u64&) override { return false; }
    Result<bool> cr8_write(Cpu&, const Insn&, u64) override { return false; }
    u64 guest_tsc(Cpu&, u64 tsc) override { return tsc; }
    Result<u64> special_read(Cpu&, u64, u64, unsigned) override { return u64{0}; }
    Result<void> special_write(Cpu&, u64, u64, unsigned, u64) override { return {}; }
    bool cr0_allowed(const Cpu&, u64) override { return true; }
    bool cr4_allowed(const Cpu&, u64) override { return true; }
    bool init_blocked(const Cpu&) override { return false; }
    bool redirects_init(const Cpu&) override { return false; }
    bool events_held(const Cpu&) override { return false; }
    const InsnRow* row(u16) const override { return nullptr; }
    void reset(Cpu&) override {}
    void visit(StateVisitor&) override {}
};

}  // namespace exeunt
