// `exeunt trace` and `exeunt replay` as a user has them: recordings of a real run, changed and damaged.
#include "tests/machine/images.hpp"
#include "tests/machine/programs.hpp"
#include "tests/traces/samples.hpp"
#include "traces/recorder.hpp"

#include <algorithm>
#include <cstdio>
#include <doctest/doctest.h>
#include <string>
#include <sys/wait.h>

using namespace exeunt;
using namespace exeunt::test;
using namespace exeunt::test::programs;
namespace fs = std::filesystem;

namespace {

struct Outcome {
    int status = -1;
    std::string out;  ///< standard error, too
};

Outcome exeunt_with(const std::string& arguments) {
    std::FILE* pipe = popen((EXEUNT_BINARY_DIR "/exeunt " + arguments + " </dev/null 2>&1").c_str(), "r");
    REQUIRE(pipe != nullptr);
    Outcome outcome;
    char buffer[4096];
    while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.out.append(buffer, got);
    const int status = pclose(pipe);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return outcome;
}

/// A kernel and a directory for recordings of it.
struct Recordings : TemporaryDirectory {
    explicit Recordings(const Bytes& program = print('x') + exit_with(3)) {
        const auto image = multiboot_flat(program);
        write_text(*this / "kernel", {image.begin(), image.end()});
    }
    Outcome run(const std::string& name, const std::string& more = "") const {
        return exeunt_with("run --memory 16M --serial none --kernel " + *this / "kernel" + " --trace " + *this / name +
                           " " + more);
    }
    Outcome replay(const std::string& name) const { return exeunt_with("replay " + *this / name); }
};

/// A recording by hand: no machine ever made these records, but tools read them.
void sample_recording(const std::string& path, bool closed = true) {
    Recorder recorder(path);
    recorder.describe("{}");
    for (Tick tick = 100; tick < 2100; tick += 100) {
        recorder.vm_entry(0, tick, {.rip = 0x1000 + tick, .launch = tick == 100});
        recorder.vm_exit(0, tick + 10, {.reason = tick % 200 == 0 ? 12u : 10u, .rip = 0x1000, .instruction_length = 2});
    }
    recorder.vm_entry_failure(0, 2200, sample_failure);
    if (closed) recorder.end(2300, {0, 0, sample_hash});
}

std::size_t lines(const std::string& text) { return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')); }

bool bad_input(const Outcome& outcome) {
    return outcome.status == 2 && lines(outcome.out) == 1 && outcome.out.starts_with("exeunt: ");
}

}  // namespace

TEST_CASE("replay: a run is identical, whatever ended it") {
    SUBCASE("the guest") {
        const Recordings r;
        CHECK(r.run("t").status == 7);
        const Outcome outcome = r.replay("t");
        CHECK(outcome.status == 0);
        CHECK(outcome.out == "identical: 1 records, 1 state hashes, 5 ticks\n");
    }
    SUBCASE("the tick limit") {
        const Recordings r(spin);
        CHECK(r.run("t", "--limit 12345").status == 8);
        CHECK(r.replay("t").out == "identical: 1 records, 1 state hashes, 12345 ticks\n");
    }
    SUBCASE("every CPU waits for ever") {
        const Recordings r(wait_for_ever);
        CHECK(r.run("t").status == 10);
        CHECK(r.replay("t").status == 0);
    }
    SUBCASE("the power button") {
        const Recordings r(power_off);
        CHECK(r.run("t").status == 0);
        CHECK(r.replay("t").status == 0);
    }
    SUBCASE("something that is not modelled") {
        const Recordings r(close_a20 + spin);
        CHECK(r.run("t").status == 4);
        CHECK(r.replay("t").status == 0);
    }
    SUBCASE("a signal") {
        const Recordings r(spin);
        const std::string command = EXEUNT_BINARY_DIR "/exeunt run --memory 16M --serial none --kernel " +
                                    r / "kernel" + " --trace " + r / "t" +
                                    " 2>/dev/null & sleep 0.3; kill -TERM $!; wait $!";
        REQUIRE(WEXITSTATUS(std::system(command.c_str())) == 8);
        CHECK(r.replay("t").status == 0);
    }
    SUBCASE("a triple fault") {
        const Recordings r(breakpoint);
        CHECK(r.run("t").status == 10);
        CHECK(r.replay("t").status == 0);
    }
}

TEST_CASE("replay: keys come again at their ticks") {
    const Recordings r(echo + echo + exit_with(0));
    const std::string command = "printf ok | " EXEUNT_BINARY_DIR "/exeunt run --memory 16M --kernel " + r / "kernel" +
                                " --trace " + r / "t" + " >/dev/null";
    REQUIRE(WEXITSTATUS(std::system(command.c_str())) == 1);
    CHECK(text_of(r / "t/input.jsonl").find("\"6f") != std::string::npos);
    CHECK(r.replay("t").status == 0);
    write_text(r / "t/input.jsonl", "");
    CHECK(r.replay("t").status == 12);
}

TEST_CASE("replay: a changed image is refused by its hash, a missing one by its name") {
    const Recordings r;
    CHECK(r.run("t").status == 7);
    const std::string kernel = text_of(r / "kernel");
    std::string changed = kernel;
    changed.back() = static_cast<char>(changed.back() ^ 1);
    write_text(r / "kernel", changed);
    Outcome outcome = r.replay("t");
    CHECK(bad_input(outcome));
    CHECK(outcome.out.find("content: expected the file that was recorded: XXH3-128 ") != std::string::npos);
    CHECK(outcome.out.find(r / "kernel") != std::string::npos);
    write_text(r / "kernel", kernel + '\0');
    CHECK(bad_input(r.replay("t")));
    fs::remove(r / "kernel");
    CHECK(bad_input(r.replay("t")));
    write_text(r / "kernel", kernel);
    CHECK(r.replay("t").status == 0);
}

TEST_CASE("replay: a record that was edited is the difference that is told, with status 12") {
    const Recordings r;
    CHECK(r.run("t").status == 7);
    std::string stream = text_of(r / "t/ctf/stream");
    Outcome outcome;
    SUBCASE("the tick") {
        stream[64 + 2] = 4;
        write_text(r / "t/ctf/stream", stream);
        outcome = r.replay("t");
        CHECK(outcome.out.starts_with("different: record 1 (end): "));
    }
    SUBCASE("the status") {
        stream[64 + 10] = 9;
        write_text(r / "t/ctf/stream", stream);
        outcome = r.replay("t");
        CHECK(outcome.out ==
              "different: record 1 (end): status: 9, 7\n  recorded at tick 5, replayed at tick 5\n");
    }
    SUBCASE("the state hash") {
        stream[64 + 15] = static_cast<char>(stream[64 + 15] ^ 1);
        write_text(r / "t/ctf/stream", stream);
        outcome = r.replay("t");
        CHECK(outcome.out.starts_with("different: record 1 (end): hash_high: 0x"));
    }
    CHECK(outcome.status == 12);
}

TEST_CASE("replay: a recording that was not closed is compared as far as it goes") {
    const Recordings r(spin);
    CHECK(r.run("whole", "--limit 10000").status == 8);
    // The same without its end, as a killed run leaves it.
    fs::copy(r / "whole", r / "t", fs::copy_options::recursive);
    std::string stream = text_of(r / "t/ctf/stream");
    const unsigned bits = (static_cast<u8>(stream[40]) | static_cast<u8>(stream[41]) << 8) - 8u * 31;
    REQUIRE(bits == 8 * 64);
    stream[40] = static_cast<char>(bits & 0xFF);
    stream[41] = static_cast<char>(bits >> 8);
    write_text(r / "t/ctf/stream", stream);
    const Outcome damaged = r.replay("t");
    CHECK(bad_input(damaged));
    CHECK(damaged.out == "exeunt: " + r / "t/ctf/stream" + ": end: expected the last record of a recording that was closed\n");
    std::string description = text_of(r / "t/recording.json");
    description.replace(description.find("\"complete\": true"), 16, "\"complete\": false");
    write_text(r / "t/recording.json", description);
    const Outcome outcome = r.replay("t");
    CHECK(outcome.status == 0);
    CHECK(outcome.out == "identical as far as it goes: 0 records, 0 state hashes; the recording was not closed\n");
}

TEST_CASE("trace, replay: what is no recording is refused in one line") {
    const TemporaryDirectory d;
    const std::string missing = d / "missing";
    for (const std::string verb : {"trace list", "trace stat", "trace export", "replay"}) {
        CAPTURE(verb);
        CHECK(bad_input(exeunt_with(verb + " " + missing)));
        CHECK(bad_input(exeunt_with(verb + " " + d.path)));
        CHECK(bad_input(exeunt_with(verb + " /etc/passwd")));
        CHECK(bad_input(exeunt_with(verb)));
    }
    CHECK(exeunt_with("trace list " + missing).out ==
          "exeunt: " + missing + "/ctf/stream: expected a trace that can be read (No such file or directory)\n");
    sample_recording(d / "t");
    CHECK(bad_input(exeunt_with("trace diff " + d / "t" + " " + missing)));
    CHECK(bad_input(exeunt_with("trace export --format xml " + d / "t")));
    CHECK(bad_input(exeunt_with("trace show " + d / "t")));
    write_text(d / "t/ctf/stream", std::string(4096, 'x'));
    const Outcome garbage = exeunt_with("trace stat " + d / "t");
    CHECK(garbage.status == 2);
    CHECK(garbage.out.ends_with("exeunt: " + d / "t/ctf/stream" + ": offset 0x0: expected a packet of an exeunt trace\n"));
}

TEST_CASE("run --trace: what can not start leaves no directory") {
    const Recordings r;
    CHECK(r.run("t", "--memory 1T").status == 2);
    CHECK_FALSE(fs::exists(r / "t"));
    CHECK(exeunt_with("run --kernel " + r / "none" + " --trace " + r / "t").status == 2);
    CHECK_FALSE(fs::exists(r / "t"));
    CHECK(exeunt_with("run --kernel " + r / "kernel" + " --serial file:/no/such/dir/f --trace " + r / "t").status == 2);
    CHECK_FALSE(fs::exists(r / "t"));
    CHECK(r.run("t").status == 7);
    const Outcome again = r.run("t");
    CHECK(bad_input(again));
    CHECK(r.replay("t").status == 0);
}

TEST_CASE("trace list: a line for each record, from a number on, by reason") {
    const TemporaryDirectory d;
    sample_recording(d / "t");
    const std::string list = "trace list " + d / "t";
    const Outcome all = exeunt_with(list);
    CHECK(all.status == 0);
    CHECK(lines(all.out) == 1 + 42);
    CHECK(all.out.find("vm_entry_failure") != std::string::npos);
    CHECK(all.out.find("check=guest.dr7.bits_63_32") != std::string::npos);
    CHECK(lines(exeunt_with(list + " --first 3 --count 5").out) == 1 + 5);
    CHECK(lines(exeunt_with(list + " --reason CPUID").out) == 1 + 10);
    CHECK(lines(exeunt_with(list + " --first 1000").out) == 1);
}

TEST_CASE("trace stat: counts, shares and ticks outside the guest") {
    const TemporaryDirectory d;
    sample_recording(d / "t");
    const Outcome outcome = exeunt_with("trace stat " + d / "t");
    CHECK(outcome.status == 0);
    // 20 exits; after each but the last an entry 90 ticks later.
    CHECK(outcome.out.find("20 exits, 20 entries, 1 entry failures; 1710 ticks outside the guest") != std::string::npos);
    CHECK(outcome.out.find("HLT                                      10   50.00%") != std::string::npos);
    CHECK(outcome.out.find("90         90         90.0") != std::string::npos);
}

TEST_CASE("trace diff: identical, the first record that differs, or one that only one has") {
    const TemporaryDirectory d;
    sample_recording(d / "a");
    sample_recording(d / "b");
    sample_recording(d / "short", false);
    const Outcome same = exeunt_with("trace diff " + d / "a" + " " + d / "b");
    CHECK(same.status == 0);
    CHECK(same.out == "identical: 42 records\n");
    const Outcome shorter = exeunt_with("trace diff " + d / "a" + " " + d / "short");
    CHECK(shorter.status == 12);
    CHECK(shorter.out == "record 42: only in " + d / "a" + "\n");
    std::string stream = text_of(d / "b/ctf/stream");
    RecordBytes entry;
    encode(entry, 0, 0, EntryRecord{});
    stream[64 + entry.size() + 10 + 2] = 30;  // reason of the first exit
    write_text(d / "b/ctf/stream", stream);
    const Outcome other = exeunt_with("trace diff " + d / "a" + " " + d / "b");
    CHECK(other.status == 12);
    CHECK(other.out.starts_with("record 2 (vm_exit): reason: 0xa, 0x1e\n"));
}

TEST_CASE("trace: a stream that ends inside a packet is read up to there, and that is said") {
    const TemporaryDirectory d;
    sample_recording(d / "t");
    const std::string stream = text_of(d / "t/ctf/stream");
    write_text(d / "t/ctf/stream", stream + stream.substr(0, 1000));
    const Outcome outcome = exeunt_with("trace list " + d / "t");
    CHECK(outcome.status == 0);
    CHECK(lines(outcome.out) == 1 + 42 + 1);
    CHECK(outcome.out.find("exeunt: " + d / "t" + ": the last packet is cut short\n") != std::string::npos);
}
