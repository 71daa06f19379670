#include "diagnosis/memory_watch.hpp"

#include "cpu/cpu.hpp"

#include <cstring>

namespace exeunt {

MemoryWatch::MemoryWatch(Machine& machine) : machine_(machine) { machine.memory().add_listener(*this); }

void MemoryWatch::watch(Physical at) {
    PhysicalMemory& memory = machine_.memory();
    const u64 number = at.value >> 12;
    if (memory.kind(at) != PhysicalMemory::Kind::ram || pages_.contains(number)) return;
    Page& page = pages_[number];
    memory.read_bytes(at.page(), page.before.data(), page_size);
    memory.add_code(at.page(), page_size);
}

bool MemoryWatch::code_written(Physical start, u64) {
    const auto found = pages_.find(start.value >> 12);
    if (found == pages_.end()) return false;
    settle(found->first, found->second);
    const Cpu* cpu = machine_.loop().running();
    found->second.pending = cpu ? WrittenBy{WrittenBy::Kind::software, cpu->index, cpu->rip, cpu->now()}
                                : WrittenBy{WrittenBy::Kind::processor, 0, 0, machine_.now()};
    return true;
}

/// What has changed since the page was last looked at was changed by the pending writer.
void MemoryWatch::settle(u64 number, Page& page) {
    std::array<u8, page_size> now;
    machine_.memory().read_bytes(Physical{number << 12}, now.data(), page_size);
    if (std::memcmp(now.data(), page.before.data(), page_size) == 0) return;
    if (writers_.size() > 0xFFFF) { // the oldest are forgotten
        writers_.resize(1);
        for (auto& [unused, other] : pages_) other.writer.fill(0);
    }
    writers_.push_back(page.pending);
    for (unsigned i = 0; i < page_size; ++i)
        if (now[i] != page.before[i]) page.writer[i] = static_cast<u16>(writers_.size() - 1);
    page.before = now;
}

WrittenBy MemoryWatch::writer(Physical at, unsigned bytes) {
    const auto found = pages_.find(at.value >> 12);
    if (found == pages_.end()) return {};
    settle(found->first, found->second);
    WrittenBy last;
    for (unsigned i = 0; i < bytes && at.page_offset() + i < page_size; ++i) {
        const WrittenBy& w = writers_[found->second.writer[at.page_offset() + i]];
        if (w.kind != WrittenBy::Kind::unknown && w.tick >= last.tick) last = w;
    }
    return last;
}

} // namespace exeunt
