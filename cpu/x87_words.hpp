// The control, status and tag words of the x87 FPU. SDM 1 8.1.3 "x87 FPU Status Register", 8.1.5 "x87 FPU
// Control Word", 8.1.7 "x87 FPU Tag Word".
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// The status word. IE to PE stand at the same bits as their masks in the control word.
namespace FSW {
inline constexpr u16 IE = 1 << 0, DE = 1 << 1, ZE = 1 << 2, OE = 1 << 3, UE = 1 << 4, PE = 1 << 5,
                     SF = 1 << 6, ES = 1 << 7, C0 = 1 << 8, C1 = 1 << 9, C2 = 1 << 10, TOP = 7 << 11,
                     C3 = 1 << 14, B = 1 << 15;
inline constexpr u16 exceptions = IE | DE | ZE | OE | UE | PE;
/// Found before anything is computed: unmasked, they keep the instruction from changing its operands.
inline constexpr u16 pre_computation = IE | DE | ZE;
inline constexpr u16 conditions = C0 | C1 | C2 | C3;
} // namespace FSW

/// The control word.
namespace FCW {
inline constexpr u16 masks = 0x3F, PC = 3 << 8, RC = 3 << 10, X = 1 << 12;
inline constexpr u16 at_reset = 0x037F; ///< after FNINIT
/// What software can set, and the bit that always reads as 1.
inline constexpr u16 writable = masks | PC | RC | X, fixed1 = 1 << 6;
} // namespace FCW

/// Two bits for each physical register.
enum class Tag : u8 { valid = 0, zero = 1, special = 2, empty = 3 };

} // namespace exeunt
