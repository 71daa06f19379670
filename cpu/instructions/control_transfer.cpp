// Control transfer instructions: SDM 1 5.1.7, 6.4 "Calling Procedures Using CALL and RET"; each by its name
// in volume 2. NOP, PAUSE, UD and ENDBR too. Far JMP, CALL and RET come through here and are done in
// far_transfer.cpp.
#include "cpu/events.hpp"
#include "cpu/instructions/far_transfer.hpp"
#include "cpu/instructions/integer.hpp"
#include "cpu/instructions/io.hpp"

namespace exeunt {

// ---- Near transfers --------------------------------------------------------------------------------------

namespace {

/// Far forms have a pointer, or are FF /3 and FF /5, or RET with opcodes CA and CB.
bool is_far(const Insn& insn) {
    if (insn.operand_count > 0 && insn.operand[0].kind == OperandKind::far_pointer) return true;
    return insn.opcode == 0xFF && (insn.modrm & 0x08);
}

/// Where a near JMP or CALL goes: relative to the next instruction, or as a register or memory operand says.
Result<u64> near_target(Cpu& cpu, const Insn& insn) {
    if (insn.operand[0].kind == OperandKind::relative) return cpu.next_rip + insn.immediate;
    return cpu.read_operand(insn, 0);
}

Result<void> jump_if(Cpu& cpu, const Insn& insn, bool taken) {
    if (!taken) return {};
    return cpu.jump_near(cpu.next_rip + insn.immediate, insn.operand_size);
}

} // namespace

Result<void> exec_JMP(Cpu& cpu, const Insn& insn) {
    if (is_far(insn)) return far_jump(cpu, insn);
    return cpu.jump_near(TRY(near_target(cpu, insn)), insn.operand_size);
}

Result<void> exec_CALL(Cpu& cpu, const Insn& insn) {
    if (is_far(insn)) return far_call(cpu, insn);
    const unsigned bytes = insn.operand_size;
    const u64 return_address = cpu.next_rip & low_mask(8 * bytes);
    const u64 target = TRY(near_target(cpu, insn));
    TRY(cpu.jump_near(target, bytes));
    return cpu.push(return_address, bytes);
}

Result<void> exec_RET(Cpu& cpu, const Insn& insn) {
    if (insn.opcode == 0xCA || insn.opcode == 0xCB) return far_return(cpu, insn);
    const unsigned bytes = insn.operand_size;
    const u64 target = TRY(cpu.peek_stack(0, bytes));
    TRY(cpu.jump_near(target, bytes));
    cpu.add_rsp(static_cast<i64>(bytes + (insn.immediate & 0xFFFF)));
    return {};
}

#define CONDITION(cc, code)                                         \
    Result<void> exec_J##cc(Cpu& cpu, const Insn& insn) {           \
        return jump_if(cpu, insn, alu::condition(cpu.flags, code)); \
    }
#include "cpu/instructions/conditions.inc"

/// The mnemonic only names the address size, which chooses CX, ECX or RCX.
static Result<void> jump_if_zero_count(Cpu& cpu, const Insn& insn) {
    return jump_if(cpu, insn, cpu.gpr(RCX, insn.address_size) == 0);
}
Result<void> exec_JCXZ(Cpu& cpu, const Insn& insn) { return jump_if_zero_count(cpu, insn); }
Result<void> exec_JECXZ(Cpu& cpu, const Insn& insn) { return jump_if_zero_count(cpu, insn); }
Result<void> exec_JRCXZ(Cpu& cpu, const Insn& insn) { return jump_if_zero_count(cpu, insn); }

/// The count is in CX, ECX or RCX by address size, and changes only when the jump does not fault.
static Result<void> loop_while(Cpu& cpu, const Insn& insn, bool condition) {
    const unsigned bytes = insn.address_size;
    const u64 count = (cpu.gpr(RCX, bytes) - 1) & low_mask(8 * bytes);
    TRY(jump_if(cpu, insn, count != 0 && condition));
    cpu.set_gpr(RCX, bytes, count);
    return {};
}
Result<void> exec_LOOP(Cpu& cpu, const Insn& insn) { return loop_while(cpu, insn, true); }
Result<void> exec_LOOPE(Cpu& cpu, const Insn& insn) { return loop_while(cpu, insn, cpu.flags.zf()); }
Result<void> exec_LOOPNE(Cpu& cpu, const Insn& insn) { return loop_while(cpu, insn, !cpu.flags.zf()); }

