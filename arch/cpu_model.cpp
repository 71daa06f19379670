// Reads processor models. They are JSON: what a user writes wrongly is answered with file, key and
// expectation.
#include "arch/features.hpp"

#include "base/bits.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>

namespace exeunt {

namespace {

using nlohmann::json;

struct BuiltInModel {
    const char* name;
    const char* text;
};

constexpr BuiltInModel built_in_models[] = {
#define MODEL(name, text) {name, text},
#include "arch/builtin_models.inc"
};

struct ArchCapability {
    std::string_view name;
    u64 mask;
};

constexpr ArchCapability arch_capability_rows[] = {
#define ARCH_CAPABILITY(name, bit) {#name, u64{1} << (bit)},
#include "arch/arch_capabilities.inc"
};

[[noreturn]] void refuse(const std::string& where, const std::string& key, const std::string& expected) {
    throw ModelError(where + ": " + key + ": " + expected);
}

/// One JSON object: typed access to its members, and a complaint about those that nobody asked for.
class Reader {
public:
    Reader(const json& object, std::string where, std::string path)
        : object_(object), where_(std::move(where)), path_(std::move(path)) {
        if (!object_.is_object()) refuse(where_, path_.empty() ? "(top level)" : path_, "expected an object");
    }

    std::string key(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }
    bool contains(const char* name) const { return object_.contains(name); }
    const json* find(const char* name) {
        known_.insert(name);
        const auto it = object_.find(name);
        return it == object_.end() ? nullptr : &*it;
    }
    u64 number(const char* name, u64 low, u64 high, std::optional<u64> otherwise = std::nullopt) {
        const json* value = find(name);
        if (!value && otherwise) return *otherwise;
        const std::optional<u64> read = value ? as_number(*value) : std::nullopt;
        if (!read || *read < low || *read > high)
            refuse(where_, key(name),
                   "expected a number from " + std::to_string(low) + " to " + std::to_string(high) +
                       ", or as a string in hexadecimal, \"0x...\"");
        return *read;
    }
    unsigned small(const char* name, u64 low, u64 high, std::optional<u64> otherwise = std::nullopt) {
        return static_cast<unsigned>(number(name, low, high, otherwise));
    }
    std::string text(const char* name, std::optional<std::string> otherwise = std::nullopt) {
        const json* value = find(name);
        if (!value && otherwise) return *otherwise;
        if (!value || !value->is_string()) refuse(where_, key(name), "expected a string");
        return value->get<std::string>();
    }
    bool boolean(const char* name) {
        const json* value = find(name);
        if (!value) return false;
        if (!value->is_boolean()) refuse(where_, key(name), "expected true or false");
        return value->get<bool>();
    }
    /// A list of names; `take` returns false for one that it does not know.
    template <class Take>
    void names(const char* name, const char* what, Take take) {
        const json* value = find(name);
        if (!value) return;
        if (!value->is_array()) refuse(where_, key(name), "expected a list of names");
        for (const json& item : *value) {
            if (!item.is_string()) refuse(where_, key(name), "expected a list of names");
            const std::string word = item.get<std::string>();
            if (!take(word)) refuse(where_, key(name), "\"" + word + "\" is not " + what);
        }
    }
    /// An object that another folder reads, as text.
    std::string object_text(const char* name) {
        const json* value = find(name);
        if (!value) return "{}";
        if (!value->is_object()) refuse(where_, key(name), "expected an object");
        return value->dump();
    }
    void no_others() const {
        for (const auto& item : object_.items())
            if (!known_.contains(item.key()))
                refuse(where_, key(item.key()), "is not a key of a processor model");
    }
    const std::string& where() const { return where_; }

private:
    static std::optional<u64> as_number(const json& value) {
        if (value.is_number_unsigned()) return value.get<u64>();
        if (!value.is_string()) return std::nullopt;
        const std::string text = value.get<std::string>();
        u64 result = 0;
        const auto [end, error] = std::from_chars(text.data() + std::min<std::size_t>(2, text.size()),
                                                  text.data() + text.size(), result, 16);
        if (!text.starts_with("0x") || error != std::errc{} || end != text.data() + text.size())
            return std::nullopt;
        return result;
    }

