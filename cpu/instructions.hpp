// The table of instructions: one row for each mnemonic, and the order of faults and exits around it.
#pragma once

#include "cpu/cpu.hpp"

namespace exeunt {

using Execute = Result<void> (*)(Cpu&, const Insn&);
/// A fault that outranks a VM exit: checked before the intercept (SDM 3C 25.1.1).
using FaultCheck = Result<void> (*)(const Cpu&, const Insn&);

/// What an instruction can change, as far as the engine must know.
enum class Ends : u8 {
    plain,   ///< registers, flags, memory: the block goes on
    block,   ///< control flow, modes, translation, events, I/O: it is the last of its block
};

struct InsnRow {
    const char* name;
    FaultCheck fault;
    Intercept intercept;
    Ends ends;
    Execute execute;
};

/// The row for a Zydis mnemonic, or nullptr: not modelled.
const InsnRow* find_row(u16 mnemonic);

/// The common path: faults that outrank an exit, then the intercept, then the instruction.
inline Result<void> execute(Cpu& cpu, const Insn& insn) {
    const InsnRow& row = *insn.row;
    if (row.fault)
        if (const auto fault = row.fault(cpu, insn); !fault.ok()) [[unlikely]]
            return cpu.undefined_here(row.intercept) ? undefined_opcode() : fault.stop();
    if (row.intercept != Intercept::none) TRY(cpu.ask(insn, row.intercept));
    return row.execute(cpu, insn);
}

// The checks that rows name (cpu/instructions.cpp).
inline constexpr FaultCheck no_fault = nullptr;
Result<void> gp_if_not_cpl0(const Cpu& cpu, const Insn& insn);   ///< #GP(0) unless CPL = 0
Result<void> ud_if_not_protected(const Cpu& cpu, const Insn& insn);  ///< #UD in real and virtual-8086 mode
Result<void> gp_if_tsd(const Cpu& cpu, const Insn& insn);        ///< RDTSC, RDTSCP: CR4.TSD and CPL > 0
Result<void> ud_if_tsd(const Cpu& cpu, const Insn& insn);        ///< RDPRU: CR4.TSD and CPL > 0
Result<void> ud_without_mcommit(const Cpu& cpu, const Insn& insn);  ///< #UD unless EFER.MCOMMIT = 1
Result<void> gp_if_umip(const Cpu& cpu, const Insn& insn);       ///< #GP(0) if CR4.UMIP = 1 and CPL > 0
Result<void> check_system_segment_load(const Cpu& cpu, const Insn& insn);   ///< LLDT, LTR: #UD, then #GP(0)
Result<void> check_system_segment_store(const Cpu& cpu, const Insn& insn);  ///< SLDT, STR: #UD, then UMIP

#define INSN(mnemonic, fault, intercept, ends) Result<void> exec_##mnemonic(Cpu& cpu, const Insn& insn);
#define VEX(mnemonic)
#include "cpu/instructions.inc"

}  // namespace exeunt
