// The engine: blocks, chains, exact ticks, self-modifying code, events at boundaries.
#include "cpu/blocks.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

/// Ten instructions a round with memory, flags and a data-dependent branch; loops for ever.
Code busy_loop() {
    return code("48 01 d8 48 31 cb 48 8d 4c 41 07 48 c1 c0 05 48 29 c2 48 89 06 a8 01 74 05 48 03 3e eb e2 "
                "48 2b 3e eb dd",
                "");
}

void prepare(Harness& t) {
    t.cpu.r[RAX] = 0x123456789;
    t.cpu.r[RBX] = 0x9876543210;
    t.cpu.r[RCX] = 3;
    t.cpu.r[RDX] = 4;
    t.cpu.r[RDI] = 0;
    t.cpu.r[RSI] = Harness::data_address;
}

struct Snapshot {
    u64 r[16];
    u64 rip, rflags, memory;
    bool operator==(const Snapshot&) const = default;
};

Snapshot snapshot(Harness& t) {
    Snapshot s{};
    for (unsigned i = 0; i < 16; ++i) s.r[i] = t.cpu.r[i];
    s.rip = t.cpu.rip;
    s.rflags = t.cpu.rflags();
    s.memory = t.read(Harness::data_address);
    return s;
}

/// An interrupt controller with one vector that may be pending.
class OneInterrupt : public InterruptController {
public:
    explicit OneInterrupt(Cpu& cpu) : cpu_(cpu) {}
    void raise(u8 vector) {
        vector_ = vector;
        pending_ = true;
        cpu_.signals().interrupt_changed();
    }
    bool interrupt_pending() override { return pending_; }
    u8 acknowledge() override {
        pending_ = false;
        return vector_;
    }
    u8 cr8() override { return 0; }
    void set_cr8(u8) override {}
    bool read_msr(u32, u64&) override { return false; }
    bool write_msr(u32, u64) override { return false; }

private:
    Cpu& cpu_;
    bool pending_ = false;
    u8 vector_ = 0;
};

}  // namespace

TEST_CASE("engine: a run cut at any tick continues as if it had not been cut") {
    Harness whole, cut;
    for (Harness* t : {&whole, &cut}) {
        prepare(*t);
        t->place(busy_loop());
    }
    CHECK(whole.run(3000) == RunEnd::deadline);
    Tick done = 0;
    for (Tick piece = 1; done < 3000; piece = piece % 37 + 1) {
        const Tick ticks = std::min<Tick>(piece, 3000 - done);
        cut.run(ticks);
        done += ticks;
        REQUIRE(cut.cpu.now() == done);
    }
    CHECK(snapshot(cut) == snapshot(whole));
}

TEST_CASE("engine: fast handlers and chains do what the general handlers do, one by one") {
    Harness fast, general;
    general.cpu.blocks->set_fast(false);
    for (Harness* t : {&fast, &general}) {
        prepare(*t);
        t->place(busy_loop());
    }
    for (int i = 0; i < 200; ++i) {
        fast.run(53);
        for (int k = 0; k < 53; ++k) general.cpu.step();
        REQUIRE(snapshot(fast) == snapshot(general));
    }
}

TEST_CASE("engine: an instruction that the one before it overwrote is executed as it stands in memory") {
    Harness t;
    // mov byte ptr [rip+1], 0x42; mov al, 0x11; hlt: the immediate of the second MOV becomes 42H.
    t.run(code("c6 05 01 00 00 00 42 b0 11 f4", ""));
    CHECK(t.cpu.gpr(RAX, 1) == 0x42);
}

TEST_CASE("engine: code changed through another linear alias is seen") {
    Harness t;
    t.write(Harness::tables_address + 0x2000 + 8, 0x87);  // 2 MiB .. 4 MiB is an alias of 0 .. 2 MiB
    t.cpu.mmu.flush_all();
    t.cpu.r[RBX] = Harness::code_address + 0x20'0000 + 4;
    // mov byte ptr [rbx], 0x42; mov al, 0x11; hlt
    t.run(code("c6 03 42 b0 11 f4", "mov byte ptr [rbx], 0x42; mov al, 0x11; hlt"));
    CHECK(t.cpu.gpr(RAX, 1) == 0x42);
}

