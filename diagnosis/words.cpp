#include "diagnosis/words.hpp"

#include "base/bits.hpp"

#include <array>
#include <fmt/format.h>
#include <optional>

namespace exeunt {

namespace {

/// How the bits of a row are shown.
struct Show {
    enum class Kind : u8 {
        by_value,
        decimal,
        hexadecimal,
        gpr,
        segment,
        address_size,
        vector,
        memory_type
    } kind;
    std::string_view values{}; ///< by_value

    constexpr Show(const char* words) : kind(Kind::by_value), values(words) {}
    constexpr Show(Kind k) : kind(k) {}
};

constexpr auto decimal = Show::Kind::decimal, hexadecimal = Show::Kind::hexadecimal, gpr = Show::Kind::gpr,
               segment = Show::Kind::segment, address_size = Show::Kind::address_size,
               vector = Show::Kind::vector, memory_type = Show::Kind::memory_type;

struct Row {
    std::string_view layout;
    unsigned high, low;
    std::string_view name;
    Show show;
    u64 set, clear;
    bool flag = false;
    std::string_view include{};
};

constexpr Row rows[] = {
#define BITS(layout, high, low, name, shown, set, clear) {#layout, high, low, name, shown, set, clear},
#define FLAG(layout, number, name) {#layout, number, number, name, "", bit(number), 0, true},
#define INCLUDE(layout, other) {#layout, 0, 0, "", "", 0, 0, false, #other},
#include "diagnosis/layouts.inc"
};

/// The words for a value out of "a|b|c".
std::string by_value(std::string_view words, u64 value) {
    for (u64 i = 0; !words.empty(); ++i) {
        const std::size_t end = words.find('|');
        if (i == value) {
            const std::string_view found = words.substr(0, end);
            if (!found.empty()) return std::string(found);
            break;
        }
        words = end == std::string_view::npos ? std::string_view{} : words.substr(end + 1);
    }
    return fmt::format("reserved ({})", value);
}

constexpr std::string_view registers = "RAX|RCX|RDX|RBX|RSP|RBP|RSI|RDI|R8|R9|R10|R11|R12|R13|R14|R15",
                           segments = "ES|CS|SS|DS|FS|GS", sizes = "16 bits|32 bits|64 bits";

std::string shown(const Show& show, u64 value) {
    switch (show.kind) {
    case Show::Kind::by_value: return by_value(show.values, value);
    case Show::Kind::decimal: return fmt::format("{}", value);
    case Show::Kind::hexadecimal: return fmt::format("{:#x}", value);
    case Show::Kind::gpr: return by_value(registers, value);
    case Show::Kind::segment: return by_value(segments, value);
    case Show::Kind::address_size: return by_value(sizes, value);
    case Show::Kind::vector: return vector_name(value);
    case Show::Kind::memory_type: return memory_type_name(value);
    }
    return {};
}

void collect(std::string_view layout, u64 value, std::vector<Words>& to) {
    for (const Row& row : rows) {
        if (row.layout != layout) continue;
        if (!row.include.empty()) {
            collect(row.include, value, to);
        } else if ((value & row.set) != row.set || (value & row.clear) != 0) {
            continue;
        } else if (row.flag) {
            to.push_back({"", std::string(row.name)});
        } else {
            to.push_back({std::string(row.name), shown(row.show, extract(value, row.high, row.low))});
        }
    }
}

} // namespace

bool layout_exists(std::string_view layout) {
    for (const Row& row : rows)
        if (row.layout == layout) return true;
    return false;
}

std::vector<Words> in_words(std::string_view layout, u64 value) {
    std::vector<Words> words;
    collect(layout, value, words);
    return words;
}

std::string on_one_line(const std::vector<Words>& all) {
    std::string line;
    bool flag = true;
    for (const Words& words : all) {
        if (!line.empty()) line += flag && words.name.empty() ? " " : ", ";
        flag = words.name.empty();
        line += words.name.empty() ? words.words : words.name + " " + words.words;
    }
    return line;
}

std::string on_one_line(std::string_view layout, u64 value) { return on_one_line(in_words(layout, value)); }

std::string vector_name(u64 number) {
    constexpr std::string_view names =
        "#DE|#DB|NMI|#BP|#OF|#BR|#UD|#NM|#DF||#TS|#NP|#SS|#GP|#PF||#MF|#AC|#MC|#XM|#VE|#CP"
        "|||||||#HV|#VC|#SX";
    const std::string name = by_value(names, number);
    return name.starts_with("reserved") ? fmt::format("vector {}", manual_hexadecimal(number)) : name;
}

std::string memory_type_name(u64 type) { return by_value("UC|WC|||WT|WP|WB|UC-", type); }

std::string bit_numbers(u64 mask) {
    std::string text;
    for (int high = 63; high >= 0; --high) {
        if (!(mask >> high & 1)) continue;
        int low = high;
        while (low > 0 && (mask >> (low - 1) & 1)) --low;
        if (!text.empty()) text += ", ";
        text += low == high ? fmt::format("{}", high) : fmt::format("{}:{}", high, low);
        high = low;
    }
    return text.empty() ? "none" : text;
}

std::string manual_hexadecimal(u64 value) {
    std::string text = fmt::format("{:X}H", value);
    if (text.front() > '9') text.insert(text.begin(), '0');
    return text;
}

} // namespace exeunt
