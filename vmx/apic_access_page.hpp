// The APIC-access page on a guest's way to memory. SDM 3C 29.4 "Virtualizing Memory-Mapped APIC Accesses".
//
// It stands before EPT, or in its place, while "virtualize APIC accesses" is 1: linear accesses to the page
// are marked special and go to Vmx::special_read() and special_write(); fetches and guest-physical accesses
// are refused. The manual promises that for 4-KByte translations; here it holds for all sizes.
#pragma once

#include "mmu/physical_memory.hpp"
#include "mmu/second_level.hpp"

#include <optional>
#include <utility>

namespace exeunt {

/// Access types of the exit qualification. SDM 3C Table 27-6 "Exit Qualification for APIC-Access VM Exits".
enum class ApicAccess : u8 {
    linear_read = 0,
    linear_write = 1,
    linear_fetch = 2,
    linear_during_delivery = 3,
    guest_physical_during_delivery = 10,
    guest_physical = 15,
};

class ApicAccessPage final : public SecondLevel {
public:
    /// `second_level`: EPT, or nullptr where physical addresses are the guest's own.
    void set(Physical page, SecondLevel* second_level) {
        page_ = page;
        second_level_ = second_level;
    }

    Result<SecondLevelPage> translate(GuestPhysical address, const SecondLevelAccess& access) override;

    /// Refuses an access; the exit follows once the instruction, or the delivery, has undone what it did.
    Stop refuse(ApicAccess type, u64 offset) {
        refusal_ = {type, offset};
        return stopped(Stop::Kind::second_level);
    }
    struct Refusal {
        ApicAccess type;
        u64 offset;
    };
    /// Whether the last translation was refused here, and not by EPT.
    std::optional<Refusal> take_refusal() { return std::exchange(refusal_, std::nullopt); }

private:
    Physical page_;
    SecondLevel* second_level_ = nullptr;
    std::optional<Refusal> refusal_;
};

} // namespace exeunt
