// IN, OUT, INS, OUTS: ports, sizes, the permission bitmap.
#include "cpu/no_virtualization.hpp"
#include "tests/support/general.hpp"

using namespace exeunt;
using namespace exeunt::test;

namespace {
constexpr Stop done{};
constexpr u64 data = Harness::data_address;
constexpr u64 map = 0x68; // where these tests put the bitmap in the TSS

/// CPL 3 with IOPL 0 and a bitmap that allows every port.
void restrict_ports(Harness& t) {
    t.enter_ring3();
    t.write(Harness::tss_address + 102, map, 2);
    for (u64 i = 0; i < 0x2000; i += 8) t.write(Harness::tss_address + map + i, 0);
}
} // namespace

TEST_CASE("IN and OUT: port in DX or an immediate byte, 1, 2 and 4 bytes [SDM 2A IN, 2B OUT]") {
    Harness t;
    t.bus.inputs = {{0x60, 0x12}, {0x1F0, 0x3456}, {0xCFC, 0x789A'BCDE}};
    t.cpu.r[RAX] = ~u64{0};
    t.cpu.r[RDX] = 0xFFFF'01F0;
    CHECK(general(t, code("e4 60", "in al, 0x60")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'FF12);
    CHECK(general(t, code("66 ed", "in ax, dx")) == done);
    CHECK(t.cpu.r[RAX] == 0xFFFF'FFFF'FFFF'3456);
    t.cpu.r[RDX] = 0xCFC;
    CHECK(general(t, code("ed", "in eax, dx")) == done);
    CHECK(t.cpu.r[RAX] == 0x789A'BCDE);
    CHECK(general(t, code("ef", "out dx, eax")) == done);
    CHECK(t.bus.outputs[0xCFC] == 0x789A'BCDE);
    CHECK(general(t, code("e6 80", "out 0x80, al")) == done);
    CHECK(t.bus.outputs[0x80] == 0xDE);
}

TEST_CASE("I/O permission: IOPL, then the bitmap in the TSS [SDM 1 18.5.1, 18.5.2]") {
    Harness t;
    restrict_ports(t);
    t.cpu.r[RDX] = 0x3F8;
    const auto in_dx = code("ed", "in eax, dx");
    CHECK(general(t, in_dx) == done);
    SUBCASE("a bit of any of the bytes") {
        t.write(Harness::tss_address + map + 0x3F8 / 8, 0x08, 1); // port 3FBH
        CHECK(general(t, in_dx) == general_protection(0));
        CHECK(general(t, code("66 ed", "in ax, dx")) == done);
        t.cpu.flags.rest |= RFLAGS::IOPL;
        CHECK(general(t, in_dx) == done);
    }
    SUBCASE("an access across two bytes of the bitmap") {
        t.cpu.r[RDX] = 0x3FF;
        CHECK(general(t, in_dx) == done);
        t.write(Harness::tss_address + map + 0x400 / 8, 0x01, 1);
        CHECK(general(t, in_dx) == general_protection(0));
    }
    SUBCASE("both bytes that are read must lie in the TSS") {
        t.cpu.seg(Seg::TR).limit = map + 0x3F8 / 8;
        CHECK(general(t, in_dx) == general_protection(0));
        t.cpu.seg(Seg::TR).limit = map + 0x3F8 / 8 + 1;
        CHECK(general(t, in_dx) == done);
    }
    SUBCASE("a bitmap beyond the limit, a TSS without one") {
        t.write(Harness::tss_address + 102, 0xFFFF, 2);
        CHECK(general(t, in_dx) == general_protection(0));
        t.cpu.seg(Seg::TR).limit = 0x66;
        CHECK(general(t, in_dx) == general_protection(0));
        t.cpu.seg(Seg::TR).limit = 0x2067;
        t.cpu.seg(Seg::TR).access = AR::P | SystemType::tss16_busy;
        CHECK(general(t, in_dx) == general_protection(0));
    }
}

TEST_CASE("I/O permission: virtual-8086 mode looks at the bitmap whatever IOPL is [SDM 3B 20.2.8.1]") {
    Harness t(Mode::v8086);
    t.cpu.flags.rest |= RFLAGS::IOPL;
    t.write(Harness::tss_address + 102, map, 2);
    t.write(Harness::tss_address + map + 0x60 / 8, 0x01, 1);
    CHECK(general(t, code("e4 60", "in al, 0x60")) == general_protection(0));
    CHECK(general(t, code("e4 61", "in al, 0x61")) == done);
}

TEST_CASE("INS and OUTS: elements, direction, REP [SDM 2A INS, 2B OUTS]") {
    Harness t;
    t.bus.inputs = {{0x1F0, 0xABCD}};
    t.cpu.r[RDX] = 0x1F0;
    t.cpu.r[RDI] = data;
    t.cpu.r[RCX] = 3;
    t.cpu.remaining = 100;
    CHECK(general(t, code("f3 66 6d", "")) == done);
    CHECK(t.read(data) == 0xABCD'ABCD'ABCD);
    CHECK(t.cpu.r[RDI] == data + 6);
    CHECK(t.cpu.r[RCX] == 0);
    CHECK(t.cpu.remaining == 98);
    t.cpu.r[RSI] = data + 4;
    t.write(data + 4, 0x55, 1);
    t.cpu.flags.rest |= RFLAGS::DF;
    CHECK(general(t, code("6e", "outsb")) == done);
    CHECK(t.bus.outputs[0x1F0] == 0x55);
    CHECK(t.cpu.r[RSI] == data + 3);
}

TEST_CASE("INS: where the data can not be stored the port is not read [SDM 3A 6.6]") {
    class Counting : public NullBus {
    public:
        u32 port_read(u16, unsigned) override { return ++reads; }
        u32 reads = 0;
    };
    Harness t;
    Counting counting;
    Cpu cpu(1, t.model, t.memory, counting, 1);
    static_cast<CpuState&>(cpu) = static_cast<const CpuState&>(t.cpu);
    cpu.context_changed(true);
    cpu.mode_changed();
    cpu.r[RDI] = 0x4000'0000;
    t.place(code("6d", "insd"));
    cpu.rip = t.cpu.rip;
    const Insn insn = decode_at_rip(t);
    CHECK(execute(cpu, insn).stop().vector == Vector::PF);
    CHECK(counting.reads == 0);
    cpu.r[RDI] = data;
    CHECK(execute(cpu, insn).ok());
    CHECK(counting.reads == 1);
}

namespace {

/// Remembers what it was asked, and lets the guest go on or not.
class Asked : public NoVirtualization {
public:
    Result<void> io(Cpu&, const Insn&, const IoAccess& access) override {
        accesses.push_back(access);
        return answer;
    }
    Result<void> instruction(Cpu&, const Insn&, Intercept what) override {
        instructions.push_back(what);
        return answer;
    }

    std::vector<IoAccess> accesses;
    std::vector<Intercept> instructions;
    Result<void> answer = stopped(Stop::Kind::world_switch);
};

struct Guest : Harness {
    explicit Guest(Mode mode = Mode::long64) : Harness(mode) {
        cpu.virtualization = &asked;
        cpu.in_guest = true;
    }
    Asked asked;
};

const Stop exited = stopped(Stop::Kind::world_switch);

} // namespace

TEST_CASE("I/O in a guest: the bitmap's #GP, then the exit, then the memory operand [SDM 3C 25.1.1]") {
    Guest t;
    restrict_ports(t);
    t.write(Harness::tss_address + map + 0x80 / 8, 0x01, 1);
    t.cpu.r[RDI] = 0x4000'0000;
    t.cpu.r[RDX] = 0x80;
    CHECK(general(t, code("6c", "insb")) == general_protection(0));
    CHECK(t.asked.accesses.empty());
    t.cpu.r[RDX] = 0x81;
    CHECK(general(t, code("6c", "insb")) == exited);
    CHECK(t.asked.accesses.size() == 1);
    t.asked.answer = {};
    CHECK(general(t, code("6c", "insb")).vector == Vector::PF);
    CHECK(t.asked.accesses.size() == 2);
}

TEST_CASE("I/O in a guest: what the exit is told [SDM 3C Table 27-5]") {
    Guest t;
    t.cpu.r[RDX] = 0x3F8;
    t.cpu.r[RSI] = 0x1'0000'0010;
    t.cpu.r[RCX] = 2;
    t.cpu.seg(Seg::FS).base = 0x100;
    CHECK(general(t, code("e5 60", "in eax, 0x60")) == exited);
    CHECK(general(t, code("ee", "out dx, al")) == exited);
    CHECK(general(t, code("f3 64 67 66 6f")) == exited);
    REQUIRE(t.asked.accesses.size() == 3);
    const IoAccess &in = t.asked.accesses[0], &out = t.asked.accesses[1], &outs = t.asked.accesses[2];
    CHECK((in.port == 0x60 && in.bytes == 4 && in.in && in.immediate_port && !in.string && !in.rep));
    CHECK((out.port == 0x3F8 && out.bytes == 1 && !out.in && !out.immediate_port && !out.string));
    CHECK((outs.port == 0x3F8 && outs.bytes == 2 && !outs.in && outs.string && outs.rep));
    CHECK((outs.segment == Seg::FS && outs.address_size == 4));
    CHECK(outs.linear == 0x110);
    CHECK(t.bus.outputs.empty());
    CHECK(t.cpu.r[RCX] == 2);
    t.cpu.r[RCX] = 0;
    CHECK(general(t, code("f3 6e", "rep outsb")) == done);
    CHECK(t.asked.accesses.size() == 3);
}

TEST_CASE("intercepts of integer instructions come before all their exceptions [APM 2 15.9]") {
    struct Row {
        const char* hex;
        Intercept intercept;
    };
    for (const Row& row :
         {Row{"9c", Intercept::pushf}, Row{"9d", Intercept::popf}, Row{"cd 21", Intercept::intn},
          Row{"f1", Intercept::icebp}, Row{"f3 90", Intercept::pause}}) {
        CAPTURE(row.hex);
        Guest t(Mode::v8086); // IOPL 0: PUSHF, POPF and INT n would fault
        t.cpu.intercepted.set(static_cast<std::size_t>(row.intercept));
        CHECK(general(t, code(row.hex)) == exited);
        CHECK(t.asked.instructions == std::vector{row.intercept});
    }
}
