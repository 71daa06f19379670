// The rows of features.inc as data, and the checks that they keep.
#include "arch/features.hpp"

#include <array>

namespace exeunt {

namespace {

constexpr std::array rows{
#define FEATURE(name, leaf, subleaf, reg, bit, needs, manual) \
    FeatureRow{Feature::name, #name, leaf, subleaf, CpuidRegister::reg, bit, Feature::needs, manual},
#include "arch/features.inc"
};

constexpr std::array<std::string_view, static_cast<std::size_t>(Quirk::count)> quirk_names{
#define QUIRK(name, meaning) #name,
#include "arch/quirks.inc"
};

constexpr bool bits_are_unique() {
    for (std::size_t i = 0; i < rows.size(); ++i)
        for (std::size_t j = i + 1; j < rows.size(); ++j)
            if (rows[i].leaf == rows[j].leaf && rows[i].subleaf == rows[j].subleaf &&
                rows[i].reg == rows[j].reg && rows[i].bit == rows[j].bit)
                return false;
    return true;
}

static_assert(rows.size() + 1 == static_cast<std::size_t>(Feature::count));
static_assert(bits_are_unique(), "two features have the same CPUID bit");

} // namespace

std::span<const FeatureRow> feature_rows() { return rows; }

std::string_view feature_name(Feature feature) {
    return feature == Feature::none || feature == Feature::count
               ? std::string_view{"none"}
               : rows[static_cast<std::size_t>(feature) - 1].name;
}

std::optional<Feature> find_feature(std::string_view name) {
    for (const FeatureRow& row : rows)
        if (row.name == name) return row.feature;
    return std::nullopt;
}

std::string_view quirk_name(Quirk quirk) { return quirk_names[static_cast<std::size_t>(quirk)]; }

} // namespace exeunt
