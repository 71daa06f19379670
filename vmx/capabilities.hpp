// What this processor's VT-x can do: the capability MSRs, computed out of vmx/controls.inc and the model.
// SDM 3D App. A "VMX Capability Reporting Facility".
//
// Not modelled: dual-monitor treatment of SMIs and SMM (IA32_VMX_BASIC[49] = 0), Intel PT in VMX operation.
#pragma once

#include "vmx/controls.hpp"
#include "vmx/vmcs_fields.hpp"

#include <array>
#include <bitset>

namespace exeunt {

/// Bits of IA32_VMX_EPT_VPID_CAP. SDM 3D A.10.
namespace EPT_VPID_CAP {
inline constexpr u64 execute_only = bit(0), walk_4 = bit(6), walk_5 = bit(7), uncacheable = bit(8),
                     write_back = bit(14), pages_2m = bit(16), pages_1g = bit(17), invept = bit(20),
                     accessed_dirty = bit(21), advanced_information = bit(22),
                     supervisor_shadow_stack = bit(23), invept_single = bit(25), invept_all = bit(26),
                     invvpid = bit(32), invvpid_address = bit(40), invvpid_single = bit(41),
                     invvpid_all = bit(42), invvpid_keep_globals = bit(43);
} // namespace EPT_VPID_CAP

/// Bits of IA32_VMX_MISC. SDM 3D A.6.
namespace VMX_MISC {
inline constexpr u64 stores_lma = bit(5), activity_hlt = bit(6), activity_shutdown = bit(7),
                     activity_wait_for_sipi = bit(8), vmwrite_any_field = bit(29),
                     zero_length_injection = bit(30);
} // namespace VMX_MISC

class VmxCapabilities {
public:
    /// The size of a VMCS region, and the memory type of all structures: IA32_VMX_BASIC[44:32] and [53:50].
    static constexpr u32 region_bytes = 4096;
    static constexpr u64 write_back = 6;

    /// Everything modelled, as far as the model's features allow and its `vmx` object does not take away.
    /// Throws ModelError.
    explicit VmxCapabilities(const CpuModel& model);

    /// Whether the 1-setting of this control is supported.
    bool may(Control control) const { return may_be_1_[index(control.group)] & control.mask(); }
    /// Whether VMREAD and VMWRITE know this component.
    bool exists(VmcsField field) const { return exists_.test(static_cast<std::size_t>(field)); }
    /// Bits that must be 1 (what the TRUE MSRs say), and bits that may be.
    u64 must_be_1(ControlGroup group) const { return must_be_1_[index(group)]; }
    u64 may_be_1(ControlGroup group) const { return may_be_1_[index(group)]; }
    bool allowed(ControlGroup group, u64 value) const {
        return (value & must_be_1(group)) == must_be_1(group) && (value & ~may_be_1(group)) == 0;
    }

    u32 revision() const { return revision_; }
    u64 basic() const;
    u64 misc() const { return misc_; }
    unsigned cr3_targets() const { return static_cast<unsigned>(extract(misc_, 24, 16)); }
    /// The preemption timer counts when this bit of the TSC changes.
    unsigned preemption_timer_rate() const { return static_cast<unsigned>(misc_ & 0x1F); }
    u64 ept_vpid() const { return ept_vpid_; }
    bool ept_vpid(u64 mask) const { return (ept_vpid_ & mask) == mask; }
    u64 cr0_fixed0() const;
    u64 cr0_fixed1() const { return 0xFFFF'FFFF; }
    u64 cr4_fixed0() const;
    u64 cr4_fixed1() const { return cr4_fixed1_; }
    unsigned physical_bits() const { return physical_bits_; }
    unsigned linear_bits() const { return linear_bits_; }
    bool intel64() const { return intel64_; }
    /// Bits of IA32_EFER and IA32_DEBUGCTL that exist.
    u64 efer_bits() const { return efer_bits_; }
    u64 debugctl_bits() const { return debugctl_bits_; }
    /// Bits of IA32_PERF_GLOBAL_CTRL that exist.
    u64 perf_global_ctrl_bits() const { return perf_global_ctrl_bits_; }
    bool has_x2apic() const { return x2apic_; }

    /// RDMSR of 480H to 493H; nullopt: there is no such MSR.
    std::optional<u64> msr(u32 number) const;

private:
    static constexpr std::size_t groups = static_cast<std::size_t>(ControlGroup::count);
    static constexpr std::size_t index(ControlGroup group) { return static_cast<std::size_t>(group); }
    void take_away(Control control) { may_be_1_[index(control.group)] &= ~control.mask(); }
    void take_away_dependents();
    void read_model(const CpuModel& model);
    void find_fields();
    u64 control_msr(ControlGroup group, bool true_msr) const;

    std::array<u64, groups> may_be_1_{};
    std::array<u64, groups> must_be_1_{};
    std::bitset<vmcs_field_count> exists_;
    u32 revision_ = 0;
    u64 misc_ = 0;
    u64 ept_vpid_ = 0;
    u64 cr4_fixed1_ = 0;
    u64 efer_bits_ = 0;
    u64 debugctl_bits_ = 3;
    u64 perf_global_ctrl_bits_ = 0;
    unsigned physical_bits_ = 46;
    unsigned linear_bits_ = 48;
    bool intel64_ = true;
    bool x2apic_ = false;
};

} // namespace exeunt
