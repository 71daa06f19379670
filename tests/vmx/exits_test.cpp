// VM exits of instructions: conditions, qualification, instruction information, length. SDM
// 3C 25.1, 25.3, 27.2.
#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;
using Change = void (*)(T&);
void nothing(T&) {}

/// An instruction that exits with the change and does not without it. `otherwise`: how the guest ends then.
struct ConditionalCase {
    const char* bytes;
    const char* text;
    ExitReason reason;
    Change change;
};

const ConditionalCase conditional[] = {
    {"f4", "hlt", ExitReason::hlt, [](T& t) { t.on(primary::hlt_exiting); }},
    {"0f 01 3b", "invlpg byte ptr [rbx]", ExitReason::invlpg, [](T& t) { t.on(primary::invlpg_exiting); }},
    {"0f 31", "rdtsc", ExitReason::rdtsc, [](T& t) { t.on(primary::rdtsc_exiting); }},
    {"0f 01 f9", "rdtscp", ExitReason::rdtscp,
     [](T& t) {
         t.on(secondary::enable_rdtscp);
         t.on(primary::rdtsc_exiting);
     }},
    {"66 0f ae f1", "tpause ecx", ExitReason::tpause,
     [](T& t) {
         t.on(secondary::enable_user_wait_and_pause);
         t.on(primary::rdtsc_exiting);
     }},
    {"f2 0f ae f1", "umwait ecx", ExitReason::umwait,
     [](T& t) {
         t.on(secondary::enable_user_wait_and_pause);
         t.on(primary::rdtsc_exiting);
     }},
    {"0f 33", "rdpmc", ExitReason::rdpmc, [](T& t) { t.on(primary::rdpmc_exiting); }},
    {"f3 90", "pause", ExitReason::pause, [](T& t) { t.on(primary::pause_exiting); }},
    {"0f 01 c8", "monitor", ExitReason::monitor, [](T& t) { t.on(primary::monitor_exiting); }},
    {"0f 01 c9", "mwait", ExitReason::mwait, [](T& t) { t.on(primary::mwait_exiting); }},
    {"0f 09", "wbinvd", ExitReason::wbinvd, [](T& t) { t.on(secondary::wbinvd_exiting); }},
    {"0f c7 f3", "rdrand ebx", ExitReason::rdrand, [](T& t) { t.on(secondary::rdrand_exiting); }},
    {"48 0f c7 f9", "rdseed rcx", ExitReason::rdseed, [](T& t) { t.on(secondary::rdseed_exiting); }},
    {"0f 20 d9", "mov rcx, cr3", ExitReason::control_register_access,
     [](T& t) { t.on(primary::cr3_store_exiting); }},
    {"44 0f 20 c1", "mov rcx, cr8", ExitReason::control_register_access,
     [](T& t) { t.on(primary::cr8_store_exiting); }},
    {"44 0f 22 c1", "mov cr8, rcx", ExitReason::control_register_access,
     [](T& t) { t.on(primary::cr8_load_exiting); }},
    {"0f 21 f9", "mov rcx, dr7", ExitReason::mov_dr, [](T& t) { t.on(primary::mov_dr_exiting); }},
    {"e4 80", "in al, 0x80", ExitReason::io_instruction,
     [](T& t) { t.on(primary::unconditional_io_exiting); }},
    {"0f 01 03", "sgdt [rbx]", ExitReason::access_to_gdtr_or_idtr,
     [](T& t) { t.on(secondary::descriptor_table_exiting); }},
    {"0f 00 c0", "sldt eax", ExitReason::access_to_ldtr_or_tr,
     [](T& t) { t.on(secondary::descriptor_table_exiting); }},
};

} // namespace

TEST_CASE("Conditional exits: with their control and only then, at the instruction, with its length [SDM 3C "
          "25.1.3]") {
    for (const ConditionalCase& c : conditional) {
        const std::string name = c.text;
        CAPTURE(name);
        for (const bool exits : {false, true}) {
            T t;
            t.on(primary::cr3_store_exiting, false);
            t.on(primary::cr3_load_exiting, false);
            t.off(primary::hlt_exiting);
            t.cpu.r[RBX] = Harness::data_address;
            if (exits) c.change(t);
            Code with_cpuid = code(c.bytes, c.text);
            const auto length = with_cpuid.bytes.size();
            with_cpuid.bytes.insert(with_cpuid.bytes.end(), {0x0F, 0xA2}); // CPUID always exits
            with_cpuid.text.clear();
            t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::RF);
            t.guest(with_cpuid);
            if (exits) {
                EXITED(t, c.reason);
                CHECK(t.guest_rip() == Harness::code_address);
                CHECK(t.length() == length);
                CHECK((t.get(F::guest_rflags) & RFLAGS::RF) == 0); // 27.3.3
                CHECK(t.interruption() == 0);
                CHECK(t.vectoring() == 0);
            } else if (c.reason == ExitReason::hlt) {
                CHECK(t.cpu.in_guest);
                CHECK(t.cpu.activity == Activity::hlt);
            } else if (c.reason == ExitReason::rdtscp || c.reason == ExitReason::tpause ||
                       c.reason == ExitReason::umwait) {
                CHECK(t.cpu.in_guest); // #UD: the guest's handler halts
                CHECK(t.vector_reached() == 6);
            } else {
                EXITED(t, ExitReason::cpuid);
                CHECK(t.guest_rip() == Harness::code_address + length);
            }
        }
    }
}