TEST_CASE("engine: code changed from outside the processor is seen, also in a chain under way") {
    Harness t;
    t.place(code("fe c0 eb fc", ""));  // inc al; jmp -4
    t.run(10);
    const u8 dec_al = 0xC8;
    t.memory.write_bytes(Physical{Harness::code_address + 1}, &dec_al, 1);
    const u8 before = static_cast<u8>(t.cpu.gpr(RAX, 1));
    t.run(10);
    CHECK(static_cast<u8>(t.cpu.gpr(RAX, 1)) == static_cast<u8>(before - 5));
}

TEST_CASE("engine: an instruction across two pages follows the second page") {
    Harness t;
    const u64 at = Harness::code_address + 0xFFE;
    t.place(code("b8 78 56 34 12 f4", "mov eax, 0x12345678; hlt"), at);
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.cpu.r[RAX] == 0x12345678);
    t.write(Harness::code_address + 0x1000, 0xF4'AABBCC, 4);
    t.cpu.activity = Activity::active;
    t.cpu.rip = at;
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.cpu.r[RAX] == 0xAABBCC78);
}

TEST_CASE("engine: an interrupt arrives between two instructions and is delivered at that tick") {
    Harness t;
    OneInterrupt controller(t.cpu);
    t.cpu.controller = &controller;
    t.place(code("90 90 90 90 90 90 90 90 eb f6", ""));
    t.run(25);
    t.cpu.set_rflags(t.cpu.rflags() | RFLAGS::IF);
    const u64 rip = t.cpu.rip;
    controller.raise(0x33);
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.vector_reached() == 0x33);
    CHECK(t.cpu.now() == 25 + 2);  // the delivery and the handler's HLT
    CHECK(t.read(t.cpu.r[RSP]) == rip);
}

TEST_CASE("engine: an interrupt between a block and its successor does not become the way between them") {
    Harness t;
    OneInterrupt controller(t.cpu);
    t.cpu.controller = &controller;
    t.place(code("ff c0 eb 00 ff c3 eb f8", ""));  // inc eax; jmp +0; inc ebx; jmp back
    t.write(Harness::handler_address + 16 * 0x33, 0xCF48, 2);  // IRETQ
    t.cpu.set_rflags(t.cpu.rflags() | RFLAGS::IF);
    for (Tick cut = 1; cut < 40; ++cut) {
        t.run(cut);
        controller.raise(0x33);
    }
    t.run(1000);
    CHECK(t.vector_reached() == -1);
    CHECK(t.cpu.r[RAX] - t.cpu.r[RBX] <= 1);
}

TEST_CASE("engine: code at two linear addresses goes on in each where it would") {
    Harness t;
    // inc eax; jmp to the next page; there: hlt, or at the alias's next page: inc ebx; hlt.
    const u64 alias = 0x4000'0000;
    t.write(Harness::tables_address + 0x1000 + 8, (Harness::tables_address + 0x3000) | 7);
    t.write(Harness::tables_address + 0x3000, (Harness::tables_address + 0x4000) | 7);
    t.write(Harness::tables_address + 0x4000, Harness::code_address | 7);
    t.write(Harness::tables_address + 0x4008, (Harness::code_address + 0x2000) | 7);
    t.place(code("ff c0 e9 f9 0f 00 00", ""));
    t.place(code("f4", "hlt"), Harness::code_address + 0x1000);
    t.place(code("ff c3 f4", "inc ebx; hlt"), Harness::code_address + 0x2000);
    for (int i = 0; i < 3; ++i)
        for (const u64 at : {Harness::code_address, alias}) {
            t.cpu.activity = Activity::active;
            t.cpu.rip = at;
            CHECK(t.run() == RunEnd::halted);
        }
    CHECK(t.cpu.r[RAX] == 6);
    CHECK(t.cpu.r[RBX] == 3);
}

