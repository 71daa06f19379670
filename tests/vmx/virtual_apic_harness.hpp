// A guest with a virtual APIC, and short ways to what its page and its VMCS hold.
#pragma once

#include "apic/virtual_apic.hpp"
#include "tests/support/vmx_harness.hpp"

namespace exeunt::test {

class VirtualApicHarness : public VmxHarness {
public:
    using Reg = VirtualApic::Register;

    void virtualize_accesses() {
        on(primary::use_tpr_shadow);
        on(secondary::virtualize_apic_accesses);
        set(F::apic_access_address, apic_access);
    }
    void x2apic_mode() {
        on(primary::use_tpr_shadow);
        on(primary::use_msr_bitmaps); // which lets all through
        on(secondary::virtualize_x2apic_mode);
    }
    void deliver_virtual_interrupts() {
        on(primary::use_tpr_shadow);
        on(pin_based::external_interrupt_exiting);
        on(secondary::virtual_interrupt_delivery);
    }
    void virtualize_ipis() {
        on(primary::use_tpr_shadow);
        on(primary::activate_tertiary_controls);
        on(tertiary::ipi_virtualization);
        set(F::pid_pointer_table_address, pid_pointers);
    }
    void interrupts_on() { set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::IF); }

    u32 reg(unsigned offset) { return static_cast<u32>(read(virtual_apic + offset, 4)); }
    void set_reg(unsigned offset, u32 value) { write(virtual_apic + offset, value, 4); }
    void request(u8 vector) { set_bit(Reg::IRR, vector); }
    void serve(u8 vector) { set_bit(Reg::ISR, vector); }
    bool requested(u8 vector) { return test_bit(reg(Reg::IRR + (vector >> 5) * 16u), vector & 31); }
    bool in_service(u8 vector) { return test_bit(reg(Reg::ISR + (vector >> 5) * 16u), vector & 31); }
    /// Guest interrupt status: SVI and RVI.
    u64 status() { return get(F::guest_interrupt_status); }
    void set_status(u8 rvi, u8 svi) { set(F::guest_interrupt_status, rvi | u64{svi} << 8); }
    static u64 handler(unsigned vector) { return handler_address + 16 * vector; }

    /// guest(), from its start however often it has run.
    void guest_again(const Code& guest_code) {
        set(F::guest_rip, code_address);
        set(F::guest_rsp, stack_top);
        guest(guest_code);
    }

private:
    void set_bit(unsigned first, u8 vector) {
        const unsigned offset = first + (vector >> 5) * 16u;
        set_reg(offset, reg(offset) | u32{1} << (vector & 31));
    }
};

} // namespace exeunt::test
