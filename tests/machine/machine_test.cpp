#include "machine/machine.hpp"

#include "cpu/cpu.hpp"
#include "machine/snapshot.hpp"
#include "tests/machine/images.hpp"
#include "tests/machine/programs.hpp"
#include "tests/machine/temporary_file.hpp"

#include <doctest/doctest.h>
#include <map>
#include <string>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::programs;

namespace {

/// A machine that runs a small program; its serial output is kept.
struct Runner {
    explicit Runner(const Bytes& program, MachineConfig config = {}) : kernel(multiboot_flat(program)) {
        config.kernel.path = kernel.path;
        config.memory = u64{16} << 20;
        machine = std::make_unique<Machine>(config);
        machine->set_serial_output([this](u8 byte) { output.push_back(static_cast<char>(byte)); });
    }
    const Ending& run() {
        machine->boot();
        return machine->run();
    }

    TemporaryFile kernel;
    std::unique_ptr<Machine> machine;
    std::string output;
};

MachineConfig with_limit(Tick limit) {
    MachineConfig config;
    config.schedule.limit = limit;
    return config;
}

/// Input at given ticks, as a replay has it.
struct Script final : InputSource {
    explicit Script(std::map<Tick, std::vector<u8>> script) : pieces(std::move(script)) {}
    bool open() const override { return !pieces.empty(); }
    std::vector<u8> take(Tick now, std::size_t) override {
        if (pieces.empty() || pieces.begin()->first > now) return {};
        return pieces.extract(pieces.begin()).mapped();
    }
    Tick wait(Tick, Tick to) override { return pieces.empty() ? to : std::min(to, pieces.begin()->first); }

    std::map<Tick, std::vector<u8>> pieces;
};

struct KeptLog final : InputLog {
    void input(Tick tick, std::span<const u8> bytes) override { pieces[tick] = {bytes.begin(), bytes.end()}; }
    std::map<Tick, std::vector<u8>> pieces;
};

}  // namespace

TEST_CASE("run: isa-debug-exit gives value * 2 + 1 as status") {
    Runner t(print('h') + print('i') + exit_with(3));
    const Ending& ending = t.run();
    CHECK(ending.reason == EndReason::debug_exit);
    CHECK(ending.status() == 7);
    CHECK(ending.tick == 8);
    CHECK(t.output == "hi");
}

TEST_CASE("run: ACPI S5 powers off with status 0 [ACPI 6.4 4.8.3.2.1]") {
    Runner t(power_off);
    CHECK(t.run().reason == EndReason::powered_off);
    CHECK(t.run().status() == 0);
}

