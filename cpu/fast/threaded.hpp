// How handlers follow one another.
//
// In a threaded build (EXEUNT_THREADED) a handler ends by calling the next operation's handler as a tail call, so
// that an instruction costs one indirect jump. Otherwise it returns the next operation to the dispatcher's loop;
// both builds execute the same handlers.
#pragma once

#include "cpu/blocks.hpp"

namespace exeunt {

#if defined(EXEUNT_THREADED) && EXEUNT_THREADED
#if defined(__clang__)
#define EXEUNT_TAIL [[clang::musttail]] return
#else
#define EXEUNT_TAIL return
#endif
#define NEXT_OP(cpu, op) EXEUNT_TAIL (op)->handler((cpu), (op))
#else
#define NEXT_OP(cpu, op) return (op)
#endif

/// The instruction did not complete: accounts for the ticks that did not happen, and leaves the block.
const Op* leave(Cpu& cpu, const Op* op, const Stop& stop);

/// Enters `block` at `rip`, or leaves to the dispatcher when the countdown ends inside it.
[[gnu::always_inline]] inline const Op* enter(Cpu& cpu, Block* block, u64 rip) {
    const i64 left = cpu.remaining - block->ticks;
    if (left < 0) [[unlikely]] {
        cpu.rip = rip;
        return nullptr;
    }
    cpu.remaining = left;
    cpu.r[MemoryOperand::rip_register] = rip;
    cpu.current_block = block;
    return block->ops.data();
}

/// Tail-calls into what enter() gave.
#if defined(EXEUNT_THREADED) && EXEUNT_THREADED
#define ENTER_BLOCK(cpu, block, rip)                                                                     \
    do {                                                                                                 \
        const Op* const entered = enter((cpu), (block), (rip));                                          \
        if (entered == nullptr) [[unlikely]]                                          \
            return entered;                                                                              \
        EXEUNT_TAIL entered->handler((cpu), entered);                                                    \
    } while (false)
#else
#define ENTER_BLOCK(cpu, block, rip) return enter((cpu), (block), (rip))
#endif

/// Takes one of the current block's ways out. `target_rip` is already truncated to the code size.
#define TAKE_LINK(cpu, number, target_rip)                                   \
    do {                                                                     \
        const u64 to = (target_rip);                                         \
        Link& way = (cpu).current_block->link[number];                       \
        if (way.key == (cpu).fetch_key && way.rip == to) [[likely]]          \
            ENTER_BLOCK(cpu, way.target, to);                                \
        (cpu).rip = to;                                                      \
        (cpu).open_link = &way;                                              \
        return nullptr;                                                      \
    } while (false)

/// Goes to a computed target through the jump cache.
#define TAKE_JUMP(cpu, target_rip)                                           \
    do {                                                                     \
        const u64 to = (target_rip);                                         \
        const JumpEntry& jump = (cpu).blocks->jump(to);                      \
        if (jump.key == (cpu).fetch_key && jump.rip == to) [[likely]]        \
            ENTER_BLOCK(cpu, jump.block, to);                                \
        (cpu).rip = to;                                                      \
        return nullptr;                                                      \
    } while (false)

}  // namespace exeunt
