// Decoded code: blocks of operations, keyed by physical address and code mode, chained to their successors.
//
// An operation (Op) is one instruction as its handler wants it: 32 bytes, read once, in order. Handlers with a
// general Insn behind them find it through the Op. Blocks end at control flow, at anything that may change how the
// next instruction is fetched or whether an event is due, and at the page's end.
#pragma once

#include "cpu/cpu.hpp"
#include "cpu/decoder.hpp"

#include <deque>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace exeunt {

struct Op;

/// Executes one operation. Returns the next one, or nullptr when the dispatcher must look. In a threaded build a
/// handler calls its successor itself, as a tail call, and nullptr is all that ever comes back.
using Handler = const Op* (*)(Cpu&, const Op*);

struct Op {
    Handler handler;
    union {
        i64 displacement;   ///< of the memory operand (RIP-relative: from the block's start), or
        u64 immediate64;    ///< MOV r64, imm64
        const Insn* insn;   ///< the general form
    };
    i32 immediate;
    u16 offset;             ///< of the instruction from the block's start, in bytes
    u8 position;            ///< of the instruction in the block, in instructions
    u8 length;
    u8 destination, source; ///< registers; for byte operands, byte offsets into Cpu::r
    u8 base, index, scale;  ///< memory operand: r[base] + (r[index] << scale) + displacement
    u8 segment;
    bool last;              ///< last instruction of its block
    u8 fusion;              ///< Jcc: 80H + condition; a row of cpu/fast/fused.cpp, from 1; else 0
};
static_assert(sizeof(Op) == 32);

/// The way out of a block to one successor, resolved when first taken.
struct Link {
    Block* target = nullptr;
    u64 key = ~u64{0};   ///< Cpu::fetch_key under which `target` was found, and
    u64 rip = 0;         ///< where: the same code may run at several linear addresses
    i64 offset = 0;      ///< of the successor from this block's start
};

struct Block {
    u64 physical = 0;
    CodeMode mode = CodeMode::real16;
    bool single = false;       ///< one instruction only, for stepping
    u16 bytes = 0;
    u8 ticks = 0;              ///< instructions in it
    u64 second_page = 0;       ///< physical page of the rest of a single instruction that crosses pages, or 0
    Link link[2];              ///< [0] falls through or jumps, [1] is a taken branch
    std::vector<Op> ops;
    std::deque<Insn> insns;    ///< stable addresses
};

struct JumpEntry {
    u64 key = ~u64{0};
    u64 rip = 0;
    Block* block = nullptr;
};

/// All blocks of one processor.
class BlockCache final : public CodeListener {
public:
    static constexpr unsigned max_instructions = 48;
    static constexpr unsigned jump_entries = 16384;

    explicit BlockCache(Cpu& cpu);

    /// The block at cpu.rip, decoded now if it is new. `single`: one instruction only. A Stop is the page fault,
    /// #GP or the like that fetching its first instruction causes.
    Result<Block*> find(bool single);
    JumpEntry& jump(u64 rip) { return jumps_[(rip ^ (rip >> 12)) % jump_entries]; }

    /// The instruction at this physical address must end its block from now on (it touches a device, or code).
    void split_after(u64 physical) {
        if (splits_.size() > max_splits) splits_.clear();
        splits_.insert(physical);
    }
    void drop(Block* block);
    void drop_all();
    /// Without fast handlers every instruction takes its general one: the definition, for tests.
    void set_fast(bool fast) {
        fast_ = fast;
        drop_all();
    }
    /// Blocks dropped while they ran are freed here, between blocks.
    bool collect();

    void code_page_added(Physical page) override;
    bool code_written(Physical start, u64 size) override;

    struct Statistics {
        u64 decoded_blocks = 0, decoded_instructions = 0, dropped_blocks = 0, lookups = 0;
    };
    const Statistics& statistics() const { return statistics_; }

private:
    static constexpr std::size_t max_splits = 1 << 20;
    static constexpr std::size_t max_blocks = 1 << 18;

    Result<Block*> decode(u64 linear, u64 physical, bool single);
    Result<void> decode_one(u64 linear, u64 physical, Insn& insn, u64& second_page);
    void add_page(Block* block, u64 physical);

    Cpu& cpu_;
    Decoder decoder_;
    std::unordered_map<u64, std::unique_ptr<Block>> blocks_;            ///< only ever looked up
    std::unordered_map<u64, std::vector<Block*>> pages_;               ///< blocks by physical page
    std::unordered_set<u64> splits_;
    std::vector<std::unique_ptr<Block>> dropped_;
    std::vector<JumpEntry> jumps_{jump_entries};
    Statistics statistics_;
    bool fast_ = true;
};

/// The key under which a block is kept: physical addresses are below 2^52.
constexpr u64 block_key(u64 physical, CodeMode mode, bool single) {
    return physical << 3 | static_cast<u64>(mode) << 1 | (single ? 1 : 0);
}

/// Chooses the handler of a decoded instruction and fills the Op (cpu/fast/select.cpp). False: the general one.
bool select_fast(const Insn& insn, u16 offset, Op& op);
/// Lets a compare and the conditional branch after it, the last of their block, be one handler (cpu/fast/fused.cpp).
void fuse(Op& compare, const Op& branch);
/// The general handler: cpu/engine.cpp.
Handler general_handler(const Insn& insn);
Handler end_of_block_handler();

}  // namespace exeunt
