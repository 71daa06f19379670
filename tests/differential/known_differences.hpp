// known_differences.json: where an oracle is known to differ from exeunt, why, and who is right by the manual.
#pragma once

#include "tests/differential/forms.hpp"

#include <optional>

namespace exeunt::test {

class KnownDifferences {
public:
    /// Throws std::runtime_error for what is no such list.
    static KnownDifferences load(const std::string& file);

    struct Entry {
        Oracle oracle = Oracle::unicorn;
        std::vector<std::string> mnemonics;  ///< "*" is every one; "CVT*" those that begin so
        std::vector<std::string> differs;    ///< as Differences; "xmm*" is every one that begins so
        std::string mode;                    ///< real16, protected32, long64, or empty
        std::string form;                    ///< memory, register, lock, or empty
        std::string ours, theirs;            ///< faults ("#GP", "none", "memory fault"), or empty
        std::string why, right;
        mutable u64 hits = 0;

        bool names(std::string_view row) const;
    };
    /// Whether all differences of this case are listed. Counts the entries that were needed.
    bool explain(Oracle oracle, const Case& c, const Outcome& ours, const Outcome& theirs,
                 const Differences& differences) const;
    const std::vector<Entry>& entries() const { return entries_; }

private:
    std::vector<Entry> entries_;
};

}  // namespace exeunt::test
