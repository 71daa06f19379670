// The native processor as an oracle, on x86-64 Linux: the instruction itself, in this process, at CPL 3.
//
// No code of ours runs between the state and the instruction: a signal handler writes the state of the case into the
// frame that it returns to, the kernel loads it, and the instruction ends in a signal in any case, by its fault, by
// the INT3 after it, or, when it may go elsewhere, by the single-step trap. The second signal's frame is the outcome.
// 32-bit code runs in compatibility mode.
#pragma once

#include "tests/differential/case.hpp"

#include "arch/features.hpp"

#include <memory>
#include <span>

namespace exeunt::test {

class SiliconOracle {
public:
    /// For 32-bit and 64-bit cases. One may exist at a time.
    SiliconOracle();
    ~SiliconOracle();

    /// Whether there is such an oracle here.
    static bool available();
    /// `model` without what this processor does not have.
    static CpuModel restrict(CpuModel model);
    /// The name of the model that is most like this processor.
    static const char* model_name();
    /// Whether known_differences.json was made on processors of this family (AMD family 1AH). On others a difference
    /// may be one that nobody has looked at yet: it is printed, and does not fail the test.
    static bool surveyed();
    static constexpr u16 code_selector(CaseMode mode) { return mode == CaseMode::long64 ? 0x33 : 0x23; }
    static constexpr u16 data_selector = 0x2B;

    Outcome run(const Case& c);
    std::span<u8> data();
    static constexpr Reported reported{.x87 = true, .error_codes = true, .state_after_fault = true};

private:
    struct Native;
    std::unique_ptr<Native> native_;
};

}  // namespace exeunt::test
