// Numbers in words: what the bits of a field mean, out of the rows of diagnosis/layouts.inc.
#pragma once

#include "base/types.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

/// One part of a value, such as {"direction", "IN"}; the name is empty where the words say all.
struct Words {
    std::string name, words;
    bool operator==(const Words&) const = default;
};

/// Whether diagnosis/layouts.inc has rows of this layout.
bool layout_exists(std::string_view layout);
/// The parts of a value, in the order of the rows. Empty where nothing is to be said.
std::vector<Words> in_words(std::string_view layout, u64 value);
/// The same on one line: "port 0x3f8, size 1 byte, direction OUT".
std::string on_one_line(const std::vector<Words>& words);
std::string on_one_line(std::string_view layout, u64 value);

/// "#PF", "#GP"; "vector 20H" for others.
std::string vector_name(u64 vector);
/// "UC", "WB"; "reserved (2)".
std::string memory_type_name(u64 type);
/// "bits 7:4, 2" of a mask; "none".
std::string bit_numbers(u64 mask);
/// "681AH", as the manuals write it.
std::string manual_hexadecimal(u64 value);

} // namespace exeunt
