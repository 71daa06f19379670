#include "cpu/instructions.hpp"

#include <Zydis/Mnemonic.h>
#include <array>

namespace exeunt {

namespace {

#define INSN(mnemonic, fault, intercept, ends) \
    constexpr InsnRow row_##mnemonic{#mnemonic, fault, Intercept::intercept, Ends::ends, exec_##mnemonic};
#define VEX(mnemonic) \
    constexpr InsnRow row_V##mnemonic{"V" #mnemonic, no_fault, Intercept::none, Ends::plain, exec_##mnemonic};
#include "cpu/instructions.inc"

constexpr auto rows = [] {
    std::array<const InsnRow*, ZYDIS_MNEMONIC_MAX_VALUE + 1> table{};
#define INSN(mnemonic, fault, intercept, ends) table[ZYDIS_MNEMONIC_##mnemonic] = &row_##mnemonic;
#define VEX(mnemonic) table[ZYDIS_MNEMONIC_V##mnemonic] = &row_V##mnemonic;
#include "cpu/instructions.inc"
    return table;
}();

}  // namespace

const InsnRow* find_row(u16 mnemonic) { return rows[mnemonic]; }

Result<void> gp_if_not_cpl0(const Cpu& cpu, const Insn&) {
    if (cpu.cpl != 0) return general_protection(0);
    return {};
}

Result<void> ud_if_not_protected(const Cpu& cpu, const Insn&) {
    if (cpu.real_mode() || cpu.v8086()) return undefined_opcode();
    return {};
}

Result<void> gp_if_tsd(const Cpu& cpu, const Insn&) {
    if ((cpu.control.cr4 & CR4::TSD) && cpu.cpl > 0 && cpu.protected_mode()) return general_protection(0);
    return {};
}

Result<void> ud_if_tsd(const Cpu& cpu, const Insn& insn) {
    if (!gp_if_tsd(cpu, insn).ok()) return undefined_opcode();
    return {};
}

Result<void> ud_without_mcommit(const Cpu& cpu, const Insn&) {
    if (!(cpu.control.efer & EFER::MCOMMIT)) return undefined_opcode();
    return {};
}

}  // namespace exeunt
