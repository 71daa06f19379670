// Where fast handlers end up when the TLB does not say yes.
#include "cpu/fast/operands.hpp"

namespace exeunt::fast {

namespace {
/// Keeps the Stop for leave(), and undoes what synchronise() announced.
template <class T>
bool finish(Cpu& cpu, const Result<T>& result) {
    cpu.last_of_block = true;
    if (result.ok()) return true;
    cpu.block_stop = result.stop();
    return false;
}
}  // namespace

Loaded load_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes) {
    synchronise(cpu, op);
    const Result<u64> result = cpu.load(segment, offset, bytes);
    return {result.value(), finish(cpu, result)};
}

bool store_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes, u64 value) {
    synchronise(cpu, op);
    return finish(cpu, cpu.store(segment, offset, bytes, value));
}

bool target_slow(Cpu& cpu, const Op* op, Seg segment, u64 offset, unsigned bytes, Cpu::Destination& destination) {
    synchronise(cpu, op);
    const Result<WriteTarget> target = cpu.prepare_write(segment, offset, bytes);
    if (!finish(cpu, target)) return false;
    cpu.last_of_block = op->last;
    const Result<u64> value = cpu.read_target(target.value());
    destination.target = target.value();
    destination.value = value.value();
    return finish(cpu, value);
}

bool commit_slow(Cpu& cpu, const Cpu::Destination& destination, u64 value) {
    return finish(cpu, cpu.commit(*destination.target, value));
}

}  // namespace exeunt::fast
