// Control transfers and what watches them: single-step traps over SYSCALL and SYSRET, the resume flag of
// IRET, direct branches beyond the canonical addresses. SDM 3B 17.3.1; SDM 2A JMP, Jcc, CALL; SDM 2B SYSCALL,
// SYSRET.
#include "cpu/blocks.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 kernel = 0x1'8000, user_code = 0x1'9000;

/// A processor whose SYSCALL goes to `kernel` and whose exceptions of ring 3 find a stack.
struct Stepping : Harness {
    Stepping() {
        cpu.control.efer |= EFER::SCE;
        cpu.star = u64{code64_0} << 32 | u64{data_3 - 8u} << 48;
        cpu.lstar = kernel;
        write(tss_address + 4, stack_top - 0x800); // RSP0
        write(kernel, 0xF490, 2);                  // nop; hlt
        write(user_code, 0xF490, 2);
    }
    u64 saved(unsigned quadword, u64 top) { return read(top - 40 + 8 * quadword); }
};

constexpr u64 ring0_stack = Harness::stack_top - 0x800;

} // namespace

TEST_CASE("SYSCALL: no single-step trap where IA32_FMASK clears TF; with TF kept it comes at the target") {
    Stepping t;
    t.enter_ring3();
    t.cpu.set_rflags(RFLAGS::FIXED1 | RFLAGS::TF);
    SUBCASE("cleared") {
        t.cpu.sfmask = RFLAGS::TF;
        t.run(code("0f 05", "syscall"));
        CHECK(t.vector_reached() == -1);
        CHECK(t.cpu.rip == kernel + 2);
        CHECK((t.cpu.r[R11] & RFLAGS::TF) != 0);
    }
    SUBCASE("kept") {
        t.run(code("0f 05", "syscall"));
        CHECK(t.vector_reached() == 1);
        CHECK((t.cpu.dr6 & DR6::BS) != 0);
        CHECK(t.saved(0, align_down(t.stack_top, 16)) == kernel); // at CPL 0 already: the same stack
    }
}

TEST_CASE("SYSRET that loads TF: the trap comes before the first instruction of the user") {
    Stepping t;
    t.cpu.r[RCX] = user_code;
    t.cpu.r[R11] = RFLAGS::FIXED1 | RFLAGS::TF;
    t.run(code("48 0f 07", "sysret"));
    CHECK(t.vector_reached() == 1);
    CHECK((t.cpu.dr6 & DR6::BS) != 0);
    CHECK(t.saved(0, ring0_stack) == user_code);
}

TEST_CASE(
    "IRET that loads RF: the instruction breakpoint of its target does not fire once [SDM 3B 17.3.1.1]") {
    for (const bool loads_rf : {false, true})
        for (const bool had_rf : {false, true}) {
            CAPTURE(loads_rf);
            CAPTURE(had_rf);
            Stepping t;
            const u64 frame[] = {kernel, Harness::code64_0, RFLAGS::FIXED1 | (loads_rf ? RFLAGS::RF : 0),
                                 Harness::stack_top, Harness::data_0};
            for (unsigned i = 0; i < 5; ++i) t.write(Harness::stack_top - 0x100 + 8 * i, frame[i]);
            t.cpu.r[RSP] = Harness::stack_top - 0x100;
            t.cpu.dr[0] = kernel;
            t.cpu.dr7 |= 2;
            t.cpu.set_rflags(RFLAGS::FIXED1 | (had_rf ? RFLAGS::RF : 0));
            t.cpu.mode_changed();
            t.run(code("48 cf", "iretq"));
            CHECK(t.vector_reached() == (loads_rf ? -1 : 1));
        }
}

TEST_CASE(
    "RF lasts until the instruction completes: a fault saves it, and afterwards it is 0 [SDM 3B 17.3.1.1]") {
    Stepping t;
    t.cpu.set_rflags(RFLAGS::FIXED1 | RFLAGS::RF);
    t.run(code("90 90 0f 0b", "nop; nop; ud2"));
    REQUIRE(t.vector_reached() == 6);
    CHECK((t.saved(2, t.stack_top) & RFLAGS::RF) != 0); // every fault sets it in the image
    CHECK((t.cpu.rflags() & RFLAGS::RF) == 0);
}

namespace {

/// The last 2 MBytes of the lower canonical half are physical 400000H.
constexpr u64 half_end = u64{1} << 47, physical = 0x40'0000;

struct Edge : Harness {
    Edge() {
        constexpr u64 directories = tables_address + 0x8000;
        write(tables_address + 8 * 255, directories | 7);
        write(directories + 8 * 511, (directories + 0x1000) | 7);
        write(directories + 0x1000 + 8 * 511, physical | 0x87);
    }
    /// Runs these bytes, the last of which is `from_end` bytes below the end.
    void run_at(std::initializer_list<u8> bytes, u64 from_end) {
        start = half_end - from_end;
        std::vector<u8> code(bytes);
        memory.write_bytes(Physical{physical + (u64{2} << 20) - from_end}, code.data(), code.size());
        cpu.rip = cpu.next_rip = start;
        cpu.r[RSP] = stack_top;
        Harness::run(Tick{100});
    }
    u64 start = 0;
};

} // namespace

TEST_CASE("Direct branches beyond the canonical addresses: #GP(0) of the branch, which has done nothing [SDM "
          "2A JMP]") {
    for (const bool fast : {false, true})
        for (const bool stepped : {false, true}) {
            CAPTURE(fast);
            CAPTURE(stepped);
            const auto faults = [&](std::initializer_list<u8> bytes) {
                Edge t;
                t.cpu.blocks->set_fast(fast);
                if (stepped) t.cpu.set_rflags(t.cpu.rflags() | RFLAGS::RF);
                t.cpu.r[RCX] = 7;
                t.write(Harness::stack_top - 8, 0x1234);
                t.run_at(bytes, 0x100);
                REQUIRE(t.vector_reached() == 13);
                CHECK(t.read(Harness::stack_top - 48) == 0); // error code
                CHECK(t.read(Harness::stack_top - 40) == t.start + 1);
                CHECK(t.cpu.r[RCX] == 7);
                CHECK(t.read(Harness::stack_top - 16) == Harness::stack_top); // RSP as before
            };
            faults({0x90, 0xE9, 0x00, 0x10, 0x00, 0x00});       // jmp
            faults({0xF9, 0x0F, 0x82, 0x00, 0x10, 0x00, 0x00}); // stc; jc
            faults({0x90, 0xE8, 0x00, 0x10, 0x00, 0x00});       // call
        }
}

TEST_CASE("Code that runs past the canonical addresses faults where it arrives") {
    Edge t;
    t.run_at({0x90, 0x90, 0x90}, 3);
    REQUIRE(t.vector_reached() == 13);
    CHECK(t.read(Harness::stack_top - 40) == half_end);
}