TEST_CASE("Unconditional exits: CPUID, INVD, VMCALL and the VMX instructions, at any CPL [SDM 3C 25.1.2]") {
    const struct {
        const char *bytes, *text;
        ExitReason reason;
        u64 qualification;
    } cases[] = {
        {"0f a2", "cpuid", ExitReason::cpuid, 0},
        {"0f 08", "invd", ExitReason::invd, 0},
        {"0f 01 c1", "vmcall", ExitReason::vmcall, 0},
        {"0f 01 c2", "vmlaunch", ExitReason::vmlaunch, 0},
        {"0f 01 c3", "vmresume", ExitReason::vmresume, 0},
        {"0f 01 c4", "vmxoff", ExitReason::vmxoff, 0},
        {"f3 0f c7 73 10", "vmxon [rbx+0x10]", ExitReason::vmxon, 0x10},
        {"66 0f c7 74 8b f0", "vmclear [rbx+rcx*4-0x10]", ExitReason::vmclear, ~u64{0xF}},
        {"0f c7 35 04 00 00 00", "vmptrld [0x000000000001000B]", ExitReason::vmptrld, 0x1'000B},
        {"0f c7 3b", "vmptrst [rbx]", ExitReason::vmptrst, 0},
        {"0f 78 d1", "vmread rcx, rdx", ExitReason::vmread, 0},
        {"0f 79 53 08", "vmwrite rdx, [rbx+0x08]", ExitReason::vmwrite, 8},
        {"66 0f 38 80 0b", "invept rcx, xmmword ptr [rbx]", ExitReason::invept, 0},
        {"66 0f 38 81 0b", "invvpid rcx, xmmword ptr [rbx]", ExitReason::invvpid, 0},
    };
    for (const auto& c : cases) {
        const std::string name = c.text;
        CAPTURE(name);
        T t;
        t.guest(code(c.bytes, c.text));
        EXITED(t, c.reason);
        CHECK(t.qualification() == c.qualification);
    }
}

TEST_CASE("VMX instructions in a guest without CR0.PE: #UD, no exit [SDM 3C 25.1.1]") {
    T t;
    t.guest_mode(Mode::real);
    t.guest(code("0f 01 c2"));
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == 16 * 6); // the handler of #UD in the vector table
}

TEST_CASE("Instruction information: addressing and register operands [SDM 3C Tables 27-9 to 27-14]") {
    const auto information = [](const char* bytes, const char* text, Change change = nothing) {
        T t;
        change(t);
        t.guest(code(bytes, text));
        REQUIRE(t.in_host());
        return t.information();
    };
    constexpr u32 address64 = 2 << 7, ds = 3 << 15, fs = 4 << 15, no_index = 1 << 22, no_base = 1 << 27;
    const auto base = [](u32 n) { return n << 23; };
    const auto index = [](u32 n, u32 scale) { return n << 18 | scale; };
    CHECK(information("66 0f c7 74 8b f0", "vmclear [rbx+rcx*4-0x10]") ==
          (index(1, 2) | address64 | ds | base(3)));
    CHECK(information("0f c7 35 04 00 00 00", "vmptrld [0x000000000001000B]") ==
          (address64 | ds | no_index | no_base));
    CHECK(information("64 0f c7 3b", "vmptrst fs:[rbx]") == (address64 | fs | no_index | base(3)));
    CHECK(information("67 0f c7 3b", "vmptrst [ebx]") == (1 << 7 | ds | no_index | base(3)));
    // VMREAD: destination in bits 6:3 and bit 10, or memory; encoding register in bits 31:28.
    CHECK(information("45 0f 78 d1", "vmread r9, r10") == (9 << 3 | 1 << 10 | 10u << 28));
    CHECK(information("0f 79 13", "vmwrite rdx, [rbx]") == (address64 | ds | no_index | base(3) | 2 << 28));
    CHECK(information("66 44 0f 38 80 33", "invept r14, xmmword ptr [rbx]") ==
          (address64 | ds | no_index | base(3) | 14u << 28));
    constexpr Change tables = [](T& t) { t.on(secondary::descriptor_table_exiting); };
    constexpr u32 size32 = 1 << 11;
    CHECK(information("0f 01 03", "sgdt [rbx]", tables) == (address64 | ds | no_index | base(3) | size32));
    CHECK(information("0f 01 0b", "sidt [rbx]", tables) ==
          (address64 | ds | no_index | base(3) | size32 | 1 << 28));
    CHECK(information("0f 01 13", "lgdt [rbx]", tables) ==
          (address64 | ds | no_index | base(3) | size32 | 2 << 28));
    CHECK(information("0f 01 1b", "lidt [rbx]", tables) ==
          (address64 | ds | no_index | base(3) | size32 | 3 << 28));
    CHECK(information("0f 00 c1", "sldt ecx", tables) == (1 << 3 | 1 << 10));
    CHECK(information("0f 00 c9", "str ecx", tables) == (1 << 3 | 1 << 10 | 1 << 28));
    CHECK(information("0f 00 d1", "lldt cx", tables) == (1 << 3 | 1 << 10 | 2 << 28));
    CHECK(information("0f 00 d9", "ltr cx", tables) == (1 << 3 | 1 << 10 | 3 << 28));
    constexpr Change rdrand = [](T& t) { t.on(secondary::rdrand_exiting); };
    CHECK(information("66 0f c7 f3", "rdrand bx", rdrand) == (3 << 3));
    CHECK(information("0f c7 f3", "rdrand ebx", rdrand) == (3 << 3 | 1 << 11));
    CHECK(information("49 0f c7 f3", "rdrand r11", rdrand) == (11 << 3 | 2 << 11));
}

