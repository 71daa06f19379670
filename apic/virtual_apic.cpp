#include "apic/virtual_apic.hpp"

#include <bit>

namespace exeunt {

u64 VirtualApic::load(unsigned offset, unsigned bytes) const {
    u64 value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= u64{page_[(offset + i) & 0xFFF]} << (8 * i);
    return value;
}

void VirtualApic::store(unsigned offset, unsigned bytes, u64 value) {
    for (unsigned i = 0; i < bytes; ++i) page_[(offset + i) & 0xFFF] = static_cast<u8>(value >> (8 * i));
}

bool VirtualApic::vector_bit(Register first, u8 vector) const {
    return test_bit(vector_word(first, vector >> 5), vector & 31);
}

void VirtualApic::set_vector_bit(Register first, u8 vector, bool value) {
    const unsigned offset = first + (vector >> 5) * 16u;
    const u32 mask = u32{1} << (vector & 31);
    set_reg(offset, value ? reg(offset) | mask : reg(offset) & ~mask);
}

void VirtualApic::add_vectors(Register first, unsigned n, u32 vectors) {
    set_reg(first + 16 * n, vector_word(first, n) | vectors);
}

u8 VirtualApic::highest(Register first) const {
    for (unsigned n = 8; n-- > 0;)
        if (const u32 word = vector_word(first, n))
            return static_cast<u8>(n * 32 + 31 - static_cast<unsigned>(std::countl_zero(word)));
    return 0;
}

u8 VirtualApic::accept(u8 vector) {
    set_vector_bit(Register::ISR, vector, true);
    set_vector_bit(Register::IRR, vector, false);
    return highest(Register::IRR);
}

u8 VirtualApic::end_service(u8 vector) {
    set_vector_bit(Register::ISR, vector, false);
    return highest(Register::ISR);
}

} // namespace exeunt
