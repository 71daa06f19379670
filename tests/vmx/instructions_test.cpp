// The VMX instructions: order of tests, error numbers, widths of fields. SDM 3C ch. 30, 24.11.
#include "tests/support/vmx_harness.hpp"

#include "cpu/msrs.hpp"
#include "vmx/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
const Stop done{};
const Stop ud = undefined_opcode();
const Stop gp = general_protection(0);

const Code vmxon = code("f3 0f c7 30", "vmxon [rax]"), vmxoff = code("0f 01 c4", "vmxoff"),
           vmclear = code("66 0f c7 30", "vmclear [rax]"), vmptrld = code("0f c7 30", "vmptrld [rax]"),
           vmptrst = code("0f c7 38", "vmptrst [rax]"), vmread = code("0f 78 cb", "vmread rbx, rcx"),
           vmwrite = code("0f 79 cb", "vmwrite rcx, rbx"), vmlaunch = code("0f 01 c2", "vmlaunch"),
           vmresume = code("0f 01 c3", "vmresume"), vmcall = code("0f 01 c1", "vmcall"),
           invept = code("66 0f 38 80 08", "invept rcx, xmmword ptr [rax]"),
           invvpid = code("66 0f 38 81 08", "invvpid rcx, xmmword ptr [rax]");

/// Flags after a VMX instruction. SDM 3C 30.2.
enum class Ended { success, fail_invalid, fail_valid, otherwise };
Ended ended(const Cpu& cpu) {
    const u64 flags = cpu.rflags() & RFLAGS::arithmetic;
    if (flags == 0) return Ended::success;
    if (flags == RFLAGS::CF) return Ended::fail_invalid;
    return flags == RFLAGS::ZF ? Ended::fail_valid : Ended::otherwise;
}

class Instructions : public VmxHarness {
public:
    using VmxHarness::VmxHarness;
    /// Executes with RAX pointing at `operand`.
    Stop with_pointer(const Code& what, u64 operand) {
        write(data_address, operand);
        cpu.r[RAX] = data_address;
        return step(what);
    }
    /// VMfailValid's number, or 0.
    u64 error_of(const Code& what, u64 operand) {
        CHECK(with_pointer(what, operand) == done);
        if (ended(cpu) == Ended::success) return 0;
        CHECK(ended(cpu) == Ended::fail_valid);
        return get(F::vm_instruction_error);
    }
    void leave_vmx() { REQUIRE(step(vmxoff) == done); }
};

void expect_everywhere(const Stop& expected, void (*prepare)(Instructions&)) {
    for (const Code& what :
         {vmxoff, vmclear, vmptrld, vmptrst, vmread, vmwrite, vmlaunch, vmresume, invept, invvpid}) {
        CAPTURE(what.text);
        Instructions t;
        prepare(t);
        CHECK(t.with_pointer(what, 0) == expected);
    }
}

} // namespace

TEST_CASE("VMX instructions: outside VMX operation #UD, also VMCALL [SDM 3C 30.3]") {
    expect_everywhere(ud, [](Instructions& t) { t.leave_vmx(); });
    Instructions t;
    t.leave_vmx();
    CHECK(t.step(vmcall) == ud);
}

TEST_CASE("VMX instructions: CPL above 0 is #GP(0) [SDM 3C 30.3]") {
    expect_everywhere(gp, [](Instructions& t) { t.enter_ring3(); });
    for (const Code& what : {vmxon, vmcall}) {
        Instructions t;
        t.enter_ring3();
        CHECK(t.with_pointer(what, 0) == gp);
    }
}

TEST_CASE("VMX instructions: compatibility mode is #UD, before CPL [SDM 3C 30.3]") {
    for (const Code& what :
         {code("0f 01 c4", "vmxoff"), code("0f c7 30", "vmptrld [eax]"), code("0f 01 c2", "vmlaunch"),
          code("0f 01 c1", "vmcall"), code("f3 0f c7 30", "vmxon [eax]")}) {
        Instructions t;
        t.enter_ring3();
        t.cpu.seg(Seg::CS).access = (t.cpu.seg(Seg::CS).access & ~AR::L) | AR::DB;
        t.cpu.mode_changed();
        CHECK(t.step(what) == ud);
    }
}

