// The record of the last branch and of the branch before the last event, while DebugCtl.LBR is 1: BR_FROM,
// BR_TO, LASTEXCPFROM, LASTEXCPTO. APM 2 13.1.1.7 "Control-Transfer Recording MSRs", 13.1.6 "Control-Transfer
// Recording".
//
// Not modelled: a branch to the instruction that follows it is not recorded. Intel's last-branch stack.
#pragma once

#include "cpu/cpu.hpp"

namespace exeunt {

void record_branch(Cpu& cpu, u64 from, u64 to);
/// An interrupt or exception is a branch, too; the one before it is kept.
void record_event(Cpu& cpu, u64 from, u64 to);

} // namespace exeunt
