// Accesses of a guest to control and debug registers, ports, MSRs, time; PAUSE loops; VMCS shadowing; VM
// functions. SDM 3C 25.1.3, 25.3, 25.5.5, 27.2, 29.3.
#include "tests/support/vmx_harness.hpp"

#include "vmx/exit_qualification.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;
using Change = void (*)(T&);
void nothing(T&) {}

} // namespace

TEST_CASE(
    "MOV to CR0 and CR4: masked bits against the read shadow; unmasked ones are loaded [SDM 3C 25.1.3]") {
    T t;
    const u64 cr0 = t.get(F::guest_cr0), cr4 = t.get(F::guest_cr4);
    t.set(F::cr0_guest_host_mask, CR0::NE | CR0::MP);
    t.set(F::cr0_read_shadow, CR0::MP);
    SUBCASE("reading gives the shadow's bits") {
        t.guest(code("0f 20 c0 0f a2", "mov rax, cr0; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.cpu.r[RAX] == ((cr0 & ~(CR0::NE | CR0::MP)) | CR0::MP));
    }
    SUBCASE("writing what the shadow has keeps the host's bits") {
        t.cpu.r[RBX] = (cr0 & ~CR0::NE) | CR0::MP | CR0::TS;
        t.guest(code("0f 22 c3 0f a2", "mov cr0, rbx; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::guest_cr0) == (cr0 | CR0::TS));
    }
    SUBCASE("a masked bit that differs exits") {
        t.cpu.r[RBX] = cr0 & ~(CR0::NE | CR0::MP);
        t.guest(code("0f 22 c3", "mov cr0, rbx"));
        EXITED(t, ExitReason::control_register_access);
        CHECK(t.qualification() == 3 << 8);
        CHECK(t.length() == 3);
    }
    SUBCASE("CR4 likewise") {
        t.set(F::cr4_guest_host_mask, CR4::VMXE);
        t.cpu.r[R9] = (cr4 & ~CR4::VMXE) | CR4::TSD;
        t.guest(code("41 0f 22 e1 41 0f 20 e2 0f a2", "mov cr4, r9; mov r10, cr4; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::guest_cr4) == (cr4 | CR4::TSD));
        CHECK(t.cpu.r[R10] == ((cr4 & ~CR4::VMXE) | CR4::TSD));
    }
}

TEST_CASE("CLTS and LMSW under mask and shadow [SDM 3C 25.1.3, 25.3]") {
    T t;
    const u64 cr0 = t.get(F::guest_cr0);
    t.set(F::cr0_guest_host_mask, CR0::TS);
    const Code clts = code("0f 06 0f a2", "clts; cpuid");
    SUBCASE("CLTS with mask and shadow exits") {
        t.set(F::cr0_read_shadow, CR0::TS);
        t.guest(clts);
        EXITED(t, ExitReason::control_register_access);
        CHECK(t.qualification() == 2 << 4);
    }
    SUBCASE("with the shadow 0 it does nothing") {
        t.set(F::guest_cr0, cr0 | CR0::TS);
        t.guest(clts);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::guest_cr0) == (cr0 | CR0::TS));
    }
    SUBCASE("without mask it clears TS") {
        t.set(F::cr0_guest_host_mask, 0);
        t.set(F::guest_cr0, cr0 | CR0::TS);
        t.guest(clts);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::guest_cr0) == cr0);
    }
    const Code lmsw = code("0f 01 f3 0f a2", "lmsw bx; cpuid");
    SUBCASE("LMSW that would change a masked bit exits with its source") {
        t.cpu.r[RBX] = 0xABC8 | CR0::TS;
        t.guest(lmsw);
        EXITED(t, ExitReason::control_register_access);
        CHECK(t.qualification() == (3 << 4 | u64{0xABC8} << 16));
    }
    SUBCASE("LMSW does not exit for clearing PE") {
        t.set(F::cr0_guest_host_mask, CR0::PE);
        t.set(F::cr0_read_shadow, CR0::PE);
        t.cpu.r[RBX] = CR0::MP;
        t.guest(lmsw);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::guest_cr0) == (cr0 | CR0::MP));
    }
    SUBCASE("memory operand: its linear address is recorded") {
        t.cpu.r[RBX] = Harness::data_address;
        t.write(Harness::data_address, CR0::TS, 2);
        t.guest(code("0f 01 33", "lmsw [rbx]"));
        EXITED(t, ExitReason::control_register_access);
        CHECK(t.qualification() == (3 << 4 | 1 << 6 | CR0::TS << 16));
        CHECK(t.get(F::guest_linear_address) == Harness::data_address);
    }
}

