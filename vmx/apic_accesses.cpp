// A guest's memory-mapped accesses to its APIC: which are virtualized, which exit, and what follows a write.
// SDM 3C 29.4 "Virtualizing Memory-Mapped APIC Accesses".
//
// Not modelled: MONITOR of the virtual-APIC page through the APIC-access page.
#include "vmx/vmx.hpp"

#include <array>

namespace exeunt {

using F = VmcsField;
using Register = VirtualApic::Register;

namespace {

/// Under which controls an access is virtualized; each includes those before it.
enum class When : u8 { never, arv, vid, ipiv, tpr_shadow };
/// What follows a virtualized write.
enum class Emulation : u8 { none, tpr, eoi, icr_low, icr_high, vm_exit };

struct Row {
    u16 first, last;
    When read = When::never, write = When::never;
    Emulation emulation = Emulation::none;
};

constexpr Row rows[] = {
#define APIC_REGISTER(first, last, name, read, write, emulation) \
    {first, last, When::read, When::write, Emulation::emulation},
#include "vmx/apic_accesses.inc"
};

/// The row of each 16 bytes of the page.
constexpr auto make_slots() {
    std::array<Row, 256> slots{};
    for (const Row& row : rows)
        for (unsigned offset = row.first; offset <= row.last; offset += 16) slots[offset >> 4] = row;
    return slots;
}
constexpr auto slots = make_slots();

/// Bits of ICR_LO that are 0 in a command that the processor carries out: all but vector, destination mode,
/// level and shorthand. SDM 3C 29.1.5 "Self-IPI Virtualization", 29.4.3.2.
constexpr u32 icr_command = 0xFFF3'B700, icr_logical = u32{1} << 11;
constexpr u32 shorthand(u32 icr) { return static_cast<u32>(extract(icr, 19, 18)); }

} // namespace

/// 29.4.2 and 29.4.3.1, in their order.
bool Vmx::apic_access_virtualized(unsigned offset, unsigned bytes, bool write) const {
    if (!(primary() & primary::use_tpr_shadow)) return false;
    // One operation virtualizes one write, and no read after it.
    if (apic_.written_bytes != 0 &&
        !(write && apic_.written_offset == offset && apic_.written_bytes == bytes))
        return false;
    if ((offset & 15) + bytes > 4) return false; // more than 32 bits, or beyond the low four bytes
    const Row& row = slots[offset >> 4];
    const When when = write ? row.write : row.read;
    if (secondary() & secondary::apic_register_virtualization) return when != When::never;
    if (offset & 15) return false;
    const bool vid = secondary() & secondary::virtual_interrupt_delivery;
    const bool ipiv = current_->derived.tertiary & tertiary::ipi_virtualization;
    return when == When::tpr_shadow || (vid && (when == When::vid || when == When::ipiv)) ||
           (ipiv && when == When::ipiv);
}

/// 29.4.1 "Priority of APIC-Access VM Exits", 27.2.1: fault-like, nothing was accessed.
Stop Vmx::apic_access_exit(ApicAccess type, u64 offset) {
    VmExit exit_{.reason = ExitReason::apic_access, .reports_delivery = true};
    if (cpu_.delivering) {
        exit_.resume_flag = resume_flag_of(*cpu_.delivering);
        type = type == ApicAccess::guest_physical ? ApicAccess::guest_physical_during_delivery
                                                  : ApicAccess::linear_during_delivery;
    } else {
        exit_.resume_flag = VmExit::Resume::set;
        // The manual leaves the length undefined here; processors report that of the instruction, and Linux's
        // KVM counts on it.
        if (type == ApicAccess::linear_read || type == ApicAccess::linear_write)
            exit_.instruction_length = static_cast<u32>(cpu_.next_rip - cpu_.rip) & 15;
    }
    exit_.qualification = offset | u64{static_cast<u8>(type)} << 12;
    return exit(exit_);
}

/// A translation that is older than the end of "virtualize APIC accesses" may still bring accesses here
/// (28.3.3.4 "Guidelines for Use of the INVVPID Instruction"); they are the page's own then.
Result<u64> Vmx::special_read(Cpu& cpu, u64 physical, u64, unsigned bytes) {
    const unsigned offset = physical & 0xFFF;
    if (!(secondary() & secondary::virtualize_apic_accesses)) {
        u64 value = 0;
        for (unsigned i = 0; i < bytes; ++i)
            value |= u64{cpu.memory.load<u8>(Physical{physical + i})} << (8 * i);
        return value;
    }
    if (!apic_access_virtualized(offset, bytes, false))
        return apic_page_.refuse(ApicAccess::linear_read, offset);
    return virtual_apic().load(offset, bytes);
}

Result<void> Vmx::special_write(Cpu& cpu, u64 physical, u64, unsigned bytes, u64 value) {
    const unsigned offset = physical & 0xFFF;
    if (!(secondary() & secondary::virtualize_apic_accesses)) {
        for (unsigned i = 0; i < bytes; ++i)
            cpu.memory.store<u8>(Physical{physical + i}, static_cast<u8>(value >> (8 * i)));
        return {};
    }
    if (!apic_access_virtualized(offset, bytes, true))
        return apic_page_.refuse(ApicAccess::linear_write, offset);
    virtual_apic().store(offset, bytes, value);
    apic_.written_offset = static_cast<u16>(offset);
    apic_.written_bytes = static_cast<u8>(bytes);
    cpu.attention();
    return {};
}

/// 29.4.3.2 "APIC-Write Emulation": after the operation that contained the write.
void Vmx::emulate_apic_write() {
    const unsigned offset = apic_.written_offset;
    apic_.written_bytes = 0;
    VirtualApic apic = virtual_apic();
    switch (slots[offset >> 4].emulation) {
    case Emulation::none: return;
    case Emulation::tpr:
        apic.set_tpr(apic.tpr()); // the other three bytes become 0
        return virtualize_tpr();
    case Emulation::eoi:
        if (!(secondary() & secondary::virtual_interrupt_delivery)) break;
        apic.set_reg(Register::EOI, 0);
        return virtualize_eoi();
    case Emulation::icr_high:
        return apic.set_reg(Register::ICR_HIGH, apic.reg(Register::ICR_HIGH) & 0xFF00'0000);
    case Emulation::icr_low: {
        const u32 icr = apic.reg(Register::ICR_LOW);
        const u8 vector = static_cast<u8>(icr);
        const bool vid = secondary() & secondary::virtual_interrupt_delivery;
        if (vid && !(icr & icr_command) && shorthand(icr) == 1 && vector >= 16)
            return virtualize_self_ipi(vector);
        const bool ipiv = current_->derived.tertiary & tertiary::ipi_virtualization;
        if (ipiv && !(icr & (icr_command | icr_logical)) && shorthand(icr) == 0)
            return virtualize_ipi(vector, apic.reg(Register::ICR_HIGH) >> 24);
        break;
    }
    case Emulation::vm_exit: break;
    }
    set_apic_trap(ExitReason::apic_write, offset);
}

} // namespace exeunt
