// IA32_PERF_GLOBAL_CTRL across the world switch. SDM 3C 26.3.2.1, 27.3.1, 27.5.1; Table 24-10.
#include "cpu/performance.hpp"

#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;
const Code cpuid = code("0f a2", "cpuid");

} // namespace

TEST_CASE("IA32_PERF_GLOBAL_CTRL: loaded by entry and exit, saved by exit, each with its control [SDM 3C 26.3.2.1]") {
    T t;
    PerformanceMonitor& p = *t.cpu.performance;
    p.set_global_control(1);
    t.set(F::guest_ia32_perf_global_ctrl, 2);
    t.set(F::host_ia32_perf_global_ctrl, 4);
    SUBCASE("without the controls") {
        t.guest(cpuid);
        CHECK(p.global_control() == 1);
        CHECK(t.get(F::guest_ia32_perf_global_ctrl) == 2);
    }
    SUBCASE("with them") {
        t.on(vm_entry::load_ia32_perf_global_ctrl);
        t.on(vm_exit::load_ia32_perf_global_ctrl);
        t.on(vm_exit::save_ia32_perf_global_ctrl);
        t.guest(cpuid);
        CHECK(p.global_control() == 4);
        CHECK(t.get(F::guest_ia32_perf_global_ctrl) == 2);
    }
    SUBCASE("saved as the guest left it") {
        t.on(vm_exit::save_ia32_perf_global_ctrl);
        t.guest(cpuid);
        CHECK(t.get(F::guest_ia32_perf_global_ctrl) == 1);
    }
}

TEST_CASE("Counters that run only in the guest count its instructions; CPUID that exits does not retire") {
    T t;
    PerformanceMonitor& p = *t.cpu.performance;
    p.set_fixed_control(3);
    p.set_global_control(0);
    t.set(F::guest_ia32_perf_global_ctrl, u64{1} << 32);
    t.on(vm_entry::load_ia32_perf_global_ctrl);
    t.on(vm_exit::load_ia32_perf_global_ctrl);
    t.guest(code("90 90 90 0f a2", "nop; nop; nop; cpuid"));
    EXITED(t, ExitReason::cpuid);
    CHECK(p.fixed_counter(0) == 3);
}
