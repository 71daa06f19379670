// The text files of a recording with any contents: a description and an input log, or BadInput.
#include "base/bad_input.hpp"
#include "machine/config.hpp"
#include "traces/recorder.hpp"

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace exeunt;

namespace {

struct Directory {
    std::string path = (std::filesystem::temp_directory_path() / "exeunt-fuzz-XXXXXX").string();
    Directory() {
        if (!mkdtemp(path.data())) std::abort();
    }
    ~Directory() { std::filesystem::remove_all(path); }
};

void put(const std::string& path, std::span<const u8> bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static const Directory directory;
    static const RecordingPaths paths(directory.path);
    put(paths.description, {data, size});
    put(paths.input, {data, size});
    try {
        const RecordingDescription description = read_description(directory.path);
        MachineConfig::from_json(description.configuration, "machine").validate();
    } catch (const BadInput&) {
    }
    try {
        RecordedInput input(directory.path);
        for (Tick now = 0; input.open();) {
            const Tick next = input.wait(now, never);
            while (!input.take(next, ~std::size_t{0}).empty()) {}
            if (next == now || next == never) break;
            now = next;
        }
    } catch (const BadInput&) {
    }
    return 0;
}