TEST_CASE("Faults that outrank exits: CPL, CR4.TSD, disabled instructions [SDM 3C 25.1.1, 25.3]") {
    const auto vector_of = [](const char* bytes, const char* text, Change change) {
        T t;
        for (const Seg s : {Seg::CS, Seg::SS}) { // CPL 3
            const auto i = static_cast<unsigned>(s);
            const auto at = [&](F first) { return static_cast<F>(static_cast<unsigned>(first) + i); };
            t.set(at(F::guest_es_selector), s == Seg::CS ? Harness::code64_3 : Harness::data_3);
            t.set(at(F::guest_es_access_rights), t.get(at(F::guest_es_access_rights)) | AR::DPL);
        }
        t.set(F::exception_bitmap, 0xFFFF'FFFF);
        change(t);
        t.guest(code(bytes, text));
        REQUIRE(t.in_host());
        return t.reason() == 0 ? static_cast<int>(t.interruption() & 0xFF) : -static_cast<int>(t.reason());
    };
    CHECK(vector_of("f4", "hlt", nothing) == 13);
    CHECK(vector_of("0f 32", "rdmsr", nothing) == 13);
    CHECK(vector_of("0f 31", "rdtsc", [](T& t) { t.on(primary::rdtsc_exiting); }) == -16);
    CHECK(vector_of("0f 31", "rdtsc", [](T& t) {
              t.on(primary::rdtsc_exiting);
              t.set(F::guest_cr4, t.get(F::guest_cr4) | CR4::TSD);
          }) == 13);
    CHECK(vector_of("0f 01 f9", "rdtscp",
                    [](T& t) { t.set(F::guest_cr4, t.get(F::guest_cr4) | CR4::TSD); }) == 6);
    CHECK(vector_of("66 0f 38 82 0b", "invpcid rcx, xmmword ptr [rbx]", nothing) == 6);
    CHECK(vector_of("66 0f 38 82 0b", "invpcid rcx, xmmword ptr [rbx]",
                    [](T& t) { t.on(secondary::enable_invpcid); }) == 13);
    CHECK(vector_of("0f c7 2b", "xsaves [rbx]", nothing) == 6);
    CHECK(vector_of("f3 0f ae f0", "umonitor rax", nothing) == 6);
    CHECK(vector_of("66 0f ae f1", "tpause ecx",
                    [](T& t) { t.set(F::guest_cr4, t.get(F::guest_cr4) | CR4::TSD); }) == 6);
    CHECK(vector_of("66 0f ae f1", "tpause ecx", [](T& t) {
              t.on(secondary::enable_user_wait_and_pause);
              t.set(F::guest_cr4, t.get(F::guest_cr4) | CR4::TSD);
          }) == 13);
    CHECK(vector_of("66 0f ae f1", "tpause ecx", [](T& t) {
              t.on(secondary::enable_user_wait_and_pause);
              t.on(primary::rdtsc_exiting);
              t.cpu.r[RCX] = 2; // reserved bits fault only where it does not exit
          }) == -68);
    // MOV DR is the exception: its exit comes before the #GP of CPL.
    CHECK(vector_of("0f 21 f9", "mov rcx, dr7", nothing) == 13);
    CHECK(vector_of("0f 21 f9", "mov rcx, dr7", [](T& t) { t.on(primary::mov_dr_exiting); }) == -29);
}
