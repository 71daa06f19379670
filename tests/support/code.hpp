// Machine code in tests carries its disassembly, and both are compared: code("0f 31", "rdtsc").
#pragma once

#include "cpu/decoder.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt::test {

struct Code {
    std::vector<u8> bytes;
    std::string text;  ///< instructions in Zydis's Intel syntax, separated by "; "; empty: not compared
};

/// Hexadecimal bytes separated by spaces. Throws std::invalid_argument for anything else.
Code code(std::string_view hex, std::string_view disassembly = "");
/// The disassembly of all bytes in this mode, separated by "; ". Relative targets are relative to `address`.
std::string disassemble_all(CodeMode mode, std::span<const u8> bytes, u64 address);

}  // namespace exeunt::test