// ---- Software interrupts ---------------------------------------------------------------------------------

namespace {

Event software_event(const Insn& insn, Vector vector, Event::Type type) {
    Event event;
    event.vector = static_cast<u8>(vector);
    event.type = type;
    event.instruction_length = insn.length;
    return event;
}

} // namespace

/// SDM 2A INT n/INTO/INT 3; SDM 3B Table 20-2 "Software Interrupt Handling Methods While in Virtual-8086
/// Mode".
Result<void> exec_INT(Cpu& cpu, const Insn& insn) {
    const u8 vector = static_cast<u8>(insn.immediate);
    if (cpu.v8086()) {
        if ((cpu.control.cr4 & CR4::VME) && !TRY(redirection_bit(cpu, vector)))
            return interrupt_8086(cpu, vector);
        if (cpu.iopl() < 3) return general_protection(0);
    }
    return cpu.deliver(software_event(insn, static_cast<Vector>(vector), Event::Type::software_interrupt));
}

Result<void> exec_INT3(Cpu& cpu, const Insn& insn) {
    return cpu.deliver(software_event(insn, Vector::BP, Event::Type::software_exception));
}
Result<void> exec_INTO(Cpu& cpu, const Insn& insn) {
    if (!cpu.flags.of) return {};
    return cpu.deliver(software_event(insn, Vector::OF, Event::Type::software_exception));
}
/// INT1 (ICEBP) delivers #DB and leaves DR6 alone.
Result<void> exec_INT1(Cpu& cpu, const Insn& insn) {
    return cpu.deliver(software_event(insn, Vector::DB, Event::Type::privileged_software_exception));
}

/// The array index against the pair of signed bounds in memory.
Result<void> exec_BOUND(Cpu& cpu, const Insn& insn) {
    const unsigned bytes = insn.operand_size, bits = 8 * bytes;
    const u64 offset = cpu.effective_address(insn);
    const u64 lower = TRY(cpu.load(insn.memory.segment, offset, bytes));
    const u64 upper = TRY(cpu.load(insn.memory.segment, (offset + bytes) & address_mask(insn), bytes));
    const auto number = [bits](u64 value) { return static_cast<i64>(sign_extend(value, bits)); };
    const i64 index = number(cpu.gpr(insn.operand[0].number, bytes));
    if (index < number(lower) || index > number(upper)) return exception(Vector::BR);
    return {};
}

Result<void> exec_UD0(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_UD1(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_UD2(Cpu&, const Insn&) { return undefined_opcode(); }

// ---- Nothing at all --------------------------------------------------------------------------------------

Result<void> exec_NOP(Cpu&, const Insn&) { return {}; }

/// A spin loop's hint: the machine may let another processor run.
Result<void> exec_PAUSE(Cpu& cpu, const Insn&) {
    cpu.request_stop();
    return {};
}

// Without CET an ENDBR is a NOP.
Result<void> exec_ENDBR32(Cpu&, const Insn&) { return {}; }
Result<void> exec_ENDBR64(Cpu&, const Insn&) { return {}; }
// So is RDSSP while CR4.CET = 0 (it can not be set: no model offers shadow stacks); the others are #UD then.
Result<void> exec_RDSSPD(Cpu&, const Insn&) { return {}; }
Result<void> exec_RDSSPQ(Cpu&, const Insn&) { return {}; }
Result<void> exec_INCSSPD(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_INCSSPQ(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_SAVEPREVSSP(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_RSTORSSP(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_WRSSD(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_WRSSQ(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_WRUSSD(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_WRUSSQ(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_SETSSBSY(Cpu&, const Insn&) { return undefined_opcode(); }
Result<void> exec_CLRSSBSY(Cpu&, const Insn&) { return undefined_opcode(); }

} // namespace exeunt
