// ApicBus: carries interrupt messages from local APICs, I/O APICs and devices to the local APICs that they
// address, and EOI messages back. SDM 3A 10.6.2 "Determining IPI Destination".
//
// Wiring: one ApicBus for the machine. Local APICs attach themselves when constructed, I/O APICs too. It is
// the MessageSink for message-signalled interrupts (an IOMMU stands before it) and for the I/O APIC.
// Not modelled: bus arbitration delays; "send accept error" and "receive accept error" (P6 family only).
#pragma once

#include "apic/msi.hpp"
#include "base/bus.hpp"

#include <vector>

namespace exeunt {

class LocalApic;

/// Told of the EOI of level-triggered interrupts: the I/O APIC.
class EoiListener {
public:
    virtual ~EoiListener() = default;
    virtual void eoi(u8 vector) = 0;
};

class ApicBus final : public MessageSink, public Device {
public:
    void attach(LocalApic& apic) { apics_.push_back(&apic); }
    void attach(EoiListener& listener) { listeners_.push_back(&listener); }

    /// A message-signalled interrupt.
    void message(u64 address, u32 data) override;
    /// To all that the message addresses; to exactly one of them when it is lowest-priority.
    void send(const ApicMessage& message);
    /// ICR shorthands 2 and 3: to all, with or without the sender.
    void send_to_all(const ApicMessage& message, const LocalApic* except);
    /// An EOI broadcast to the I/O APICs.
    void eoi(u8 vector);

    void reset() override { last_lowest_ = 0; }
    void visit(StateVisitor& visitor) override { visitor.value("last_lowest", last_lowest_); }

private:
    LocalApic* lowest_priority(const std::vector<LocalApic*>& candidates, u8 vector);

    std::vector<LocalApic*> apics_;
    std::vector<EoiListener*> listeners_;
    u32 last_lowest_ = 0; ///< index of the last winner of an arbitration, after which ties are resolved
};

} // namespace exeunt