TEST_CASE("VMXON: CR4.VMXE, fixed bits, feature control, region, root operation [SDM 3C 30.3 VMXON]") {
    Instructions t;
    CHECK(t.error_of(vmxon, VmxHarness::vmxon_region) == 15);
    t.leave_vmx();
    SUBCASE("CR4.VMXE = 0") {
        t.cpu.control.cr4 &= ~CR4::VMXE;
        CHECK(t.with_pointer(vmxon, VmxHarness::vmxon_region) == ud);
    }
    SUBCASE("CR0.NE = 0") {
        t.cpu.control.cr0 &= ~CR0::NE;
        CHECK(t.with_pointer(vmxon, VmxHarness::vmxon_region) == gp);
    }
    SUBCASE("IA32_FEATURE_CONTROL not locked, or without VMXON outside SMX") {
        for (const u64 value : {u64{0}, u64{1}, u64{4}}) {
            t.cpu.msrs->store(Msr::IA32_FEATURE_CONTROL, value);
            CHECK(t.with_pointer(vmxon, VmxHarness::vmxon_region) == gp);
        }
    }
    SUBCASE("addresses and revisions") {
        for (const u64 bad : {VmxHarness::vmxon_region + 8, u64{1} << 46, u64{VmxHarness::spare_region}}) {
            CHECK(t.with_pointer(vmxon, bad) == done);
            CHECK(ended(t.cpu) == Ended::fail_invalid);
            CHECK(!t.vmx.operating());
        }
        t.write(VmxHarness::vmxon_region + 3, 0x80 | t.read(VmxHarness::vmxon_region + 3, 1), 1); // bit 31
        CHECK(t.with_pointer(vmxon, VmxHarness::vmxon_region) == done);
        CHECK(ended(t.cpu) == Ended::fail_invalid);
    }
    SUBCASE("success: no current VMCS, INIT blocked") {
        CHECK(t.with_pointer(vmxon, VmxHarness::vmxon_region) == done);
        CHECK(ended(t.cpu) == Ended::success);
        CHECK(t.vmx.current() == nullptr);
        CHECK(t.vmx.init_blocked(t.cpu));
    }
}

TEST_CASE("VMX operation: CR0 and CR4 bits that are fixed can not be changed [SDM 3C 23.8]") {
    Instructions t;
    t.cpu.r[RAX] = t.cpu.control.cr4 & ~CR4::VMXE;
    CHECK(t.step(code("0f 22 e0", "mov cr4, rax")) == gp);
    t.cpu.r[RAX] = t.cpu.control.cr0 & ~CR0::NE;
    CHECK(t.step(code("0f 22 c0", "mov cr0, rax")) == gp);
    t.leave_vmx();
    CHECK(t.step(code("0f 22 c0", "mov cr0, rax")) == done);
}

TEST_CASE("VMCLEAR: errors 2 and 3; the current VMCS goes; the launch state is clear [SDM 3C 30.3 VMCLEAR]") {
    Instructions t;
    CHECK(t.error_of(vmclear, VmxHarness::vmcs_region + 1) == 2);
    CHECK(t.error_of(vmclear, u64{1} << 46) == 2);
    CHECK(t.error_of(vmclear, VmxHarness::vmxon_region) == 3);
    t.vmx.current()->set_launched();
    t.set(F::guest_rip, 0x1234'5678'9ABC);
    CHECK(t.with_pointer(vmclear, VmxHarness::vmcs_region) == done);
    CHECK(ended(t.cpu) == Ended::success);
    CHECK(t.vmx.current() == nullptr);
    CHECK(t.error_of(vmptrld, VmxHarness::vmcs_region) == 0);
    CHECK(!t.vmx.current()->launched());
    CHECK(t.get(F::guest_rip) == 0x1234'5678'9ABC); // the region kept it
}

