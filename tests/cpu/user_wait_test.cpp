// UMONITOR, UMWAIT, TPAUSE, IA32_UMWAIT_CONTROL, each as volume 2 of later editions has it.
#include "cpu/msrs.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

const Code tpause = code("66 0f ae f1 f4", "tpause ecx; hlt"),
           umwait = code("f2 0f ae f1 f4", "umwait ecx; hlt");
const Code umonitor = code("f3 0f ae f0", "umonitor rax");

/// The deadline, in time-stamp counts from now.
void set_deadline(Harness& t, u64 counts) {
    const u64 deadline = t.cpu.tsc() + counts;
    t.cpu.r[RAX] = low32(deadline);
    t.cpu.r[RDX] = high32(deadline);
    t.cpu.r[RCX] = 0;
}

} // namespace

TEST_CASE(
    "TPAUSE: waits until the time-stamp counter has the value in EDX:EAX; flags are clear [SDM 2B TPAUSE]") {
    Harness t;
    set_deadline(t, 5000);
    t.cpu.set_rflags(RFLAGS::FIXED1 | RFLAGS::arithmetic);
    CHECK(t.run(tpause) == RunEnd::halted);
    CHECK(t.cpu.activity == Activity::tpause);
    CHECK((t.cpu.rflags() & RFLAGS::arithmetic) == 0);
    const Tick wakes = t.cpu.wakes_at();
    CHECK(wakes == 5000);
    CHECK(t.cpu.run(wakes - 1, wakes + 100) == RunEnd::halted);
    CHECK(t.cpu.activity == Activity::tpause);
    CHECK(t.cpu.run(wakes, wakes + 100) == RunEnd::halted);
    CHECK(t.cpu.activity == Activity::hlt);
    CHECK((t.cpu.rflags() & RFLAGS::CF) == 0);
}

TEST_CASE("TPAUSE: a deadline that is past does not wait; reserved bits of the operand are #GP(0); CR4.TSD "
          "[SDM 2B TPAUSE]") {
    Harness t;
    set_deadline(t, 0);
    t.run(tpause);
    CHECK(t.cpu.activity == Activity::hlt);
    Harness reserved;
    set_deadline(reserved, 100);
    reserved.cpu.r[RCX] = 2;
    CHECK(reserved.step(tpause) == general_protection(0));
    Harness user;
    user.enter_ring3();
    set_deadline(user, 100);
    CHECK(user.step(tpause) == Stop{});
    Harness forbidden;
    forbidden.enter_ring3();
    forbidden.cpu.control.cr4 |= CR4::TSD;
    CHECK(forbidden.step(tpause) == general_protection(0));
}

TEST_CASE("IA32_UMWAIT_CONTROL: the longest wait; CF tells that it ended there [SDM 2B TPAUSE]") {
    Harness t;
    REQUIRE(t.cpu.msrs->write(t.cpu, Msr::IA32_UMWAIT_CONTROL, 1000).ok());
    CHECK(!t.cpu.msrs->write(t.cpu, Msr::IA32_UMWAIT_CONTROL, 2).ok());
    set_deadline(t, 5000);
    t.run(tpause);
    const Tick wakes = t.cpu.wakes_at();
    CHECK(wakes == t.cpu.now() + 1000);
    t.cpu.run(wakes, wakes + 10);
    CHECK(t.cpu.activity == Activity::hlt);
    CHECK((t.cpu.rflags() & RFLAGS::CF) != 0);
}

TEST_CASE("UMWAIT: ends with a store to the line that UMONITOR armed, or with its deadline [SDM 2B UMWAIT]") {
    Harness t;
    SUBCASE("nothing armed: it does not wait") {
        set_deadline(t, 5000);
        t.run(umwait);
        CHECK(t.cpu.activity == Activity::hlt);
        return;
    }
    t.cpu.r[RAX] = Harness::data_address + 0x10;
    REQUIRE(t.step(umonitor) == Stop{});
    CHECK(t.cpu.monitor_address == Harness::data_address);
    set_deadline(t, 5000);
    t.run(umwait);
    REQUIRE(t.cpu.activity == Activity::mwait);
    SUBCASE("store") {
        t.write(Harness::data_address + 0x20, 1);
        t.cpu.run(t.cpu.now() + 10, t.cpu.now() + 100);
        CHECK(t.cpu.activity == Activity::hlt);
    }
    SUBCASE("deadline") {
        const Tick wakes = t.cpu.wakes_at();
        t.cpu.run(wakes, wakes + 10);
        CHECK(t.cpu.activity == Activity::hlt);
    }
}

TEST_CASE("UMONITOR and the others without WAITPKG: #UD") {
    Harness t(Mode::long64, "skylake-server");
    CHECK(t.step(umonitor) == undefined_opcode());
    CHECK(t.step(tpause) == undefined_opcode());
}
