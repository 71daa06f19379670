// What verbs print for people: aligned tables, colours where standard output is a terminal.
#pragma once

#include "diagnosis/exits.hpp"
#include "diagnosis/violations.hpp"

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace exeunt {

/// Emphasis on a terminal that wants colours (NO_COLOR is not set); plain text elsewhere.
std::string bold(const std::string& text);
std::string red(const std::string& text);

/// Rows of cells, each column as wide as its widest cell; `indent` spaces in front.
std::string table(const std::vector<std::vector<std::string>>& rows, unsigned indent = 0);

/// A line for each field: name, value, words.
std::string explained_text(const std::vector<Explained>& lines, unsigned indent = 0);
/// The rules with their fields.
std::string rules_text(const std::vector<ExplainedRule>& rules, unsigned indent = 0);

nlohmann::ordered_json explained_json(const std::vector<Explained>& lines);
nlohmann::ordered_json rules_json(const std::vector<ExplainedRule>& rules);

} // namespace exeunt
