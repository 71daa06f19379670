// Bits of the control, debug, flags and extended control registers. SDM 3A 2.5, 2.6, 17.2; SDM 1 3.4.3.
#pragma once

#include "base/bits.hpp"

namespace exeunt {

/// General registers in encoding order, then what the engine keeps beside them in the same array.
enum Gpr : u8 { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

namespace RFLAGS {
inline constexpr u64 CF = bit(0), FIXED1 = bit(1), PF = bit(2), AF = bit(4), ZF = bit(6), SF = bit(7), TF = bit(8),
                     IF = bit(9), DF = bit(10), OF = bit(11), IOPL = 3 << 12, NT = bit(14), RF = bit(16), VM = bit(17),
                     AC = bit(18), VIF = bit(19), VIP = bit(20), ID = bit(21);
inline constexpr u64 arithmetic = CF | PF | AF | ZF | SF | OF;
/// Every bit that exists; the others read as 0 (and bit 1 as 1).
inline constexpr u64 all = arithmetic | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}  // namespace RFLAGS

namespace CR0 {
inline constexpr u64 PE = bit(0), MP = bit(1), EM = bit(2), TS = bit(3), ET = bit(4), NE = bit(5), WP = bit(16),
                     AM = bit(18), NW = bit(29), CD = bit(30), PG = bit(31);
}  // namespace CR0

namespace CR4 {
inline constexpr u64 VME = bit(0), PVI = bit(1), TSD = bit(2), DE = bit(3), PSE = bit(4), PAE = bit(5), MCE = bit(6),
                     PGE = bit(7), PCE = bit(8), OSFXSR = bit(9), OSXMMEXCPT = bit(10), UMIP = bit(11), LA57 = bit(12),
                     VMXE = bit(13), SMXE = bit(14), FSGSBASE = bit(16), PCIDE = bit(17), OSXSAVE = bit(18),
                     SMEP = bit(20), SMAP = bit(21), PKE = bit(22), CET = bit(23), PKS = bit(24);
}  // namespace CR4

namespace EFER {
inline constexpr u64 SCE = bit(0), LME = bit(8), LMA = bit(10), NXE = bit(11), SVME = bit(12), LMSLE = bit(13),
                     FFXSR = bit(14), TCE = bit(15), MCOMMIT = bit(17);
}  // namespace EFER

/// SDM 3B 17.4.1 "IA32_DEBUGCTL MSR"; APM 2 13.1.1.6 "Debug-Control MSR".
namespace DEBUGCTL {
inline constexpr u64 LBR = bit(0), BTF = bit(1);
}  // namespace DEBUGCTL

namespace XCR0 {
inline constexpr u64 X87 = bit(0), SSE = bit(1), AVX = bit(2), PKRU = bit(9);
}  // namespace XCR0

namespace DR6 {
inline constexpr u64 B0 = bit(0), B1 = bit(1), B2 = bit(2), B3 = bit(3), BD = bit(13), BS = bit(14), BT = bit(15);
/// Bits that always read as 1 (RTM, bit 16, is 1 outside transactions).
inline constexpr u64 fixed1 = 0xFFFF'0FF0;
}  // namespace DR6

namespace DR7 {
inline constexpr u64 enables = 0xFF, LE = bit(8), GE = bit(9), fixed1 = bit(10), GD = bit(13);
}  // namespace DR7

/// The registers that steer translation, together, since the MMU reads them and the processor writes them.
struct ControlRegisters {
    u64 cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0;
    u64 efer = 0;
    u64 xcr0 = XCR0::X87;
    u64 pdpte[4] = {};  ///< PAE paging's four registers (SDM 3A 4.4.1), loaded with CR3
    u32 pkru = 0;
    u32 pkrs = 0;       ///< IA32_PKRS
};

}  // namespace exeunt
