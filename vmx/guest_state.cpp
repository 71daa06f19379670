// Guest state between processor and VMCS. SDM 3C 26.3.2 "Loading Guest State", 27.3 "Saving Guest State".
//
// Saving notes what changed: entry checks whose inputs did not change need not be run again. What can not
// become invalid by a guest's own doing (CR3 within its width, CR0 apart from the bits that rules name) does
// not count.
#include "cpu/performance.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

namespace {

/// CR0 bits that a VM entry leaves as they are: ET, 15:6, 17, 28:19, NW, CD. SDM 3C 26.3.2.1.
constexpr u64 cr0_kept =
    CR0::ET | (extract(~u64{0}, 15, 6) << 6) | bit(17) | (extract(~u64{0}, 28, 19) << 19) | CR0::NW | CR0::CD;
constexpr u64 activity_hlt = 1;
constexpr u64 by_sti = bit(0), by_mov_ss = bit(1), by_nmi = bit(3);
constexpr u64 enabled_breakpoint = bit(12);
/// Access rights that the VMCS has.
constexpr u32 access_mask = 0x1'F0FF;

bool uses_pae_paging(const ControlRegisters& c) {
    return (c.cr0 & CR0::PG) && (c.cr4 & CR4::PAE) && !(c.efer & EFER::LMA);
}

} // namespace

// ---- Loading ------------------------------------------------------------------------------------

void Vmx::load_guest_segments() {
    const Vmcs& v = *current_;
    for (unsigned i = 0; i < 8; ++i) {
        Segment& s = cpu_.segment[i];
        s.selector = static_cast<u16>(v.at(F::guest_es_selector, i));
        s.access = static_cast<u32>(v.at(F::guest_es_access_rights, i));
        s.limit = static_cast<u32>(v.at(F::guest_es_limit, i));
        s.base = v.at(F::guest_es_base, i);
    }
    cpu_.gdtr = {v[F::guest_gdtr_base], static_cast<u16>(v[F::guest_gdtr_limit])};
    cpu_.idtr = {v[F::guest_idtr_base], static_cast<u16>(v[F::guest_idtr_limit])};
    cpu_.cpl = static_cast<u8>(cpu_.seg(Seg::SS).dpl());
}

/// 26.3.2.1 to 26.3.2.4; what depends on it is derived by the caller.
void Vmx::load_guest_state() {
    const Vmcs& v = *current_;
    ControlRegisters& c = cpu_.control;
    c.cr0 = (v[F::guest_cr0] & ~cr0_kept) | (c.cr0 & cr0_kept);
    c.cr3 = v[F::guest_cr3];
    c.cr4 = v[F::guest_cr4];
    const u64 controls = v[F::vm_entry_controls];
    if (controls & vm_entry::load_debug_controls) {
        cpu_.dr7 = (v[F::guest_dr7] & ~(bit(12) | bit(14) | bit(15))) | DR7::fixed1;
        cpu_.debugctl = v[F::guest_ia32_debugctl];
    }
    cpu_.sysenter_cs = v[F::guest_ia32_sysenter_cs];
    cpu_.sysenter_esp = v[F::guest_ia32_sysenter_esp];
    cpu_.sysenter_eip = v[F::guest_ia32_sysenter_eip];
    const bool ia_32e = controls & vm_entry::ia_32e_mode_guest;
    if (controls & vm_entry::load_ia32_efer) {
        c.efer = v[F::guest_ia32_efer];
    } else if (capabilities_.intel64()) {
        const u64 changed = EFER::LMA | (c.cr0 & CR0::PG ? EFER::LME : 0);
        c.efer = (c.efer & ~changed) | (ia_32e ? changed : 0);
    }
    if (controls & vm_entry::load_ia32_pat) cpu_.pat = v[F::guest_ia32_pat];
    if (controls & vm_entry::load_ia32_perf_global_ctrl)
        cpu_.performance->set_global_control(v[F::guest_ia32_perf_global_ctrl]);
    if (controls & vm_entry::load_pkrs) c.pkrs = static_cast<u32>(v[F::guest_ia32_pkrs]);

    load_guest_segments();
    cpu_.r[RSP] = v[F::guest_rsp];
    cpu_.rip = cpu_.next_rip = v[F::guest_rip];
    const u64 rflags = v[F::guest_rflags];
    cpu_.flags.set_arithmetic(rflags);
    cpu_.flags.rest = rflags & ~RFLAGS::arithmetic;
}

