#include "vmx/capabilities.hpp"

#include "arch/registers.hpp"
#include "cpu/instructions/system.hpp"
#include "cpu/performance.hpp"

#include <nlohmann/json.hpp>

namespace exeunt {

namespace {

constexpr ControlRow rows[] = {
#define CONTROL(group, bit, name, offer, needs) \
    {{ControlGroup::group, bit}, #group "." #name, ControlRow::Offer::offer, Feature::needs},
#include "vmx/controls.inc"
};

constexpr bool rows_are_consistent() {
    for (const ControlRow& row : rows) {
        unsigned same = 0;
        for (const ControlRow& other : rows)
            same += row.control.group == other.control.group && row.control.bit == other.control.bit;
        if (same != 1) return false;
    }
    return true;
}
static_assert(rows_are_consistent(), "two controls have the same bit");

/// A control that is offered only together with another one. SDM 3C 26.2.1 "Checks on VMX Controls".
struct Dependence {
    Control control, needs;
};
constexpr Dependence dependences[] = {
    {pin_based::virtual_nmis, pin_based::nmi_exiting},
    {primary::nmi_window_exiting, pin_based::virtual_nmis},
    {secondary::unrestricted_guest, secondary::enable_ept},
    {secondary::enable_pml, secondary::enable_ept},
    {secondary::sub_page_write_permissions_for_ept, secondary::enable_ept},
    {secondary::ept_violation_ve, secondary::enable_ept},
    {secondary::mode_based_execute_control_for_ept, secondary::enable_ept},
    {vm_function::eptp_switching, secondary::enable_ept},
    {vm_function::eptp_switching, secondary::enable_vm_functions},
    {vm_exit::save_vmx_preemption_timer_value, pin_based::activate_vmx_preemption_timer},
    {secondary::virtualize_x2apic_mode, primary::use_tpr_shadow},
    {secondary::apic_register_virtualization, primary::use_tpr_shadow},
    {secondary::virtual_interrupt_delivery, primary::use_tpr_shadow},
    {secondary::virtual_interrupt_delivery, pin_based::external_interrupt_exiting},
    {pin_based::process_posted_interrupts, secondary::virtual_interrupt_delivery},
    {pin_based::process_posted_interrupts, vm_exit::acknowledge_interrupt_on_exit},
    {tertiary::ipi_virtualization, primary::use_tpr_shadow},
};

bool offered(const CpuModel& model, Feature feature) {
    return feature == Feature::none || model.has(feature);
}

[[noreturn]] void refuse(const CpuModel& model, const std::string& key, const std::string& expected) {
    throw ModelError(model.name + ": vmx." + key + ": expected " + expected);
}

} // namespace

std::span<const ControlRow> control_rows() { return rows; }

VmxCapabilities::VmxCapabilities(const CpuModel& model) {
    physical_bits_ = model.physical_bits;
    linear_bits_ = model.has(Feature::LA57) ? 57 : 48;
    intel64_ = model.has(Feature::LM);
    x2apic_ = model.has(Feature::x2APIC);
    // Layout version of exeunt's VMCS regions (vmx/vmcs.cpp).
    revision_ = 0x0E7E'0001;

    must_be_1_[index(ControlGroup::pin_based)] = may_be_1_[index(ControlGroup::pin_based)] =
        default1::pin_based;
    must_be_1_[index(ControlGroup::primary)] = may_be_1_[index(ControlGroup::primary)] = default1::primary;
    must_be_1_[index(ControlGroup::vm_exit)] = may_be_1_[index(ControlGroup::vm_exit)] = default1::vm_exit;
    must_be_1_[index(ControlGroup::vm_entry)] = may_be_1_[index(ControlGroup::vm_entry)] = default1::vm_entry;
    for (const ControlRow& row : rows) {
        if (row.offer == ControlRow::Offer::not_modelled || !offered(model, row.needs)) continue;
        may_be_1_[index(row.control.group)] |= row.control.mask();
        if (row.offer == ControlRow::Offer::default1_free)
            must_be_1_[index(row.control.group)] &= ~row.control.mask();
    }

    misc_ = 5 | VMX_MISC::stores_lma | VMX_MISC::activity_hlt | VMX_MISC::activity_shutdown |
            VMX_MISC::activity_wait_for_sipi | u64{4} << 16 | VMX_MISC::vmwrite_any_field |
            VMX_MISC::zero_length_injection;
    using namespace EPT_VPID_CAP;
    ept_vpid_ = execute_only | walk_4 | uncacheable | EPT_VPID_CAP::write_back | pages_2m | pages_1g |
                invept | accessed_dirty | advanced_information | invept_single | invept_all | invvpid |
                invvpid_address | invvpid_single | invvpid_all | invvpid_keep_globals;
    if (model.has(Feature::LA57)) ept_vpid_ |= walk_5;

    cr4_fixed1_ = cr4_supported(model);
    efer_bits_ = (model.has(Feature::SYSCALL) ? EFER::SCE : 0) | (model.has(Feature::NX) ? EFER::NXE : 0) |
                 (intel64_ ? EFER::LME | EFER::LMA : 0);

    if (model.has(Feature::PDCM)) {
        debugctl_bits_ |= bit(11) | bit(12); // freeze on PMI
        perf_global_ctrl_bits_ = PerformanceMonitor::all_counters;
    }

    read_model(model);
    take_away_dependents();
    find_fields();
}

/// The model's `vmx` object: "without" lists controls ("secondary.enable_pml") and capabilities by name, and
/// "preemption_timer_rate" and "cr3_targets" are numbers.
void VmxCapabilities::read_model(const CpuModel& model) {
    struct Named {
        std::string_view name;
        u64& where;
        u64 mask;
    };
    using namespace EPT_VPID_CAP;
    const Named names[] = {
        {"ept.execute_only", ept_vpid_, execute_only},
        {"ept.walk_5", ept_vpid_, walk_5},
        {"ept.2_mbyte_pages", ept_vpid_, pages_2m},
        {"ept.1_gbyte_pages", ept_vpid_, pages_1g},
        {"ept.accessed_dirty", ept_vpid_, accessed_dirty},
        {"ept.advanced_information", ept_vpid_, advanced_information},
        {"misc.vmwrite_any_field", misc_, VMX_MISC::vmwrite_any_field},
        {"misc.zero_length_injection", misc_, VMX_MISC::zero_length_injection},
    };
    const auto document = nlohmann::json::parse(model.vmx, nullptr, false);
    if (!document.is_object()) refuse(model, "", "an object");
    for (const auto& [key, value] : document.items()) {
        if (key == "without" && value.is_array()) {
            for (const auto& item : value) {
                const std::string name = item.is_string() ? item.get<std::string>() : "";
                bool found = false;
                for (const ControlRow& row : rows)
                    if (row.name == name) take_away(row.control), found = true;
                for (const Named& named : names)
                    if (named.name == name) named.where &= ~named.mask, found = true;
                if (!found) refuse(model, key, "names of controls or capabilities, not \"" + name + "\"");
            }
        } else if (key == "preemption_timer_rate" && value.is_number_unsigned() && value.get<u64>() < 32) {
            misc_ = deposit(misc_, 4, 0, value.get<u64>());
        } else if (key == "cr3_targets" && value.is_number_unsigned() && value.get<u64>() <= 4) {
            misc_ = deposit(misc_, 24, 16, value.get<u64>());
        } else {
            refuse(model, key, "without, preemption_timer_rate (0 to 31) or cr3_targets (0 to 4)");
        }
    }
}

void VmxCapabilities::take_away_dependents() {
    if (!may(primary::activate_secondary_controls)) may_be_1_[index(ControlGroup::secondary)] = 0;
    if (!may(primary::activate_tertiary_controls)) may_be_1_[index(ControlGroup::tertiary)] = 0;
    for (const Dependence& d : dependences) // in an order in which one pass is enough
        if (!may(d.needs)) take_away(d.control);
    if (!may(secondary::enable_vm_functions)) may_be_1_[index(ControlGroup::vm_function)] = 0;
    using namespace EPT_VPID_CAP;
    const u64 vpid_bits = invvpid | invvpid_address | invvpid_single | invvpid_all | invvpid_keep_globals;
    if (!may(secondary::enable_vpid)) ept_vpid_ &= ~vpid_bits;
    if (!may(secondary::enable_ept)) ept_vpid_ &= vpid_bits;
    // "Page-modification logging" sets dirty flags; without them there is nothing to log.
    if (!ept_vpid(accessed_dirty)) take_away(secondary::enable_pml);
}

void VmxCapabilities::find_fields() {
    const auto may = [this](Control control) { return this->may(control); };
    const auto cr3_targets = [this] { return this->cr3_targets(); };
    const auto always = [] { return true; };
    const auto never_exists = [] { return false; }; // belongs to something of which nothing is modelled
#define VMCS_FIELD(encoding, name, width, type, exists) \
    exists_.set(static_cast<std::size_t>(VmcsField::name), exists);
#include "vmx/vmcs_fields.inc"
}

u64 VmxCapabilities::basic() const {
    // [54]: INS and OUTS report instruction information; [55]: the TRUE MSRs exist.
    return revision_ | u64{region_bytes} << 32 | write_back << 50 | bit(54) | bit(55);
}

u64 VmxCapabilities::cr0_fixed0() const { return CR0::PE | CR0::NE | CR0::PG; }

u64 VmxCapabilities::cr4_fixed0() const { return CR4::VMXE; }

/// SDM 3D A.3 to A.5: allowed 0-settings below, allowed 1-settings above.
u64 VmxCapabilities::control_msr(ControlGroup group, bool true_msr) const {
    u64 low = must_be_1(group);
    if (!true_msr) {
        if (group == ControlGroup::pin_based) low |= default1::pin_based;
        if (group == ControlGroup::primary) low |= default1::primary;
        if (group == ControlGroup::vm_exit) low |= default1::vm_exit;
        if (group == ControlGroup::vm_entry) low |= default1::vm_entry;
    }
    return may_be_1(group) << 32 | low;
}

std::optional<u64> VmxCapabilities::msr(u32 number) const {
    switch (number) {
    case 0x480: return basic();
    case 0x481: return control_msr(ControlGroup::pin_based, false);
    case 0x482: return control_msr(ControlGroup::primary, false);
    case 0x483: return control_msr(ControlGroup::vm_exit, false);
    case 0x484: return control_msr(ControlGroup::vm_entry, false);
    case 0x485: return misc_;
    case 0x486: return cr0_fixed0();
    case 0x487: return cr0_fixed1();
    case 0x488: return cr4_fixed0();
    case 0x489: return cr4_fixed1();
    case 0x48A: {
        u64 highest = 0;
        for (std::size_t i = 0; i < vmcs_field_count; ++i)
            if (exists_.test(i)) highest = std::max(highest, extract(vmcs_field_rows[i].encoding, 9, 1));
        return highest << 1;
    }
    case 0x48B:
        if (!may(primary::activate_secondary_controls)) return std::nullopt;
        return control_msr(ControlGroup::secondary, true);
    case 0x48C:
        if (!may(secondary::enable_ept) && !may(secondary::enable_vpid)) return std::nullopt;
        return ept_vpid_;
    case 0x48D: return control_msr(ControlGroup::pin_based, true);
    case 0x48E: return control_msr(ControlGroup::primary, true);
    case 0x48F: return control_msr(ControlGroup::vm_exit, true);
    case 0x490: return control_msr(ControlGroup::vm_entry, true);
    case 0x491:
        if (!may(secondary::enable_vm_functions)) return std::nullopt;
        return may_be_1(ControlGroup::vm_function);
    case 0x492:
        if (!may(primary::activate_tertiary_controls)) return std::nullopt;
        return may_be_1(ControlGroup::tertiary);
    case 0x493:
        if (!may(vm_exit::activate_secondary_controls)) return std::nullopt;
        return may_be_1(ControlGroup::vm_exit2);
    default: return std::nullopt;
    }
}

} // namespace exeunt
