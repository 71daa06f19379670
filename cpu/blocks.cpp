#include "cpu/blocks.hpp"

#include "base/ensure.hpp"
#include "cpu/instructions.hpp"

#include <algorithm>

namespace exeunt {

BlockCache::BlockCache(Cpu& cpu) : cpu_(cpu), decoder_(cpu.model) { cpu.memory.add_listener(*this); }

namespace {

CodeMode code_mode(const Cpu& cpu) {
    if (cpu.code64()) return CodeMode::long64;
    if (cpu.seg(Seg::CS).big()) return CodeMode::protected32;
    return cpu.real_mode() || cpu.v8086() ? CodeMode::real16 : CodeMode::protected16;
}

/// Whether the instruction must be the last of its block.
bool ends_block(const Insn& insn) {
    if (insn.row == nullptr || insn.row->ends == Ends::block || insn.row->intercept != Intercept::none) return true;
    if (insn.row->fault) return true;  // SWAPGS: its general handler leaves the block
    if (insn.repeat != Repeat::none && insn.operand_count == 0) return true;  // string instructions
    for (unsigned i = 0; i < insn.operand_count; ++i)
        switch (insn.operand[i].kind) {
            case OperandKind::control:
            case OperandKind::debug: return true;
            case OperandKind::segment: return i == 0 || insn.row->ends == Ends::block;
            default: break;
        }
    return false;
}

}  // namespace

Result<Block*> BlockCache::find(bool single) {
    ++statistics_.lookups;
    const u64 linear = cpu_.code64() ? cpu_.rip : (cpu_.seg(Seg::CS).base + cpu_.rip) & 0xFFFF'FFFF;
    if (!cpu_.code64() && cpu_.rip > cpu_.seg(Seg::CS).limit) return general_protection(0);
    if (cpu_.code64() && !cpu_.canonical(cpu_.rip)) return general_protection(0);
    const u64 physical = TRY(cpu_.mmu.lookup_fetch(Linear{linear}, cpu_.fetch_privilege())).value;
    auto found = blocks_.find(block_key(physical, code_mode(cpu_), single));
    if (found != blocks_.end()) {
        Block* block = found->second.get();
        bool valid = true;
        if (block->second_page) {
            const Linear next{cpu_.next_page(linear)};
            const u64 page = TRY(cpu_.mmu.lookup_fetch(next, cpu_.fetch_privilege())).value;
            valid = page == block->second_page;
        }
        // Code near the segment limit is taken one by one, so that the limit is checked at each instruction.
        if (valid && (cpu_.code64() || cpu_.rip + block->bytes - 1 <= cpu_.seg(Seg::CS).limit)) return block;
        if (valid && !single) return find(true);
        if (valid) return general_protection(0);
        drop(block);
    }
    return decode(linear, physical, single);
}

Result<void> BlockCache::decode_one(u64 linear, u64 physical, Insn& insn, u64& second_page) {
    u8 bytes[16];
    const unsigned on_page = static_cast<unsigned>(std::min<u64>(15, page_size - (physical & 0xFFF)));
    cpu_.memory.read_bytes(Physical{physical}, bytes, on_page);
    const CodeMode mode = code_mode(cpu_);
    second_page = 0;
    auto status = decoder_.decode(mode, {bytes, on_page}, *cpu_.virtualization, insn);
    if (status == Decoder::Status::more && on_page < 15) {
        const Linear next{cpu_.next_page(linear)};
        second_page = TRY(cpu_.mmu.lookup_fetch(next, cpu_.fetch_privilege())).value;
        cpu_.memory.read_bytes(Physical{second_page}, bytes + on_page, 15 - on_page);
        status = decoder_.decode(mode, {bytes, 15}, *cpu_.virtualization, insn);
    }
    switch (status) {
        case Decoder::Status::ok: return {};
        case Decoder::Status::undefined: return undefined_opcode();
        case Decoder::Status::more:
        case Decoder::Status::too_long: return general_protection(0);
    }
    return {};
}

Result<Block*> BlockCache::decode(u64 linear, u64 physical, bool single) {
    auto block = std::make_unique<Block>();
    block->physical = physical;
    block->mode = code_mode(cpu_);
    block->single = single;
    const u64 page_room = page_size - (physical & 0xFFF);
    const u64 limit_room =
        cpu_.code64() ? ~u64{0} : u64{cpu_.seg(Seg::CS).limit} - cpu_.rip + 1;  // find() checked rip <= limit
    const unsigned most = single ? 1 : max_instructions;
    u64 offset = 0;
    bool ended = false;
    std::vector<Op> ops;
    while (!ended && block->ticks < most && offset < page_room) {
        Insn insn;
        u64 second_page = 0;
        auto decoded = decode_one(linear + offset, physical + offset, insn, second_page);
        if (!decoded.ok()) {
            if (block->ticks == 0) return decoded.stop();
            break;  // the fault is met when the instruction is reached
        }
        if (block->ticks > 0 && (second_page || offset + insn.length > limit_room)) break;
        if (offset + insn.length > limit_room) return general_protection(0);
        ++statistics_.decoded_instructions;
        ended = ends_block(insn) || second_page || splits_.contains(physical + offset);
        block->second_page = second_page;

        Op op{};
        op.offset = static_cast<u16>(offset);
        op.position = block->ticks;
        op.length = insn.length;
        if (!insn.row || !fast_ || !select_fast(insn, static_cast<u16>(offset), op)) {
            block->insns.push_back(insn);
            op.insn = &block->insns.back();
            op.handler = general_handler(insn);
        }
        ops.push_back(op);
        ++block->ticks;
        offset += insn.length;
        if (insn.row && insn.row->ends == Ends::block && insn.operand_count > 0 &&
            insn.operand[0].kind == OperandKind::relative)
            block->link[1].offset = static_cast<i64>(offset + insn.immediate);
    }
    ops.back().last = true;
    if (ops.size() >= 2) fuse(ops[ops.size() - 2], ops.back());
    block->bytes = static_cast<u16>(offset);
    block->link[0].offset = static_cast<i64>(offset);
    Op end{};
    end.handler = end_of_block_handler();
    ops.push_back(end);
    block->ops = std::move(ops);

    if (blocks_.size() >= max_blocks) drop_all();
    ++statistics_.decoded_blocks;
    Block* raw = block.get();
    const u64 key = block_key(physical, block->mode, single);
    if (auto old = blocks_.find(key); old != blocks_.end()) drop(old->second.get());
    blocks_[key] = std::move(block);
    add_page(raw, physical);
    if (raw->second_page) add_page(raw, raw->second_page);
    if (cpu_.memory.kind(Physical{physical}) != PhysicalMemory::Kind::mmio) {
        const u64 first_bytes = std::min(offset, page_room);
        cpu_.memory.add_code(Physical{physical}, first_bytes);
        if (raw->second_page) cpu_.memory.add_code(Physical{raw->second_page}, offset - first_bytes);
    }
    return raw;
}

void BlockCache::add_page(Block* block, u64 physical) { pages_[physical >> 12].push_back(block); }

void BlockCache::drop(Block* block) {
    ++statistics_.dropped_blocks;
    for (const u64 address : {block->physical, block->second_page}) {
        auto page = pages_.find(address >> 12);
        if (page == pages_.end()) continue;
        std::erase(page->second, block);
        if (page->second.empty()) pages_.erase(page);
    }
    auto found = blocks_.find(block_key(block->physical, block->mode, block->single));
    ENSURE(found != blocks_.end() && found->second.get() == block);
    dropped_.push_back(std::move(found->second));
    blocks_.erase(found);
    // Chains and jump entries that lead to it are found under a key that no longer holds.
    cpu_.code_changed();
}

void BlockCache::drop_all() {
    for (auto& [key, block] : blocks_) dropped_.push_back(std::move(block));
    blocks_.clear();
    pages_.clear();
    cpu_.code_changed();
}

bool BlockCache::collect() {
    if (dropped_.empty()) return false;
    dropped_.clear();
    return true;
}

void BlockCache::code_page_added(Physical) { cpu_.mmu.forget_writes(); }

bool BlockCache::code_written(Physical start, u64 size) {
    auto page = pages_.find(start.value >> 12);
    if (page == pages_.end()) return false;
    // Lines are a coarse filter; only blocks whose own bytes change are dropped.
    std::vector<Block*> stale;
    for (Block* block : page->second) {
        const u64 on_first = std::min<u64>(block->bytes, page_size - (block->physical & 0xFFF));
        const bool first = block->physical < start.value + size && start.value < block->physical + on_first;
        const bool second = block->second_page && start.value < block->second_page + (block->bytes - on_first) &&
                            block->second_page < start.value + size;
        if (first || second) stale.push_back(block);
    }
    for (Block* block : stale) drop(block);
    return pages_.contains(start.value >> 12);
}

}  // namespace exeunt
