// The virtual machine control block as the processor reads and writes it. APM 2 App. B "VMCB Layout", 15.15
// "VMCB State Caching".
#pragma once

#include "arch/segment.hpp"
#include "mmu/physical_memory.hpp"

#include <string_view>

namespace exeunt {

/// Numbers of the clean bits. APM 2 Table 15-9 "VMCB Clean Bits Field".
enum class CleanGroup : u8 { I, IOPM, ASID, TPR, NP, CRx, DRx, DT, SEG, CR2, LBR, AVIC, uncached = 0xFF };

template <class T>
struct VmcbField {
    u16 offset;
    CleanGroup clean;
};

namespace VMCB {
#define FIELD(name, type, offset, clean) inline constexpr VmcbField<type> name{offset, CleanGroup::clean};
#include "svm/vmcb_fields.inc"

inline constexpr unsigned bytes = 4096;

/// A field's name and place, for tools.
struct FieldRow {
    std::string_view name;
    u16 offset;
    u8 bytes;
};
inline constexpr FieldRow field_rows[] = {
#define FIELD(name, type, offset, clean) {#name, offset, sizeof(type)},
#include "svm/vmcb_fields.inc"
};
/// The row of the field at this offset, or null.
constexpr const FieldRow* find_field(u32 offset) {
    for (const FieldRow& row : field_rows)
        if (row.offset == offset) return &row;
    return nullptr;
}

/// Bits of interrupt_control (060H).
namespace INT {
inline constexpr u64 V_TPR = 0xF, V_IRQ = bit(8), V_GIF = bit(9), V_NMI = bit(11), V_NMI_MASK = bit(12),
                     V_IGN_TPR = bit(20), V_INTR_MASKING = bit(24), V_GIF_ENABLE = bit(25),
                     V_NMI_ENABLE = bit(26), X2AVIC_ENABLE = bit(30), AVIC_ENABLE = bit(31);
/// What #VMEXIT writes back.
inline constexpr u64 state = V_TPR | V_IRQ | V_GIF | V_NMI | V_NMI_MASK;
} // namespace INT
/// Bits of nested_control (090H) and virtualization_control (0B8H).
inline constexpr u64 NP_ENABLE = bit(0), GMET = bit(3), ROGPT = bit(6), INVLPGB_ENABLE = bit(7);
inline constexpr u64 LBR_VIRTUALIZATION = bit(0), VIRTUAL_VMLOAD_VMSAVE = bit(1);
} // namespace VMCB

/// The bytes of a VMCB: those in memory, or the processor's copy.
class VmcbView {
public:
    explicit VmcbView(u8* bytes) : bytes_(bytes) {}

    template <class T>
    T get(VmcbField<T> field) const {
        return at<T>(field.offset);
    }
    template <class T>
    void put(VmcbField<T> field, T value) {
        put_at(field.offset, value);
    }
    /// A field's value as a number.
    u64 get(const VMCB::FieldRow& row) const {
        u64 value = 0;
        for (unsigned i = 0; i < row.bytes; ++i) value |= u64{bytes_[row.offset + i]} << (8 * i);
        return value;
    }
    /// The segment whose selector is this field. Bases of `narrow` ones have 32 bits.
    Segment segment(VmcbField<u16> selector, bool narrow) const;
    void put_segment(VmcbField<u16> selector, const Segment& segment);
    u8* bytes() { return bytes_; }
    const u8* bytes() const { return bytes_; }

private:
    template <class T>
    T at(unsigned offset) const {
        T raw;
        std::memcpy(&raw, bytes_ + offset, sizeof raw);
        return PhysicalMemory::little_endian(raw);
    }
    template <class T>
    void put_at(unsigned offset, T value) {
        const T raw = PhysicalMemory::little_endian(value);
        std::memcpy(bytes_ + offset, &raw, sizeof raw);
    }

    u8* bytes_;
};

} // namespace exeunt
