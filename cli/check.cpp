// `exeunt check`: the rules of VM entry on the VMCS or VMCB dump of another hypervisor.
#include "diagnosis/check.hpp"
#include "base/bad_input.hpp"
#include "cli/command.hpp"
#include "cli/text.hpp"

#include <fmt/format.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

namespace exeunt {

namespace {

constexpr int status_violated = 12;

struct CheckOptions {
    std::string file, cpu, format = "text";
};

std::string read_file(const std::string& path) {
    if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
    std::error_code ignored;
    std::ifstream in(path, std::ios::binary);
    if (!in || std::filesystem::is_directory(path, ignored)) throw BadInput(path, "", "a readable file");
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Without --cpu: a processor that has everything, also the widest physical addresses.
CpuModel model_for(const Dump& dump, const std::string& name) {
    try {
        CpuModel model = CpuModel::load(!name.empty() ? name : dump.svm ? "amd-max" : "intel-max");
        if (!model.has(dump.svm ? Feature::SVM : Feature::VMX))
            throw BadInput("--cpu", name,
                           dump.svm ? "a model with AMD-V, for a VMCB" : "a model with VT-x, for a VMCS");
        if (name.empty()) model.physical_bits = 52;
        return model;
    } catch (const ModelError& error) { throw BadInput(error.what()); }
}

/// Names on lines of readable length.
std::string wrapped(const std::vector<std::string>& names) {
    constexpr std::size_t width = 100;
    std::string text, line = "   ";
    for (const std::string& name : names) {
        if (line.size() + name.size() > width) {
            text += line + "\n";
            line = "   ";
        }
        line += " " + name;
    }
    return text + line + "\n";
}

void print_text(const CheckOptions& o, const Dump& dump, const DumpCheck& check, const std::string& model) {
    fmt::print("{}\n", bold(fmt::format("{}: {} dump of a {} from line {}, {} numbers; rules of {}{}", o.file,
                                        dump.source, dump.svm ? "VMCB" : "VMCS", dump.first_line, dump.fields,
                                        model, o.cpu.empty() ? " (--cpu chooses another)" : "")));
    if (check.violated.empty()) {
        fmt::print("no rule is violated\n");
    } else {
        fmt::print("{} violated rule{}, in the processor's order:\n\n{}", check.violated.size(),
                   check.violated.size() == 1 ? "" : "s", rules_text(check.violated, 2));
    }
    if (!check.undecided.empty())
        fmt::print("\n{} that the dump does not decide:\n\n{}", check.undecided.size(),
                   rules_text(check.undecided, 2));
    fmt::print("\nassumed:\n");
    for (const std::string& sentence : check.assumed) fmt::print("    {}\n", sentence);
    if (!check.missing.empty())
        fmt::print("not in the dump, taken for 0 ({} fields):\n{}", check.missing.size(),
                   wrapped(check.missing));
}

int check(const CheckOptions& o) {
    const Dump dump = read_dump(read_file(o.file), o.file);
    const CpuModel model = model_for(dump, o.cpu);
    const DumpCheck result = check_dump(dump, model, !o.cpu.empty());
    if (o.format == "json") {
        const nlohmann::ordered_json out{{"file", o.file},
                                         {"source", dump.source},
                                         {"kind", dump.svm ? "vmcb" : "vmcs"},
                                         {"line", dump.first_line},
                                         {"cpu", model.name},
                                         {"violated", rules_json(result.violated)},
                                         {"undecided", rules_json(result.undecided)},
                                         {"assumed", result.assumed},
                                         {"missing", result.missing},
                                         {"read", nlohmann::ordered_json::parse(dump_as_json(dump))}};
        fmt::print("{}\n", out.dump(2));
    } else {
        print_text(o, dump, result, model.name);
    }
    return result.violated.empty() ? 0 : status_violated;
}

constexpr const char* footer =
    R"(FILE (- is standard input) holds what Linux's KVM prints in dmesg when a VM entry fails (the modules' parameters
dump_invalid_vmcs=1 and dump_invalid_vmcb=1), what Xen prints (also with debug key v), with whatever dmesg, syslog or a
serial line put in front, or JSON: {"vmcs": {"guest_cr0": "0x80050033", ...}} or {"vmcb": {...}}.

Status 0: no rule is violated; 12: at least one is; 2: the file holds no dump, or a line of it is damaged.)";

} // namespace

void add_check(CLI::App& app, Session& session) {
    CLI::App* verb =
        app.add_subcommand("check", "Check a VMCS or VMCB dump of KVM or Xen against the rules of VM entry");
    auto o = std::make_shared<CheckOptions>();
    verb->add_option("FILE", o->file, "the dump")->required();
    verb->add_option("--cpu", o->cpu, "CPU model: a name that `exeunt cpu` lists, or a JSON file");
    verb->add_option("--format", o->format, "text or json")
        ->check(CLI::IsMember({"text", "json"}))
        ->capture_default_str();
    verb->footer(footer);
    verb->callback([o, &session] { session.status = check(*o); });
}

} // namespace exeunt
