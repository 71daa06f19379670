// Posted interrupts and IPI virtualization: requests that reach a guest through its posted-interrupt
// descriptor. SDM 3C 29.6 "Posted-Interrupt Processing"; later editions "IPI Virtualization".
//
// Not modelled: SENDUIPI, which sends in the same way (user interrupts are not offered).
#include "vmx/vmx.hpp"

#include <algorithm>
#include <bit>

namespace exeunt {

using F = VmcsField;
using Register = VirtualApic::Register;

namespace {

/// SDM 3C Table 29-1 "Format of Posted-Interrupt Descriptor"; what software keeps in bits 511:257 is what
/// remapping hardware and IPI virtualization read.
namespace PID {
constexpr u64 control = 32; ///< offset of bits 319:256
constexpr u64 ON = bit(0), SN = bit(1);
constexpr u8 notification_vector(u64 word) { return static_cast<u8>(extract(word, 23, 16)); }
constexpr u32 notification_destination(u64 word) { return high32(word); }
} // namespace PID

} // namespace

/// 29.6, steps 3 to 7: the local APIC has been acknowledged and the vector is the notification vector.
void Vmx::process_posted_interrupts() {
    PhysicalMemory& memory = cpu_.memory;
    const Physical descriptor{field(F::posted_interrupt_descriptor_address)};
    const Physical control = descriptor + PID::control;
    memory.store<u8>(control, static_cast<u8>(memory.load<u8>(control) & ~PID::ON));
    cpu_.controller->end_of_interrupt();
    VirtualApic apic = virtual_apic();
    for (unsigned n = 0; n < 8; ++n) {
        const Physical requests = descriptor + 4 * n;
        const u32 posted = memory.load<u32>(requests);
        if (posted == 0) continue;
        memory.store<u32>(requests, 0);
        apic.add_vectors(Register::IRR, n, posted);
        const unsigned highest = 32 * n + 31 - static_cast<unsigned>(std::countl_zero(posted));
        apic_.rvi = std::max(apic_.rvi, static_cast<u8>(highest));
    }
    evaluate_virtual_interrupts();
    // In HLT the processor goes on waiting, unless what was posted ends it; in MWAIT it does not.
    if (cpu_.activity == Activity::mwait) cpu_.activity = Activity::active;
}

/// Later editions, "IPI Virtualization". What can not be sent so is an APIC-write VM exit.
void Vmx::virtualize_ipi(u8 vector, u32 target) {
    PhysicalMemory& memory = cpu_.memory;
    const auto leave_to_vmm = [this] { set_apic_trap(ExitReason::apic_write, Register::ICR_LOW); };
    if (vector < 16 || target > field(F::last_pid_pointer_index)) return leave_to_vmm();
    const u64 entry = memory.load<u64>(Physical{field(F::pid_pointer_table_address) + 8 * u64{target}});
    constexpr u64 valid = bit(0), low = low_mask(6);
    if ((entry & low) != valid || (entry >> capabilities_.physical_bits()) != 0) return leave_to_vmm();

    const Physical descriptor{entry & ~low};
    const Physical requests = descriptor + 4 * (vector >> 5);
    memory.store<u32>(requests, memory.load<u32>(requests) | u32{1} << (vector & 31));
    const u64 control = memory.load<u64>(descriptor + PID::control);
    if (control & (PID::ON | PID::SN)) return;
    memory.store<u64>(descriptor + PID::control, control | PID::ON);
    cpu_.controller->send_notification(PID::notification_destination(control),
                                       PID::notification_vector(control));
}

} // namespace exeunt
