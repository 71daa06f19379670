// The local APIC's MSRs: IA32_APIC_BASE with its transitions, IA32_TSC_DEADLINE, and the x2APIC registers.
// SDM 3A 10.4.3 "Enabling or Disabling the Local APIC", 10.12 "Extended XAPIC (x2APIC)".
#include "apic/local_apic.hpp"

namespace exeunt {

// SDM 3A 10.12.5 "x2APIC State Transitions".
bool LocalApic::set_apic_base(u64 value) {
    u64 allowed = low_mask(options_.physical_address_bits) & ~low_mask(12);
    allowed |= apic_base_bsp | apic_base_enable | (options_.x2apic ? apic_base_extd : 0);
    if (value & ~allowed) return false;
    const bool was_enabled = enabled(), was_x2apic = x2apic_mode();
    const bool enable = value & apic_base_enable, extend = value & apic_base_extd;
    if (extend && !enable) return false;               // invalid state
    if (extend && !was_enabled) return false;          // disabled to x2APIC
    if (was_x2apic && enable && !extend) return false; // x2APIC to xAPIC
    apic_base_ = value;
    if (was_enabled && !enable) {
        // 10.4.3: prior initialization may be lost; here it is lost, as on processors without the 3-wire bus.
        reset_registers();
        reg(ID) = options_.id << 24;
    } else if (extend && !was_x2apic) {
        reg(ICR_HIGH) = 0; // 10.12.5.1 "x2APIC States": from xAPIC mode, all else is kept
    }
    changed();
    return true;
}

bool LocalApic::read_msr(u32 index, u64& value) {
    if (index == msr_apic_base) {
        value = apic_base_;
        return true;
    }
    if (index == msr_tsc_deadline) {
        if (!options_.tsc_deadline) return false;
        catch_up();
        value = timer_mode() == TimerMode::tsc_deadline ? tsc_deadline_ : 0;
        return true;
    }
    return x2apic_read(index, value);
}

bool LocalApic::write_msr(u32 index, u64 value) {
    if (index == msr_apic_base) return set_apic_base(value);
    if (index == msr_tsc_deadline) {
        if (!options_.tsc_deadline) return false;
        if (timer_mode() == TimerMode::tsc_deadline) {
            catch_up();
            tsc_deadline_ = value;
            arm_timer();
        }
        return true;
    }
    return x2apic_write(index, value);
}

// SDM 3A 10.12.1.2 "x2APIC Register Address Space", Table 10-6.
bool LocalApic::x2apic_read(u32 index, u64& value) {
    if (!x2apic_mode() || index < msr_x2apic_first || index > msr_x2apic_first + 0x3F) return false;
    const u64 offset = u64{index - msr_x2apic_first} << 4;
    if (offset >= ISR && offset < ESR) {
        value = reg(static_cast<unsigned>(offset));
        return true;
    }
    const Row* row = find_row(offset);
    if (!row || !exists(*row) || row->x2apic == Access::absent || row->x2apic == Access::write_only)
        return false;
    value = read_register(offset);
    if (offset == ICR_LOW) value |= u64{reg(ICR_HIGH)} << 32;
    return true;
}

bool LocalApic::x2apic_write(u32 index, u64 value) {
    if (!x2apic_mode() || index < msr_x2apic_first || index > msr_x2apic_first + 0x3F) return false;
    const u64 offset = u64{index - msr_x2apic_first} << 4;
    const Row* row = find_row(offset);
    if (!row || !exists(*row) || row->x2apic == Access::absent || row->x2apic == Access::read_only)
        return false;
    if (offset == ICR_LOW) return x2apic_write_icr(value);
    // Bits that are read-only rather than reserved may be written: delivery status, remote IRR.
    u32 tolerated = 0;
    if (row->offset == LVT_CMCI || (row->offset >= LVT_TIMER && row->offset <= LVT_ERROR))
        tolerated = bit(12);
    if (row->offset == LVT_LINT0 || row->offset == LVT_LINT1) tolerated |= lvt_remote_irr;
    const u32 mask = writable(*row);
    if (value & ~u64{mask | tolerated}) return false;
    const u32 old = reg(row->offset);
    reg(row->offset) = (old & ~mask) | (low32(value) & mask);
    (this->*row->on_write)(old, low32(value));
    return true;
}

// SDM 3A 10.12.9 "ICR Operation in x2APIC Mode": one 64-bit write; no delivery status.
bool LocalApic::x2apic_write_icr(u64 value) {
    constexpr u64 reserved = 0x0000'0000'FFF3'2000;
    if (value & reserved) return false;
    reg(ICR_LOW) = low32(value) & ~static_cast<u32>(bit(12));
    reg(ICR_HIGH) = high32(value);
    send_ipi(reg(ICR_LOW), reg(ICR_HIGH), true);
    return true;
}

// SDM 3A 10.12.10.2 "Deriving Logical x2APIC ID from the Local x2APIC ID".
u32 LocalApic::logical_x2apic_id() const {
    return ((options_.id & 0xF'FFF0) << 12) | (u32{1} << (options_.id & 0xF));
}

// SDM 3A 10.12.11 "SELF IPI Register".
void LocalApic::self_ipi_written(u32, u32 value) {
    if ((value & 0xFF) < 16)
        error(error_send_illegal_vector);
    else
        accept({.vector = static_cast<u8>(value)});
}

} // namespace exeunt
