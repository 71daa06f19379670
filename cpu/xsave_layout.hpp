// State components of the XSAVE feature set and where they lie in the XSAVE area.
// SDM 1 13.1 "XSAVE-Supported Features and State-Component Bitmaps", 13.4 "XSAVE Area".
#pragma once

#include "arch/features.hpp"
#include "arch/registers.hpp"

#include <array>

namespace exeunt {

struct XsaveComponent {
    unsigned number; ///< bit of XCR0 or IA32_XSS
    Feature feature; ///< what offers it
    unsigned bytes;
    unsigned offset; ///< in the standard format
    bool align64;    ///< in the compacted format
};

/// Components beyond the legacy region (x87 and SSE), in order of number. Offsets are those of Intel's
/// processors.
inline constexpr std::array xsave_components{
    XsaveComponent{2, Feature::AVX, 256, 576, false},
    XsaveComponent{9, Feature::PKU, 8, 2688, false},
};

inline constexpr unsigned xsave_legacy_bytes = 512, xsave_header_bytes = 64;
inline constexpr unsigned xsave_extended_start = xsave_legacy_bytes + xsave_header_bytes;

/// XCR0 bits that the model supports.
inline u64 xcr0_supported(const CpuModel& model) {
    u64 mask = XCR0::X87 | XCR0::SSE;
    for (const XsaveComponent& component : xsave_components)
        if (model.has(component.feature)) mask |= bit(component.number);
    return mask;
}

/// Bytes of a standard-format area that holds the components of `mask`.
constexpr unsigned xsave_standard_size(u64 mask) {
    unsigned size = xsave_extended_start;
    for (const XsaveComponent& component : xsave_components)
        if (test_bit(mask, component.number)) size = component.offset + component.bytes;
    return size;
}

/// Where `number` lies in a compacted area of the components of `mask` (SDM 1 13.4.3 "Extended Region").
constexpr unsigned xsave_compacted_offset(u64 mask, unsigned number) {
    unsigned offset = xsave_extended_start;
    for (const XsaveComponent& component : xsave_components) {
        if (!test_bit(mask, component.number)) continue;
        if (component.align64) offset = (offset + 63) & ~63u;
        if (component.number == number) return offset;
        offset += component.bytes;
    }
    return offset;
}

/// Bytes of a compacted area: what lies after its last component.
constexpr unsigned xsave_compacted_size(u64 mask) { return xsave_compacted_offset(mask, 64); }

} // namespace exeunt
