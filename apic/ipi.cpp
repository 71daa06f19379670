// Interprocessor interrupts and who receives an interrupt message. SDM 3A 10.6 "Issuing Interprocessor
// Interrupts", 10.6.2 "Determining IPI Destination", 10.12.10 "Determining IPI Destination in x2APIC Mode".
#include "apic/ipi.hpp"

#include "apic/local_apic.hpp"

namespace exeunt {

// ---- The bus ----------------------------------------------------------------------------------------------

// A message to any other address would be a write to memory, where no driver wants it: it goes nowhere.
void ApicBus::message(u64 address, u32 data) {
    if (msi::is_message_address(address)) send(msi::decode(address, data));
}

void ApicBus::send(const ApicMessage& message) {
    if (message.delivery_mode == static_cast<u8>(DeliveryMode::lowest_priority)) {
        std::vector<LocalApic*> candidates;
        for (LocalApic* apic : apics_)
            if (apic->addressed_by(message) && apic->software_enabled()) candidates.push_back(apic);
        if (LocalApic* winner = lowest_priority(candidates, message.vector)) winner->accept(message);
        return;
    }
    for (LocalApic* apic : apics_)
        if (apic->addressed_by(message)) apic->accept(message);
}

void ApicBus::send_to_all(const ApicMessage& message, const LocalApic* except) {
    if (message.delivery_mode == static_cast<u8>(DeliveryMode::lowest_priority)) {
        std::vector<LocalApic*> candidates;
        for (LocalApic* apic : apics_)
            if (apic != except && apic->enabled() && apic->software_enabled()) candidates.push_back(apic);
        if (LocalApic* winner = lowest_priority(candidates, message.vector)) winner->accept(message);
        return;
    }
    for (LocalApic* apic : apics_)
        if (apic != except) apic->accept(message);
}

// SDM 3A 10.6.2.4 "Lowest Priority Delivery Mode". The manual leaves ties to the chipset: here they go to the
// next processor after the last winner.
LocalApic* ApicBus::lowest_priority(const std::vector<LocalApic*>& candidates, u8 vector) {
    LocalApic* winner = nullptr;
    std::size_t winner_index = 0;
    for (std::size_t i = 0; i < apics_.size(); ++i) {
        const std::size_t index = (last_lowest_ + 1 + i) % apics_.size();
        LocalApic* apic = apics_[index];
        bool candidate = false;
        for (const LocalApic* c : candidates) candidate = candidate || c == apic;
        if (!candidate) continue;
        if (apic->has_focus(vector)) {
            winner = apic;
            winner_index = index;
            break;
        }
        if (!winner || apic->arbitration_priority() < winner->arbitration_priority()) {
            winner = apic;
            winner_index = index;
        }
    }
    if (winner) last_lowest_ = static_cast<u32>(winner_index);
    return winner;
}

void ApicBus::eoi(u8 vector) {
    for (EoiListener* listener : listeners_) listener->eoi(vector);
}

// ---- Destinations -----------------------------------------------------------------------------------------

u32 LocalApic::id() const { return x2apic_mode() ? options_.id : reg(ID) >> 24; }

bool LocalApic::addressed_by(const ApicMessage& message) const {
    if (!enabled()) return false;
    if (message.broadcast()) return true;
    if (!message.logical) return message.destination == id();
    if (x2apic_mode()) {
        const u32 logical = logical_x2apic_id();
        return (message.destination >> 16) == (logical >> 16) && (message.destination & logical & 0xFFFF);
    }
    // SDM 3A 10.6.2.2 "Logical Destination Mode".
    if (message.destination > 0xFF) return false;
    const u32 logical = reg(LDR) >> 24, address = message.destination;
    switch (reg(DFR) >> 28) {
    case 0xF: return address & logical;
    case 0x0: return (address >> 4) == (logical >> 4) && (address & logical & 0xF);
    default: return false;
    }
}

// ---- The ICR
// ------------------------------------------------------------------------------------------------

void LocalApic::icr_written(u32, u32) { send_ipi(reg(ICR_LOW), reg(ICR_HIGH) >> 24, false); }

void LocalApic::send_notification(u32 destination, u8 vector) {
    const bool wide = x2apic_mode();
    send_ipi(vector, wide ? destination : (destination >> 8) & 0xFF, wide);
}

// SDM 3A 10.6.1 "Interrupt Command Register (ICR)"; which combinations are valid: Table 10-4.
void LocalApic::send_ipi(u32 icr_low, u32 destination, bool wide) {
    const auto mode = static_cast<DeliveryMode>(extract(icr_low, 10, 8));
    const bool level_assert = test_bit(icr_low, 14), level_trigger = test_bit(icr_low, 15);
    switch (mode) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest_priority:
        if ((icr_low & 0xFF) < 16) {
            error(error_send_illegal_vector);
            return;
        }
        break;
    case DeliveryMode::init:
        // INIT level de-assert only synchronizes arbitration IDs, which do not exist here.
        if (level_trigger && !level_assert) return;
        break;
    case DeliveryMode::smi:
    case DeliveryMode::nmi:
    case DeliveryMode::start_up: break;
    default: return; // reserved
    }
    const ApicMessage message{.vector = static_cast<u8>(icr_low),
                              .delivery_mode = static_cast<u8>(mode),
                              .logical = test_bit(icr_low, 11),
                              .level = false,
                              .wide = wide,
                              .destination = destination};
    switch (extract(icr_low, 19, 18)) {
    case 0: bus_.send(message); break;
    case 1:
        if (mode == DeliveryMode::fixed) accept(message);
        break;
    case 2:
        if (mode == DeliveryMode::fixed) bus_.send_to_all(message, nullptr);
        break;
    default: bus_.send_to_all(message, this); break;
    }
}

} // namespace exeunt
