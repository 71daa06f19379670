// VM exits: recording, saving the guest, loading the host. SDM 3C ch. 27 "VM Exits".
#include "vmx/exit_qualification.hpp"
#include "vmx/vmx.hpp"

#include "base/ensure.hpp"

namespace exeunt {

using F = VmcsField;

/// The format of interruption information and IDT-vectoring information. SDM 3C Tables 24-15 and 24-16.
u32 Vmx::information_of(const Event& event, bool protected_mode) {
    const bool has_error = event.has_error && protected_mode;
    return event.vector | u32{static_cast<u8>(event.type)} << 8 | (has_error ? u32{1} << 11 : 0) |
           u32{1} << 31;
}

/// 27.2 "Recording VM-Exit Information and Updating VM-entry Control Fields". What a cause leaves undefined
/// is 0.
void Vmx::record(const VmExit& e) {
    Vmcs& v = *current_;
    u32 vectoring = 0, vectoring_error = 0;
    u32 length = e.instruction_length;
    if (e.reports_delivery && cpu_.delivering) {
        const Event& event = *cpu_.delivering;
        vectoring = information_of(event, cpu_.protected_mode());
        vectoring_error = event.has_error ? event.error : 0;
        const bool software = event.type == Event::Type::software_interrupt ||
                              event.type == Event::Type::software_exception ||
                              event.type == Event::Type::privileged_software_exception;
        if (software && length == 0) length = event.instruction_length;
    }
    v.put(F::exit_reason, static_cast<u64>(e.reason));
    v.put(F::exit_qualification, e.qualification);
    v.put(F::vm_exit_interruption_information, e.interruption_information);
    v.put(F::vm_exit_interruption_error_code, e.interruption_error);
    v.put(F::idt_vectoring_information, vectoring);
    v.put(F::idt_vectoring_error_code, vectoring_error);
    v.put(F::vm_exit_instruction_length, length);
    v.put(F::vm_exit_instruction_information, e.instruction_information);
    v.put(F::guest_linear_address, e.guest_linear);
    v.put(F::guest_physical_address, e.guest_physical);

    // The valid bit of the injected event is cleared, and the entry control follows the guest's mode.
    v.put(F::vm_entry_interruption_information, v[F::vm_entry_interruption_information] & 0x7FFF'FFFF);
    if (capabilities_.misc() & VMX_MISC::stores_lma) {
        const u64 controls = v[F::vm_entry_controls];
        const u64 bit = vm_entry::ia_32e_mode_guest.mask();
        const u64 now = cpu_.long_mode_active() ? controls | bit : controls & ~bit;
        if (now != controls) {
            v.put(F::vm_entry_controls, now);
            v.mark(CheckGroup::all);
        }
    }
}

void Vmx::observe_exit(u32 reason, u64 rip) {
    const Vmcs& v = *current_;
    const auto narrow = [&](F f) { return static_cast<u32>(v[f]); };
    ExitRecord record;
    record.reason = reason;
    record.qualification = v[F::exit_qualification];
    record.rip = rip;
    if (!(reason & exit_reason_entry_failure)) {
        record.instruction_length = narrow(F::vm_exit_instruction_length);
        record.instruction_information = narrow(F::vm_exit_instruction_information);
        record.interruption_information = narrow(F::vm_exit_interruption_information);
        record.interruption_error = narrow(F::vm_exit_interruption_error_code);
        record.idt_vectoring_information = narrow(F::idt_vectoring_information);
        record.idt_vectoring_error = narrow(F::idt_vectoring_error_code);
        record.guest_linear = v[F::guest_linear_address];
        record.guest_physical = v[F::guest_physical_address];
    }
    cpu_.observer->vm_exit(cpu_.index, cpu_.now(), record);
}

/// 27.1 "Architectural State Before a VM Exit" to 27.6: the whole exit.
Stop Vmx::exit(const VmExit& e) {
    ENSURE(cpu_.in_guest && current_);
    cpu_.abandon_instruction();
    record(e);
    save_guest_state(e);
    current_->saved({cpu_.rip, cpu_.now(), cpu_.index});
    if (cpu_.observer) observe_exit(static_cast<u32>(e.reason), (*current_)[F::guest_rip]);

    const u64 stores = field(F::vm_exit_msr_store_count);
    const bool stored = stores == 0 || store_msrs(field(F::vm_exit_msr_store_address), stores);
    // 27.5.5: only a direct NMI exit changes whether NMIs are blocked; under virtual NMIs the guest's were
    // not.
    const bool nmis_blocked = e.by_nmi || (!(pin_based() & pin_based::virtual_nmis) && cpu_.nmi_blocked);
    if (!stored) return abort(VmxAbort::saving_guest_msrs);
    const bool from_ia_32e = cpu_.long_mode_active();
    if (from_ia_32e && !(current_->derived.vm_exit & vm_exit::host_address_space_size))
        return abort(VmxAbort::ia_32e_mode_to_32_bit_host);
    load_host_state(nmis_blocked);
    if (!operating_) return stopped(Stop::Kind::world_switch); // VMX abort

    const u64 loads = field(F::vm_exit_msr_load_count);
    std::string_view check;
    if (loads != 0 && load_msrs(field(F::vm_exit_msr_load_address), loads, check) != 0)
        return abort(VmxAbort::loading_host_msrs);
    return stopped(Stop::Kind::world_switch);
}

/// 27.7 "VMX Aborts": the indicator goes to the VMCS region, and the processor to shutdown.
Stop Vmx::abort(VmxAbort cause) {
    cpu_.memory.store<u32>(current_->pointer() + Vmcs::abort_offset, static_cast<u32>(cause));
    cpu_.in_guest = false;
    operating_ = false;
    select_host_translations();
    cpu_.delivering.reset();
    cpu_.activity = Activity::shutdown;
    cpu_.mode_changed();
    cpu_.attention();
    return stopped(Stop::Kind::world_switch);
}

} // namespace exeunt
