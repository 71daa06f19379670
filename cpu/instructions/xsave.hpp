// The parts of FXSAVE and XSAVE that others need: the legacy region's layout, and which components are in
// use. SDM 1 10.5.1 "FXSAVE Area", 13.4 "XSAVE Area".
#pragma once

#include "cpu/cpu.hpp"
#include "cpu/xsave_layout.hpp"

#include <array>

namespace exeunt {

/// Bytes 0 to 415 of an FXSAVE area or of an XSAVE area's legacy region; the others are never written.
using LegacyRegion = std::array<u8, xsave_legacy_bytes>;

inline constexpr u32 mxcsr_mask = 0xFFFF; ///< MXCSR_MASK: DAZ exists; writing any other bit is #GP

/// XINUSE: components of XCR0 and IA32_XSS that are not in their initial configuration (SDM 1 13.6).
u64 xsave_in_use(const Cpu& cpu);

/// x87 state out of and into bytes 0 to 23 and 32 to 159; `wide`: 64-bit pointers, no selectors (REX.W).
void put_x87(const Cpu& cpu, LegacyRegion& region, bool wide);
void take_x87(Cpu& cpu, const LegacyRegion& region, bool wide);
/// XMM registers out of and into bytes 160 to 415: 8 of them, or 16 in 64-bit mode.
void put_xmm(const Cpu& cpu, LegacyRegion& region);
void take_xmm(Cpu& cpu, const LegacyRegion& region);

} // namespace exeunt
