// ENTER and LEAVE: SDM 1 5.1.10 and 6.6 "Procedure Calls for Block-Structured Languages"; SDM 2A ENTER,
// LEAVE.
#include "cpu/instructions/integer.hpp"

namespace exeunt {

namespace {

/// The pushes of ENTER, one after the other as the manual has them: a later level may read what an earlier
/// one pushed. RSP and RBP are the caller's to restore when one faults.
Result<void> enter(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size;
    const u64 mask = low_mask(8 * cpu.stack_bytes());
    const unsigned level = insn.immediate2 & 31;
    TRY(cpu.push(cpu.gpr(RBP, bytes), bytes));
    const u64 frame = cpu.r[RSP];
    u64 outer = cpu.r[RBP];
    for (unsigned i = 1; i < level; ++i) {
        outer -= bytes;
        const u64 link = TRY(cpu.load(Seg::SS, outer & mask, bytes));
        TRY(cpu.push(link, bytes));
    }
    if (level > 0) TRY(cpu.push(frame & low_mask(8 * bytes), bytes));
    cpu.add_rsp(-static_cast<i64>(insn.immediate & 0xFFFF));
    // A write at the final stack pointer must be possible (SDM 2A ENTER, exceptions); nothing is written.
    TRY(cpu.prepare_write(Seg::SS, cpu.r[RSP] & mask, bytes));
    cpu.set_gpr(RBP, bytes, frame);
    return {};
}

} // namespace

Result<void> exec_ENTER(Cpu& cpu, const Insn& insn) {
    const u64 rsp = cpu.r[RSP];
    const Result<void> result = enter(cpu, insn);
    if (!result.ok() && result.stop().kind != Stop::Kind::world_switch) cpu.r[RSP] = rsp;
    return result;
}

Result<void> exec_LEAVE(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size, stack = cpu.stack_bytes();
    const u64 frame = cpu.gpr(RBP, stack);
    const u64 value = TRY(cpu.load(Seg::SS, frame, bytes));
    cpu.set_gpr(RSP, stack, frame + bytes);
    cpu.set_gpr(RBP, bytes, value);
    return {};
}

} // namespace exeunt
