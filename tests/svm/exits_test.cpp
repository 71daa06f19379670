// #VMEXITs of instructions and register accesses: intercept bits, EXITINFO, nRIP. APM 2 15.7 to 15.11.
#include "tests/support/svm_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;

/// An instruction that exits with its intercept, and not without it.
struct Case {
    const char* bytes;
    const char* text;
    u64 code;
    u64 info1 = 0;
    void (*prepare)(T&) = [](T&) {};
};

const Case cases[] = {
    {"0f a2", "cpuid", ExitCode::CPUID},
    {"0f 31", "rdtsc", ExitCode::RDTSC},
    {"0f 01 f9", "rdtscp", ExitCode::RDTSCP},
    {"0f 33", "rdpmc", ExitCode::RDPMC},
    {"0f 08", "invd", ExitCode::INVD},
    {"0f 09", "wbinvd", ExitCode::WBINVD},
    {"0f 01 3b", "invlpg [rbx]", ExitCode::INVLPG, Harness::data_address},
    {"0f 01 df", "invlpga rax, ecx", ExitCode::INVLPGA},
    {"f3 90", "pause", ExitCode::PAUSE},
    {"0f 01 c8", "monitor", ExitCode::MONITOR},
    {"0f 01 c9", "mwait", ExitCode::MWAIT},
    {"0f 01 03", "sgdt [rbx]", ExitCode::GDTR_READ},
    {"0f 01 0b", "sidt [rbx]", ExitCode::IDTR_READ},
    {"0f 00 c0", "sldt eax", ExitCode::LDTR_READ},
    {"0f 00 c8", "str eax", ExitCode::TR_READ},
    {"0f 00 d0", "lldt ax", ExitCode::LDTR_WRITE},
    {"9c", "pushfq", ExitCode::PUSHF},
    {"9d", "popfq", ExitCode::POPF, 0, [](T& t) { t.set(VMCB::rsp, T::data_address); }},
    {"0f 20 c1", "mov rcx, cr0", ExitCode::CR0_READ, bit(63) | RCX},
    {"0f 20 d9", "mov rcx, cr3", ExitCode::CR0_READ + 3, bit(63) | RCX},
    {"44 0f 20 c1", "mov rcx, cr8", ExitCode::CR0_READ + 8, bit(63) | RCX},
    {"0f 01 e1", "smsw ecx", ExitCode::CR0_READ},
    {"0f 22 c6", "mov cr0, rsi", ExitCode::CR0_WRITE, bit(63) | RSI,
     [](T& t) { t.cpu.r[RSI] = t.get(VMCB::cr0); }},
    {"0f 22 c6", "mov cr0, rsi", ExitCode::CR0_SEL_WRITE, bit(63) | RSI,
     [](T& t) { t.cpu.r[RSI] = t.get(VMCB::cr0) ^ CR0::WP; }},
    {"0f 01 f6", "lmsw si", ExitCode::CR0_SEL_WRITE, 0, [](T& t) { t.cpu.r[RSI] = 1; }},
    {"0f 06", "clts", ExitCode::CR0_WRITE},
    {"44 0f 22 c1", "mov cr8, rcx", ExitCode::CR0_WRITE + 8, bit(63) | RCX},
    {"0f 21 f9", "mov rcx, dr7", ExitCode::DR0_READ + 7, RCX},
    {"0f 23 c1", "mov dr0, rcx", ExitCode::DR0_WRITE, RCX},
    {"0f 01 d8", "vmrun rax", ExitCode::VMRUN},
    {"0f 01 da", "vmload rax", ExitCode::VMLOAD, 0, [](T& t) { t.set(VMCB::rax, T::other_vmcb); }},
    {"0f 01 db", "vmsave rax", ExitCode::VMSAVE, 0, [](T& t) { t.set(VMCB::rax, T::other_vmcb); }},
    {"0f 01 dc", "stgi", ExitCode::STGI},
    {"0f 01 dd", "clgi", ExitCode::CLGI},
    {"0f 01 d9", "vmmcall", ExitCode::VMMCALL},
    {"f4", "hlt", ExitCode::HLT},
};

} // namespace

