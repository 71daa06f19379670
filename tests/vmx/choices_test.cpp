// Cases that the manual leaves open or mentions in passing, as docs/choices.md lists them.
#include "tests/support/vmx_harness.hpp"

#include "cpu/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;

const Code cpuid = code("0f a2", "cpuid");
constexpr u64 unsupported_component = 12;

/// VMREAD into RCX, VMWRITE of RCX; what became of the flags.
u64 vmread(T& t, u64 encoding) {
    t.cpu.r[RAX] = encoding;
    REQUIRE(t.step(t.cpu.long_mode_active() ? code("0f 78 c1", "vmread rcx, rax")
                                            : code("0f 78 c1", "vmread ecx, eax")) == Stop{});
    return t.cpu.rflags() & RFLAGS::arithmetic;
}
u64 vmwrite(T& t, u64 encoding, u64 value) {
    t.cpu.r[RAX] = encoding;
    t.cpu.r[RCX] = value;
    REQUIRE(t.step(t.cpu.long_mode_active() ? code("0f 79 c1", "vmwrite rax, rcx")
                                            : code("0f 79 c1", "vmwrite eax, ecx")) == Stop{});
    return t.cpu.rflags() & RFLAGS::arithmetic;
}
Stop with_pointer(T& t, const Code& what, u64 pointer) {
    t.write(Harness::data_address, pointer);
    t.cpu.r[RAX] = Harness::data_address;
    return t.step(what);
}
const Code vmxon = code("f3 0f c7 30", "vmxon [rax]"), vmclear = code("66 0f c7 30", "vmclear [rax]"),
           vmptrld = code("0f c7 30", "vmptrld [rax]"), vmxoff = code("0f 01 c4", "vmxoff");

} // namespace

TEST_CASE("VMREAD: reserved bits of the encoding, and high halves of fields that have none: error 12") {
    T t;
    for (const u64 encoding : {u64{1} << 12 | 0x6800, u64{1} << 15 | 0x6800, u64{0x6801}, u64{0x4001},
                               u64{0x0801}, u64{1} << 32 | 0x6800}) {
        CAPTURE(encoding);
        CHECK(vmread(t, encoding) == RFLAGS::ZF);
        CHECK(t.get(F::vm_instruction_error) == unsupported_component);
    }
    CHECK(vmread(t, 0x6800) == 0);
}

