// Far JMP, CALL and RET: forms of mnemonics whose near forms are in control_transfer.cpp.
#pragma once

#include "cpu/stack_frame.hpp"

namespace exeunt {

Result<void> far_jump(Cpu& cpu, const Insn& insn);
Result<void> far_call(Cpu& cpu, const Insn& insn);
Result<void> far_return(Cpu& cpu, const Insn& insn);

/// A far pointer out of an instruction or memory.
struct FarPointer {
    u16 selector = 0;
    u64 offset = 0;
};
/// The memory operand as a far pointer whose offset has `bytes` bytes.
Result<FarPointer> load_far_pointer(Cpu& cpu, const Insn& insn, unsigned bytes);

/// Real-address and virtual-8086 mode: CS becomes `selector`, and `offset` is executed next.
void enter_code_8086(Cpu& cpu, u16 selector, u64 offset);
/// Code in `code` at `cpl` and `offset` is executed next.
void enter_code(Cpu& cpu, const Segment& code, unsigned cpl, u64 offset);

/// The stack of the outer level that far RET and IRET go back to; SS may be null for 64-bit code below CPL 3.
Result<Segment> outer_stack_segment(Cpu& cpu, const Segment& code, u16 selector);
/// SS and the part of RSP that its size, or 64-bit mode, makes the stack pointer. After CS is loaded.
void set_outer_stack(Cpu& cpu, const Segment& ss, u64 pointer);

} // namespace exeunt
