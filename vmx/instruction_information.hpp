// Layouts of the VM-exit instruction information. SDM 3C Tables 27-8 to 27-14. Bits that the manual calls
// undefined are 0.
#pragma once

#include "base/bits.hpp"
#include "cpu/insn.hpp"

namespace exeunt::instruction_information {

/// Sizes of 2, 4 and 8 bytes are 0, 1 and 2.
constexpr u32 size_code(unsigned bytes) { return bytes == 8 ? 2 : bytes == 4 ? 1 : 0; }

/// The number of the operand that is memory, or `none`.
inline constexpr unsigned none = ~0u;
constexpr unsigned memory_operand(const Insn& insn) {
    for (unsigned i = 0; i < insn.operand_count; ++i)
        if (insn.operand[i].kind == OperandKind::memory) return i;
    return none;
}

/// Scale, address size, segment, index and base: what all layouts with a memory operand share.
constexpr u32 memory(const Insn& insn) {
    const MemoryOperand& m = insn.memory;
    const bool no_index = m.index >= MemoryOperand::no_register,
               no_base = m.base >= MemoryOperand::no_register;
    return (no_index ? 0 : u32{m.scale}) | size_code(insn.address_size) << 7 |
           static_cast<u32>(m.segment) << 15 | (no_index ? u32{1} << 22 : u32{m.index} << 18) |
           (no_base ? u32{1} << 27 : u32{m.base} << 23);
}

/// A memory operand, or a register in bits 6:3 with bit 10 set.
constexpr u32 memory_or_register(const Insn& insn, unsigned operand) {
    if (insn.operand[operand].kind == OperandKind::memory) return memory(insn);
    return u32{insn.operand[operand].number} << 3 | u32{1} << 10;
}

/// Table 27-8: INS and OUTS.
constexpr u32 ins_outs(unsigned address_bytes, Seg segment) {
    return size_code(address_bytes) << 7 | static_cast<u32>(segment) << 15;
}

/// Table 27-9: INVEPT, INVPCID, INVVPID; the type is in register operand 0.
constexpr u32 invalidate(const Insn& insn) { return memory(insn) | u32{insn.operand[0].number} << 28; }

/// Table 27-10: LGDT, LIDT, SGDT, SIDT. `identity`: 0 SGDT, 1 SIDT, 2 LGDT, 3 LIDT.
constexpr u32 gdtr_idtr(const Insn& insn, u32 identity) {
    return memory(insn) | (insn.operand_size == 2 ? 0 : u32{1} << 11) | identity << 28;
}

/// Table 27-11: LLDT, LTR, SLDT, STR. `identity`: 0 SLDT, 1 STR, 2 LLDT, 3 LTR.
constexpr u32 ldtr_tr(const Insn& insn, u32 identity) { return memory_or_register(insn, 0) | identity << 28; }

/// Table 27-12: RDRAND and RDSEED.
constexpr u32 rdrand(const Insn& insn) {
    return u32{insn.operand[0].number} << 3 | size_code(insn.operand_size) << 11;
}

/// UMWAIT and TPAUSE (later editions): their register is a doubleword.
constexpr u32 umwait(const Insn& insn) { return u32{insn.operand[0].number} << 3 | size_code(4) << 11; }

/// Table 27-14: VMREAD (destination is operand 0) and VMWRITE (source is operand 1); the other is the
/// encoding.
constexpr u32 vmread(const Insn& insn) {
    return memory_or_register(insn, 0) | u32{insn.operand[1].number} << 28;
}
constexpr u32 vmwrite(const Insn& insn) {
    return memory_or_register(insn, 1) | u32{insn.operand[0].number} << 28;
}

} // namespace exeunt::instruction_information
