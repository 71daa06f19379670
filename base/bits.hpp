// Bit fields of integers: extract, deposit, sign-extend, align. All constexpr, no bit is ever out of range.
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// A value with bit `n` set (0 to 63).
constexpr u64 bit(unsigned n) { return u64{1} << n; }
/// Whether bit `n` of `value` is set.
constexpr bool test_bit(u64 value, unsigned n) { return (value >> n) & 1; }
/// A mask of the low `n` bits (0 to 64).
constexpr u64 low_mask(unsigned n) { return n >= 64 ? ~u64{0} : bit(n) - 1; }
/// Bits `high`:`low` of `value`, the manual's way of writing a field.
constexpr u64 extract(u64 value, unsigned high, unsigned low) { return (value >> low) & low_mask(high - low + 1); }
/// `value` with bits `high`:`low` replaced by `field`.
constexpr u64 deposit(u64 value, unsigned high, unsigned low, u64 field) {
    const u64 mask = low_mask(high - low + 1) << low;
    return (value & ~mask) | ((field << low) & mask);
}
/// The low `n` bits (1 to 64) of `value`, sign-extended.
constexpr u64 sign_extend(u64 value, unsigned n) {
    return static_cast<u64>(static_cast<i64>(value << (64 - n)) >> (64 - n));
}
constexpr u64 align_down(u64 value, u64 power_of_two) { return value & ~(power_of_two - 1); }
constexpr u64 align_up(u64 value, u64 power_of_two) { return align_down(value + power_of_two - 1, power_of_two); }

}  // namespace exeunt
