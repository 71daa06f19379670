// Layouts of the exit qualification. SDM 3C 27.2.1 "Basic VM-Exit Information", Tables 27-1 to 27-7.
// A displacement, a linear address and a vector are themselves. EPT violations: mmu/ept.
#pragma once

#include "arch/registers.hpp"
#include "base/bits.hpp"
#include "cpu/virtualization.hpp"

namespace exeunt {

/// Table 27-1 "Exit Qualification for Debug Exceptions".
struct DebugQualification {
    u64 dr6_bits = 0; ///< B3 to B0, BD, BS

    constexpr u64 encode() const {
        return dr6_bits & (DR6::B0 | DR6::B1 | DR6::B2 | DR6::B3 | DR6::BD | DR6::BS);
    }
};

/// Table 27-2 "Exit Qualification for Task Switch".
struct TaskSwitchQualification {
    u16 selector = 0;
    TaskSwitch::Source source = TaskSwitch::Source::call;

    constexpr u64 encode() const { return selector | u64{static_cast<u8>(source)} << 30; }
};

/// Table 27-3 "Exit Qualification for Control-Register Accesses".
struct CrQualification {
    unsigned cr = 0;
    CrAccess access = CrAccess::mov_to;
    bool memory = false; ///< LMSW
    unsigned gpr = 0;    ///< MOV
    u16 source = 0;      ///< LMSW

    constexpr u64 encode() const {
        return cr | u64{static_cast<u8>(access)} << 4 | u64{memory} << 6 | u64{gpr} << 8 | u64{source} << 16;
    }
};

/// Table 27-4 "Exit Qualification for MOV DR".
struct DrQualification {
    unsigned dr = 0;
    bool from = false;
    unsigned gpr = 0;

    constexpr u64 encode() const { return dr | u64{from} << 4 | u64{gpr} << 8; }
};

/// Table 27-5 "Exit Qualification for I/O Instructions".
struct IoQualification {
    unsigned bytes = 1;
    bool in = false, string = false, rep = false, immediate = false;
    u16 port = 0;

    constexpr u64 encode() const {
        return (bytes - 1) | u64{in} << 3 | u64{string} << 4 | u64{rep} << 5 | u64{immediate} << 6 |
               u64{port} << 16;
    }
};

/// 26.7 "VM-Entry Failures During or After Loading Guest State".
namespace EntryFailureQualification {
inline constexpr u64 other = 0, pdptes = 2, nmi_and_sti = 3, link_pointer = 4;
} // namespace EntryFailureQualification

/// Bit 12 of several qualifications and of the interruption information.
inline constexpr u32 nmi_unblocking_due_to_iret = u32{1} << 12;

} // namespace exeunt
