// Cached translations of host and guests: tagged with ASIDs, so that VMRUN and #VMEXIT flush nothing unless
// TLB_CONTROL says so. APM 2 15.16 "TLB Control".
#include "svm/svm.hpp"

namespace exeunt {

/// Cached translations hold what they allow, so those of a world are good only under the rights with which
/// they were made. While a world runs the core sees to that; in between, VMRUN or #VMEXIT may come back with
/// others.
Svm::TranslationRights Svm::translation_rights() const {
    const ControlRegisters& c = cpu_.control;
    constexpr u64 cr0 = CR0::PG | CR0::WP;
    constexpr u64 cr4 = CR4::PSE | CR4::PAE | CR4::LA57 | CR4::SMEP | CR4::SMAP | CR4::PKE;
    constexpr u64 efer = EFER::NXE | EFER::LMA;
    return {.cr0 = c.cr0 & cr0, .cr4 = c.cr4 & cr4, .efer = c.efer & efer, .pkru = c.pkru};
}

Svm::TranslationRights& Svm::rights_of(u32 world) {
    // EBX of CPUID 8000_000AH says how many ASIDs there are; a larger one is not refused by VMRUN.
    const std::size_t slot = world & 0xFFFF;
    if (slot >= rights_.size()) rights_.resize(slot + 1);
    return rights_[slot];
}

void Svm::note_translation_rights() { rights_of(cpu_.mmu.key().world) = translation_rights(); }

void Svm::check_translation_rights(u32 world) {
    TranslationRights& rights = rights_of(world);
    const TranslationRights now = translation_rights();
    if (rights == now) return;
    cpu_.mmu.flush_world(world);
    rights = now;
}

/// APM 2 15.16.2 "TLB Control": what VMRUN flushes.
void Svm::control_tlb() {
    switch (guest_.get(VMCB::tlb_control)) {
    case 0: break;
    case 3:
    case 7: cpu_.mmu.flush_world(1 + asid_); break;
    default: cpu_.mmu.flush_all(); break;
    }
}

/// Tells MMU and processor what tags the guest's translations and where its second level is.
void Svm::bind_guest_translations() {
    const u64 n_cr3 = guest_.get(VMCB::n_cr3);
    npt_.set_tables(n_cr3, host_.cr4, host_.efer);
    npt_.set_options(nested_control_ & VMCB::GMET, nested_control_ & VMCB::ROGPT);
    if (avic_.on() && !avic_.x2apic()) {
        const u64 bar = guest_.get(VMCB::avic_apic_bar) & low_mask(52) & ~u64{0xFFF};
        npt_.set_special_page(GuestPhysical{bar}, Physical{avic_.backing_page()});
    }
    cpu_.mmu.set_second_level(nested_paging() ? &npt_ : nullptr);
    // Bit 0 keeps a table at address 0 apart from "no nested paging".
    cpu_.guest_tlb_key =
        TlbKey{.second_level_root = nested_paging() ? (n_cr3 & ~u64{0xFFF}) | 1 : 0, .world = 1 + asid_};
}

void Svm::select_guest_translations() {
    bind_guest_translations();
    check_translation_rights(1 + asid_);
    cpu_.context_changed(false);
}

} // namespace exeunt
