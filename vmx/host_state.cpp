// The host's state after a VM exit or a failed VM entry. SDM 3C 27.5 "Loading Host State"; translations of
// both worlds: 28.3.3 "Invalidating Cached Translation Information".
#include "cpu/performance.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

namespace {

/// CR0 bits that a VM exit leaves as they are (27.5.1): ET, CD, NW, 63:32, 28:19, 17, 15:6.
constexpr u64 cr0_kept = CR0::ET | CR0::CD | CR0::NW | (extract(~u64{0}, 15, 6) << 6) | bit(17) |
                         (extract(~u64{0}, 28, 19) << 19) | ~low_mask(32);

} // namespace

/// 27.5.2 "Loading Host Segment and Descriptor-Table Registers".
void Vmx::load_host_segments(bool host64) {
    const Vmcs& v = *current_;
    constexpr u32 flat = AR::S | AR::P | AR::G;
    for (unsigned i = 0; i < 6; ++i) {
        Segment& s = cpu_.segment[i];
        s.selector = static_cast<u16>(v.at(F::host_es_selector, i));
        s.base = 0;
        s.limit = 0xFFFF'FFFF;
        s.access = s.selector == 0 ? AR::UNUSABLE : flat | AR::DB | AR::WRITABLE | AR::ACCESSED;
    }
    cpu_.seg(Seg::CS).access = flat | AR::CODE | AR::READABLE | AR::ACCESSED | (host64 ? AR::L : AR::DB);
    cpu_.seg(Seg::FS).base = v[F::host_fs_base];
    cpu_.seg(Seg::GS).base = v[F::host_gs_base];
    Segment& tr = cpu_.seg(Seg::TR);
    tr = {static_cast<u16>(v[F::host_tr_selector]), SystemType::tss_busy | AR::P, 0x67, v[F::host_tr_base]};
    cpu_.seg(Seg::LDTR) = {0, AR::UNUSABLE, 0, 0};
    cpu_.gdtr = {v[F::host_gdtr_base], 0xFFFF};
    cpu_.idtr = {v[F::host_idtr_base], 0xFFFF};
}

/// 27.5 and 27.5.1 to 27.5.5, without the MSR-load area.
void Vmx::load_host_state(bool nmis_blocked) {
    const Vmcs& v = *current_;
    ControlRegisters& c = cpu_.control;
    const u64 controls = v[F::primary_vm_exit_controls];
    const bool host64 = controls & vm_exit::host_address_space_size;
    note_translation_rights();
    c.cr0 = (v[F::host_cr0] & ~cr0_kept) | (c.cr0 & cr0_kept) | capabilities_.cr0_fixed0();
    c.cr3 = v[F::host_cr3] & low_mask(capabilities_.physical_bits());
    c.cr4 = host64 ? v[F::host_cr4] | CR4::PAE : v[F::host_cr4] & ~CR4::PCIDE;
    cpu_.dr7 = DR7::fixed1;
    cpu_.debugctl = 0;
    cpu_.sysenter_cs = v[F::host_ia32_sysenter_cs];
    cpu_.sysenter_esp = v[F::host_ia32_sysenter_esp];
    cpu_.sysenter_eip = v[F::host_ia32_sysenter_eip];
    if (capabilities_.intel64()) {
        const u64 mode = EFER::LMA | EFER::LME;
        c.efer = (c.efer & ~mode) | (host64 ? mode : 0);
    }
    if (controls & vm_exit::load_ia32_efer) c.efer = v[F::host_ia32_efer];
    if (controls & vm_exit::load_ia32_pat) cpu_.pat = v[F::host_ia32_pat];
    if (controls & vm_exit::load_ia32_perf_global_ctrl)
        cpu_.performance->set_global_control(v[F::host_ia32_perf_global_ctrl]);
    if (controls & vm_exit::load_pkrs) c.pkrs = static_cast<u32>(v[F::host_ia32_pkrs]);
    load_host_segments(host64);

    cpu_.r[RSP] = v[F::host_rsp];
    cpu_.rip = cpu_.next_rip = v[F::host_rip];
    cpu_.flags.set_arithmetic(0);
    cpu_.flags.rest = RFLAGS::FIXED1;
    cpu_.cpl = 0;
    cpu_.activity = Activity::active;
    cpu_.clear_shadow();
    cpu_.nmi_blocked = nmis_blocked;
    cpu_.pending_debug = 0;
    cpu_.monitor_armed = false;
    cpu_.delivering.reset();
    cpu_.in_guest = false;
    virtual_nmi_blocking_ = false;
    preemption_deadline_ = never;
    mtf_pending_ = false;
    apic_ = {};

    select_host_translations();
    cpu_.mode_changed();
    cpu_.attention();
    // 27.5.4 "Checking and Loading Host Page-Directory-Pointer-Table Entries".
    const bool pae = !host64 && (c.cr0 & CR0::PG) && (c.cr4 & CR4::PAE);
    if (pae && !cpu_.load_pdptes(c.cr3).ok()) abort(VmxAbort::host_pdptes);
}

