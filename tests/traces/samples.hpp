// Records with a different value in every field, and directories that live as long as a test.
#pragma once

#include "traces/packets.hpp"
#include "traces/records.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace exeunt::test {

inline const ExitRecord sample_exit{.reason = 0x8000'0030,
                                    .qualification = 0x1122'3344'5566'7788,
                                    .qualification2 = 0x99AA'BBCC'DDEE'FF00,
                                    .rip = 0xFFFF'8000'1234'5678,
                                    .instruction_length = 15,
                                    .instruction_information = 0xF0E1'D2C3,
                                    .interruption_information = 0x8000'0B0E,
                                    .interruption_error = 0xFFFF'FFFE,
                                    .idt_vectoring_information = 0x8000'030D,
                                    .idt_vectoring_error = 0x1234,
                                    .guest_linear = 0xFFFF'FFFF'FFFF'F000,
                                    .guest_physical = 0x000F'FFFF'FFFF'F123,
                                    .svm = true};
inline const EntryRecord sample_entry{.rip = 0x7FFF'FFFF'FFFF,
                                      .interruption_information = 0x8000'0B0D,
                                      .interruption_error = 7,
                                      .instruction_length = 3,
                                      .launch = true,
                                      .svm = false};
inline const EntryFailureRecord sample_failure{.rip = 0x40'1000,
                                               .reason = 0x8000'0021,
                                               .instruction_error = 26,
                                               .qualification = 4,
                                               .check = "guest.dr7.bits_63_32",
                                               .svm = false};
inline constexpr RuleViolation sample_violation{
    .rule = "guest.dr7.bits_63_32",
    .field = 0x681A,
    .value = 0x1'0000'0400,
    .allowed = {0x400, 0xFFFF'FFFF},
    .writer = {WrittenBy::Kind::software, 3, 0xFFFF'8000'1234'5678, 0x0123'4567'89AB}};
inline constexpr StateDigest sample_hash{0x0123'4567'89AB'CDEF, 0xFEDC'BA98'7654'3210};

/// One record of each kind, in the order of their numbers.
inline std::vector<RecordBytes> one_of_each(Tick tick = 1000) {
    std::vector<RecordBytes> records(record_kinds);
    encode(records[0], tick, 5, sample_exit);
    encode(records[1], tick + 1, 6, sample_entry);
    encode(records[2], tick + 2, 7, sample_failure);
    encode(records[3], tick + 3, sample_hash);
    encode(records[4], tick + 4, EndRecord{12, 5, sample_hash});
    encode(records[5], tick + 5, 8, ViolationRecord{sample_violation, false});
    return records;
}

struct TemporaryDirectory {
    TemporaryDirectory() {
        path = (std::filesystem::temp_directory_path() / "exeunt-test-XXXXXX").string();
        if (!mkdtemp(path.data())) std::abort();
    }
    ~TemporaryDirectory() { std::filesystem::remove_all(path); }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string path;
};

inline std::string text_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_text(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

}  // namespace exeunt::test
