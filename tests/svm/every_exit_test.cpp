// Every exit code, intercept and clean group of the tables has a test: a row that is added without one fails
// here. APM 2 App. C "SVM Intercept Exit Codes", App. B "VMCB Layout".
#include "tests/support/svm_harness.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <set>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct Row {
    const char* name;
    u64 code;
};
const Row rows[] = {
#define EXIT(name, code) {#name, code},
#define EXIT_RANGE(prefix, what, code) {#prefix "0_" #what, code},
#include "svm/exit_codes.inc"
};

/// What no test can reach, and why.
const std::map<std::string, const char*> not_reached = {{"VMGEXIT", "only guests of SEV-ES have it"}};

/// The text of all tests of svm: they name exit codes as ExitCode::NAME.
std::string tests_text() {
    std::string all;
    for (const char* file :
         {"additions", "avic", "events", "every_exit", "exits", "instructions", "vmrun_checks"}) {
        std::ifstream in("tests/svm/" + std::string(file) + "_test.cpp");
        REQUIRE(in);
        all.append(std::istreambuf_iterator<char>(in), {});
    }
    return all;
}

using T = SvmHarness;

/// Instructions that only their intercept needs a look at.
struct Case {
    u64 code;
    const char* bytes;
    const char* text;
    void (*prepare)(T&) = [](T&) {};
};
const Case cases[] = {
    {ExitCode::RSM, "0f aa", "rsm"},
    {ExitCode::IRET, "48 cf", "iretq"},
    {ExitCode::INVPCID, "66 0f 38 82 03", "invpcid rax, xmmword ptr [rbx]"},
    {ExitCode::IDTR_WRITE, "0f 01 1b", "lidt [rbx]"},
    {ExitCode::GDTR_WRITE, "0f 01 13", "lgdt [rbx]"},
    {ExitCode::TR_WRITE, "0f 00 d8", "ltr ax"},
    {ExitCode::MWAIT_CONDITIONAL, "0f 01 c8 0f 01 c9", "monitor; mwait",
     [](T& t) { t.set(VMCB::rax, T::data_address); }},
};

} // namespace

TEST_CASE("Every exit code has a test, or a reason why not [APM 2 App. C]") {
    const std::string text = tests_text();
    for (const Row& row : rows) {
        const bool tested = text.find("ExitCode::" + std::string(row.name)) != std::string::npos;
        const std::string name = row.name;
        CHECK_MESSAGE(tested != not_reached.contains(name), name);
    }
}

TEST_CASE(
    "Every instruction, MSR and rule of the tables is named by a test [APM 3 ch. 4; APM 2 15.30, 15.5.1]") {
    const std::string text = tests_text();
    const char* const instructions[] = {
#define INSN(mnemonic, fault, intercept, ends) "\"" #intercept,
#include "svm/instructions.inc"
    };
    for (const std::string name : instructions) CHECK_MESSAGE(text.find(name) != std::string::npos, name);
    const char* const msrs[] = {
#define MSR(index, name, present_with, reset, writable, read, write) "Msr::" #name,
#include "svm/msrs.inc"
    };
    for (const std::string name : msrs) CHECK_MESSAGE(text.find(name) != std::string::npos, name);
    for (const VmrunCheck& check : vmrun_checks())
        CHECK_MESSAGE(text.find(check.id) != std::string::npos, std::string(check.id));
}

TEST_CASE("Intercepts of instructions without further ado [APM 2 15.9]") {
    for (const Case& c : cases) {
        CAPTURE(c.text);
        T t;
        t.intercept(c.code);
        t.cpu.r[RBX] = T::data_address;
        t.cpu.r[RCX] = 0;
        c.prepare(t);
        const Code text = code(c.bytes, c.text);
        t.guest(text);
        LEFT(t, c.code);
        CHECK(t.get(VMCB::nrip) == T::code_address + text.bytes.size());
    }
}

