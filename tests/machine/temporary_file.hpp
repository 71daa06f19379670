// A file, in a directory of its own, that lives as long as a test.
#pragma once

#include "base/types.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace exeunt::test {

struct TemporaryFile {
    explicit TemporaryFile(std::span<const u8> contents = {}) {
        directory = (std::filesystem::temp_directory_path() / "exeunt-test-XXXXXX").string();
        if (!mkdtemp(directory.data())) std::abort();
        // The guest learns of the file's name, so it is always the same.
        path = directory + "/file";
        write(contents);
    }
    ~TemporaryFile() { std::filesystem::remove_all(directory); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    void write(std::span<const u8> contents) const {
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(contents.data()), static_cast<std::streamsize>(contents.size()));
    }
    void write(const std::string& text) const {
        write({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
    std::string text() const {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    std::string directory, path;
};

}  // namespace exeunt::test
