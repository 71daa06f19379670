// The segments with which images start: in the GDT that the loader puts into memory, and in the registers.
#pragma once

#include "arch/segment.hpp"

namespace exeunt::LoaderSegments {

/// Selectors of the loader's GDT: those that the Linux boot protocol asks for (__BOOT_CS and __BOOT_DS).
inline constexpr u16 code_selector = 0x10, data_selector = 0x18, tss_selector = 0x20;

inline constexpr u32 present = AR::P | AR::S | AR::G;
inline constexpr u32 code32_access = present | AR::DB | AR::CODE | AR::READABLE | AR::ACCESSED;
inline constexpr u32 code64_access = present | AR::L | AR::CODE | AR::READABLE | AR::ACCESSED;
inline constexpr u32 data_access = present | AR::DB | AR::WRITABLE | AR::ACCESSED;
inline constexpr u32 tss_access = AR::P | SystemType::tss_busy;

}  // namespace exeunt::LoaderSegments
