#include "tests/differential/known_differences.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace exeunt::test {

namespace {

bool matches(const std::string& pattern, std::string_view name) {
    if (!pattern.empty() && pattern.back() == '*') return name.substr(0, pattern.size() - 1) == pattern.substr(0, pattern.size() - 1);
    return pattern == name;
}

bool matches_any(const std::vector<std::string>& patterns, std::string_view name) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) { return matches(p, name); });
}

/// The name of a fault without its error code.
std::string plain_name(const Fault& fault) {
    Fault plain;
    plain.vector = fault.vector;
    return fault_name(plain);
}

bool applies(const KnownDifferences::Entry& e, Oracle oracle, const Case& c, const Outcome& ours,
             const Outcome& theirs) {
    static constexpr const char* modes[] = {"real16", "protected32", "long64"};
    if (e.oracle != oracle || !matches_any(e.mnemonics, c.insn.row->name)) return false;
    if (!e.mode.empty() && e.mode != modes[static_cast<unsigned>(c.mode)]) return false;
    if (e.form == "memory" && !c.insn.has_memory()) return false;
    if (e.form == "register" && c.insn.has_memory()) return false;
    if (e.form == "lock" && !c.insn.lock) return false;
    if (!e.ours.empty() && e.ours != plain_name(ours.fault)) return false;
    return e.theirs.empty() || e.theirs == plain_name(theirs.fault);
}

}  // namespace

bool KnownDifferences::Entry::names(std::string_view row) const { return matches_any(mnemonics, row); }

KnownDifferences KnownDifferences::load(const std::string& file) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error(file + ": can not be read");
    KnownDifferences list;
    for (const auto& row : nlohmann::json::parse(in)) {
        Entry e;
        e.oracle = row.at("oracle") == "unicorn" ? Oracle::unicorn : Oracle::silicon;
        e.mnemonics = row.at("mnemonics").get<std::vector<std::string>>();
        e.differs = row.at("differs").get<std::vector<std::string>>();
        e.mode = row.value("mode", "");
        e.form = row.value("form", "");
        e.ours = row.value("ours", "");
        e.theirs = row.value("theirs", "");
        e.why = row.at("why");
        e.right = row.at("right");
        list.entries_.push_back(std::move(e));
    }
    return list;
}

bool KnownDifferences::explain(Oracle oracle, const Case& c, const Outcome& ours, const Outcome& theirs,
                               const Differences& differences) const {
    std::vector<const Entry*> needed;
    for (const std::string& difference : differences) {
        const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) {
            return matches_any(e.differs, difference) && applies(e, oracle, c, ours, theirs);
        });
        if (found == entries_.end()) return false;
        needed.push_back(&*found);
    }
    for (const Entry* e : needed) ++e->hits;
    return true;
}

}  // namespace exeunt::test