TEST_CASE("engine: an interrupt between two iterations of REP saves RF = 1 and the count that is left [SDM 3B 17.3.1.1]") {
    Harness t;
    OneInterrupt controller(t.cpu);
    t.cpu.controller = &controller;
    t.cpu.set_rflags(t.cpu.rflags() | RFLAGS::IF);
    t.cpu.r[RCX] = 10;
    t.cpu.r[RDI] = Harness::data_address;
    t.place(code("f3 aa f4", "rep stosb; hlt"));
    t.run(4);
    controller.raise(0x33);
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.vector_reached() == 0x33);
    CHECK(t.cpu.r[RCX] == 6);
    CHECK(t.read(t.cpu.r[RSP]) == Harness::code_address);
    CHECK((t.read(t.cpu.r[RSP] + 16) & RFLAGS::RF) != 0);
    CHECK(!t.cpu.flag(RFLAGS::RF));
}

TEST_CASE("engine: STI holds an interrupt back for one instruction [SDM 3A 6.8.1]") {
    Harness t;
    OneInterrupt controller(t.cpu);
    t.cpu.controller = &controller;
    controller.raise(0x40);
    t.run(code("fb ff c0 ff c3 f4", "sti; inc eax; inc ebx; hlt"));
    CHECK(t.vector_reached() == 0x40);
    CHECK(t.cpu.r[RAX] == 1);
    CHECK(t.cpu.r[RBX] == 0);
}

TEST_CASE("engine: RFLAGS.TF traps after each instruction with DR6.BS [SDM 3A 17.3.1.4]") {
    Harness t;
    t.place(code("ff c0 ff c3 f4", "inc eax; inc ebx; hlt"));
    t.cpu.set_rflags(t.cpu.rflags() | RFLAGS::TF);
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.vector_reached() == 1);
    CHECK(t.cpu.r[RAX] == 1);
    CHECK(t.cpu.r[RBX] == 0);
    CHECK((t.cpu.dr6 & DR6::BS) != 0);
}

TEST_CASE("engine: an instruction breakpoint in DR0 faults before the instruction; RF lets it pass [SDM 3A 17.3.1.1]") {
    Harness t;
    t.place(code("ff c0 ff c3 f4", "inc eax; inc ebx; hlt"));
    t.cpu.dr[0] = Harness::code_address + 2;
    t.cpu.dr7 |= 2;
    t.cpu.mode_changed();
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.vector_reached() == 1);
    CHECK(t.cpu.r[RBX] == 0);
    CHECK((t.cpu.dr6 & DR6::B0) != 0);
}

TEST_CASE("engine: a data breakpoint traps after the access [SDM 3A 17.3.1.2]") {
    Harness t;
    t.cpu.r[RSI] = Harness::data_address;
    t.place(code("89 06 ff c3 f4", "mov [rsi], eax; inc ebx; hlt"));
    t.cpu.dr[1] = Harness::data_address + 2;
    t.cpu.dr7 |= 8 | (u64{1} << 20);  // G1, write, one byte
    t.cpu.mode_changed();
    CHECK(t.run() == RunEnd::halted);
    CHECK(t.vector_reached() == 1);
    CHECK(t.cpu.r[RBX] == 0);
    CHECK((t.cpu.dr6 & DR6::B1) != 0);
}

TEST_CASE("engine: a page fault in the middle of a block leaves what came before it and nothing after") {
    Harness t;
    t.cpu.r[RSI] = u64{2} << 30;  // not mapped
    t.run(code("ff c0 8b 1e ff c1 f4", "inc eax; mov ebx, [rsi]; inc ecx; hlt"));
    CHECK(t.vector_reached() == 14);
    CHECK(t.cpu.control.cr2 == u64{2} << 30);
    CHECK(t.cpu.r[RAX] == 1);
    CHECK(t.cpu.r[RCX] == 0);
    CHECK(t.cpu.now() == 3);  // INC, the fault, HLT
}

TEST_CASE("engine: a device is written at the exact tick, in the middle of straight code") {
    Harness t;
    t.write(Harness::tables_address + 0x2000 + 8 * 100, 0xFEC0'0087);  // a page of MMIO
    t.cpu.r[RSI] = u64{100} << 21;
    t.cpu.r[RAX] = 0x55;
    t.run(code("ff c3 89 06 ff c3 f4", "inc ebx; mov [rsi], eax; inc ebx; hlt"));
    CHECK(t.bus.mmio_writes.at(0xFEC0'0000) == 0x55);
    CHECK(t.cpu.r[RBX] == 2);
    CHECK(t.cpu.now() == 4);
}