TEST_CASE("Task switch: selector, source and error code [APM 2 15.14.1]") {
    T t;
    t.intercept(ExitCode::TASK_SWITCH);
    t.set(VMCB::efer, EFER::SVME);
    t.set(VMCB::cr0, CR0::PE | CR0::ET);
    t.set(VMCB::cr4, 0);
    t.set(VMCB::cs_attrib, 0xC9B); // 32-bit code
    constexpr u64 tss = T::gdt_address + 0x60;
    t.write(tss, descriptor(0x7'0000, 0x67, AR::P | SystemType::tss_available));
    t.set(VMCB::gdtr_limit, 0x67);
    t.memory.write_bytes(Physical{T::code_address}, "\xEA\x00\x00\x00\x00\x60\x00", 7); // JMP 60H:0
    t.run_guest();
    LEFT(t, ExitCode::TASK_SWITCH);
    CHECK(t.info1() == 0x60);
    CHECK(t.info2() == bit(38));
    CHECK(t.guest_rip() == T::code_address);
}

TEST_CASE(
    "Clean bits: what is marked clean is taken as the processor knew it, group by group [APM 2 15.15]") {
    struct Group {
        CleanGroup group;
        void (*change)(T&);
        u64 exit_if_seen; ///< what the guest's NOP; HLT does when the change in memory is seen
    };
    constexpr u64 hlt = ExitCode::HLT, invalid = ExitCode::INVALID;
    const Group groups[] = {
        {CleanGroup::I, [](T& t) { t.intercept(ExitCode::VMRUN, false); }, invalid},
        {CleanGroup::IOPM, [](T& t) { t.set(VMCB::iopm_base_pa, bit(60)); }, invalid},
        {CleanGroup::ASID, [](T& t) { t.set(VMCB::guest_asid, 0); }, invalid},
        {CleanGroup::TPR, [](T& t) { t.set(VMCB::interrupt_control, VMCB::INT::X2AVIC_ENABLE); }, invalid},
        {CleanGroup::NP, [](T& t) { t.set(VMCB::g_pat, 2), t.set(VMCB::nested_control, 1); }, invalid},
        {CleanGroup::CRx, [](T& t) { t.set(VMCB::cr0, bit(32)); }, invalid},
        {CleanGroup::DRx, [](T& t) { t.set(VMCB::dr7, bit(32)); }, invalid},
        {CleanGroup::DT, [](T& t) { t.set(VMCB::idtr_limit, 0), t.set(VMCB::eventinj, bit(31) | 0x40); },
         ExitCode::SHUTDOWN},
        {CleanGroup::SEG, [](T& t) { t.set(VMCB::cs_attrib, 0x69B); }, invalid},
    };
    for (const Group& g : groups)
        for (const bool clean : {false, true}) {
            CAPTURE(static_cast<unsigned>(g.group));
            T t;
            t.intercept(ExitCode::SHUTDOWN);
            t.guest(code("f4", "hlt"));
            LEFT(t, hlt);
            g.change(t);
            t.set(VMCB::clean_bits, clean ? bit(static_cast<unsigned>(g.group)) : 0);
            t.run_guest();
            LEFT(t, clean ? hlt : g.exit_if_seen);
        }
    T other; // another VMCB is not known, whatever its clean bits say
    other.guest(code("f4", "hlt"));
    u8 bytes[VMCB::bytes];
    other.memory.read_bytes(Physical{T::vmcb}, bytes, sizeof bytes);
    VmcbView(bytes).put(VMCB::guest_asid, u32{0});
    VmcbView(bytes).put(VMCB::clean_bits, ~u32{0});
    other.memory.write_bytes(Physical{T::other_vmcb}, bytes, sizeof bytes);
    other.cpu.r[RAX] = T::other_vmcb;
    other.cpu.rip = other.cpu.next_rip = T::vmrun_address;
    other.cpu.activity = Activity::active;
    other.cpu.step();
    CHECK(other.read(T::other_vmcb + VMCB::exitcode.offset) == ExitCode::INVALID);
}

TEST_CASE("Clean bits LBR and AVIC: groups of their own [APM 2 15.15]") {
    T lbr;
    lbr.set(VMCB::virtualization_control, VMCB::LBR_VIRTUALIZATION);
    lbr.set(VMCB::br_from, 0x11);
    lbr.guest(code("f4", "hlt"));
    lbr.set(VMCB::br_from, 0x22);
    lbr.set(VMCB::clean_bits, bit(static_cast<unsigned>(CleanGroup::LBR)));
    lbr.run_guest();
    CHECK(lbr.get(VMCB::br_from) == 0x11);
    T avic;
    avic.use_avic();
    avic.guest(code("f4", "hlt"));
    avic.set(VMCB::avic_backing_page, bit(50));
    avic.set(VMCB::clean_bits, bit(static_cast<unsigned>(CleanGroup::AVIC)));
    avic.run_guest();
    LEFT(avic, ExitCode::HLT);
    avic.set(VMCB::clean_bits, 0);
    CHECK(avic.enter() == "VMRUN-029");
}
