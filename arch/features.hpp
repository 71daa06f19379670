// What a processor offers: CPUID feature bits by name, and the processor models that are made of them.
// SDM 2A CPUID; APM 3 Appendix E "Obtaining Processor Information Via the CPUID Instruction".
#pragma once

#include "base/types.hpp"

#include <bitset>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

enum class Feature : u16 {
    none,
#define FEATURE(name, leaf, subleaf, reg, bit, needs, manual) name,
#include "arch/features.inc"
    count
};

/// Registers of CPUID's answer, in the order in which CpuidResult holds them.
enum class CpuidRegister : u8 { EAX, EBX, ECX, EDX };

struct FeatureRow {
    Feature feature;
    std::string_view name;
    u32 leaf;
    u32 subleaf;
    CpuidRegister reg;
    u8 bit;
    Feature needs;
    std::string_view manual;
};

/// The rows of arch/features.inc, in order: row n describes Feature n + 1.
std::span<const FeatureRow> feature_rows();
std::string_view feature_name(Feature feature);
std::optional<Feature> find_feature(std::string_view name);

class FeatureSet {
public:
    bool has(Feature feature) const { return bits_.test(static_cast<std::size_t>(feature)); }
    void set(Feature feature, bool offered = true) { bits_.set(static_cast<std::size_t>(feature), offered); }
    bool operator==(const FeatureSet&) const = default;

private:
    std::bitset<static_cast<std::size_t>(Feature::count)> bits_;
};

/// Differences that no CPUID bit tells (arch/quirks.inc).
enum class Quirk : u8 {
#define QUIRK(name, meaning) name,
#include "arch/quirks.inc"
    count
};

std::string_view quirk_name(Quirk quirk);

/// Bits of IA32_ARCH_CAPABILITIES.
namespace ARCH_CAPABILITIES {
#define ARCH_CAPABILITY(name, bit) inline constexpr u64 name = u64{1} << (bit);
#include "arch/arch_capabilities.inc"
} // namespace ARCH_CAPABILITIES

/// Whose layout of CPUID's vendor-specific leaves and of family, model and stepping applies. It is for that
/// only: a difference in behaviour is a feature or a quirk.
enum class Vendor : u8 { intel, amd };

/// One cache, as CPUID leaf 4 and leaf 8000_001DH describe it. exeunt does not model caches; software asks.
struct CacheDescription {
    enum class Type : u8 { data = 1, instruction = 2, unified = 3 };
    Type type = Type::unified;
    unsigned level = 1;
    unsigned ways = 8;
    unsigned line_size = 64;
    unsigned sets = 64;
    bool shared = false; ///< by all processors of the package, else by the threads of a core
    bool inclusive = false;
};

/// What is wrong with a user's model: names the file, the key and what was expected.
class ModelError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct CpuModel {
    std::string name;
    std::string description;
    Vendor vendor = Vendor::intel;
    std::string brand;                            ///< processor brand string, at most 47 characters
    unsigned family = 6, model = 0, stepping = 0; ///< display family and display model
    unsigned physical_bits = 46;
    unsigned linear_bits = 48; ///< 57 with LA57
    unsigned threads_per_core = 1;
    u32 microcode = 1; ///< update revision (IA32_BIOS_SIGN_ID, PATCH_LEVEL)
    u32 max_basic_leaf = 0, max_extended_leaf = 0;
    FeatureSet features;
    u64 arch_capabilities = 0; ///< IA32_ARCH_CAPABILITIES
    std::vector<CacheDescription> caches;
    std::bitset<static_cast<std::size_t>(Quirk::count)> quirks;
    std::string vmx = "{}"; ///< JSON object of VMX capability values; the vmx folder reads it
    std::string svm = "{}"; ///< the same for the svm folder

    bool has(Feature feature) const { return features.has(feature); }
    bool has(Quirk quirk) const { return quirks.test(static_cast<std::size_t>(quirk)); }

    /// A model of the executable's own by its name (without '/' and ".json"), or one from a user's file.
    /// Throws ModelError.
    static CpuModel load(const std::string& name_or_path);
    /// A model from JSON text; `where` names it in errors. Throws ModelError.
    static CpuModel parse(std::string_view json, const std::string& where);
    /// The names of the models that are built in, sorted.
    static std::vector<std::string> built_in();
};

} // namespace exeunt
