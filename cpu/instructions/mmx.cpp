// What exists for MMX registers only. MMX registers are the significands of the x87 data registers; an
// instruction that uses one makes the x87 FPU's registers all valid and its top of stack 0
// (cpu/instructions/sse.hpp). SDM 1 ch. 9, SDM 3A ch. 12 "Intel MMX Technology System Programming".
#include "cpu/instructions/sse_integer.hpp"

namespace exeunt {

using namespace sse;

Result<void> exec_EMMS(Cpu& cpu, const Insn&) {
    TRY(mmx_available(cpu));
    cpu.x87.set_top(0);
    cpu.x87.empty = 0xFF;
    return {};
}

Result<void> exec_PSHUFW(Cpu& cpu, const Insn& insn) {
    const u8 order = immediate8(insn);
    TRY(mmx_available(cpu));
    const Mm a = TRY(mm_operand(cpu, insn, 1));
    set_mm(cpu, insn.operand[0].number, shuffle_four<u16>(a, order, 0));
    return {};
}

} // namespace exeunt
