// A violated rule of VM entry for people: id, section, words, the fields with what they hold, what was
// allowed, and who wrote them last.
#pragma once

#include "arch/observer.hpp"
#include "traces/records.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

struct ExplainedField {
    std::string name, place, value;       ///< place: the encoding, or the offset in the VMCB
    std::string words;                    ///< the value in words
    std::string allowed;                  ///< bits; empty: the rule's words say it
    std::string writer;                   ///< empty: unknown
    u32 number = RuleViolation::no_field; ///< the place, as a number
    unsigned bytes = 8;
    bool condition = false; ///< it says whether the rule applies; not itself wrong
};

struct ExplainedRule {
    std::string id, citation, words;
    std::vector<ExplainedField> fields;
};

/// The rule of this id; words and citation are empty when this version has none of that name.
ExplainedRule explain_rule(bool svm, std::string_view id);
/// `violation` goes to the rule above it if it is the same, or begins a new one.
void add_violation(std::vector<ExplainedRule>& rules, bool svm, const RuleViolation& violation);
/// The same out of a record of kind `violation`.
void add_violation(std::vector<ExplainedRule>& rules, const Record& record);

ExplainedField explain_field(bool svm, const RuleViolation& violation);
/// "must be 1: 0x2021; may be 1: 0x...; wrong: bits 5, 3" of a value; empty where bits are not restricted.
std::string allowed_in_words(const AllowedBits& allowed, u64 value);
std::string writer_in_words(const WrittenBy& writer);

} // namespace exeunt
