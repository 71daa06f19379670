// One row for each illegal state, in the manual's order. What silicon tells is only that one of them held.
#include "svm/vmrun_checks.hpp"

#include "cpu/instructions/system.hpp"
#include "cpu/msrs.hpp"

namespace exeunt {

namespace {

using C = const VmrunContext&;

constexpr std::string_view consistency = "APM 2 15.5.1 \"Basic Operation\"";
constexpr std::string_view nested = "APM 2 15.25.4 \"Nested Paging and VMRUN/#VMEXIT\"";
constexpr std::string_view injection = "APM 2 15.20 \"Event Injection\"";

bool long_mode(C c) { return (c.vmcb.get(VMCB::efer) & EFER::LME) && (c.vmcb.get(VMCB::cr0) & CR0::PG); }

u64 efer_defined(const CpuModel& model) {
    u64 mask = EFER::SVME;
    if (model.has(Feature::SYSCALL)) mask |= EFER::SCE;
    if (model.has(Feature::LM)) mask |= EFER::LME | EFER::LMA;
    if (model.has(Feature::NX)) mask |= EFER::NXE;
    if (model.has(Feature::FFXSR)) mask |= EFER::FFXSR;
    if (model.has(Feature::AutomaticIBRS)) mask |= EFER_AIBRSE;
    if (model.has(Feature::MCOMMIT)) mask |= EFER::MCOMMIT;
    if (model.has(Feature::LM) && !model.has(Feature::EferLmsleUnsupported)) mask |= EFER::LMSLE;
    return mask;
}

AllowedBits low_32(C) { return {0, low_mask(32)}; }
AllowedBits physical(C c) { return {0, low_mask(c.cpu.model.physical_bits)}; }

u64 beyond_physical(C c) { return ~low_mask(c.cpu.model.physical_bits); }

bool map_beyond_memory(C c, u64 base, u64 bytes) {
    return (base & ~u64{0xFFF}) > (u64{1} << c.cpu.model.physical_bits) - bytes;
}

/// 0, 1, 3 to 8, 10 to 14, 16 to 19, 21, 28 to 30: APM 2 Table 8-1 "Interrupt Vector Source and Cause".
constexpr u64 exception_vectors = 0x702F'7DFB;

/// APM 2 15.20: reserved types, vectors that are no exceptions, and what the guest's mode does not have.
bool illegal_injection(C c) {
    const u64 event = c.vmcb.get(VMCB::eventinj);
    if (!(event & bit(31))) return false;
    const u64 type = extract(event, 10, 8), vector = event & 0xFF;
    if (type == 1 || type > 4) return true;
    if (type != 3) return false;
    if (vector > 31 || !(exception_vectors >> vector & 1)) return true;
    const bool code64 = long_mode(c) && (c.vmcb.get(VMCB::cs_attrib) & bit(9));
    return code64 && (vector == 4 || vector == 5); // INTO, BOUND
}

bool illegal_pat(C c) {
    const u64 pat = c.vmcb.get(VMCB::g_pat);
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = extract(pat, 8 * i + 7, 8 * i);
        if (type > 7 || type == 2 || type == 3) return true;
    }
    return false;
}

constexpr std::string_view avic = "APM 2 15.29.2 \"VMCB Changes for AVIC\"";

/// 060H: this bit, where the processor has the feature.
bool control(C c, u64 bit_, Feature feature) {
    return (c.vmcb.get(VMCB::interrupt_control) & bit_) && c.cpu.has(feature);
}
bool avic_on(C c) { return control(c, VMCB::INT::AVIC_ENABLE, Feature::AVIC); }
bool x2avic_on(C c) { return control(c, VMCB::INT::X2AVIC_ENABLE, Feature::x2AVIC); }
u64 max_index(C c) { return c.vmcb.get(VMCB::avic_physical_table) & 0xFFF; }

/// The pointers that the mode uses: 4-KByte aligned (the low bits of the physical table's are its size) and
/// within the physical address space.
bool avic_pointer_illegal(C c) {
    const u64 illegal = beyond_physical(c) | 0xFFF;
    if (c.vmcb.get(VMCB::avic_backing_page) & illegal) return true;
    if (c.vmcb.get(VMCB::avic_physical_table) & beyond_physical(c)) return true;
    return !x2avic_on(c) && (c.vmcb.get(VMCB::avic_logical_table) & illegal);
}

bool np(C c) { return c.vmcb.get(VMCB::nested_control) & VMCB::NP_ENABLE; }

constexpr VmrunCheck checks[] = {
    {"VMRUN-001", "EFER.SVME is 0", consistency, on(VMCB::efer),
     [](C c) { return !(c.vmcb.get(VMCB::efer) & EFER::SVME); }},
    {"VMRUN-002", "CR0.CD is 0 and CR0.NW is 1", consistency, on(VMCB::cr0),
     [](C c) { return (c.vmcb.get(VMCB::cr0) & (CR0::CD | CR0::NW)) == CR0::NW; }},
    {"VMRUN-003", "CR0[63:32] are not 0", consistency, on(VMCB::cr0).bits(low_32),
     [](C c) { return high32(c.vmcb.get(VMCB::cr0)) != 0; }},
    {"VMRUN-004", "an MBZ bit of CR3 is set", consistency,
     on(VMCB::cr3).given(VMCB::efer, VMCB::cr0).bits(physical),
     [](C c) { return long_mode(c) && (c.vmcb.get(VMCB::cr3) & beyond_physical(c)); }},
    {"VMRUN-005", "an MBZ bit of CR4 is set", consistency, on(VMCB::cr4).bits([](C c) {
         return AllowedBits{0, cr4_supported(c.cpu.model) | ~low_mask(32)};
     }),
     [](C c) { return (low32(c.vmcb.get(VMCB::cr4)) & ~cr4_supported(c.cpu.model)) != 0; }},
    {"VMRUN-032", "CR4[63:32] are not 0", consistency, on(VMCB::cr4).bits(low_32),
     [](C c) { return high32(c.vmcb.get(VMCB::cr4)) != 0; }},
    {"VMRUN-006", "DR6[63:32] are not 0", consistency, on(VMCB::dr6).bits(low_32),
     [](C c) { return high32(c.vmcb.get(VMCB::dr6)) != 0; }},
    {"VMRUN-007", "DR7[63:32] are not 0", consistency, on(VMCB::dr7).bits(low_32),
     [](C c) { return high32(c.vmcb.get(VMCB::dr7)) != 0; }},
    {"VMRUN-008", "an MBZ bit of EFER is set", consistency, on(VMCB::efer).bits([](C c) {
         return AllowedBits{0, efer_defined(c.cpu.model) | EFER::LMA | EFER::LME};
     }),
     [](C c) {
         constexpr u64 mode = EFER::LMA | EFER::LME;
         return (c.vmcb.get(VMCB::efer) & ~(efer_defined(c.cpu.model) | mode)) != 0;
     }},
    {"VMRUN-009", "EFER.LMA or EFER.LME is 1 and this processor does not support long mode", consistency,
     on(VMCB::efer),
     [](C c) { return !c.cpu.has(Feature::LM) && (c.vmcb.get(VMCB::efer) & (EFER::LMA | EFER::LME)); }},
    {"VMRUN-010", "EFER.LME and CR0.PG are 1 and CR4.PAE is 0", consistency,
     on(VMCB::cr4).given(VMCB::efer, VMCB::cr0),
     [](C c) { return long_mode(c) && !(c.vmcb.get(VMCB::cr4) & CR4::PAE); }},
    {"VMRUN-011", "EFER.LME and CR0.PG are 1 and CR0.PE is 0", consistency, on(VMCB::cr0).given(VMCB::efer),
     [](C c) { return long_mode(c) && !(c.vmcb.get(VMCB::cr0) & CR0::PE); }},
    {"VMRUN-012", "EFER.LME, CR0.PG, CR4.PAE, CS.L and CS.D are all 1", consistency,
     on(VMCB::cs_attrib).given(VMCB::efer, VMCB::cr0, VMCB::cr4),
     [](C c) {
         constexpr unsigned l_and_d = 0x600;
         return long_mode(c) && (c.vmcb.get(VMCB::cr4) & CR4::PAE) &&
                (c.vmcb.get(VMCB::cs_attrib) & l_and_d) == l_and_d;
     }},
    {"VMRUN-013", "the VMRUN intercept bit is clear", consistency, on(VMCB::intercept_word4),
     [](C c) { return !(c.vmcb.get(VMCB::intercept_word4) & 1); }},
    {"VMRUN-014", "the I/O permission map extends beyond the supported physical address", consistency,
     on(VMCB::iopm_base_pa),
     [](C c) { return map_beyond_memory(c, c.vmcb.get(VMCB::iopm_base_pa), 3 * page_size); }},
    {"VMRUN-015", "the MSR permission map extends beyond the supported physical address", consistency,
     on(VMCB::msrpm_base_pa),
     [](C c) { return map_beyond_memory(c, c.vmcb.get(VMCB::msrpm_base_pa), 2 * page_size); }},
    {"VMRUN-016", "EVENTINJ holds an illegal event", injection,
     on(VMCB::eventinj).given(VMCB::efer, VMCB::cr0, VMCB::cs_attrib), illegal_injection},
    {"VMRUN-017", "the ASID is 0", consistency, on(VMCB::guest_asid),
     [](C c) { return c.vmcb.get(VMCB::guest_asid) == 0; }},
    {"VMRUN-021", "NP_ENABLE is 1 and the host's CR0.PG is 0", nested,
     on(VMCB::nested_control).in_processor(), [](C c) { return np(c) && !(c.cpu.control.cr0 & CR0::PG); }},
    {"VMRUN-022", "NP_ENABLE is 1 and an MBZ bit of nCR3 is set", nested,
     on(VMCB::n_cr3).given(VMCB::nested_control).in_processor(),
     [](C c) {
         const u64 mbz = c.cpu.long_mode_active() ? beyond_physical(c) : u64{0};
         return np(c) && (c.vmcb.get(VMCB::n_cr3) & mbz);
     }},
    {"VMRUN-023", "NP_ENABLE is 1 and G_PAT has an unsupported type or reserved bits", nested,
     on(VMCB::g_pat).given(VMCB::nested_control), [](C c) { return np(c) && illegal_pat(c); }},
    {"VMRUN-025", "V_NMI_ENABLE is 1 and NMIs are not intercepted", "APM 2 15.21.10 \"NMI Virtualization\"",
     on(VMCB::intercept_word3).given(VMCB::interrupt_control),
     [](C c) {
         return control(c, VMCB::INT::V_NMI_ENABLE, Feature::VNMI) &&
                !(c.vmcb.get(VMCB::intercept_word3) >> (ExitCode::NMI % 32) & 1);
     }},
    {"VMRUN-026", "x2AVIC is enabled and AVIC is not", avic, on(VMCB::interrupt_control),
     [](C c) { return x2avic_on(c) && !avic_on(c); }},
    {"VMRUN-027", "AVIC_PHYSICAL_MAX_INDEX is above 255 in xAVIC mode", avic,
     on(VMCB::avic_physical_table).given(VMCB::interrupt_control),
     [](C c) { return avic_on(c) && !x2avic_on(c) && max_index(c) > 0xFF; }},
    {"VMRUN-028", "AVIC_PHYSICAL_MAX_INDEX is above 511 in x2AVIC mode without x2AVIC_EXT", avic,
     on(VMCB::avic_physical_table).given(VMCB::interrupt_control),
     [](C c) {
         return avic_on(c) && x2avic_on(c) && max_index(c) > 0x1FF && !c.cpu.has(Feature::x2AVIC_EXT);
     }},
    {"VMRUN-029", "a pointer of AVIC is not aligned or beyond the supported physical address", avic,
     on(VMCB::avic_backing_page, VMCB::avic_physical_table, VMCB::avic_logical_table)
         .given(VMCB::interrupt_control),
     [](C c) { return avic_on(c) && avic_pointer_illegal(c); }},
    {"VMRUN-033", "AVIC or x2AVIC is enabled and this processor does not have it", avic,
     on(VMCB::interrupt_control),
     [](C c) {
         const u64 control_ = c.vmcb.get(VMCB::interrupt_control);
         return ((control_ & VMCB::INT::AVIC_ENABLE) && !c.cpu.has(Feature::AVIC)) ||
                ((control_ & VMCB::INT::X2AVIC_ENABLE) && !c.cpu.has(Feature::x2AVIC));
     }},
    {"VMRUN-034", "AVIC is enabled and NP_ENABLE is 0", avic,
     on(VMCB::nested_control).given(VMCB::interrupt_control), [](C c) { return avic_on(c) && !np(c); }},
};

/// See vmrun_checked_fields(). The array is larger than it need be.
struct CheckedFields {
    std::array<u16, 4 * std::size(checks)> offset{};
    std::size_t count = 0;

    constexpr void add(VmrunFields::List list) {
        for (const u16 wanted : list.all()) {
            bool known = false;
            for (std::size_t i = 0; i < count; ++i) known |= offset[i] == wanted;
            if (!known) offset[count++] = wanted;
        }
    }
};
constexpr CheckedFields checked_fields = [] {
    CheckedFields fields;
    for (const VmrunCheck& check : checks) {
        fields.add(check.fields.restricted);
        fields.add(check.fields.depends);
    }
    return fields;
}();

} // namespace

std::span<const u16> vmrun_checked_fields() { return {checked_fields.offset.data(), checked_fields.count}; }

const VmrunCheck vmrun_pdpte_check{"VMRUN-024", "an MBZ bit of a PDPTE is set", consistency,
                                   on(VMCB::cr3).given(VMCB::cr0, VMCB::cr4, VMCB::efer).in_processor(),
                                   nullptr};

std::span<const VmrunCheck> vmrun_checks() { return checks; }

const VmrunCheck* find_vmrun_check(std::string_view id) {
    for (const VmrunCheck& check : checks)
        if (check.id == id) return &check;
    return id == vmrun_pdpte_check.id ? &vmrun_pdpte_check : nullptr;
}

} // namespace exeunt
