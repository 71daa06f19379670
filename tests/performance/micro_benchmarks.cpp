// What the engine does off its hot path, one part at a time: decoding, page walks, lookups in the TLB. `make bench`
// prints them before the micro guests; a change of one of these parts is measured here first.
#include "cpu/decoder.hpp"
#include "cpu/no_virtualization.hpp"
#include "tests/support/harness.hpp"

#include <benchmark/benchmark.h>
#define DOCTEST_CONFIG_IMPLEMENT  // the harness needs it to link
#include <doctest/doctest.h>

namespace exeunt::test {
namespace {

void decode(benchmark::State& state) {
    const CpuModel model = CpuModel::load("intel-max");
    const Decoder decoder{model};
    const NoVirtualization none;
    const u8 bytes[] = {0x48, 0x8B, 0x84, 0xCB, 0x78, 0x56, 0x34, 0x12};  // mov rax, [rbx+rcx*8+0x12345678]
    Insn insn;
    for (auto _ : state) {
        if (decoder.decode(CodeMode::long64, bytes, none, insn) != Decoder::Status::ok)
            state.SkipWithError("not an instruction");
        benchmark::DoNotOptimize(insn);
    }
}
BENCHMARK(decode);

void page_walk(benchmark::State& state) {
    Harness t;
    for (auto _ : state)
        benchmark::DoNotOptimize(t.cpu.mmu.walk(Linear{Harness::data_address}, {AccessType::read, Privilege::user}));
}
BENCHMARK(page_walk);

void tlb_hit(benchmark::State& state) {
    Harness t;
    for (auto _ : state)
        benchmark::DoNotOptimize(t.cpu.mmu.lookup(Linear{Harness::data_address}, {AccessType::read, Privilege::user}));
}
BENCHMARK(tlb_hit);

/// INT3 through a 64-bit interrupt gate, and the HLT of its handler: 3 ticks with the delivery.
void exception_delivery(benchmark::State& state) {
    Harness t;
    t.write(Harness::code_address, 0xCC, 1);  // int3
    const u64 stack = t.cpu.r[RSP];
    for (auto _ : state) {
        t.cpu.rip = Harness::code_address;
        t.cpu.r[RSP] = stack;
        t.cpu.activity = Activity::active;
        if (t.run() != RunEnd::halted) state.SkipWithError("no HLT");
    }
}
BENCHMARK(exception_delivery);

}  // namespace
}  // namespace exeunt::test

BENCHMARK_MAIN();