    const json& object_;
    std::string where_;
    std::string path_;
    std::set<std::string> known_;
};

void read_features(Reader& reader, CpuModel& model) {
    reader.names("features", "a feature that exeunt models (arch/features.inc)",
                 [&](const std::string& word) {
                     const std::optional<Feature> feature = find_feature(word);
                     if (feature) model.features.set(*feature);
                     return feature.has_value();
                 });
    for (const FeatureRow& row : feature_rows())
        if (model.has(row.feature) && row.needs != Feature::none && !model.has(row.needs))
            refuse(reader.where(), "features",
                   std::string(row.name) + " needs " + std::string(feature_name(row.needs)));
    reader.names("quirks", "a quirk (arch/quirks.inc)", [&](const std::string& word) {
        for (std::size_t i = 0; i < model.quirks.size(); ++i)
            if (quirk_name(static_cast<Quirk>(i)) == word) {
                model.quirks.set(i);
                return true;
            }
        return false;
    });
    reader.names("arch_capabilities", "a bit of IA32_ARCH_CAPABILITIES (arch/arch_capabilities.inc)",
                 [&](const std::string& word) {
                     for (const ArchCapability& row : arch_capability_rows)
                         if (row.name == word) {
                             model.arch_capabilities |= row.mask;
                             return true;
                         }
                     return false;
                 });
    if (model.arch_capabilities != 0 && !model.has(Feature::ARCH_CAPABILITIES))
        refuse(reader.where(), "arch_capabilities", "needs the feature ARCH_CAPABILITIES");
}

void read_caches(Reader& reader, CpuModel& model) {
    const json* list = reader.find("caches");
    if (!list) return;
    if (!list->is_array() || list->size() > 8)
        refuse(reader.where(), "caches", "expected a list of at most 8 objects");
    for (std::size_t i = 0; i < list->size(); ++i) {
        Reader item((*list)[i], reader.where(), "caches[" + std::to_string(i) + "]");
        CacheDescription cache;
        const std::string type = item.text("type");
        if (type == "data")
            cache.type = CacheDescription::Type::data;
        else if (type == "instruction")
            cache.type = CacheDescription::Type::instruction;
        else if (type == "unified")
            cache.type = CacheDescription::Type::unified;
        else
            refuse(item.where(), item.key("type"), "expected \"data\", \"instruction\" or \"unified\"");
        cache.level = item.small("level", 1, 4);
        cache.ways = item.small("ways", 1, 1024);
        cache.line_size = item.small("line_size", 16, 4096, 64);
        cache.sets = item.small("sets", 1, u64{1} << 24);
        cache.shared = item.boolean("shared");
        cache.inclusive = item.boolean("inclusive");
        item.no_others();
        model.caches.push_back(cache);
    }
}

u32 highest_leaf(const CpuModel& model, u32 base, u32 at_least) {
    u32 highest = at_least;
    for (const FeatureRow& row : feature_rows())
        if (model.has(row.feature) && (row.leaf & 0x8000'0000) == base) highest = std::max(highest, row.leaf);
    return highest;
}

void read_identity(Reader& reader, CpuModel& model) {
    const std::string vendor = reader.text("vendor");
    if (vendor == "GenuineIntel")
        model.vendor = Vendor::intel;
    else if (vendor == "AuthenticAMD")
        model.vendor = Vendor::amd;
    else
        refuse(reader.where(), "vendor", "expected \"GenuineIntel\" or \"AuthenticAMD\"");
    model.description = reader.text("description", "");
    model.brand = reader.text("brand");
    if (model.brand.size() > 47) refuse(reader.where(), "brand", "expected at most 47 characters");
    model.family = reader.small("family", 3, 0xF + 0xFF);
    model.model = reader.small("model", 0, 0xFF);
    if (model.model > 0xF && model.family != 6 && model.family < 0xF)
        refuse(reader.where(), "model", "expected at most 15: this family has no extended model");
    model.stepping = reader.small("stepping", 0, 0xF);
    model.microcode = reader.small("microcode", 0, 0xFFFF'FFFF, 1);
    model.physical_bits = reader.small("physical_bits", 32, 52);
    model.threads_per_core = reader.small("threads_per_core", 1, 2, 1);
}

} // namespace

CpuModel CpuModel::parse(std::string_view text, const std::string& where) {
    json document;
    try {
        document = json::parse(text);
    } catch (const json::exception& error) { throw ModelError(where + ": not JSON: " + error.what()); }
    Reader reader(document, where, "");
    CpuModel model;
    read_identity(reader, model);
    read_features(reader, model);
    read_caches(reader, model);
    model.linear_bits = model.has(Feature::LA57) ? 57 : model.has(Feature::LM) ? 48 : 32;
    const u32 basic = highest_leaf(model, 0, 1), extended = highest_leaf(model, 0x8000'0000, 0x8000'0008);
    model.max_basic_leaf = reader.small("max_basic_leaf", basic, 0xFF, basic);
    model.max_extended_leaf = reader.small("max_extended_leaf", extended, 0x8000'00FF, extended);
    model.vmx = reader.object_text("vmx");
    model.svm = reader.object_text("svm");
    reader.no_others();
    return model;
}

CpuModel CpuModel::load(const std::string& name_or_path) {
    for (const BuiltInModel& row : built_in_models)
        if (name_or_path == row.name) {
            CpuModel model = parse(row.text, std::string("cpu/models/") + row.name + ".json");
            model.name = row.name;
            return model;
        }
    if (name_or_path.find('/') == std::string::npos && !name_or_path.ends_with(".json")) {
        std::string known;
        for (const std::string& name : built_in()) known += " " + name;
        throw ModelError(name_or_path + ": no such processor model; there are" + known +
                         ", or give a .json file");
    }
    std::ifstream file(name_or_path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file) throw ModelError(name_or_path + ": can not be read: expected a processor model in JSON");
    CpuModel model = parse(text.str(), name_or_path);
    model.name = name_or_path;
    return model;
}

std::vector<std::string> CpuModel::built_in() {
    std::vector<std::string> names;
    for (const BuiltInModel& row : built_in_models) names.emplace_back(row.name);
    std::sort(names.begin(), names.end());
    return names;
}

} // namespace exeunt
