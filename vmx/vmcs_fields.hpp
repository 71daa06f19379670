// The fields of vmx/vmcs_fields.inc: their enumerators, and the way from an encoding to a field.
// SDM 3C 24.11.2 "VMREAD, VMWRITE, and Encodings of VMCS Fields"; SDM 3D App. B.
#pragma once

#include "base/bits.hpp"

#include <array>
#include <optional>
#include <string_view>

namespace exeunt {

/// A field's place in native storage: dense, in the order of the rows.
enum class VmcsField : u8 {
#define VMCS_FIELD(encoding, name, width, type, exists) name,
#include "vmx/vmcs_fields.inc"
    count
};

inline constexpr std::size_t vmcs_field_count = static_cast<std::size_t>(VmcsField::count);

enum class FieldWidth : u8 { w16 = 0, w64 = 1, w32 = 2, natural = 3 };
enum class FieldType : u8 { control = 0, read_only = 1, guest = 2, host = 3 };

struct VmcsFieldRow {
    u16 encoding;
    std::string_view name;
    FieldWidth width;
    FieldType type;

    /// The bits that the field stores.
    constexpr u64 mask() const {
        return width == FieldWidth::w16 ? 0xFFFF : width == FieldWidth::w32 ? 0xFFFF'FFFF : ~u64{0};
    }
};

inline constexpr std::array<VmcsFieldRow, vmcs_field_count> vmcs_field_rows{{
#define VMCS_FIELD(encoding, name, width, type, exists) {encoding, #name, FieldWidth::width, FieldType::type},
#include "vmx/vmcs_fields.inc"
}};

constexpr const VmcsFieldRow& row_of(VmcsField field) {
    return vmcs_field_rows[static_cast<std::size_t>(field)];
}

/// What an encoding selects: a field, or the high half of a 64-bit field.
struct VmcsComponent {
    VmcsField field;
    bool high;
};

namespace detail {
/// By bits 14:10 (width, type, and the reserved bit) and the index in bits 9:1: the field, or `count`.
inline constexpr unsigned max_field_index = 64;

constexpr unsigned component_slot(u32 encoding) {
    return static_cast<unsigned>((extract(encoding, 14, 13) << 2) | extract(encoding, 11, 10));
}

constexpr auto make_component_table() {
    std::array<std::array<VmcsField, max_field_index>, 16> table{};
    for (auto& slots : table)
        for (VmcsField& field : slots) field = VmcsField::count;
    for (std::size_t i = 0; i < vmcs_field_count; ++i) {
        const u32 encoding = vmcs_field_rows[i].encoding;
        table[component_slot(encoding)][extract(encoding, 9, 1)] = static_cast<VmcsField>(i);
    }
    return table;
}
inline constexpr auto component_table = make_component_table();
} // namespace detail

/// The component that an encoding names, whether this processor has it or not.
constexpr std::optional<VmcsComponent> find_component(u64 encoding) {
    if ((encoding & ~u64{0x6FFF}) || extract(encoding, 9, 1) >= detail::max_field_index) return std::nullopt;
    const auto e = static_cast<u32>(encoding);
    const VmcsField field = detail::component_table[detail::component_slot(e)][extract(e, 9, 1)];
    if (field == VmcsField::count) return std::nullopt;
    const bool high = e & 1;
    if (high && row_of(field).width != FieldWidth::w64) return std::nullopt;
    return VmcsComponent{field, high};
}

namespace detail {
constexpr bool rows_are_consistent() {
    for (std::size_t i = 0; i < vmcs_field_count; ++i) {
        const VmcsFieldRow& row = vmcs_field_rows[i];
        const auto found = find_component(row.encoding);
        if (!found || found->field != static_cast<VmcsField>(i)) return false; // two rows share an encoding
        if (extract(row.encoding, 14, 13) != static_cast<u64>(row.width)) return false;
        if (extract(row.encoding, 11, 10) != static_cast<u64>(row.type)) return false;
    }
    return true;
}
static_assert(rows_are_consistent(), "an encoding is used twice, or contradicts its width or type");
} // namespace detail

} // namespace exeunt
