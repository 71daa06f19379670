// Fixed-width integers under short names, and the two halves of a 64-bit value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exeunt {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
__extension__ using u128 = unsigned __int128;
__extension__ using i128 = __int128;

constexpr u32 low32(u64 value) { return static_cast<u32>(value); }
constexpr u32 high32(u64 value) { return static_cast<u32>(value >> 32); }

}  // namespace exeunt
