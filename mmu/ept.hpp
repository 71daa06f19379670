// Extended page tables: the walk from a guest-physical to a physical address, its violations and
// misconfigurations, accessed and dirty flags, and page-modification logging. SDM 3C 28.2 "The Extended Page
// Table Mechanism (EPT)".
//
// Not modelled: supervisor shadow-stack control, guest-paging verification (neither is offered). Memory types are checked and otherwise without effect.
#pragma once

#include "mmu/physical_memory.hpp"
#include "mmu/second_level.hpp"

#include <optional>
#include <string_view>

namespace exeunt {

/// The EPT pointer. SDM 3C Table 24-8 "Format of Extended-Page-Table Pointer".
namespace EPTP {
inline constexpr u64 memory_type = 7, walk_length = 7 << 3, accessed_dirty = bit(6);
/// What tags translations: the address of the root table. Bit 0 keeps it apart from "no EPT".
constexpr u64 tag(u64 eptp) { return (eptp & ~u64{0xFFF}) | 1; }
} // namespace EPTP

/// What the processor model offers.
struct EptFeatures {
    bool execute_only = true;
    bool pages_2m = true, pages_1g = true;
    bool advanced_information = true;
    unsigned physical_bits = 46;
};

/// Why the last translation was refused.
struct EptFault {
    enum class Kind : u8 { none, violation, misconfiguration, log_full, sub_page_event } kind = Kind::none;
    /// Of a violation, SDM 3C Table 27-7; of a sub-page event, bit 11 for a miss. Bit 12 is the caller's.
    u64 qualification = 0;
    u64 guest_physical = 0;
    u64 guest_linear = 0;     ///< valid with bit 7 of the qualification
    std::string_view cause{}; ///< of a misconfiguration, in words
    /// A violation whose last entry leaves "suppress #VE" clear. SDM 3C 25.5.6.1 "Convertible EPT
    /// Violations".
    bool convertible = false;
};

/// Where dirty flags are logged. SDM 3C 28.2.5 "Page-Modification Logging".
class PageModificationLog {
public:
    virtual ~PageModificationLog() = default;
    virtual bool full() const = 0;
    virtual void add(GuestPhysical page) = 0;
};

class Ept final : public SecondLevel {
public:
    explicit Ept(PhysicalMemory& memory) : memory_(memory) {}

    void set_features(const EptFeatures& features) { features_ = features; }
    void set_pointer(u64 eptp) { eptp_ = eptp; }
    u64 pointer() const { return eptp_; }
    /// Whether fetches from user-mode addresses have a permission of their own, bit 10 of the entries.
    void set_mode_based_execute(bool on) { mode_based_execute_ = on; }
    bool mode_based_execute() const { return mode_based_execute_; }
    /// The sub-page-permission table, or nothing: sub-page write permissions are off.
    void set_sub_page_table(std::optional<Physical> table) { sub_page_table_ = table; }
    /// nullptr: page-modification logging is off.
    void set_log(PageModificationLog* log) { log_ = log; }

    Result<SecondLevelPage> translate(GuestPhysical address, const SecondLevelAccess& access) override;
    const EptFault& fault() const { return fault_; }

private:
    static constexpr unsigned max_levels = 5;
    struct Walk {
        GuestPhysical address;
        bool accessed_dirty = false;
        u64 rights = ~u64{0}; ///< AND over the entries
        unsigned entries = 0;
        u64 entry[max_levels] = {};
        Physical where[max_levels];
        u64 page_bytes = page_size;
    };

    Stop refuse(EptFault::Kind kind, GuestPhysical address, const SecondLevelAccess& access,
                u64 qualification);
    /// The bits that make an entry present.
    u64 presence() const;
    /// The bit that allows this fetch.
    u64 execute_right(const SecondLevelAccess& access) const;
    std::string_view misconfiguration(u64 entry, unsigned level, bool leaf) const;
    Result<bool> find_leaf(Walk& walk, const SecondLevelAccess& access);
    Result<void> set_flags(Walk& walk, const SecondLevelAccess& access, bool write);
    bool eligible_for_sub_pages(const Walk& walk, const SecondLevelAccess& access) const;
    Result<bool> sub_page_writable(GuestPhysical address, const SecondLevelAccess& access);
    u64 qualification(const SecondLevelAccess& access, const Walk& walk, bool present) const;

    PhysicalMemory& memory_;
    EptFeatures features_;
    u64 eptp_ = 0;
    bool mode_based_execute_ = false;
    std::optional<Physical> sub_page_table_;
    PageModificationLog* log_ = nullptr;
    EptFault fault_;
};

} // namespace exeunt
