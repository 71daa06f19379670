// Interrupt messages: what local APICs, I/O APICs and message-signalled interrupts say to each other, and the
// address and data that a message-signalled interrupt is written as.
// SDM 3A 10.11 "Message Signalled Interrupts"; SDM 3A 10.6.1 "Interrupt Command Register (ICR)".
// Not modelled: remappable format (VT-d), which arrives with the IOMMU.
#pragma once

#include "base/bits.hpp"
#include "base/types.hpp"

namespace exeunt {

/// Delivery modes, numbered as in the ICR, the LVT, redirection entries and message data.
enum class DeliveryMode : u8 {
    fixed = 0,
    lowest_priority = 1,
    smi = 2,
    nmi = 4,
    init = 5,
    start_up = 6,
    ext_int = 7,
};

struct ApicMessage {
    u8 vector = 0;
    u8 delivery_mode = 0; ///< a DeliveryMode; 3 is reserved and goes nowhere
    bool logical = false; ///< destination mode
    bool level = false;   ///< trigger mode
    bool wide = false;    ///< `destination` has 32 bits (x2APIC ICR), not 8
    u32 destination = 0;
    bool broadcast() const { return destination == (wide ? 0xFFFF'FFFFu : 0xFFu); }
};

namespace msi {

inline constexpr u64 address_base = 0xFEE0'0000; ///< bits 31:20
constexpr bool is_message_address(u64 address) { return (address & ~u64{0xF'FFFF}) == address_base; }

/// SDM 3A 10.11.1 "Message Address Register Format", 10.11.2 "Message Data Register Format". The redirection
/// hint without a lowest-priority delivery mode does not change who is addressed.
constexpr ApicMessage decode(u64 address, u32 data) {
    return {.vector = static_cast<u8>(data),
            .delivery_mode = static_cast<u8>(extract(data, 10, 8)),
            .logical = test_bit(address, 2),
            .level = test_bit(data, 15),
            .wide = false,
            .destination = static_cast<u32>(extract(address, 19, 12))};
}
constexpr u64 address_of(const ApicMessage& message) {
    return address_base | (u64{message.destination & 0xFF} << 12) | (message.logical ? bit(2) : 0) |
           (message.delivery_mode == static_cast<u8>(DeliveryMode::lowest_priority) ? bit(3) : 0);
}
constexpr u32 data_of(const ApicMessage& message) {
    return message.vector | (u32{message.delivery_mode} << 8) | (message.level ? 0xC000u : 0u);
}

} // namespace msi
} // namespace exeunt