TEST_CASE("Instruction intercepts: with their bit, at the instruction, with nRIP after it [APM 2 15.9]") {
    for (const Case& c : cases) {
        const std::string name = c.text;
        CAPTURE(name);
        for (const bool exits : {true, false}) {
            // The VMRUN intercept must be set; without the other two a guest does not end here.
            if (!exits &&
                (c.code == ExitCode::VMRUN || c.code == ExitCode::VMMCALL || c.code == ExitCode::HLT))
                continue;
            T t;
            t.cpu.r[RBX] = T::data_address;
            t.cpu.r[RCX] = 0;
            c.prepare(t);
            if (exits) t.intercept(c.code);
            Code text = code(c.bytes, c.text);
            REQUIRE(disassemble_all(CodeMode::long64, text.bytes, T::code_address) == text.text);
            const u64 length = text.bytes.size();
            text.bytes.insert(text.bytes.end(), {0x0F, 0x01, 0xD9}); // VMMCALL
            text.text.clear();
            t.guest(text);
            if (!exits) {
                CHECK(t.exitcode() != c.code);
                continue;
            }
            LEFT(t, c.code);
            CHECK(t.guest_rip() == T::code_address);
            CHECK(t.get(VMCB::nrip) == T::code_address + length);
            CHECK(t.info1() == c.info1);
            CHECK(!t.svm.gif());
            CHECK(t.witness.exit.svm);
            CHECK(t.witness.exit.reason == c.code);
        }
    }
}

TEST_CASE("Exceptions outrank the intercepts that follow them in the table [APM 2 Table 15-7]") {
    T t;
    t.intercept(ExitCode::CR0_WRITE + 4);
    t.intercept(ExitCode::EXCP0 + 13);
    t.cpu.r[RCX] = bit(13);
    t.guest(code("0f 22 e1", "mov cr4, rcx"));
    LEFT(t, ExitCode::EXCP0 + 13);
    CHECK(t.get(VMCB::nrip) == 0);
}

TEST_CASE("CR0 selective write: MOV that changes only TS and MP does not exit [APM 2 15.9]") {
    T t;
    t.intercept(ExitCode::CR0_SEL_WRITE);
    t.cpu.r[RSI] = t.get(VMCB::cr0) ^ (CR0::TS | CR0::MP);
    t.guest(code("0f 22 c6 f4", "mov cr0, rsi; hlt"));
    LEFT(t, ExitCode::HLT);
}

TEST_CASE("Ports: the permission map decides, EXITINFO1 describes, EXITINFO2 is what follows [APM 2 15.10]") {
    struct Port {
        const char* bytes;
        const char* text;
        unsigned mapped; ///< port whose bit is set
        bool exits;
        u64 info1;
    };
    const Port ports[] = {
        {"e4 80", "in al, 0x80", 0x80, true, 0x80 << 16 | 0x200 | 0x10 | 1},
        {"e6 80", "out 0x80, al", 0x80, true, 0x80 << 16 | 0x200 | 0x10},
        {"e7 80", "out 0x80, eax", 0x83, true, 0x80 << 16 | 0x200 | 0x40},
        {"66 e7 80", "out 0x80, ax", 0x82, false, 0},
        {"66 e7 80", "out 0x80, ax", 0x81, true, 0x80 << 16 | 0x200 | 0x20},
        {"6e", "outsb", 0x70, true, 0x70 << 16 | 0x200 | 3 << 10 | 0x10 | 4},
        {"f3 6c", "rep insb", 0x70, true, 0x70 << 16 | 0x200 | 0x10 | 8 | 4 | 1},
        {"ef", "out dx, eax", 0x71, true, 0x70 << 16 | 0x200 | 0x40},
    };
    for (const Port& p : ports) {
        CAPTURE(p.text);
        T t;
        t.intercept(ExitCode::IOIO);
        t.write(T::iopm + p.mapped / 8, bit(p.mapped % 8), 1);
        t.cpu.r[RDX] = 0x70;
        t.cpu.r[RCX] = 1;
        t.cpu.r[RSI] = t.cpu.r[RDI] = T::data_address;
        Code text = code(p.bytes, p.text);
        REQUIRE(disassemble_all(CodeMode::long64, text.bytes, T::code_address) == text.text);
        const u64 length = text.bytes.size();
        text.bytes.push_back(0xF4);
        text.text.clear();
        t.guest(text);
        LEFT(t, p.exits ? ExitCode::IOIO : ExitCode::HLT);
        if (!p.exits) continue;
        CHECK(t.info1() == p.info1);
        CHECK(t.info2() == T::code_address + length);
    }
}

