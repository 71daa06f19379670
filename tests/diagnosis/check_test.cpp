// The rules of VM entry on dumps. SDM 3C 26.2, 26.3.1; APM 2 15.5.1.
#include "diagnosis/check.hpp"

#include "tests/diagnosis/dump_texts.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

DumpCheck check(const std::string& text, bool strict = false, const char* model = nullptr) {
    REQUIRE(!text.empty());
    const Dump dump = read_dump(text, "f");
    return check_dump(dump, CpuModel::load(model ? model : dump.svm ? "amd-max" : "intel-max"), strict);
}

std::vector<std::string> ids(const std::vector<ExplainedRule>& rules) {
    std::vector<std::string> all;
    for (const ExplainedRule& rule : rules) all.push_back(rule.id);
    return all;
}
using Ids = std::vector<std::string>;

} // namespace

TEST_CASE("check: dumps of guests that can be entered violate no rule, and nothing is left undecided") {
    for (const std::string& text : {kvm_vmcs, xen_vmcs, kvm_vmcb, xen_vmcb}) {
        const DumpCheck result = check(text);
        CHECK(ids(result.violated) == Ids{});
        CHECK(ids(result.undecided) == Ids{});
        CHECK(!result.missing.empty());
        CHECK(!result.assumed.empty());
    }
}

TEST_CASE("check: a violated rule comes with its fields, their values and what they depend on") {
    const DumpCheck result = check(changed(kvm_vmcs, "DR7 = 0x0000000000000400", "DR7 = 0x0000000100000400"));
    REQUIRE(ids(result.violated) == Ids{"guest.dr7.bits_63_32"});
    const ExplainedRule& rule = result.violated.front();
    CHECK(rule.citation == "SDM 3C 26.3.1.1");
    CHECK(rule.words == "load debug controls: DR7 bits 63:32 are 0");
    REQUIRE(rule.fields.size() == 2);
    CHECK(rule.fields[0].name == "guest_dr7");
    CHECK(rule.fields[0].place == "681AH");
    CHECK(rule.fields[0].value == "0x0000000100000400");
    CHECK(rule.fields[0].allowed == "may be 1: 0xffffffff; wrongly 1: bits 32");
    CHECK(rule.fields[1].name == "vm_entry_controls");
    CHECK(rule.fields[1].condition);
}

TEST_CASE("check: all violated rules, controls before host before guest [SDM 3C 26.2, 26.3]") {
    std::string text = changed(kvm_vmcs, "sel=0x0010, attr=0x0a09b", "sel=0x0010, attr=0x0a01b"); // P of CS
    text = changed(text, "CS=0010 SS=0018", "CS=0000 SS=0018"); // of the host
    text = changed(text, "EPT pointer = 0x000000010a00001e", "EPT pointer = 0x000000010a00001d");
    CHECK(ids(check(text).violated) ==
          Ids{"controls.eptp.memory_type", "host.cs.not_null", "guest.segments.p"});
}

TEST_CASE("check: what the dump does not hold decides nothing") {
    // Without its entry controls, "IA-32e mode guest" is not known.
    const DumpCheck result = check(changed(kvm_vmcs, "EntryControls=000093ff", ""));
    CHECK(ids(result.violated) == Ids{});
    CHECK(!result.undecided.empty());
    for (const ExplainedRule& rule : result.undecided)
        CHECK(rule.words.find("the dump does not have") != std::string::npos);
    // TPR threshold against VTPR, which is in memory.
    CHECK(ids(check(changed(kvm_vmcs, "TPR Threshold = 0x00", "TPR Threshold = 0x04")).undecided) ==
          Ids{"controls.tpr_threshold.vtpr"});
}

TEST_CASE(
    "check: control bits that the model does not have are violations only for a model that was chosen") {
    // PT, bit 24 of the secondary controls.
    const std::string text = changed(kvm_vmcs, "SecondaryExec=0x000000aa", "SecondaryExec=0x010000aa");
    CHECK(ids(check(text).undecided) == Ids{"controls.secondary.reserved_bits"});
    CHECK(ids(check(text, true).violated) == Ids{"controls.secondary.reserved_bits"});
    // A bit that must be 1 is wrong everywhere.
    const std::string missing = changed(kvm_vmcs, "PinBased=0x0000003f", "PinBased=0x0000002f");
    CHECK(ids(check(missing).violated) == Ids{"controls.pin_based.reserved_bits"});
}

TEST_CASE("check: PDPTEs of a PAE guest are fields with EPT [SDM 3C 26.3.1.6]") {
    std::string text = changed(kvm_vmcs, "EntryControls=000093ff", "EntryControls=000091ff");
    text = changed(text, "EFER= 0x0000000000000d01", "EFER= 0x0000000000000801");
    text = changed(text, "attr=0x0a09b", "attr=0x0c09b");
    text = changed(text, "RIP = 0xffffffff81001234", "RIP = 0x0000000081001234");
    CHECK(ids(check(text).violated) == Ids{});
    text = changed(text, "PDPTR1 = 0x0000000000000000", "PDPTR1 = 0x0000000000001003");
    CHECK(ids(check(text).violated) == Ids{"guest.pdptes.reserved_bits"});
}

TEST_CASE("check: illegal states of a VMCB, all of them [APM 2 15.5.1]") {
    std::string text = changed(kvm_vmcb, "asid:               10", "asid:               0");
    text = changed(text, "efer:          0000000000001d01", "efer:          0000000000000d01");
    CHECK(ids(check(text).violated) == Ids{"VMRUN-001", "VMRUN-017"});
    CHECK(ids(check(changed(xen_vmcb, "general2_intercepts = 0x2e7f", "general2_intercepts = 0x2e7e"))
                  .violated) == Ids{"VMRUN-013"});
    CHECK(ids(check("{\"vmcb\": {\"efer\": 0}}").undecided) == Ids{"VMRUN-013", "VMRUN-017"});
    CHECK(ids(check("{\"vmcb\": {\"efer\": 0}}").violated) == Ids{"VMRUN-001"});
}