TEST_CASE("MOV to CR3: CR3-load exiting and the CR3-target values [SDM 3C 25.1.3]") {
    T t;
    t.on(primary::cr3_load_exiting);
    t.set(F::cr3_target_count, 1);
    t.set(F::cr3_target_value_0, Harness::tables_address);
    t.set(F::cr3_target_value_1, 0x5000);
    t.cpu.r[RBX] = Harness::tables_address;
    t.guest(code("0f 22 db bb 00 50 00 00 0f 22 db", "mov cr3, rbx; mov ebx, 0x5000; mov cr3, rbx"));
    EXITED(t, ExitReason::control_register_access);
    CHECK(t.guest_rip() == Harness::code_address + 8);
    CHECK(t.qualification() == (3 | 3 << 8));
}

TEST_CASE("CR8 under TPR shadow; falling below the threshold is a trap [SDM 3C 29.1.2, 29.3]") {
    T t;
    t.on(primary::use_tpr_shadow);
    t.write(VmxHarness::virtual_apic + 0x80, 0x0000'0095, 4);
    t.set(F::tpr_threshold, 3);
    SUBCASE("reading") {
        t.guest(code("44 0f 20 c0 0f a2", "mov rax, cr8; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.cpu.r[RAX] == 9);
    }
    SUBCASE("writing at the threshold") {
        t.cpu.r[RBX] = 3;
        t.guest(code("44 0f 22 c3 0f a2", "mov cr8, rbx; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.read(VmxHarness::virtual_apic + 0x80, 4) == 0x30);
        CHECK(t.interrupts.tpr == 0);
    }
    SUBCASE("writing below it") {
        t.cpu.r[RBX] = 2;
        t.guest(code("44 0f 22 c3 90", "mov cr8, rbx; nop"));
        EXITED(t, ExitReason::tpr_below_threshold);
        CHECK(t.guest_rip() == Harness::code_address + 4);
        CHECK(t.read(VmxHarness::virtual_apic + 0x80, 4) == 0x20);
    }
}

TEST_CASE("MOV DR: qualification [SDM 3C Table 27-4]") {
    T t;
    t.on(primary::mov_dr_exiting);
    t.guest(code("41 0f 23 d8", "mov dr3, r8"));
    EXITED(t, ExitReason::mov_dr);
    CHECK(t.qualification() == (3 | 8 << 8));
    T from;
    from.on(primary::mov_dr_exiting);
    from.guest(code("0f 21 f1", "mov rcx, dr6"));
    CHECK(from.qualification() == (6 | 1 << 4 | 1 << 8));
}

TEST_CASE("I/O: unconditional exiting, bitmaps, every port of an access, wrapping [SDM 3C 25.1.3]") {
    const Code in_dx = code("ed 0f a2", "in eax, dx; cpuid");
    const auto exits = [&](u64 port, Change change) {
        T t;
        t.cpu.r[RDX] = port;
        change(t);
        t.guest(in_dx);
        REQUIRE(t.in_host());
        return t.reason() == 30;
    };
    constexpr Change maps = [](T& t) {
        t.on(primary::use_io_bitmaps);
        t.on(primary::unconditional_io_exiting); // has no effect beside bitmaps
        t.write(VmxHarness::io_bitmap_a + 0x73 / 8, 1 << (0x73 % 8), 1);
        t.write(VmxHarness::io_bitmap_b, 1, 1);
    };
    CHECK(!exits(0x70, nothing));
    CHECK(exits(0x70, [](T& t) { t.on(primary::unconditional_io_exiting); }));
    CHECK(!exits(0x6C, maps));
    CHECK(exits(0x70, maps));
    CHECK(exits(0x73, maps));
    CHECK(!exits(0x74, maps));
    CHECK(exits(0x7FFD, maps));
    CHECK(!exits(0x7FFC, maps));
    CHECK(exits(0x8000, maps));
    CHECK(!exits(0xFFFC, maps));
    CHECK(exits(0xFFFD, maps));
}

TEST_CASE("I/O: qualification, and what string instructions report [SDM 3C Tables 27-5, 27-8]") {
    T t;
    t.on(primary::unconditional_io_exiting);
    t.cpu.r[RDX] = 0x1F0;
    SUBCASE("OUT immediate") {
        t.guest(code("e7 80", "out 0x80, eax"));
        CHECK(t.qualification() == IoQualification{.bytes = 4, .immediate = true, .port = 0x80}.encode());
        CHECK(t.qualification() == (3 | 1 << 6 | 0x80 << 16));
    }
    SUBCASE("REP INSW") {
        t.cpu.r[RCX] = 5;
        t.cpu.r[RDI] = 0x123'4567;
        t.guest(code("f3 66 6d", "rep insw"));
        CHECK(t.qualification() == (1 | 1 << 3 | 1 << 4 | 1 << 5 | 0x1F0 << 16));
        CHECK(t.information() == 2 << 7);
        CHECK(t.get(F::guest_linear_address) == 0x123'4567);
        CHECK(t.cpu.r[RCX] == 5);
    }
    SUBCASE("OUTSB with a segment override and 32-bit addresses") {
        t.cpu.r[RSI] = 0x55'0001'0000;
        t.set(F::guest_fs_base, 0x100);
        t.guest(code("64 67 6e", ""));
        CHECK(t.qualification() == (1 << 4 | 0x1F0 << 16));
        CHECK(t.information() == (1 << 7 | 4 << 15));
        CHECK(t.get(F::guest_linear_address) == 0x1'0100);
    }
    EXITED(t, ExitReason::io_instruction);
}

TEST_CASE("RDMSR and WRMSR: bitmaps by range and direction; others always exit [SDM 3C 24.6.9, 25.1.3]") {
    const auto exits = [&](bool write, u64 index, Change change) {
        T t;
        t.cpu.r[RCX] = index;
        change(t);
        t.guest(write ? code("0f 30", "wrmsr") : code("0f 32", "rdmsr"));
        REQUIRE(t.in_host());
        return t.reason() == (write ? 32u : 31u);
    };
    constexpr Change read_174 = [](T& t) {
        t.on(primary::use_msr_bitmaps);
        t.write(VmxHarness::msr_bitmap + 0x174 / 8, 1 << (0x174 % 8), 1);
        t.write(VmxHarness::msr_bitmap + 0xC00 + 0x82 / 8, 1 << (0x82 % 8), 1);
        t.memory.write_bytes(Physical{Harness::code_address + 2}, "\x0F\xA2", 2);
    };
    CHECK(exits(false, 0x174, nothing));
    CHECK(exits(false, 0x174, read_174));
    CHECK(!exits(true, 0x174, read_174));
    CHECK(!exits(false, 0x175, read_174));
    CHECK(exits(true, 0xC000'0082, read_174));
    CHECK(!exits(false, 0xC000'0082, read_174));
    CHECK(exits(false, 0x2000, read_174));
    CHECK(exits(true, 0xC000'2000, read_174));
    CHECK(exits(false, 0x4000'0000, read_174));
    CHECK(exits(false, 0x10'0000'0174, read_174)); // only ECX counts
}

TEST_CASE("INVLPG: the linear address is the qualification [SDM 3C 27.2.1]") {
    T t;
    t.on(primary::invlpg_exiting);
    t.set(F::guest_gs_base, 0x7000'0000'0000);
    t.cpu.r[RBX] = 0x1000;
    t.guest(code("65 0f 01 7b 08", "invlpg gs:[rbx+0x08]"));
    EXITED(t, ExitReason::invlpg);
    CHECK(t.qualification() == 0x7000'0000'1008);
}

TEST_CASE("PAUSE-loop exiting: only at CPL 0, when PAUSEs follow closely for too long [SDM 3C 25.1.3]") {
    const auto pauses = [](u64 gap, u64 window) {
        T t;
        t.on(secondary::pause_loop_exiting);
        t.set(F::ple_gap, gap);
        t.set(F::ple_window, window);
        t.cpu.r[RCX] = 20;
        t.guest(code("f3 90 ff c9 75 fa 0f a2", "")); // pause; dec ecx; jnz; cpuid
        REQUIRE(t.in_host());
        return t.reason() == 40 ? 21 - (t.cpu.r[RCX] & 0xFF) : 0;
    };
    CHECK(pauses(10, 30) == 12); // PAUSEs are 3 ticks apart: the 12th comes 33 ticks after the first
    CHECK(pauses(2, 30) == 0);   // each starts a new loop
    CHECK(pauses(10, 1000) == 0);
}

TEST_CASE("RDTSC and IA32_TIME_STAMP_COUNTER: offset, scaling [SDM 3C 25.3]") {
    const auto tsc = [](Change change) {
        T t;
        change(t);
        t.guest(code("0f 31 0f a2", "rdtsc; cpuid"));
        EXITED(t, ExitReason::cpuid);
        return t.cpu.r[RDX] << 32 | low32(t.cpu.r[RAX]);
    };
    const u64 plain = tsc(nothing);
    CHECK(plain < 1000);
    constexpr Change offset = [](T& t) {
        t.on(primary::use_tsc_offsetting);
        t.set(F::tsc_offset, u64{1} << 40);
    };
    CHECK(tsc(offset) == plain + (u64{1} << 40));
    CHECK(tsc([](T& t) {
              t.on(primary::use_tsc_offsetting);
              t.on(secondary::use_tsc_scaling);
              t.set(F::tsc_multiplier, u64{3} << 47);
              t.set(F::tsc_offset, 1000);
          }) == plain * 3 / 2 + 1000);
    CHECK(tsc([](T& t) { // scaling is nothing without offsetting
              t.on(secondary::use_tsc_scaling);
              t.set(F::tsc_multiplier, u64{3} << 47);
          }) == plain);
}

TEST_CASE("XSAVES: exits for components of the XSS-exiting bitmap [SDM 3C 25.1.3]") {
    T t;
    t.on(secondary::enable_xsaves_xrstors);
    t.set(F::guest_cr4, t.get(F::guest_cr4) | CR4::OSXSAVE);
    t.cpu.xss = bit(8);
    t.cpu.r[RAX] = bit(8);
    t.cpu.r[RDX] = 0;
    t.set(F::xss_exiting_bitmap, bit(8));
    t.guest(code("0f c7 6b 40", "xsaves [rbx+0x40]"));
    EXITED(t, ExitReason::xsaves);
    CHECK(t.qualification() == 0x40);
}

TEST_CASE("VMCS shadowing: VMREAD and VMWRITE reach the VMCS of the link pointer [SDM 3C 24.10, 30.3]") {
    T t;
    t.write(VmxHarness::spare_region, t.vmx.capabilities().revision() | u64{1} << 31, 4);
    t.on(secondary::vmcs_shadowing);
    t.set(F::vmcs_link_pointer, VmxHarness::spare_region);
    t.set(F::vmread_bitmap_address, VmxHarness::io_bitmap_a);
    t.set(F::vmwrite_bitmap_address, VmxHarness::io_bitmap_a);
    t.write(VmxHarness::io_bitmap_a + 0x6800 / 8, 1, 1); // guest CR0 exits
    t.cpu.r[RCX] = 0x681E;
    t.cpu.r[RBX] = 0x1234'5678;
    // vmwrite rcx, rbx; vmread rdx, rcx; mov ecx, 0x6800; vmread rax, rcx
    t.guest(code("0f 79 cb 0f 78 ca b9 00 68 00 00 0f 78 c8", ""));
    EXITED(t, ExitReason::vmread);
    CHECK(t.guest_rip() == Harness::code_address + 11);
    CHECK(t.cpu.r[RDX] == 0x1234'5678);
    CHECK((*t.vmx.active().find(Physical{VmxHarness::spare_region}))[F::guest_rip] == 0x1234'5678);
}

TEST_CASE("VMFUNC: EPTP switching takes the list's pointer, or exits [SDM 3C 25.5.5]") {
    T t;
    t.use_ept();
    t.on(secondary::enable_vm_functions);
    t.set(F::vm_function_controls, 1);
    t.set(F::eptp_list_address, VmxHarness::msr_area);
    t.write(VmxHarness::msr_area + 8 * 3, t.get(F::ept_pointer) | bit(6));
    t.cpu.r[RAX] = 0;
    const Code vmfunc = code("0f 01 d4 0f a2", "vmfunc; cpuid");
    SUBCASE("a good entry") {
        t.cpu.r[RCX] = 3;
        t.guest(vmfunc);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.get(F::ept_pointer) == t.read(VmxHarness::msr_area + 24));
    }
    SUBCASE("a bad one") {
        t.cpu.r[RCX] = 4;
        t.guest(vmfunc);
        EXITED(t, ExitReason::vmfunc);
    }
    SUBCASE("beyond the list") {
        t.cpu.r[RCX] = 512;
        t.guest(vmfunc);
        EXITED(t, ExitReason::vmfunc);
    }
    SUBCASE("a function that does not exist") {
        t.cpu.r[RAX] = 64;
        t.set(F::exception_bitmap, bit(6));
        t.guest(vmfunc);
        EXITED(t, ExitReason::exception_or_nmi);
    }
}