TEST_CASE("run: the tick limit ends the run on its tick with status 8") {
    Runner t(spin, with_limit(123'457));
    const Ending& ending = t.run();
    CHECK(ending.reason == EndReason::limit);
    CHECK(ending.tick == 123'457);
    CHECK(ending.status() == 8);
}

TEST_CASE("run: a triple fault outside a guest is status 10 and names processor and RIP") {
    Runner t(breakpoint);
    const Ending& ending = t.run();
    CHECK(ending.reason == EndReason::shutdown);
    CHECK(ending.status() == 10);
    CHECK(ending.message.find("CPU 0 shut down (triple fault) at RIP 0x200020") != std::string::npos);
}

TEST_CASE("run: HLT with interrupts disabled is hung for ever, status 10") {
    Runner t(wait_for_ever);
    const Ending& ending = t.run();
    CHECK(ending.reason == EndReason::hung);
    CHECK(ending.status() == 10);
    CHECK(ending.message.starts_with("hung for ever"));
}

TEST_CASE("run: what is not modelled is status 4") {
    Runner t(close_a20 + spin, with_limit(1000));
    CHECK(t.run().reason == EndReason::unmodelled);
    CHECK(t.run().status() == 4);
}

TEST_CASE("run: the reset register starts the machine again; RAM outside the image keeps its contents") {
    Runner t(start_three_times + exit_with(1), with_limit(100'000));
    const Ending& ending = t.run();
    CHECK(ending.reason == EndReason::debug_exit);
    CHECK(t.machine->memory().load<u32>(Physical{0x8000}) == 3);
}

TEST_CASE("determinism: two runs end in the same state, another program does not") {
    std::string hashes[3];
    for (int i = 0; i < 3; ++i) {
        Runner t(print('x') + (i < 2 ? exit_with(1) : exit_with(2)));
        t.run();
        hashes[i] = state_hash(*t.machine);
    }
    CHECK(hashes[0] == hashes[1]);
    CHECK(hashes[0] != hashes[2]);
    CHECK(hashes[0].size() == 32);
}

TEST_CASE("state hash: which pages of RAM were looked at natively does not matter, what is in them does") {
    Runner t(exit_with(0));
    t.run();
    const std::string before = state_hash(*t.machine);
    for (u64 at = 0; at < u64{16} << 20; at += 4096) (void)t.machine->memory().load<u8>(Physical{at});
    t.machine->memory().store<u8>(Physical{0xC0'0000}, 0);
    CHECK(state_hash(*t.machine) == before);
    t.machine->memory().store<u8>(Physical{0xC0'0000}, 1);
    CHECK(state_hash(*t.machine) != before);
}

TEST_CASE("state dump: JSON with a group for each processor") {
    MachineConfig config;
    config.cpus = 2;
    Runner t(exit_with(0), config);
    t.run();
    const std::string text = state_json(*t.machine);
    CHECK(text.find("\"processor1\"") != std::string::npos);
    CHECK(text.find("\"local_apic\"") != std::string::npos);
}

TEST_CASE("input: is stamped with a tick and logged; the log gives the same run") {
    KeptLog log;
    Script keys({{50'000, {'a'}}, {90'000, {'b'}}});
    Runner live(echo + echo + exit_with(0), with_limit(1'000'000));
    live.machine->set_input(keys, &log);
    CHECK(live.run().reason == EndReason::debug_exit);
    CHECK(live.output == "ab");
    REQUIRE(log.pieces.size() == 2);
    CHECK(log.pieces.begin()->first >= 50'000);

    Script recorded(log.pieces);
    KeptLog again;
    Runner replay(echo + echo + exit_with(0), with_limit(1'000'000));
    replay.machine->set_input(recorded, &again);
    CHECK(replay.run().tick == live.machine->loop().now());
    CHECK(again.pieces == log.pieces);
    CHECK(state_hash(*replay.machine) == state_hash(*live.machine));
}

TEST_CASE("checkpoints: the same ticks in every run, whoever looks") {
    std::vector<Tick> ticks[2];
    for (auto& seen : ticks) {
        Runner t(spin, with_limit(500'000));
        t.machine->loop().set_checkpoint(100'000, [&](Tick tick) { seen.push_back(tick); });
        t.run();
    }
    CHECK(ticks[0] == ticks[1]);
    CHECK(ticks[0].size() == 5);
}

TEST_CASE("power-up: every other processor waits for SIPI [SDM 3A 8.4.3]") {
    MachineConfig config;
    config.cpus = 3;
    Runner t(exit_with(0), config);
    t.run();
    CHECK(t.machine->cpu(0).activity == Activity::active);
    CHECK(t.machine->cpu(1).activity == Activity::wait_for_sipi);
    CHECK(t.machine->cpu(2).activity == Activity::wait_for_sipi);
}

TEST_CASE("two processors: INIT and SIPI start the second; turns are a function of the seed [SDM 3A 8.4]") {
    Tick ticks[3];
    const u64 seeds[3] = {0, 7, 7};
    for (int i = 0; i < 3; ++i) {
        MachineConfig config = with_limit(10'000'000);
        config.cpus = 2;
        config.schedule.seed = seeds[i];
        config.schedule.slice = 100;
        Runner t(start_others + print('A') + exit_with(0), config);
        const Ending& ending = t.run();
        CHECK(ending.reason == EndReason::debug_exit);
        CHECK(t.output == "BA");
        CHECK(t.machine->cpu(1).activity == Activity::hlt);
        ticks[i] = ending.tick;
    }
    CHECK(ticks[1] == ticks[2]);
    CHECK(ticks[0] != ticks[1]);
}

TEST_CASE("invariant report: registers of every processor") {
    Runner t(exit_with(0));
    t.run();
    const std::string text = t.machine->describe();
    CHECK(text.find("CPU 0: RIP 0x200024") != std::string::npos);
    CHECK(text.find(" CS 0010") != std::string::npos);
}
