// Unicorn (QEMU's TCG as a library) as an oracle: the same instruction and state, one engine for each mode.
//
// Unicorn runs without paging at CPL 0. What it is known to get wrong is in tests/differential/known_differences.json.
#pragma once

#include "tests/differential/case.hpp"

#include <memory>
#include <span>

namespace exeunt::test {

class UnicornOracle {
public:
    explicit UnicornOracle(CaseMode mode);
    ~UnicornOracle();

    Outcome run(const Case& c);
    std::span<u8> data();
    static constexpr Reported reported{};

private:
    struct Engine;
    std::unique_ptr<Engine> engine_;
};

}  // namespace exeunt::test
