// The advanced virtual interrupt controller: the vAPIC backing page of the guest that runs, and
// interprocessor interrupts through the physical and logical APIC ID tables. APM 2 15.29 "Advanced Virtual
// Interrupt Controller".
//
// What the manual leaves open, and what is done here: a bad type is found before a bad vector, and both
// before the tables are looked at; all targets are looked up before a request is set in any; the index that a
// broadcast reports is the lowest that does not run; "self" is whoever has the same backing page. Not
// modelled: the extended LVT (ExtLvtAvicAccessChg), Secure AVIC.
#pragma once

#include "apic/virtual_apic.hpp"
#include "mmu/physical_memory.hpp"
#include "svm/vmcb.hpp"

#include <optional>
#include <span>
#include <vector>

namespace exeunt {

namespace AVIC {

enum class Behaviour : u8 { allow, accelerate, trap, fault };

struct RegisterRow {
    u16 first, last;
    const char* name;
    Behaviour read, write;
};
std::span<const RegisterRow> register_rows();
/// The row of this offset in the page. Only the first four of a register's sixteen bytes are the register.
const RegisterRow& register_row(unsigned offset);

/// Bits of an entry of the physical APIC ID table (Figure 15-18) and of the logical one (Figure 15-19).
namespace PHYSICAL {
inline constexpr u64 V = bit(63), IR = bit(62), host_id = 0xFFF, backing_page = low_mask(52) & ~u64{0xFFF};
} // namespace PHYSICAL
namespace LOGICAL {
inline constexpr u32 V = u32{1} << 31, guest_id = 0xFF;
} // namespace LOGICAL

/// EXITINFO2[63:32] of AVIC_INCOMPLETE_IPI. APM 2 Table 15-24 "ID Field—IPI Delivery Failure Cause".
enum class Failure : u32 {
    invalid_type = 0,
    not_running = 1,
    invalid_target = 2,
    invalid_backing_page = 3,
    invalid_vector = 4,
};

struct Command {
    u32 low = 0, high = 0;
};

/// What became of an interprocessor interrupt.
struct Outcome {
    bool complete = true;
    Failure failure = Failure::invalid_type;
    u32 index = 0;              ///< of the table's entry that EXITINFO2 names
    std::vector<u32> doorbells; ///< physical APIC IDs of the processors to be told
};

} // namespace AVIC

class Avic {
public:
    explicit Avic(PhysicalMemory& memory) : memory_(memory) {}

    /// VMRUN: what the VMCB says.
    void load(const VmcbView& vmcb, u64 interrupt_control);
    bool on() const { return on_; }
    bool x2apic() const { return on_ && x2apic_; }
    u64 backing_page() const { return backing_page_; }
    /// Whether the backing page is memory; everything below needs that.
    bool backed() const { return memory_.kind(Physical{backing_page_}) == PhysicalMemory::Kind::ram; }
    VirtualApic page() const { return *page_at(backing_page_); }

    /// The request that outranks what the guest does, or 0. Whether it can be delivered is the processor's
    /// matter.
    u8 request() const;
    void accept(u8 vector);
    /// PPR out of TPR and ISR.
    void update_ppr();

    /// 15.29.5 "Interprocessor Interrupts": sets the requests; who is to be told, and what is left to the
    /// VMM.
    AVIC::Outcome send(AVIC::Command command) const;
    /// Sets a request in any backing page, as another processor or an IOMMU does. False where there is no
    /// memory.
    bool post(u64 backing_page, u8 vector) const;

private:
    struct Target {
        u32 id;
        u64 entry;
    };
    std::optional<VirtualApic> page_at(u64 address) const;
    u64 physical_entry(u32 id) const { return memory_.load<u64>(Physical{physical_table_ + 8 * u64{id}}); }
    bool broadcast(AVIC::Command command) const;
    std::vector<Target> all_targets(bool with_self) const;
    bool logical_targets(AVIC::Command command, std::vector<u32>& ids, AVIC::Outcome& outcome) const;
    void deliver(const std::vector<Target>& targets, u8 vector, AVIC::Outcome& outcome) const;

    PhysicalMemory& memory_;
    bool on_ = false, x2apic_ = false;
    u64 backing_page_ = 0, logical_table_ = 0, physical_table_ = 0;
    u32 max_index_ = 0;
};

} // namespace exeunt
