// Runs cases on exeunt and on an oracle, compares, and makes the failures small.
#pragma once

#include "tests/differential/generator.hpp"
#include "tests/differential/known_differences.hpp"
#include "tests/differential/subject.hpp"

#include <functional>
#include <map>

namespace exeunt::test {

struct Options {
    u64 seed = 1;
    u64 cases = 20'000;       ///< in all
    std::string mnemonic;     ///< only this row
    bool complete = false;    ///< every entry of the known differences must be needed
};
/// What the command line said.
Options& options();

/// An oracle without its type.
struct OracleHandle {
    Oracle oracle = Oracle::unicorn;
    std::function<Outcome(const Case&)> run;
    std::function<std::span<u8>()> data;
    Reported reported;
};

class Runner {
public:
    Runner(const Forms& forms, Subject& subject, OracleHandle oracle, const KnownDifferences& known, u64 seed);

    /// Compares this many cases of all rows or of one. Failures are collected.
    void run(u64 cases, const std::string& only_row = "");
    /// Runs cases of the rows that entries of the known differences name and that have shown none so far.
    void look_for_known(u64 cases_per_row);

    u64 cases_run() const { return cases_; }
    const std::vector<std::string>& failures() const { return failures_; }
    const std::map<std::string, u64>& failures_by_row() const { return by_row_; }

private:
    struct Comparison {
        Outcome ours, theirs;
        Differences differences;
        bool known = false;
    };
    Comparison compare_case(const Case& c);
    void prepare(const Case& c, std::span<u8> data);
    void restore(std::span<u8> data);
    bool safe(const Case& c, const Outcome& ours) const;
    bool fails(const Case& c);
    Case minimized(Case c);
    void examine(const Case& c, u64 number);

    const Forms& forms_;
    Subject& subject_;
    OracleHandle oracle_;
    const KnownDifferences& known_;
    Generator generator_;
    u64 seed_;
    std::vector<u8> pristine_;
    u64 cases_ = 0;
    std::vector<std::string> failures_;
    std::map<std::string, u64> by_row_;
};

}  // namespace exeunt::test
