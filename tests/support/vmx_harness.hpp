// A processor in VMX root operation with a VMCS that enters: what most tests of vmx need.
//
// Host and guest are 64-bit at CPL 0 on the Harness's tables. The guest starts at Harness::code_address; the
// host comes back at `exit_address` (a HLT). HLT exits, and nothing else that is optional.
#pragma once

#include "tests/support/harness.hpp"
#include "vmx/vmx.hpp"

#include <optional>

namespace exeunt::test {

/// A local APIC reduced to one interrupt.
class OneInterrupt final : public InterruptController {
public:
    bool interrupt_pending() override { return vector >= 0; }
    u8 acknowledge() override {
        const int taken = vector;
        vector = -1;
        return static_cast<u8>(taken);
    }
    u8 cr8() override { return tpr; }
    void set_cr8(u8 value) override { tpr = value; }
    bool read_msr(u32, u64&) override { return false; }
    bool write_msr(u32, u64) override { return false; }
    void end_of_interrupt() override { ++eois; }
    void send_notification(u32 destination, u8 notification) override {
        sent.push_back({destination, notification});
    }

    int vector = -1;
    u8 tpr = 0;
    unsigned eois = 0;
    struct Notification {
        u32 destination;
        u8 vector;
        bool operator==(const Notification&) const = default;
    };
    std::vector<Notification> sent;
};

/// Remembers the last record of each kind.
class Witness final : public Observer {
public:
    void vm_exit(unsigned, u64, const ExitRecord& record) override { exit = record, ++exits; }
    void vm_entry(unsigned, u64, const EntryRecord& record) override { entry = record, ++entries; }
    void vm_entry_failure(unsigned, u64, const EntryFailureRecord& record) override {
        failure = record, ++failures;
    }

    ExitRecord exit;
    EntryRecord entry;
    EntryFailureRecord failure;
    unsigned exits = 0, entries = 0, failures = 0;
};

/// What came of a VM entry that was to be tried only.
struct EntryOutcome {
    bool entered = false;
    u32 instruction_error = 0; ///< VMfailValid
    bool fail_invalid = false; ///< VMfailInvalid
    u32 reason = 0;            ///< of an entry failure, bit 31 included
    u64 qualification = 0;
    std::string check{}; ///< the rule that refused

    bool operator==(const EntryOutcome&) const = default;
};
std::ostream& operator<<(std::ostream& out, const EntryOutcome& outcome);
EntryOutcome entered();
EntryOutcome refused_control(std::string check);
EntryOutcome refused_host(std::string check);
EntryOutcome refused_guest(std::string check, u64 qualification = 0);

class VmxHarness : public Harness {
public:
    using F = VmcsField;
    static constexpr u64 vmxon_region = 0x20'0000, vmcs_region = 0x20'1000, io_bitmap_a = 0x20'2000,
                         io_bitmap_b = 0x20'3000, msr_bitmap = 0x20'4000, virtual_apic = 0x20'5000,
                         msr_area = 0x20'6000, pml = 0x20'7000, spare_region = 0x20'8000,
                         apic_access = 0x20'B000, posted_interrupts = 0x20'C000, pid_pointers = 0x20'D000,
                         ept_tables = 0x21'0000, page_directory = 0x22'0000;
    static constexpr u64 launch_address = 0x30'0000, exit_address = 0x30'1000;

    explicit VmxHarness(const std::string& model_name = "intel-max");

    // ---- The current VMCS ----
    u64 get(F field) { return (*vmx.current())[field]; }
    void set(F field, u64 value) { vmx.current()->write(field, value, {}); }
    void on(Control control, bool value = true);
    void off(Control control) { on(control, false); }
    /// Turns on EPT with 4-KByte identity pages, all rights, for the 16 MiB of RAM; `flags` are EPTP bits.
    void use_ept(u64 flags = 6 | 3 << 3);
    /// The EPT entry that maps this page.
    u64 ept_entry(u64 guest_physical) { return read(ept_entry_address(guest_physical)); }
    void set_ept_entry(u64 guest_physical, u64 entry) { write(ept_entry_address(guest_physical), entry); }
    u64 ept_entry_address(u64 guest_physical) const {
        return ept_tables + 0x3000 + 8 * (guest_physical >> 12);
    }
    /// Makes the guest run in another mode (real and v8086: with `unrestricted guest` and EPT as needed).
    void guest_mode(Mode mode);

    /// The host in 32-bit protected mode with 32-bit paging, and a 32-bit guest.
    void host32();

    // ---- Entering ----
    /// VMLAUNCH (VMRESUME once launched) and no guest instruction.
    EntryOutcome enter();
    /// VMLAUNCH or VMRESUME, then at most `ticks` until the host halts. The exit is read with the functions
    /// below.
    RunEnd run_guest(Tick ticks = 10'000);
    /// The same with this code for the guest.
    void guest(const Code& code, Tick ticks = 10'000);
    void place_guest(const Code& code);

    bool in_host() const { return !cpu.in_guest && cpu.rip == exit_address + 1; }
    u32 reason() { return static_cast<u32>(get(F::exit_reason)); }
    u64 qualification() { return get(F::exit_qualification); }
    u32 length() { return static_cast<u32>(get(F::vm_exit_instruction_length)); }
    u32 information() { return static_cast<u32>(get(F::vm_exit_instruction_information)); }
    u32 interruption() { return static_cast<u32>(get(F::vm_exit_interruption_information)); }
    u32 vectoring() { return static_cast<u32>(get(F::idt_vectoring_information)); }
    u64 guest_rip() { return get(F::guest_rip); }

    Vmx vmx;
    OneInterrupt interrupts;
    Witness witness;
    /// Whether enter() and run_guest() execute VMLAUNCH or VMRESUME; by itself, as the launch state asks for.
    std::optional<bool> launching;

private:
    void fill_vmcs();
    void host_at(u64 address);
};

/// What a guest's VM exit must be: `EXITED(t, ExitReason::hlt)`.
#define EXITED(t, why)                                                   \
    do {                                                                 \
        REQUIRE((t).in_host());                                          \
        CHECK_MESSAGE((t).reason() == static_cast<u32>(why),             \
                      exit_reason_name(static_cast<u16>((t).reason()))); \
    } while (false)

} // namespace exeunt::test