/// 26.3.2.3, 26.6.1 to 26.6.3: blocking, activity, pending debug exceptions.
void Vmx::load_guest_non_register_state() {
    const Vmcs& v = *current_;
    const u64 blocking = v[F::guest_interruptibility_state];
    const bool virtual_nmis = v.derived.pin_based & pin_based::virtual_nmis;
    virtual_nmi_blocking_ = virtual_nmis && (blocking & by_nmi);
    cpu_.nmi_blocked = !virtual_nmis && (blocking & by_nmi);
    cpu_.clear_shadow();
    cpu_.monitor_armed = false;

    const u64 event = v[F::vm_entry_interruption_information];
    const auto type = static_cast<unsigned>(extract(event, 10, 8));
    const bool vectoring = (event >> 31) && type != 7;
    cpu_.activity = vectoring ? Activity::active : static_cast<Activity>(v[F::guest_activity_state]);
    if (!vectoring && (blocking & by_sti)) cpu_.set_shadow(Shadow::sti);
    if (!vectoring && (blocking & by_mov_ss)) cpu_.set_shadow(Shadow::mov_ss);

    // 26.6.3 "Delivery of Pending Debug Exceptions after VM Entry": injection drops them, except INT n and
    // INT3 or INTO while MOV SS blocks.
    const u64 pending = v[F::guest_pending_debug_exceptions];
    const bool software = type == 4 || type == 6;
    const bool dropped = (vectoring && (!software || !(blocking & by_mov_ss))) ||
                         (!vectoring && v[F::guest_activity_state] > activity_hlt);
    cpu_.pending_debug =
        !dropped && (pending & (enabled_breakpoint | DR6::BS)) ? pending & (DR6::BS | 0xF) : 0;
}

