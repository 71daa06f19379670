// Register tables of devices, and how accesses of several bytes fall apart into registers of one byte.
#pragma once

#include "base/types.hpp"

namespace exeunt {

/// One register of a device, for its code and for the test that all registers share: reset value, bits that
/// keep what is written, bits that a written one clears.
struct RegisterRow {
    u32 offset;
    const char* name;
    u8 bytes;
    u64 reset;
    u64 writable;
    u64 write_one_to_clear = 0;

    constexpr u64 mask() const { return bytes == 8 ? ~u64{0} : (u64{1} << (8 * bytes)) - 1; }
    constexpr u64 written(u64 old, u64 value) const {
        return ((old & ~writable) | (value & writable)) & ~(value & write_one_to_clear);
    }
};

/// The row at `offset`, or null.
template <class Rows>
constexpr const RegisterRow* find_row(const Rows& rows, u64 offset) {
    for (const RegisterRow& row : rows)
        if (row.offset == offset) return &row;
    return nullptr;
}

/// An access of several bytes to ports (or bytes) of one byte each: the lowest first.
template <class ReadByte>
u32 read_bytewise(u16 port, unsigned size, ReadByte read) {
    u32 value = 0;
    for (unsigned i = 0; i < size && i < 4; ++i)
        value |= u32{static_cast<u8>(read(static_cast<u16>(port + i)))} << (8 * i);
    return value;
}
template <class WriteByte>
void write_bytewise(u16 port, unsigned size, u32 value, WriteByte write) {
    for (unsigned i = 0; i < size && i < 4; ++i)
        write(static_cast<u16>(port + i), static_cast<u8>(value >> (8 * i)));
}

/// Bytes of a value that is read or written in part: `offset` bytes into it, `size` of them.
constexpr u64 part(u64 value, unsigned offset, unsigned size) {
    const u64 shifted = offset >= 8 ? 0 : value >> (8 * offset);
    return size >= 8 ? shifted : shifted & ((u64{1} << (8 * size)) - 1);
}
constexpr u64 with_part(u64 value, unsigned offset, unsigned size, u64 piece) {
    if (offset >= 8) return value;
    const u64 mask = (size >= 8 ? ~u64{0} : (u64{1} << (8 * size)) - 1) << (8 * offset);
    return (value & ~mask) | ((piece << (8 * offset)) & mask);
}

} // namespace exeunt