TEST_CASE("VMPTRLD: errors 9, 10 and 11; VMPTRST; fields of several VMCSs apart [SDM 3C 30.3]") {
    Instructions t;
    CHECK(t.error_of(vmptrld, VmxHarness::vmcs_region + 0x10) == 9);
    CHECK(t.error_of(vmptrld, VmxHarness::vmxon_region) == 10);
    CHECK(t.error_of(vmptrld, VmxHarness::spare_region) == 11);
    t.write(VmxHarness::spare_region, t.vmx.capabilities().revision(), 4);
    t.set(F::guest_rip, 1);
    CHECK(t.error_of(vmptrld, VmxHarness::spare_region) == 0);
    t.set(F::guest_rip, 2);
    CHECK(t.error_of(vmptrld, VmxHarness::vmcs_region) == 0);
    CHECK(t.get(F::guest_rip) == 1);
    t.cpu.r[RAX] = Harness::data_address + 8;
    CHECK(t.step(vmptrst) == done);
    CHECK(t.read(Harness::data_address + 8) == VmxHarness::vmcs_region);
    CHECK(t.with_pointer(vmclear, VmxHarness::vmcs_region) == done);
    t.cpu.r[RAX] = Harness::data_address + 8;
    CHECK(t.step(vmptrst) == done);
    CHECK(t.read(Harness::data_address + 8) == ~u64{0});
}

TEST_CASE(
    "VMREAD and VMWRITE: without a current VMCS VMfailInvalid; unsupported component 12 [SDM 3C 30.3]") {
    Instructions t;
    t.cpu.r[RCX] = 0x4003; // a high access of a 32-bit field
    CHECK(t.error_of(vmread, 0) == 12);
    CHECK(t.error_of(vmwrite, 0) == 12);
    t.cpu.r[RCX] = 0x2040; // HLAT is not offered
    CHECK(t.error_of(vmread, 0) == 12);
    t.cpu.r[RCX] = 0x1'0000'4000; // bits 63:32 count in 64-bit mode
    CHECK(t.error_of(vmread, 0) == 12);
    CHECK(t.with_pointer(vmclear, VmxHarness::vmcs_region) == done);
    CHECK(t.step(vmread) == done);
    CHECK(ended(t.cpu) == Ended::fail_invalid);
    CHECK(t.step(vmwrite) == done);
    CHECK(ended(t.cpu) == Ended::fail_invalid);
}

TEST_CASE("VMWRITE: read-only fields are error 13 unless IA32_VMX_MISC[29] [SDM 3C 30.3 VMWRITE]") {
    for (const char* model : {"intel-max", "nehalem"}) {
        Instructions t(model);
        t.cpu.r[RCX] = 0x4402;
        CHECK(t.error_of(vmwrite, 0) == (std::string_view(model) == "nehalem" ? 13 : 0));
    }
}

