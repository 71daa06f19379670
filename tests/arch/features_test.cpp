// Rows of CPUID features, and processor models made of them.
#include "arch/features.hpp"

#include <doctest/doctest.h>

using namespace exeunt;

namespace {

/// What parsing this model says is wrong; empty when nothing is.
std::string refusal(const std::string& json) {
    try {
        CpuModel::parse(json, "mine.json");
    } catch (const ModelError& error) { return error.what(); }
    return "";
}

std::string model_with(const std::string& more) {
    return R"({"vendor": "GenuineIntel", "brand": "mine", "family": 6, "model": 26, "stepping": 5,
               "physical_bits": 40)" +
           more + "}";
}

} // namespace

TEST_CASE("features: every row is found by its name, and needs a row that exists") {
    for (const FeatureRow& row : feature_rows()) {
        CHECK(find_feature(row.name) == row.feature);
        CHECK(feature_name(row.feature) == row.name);
        CHECK(row.bit < 32);
        CHECK(row.needs != row.feature);
    }
    CHECK(!find_feature("none"));
    CHECK(!find_feature("HYPERVISOR"));
}

TEST_CASE("models: each that is built in loads, and its leaves reach its features") {
    const std::vector<std::string> names = CpuModel::built_in();
    CHECK(names == std::vector<std::string>{"amd-max", "intel-max", "nehalem", "skylake-server", "zen"});
    for (const std::string& name : names) {
        CAPTURE(name);
        const CpuModel model = CpuModel::load(name);
        CHECK(model.name == name);
        CHECK(model.has(Feature::LM));
        CHECK(model.linear_bits == (model.has(Feature::LA57) ? 57 : 48));
        for (const FeatureRow& row : feature_rows()) {
            if (!model.has(row.feature)) continue;
            CHECK(row.leaf <= (row.leaf & 0x8000'0000 ? model.max_extended_leaf : model.max_basic_leaf));
        }
    }
}

TEST_CASE("models: intel-max has VT-x and what KVM wants; the real ones have what they had") {
    CHECK(CpuModel::load("intel-max").has(Feature::VMX));
    CHECK(!CpuModel::load("intel-max").has(Feature::SVM));
    CHECK(!CpuModel::load("amd-max").has(Feature::VMX));
    CHECK(!CpuModel::load("nehalem").has(Feature::PCID)); // came with Westmere
    CHECK(CpuModel::load("skylake-server").has(Feature::PKU));
    CHECK(!CpuModel::load("zen").has(Feature::ERMS));
    CHECK(CpuModel::load("zen").has(Quirk::cpuid_beyond_range_is_zero));
    CHECK((CpuModel::load("intel-max").arch_capabilities & ARCH_CAPABILITIES::RDCL_NO) != 0);
}

TEST_CASE("models: numbers may be written in hexadecimal, as strings") {
    const CpuModel model = CpuModel::parse(model_with(R"(, "microcode": "0x1D")"), "mine.json");
    CHECK(model.microcode == 0x1D);
    CHECK(refusal(model_with(R"(, "microcode": "1D")")).find("mine.json: microcode: expected a number") == 0);
    CHECK(refusal(model_with(R"(, "microcode": "0x")")) != "");
    CHECK(refusal(model_with(R"(, "microcode": "0x1G")")) != "");
    CHECK(refusal(model_with(R"(, "microcode": -1)")) != "");
}

TEST_CASE("models: what is wrong is named with file, key and expectation") {
    CHECK(refusal(model_with("")) == "");
    CHECK(refusal("{").find("mine.json: not JSON") == 0);
    CHECK(refusal("[]") == "mine.json: (top level): expected an object");
    CHECK(refusal("{}") == "mine.json: vendor: expected a string");
    CHECK(refusal(model_with(R"(, "features": ["TSC", "Telepathy"])"))
              .find("mine.json: features: \"Telepathy\"") == 0);
    CHECK(refusal(model_with(R"(, "features": "TSC")")) == "mine.json: features: expected a list of names");
    CHECK(refusal(model_with(R"(, "features": ["AVX"])")) == "mine.json: features: AVX needs XSAVE");
    CHECK(refusal(model_with(R"(, "quirks": ["odd"])")).find("mine.json: quirks: \"odd\" is not a quirk") ==
          0);
    CHECK(refusal(model_with(R"(, "colour": 1)")) == "mine.json: colour: is not a key of a processor model");
    CHECK(refusal(model_with(R"(, "arch_capabilities": ["MDS_NO"])")) ==
          "mine.json: arch_capabilities: needs the feature ARCH_CAPABILITIES");
    CHECK(refusal(model_with(R"(, "vmx": 3)")) == "mine.json: vmx: expected an object");
    CHECK(refusal(model_with(R"(, "caches": [{"type": "victim", "level": 1, "ways": 1, "sets": 1}])")) ==
          "mine.json: caches[0].type: expected \"data\", \"instruction\" or \"unified\"");
    CHECK(refusal(model_with(R"(, "max_basic_leaf": 0)")).find("mine.json: max_basic_leaf: expected") == 0);
}

TEST_CASE("models: an unknown name lists those there are; a missing file is named") {
    CHECK_THROWS_WITH_AS(
        CpuModel::load("pentium"),
        "pentium: no such processor model; there are amd-max intel-max nehalem skylake-server zen, "
        "or give a .json file",
        ModelError);
    CHECK_THROWS_AS(CpuModel::load("/nonexistent/model.json"), ModelError);
}