TEST_CASE("MSRs: two bits each in three ranges, and outside of them always [APM 2 15.11]") {
    struct Access {
        u32 index;
        u64 offset; ///< byte of the map
        unsigned read_bit;
    };
    const Access accesses[] = {{0x10, 4, 0}, {0xC000'0081, 0x820, 2}, {0xC001'0015, 0x1005, 2}};
    for (const Access& a : accesses)
        for (const bool write : {false, true})
            for (const bool set : {false, true}) {
                T t;
                t.intercept(ExitCode::MSR);
                if (set) t.write(T::msrpm + a.offset, bit(a.read_bit + (write ? 1 : 0)), 1);
                t.cpu.r[RCX] = a.index;
                if (a.index == 0xC001'0015) t.set(VMCB::rax, 0x0100'0000); // HWCR as it is
                t.cpu.r[RDX] = 0;
                t.guest(write ? code("0f 30 f4", "wrmsr; hlt") : code("0f 32 f4", "rdmsr; hlt"));
                CAPTURE(a.index);
                LEFT(t, set ? ExitCode::MSR : ExitCode::HLT);
                if (set) CHECK(t.info1() == (write ? 1 : 0));
            }
    T t;
    t.intercept(ExitCode::MSR);
    t.cpu.r[RCX] = 0x4000'0000;
    t.guest(code("0f 32", "rdmsr"));
    LEFT(t, ExitCode::MSR);
}

TEST_CASE("PAUSE filter: the count says how many go by [APM 2 15.14.4]") {
    T t;
    t.intercept(ExitCode::PAUSE);
    t.set(VMCB::pause_filter_count, 2);
    t.guest(code("f3 90 f3 90 f3 90 f4", "pause; pause; pause; hlt"));
    LEFT(t, ExitCode::PAUSE);
    CHECK(t.guest_rip() == T::code_address + 4);
    T far;
    far.intercept(ExitCode::PAUSE);
    far.set(VMCB::pause_filter_count, 1);
    far.set(VMCB::pause_filter_threshold, 2);
    far.guest(code("90 90 90 90 f3 90 90 90 90 90 f3 90 f4",
                   "nop; nop; nop; nop; pause; nop; nop; nop; nop; pause; hlt"));
    LEFT(far, ExitCode::HLT);
}

TEST_CASE("RDTSC in a guest: scaled by TSC_RATIO, then offset [APM 2 15.30.5]") {
    T t;
    t.set(VMCB::tsc_offset, 0x1'0000'0000);
    t.guest(code("0f 31 f4", "rdtsc; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK((t.cpu.r[RDX] & 0xFFFF'FFFF) == 1);
}

TEST_CASE(
    "A guest's state that is looked at stays as it is [design: visitors that only read change nothing]") {
    class Looker final : public StateVisitor {
        void enter(std::string_view) override {}
        void leave() override {}
        void field(std::string_view name, u64& value, unsigned) override {
            if (name == "last_pause") last_pause = value;
        }
        void bytes(std::string_view, std::span<u8>) override {}
        void buffer(std::string_view, std::vector<u8>&) override {}

    public:
        u64 last_pause = 0;
    };
    T t;
    t.intercept(ExitCode::PAUSE);
    t.set(VMCB::pause_filter_count, 9);
    t.guest(code("f3 90 eb fe", "pause; jmp 0x0000000000010002"), 50);
    CHECK(t.cpu.in_guest);
    Looker first, second;
    t.svm.visit(first);
    t.svm.visit(second);
    CHECK(first.last_pause < t.cpu.now());
    CHECK(second.last_pause == first.last_pause);
}
