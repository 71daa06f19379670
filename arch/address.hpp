// The three kinds of address are three types; mixing them does not compile.
#pragma once

#include "base/types.hpp"

#include <compare>

namespace exeunt {

template <class Kind>
struct Address {
    u64 value = 0;

    constexpr Address() = default;
    constexpr explicit Address(u64 v) : value(v) {}
    constexpr auto operator<=>(const Address&) const = default;
    constexpr Address operator+(u64 offset) const { return Address{value + offset}; }
    constexpr Address operator-(u64 offset) const { return Address{value - offset}; }
    /// The address with its page offset cleared, and the page offset (4-KByte pages).
    constexpr Address page() const { return Address{value & ~u64{0xFFF}}; }
    constexpr u64 page_offset() const { return value & 0xFFF; }
};

/// After segmentation, before paging.
using Linear = Address<struct LinearKind>;
/// Input of EPT or nested paging; without them the same number as Physical.
using GuestPhysical = Address<struct GuestPhysicalKind>;
/// On the bus of the emulated machine.
using Physical = Address<struct PhysicalKind>;

inline constexpr u64 page_size = 4096;

}  // namespace exeunt
