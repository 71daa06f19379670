// Kinds of memory access and the page-fault error code. SDM 3A 4.6 "Access Rights", 4.7 "Page-Fault Exceptions".
#pragma once

#include "base/bits.hpp"

namespace exeunt {

/// Who accesses, as far as access rights care. Each has its own part of a TLB context.
enum class Privilege : u8 {
    supervisor = 0,       ///< CPL < 3 with SMAP in force (also every implicit supervisor access)
    user = 1,             ///< CPL = 3
    supervisor_smap_off = 2,  ///< CPL < 3 with CR4.SMAP = 0 or RFLAGS.AC = 1
};

enum class AccessType : u8 { read, write, execute };

struct Access {
    AccessType type = AccessType::read;
    Privilege privilege = Privilege::supervisor;

    constexpr bool write() const { return type == AccessType::write; }
    constexpr bool execute() const { return type == AccessType::execute; }
    constexpr bool user() const { return privilege == Privilege::user; }
};

/// SDM 3A Figure 4-12 "Page-Fault Error Code".
namespace PFEC {
inline constexpr u32 P = 1, W = 2, U = 4, RSVD = 8, I = 16, PK = 32, SS = 64, SGX = 1u << 15;
}  // namespace PFEC

}  // namespace exeunt
