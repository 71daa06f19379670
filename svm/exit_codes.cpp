#include "svm/exit_codes.hpp"

namespace exeunt {

namespace {

struct Row {
    u32 code;
    const char* name;
};
constexpr Row rows[] = {
#define EXIT(name, code) {code, #name},
#define EXIT_RANGE(prefix, what, code)
#include "svm/exit_codes.inc"
};

struct Range {
    u32 first;
    const char* prefix;
    const char* suffix;
};
constexpr Range ranges[] = {
#define EXIT(name, code)
#define EXIT_RANGE(prefix, what, code) {code, #prefix, "_" #what},
#include "svm/exit_codes.inc"
};

} // namespace

std::string exit_code_name(u32 code) {
    if (code == static_cast<u32>(ExitCode::INVALID)) return "INVALID";
    for (const Range& range : ranges)
        if (code - range.first < 16) return range.prefix + std::to_string(code - range.first) + range.suffix;
    if (code - ExitCode::EXCP0 < 32) return "EXCP" + std::to_string(code - ExitCode::EXCP0);
    for (const Row& row : rows)
        if (row.code == code) return row.name;
    return {};
}

} // namespace exeunt
