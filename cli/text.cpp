#include "cli/text.hpp"

#include <cstdlib>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace exeunt {

using nlohmann::ordered_json;

namespace {

bool colours() {
    static const bool wanted = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    return wanted;
}

std::string escape(const char* code, const std::string& text) {
    return colours() ? fmt::format("\033[{}m{}\033[0m", code, text) : text;
}

} // namespace

std::string bold(const std::string& text) { return escape("1", text); }
std::string red(const std::string& text) { return escape("31", text); }

std::string table(const std::vector<std::vector<std::string>>& rows, unsigned indent) {
    std::vector<std::size_t> width;
    for (const auto& row : rows) {
        width.resize(std::max(width.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
    }
    std::string text;
    for (const auto& row : rows) {
        std::string line(indent, ' ');
        for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], width[i]);
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    }
    return text;
}

std::string explained_text(const std::vector<Explained>& lines, unsigned indent) {
    std::vector<std::vector<std::string>> rows;
    for (const Explained& line : lines) rows.push_back({line.name, line.value, line.words});
    return table(rows, indent);
}

std::string rules_text(const std::vector<ExplainedRule>& rules, unsigned indent) {
    const std::string margin(indent, ' ');
    std::string text;
    for (const ExplainedRule& rule : rules) {
        text += fmt::format("{}{}  {}\n", margin, red(rule.id), rule.citation);
        if (!rule.words.empty()) text += fmt::format("{}    {}\n", margin, rule.words);
        for (const ExplainedField& field : rule.fields) {
            text +=
                fmt::format("{}    {}{} ({}) = {}{}\n", margin, field.condition ? "given " : "", field.name,
                            field.place, field.value, field.words.empty() ? "" : ": " + field.words);
            if (!field.allowed.empty()) text += fmt::format("{}        {}\n", margin, field.allowed);
            if (!field.writer.empty()) text += fmt::format("{}        {}\n", margin, field.writer);
        }
    }
    return text;
}

ordered_json explained_json(const std::vector<Explained>& lines) {
    ordered_json out = ordered_json::array();
    for (const Explained& line : lines) {
        if (line.name.empty() && !out.empty()) {
            std::string words = out.back()["words"];
            out.back()["words"] = words.empty() ? line.words : words + ", " + line.words;
        } else {
            out.push_back({{"field", line.name}, {"value", line.value}, {"words", line.words}});
        }
    }
    return out;
}

ordered_json rules_json(const std::vector<ExplainedRule>& rules) {
    ordered_json out = ordered_json::array();
    for (const ExplainedRule& rule : rules) {
        ordered_json fields = ordered_json::array();
        for (const ExplainedField& f : rule.fields)
            fields.push_back({{"name", f.name},
                              {"place", f.place},
                              {"value", f.value},
                              {"words", f.words},
                              {"allowed", f.allowed},
                              {"writer", f.writer},
                              {"condition", f.condition}});
        out.push_back(
            {{"rule", rule.id}, {"citation", rule.citation}, {"words", rule.words}, {"fields", fields}});
    }
    return out;
}

} // namespace exeunt