TEST_CASE("VMREAD and VMWRITE: widths and high halves [SDM 3C 24.11.2]") {
    Instructions t;
    const auto vmwrite_to = [&](u64 encoding, u64 value) {
        t.cpu.r[RCX] = encoding;
        t.cpu.r[RBX] = value;
        CHECK(t.step(vmwrite) == done);
        CHECK(ended(t.cpu) == Ended::success);
    };
    const auto vmread_of = [&](u64 encoding) {
        t.cpu.r[RCX] = encoding;
        CHECK(t.step(vmread) == done);
        return t.cpu.r[RBX];
    };
    vmwrite_to(0x0800, 0xFFFF'FFFF'FFFF'1234);
    CHECK(vmread_of(0x0800) == 0x1234);
    vmwrite_to(0x4004, 0xAAAA'BBBB'CCCC'DDDD);
    CHECK(vmread_of(0x4004) == 0xCCCC'DDDD);
    vmwrite_to(0x2010, 0x1111'2222'3333'4444);
    CHECK(vmread_of(0x2010) == 0x1111'2222'3333'4444);
    CHECK(vmread_of(0x2011) == 0x1111'2222);
    vmwrite_to(0x2011, 0x5555'6666'7777'8888);
    CHECK(vmread_of(0x2010) == 0x7777'8888'3333'4444);
    CHECK(t.vmx.current()->writer(F::tsc_offset).rip == Harness::code_address);
}

TEST_CASE("VMREAD: a page fault of the destination leaves the flags alone [SDM 3C 30.3 VMREAD]") {
    Instructions t;
    t.cpu.r[RCX] = 0x4402;
    t.cpu.r[RAX] = u64{1} << 40;
    t.cpu.flags.set_arithmetic(RFLAGS::OF);
    CHECK(t.step(code("0f 78 08", "vmread [rax], rcx")).vector == Vector::PF);
    t.cpu.r[RAX] = Harness::data_address;
}

TEST_CASE("VMLAUNCH and VMRESUME: launch state, current VMCS, blocking by MOV SS [SDM 3C 26.1]") {
    Instructions t;
    CHECK(t.error_of(vmresume, 0) == 5);
    CHECK(t.witness.failure.check == "basic.launch_state_launched");
    t.vmx.current()->set_launched();
    CHECK(t.error_of(vmlaunch, 0) == 4);
    CHECK(t.with_pointer(vmclear, VmxHarness::vmcs_region) == done);
    CHECK(t.step(vmlaunch) == done);
    CHECK(ended(t.cpu) == Ended::fail_invalid);
    CHECK(t.witness.failure.check == "basic.current_vmcs");
}

TEST_CASE("VMLAUNCH behind MOV SS: error 26 [SDM 3C 26.1]") {
    Instructions t;
    t.cpu.r[RAX] = Harness::data_0;
    t.run(code("8e d0 0f 01 c2 f4", "mov ss, ax; vmlaunch; hlt"), 10);
    CHECK(t.get(F::vm_instruction_error) == 26);
    CHECK(t.witness.failure.check == "basic.blocking_by_mov_ss");
}

TEST_CASE("VMCALL in VMX root operation: error 1 [SDM 3C 30.3 VMCALL]") {
    Instructions t;
    CHECK(t.error_of(vmcall, 0) == 1);
}

TEST_CASE("VMFUNC outside a guest: #UD [SDM 3C 30.3 VMFUNC]") {
    Instructions t;
    CHECK(t.step(code("0f 01 d4", "vmfunc")) == ud);
}

TEST_CASE("INVEPT: types 1 and 2; the EPTP must be one that enters: error 28 [SDM 3C 30.3 INVEPT]") {
    Instructions t;
    const auto error = [&](u64 type, u64 eptp) {
        t.cpu.r[RCX] = type;
        return t.error_of(invept, eptp);
    };
    CHECK(error(0, 0x1000 | 6 | 3 << 3) == 28);
    CHECK(error(3, 0x1000 | 6 | 3 << 3) == 28);
    CHECK(error(1, 0x1000 | 6 | 3 << 3) == 0);
    CHECK(error(1, 0x1000 | 5 | 3 << 3) == 28);
    CHECK(error(1, 0x1000 | 6 | 2 << 3) == 28);
    CHECK(error(1, 0x1000 | 6 | 3 << 3 | bit(9)) == 28);
    CHECK(error(2, 5) == 0);
}

TEST_CASE("INVVPID: types, VPID 0, reserved bits, canonical address: error 28 [SDM 3C 30.3 INVVPID]") {
    Instructions t;
    const auto error = [&](u64 type, u64 low, u64 address) {
        t.cpu.r[RCX] = type;
        t.write(Harness::data_address + 8, address);
        return t.error_of(invvpid, low);
    };
    CHECK(error(4, 1, 0) == 28);
    for (const u64 type : {u64{0}, u64{1}, u64{3}}) {
        CHECK(error(type, 0, 0) == 28);
        CHECK(error(type, 1, 0x1000) == 0);
    }
    CHECK(error(2, 0, 0) == 0);
    CHECK(error(2, 0x1'0000, 0) == 28);
    CHECK(error(0, 1, u64{1} << 57) == 28);
    CHECK(error(1, 1, u64{1} << 57) == 0);
}

TEST_CASE("VMCSs beyond the native cache are written back and found again, with their launch state") {
    Instructions t;
    for (u64 i = 0; i < 100; ++i) {
        const u64 region = 0x80'0000 + 0x1000 * i;
        t.write(region, t.vmx.capabilities().revision(), 4);
        REQUIRE(t.error_of(vmptrld, region) == 0);
        t.set(F::guest_rip, i);
        if (i % 2) t.vmx.current()->set_launched();
    }
    for (u64 i = 0; i < 100; ++i) {
        REQUIRE(t.error_of(vmptrld, 0x80'0000 + 0x1000 * i) == 0);
        CHECK(t.get(F::guest_rip) == i);
        CHECK(t.vmx.current()->launched() == (i % 2 == 1));
    }
}
