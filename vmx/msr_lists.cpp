// The MSR areas of VM entry and VM exit. SDM 3C 26.4 "Loading MSRs", 27.4 "Saving MSRs", 27.6 "Loading MSRs";
// format: Table 24-11 "Format of an MSR Entry".
#include "cpu/msrs.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

namespace {

constexpr u32 ia32_smm_monitor_ctl = 0x9B;

bool is_x2apic(u32 index) { return (index >> 8) == 8; }
/// "Model-specific" reasons (26.4): a microcode update is not loaded so.
bool microcode(u32 index) { return index == Msr::IA32_BIOS_UPDT_TRIG || index == Msr::IA32_BIOS_SIGN_ID; }

} // namespace

std::string_view Vmx::unloadable(u32 index, u32 reserved) const {
    if (index == Msr::IA32_FS_BASE || index == Msr::IA32_GS_BASE) return "msr_load.fs_gs_base";
    if (is_x2apic(index)) return "msr_load.x2apic";
    if (index == ia32_smm_monitor_ctl && !cpu_.in_smm) return "msr_load.smm_only";
    if (microcode(index)) return "msr_load.model_specific";
    if (reserved != 0) return "msr_load.bits_63_32";
    return {};
}

u32 Vmx::load_msrs(u64 address, u64 count, std::string_view& check) {
    for (u64 i = 0; i < count; ++i) {
        const Physical entry{address + 16 * i};
        const auto index = cpu_.memory.load<u32>(entry);
        check = unloadable(index, cpu_.memory.load<u32>(entry + 4));
        if (check.empty() && !cpu_.msrs->write(cpu_, index, cpu_.memory.load<u64>(entry + 8)).ok())
            check = "msr_load.wrmsr";
        if (!check.empty()) return static_cast<u32>(i + 1);
    }
    return 0;
}

bool Vmx::store_msrs(u64 address, u64 count) {
    for (u64 i = 0; i < count; ++i) {
        const Physical entry{address + 16 * i};
        const auto index = cpu_.memory.load<u32>(entry);
        if (is_x2apic(index) || (index == ia32_smm_monitor_ctl && !cpu_.in_smm) ||
            cpu_.memory.load<u32>(entry + 4) != 0)
            return false;
        const Result<u64> value = cpu_.msrs->read(cpu_, index);
        if (!value.ok()) return false;
        cpu_.memory.store<u64>(entry + 8, value.value());
    }
    return true;
}

} // namespace exeunt