// ---- Cached translations ------------------------------------------------------------------------

/// Cached translations hold what they allow, so those of a world are good only under the rights with which
/// they were made. While a world runs the core sees to that; in between, a VM entry or exit may come back
/// with others.
Vmx::TranslationRights Vmx::translation_rights() const {
    const ControlRegisters& c = cpu_.control;
    constexpr u64 cr0 = CR0::PG | CR0::WP;
    constexpr u64 cr4 = CR4::PSE | CR4::PAE | CR4::LA57 | CR4::SMEP | CR4::SMAP | CR4::PKE | CR4::PKS;
    constexpr u64 efer = EFER::NXE | EFER::LMA;
    return {.cr0 = c.cr0 & cr0,
            .cr4 = c.cr4 & cr4,
            .efer = c.efer & efer,
            .pkru = c.pkru,
            .pkrs = c.pkrs,
            .mode_based_execute = cpu_.in_guest && ept_.mode_based_execute()};
}

Vmx::World& Vmx::world(u32 number) {
    if (number == 0) return host_world_;
    if (last_world_ < worlds_.size() && worlds_[last_world_].number == number) return worlds_[last_world_];
    for (last_world_ = 0; last_world_ < worlds_.size(); ++last_world_)
        if (worlds_[last_world_].number == number) return worlds_[last_world_];
    worlds_.push_back({number, {}});
    return worlds_.back();
}

void Vmx::note_translation_rights() { world(cpu_.mmu.key().world).rights = translation_rights(); }

void Vmx::check_translation_rights(u32 number) {
    World& w = world(number);
    const TranslationRights now = translation_rights();
    if (w.rights != now) {
        cpu_.mmu.flush_world(number);
        w.rights = now;
    }
}

/// Tells MMU and processor what tags the current VMCS's translations and where its second level is.
void Vmx::bind_guest_translations() {
    const u64 controls = secondary();
    const bool ept = controls & secondary::enable_ept, vpid = controls & secondary::enable_vpid;
    if (ept) {
        ept_.set_pointer(field(F::ept_pointer));
        ept_.set_log(controls & secondary::enable_pml ? &log_ : nullptr);
        ept_.set_sub_page_table(controls & secondary::sub_page_write_permissions_for_ept
                                    ? std::optional(Physical{field(F::sub_page_permission_table_pointer)})
                                    : std::nullopt);
        ept_.set_mode_based_execute(controls & secondary::mode_based_execute_control_for_ept);
    }
    SecondLevel* second_level = ept ? &ept_ : nullptr;
    if (controls & secondary::virtualize_apic_accesses) {
        apic_page_.set(Physical{field(F::apic_access_address)}, second_level);
        second_level = &apic_page_;
    }
    cpu_.mmu.set_second_level(second_level);
    const u32 number = 1 + (vpid ? static_cast<u32>(field(F::virtual_processor_identifier)) : 0);
    cpu_.guest_tlb_key =
        TlbKey{.second_level_root = ept ? EPTP::tag(field(F::ept_pointer)) : 0, .world = number};
}

/// Without VPIDs host and guest both are VPID 0000H, whose translations every VM entry and exit drops
/// (28.3.3.1).
void Vmx::select_guest_translations() {
    bind_guest_translations();
    const u32 number = cpu_.guest_tlb_key.world;
    if (!(secondary() & secondary::enable_vpid)) {
        cpu_.mmu.flush_world(0);
        cpu_.mmu.flush_world(number);
    }
    check_translation_rights(number);
    cpu_.context_changed(false);
}

void Vmx::select_host_translations() {
    const bool vpid = secondary() & secondary::enable_vpid;
    if (!vpid) {
        cpu_.mmu.flush_world(0);
        cpu_.mmu.flush_world(1);
    }
    cpu_.mmu.set_second_level(nullptr);
    check_translation_rights(0);
    cpu_.context_changed(false);
}

} // namespace exeunt
