// The rules of VMRUN a second time, out of the manual's words and the bytes of a VMCB alone; for vmcb_fuzz.
// Facts of the processor are those of amd-max. APM 2 15.5.1 "Basic
// Operation", 15.20, 15.21.10, 15.25.4, 15.29.2.
#pragma once

#include "base/types.hpp"

#include <functional>
#include <span>

namespace exeunt::test {

/// Bit n: rule VMRUN-n is violated. `physical`: the quadword at a physical address, for the PDPTEs.
u64 violated_rules(std::span<const u8, 4096> vmcb, const std::function<u64(u64)>& physical);

} // namespace exeunt::test
