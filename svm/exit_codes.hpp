// Exit codes of #VMEXIT, and their names. APM 2 App. C "SVM Intercept Exit Codes".
#pragma once

#include "base/types.hpp"

#include <string>

namespace exeunt {

namespace ExitCode {
#define EXIT(name, code) inline constexpr u64 name = code;
#define EXIT_RANGE(prefix, what, code) inline constexpr u64 prefix##0_##what = code;
#include "svm/exit_codes.inc"
inline constexpr u64 INVALID = ~u64{0};
} // namespace ExitCode

/// "CPUID", "CR3_WRITE", "EXCP14"; of the low half of EXITCODE. Empty for codes that do not exist.
std::string exit_code_name(u32 code);

} // namespace exeunt
