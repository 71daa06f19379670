// The visitor of a processor's state: names every field once, and restores what it saved.
#include "cpu/msrs.hpp"
#include "tests/support/harness.hpp"
#include "tests/support/notes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

TEST_CASE("processor state: every field has a name of its own") {
    Harness t;
    Notes notes;
    t.cpu.visit(notes);
    CHECK(!notes.twice);
    for (const char* name :
         {"rax", "r15", "rflags", "cr3", "efer", "cs.base", "tr.selector", "x87.r7.significand", "ymm15.3",
          "mxcsr", "lstar", "misc_enable", "rip", "msrs.IA32_MTRR_DEF_TYPE", "activity"})
        CHECK_MESSAGE(notes.values.contains(name), name);
}

TEST_CASE("processor state: what was saved comes back") {
    Harness t, other{Mode::real};
    t.cpu.flags.set_arithmetic(RFLAGS::CF | RFLAGS::PF | RFLAGS::SF);
    t.cpu.r[R11] = 0x1234;
    t.cpu.x87.st[3] = {5, 6};
    t.cpu.vector[9].q[2] = 7;
    t.cpu.msrs->store(Msr::IA32_MTRR_DEF_TYPE, 0xC06);
    t.cpu.random.next();
    Notes saved;
    t.cpu.visit(saved);
    Notes restoring(&saved);
    other.cpu.visit(restoring);
    Notes again;
    other.cpu.visit(again);
    CHECK(again.values == saved.values);
    CHECK(other.cpu.rflags() == t.cpu.rflags());
    CHECK(other.cpu.code64());
    CHECK(other.cpu.msrs->stored(Msr::IA32_MTRR_DEF_TYPE) == 0xC06);
    CHECK(other.cpu.random.next() == t.cpu.random.next());
}

TEST_CASE("processor state: looking at it changes nothing") {
    Harness t;
    Notes first, second;
    t.cpu.visit(first);
    t.cpu.visit(second);
    CHECK(first.values == second.values);
}
