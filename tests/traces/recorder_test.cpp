// Recordings: the directory, its description, its input log, and what is said when something is wrong with them.
#include "base/bad_input.hpp"
#include "tests/traces/samples.hpp"
#include "traces/recorder.hpp"
#include "traces/replayer.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace exeunt;
using namespace exeunt::test;
namespace fs = std::filesystem;

namespace {

constexpr const char* configuration = R"({"cpus": 1})";

/// A recording with the sample records, closed or not.
void record(const std::string& path, bool closed) {
    Recorder recorder(path);
    recorder.describe(configuration);
    recorder.vm_entry(1, 10, sample_entry);
    recorder.vm_exit(1, 20, sample_exit);
    recorder.vm_entry_failure(0, 30, sample_failure);
    recorder.state(40, sample_hash);
    const u8 keys[] = {0x0D, 0xFF};
    recorder.input(25, keys);
    if (closed) recorder.end(50, {8, 2, sample_hash});
}

std::string refusal(const std::function<void()>& action) {
    try {
        action();
    } catch (const BadInput& error) {
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("recorder: a recording has four files and says whether it was closed") {
    const TemporaryDirectory directory;
    const std::string path = directory / "deep/er/recording";
    const RecordingPaths paths(path);
    SUBCASE("closed") {
        record(path, true);
        CHECK(read_description(path).complete);
        const auto last = last_record(path);
        REQUIRE(last);
        CHECK(last->kind == RecordKind::end);
        CHECK(last->tick == 50);
        CHECK((*last)["status"] == 8);
    }
    SUBCASE("not closed") {
        record(path, false);
        CHECK_FALSE(read_description(path).complete);
        REQUIRE(last_record(path));
        CHECK(last_record(path)->kind == RecordKind::state);
    }
    CHECK(read_description(path).configuration == R"({"cpus":1})");
    CHECK(text_of(paths.metadata) == ctf_metadata());
    CHECK(text_of(paths.input) == "{\"tick\": 25, \"bytes\": \"0dff\"}\n");
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(path))
        if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), path));
    CHECK(files.size() == 4);
}

TEST_CASE("recorder: only a new or an empty directory is taken") {
    const TemporaryDirectory directory;
    CHECK(refusal([&] { Recorder recorder(directory.path); }) == "");
    write_text(directory / "file", "something");
    CHECK(refusal([&] { Recorder recorder(directory.path); }) ==
          directory.path + ": expected a directory that does not exist yet, or is empty");
    CHECK(refusal([&] { Recorder recorder(directory / "file"); }) ==
          directory / "file" + ": expected a directory that does not exist yet, or is empty");
    CHECK(refusal([&] { Recorder recorder(directory / "file/sub"); }).starts_with(
        directory / "file/sub" + ": expected a directory that can be created ("));
    CHECK(text_of(directory / "file") == "something");
}

TEST_CASE("recorder: without a record nothing stays behind") {
    const TemporaryDirectory directory;
    const std::string made = directory / "made", found = directory / "found";
    fs::create_directory(found);
    for (const std::string& path : {made, found}) {
        Recorder recorder(path);
        recorder.describe(configuration);
    }
    CHECK_FALSE(fs::exists(made));
    CHECK(fs::is_empty(found));
}

TEST_CASE("description: what is no description is refused with its place") {
    const TemporaryDirectory directory;
    const std::string file = RecordingPaths(directory.path).description;
    const auto refused = [&](const std::string& text) {
        write_text(file, text);
        return refusal([&] { read_description(directory.path); });
    };
    CHECK(refusal([&] { read_description(directory.path); }) ==
          file + ": expected the description of a recording (made by `exeunt run --trace`)");
    const std::string no_json = file + ": expected the JSON description of a recording";
    for (const std::string text : {"", "{", "[]", "3", "{}", R"({"format": 3})", R"({"format": "a tune"})", "\xFF"})
        CHECK(refused(text) == no_json);
    const std::string start = R"({"format": "exeunt recording", )";
    CHECK(refused(start + R"("version": "1"})") == file + ": version: expected 2, found \"1\"");
    CHECK(refused(start + R"("version": 1})") == file + ": version: expected 2, found 1");
    CHECK(refused(start + R"("version": 2})") == file + ": complete: expected true or false");
    CHECK(refused(start + R"("version": 2, "complete": true, "machine": 7})") ==
          file + ": machine: expected the configuration of a machine");
    CHECK(refused(start + R"("version": 2, "complete": true, "machine": {}})") == "");
}

TEST_CASE("input log: pieces come at their ticks, whole, in order") {
    const TemporaryDirectory directory;
    write_text(RecordingPaths(directory.path).input,
               "{\"tick\": 5, \"bytes\": \"6162\"}\n{\"tick\": 9, \"bytes\": \"ff\"}\n{\"tick\": 9, \"bytes\": \"00\"}\n");
    RecordedInput input(directory.path);
    CHECK(input.open());
    CHECK(input.take(4, 16).empty());
    CHECK(input.wait(4, 100) == 5);
    CHECK(input.wait(4, 5) == 5);
    CHECK(input.take(5, 1).empty());  // no room: it was not taken then, either
    CHECK(input.take(5, 16) == std::vector<u8>{'a', 'b'});
    CHECK(input.take(5, 16).empty());
    CHECK(input.wait(5, 7) == 7);
    CHECK(input.take(9, 16) == std::vector<u8>{0xFF});
    CHECK(input.take(9, 16) == std::vector<u8>{0});
    CHECK_FALSE(input.open());
    CHECK(input.wait(9, 100) == 100);
}

