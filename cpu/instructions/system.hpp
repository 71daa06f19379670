// What other instructions need of the system group: MOV to and from control and debug registers, and the
// loading of control registers with all that follows.
#pragma once

#include "cpu/instructions.hpp"

namespace exeunt {

/// MOV with a control or debug register as one of its operands. SDM 2B "MOV - Move to/from Control
/// Registers", "MOV - Move to/from Debug Registers".
Result<void> mov_cr(Cpu& cpu, const Insn& insn);
Result<void> mov_dr(Cpu& cpu, const Insn& insn);

/// Loads a control register as MOV does once no guest's extension objects: checks, then changes, then
/// everything that follows from them (EFER.LMA, PDPTEs, translations, modes).
Result<void> load_cr0(Cpu& cpu, u64 value);
Result<void> load_cr3(Cpu& cpu, u64 value);
Result<void> load_cr4(Cpu& cpu, u64 value);

/// Bits of CR4 that this processor has.
u64 cr4_supported(const CpuModel& model);

/// As the load of a byte, which is what CLFLUSH and MONITOR are checked as; nothing is read.
Result<TlbEntry> touch(Cpu& cpu, u64 linear);

/// Loads PKRU; cached translations hold the rights it gives.
void load_pkru(Cpu& cpu, u32 value);

} // namespace exeunt
