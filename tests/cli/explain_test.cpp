// `exeunt explain`, `exeunt check` and `exeunt trace show` as a user has them.
#include "base/types.hpp"
#include "tests/diagnosis/dump_texts.hpp"
#include "tests/machine/images.hpp"
#include "tests/machine/programs.hpp"
#include "tests/traces/samples.hpp"
#include "traces/recorder.hpp"

#include <algorithm>
#include <cstdio>
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct Outcome {
    int status = -1;
    std::string out; ///< standard error, too
    bool has(const std::string& text) const { return out.find(text) != std::string::npos; }
};

Outcome exeunt_with(const std::string& arguments) {
    std::FILE* pipe = popen((EXEUNT_BINARY_DIR "/exeunt " + arguments + " </dev/null 2>&1").c_str(), "r");
    REQUIRE(pipe != nullptr);
    Outcome outcome;
    char buffer[4096];
    while (const std::size_t got = std::fread(buffer, 1, sizeof buffer, pipe))
        outcome.out.append(buffer, got);
    const int status = pclose(pipe);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return outcome;
}

bool bad_input(const Outcome& outcome) {
    return outcome.status == 2 && std::count(outcome.out.begin(), outcome.out.end(), '\n') == 1 &&
           outcome.out.starts_with("exeunt: ");
}

/// Records by hand: an exit, then a refused entry with two violations.
struct Sample : TemporaryDirectory {
    Sample() {
        Recorder recorder(*this / "t");
        recorder.describe("{}");
        recorder.vm_exit(0, 10,
                         {.reason = 48,
                          .qualification = 0x182,
                          .rip = 0x1000,
                          .guest_linear = 0x7000,
                          .guest_physical = 0x9000});
        const RuleViolation violations[] = {sample_violation,
                                            {.rule = "guest.rflags.if",
                                             .field = 0x6820,
                                             .value = 2,
                                             .allowed = {},
                                             .writer = {WrittenBy::Kind::processor, 1, 0x55, 9}}};
        EntryFailureRecord failure = sample_failure;
        failure.violations = violations;
        recorder.vm_entry_failure(0, 20, failure);
        recorder.vm_entry(0, 30, {.rip = 0x2000, .launch = true});
        recorder.end(40, {0, 0, sample_hash});
    }
};

} // namespace

TEST_CASE("trace show: a VM exit with its qualification in words") {
    const Sample s;
    const Outcome outcome = exeunt_with("trace show " + s / "t" + " --record 1");
    CHECK(outcome.status == 0);
    CHECK(outcome.has("record 1: vm_exit at tick 10, CPU 0, VT-x"));
    CHECK(outcome.has("EPT violation"));
    CHECK(outcome.has("data write"));
    CHECK(outcome.has("0x9000"));
    CHECK(exeunt_with("trace show " + s / "t" + " --exit 1").out == outcome.out);
}

TEST_CASE(
    "trace show: a refused entry with every violated rule, its value, what is allowed, and the last writer") {
    const Sample s;
    const Outcome outcome = exeunt_with("trace show " + s / "t" + " --record 2");
    CHECK(outcome.status == 0);
    CHECK(outcome.has("guest.dr7.bits_63_32  SDM 3C 26.3.1.1"));
    CHECK(outcome.has("load debug controls: DR7 bits 63:32 are 0"));
    CHECK(outcome.has("guest_dr7 (681AH) = 0x0000000100000400"));
    CHECK(outcome.has("must be 1: 0x400; may be 1: 0xffffffff; wrongly 1: bits 32"));
    CHECK(outcome.has("written at 0xffff800012345678, tick 1250999896491, CPU 3"));
    CHECK(outcome.has("guest.rflags.if"));
    CHECK(outcome.has("saved by the VM exit at guest RIP 0x55, tick 9, CPU 1"));
    const auto json =
        nlohmann::json::parse(exeunt_with("trace show --format json " + s / "t" + " --record 2").out);
    CHECK(json["violated"].size() == 2);
    CHECK(json["violated"][0]["rule"] == "guest.dr7.bits_63_32");
    CHECK(json["violated"][0]["fields"][0]["place"] == "681AH");
    // One of the violations by its own number, and what follows them.
    CHECK(exeunt_with("trace show " + s / "t" + " --record 4").has("guest.rflags.if"));
    CHECK(exeunt_with("trace show " + s / "t" + " --record 5").has("VMLAUNCH"));
    CHECK(exeunt_with("trace show " + s / "t" + " --record 6").has("powered off"));
}

TEST_CASE("trace show: a record that is not there") {
    const Sample s;
    const Outcome outcome = exeunt_with("trace show " + s / "t" + " --record 7");
    CHECK(bad_input(outcome));
    CHECK(outcome.has("--record: expected a number up to 6"));
    CHECK(bad_input(exeunt_with("trace show " + s / "t" + " --exit 2")));
    CHECK(bad_input(exeunt_with("trace show " + s / "t")));
    CHECK(bad_input(exeunt_with("trace show " + s / "t" + " --record 0")));
    CHECK(bad_input(exeunt_with("trace show " + s / "nothing" + " --record 1")));
}

