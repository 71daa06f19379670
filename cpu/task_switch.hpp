// Hardware task switches. SDM 3A ch. 7 "Task Management".
#pragma once

#include "cpu/segmentation.hpp"

namespace exeunt {

/// What the outgoing task will find when it comes back.
struct OutgoingTask {
    u64 rip = 0;
    u64 flags = 0;
};

/// The TSS that a task gate names: global, available, present. Else #GP or #NP with the selector.
Result<TableEntry> available_task(Cpu& cpu, u16 selector);

/// A completed switch; loading the new task's segments may have given an exception, to be delivered in its
/// context.
struct SwitchedTask {
    Stop fault{};
};

/// Switches to the task of `tss`, whose descriptor has been checked, except for its limit. A Stop: the old
/// task goes on and nothing has changed.
Result<SwitchedTask> switch_task(Cpu& cpu, const TableEntry& tss, const TaskSwitch& what,
                                 const OutgoingTask& outgoing);

/// JMP, CALL and IRET: the switch with all that follows it. The new task's exceptions are delivered here.
Result<void> switch_task_by_instruction(Cpu& cpu, const TableEntry& tss, TaskSwitch::Source source);

} // namespace exeunt
