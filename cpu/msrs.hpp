// RDMSR and WRMSR out of rows: those of the core (cpu/msrs.inc), and what vmx, svm and others add.
// SDM 3C Table 35-2 "IA-32 Architectural MSRs"; APM 2 App. A "MSR Cross-Reference".
//
// Not modelled: Intel's last-branch records, microcode updates (BIOS_UPDT_TRIG stops the
// machine), RdMem and WrMem of AMD's fixed-range MTRRs (kept, without effect on where memory accesses go).
#pragma once

#include "arch/msr.hpp"
#include "base/snapshot.hpp"

#include <span>
#include <vector>

namespace exeunt {

namespace Msr {
#define MSR(index, name, present_with, reset, writable, read, write) inline constexpr u32 name = index;
#include "cpu/msrs.inc"
} // namespace Msr

/// MSRs of the local APIC that the core must know.
inline constexpr u32 apic_base_msr = 0x1B, tsc_deadline_msr = 0x6E0;

/// AMD's VM_CR, which says whether EFER.SVME may be set (SVMDIS, bit 4); the svm folder has its row.
inline constexpr u32 vm_cr_msr = 0xC001'0114;

/// IA32_MISC_ENABLE, SDM 3C Table 35-2.
namespace MiscEnable {
inline constexpr u64 fast_strings = u64{1} << 0, performance_monitoring = u64{1} << 7, BTS_unavailable = u64{1} << 11,
                     PEBS_unavailable = u64{1} << 12, MONITOR = u64{1} << 18, limit_CPUID = u64{1} << 22,
                     XD_disable = u64{1} << 34;
} // namespace MiscEnable

/// EFER.AIBRSE, APM 2 3.1.7.
inline constexpr u64 EFER_AIBRSE = u64{1} << 21;

class Msrs {
public:
    /// The core's rows, as far as the processor's model has them.
    explicit Msrs(const Cpu& cpu);

    /// Adds rows, which must outlive this object; those whose feature the model lacks are left out.
    void add(std::span<const MsrRow> rows);
    /// RDMSR and WRMSR after the privilege check and the question to a guest's extension; also the load and
    /// store lists of VM entries and exits. #GP(0) for an MSR that is not there.
    Result<u64> read(Cpu& cpu, u32 index);
    Result<void> write(Cpu& cpu, u32 index, u64 value);
    /// Whether there is a row (not so for the local APIC's MSRs).
    bool has(u32 index) const { return find(index) != nullptr; }
    /// What is stored, without rules: for those who own an MSR's behaviour. 0 when there is no such MSR.
    u64 stored(u32 index) const;
    void store(u32 index, u64 value);
    /// The same place, for those who go there often; null when there is no such MSR. Valid until add().
    u64* slot(u32 index);

    /// Power-up reset; INIT does not touch MSRs that are kept here.
    void reset();
    void visit(StateVisitor& visitor);

private:
    struct Entry {
        const MsrRow* row;
        u64 value;
    };
    const Entry* find(u32 index) const;
    Entry* find(u32 index);

    const CpuModel& model_;
    std::vector<Entry> entries_; ///< sorted by index
};

/// IA32_MISC_ENABLE.XD Bit Disable hides NX.
bool execute_disable_available(const Cpu& cpu);
/// Canonical in the widest linear address that the model supports, whatever CR4.LA57 says: what WRMSR checks.
bool canonical_for_model(const Cpu& cpu, u64 address);
/// What firmware leaves behind in the MTRRs: memory is write-back, except for the legacy video range and the
/// last GByte below 4 GBytes, which are uncacheable, and C0000H to FFFFFH, which is write-protected.
void set_firmware_mtrrs(Cpu& cpu);

} // namespace exeunt
