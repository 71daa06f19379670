// Numbers on the command line: decimal, 0x1f, or 1FH as the manuals have them.
#pragma once

#include "base/bad_input.hpp"
#include "base/types.hpp"

#include <charconv>
#include <string>
#include <string_view>

namespace exeunt {

/// `base`: of a number without a mark. Throws BadInput that names `option`.
inline u64 parse_number(std::string_view text, const std::string& option, int base = 10) {
    std::string_view digits = text;
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
        digits.remove_prefix(2);
        base = 16;
    } else if (digits.ends_with('H') || digits.ends_with('h')) {
        digits.remove_suffix(1);
        base = 16;
    }
    u64 value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
        throw BadInput(option, std::string(text), "a number such as 48, 0x30 or 30H");
    return value;
}

} // namespace exeunt
