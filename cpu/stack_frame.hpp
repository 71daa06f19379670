// What events and far calls push, and the stacks of inner privilege levels that the TSS names.
// SDM 3A 5.8.5 "Stack Switching", 6.14.4 "Stack Switching in IA-32e Mode", 6.14.5 "Interrupt Stack Table".
#pragma once

#include "cpu/segmentation.hpp"

#include <array>
#include <cstddef>

namespace exeunt {

/// A stack to push on: its segment, its pointer, and how much of the pointer moves.
struct StackPointer {
    Segment ss;
    u64 pointer = 0;
    unsigned address_bytes = 8;
};

/// The stack in use.
StackPointer current_stack(const Cpu& cpu);
/// The stack in use, as code in segment `code` will see it (a 64-bit segment ignores base and limit of SS).
StackPointer current_stack(const Cpu& cpu, const Segment& code);
/// The stack of privilege level `cpl` out of the current TSS (16-, 32- or 64-bit); `ist`, when not 0, names
/// an entry of the interrupt stack table instead. Faults are #TS and #SS as for a far CALL.
Result<StackPointer> inner_stack(Cpu& cpu, unsigned cpl, unsigned ist = 0);

/// Values to be pushed: push() only checks, write() cannot fail for ordinary memory.
class StackFrame {
public:
    /// `cpl`: with whose rights the stack is written. `error`: the code of an #SS.
    StackFrame(Cpu& cpu, const StackPointer& stack, unsigned cpl, u32 error);

    Result<void> push(u64 value, unsigned bytes);
    Result<void> write();
    /// The stack pointer after the pushes, upper bits that do not move included.
    u64 pointer() const;

private:
    struct Item {
        WriteTarget target;
        u64 value = 0;
    };
    Item* item(unsigned i) { return reinterpret_cast<Item*>(storage_.data()) + i; }
    Result<u64> linear_of(u64 offset, unsigned bytes) const;

    Cpu& cpu_;
    StackPointer stack_;
    u64 offset_;
    bool same_privilege_;
    Privilege privilege_;
    u32 error_;
    unsigned count_ = 0;
    static constexpr unsigned capacity = 40; ///< the most: 31 parameters of a call gate, SS:ESP, CS:EIP
    // Items come to life in push(): most frames have five.
    alignas(Item) std::array<std::byte, capacity * sizeof(Item)> storage_;
};

} // namespace exeunt
