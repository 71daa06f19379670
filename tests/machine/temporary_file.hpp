// A file that lives as long as a test.
#pragma once

#include "base/types.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <unistd.h>

namespace exeunt::test {

struct TemporaryFile {
    explicit TemporaryFile(std::span<const u8> contents = {}) {
        path = (std::filesystem::temp_directory_path() / "exeunt-test-XXXXXX").string();
        close(mkstemp(path.data()));
        write(contents);
    }
    ~TemporaryFile() { std::filesystem::remove(path); }
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
    std::string path;
};

}  // namespace exeunt::test