TEST_CASE("VMWRITE by a 32-bit host: full accesses clear the upper half, high accesses leave the lower one "
          "[SDM 3C 24.11.2]") {
    T t;
    t.host32();
    t.set(F::tsc_offset, 0x1122'3344'5566'7788);
    CHECK(vmwrite(t, 0x2011, 0xAABB'CCDD) == 0);
    CHECK(t.get(F::tsc_offset) == 0xAABB'CCDD'5566'7788);
    CHECK(vmread(t, 0x2011) == 0);
    CHECK(t.cpu.gpr(RCX, 4) == 0xAABB'CCDD);
    CHECK(vmread(t, 0x2010) == 0);
    CHECK(t.cpu.gpr(RCX, 4) == 0x5566'7788);
    CHECK(vmwrite(t, 0x2010, 1) == 0);
    CHECK(t.get(F::tsc_offset) == 1);
    t.set(F::guest_rip, ~u64{0});
    CHECK(vmwrite(t, 0x681E, 0x1234) == 0); // natural width
    CHECK(t.get(F::guest_rip) == 0x1234);
}

TEST_CASE("VMfail without a current VMCS is VMfailInvalid, whatever the error [SDM 3C 30.2]") {
    T t;
    with_pointer(t, vmclear, T::vmcs_region);
    REQUIRE(t.vmx.current() == nullptr);
    with_pointer(t, vmclear, 1);
    CHECK((t.cpu.rflags() & RFLAGS::arithmetic) == RFLAGS::CF);
    CHECK(vmread(t, 0x6800) == RFLAGS::CF);
}

TEST_CASE("VMRESUME after VMXOFF and VMXON: an active VMCS keeps its launch state") {
    T t;
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    t.cpu.activity = Activity::active;
    REQUIRE(t.step(vmxoff) == Stop{});
    REQUIRE(with_pointer(t, vmxon, T::vmxon_region) == Stop{});
    REQUIRE(with_pointer(t, vmptrld, T::vmcs_region) == Stop{});
    t.launching = false;
    CHECK(t.enter() == entered());
}

TEST_CASE("The region of an active VMCS is not where it lives: stores are lost") {
    T t;
    const u64 cr3 = t.get(F::guest_cr3);
    for (u64 at = 8; at < 4096; at += 8) t.write(T::vmcs_region + at, ~u64{0});
    CHECK(t.get(F::guest_cr3) == cr3);
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    REQUIRE(t.step(code("90", "nop")) == Stop{});
    with_pointer(t, vmclear, T::vmcs_region);
    with_pointer(t, vmptrld, T::vmcs_region);
    CHECK(t.get(F::guest_cr3) == cr3);
}

TEST_CASE("MSR lists longer than IA32_VMX_MISC recommends: every entry is processed [SDM 3D A.6]") {
    T t;
    constexpr u64 area = 0x24'0000, count = 2000;
    for (u64 i = 0; i < count; ++i) t.write(area + 16 * i, Msr::IA32_STAR);
    t.cpu.star = 0x5A5A;
    t.set(F::vm_exit_msr_store_address, area);
    t.set(F::vm_exit_msr_store_count, count);
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    CHECK(t.read(area + 16 * (count - 1) + 8) == 0x5A5A);
}

TEST_CASE("Exceptions in real mode: no error code, in the exit's information neither [SDM 3C 27.2.2]") {
    T t;
    t.guest_mode(Mode::real);
    t.set(F::exception_bitmap, bit(13));
    t.cpu.r[RBX] = 0x1'0000; // beyond the limit
    t.guest(code("67 66 8b 03", "mov eax, [ebx]"));
    EXITED(t, ExitReason::exception_or_nmi);
    CHECK(t.interruption() == (u32{1} << 31 | 3 << 8 | 13));
}

TEST_CASE("INT n injected into virtual-8086 mode: IOPL does not matter, CR4.VME's redirection bitmap does "
          "[SDM 3C 26.5.1.1]") {
    constexpr u64 tss = Harness::tss_address, vector = 0x40;
    T t;
    t.guest_mode(Mode::v8086);
    t.set(F::guest_idtr_base, 0x9000); // 32-bit gates
    t.set(F::guest_idtr_limit, 0x7FF);
    t.write(0x9000 + 8 * vector, (u64{Harness::handler_address} & 0xFFFF) | u64{Harness::code32_0} << 16 |
                                     u64{0xEE00} << 32 | (Harness::handler_address >> 16) << 48);
    t.write(tss + 4, Harness::stack_top, 4); // ESP0, SS0
    t.write(tss + 8, Harness::data_0, 4);
    t.write(tss + 0x66, 0x68, 2); // I/O map base: the redirection bitmap is the 32 bytes before
    t.set(F::vm_entry_interruption_information, u64{1} << 31 | 4 << 8 | vector);
    t.set(F::vm_entry_instruction_length, 2);
    const u64 cr4 = t.get(F::guest_cr4);
    t.on(primary::hlt_exiting);
    const auto handled_in_ring0 = [&] {
        t.place_guest(code("f4 f4", "hlt; hlt"));
        t.run_guest();
        return t.in_host() && t.reason() == static_cast<u32>(ExitReason::hlt) &&
               t.guest_rip() == Harness::handler_address;
    };
    SUBCASE("without CR4.VME, IOPL = 0") { CHECK(handled_in_ring0()); }
    SUBCASE("with CR4.VME and the bit set") {
        t.set(F::guest_cr4, cr4 | CR4::VME);
        t.write(tss + 0x48 + vector / 8, 1, 1);
        CHECK(handled_in_ring0());
    }
    SUBCASE("with CR4.VME and the bit clear: the 8086 program's vector, IF in the image is VIF") {
        t.set(F::guest_cr4, cr4 | CR4::VME);
        t.set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::VM | RFLAGS::VIF);
        t.write(tss + 0x48 + vector / 8, 0, 1);
        t.write(4 * vector, 0x2000'0010, 4); // 2000H:0010H
        t.write(0x2'0010, 0xF4, 1);          // HLT is #GP there
        t.set(F::exception_bitmap, bit(13));
        t.place_guest(code("f4 f4", "hlt; hlt"));
        t.run_guest();
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.get(F::guest_cs_selector) == 0x2000);
        CHECK(t.guest_rip() == 0x10);
        CHECK(t.read(0xFFF0 - 6, 2) == 2); // IP after the INT n that the VMM stood in for
        CHECK((t.read(0xFFF0 - 2, 2) & (RFLAGS::IF | RFLAGS::IOPL)) == (RFLAGS::IF | RFLAGS::IOPL));
    }
}

TEST_CASE("An exit from IA-32e mode to a 32-bit host: VMX abort 6 [SDM 3C 27.5, 27.7]") {
    T t;
    t.host32();
    REQUIRE(t.enter() == entered());
    t.cpu.control.efer |= EFER::LME | EFER::LMA; // the guest has turned it on
    (void)t.vmx.exit({.reason = ExitReason::external_interrupt});
    CHECK(t.read(T::vmcs_region + 4, 4) == 6);
    CHECK(!t.vmx.operating());
    CHECK(t.cpu.activity == Activity::shutdown);
}

TEST_CASE(
    "An exit to a host with PAE paging whose PDPTEs have reserved bits: VMX abort 2 [SDM 3C 27.5.4, 27.7]") {
    T t;
    t.host32();
    t.set(F::host_cr4, t.get(F::host_cr4) | CR4::PAE);
    t.set(F::host_cr3, 0x9000);
    t.write(0x9000, 1 | bit(5));
    REQUIRE(t.enter() == entered());
    (void)t.vmx.exit({.reason = ExitReason::external_interrupt});
    CHECK(t.read(T::vmcs_region + 4, 4) == 2);
    CHECK(!t.vmx.operating());
    CHECK(t.cpu.activity == Activity::shutdown);
}
