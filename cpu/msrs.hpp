// RDMSR and WRMSR out of rows: those of the core (cpu/msrs.inc), and what vmx, svm and others add.
// SDM 4 Table 2-2 "IA-32 Architectural MSRs"; APM 2 Appendix A "MSR Cross-Reference".
//
// Not modelled: performance monitoring, last-branch records, microcode updates (BIOS_UPDT_TRIG stops the
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
}  // namespace Msr

class Msrs {
public:
    /// The core's rows, as far as the model has them.
    explicit Msrs(const CpuModel& model);

    /// Adds rows, which must outlive this object; those whose feature the model lacks are left out.
    void add(std::span<const MsrRow> rows);
    /// RDMSR and WRMSR after the privilege check and the question to a guest's extension; also the load and store
    /// lists of VM entries and exits. #GP(0) for an MSR that is not there.
    Result<u64> read(Cpu& cpu, u32 index);
    Result<void> write(Cpu& cpu, u32 index, u64 value);
    /// Whether there is a row (not so for the local APIC's MSRs).
    bool has(u32 index) const { return find(index) != nullptr; }
    /// What is stored, without rules: for those who own an MSR's behaviour. 0 when there is no such MSR.
    u64 stored(u32 index) const;
    void store(u32 index, u64 value);

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
    std::vector<Entry> entries_;  ///< sorted by index
};

/// IA32_MISC_ENABLE.XD Bit Disable hides NX.
bool execute_disable_available(const Cpu& cpu);
/// Canonical in the widest linear address that the model supports, whatever CR4.LA57 says: what WRMSR checks.
bool canonical_for_model(const Cpu& cpu, u64 address);
/// The memory-type part of what firmware leaves behind: MTRRs that make RAM write-back and [hole, 4 GiB)
/// uncacheable. `hole` is a power of two below 4 GiB.. 4 GiB, counted in bytes from 0.
void set_firmware_mtrrs(Cpu& cpu, u64 hole);

}  // namespace exeunt
