// Who changed watched bytes last; the machine runs on as without the watch.
#include "diagnosis/memory_watch.hpp"

#include "cpu/cpu.hpp"
#include "machine/snapshot.hpp"
#include "tests/machine/images.hpp"
#include "tests/machine/programs.hpp"
#include "tests/machine/temporary_file.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::programs;

namespace {

/// mov dword [address], value
Bytes store(u32 where, u8 value) {
    Bytes bytes{0xC7, 0x05};
    for (unsigned i = 0; i < 4; ++i) bytes.push_back(static_cast<u8>(where >> (8 * i)));
    return bytes + Bytes{value, 0, 0, 0};
}

struct Run {
    explicit Run(const Bytes& program) : kernel(multiboot_flat(program)) {
        MachineConfig config;
        config.kernel.path = kernel.path;
        config.memory = u64{16} << 20;
        machine = std::make_unique<Machine>(config);
        machine->boot();
    }
    TemporaryFile kernel;
    std::unique_ptr<Machine> machine;
};

constexpr Physical page{0x8000};
const Bytes program =
    store(0x8000, 1) + store(0x8010, 2) + store(0x8000, 3) + store(0x8010, 2) + exit_with(0);

} // namespace

TEST_CASE("memory watch: the instruction that changed a byte last") {
    Run run(program);
    MemoryWatch watch(*run.machine);
    watch.watch(page);
    const u64 start = run.machine->cpu(0).rip;
    run.machine->run();
    const WrittenBy first = watch.writer(page, 4);
    CHECK(first.kind == WrittenBy::Kind::software);
    CHECK(first.rip == start + 20); // the third store
    CHECK(first.cpu == 0);
    CHECK(watch.writer(page + 0x10, 4).rip == start + 10); // the fourth stored what was there
    CHECK(watch.writer(page + 0x20, 4).kind == WrittenBy::Kind::unknown);
    CHECK(watch.writer(page + 0x1000, 4).kind == WrittenBy::Kind::unknown);
    CHECK(run.machine->memory().load<u32>(page) == 3);
}

TEST_CASE("memory watch: the run is the same with it") {
    Run with(program), without(program);
    MemoryWatch watch(*with.machine);
    watch.watch(page);
    CHECK(with.machine->run().tick == without.machine->run().tick);
    CHECK(state_hash(*with.machine) == state_hash(*without.machine));
}
