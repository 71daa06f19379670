// What is wrong with something the user gave: a file, an option, a configuration. The only exception of exeunt;
// it is thrown by what reads users' files and options, never by anything that a guest can reach.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace exeunt {

/// Ends in one line: "FILE: PLACE: expected WHAT" (status 2).
class BadInput : public std::runtime_error {
public:
    BadInput(std::string file, std::string place, std::string expected)
        : std::runtime_error(line(file, place, expected)), file_(std::move(file)), place_(std::move(place)),
          expected_(std::move(expected)) {}

    /// A line of another kind, in which the file or option comes first.
    explicit BadInput(const std::string& line) : std::runtime_error(line) {}

    const std::string& file() const { return file_; }    ///< or the option
    const std::string& place() const { return place_; }  ///< offset, field; may be empty
    const std::string& expected() const { return expected_; }

private:
    static std::string line(const std::string& file, const std::string& place, const std::string& expected) {
        return file + ": " + (place.empty() ? "" : place + ": ") + "expected " + expected;
    }
    std::string file_, place_, expected_;
};

}  // namespace exeunt