TEST_CASE("explain: exits, fields and rules of the manuals") {
    CHECK(exeunt_with("explain exit 28 0x10").has("MOV from CR"));
    CHECK(exeunt_with("explain exit 'EPT violation' 0x181").has("data read"));
    CHECK(exeunt_with("explain exit 23 0 0x30000428").has("register with the encoding"));
    CHECK(exeunt_with("explain exit --vendor amd 0x7b 0x3f80011 0x1002").has("0x1002"));
    CHECK(exeunt_with("explain field 6800 0x80000021").has("PE NE PG"));
    CHECK(exeunt_with("explain field 2801H").has("its high half"));
    CHECK(exeunt_with("explain field guest_dr7").has("guest.dr7.bits_63_32"));
    CHECK(exeunt_with("explain field --vendor amd cr4").has("VMRUN-005"));
    CHECK(exeunt_with("explain rule VMRUN-013").has("the VMRUN intercept bit is clear"));
    for (const char* wrong :
         {"exit 71", "exit hello", "field 0x9999", "field guest_cr9", "field guest_cr0 zz", "rule guest.x",
          "exit --vendor amd 0x300", "", "exit 48 0x18446744073709551616"})
        CHECK_MESSAGE(bad_input(exeunt_with("explain " + std::string(wrong))), wrong);
}

TEST_CASE("explain: illegal states of a VMRUN, with who stored each field of the VMCB last [APM 2 15.5.1]") {
    using namespace exeunt::test::programs;
    const Bytes program =
        Bytes{0xB9, 0x80, 0x00, 0x00, 0xC0} +                                 // mov ecx, 0xc0000080
        Bytes{0x0F, 0x32, 0x0D, 0x00, 0x10, 0x00, 0x00, 0x0F, 0x30} +         // rdmsr; or eax, 0x1000; wrmsr
        Bytes{0xC7, 0x05, 0xD0, 0x84, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00} +   // mov dword [0x84d0], 1
        Bytes{0xB8, 0x00, 0x80, 0x00, 0x00, 0x0F, 0x01, 0xD8} + exit_with(1); // mov eax, 0x8000; vmrun
    const TemporaryDirectory d;
    const auto image = multiboot_flat(program);
    write_text(d / "kernel", {image.begin(), image.end()});
    CHECK(exeunt_with("run --cpu amd-max --memory 16M --serial none --kernel " + d / "kernel" + " --trace " +
                      d / "t")
              .status == 3);
    const Outcome outcome = exeunt_with("explain " + d / "t" + " --record 1 --writers");
    CHECK(outcome.status == 0);
    CHECK(outcome.has("EXITCODE"));
    CHECK(outcome.has("INVALID"));
    CHECK(outcome.has("VMRUN-001  APM 2 15.5.1"));
    CHECK(outcome.has("efer (4D0H) = 0x0000000000000001: SCE"));
    CHECK(outcome.has("written at 0x"));
    CHECK(outcome.has("VMRUN-013"));
    CHECK(outcome.has("VMRUN-017"));
    CHECK(!exeunt_with("explain " + d / "t" + " --record 1").has("written at"));
}

TEST_CASE("check: status 0 without a violation, 12 with one, 2 for what is no dump") {
    const TemporaryDirectory d;
    write_text(d / "good", kvm_vmcs);
    const Outcome good = exeunt_with("check " + d / "good");
    CHECK(good.status == 0);
    CHECK(good.has("no rule is violated"));
    CHECK(good.has("not in the dump, taken for 0"));
    write_text(d / "bad", changed(kvm_vmcb, "asid:               10", "asid:               0"));
    const Outcome bad = exeunt_with("check " + d / "bad");
    CHECK(bad.status == 12);
    CHECK(bad.has("VMRUN-017"));
    CHECK(bad.has("guest_asid (58H) = 0x00000000"));
    const auto json = nlohmann::json::parse(exeunt_with("check --format json " + d / "bad").out);
    CHECK(json["kind"] == "vmcb");
    CHECK(json["violated"][0]["rule"] == "VMRUN-017");
    write_text(d / "json", json["read"].dump());
    CHECK(exeunt_with("check " + d / "json").status == 12);
    write_text(d / "none", "hello\n");
    CHECK(bad_input(exeunt_with("check " + d / "none")));
    write_text(d / "damaged", changed(kvm_vmcs, "CR3 = 0x", "CR3 = 0xq"));
    const Outcome damaged = exeunt_with("check " + d / "damaged");
    CHECK(bad_input(damaged));
    CHECK(damaged.has("line 5: CR3: expected a number"));
    CHECK(bad_input(exeunt_with("check " + d / "not-there")));
    CHECK(bad_input(exeunt_with("check " + d.path)));
    CHECK(bad_input(exeunt_with("check --cpu amd-max " + d / "good")));
    CHECK(bad_input(exeunt_with("check --cpu nobody " + d / "good")));
}
