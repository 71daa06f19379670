// The fast way to memory: one TLB tag compare covers mapping, rights and that one page holds all bytes.
#pragma once

#include "cpu/cpu.hpp"

#include <cstring>

namespace exeunt {

template <class T>
[[gnu::always_inline]] inline bool load_fast(Cpu& cpu, u64 linear, T& value) {
    TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = part.entry(linear);
    if (e.read_tag != part.tag_of(linear + sizeof(T) - 1)) [[unlikely]]
        return false;
    std::memcpy(&value, reinterpret_cast<const void*>(e.addend + linear), sizeof(T));
    value = PhysicalMemory::little_endian(value);
    return true;
}

template <class T>
[[gnu::always_inline]] inline bool store_fast(Cpu& cpu, u64 linear, T value) {
    TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = part.entry(linear);
    if (e.write_tag != part.write_tag_of(linear + sizeof(T) - 1)) [[unlikely]]
        return false;
    value = PhysicalMemory::little_endian(value);
    std::memcpy(reinterpret_cast<void*>(e.addend + linear), &value, sizeof(T));
    return true;
}

/// The native address for a read-modify-write, or nullptr where the slow way must be taken.
template <class T>
[[gnu::always_inline]] inline u8* modify_fast(Cpu& cpu, u64 linear) {
    TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = part.entry(linear);
    if (e.write_tag != part.write_tag_of(linear + sizeof(T) - 1)) [[unlikely]]
        return nullptr;
    return reinterpret_cast<u8*>(e.addend + linear);
}

}  // namespace exeunt