/// 26.3.1.6 "Checks on Guest Page-Directory-Pointer-Table Entries" and the loading of them (26.3.2.4).
bool Vmx::load_guest_pdptes() {
    const Vmcs& v = *current_;
    if (!(v[F::guest_cr0] & CR0::PG) || !(v[F::guest_cr4] & CR4::PAE) ||
        (v[F::vm_entry_controls] & vm_entry::ia_32e_mode_guest))
        return true;
    const bool ept = v.derived.secondary & secondary::enable_ept;
    u64 entries[4];
    for (unsigned i = 0; i < 4; ++i) {
        entries[i] = ept ? v.at(F::guest_pdpte0, i)
                         : cpu_.memory.load<u64>(Physical{(v[F::guest_cr3] & 0xFFFF'FFE0) + 8 * i});
        if (!valid_pdpte(entries[i], capabilities_.physical_bits())) return false;
    }
    for (unsigned i = 0; i < 4; ++i) cpu_.control.pdpte[i] = entries[i];
    return true;
}

// ---- Saving -------------------------------------------------------------------------------------

/// 27.3.2 "Saving Segment Registers and Descriptor-Table Registers".
void Vmx::save_guest_segments() {
    Vmcs& v = *current_;
    u64 changed = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const Segment& s = cpu_.segment[i];
        u32 access = s.access & access_mask;
        if (i == static_cast<unsigned>(Seg::SS)) // CPL is SS.DPL, also where SS is unusable
            access = (access & ~AR::DPL) | u32{cpu_.cpl} << 5;
        v.save_at(F::guest_es_selector, i, s.selector, changed);
        v.save_at(F::guest_es_access_rights, i, access, changed);
        v.save_at(F::guest_es_limit, i, s.limit, changed);
        v.save_at(F::guest_es_base, i, s.base, changed);
    }
    v.save(F::guest_gdtr_base, cpu_.gdtr.base, changed);
    v.save(F::guest_gdtr_limit, cpu_.gdtr.limit, changed);
    v.save(F::guest_idtr_base, cpu_.idtr.base, changed);
    v.save(F::guest_idtr_limit, cpu_.idtr.limit, changed);
    if (changed) v.mark(CheckGroup::guest_segments);
}

/// 27.3 "Saving Guest State".
void Vmx::save_guest_state(const VmExit& e) {
    Vmcs& v = *current_;
    const ControlRegisters& c = cpu_.control;
    const u64 controls = v.derived.vm_exit;
    u64 changed = 0, cr0 = 0, cr3 = 0, rflags_changed = 0, unchecked = 0;
    v.save(F::guest_cr0, c.cr0, cr0);
    v.save(F::guest_cr3, c.cr3, cr3);
    v.save(F::guest_cr4, c.cr4, changed);
    v.save(F::guest_ia32_sysenter_cs, cpu_.sysenter_cs, unchecked);
    v.save(F::guest_ia32_sysenter_esp, cpu_.sysenter_esp, changed);
    v.save(F::guest_ia32_sysenter_eip, cpu_.sysenter_eip, changed);
    if (controls & vm_exit::save_debug_controls) {
        v.save(F::guest_dr7, cpu_.dr7, unchecked);
        v.save(F::guest_ia32_debugctl, cpu_.debugctl, changed);
    }
    if (controls & vm_exit::save_ia32_pat) v.save(F::guest_ia32_pat, cpu_.pat, changed);
    if (controls & vm_exit::save_ia32_efer) v.save(F::guest_ia32_efer, c.efer, changed);
    if (controls & vm_exit::save_ia32_perf_global_ctrl)
        v.save(F::guest_ia32_perf_global_ctrl, cpu_.performance->global_control(), unchecked);
    if (capabilities_.may(vm_entry::load_pkrs)) v.save(F::guest_ia32_pkrs, c.pkrs, unchecked);
    cr0 &= capabilities_.cr0_fixed0() | CR0::PE | CR0::PG;
    if (changed | cr0 | (cr3 & ~low_mask(capabilities_.physical_bits()))) v.mark(CheckGroup::guest_registers);
    if (cr0 & CR0::PE) v.mark(CheckGroup::guest_segments);

    save_guest_segments();
    v.put(F::guest_rip, cpu_.rip);
    v.put(F::guest_rsp, cpu_.r[RSP]);
    u64 rflags = cpu_.rflags();
    if (e.resume_flag == VmExit::Resume::clear) rflags &= ~RFLAGS::RF;
    if (e.resume_flag == VmExit::Resume::set) rflags |= RFLAGS::RF;
    v.save(F::guest_rflags, rflags, rflags_changed);
    if (rflags_changed & RFLAGS::VM) v.mark(CheckGroup::guest_segments);

    if ((v.derived.secondary & secondary::enable_ept) && uses_pae_paging(c))
        for (unsigned i = 0; i < 4; ++i) v.save_at(F::guest_pdpte0, i, c.pdpte[i], unchecked);
    save_guest_non_register_state(e);
}

/// 27.3.4 "Saving Non-Register State".
void Vmx::save_guest_non_register_state(const VmExit& e) {
    Vmcs& v = *current_;
    const bool virtual_nmis = v.derived.pin_based & pin_based::virtual_nmis;
    const bool delivering = e.reports_delivery && cpu_.delivering;
    // Delivery of an event made the processor active and ended blocking by STI and MOV SS.
    const Shadow shadow = delivering ? Shadow::none : cpu_.shadow;
    const Activity activity =
        delivering || cpu_.activity > Activity::wait_for_sipi ? Activity::active : cpu_.activity;
    const u64 blocking = (shadow == Shadow::sti ? by_sti : 0) | (shadow == Shadow::mov_ss ? by_mov_ss : 0) |
                         ((virtual_nmis ? virtual_nmi_blocking_ : cpu_.nmi_blocked) ? by_nmi : 0);
    v.put(F::guest_interruptibility_state, blocking);
    v.put(F::guest_activity_state, static_cast<u64>(activity));

    u64 pending = 0;
    if (e.keeps_pending_debug || shadow == Shadow::mov_ss) {
        pending = cpu_.pending_debug & (DR6::BS | 0xF);
        if (pending & 0xF) pending |= enabled_breakpoint; // only those that are enabled become pending
    }
    // Single-stepping under blocking, or in HLT, is pending whatever the exit: VM entry insists on it
    // (26.3.1.5).
    const bool single_steps = cpu_.flag(RFLAGS::TF) && !(cpu_.debugctl & bit(1));
    if (shadow != Shadow::none || activity == Activity::hlt)
        pending = single_steps ? pending | DR6::BS : pending & ~DR6::BS;
    v.put(F::guest_pending_debug_exceptions, pending);

    if (v.derived.secondary & secondary::virtual_interrupt_delivery)
        v.put(F::guest_interrupt_status, apic_.rvi | u64{apic_.svi} << 8);
    if (v.derived.vm_exit & vm_exit::save_vmx_preemption_timer_value)
        v.put(F::vmx_preemption_timer_value, preemption_timer_now());
}

} // namespace exeunt
