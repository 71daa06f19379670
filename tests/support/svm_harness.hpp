// A processor with SVM on and a VMCB that VMRUN accepts: what most tests of svm need.
//
// Host and guest are 64-bit at CPL 0 on the Harness's tables. The guest starts at Harness::code_address; the
// host is at `vmrun_address`: VMRUN, then HLT. HLT and VMMCALL exit, and nothing else but the VMRUN that
// must.
#pragma once

#include "svm/svm.hpp"
#include "tests/support/vmx_harness.hpp"

namespace exeunt::test {

/// amd-max with everything of SVM that exeunt models.
CpuModel svm_model();

class SvmHarness : public Harness {
public:
    static constexpr u64 vmcb = 0x20'0000, iopm = 0x20'1000, msrpm = 0x20'4000, other_vmcb = 0x20'6000,
                         nested_tables = 0x21'0000, vmrun_address = 0x30'0000;

    explicit SvmHarness(const CpuModel& model = svm_model());

    template <class T>
    T get(VmcbField<T> field) {
        return static_cast<T>(read(vmcb + field.offset, sizeof(T)));
    }
    template <class T>
    void set(VmcbField<T> field, u64 value) {
        write(vmcb + field.offset, value, sizeof(T));
    }
    /// Sets or clears the intercept whose exit code this is.
    void intercept(u64 code, bool on = true);
    /// Turns on nested paging with 4-KByte identity pages, all rights, for the 16 MiB of RAM.
    void use_npt();
    u64 npt_entry_address(u64 guest_physical) const {
        return nested_tables + 0x3000 + 8 * (guest_physical >> 12);
    }

    /// Turns on AVIC (x2AVIC) with nested paging, the guest's APIC page at `apic_page`, and the tables below. The
    /// guest has interrupts enabled, and handler n of its IDT halts.
    static constexpr u64 apic_page = 0x8'0000, backing_page = 0x2A'0000, other_backing_page = 0x2A'1000,
                         logical_table = 0x2A'2000, physical_table = 0x2A'3000;
    void use_avic(bool x2apic = false);

    /// VMRUN, then at most `ticks` until the host halts.
    RunEnd run_guest(Tick ticks = 10'000);
    /// The same with this code for the guest.
    void guest(const Code& code, Tick ticks = 10'000);
    /// VMRUN alone: the rule that refused, or "" when the guest was entered.
    std::string enter();

    bool in_host() const { return !cpu.in_guest && cpu.rip == vmrun_address + 4; }
    u64 exitcode() { return get(VMCB::exitcode); }
    u64 info1() { return get(VMCB::exitinfo1); }
    u64 info2() { return get(VMCB::exitinfo2); }
    u64 guest_rip() { return get(VMCB::rip); }

    SvmInterconnect interconnect;
    Svm svm;
    OneInterrupt interrupts;
    Witness witness;

private:
    void fill_vmcb();
    void host_at_vmrun();
};

/// What a guest's #VMEXIT must be: `LEFT(t, ExitCode::HLT)`.
#define LEFT(t, why)                                                                              \
    do {                                                                                          \
        REQUIRE((t).in_host());                                                                   \
        CHECK_MESSAGE((t).exitcode() == (why), exit_code_name(static_cast<u32>((t).exitcode()))); \
    } while (false)

} // namespace exeunt::test