TEST_CASE("input log: a line that is none is refused with its number") {
    const TemporaryDirectory directory;
    const std::string file = RecordingPaths(directory.path).input;
    CHECK(refusal([&] { RecordedInput input(directory.path); }) == file + ": expected the input log of a recording");
    const auto refused = [&](const std::string& line) {
        write_text(file, "{\"tick\": 5, \"bytes\": \"6162\"}\n" + line + "\n");
        return refusal([&] { RecordedInput input(directory.path); });
    };
    CHECK(refused(R"({"tick": 5, "bytes": ""})") == "");
    const std::string form = file + ": line 2: expected {\"tick\": number, \"bytes\": \"hexadecimal digits\"}";
    for (const std::string line : {"x", "[]", "{}", R"({"tick": -1, "bytes": ""})", R"({"tick": 1.5, "bytes": ""})",
                                   R"({"tick": 6, "bytes": 3})", R"({"tick": "6", "bytes": ""})"})
        CHECK(refused(line) == form);
    CHECK(refused(R"({"tick": 6, "bytes": "abc"})") == file + ": line 2: expected an even number of hexadecimal digits");
    CHECK(refused(R"({"tick": 6, "bytes": "AB"})") == file + ": line 2: expected an even number of hexadecimal digits");
    CHECK(refused(R"({"tick": 4, "bytes": ""})") == file + ": line 2: expected a later tick");
}

TEST_CASE("replayer: the same records are no difference") {
    const TemporaryDirectory directory;
    record(directory / "r", true);
    unsigned calls = 0;
    Replayer replayer(directory / "r", [&] { ++calls; });
    replayer.vm_entry(1, 10, sample_entry);
    replayer.vm_exit(1, 20, sample_exit);
    replayer.vm_entry_failure(0, 30, sample_failure);
    replayer.state(40, sample_hash);
    replayer.end(50, {8, 2, sample_hash});
    replayer.finish();
    CHECK(replayer.difference() == "");
    CHECK(replayer.compared() == 5);
    CHECK(replayer.states_compared() == 1);
    CHECK_FALSE(replayer.exhausted());
    CHECK(calls == 0);
    replayer.vm_entry(1, 60, sample_entry);
    CHECK(replayer.exhausted());
    CHECK(calls == 1);
}

TEST_CASE("replayer: the first difference says record, field, both values and ticks, once") {
    const TemporaryDirectory directory;
    record(directory / "r", true);
    unsigned calls = 0;
    Replayer replayer(directory / "r", [&] { ++calls; });
    replayer.vm_entry(1, 10, sample_entry);
    ExitRecord exit = sample_exit;
    std::string expected;
    Tick tick = 20;
    SUBCASE("a field") {
        exit.qualification = 1;
        exit.guest_linear = 2;
        expected = "record 2 (vm_exit): qualification: 0x1122334455667788, 0x1\n  recorded at tick 20, replayed at tick 20";
    }
    SUBCASE("the tick comes before the fields") {
        exit.qualification = 1;
        tick = 21;
        expected = "record 2 (vm_exit): tick: 20, 21\n  recorded at tick 20, replayed at tick 21";
    }
    replayer.vm_exit(1, tick, exit);
    CHECK(replayer.difference() == expected);
    CHECK(calls == 1);
    replayer.vm_exit(1, 99, exit);
    CHECK(replayer.difference() == expected);
    CHECK(calls == 1);
    CHECK(replayer.compared() == 1);
}

TEST_CASE("replayer: a record that does not come again") {
    const TemporaryDirectory directory;
    record(directory / "r", false);
    Replayer replayer(directory / "r", [] {});
    replayer.vm_entry(1, 10, sample_entry);
    replayer.finish();
    CHECK(replayer.difference() == "record 2 (vm_exit), recorded at tick 20, did not come again");
}

TEST_CASE("replayer: a record of another kind, and text that differs") {
    const TemporaryDirectory directory;
    record(directory / "r", true);
    SUBCASE("kind") {
        Replayer replayer(directory / "r", [] {});
        replayer.vm_exit(1, 10, sample_exit);
        CHECK(replayer.difference().starts_with("record 1 (vm_entry): kind: vm_entry, vm_exit\n"));
    }
    SUBCASE("text") {
        Replayer replayer(directory / "r", [] {});
        replayer.vm_entry(1, 10, sample_entry);
        replayer.vm_exit(1, 20, sample_exit);
        EntryFailureRecord failure = sample_failure;
        failure.check = "guest.cr0";
        replayer.vm_entry_failure(0, 30, failure);
        CHECK(replayer.difference().starts_with("record 3 (vm_entry_failure): check: guest.dr7.bits_63_32, guest.cr0\n"));
    }
}
