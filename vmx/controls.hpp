// The control bits of vmx/controls.inc as named masks. SDM 3C 24.6 to 24.8.
#pragma once

#include "arch/features.hpp"
#include "base/bits.hpp"

#include <span>
#include <string_view>

namespace exeunt {

/// The fields that hold controls. `vm_exit2` are the secondary VM-exit controls.
enum class ControlGroup : u8 {
    pin_based,
    primary,
    secondary,
    tertiary,
    vm_exit,
    vm_exit2,
    vm_entry,
    vm_function,
    count
};

/// One bit of one group.
struct Control {
    ControlGroup group;
    u8 bit;

    constexpr u64 mask() const { return u64{1} << bit; }
};

/// A control as the capability MSRs see it.
struct ControlRow {
    /// `default1_free`: a default1 bit that the TRUE capability MSRs show as clearable.
    enum class Offer : u8 { not_modelled, modelled, default1_free };

    Control control;
    std::string_view name;
    Offer offer;
    Feature needs;
};

/// The rows of vmx/controls.inc.
std::span<const ControlRow> control_rows();

// Masks by group: `primary::hlt_exiting` is a bit of the primary processor-based controls.
namespace detail {
template <ControlGroup Group>
struct ControlBit {
    u8 bit;
    constexpr operator Control() const { return {Group, bit}; }
    constexpr u64 mask() const { return u64{1} << bit; }
};
template <ControlGroup Group>
constexpr u64 operator|(ControlBit<Group> a, ControlBit<Group> b) {
    return a.mask() | b.mask();
}
template <ControlGroup Group>
constexpr u64 operator|(u64 a, ControlBit<Group> b) {
    return a | b.mask();
}
template <ControlGroup Group>
constexpr bool operator&(u64 a, ControlBit<Group> b) {
    return (a & b.mask()) != 0;
}
} // namespace detail

#define CONTROL(group, bit, name, offer, needs)                         \
    namespace group {                                                   \
    inline constexpr detail::ControlBit<ControlGroup::group> name{bit}; \
    }
#include "vmx/controls.inc"

/// Bits that were reserved and 1 on the first processors. SDM 3D A.2 "Reserved Controls and Default
/// Settings".
namespace default1 {
inline constexpr u32 pin_based = 0x0000'0016, primary = 0x0401'E172, vm_exit = 0x0003'6DFF,
                     vm_entry = 0x0000'11FF;
} // namespace default1

} // namespace exeunt
