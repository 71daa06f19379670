// Random instructions on exeunt, on Unicorn and on the native processor: the same bytes and state, the same outcome.
#include "tests/differential/runner.hpp"
#include "tests/differential/silicon_oracle.hpp"
#include "tests/support/unicorn_oracle.hpp"

#include <algorithm>
#include <doctest/doctest.h>
#include <iostream>
#include <set>

namespace exeunt::test {

namespace {

const KnownDifferences& known_differences() {
    static const KnownDifferences list =
        KnownDifferences::load(EXEUNT_SOURCE_DIR "/tests/differential/known_differences.json");
    return list;
}

/// Cases for each row of an entry of the known differences that has not been met.
constexpr u64 states_for_known = 6000;

void judge(const Runner& runner, bool surveyed) {
    for (const std::string& failure : runner.failures()) std::cout << failure << "\n";
    for (const auto& [row, count] : runner.failures_by_row()) std::cout << "  " << row << ": " << count << " cases\n";
    if (!surveyed && !runner.failures_by_row().empty())
        MESSAGE("differences from a processor of which no list was made: to be looked at, not counted as failures");
    CHECK((runner.failures_by_row().empty() || !surveyed));
}

/// Runs the share of the cases, and then more of the rows whose known differences have not shown up yet.
void compare_with(const Forms& forms, Subject& subject, OracleHandle oracle, u64 cases) {
    const Oracle which = oracle.oracle;
    Runner runner(forms, subject, std::move(oracle), known_differences(), options().seed);
    runner.run(cases, options().mnemonic);
    if (options().complete) runner.look_for_known(states_for_known);
    judge(runner, which != Oracle::silicon || SiliconOracle::surveyed());
}

void compare_with_unicorn(CaseMode mode) {
    const CpuModel model = CpuModel::load("intel-max");
    const Forms forms(mode, model, Oracle::unicorn);
    Subject subject({.mode = mode}, model);
    UnicornOracle unicorn(mode);
    const u64 share = options().cases / 2 / 3;
    compare_with(forms, subject,
                 {Oracle::unicorn, [&](const Case& c) { return unicorn.run(c); }, [&] { return unicorn.data(); },
                  UnicornOracle::reported},
                 share);
}

void compare_with_silicon(CaseMode mode) {
    if (!SiliconOracle::available()) {
        MESSAGE("the native processor is no x86-64: nothing to compare with");
        return;
    }
    const CpuModel model = SiliconOracle::restrict(CpuModel::load(SiliconOracle::model_name()));
    const Forms forms(mode, model, Oracle::silicon);
    Subject subject({.mode = mode,
                     .user = true,
                     .code_selector = SiliconOracle::code_selector(mode),
                     .data_selector = SiliconOracle::data_selector},
                    model);
    SiliconOracle silicon;
    const u64 share = mode == CaseMode::long64 ? options().cases / 2 * 2 / 3 : options().cases / 2 / 3;
    compare_with(forms, subject,
                 {Oracle::silicon, [&](const Case& c) { return silicon.run(c); }, [&] { return silicon.data(); },
                  SiliconOracle::reported},
                 share);
}

}  // namespace

TEST_CASE("unicorn: 16-bit real-address mode") { compare_with_unicorn(CaseMode::real16); }
TEST_CASE("unicorn: 32-bit protected mode") { compare_with_unicorn(CaseMode::protected32); }
TEST_CASE("unicorn: 64-bit mode") { compare_with_unicorn(CaseMode::long64); }
TEST_CASE("silicon: 32-bit protected mode") { compare_with_silicon(CaseMode::protected32); }
TEST_CASE("silicon: 64-bit mode") { compare_with_silicon(CaseMode::long64); }

TEST_CASE("every row is generated or excluded with a reason, and nothing is excluded in vain") {
    std::set<u16> generated, rows, excluded;
    for (const char* model_name : {"intel-max", "amd-max"}) {
        const CpuModel model = CpuModel::load(model_name);
        for (const CaseMode mode : {CaseMode::real16, CaseMode::protected32, CaseMode::long64})
            for (const Oracle oracle : {Oracle::unicorn, Oracle::silicon}) {
                const Forms forms(mode, model, oracle);
                for (const RowForms& row : forms.rows())
                    for (const RowName& name : row_names())
                        if (row.row->name == std::string_view{name.name}) generated.insert(name.mnemonic);
            }
    }
    for (const RowName& row : row_names()) rows.insert(row.mnemonic);
    for (const Exclusion& e : exclusions()) {
        INFO(e.name);
        CHECK(rows.contains(e.mnemonic));
        CHECK(excluded.insert(e.mnemonic).second);
        CHECK(!std::string_view{e.reason}.empty());
    }
    for (const RowName& row : row_names()) {
        const auto e = std::find_if(exclusions().begin(), exclusions().end(),
                                    [&](const Exclusion& x) { return x.mnemonic == row.mnemonic; });
        const bool everywhere = e != exclusions().end() && e->unicorn && e->silicon;
        INFO(row.name);
        CHECK(generated.contains(row.mnemonic) != everywhere);
    }
}

TEST_CASE("known differences: every entry is still needed") {
    if (!options().mnemonic.empty()) return;
    for (const auto& e : known_differences().entries()) {
        if (e.oracle == Oracle::silicon && !(SiliconOracle::available() && SiliconOracle::surveyed())) continue;
        if (!options().complete && e.hits == 0) continue;  // few cases do not meet them all
        INFO(e.mnemonics.front(), ": ", e.why);
        CHECK(e.hits > 0);
    }
}

}  // namespace exeunt::test
