// `exeunt cpu`: the processor models and what each offers.
#include "arch/features.hpp"
#include "cli/command.hpp"
#include "base/bad_input.hpp"

#include <fmt/format.h>
#include <memory>

namespace exeunt {

namespace {

CpuModel load(const std::string& name) {
    try {
        return CpuModel::load(name);
    } catch (const ModelError& error) {
        throw BadInput(error.what());
    }
}

void list_models() {
    for (const std::string& name : CpuModel::built_in()) fmt::print("{:16} {}\n", name, load(name).description);
}

void show_model(const std::string& name) {
    static constexpr const char* registers[] = {"EAX", "EBX", "ECX", "EDX"};
    const CpuModel model = load(name);
    fmt::print("{}: {}\n{}\nfamily {:#x}, model {:#x}, stepping {}; {} physical and {} linear address bits\n", model.name,
               model.description, model.brand, model.family, model.model, model.stepping, model.physical_bits,
               model.linear_bits);
    for (const FeatureRow& row : feature_rows())
        if (model.has(row.feature))
            fmt::print("  {:24} CPUID.{:02X}H{}:{}[bit {}]\n", row.name, row.leaf,
                       row.subleaf == 0 ? "" : fmt::format(".{}", row.subleaf),
                       registers[static_cast<unsigned>(row.reg)], row.bit);
}

}  // namespace

void add_cpu(CLI::App& app, Session&) {
    CLI::App* verb = app.add_subcommand("cpu", "List the CPU models, or what one of them offers");
    auto name = std::make_shared<std::string>();
    verb->add_option("MODEL", *name, "a built-in model, or a JSON file");
    verb->callback([name] { name->empty() ? list_models() : show_model(*name); });
}

}  // namespace exeunt
