// VMRUN in the manual's order. APM 2 15.5 "VMRUN Instruction".
#include "cpu/msrs.hpp"
#include "svm/svm.hpp"

#include <utility>

namespace exeunt {

namespace {

/// Which bytes each clean bit covers, and those that are read every time.
struct Span {
    CleanGroup clean;
    u16 offset, bytes;
};
constexpr Span spans[] = {
    {CleanGroup::I, 0x000, 0x18},        {CleanGroup::I, 0x03C, 4},        {CleanGroup::I, 0x050, 8},
    {CleanGroup::IOPM, 0x040, 16},       {CleanGroup::ASID, 0x058, 4},     {CleanGroup::TPR, 0x060, 8},
    {CleanGroup::NP, 0x090, 8},          {CleanGroup::NP, 0x0B0, 8},       {CleanGroup::NP, 0x668, 8},
    {CleanGroup::CRx, 0x4D0, 8},         {CleanGroup::CRx, 0x548, 24},     {CleanGroup::DRx, 0x560, 16},
    {CleanGroup::DT, 0x460, 16},         {CleanGroup::DT, 0x480, 16},      {CleanGroup::SEG, 0x400, 0x40},
    {CleanGroup::SEG, 0x4CB, 1},         {CleanGroup::LBR, 0x670, 0x28},   {CleanGroup::AVIC, 0x098, 8},
    {CleanGroup::AVIC, 0x0E0, 8},        {CleanGroup::AVIC, 0x0F0, 16},    {CleanGroup::CR2, 0x640, 8},
    {CleanGroup::uncached, 0x05C, 4},    {CleanGroup::uncached, 0x068, 8}, {CleanGroup::uncached, 0x0A8, 8},
    {CleanGroup::uncached, 0x0B8, 0x18}, {CleanGroup::uncached, 0x6E0, 8}, {CleanGroup::uncached, 0x120, 2},
    {CleanGroup::uncached, 0x570, 16},   {CleanGroup::uncached, 0x5D8, 8}, {CleanGroup::uncached, 0x5F8, 8},
};

/// Every field that VMRUN reads is in a span of its group.
constexpr bool every_field_is_covered() {
    struct Row {
        unsigned offset;
        CleanGroup clean;
    };
    constexpr Row rows[] = {
#define FIELD(name, type, offset, clean) {offset, CleanGroup::clean},
#include "svm/vmcb_fields.inc"
    };
    for (const Row& row : rows) {
        bool covered = row.clean == CleanGroup::uncached;
        for (const Span& span : spans)
            covered |=
                span.clean == row.clean && row.offset >= span.offset && row.offset < span.offset + span.bytes;
        if (!covered) return false;
    }
    return true;
}
static_assert(every_field_is_covered(), "svm/vmcb_fields.inc has a field that no clean group copies");

struct InterceptRow {
    Intercept intercept;
    u64 code;
};
constexpr InterceptRow intercept_rows[] = {
#define INTERCEPT(name, code) {Intercept::name, ExitCode::code},
#define NOT_INTERCEPTED(name)
#include "svm/intercepts.inc"
};

struct LbrRow {
    u32 msr;
    VmcbField<u64> field;
};
constexpr LbrRow lbr_rows[] = {{Msr::BR_FROM, VMCB::br_from},
                               {Msr::BR_TO, VMCB::br_to},
                               {Msr::LASTEXCPFROM, VMCB::lastexcpfrom},
                               {Msr::LASTEXCPTO, VMCB::lastexcpto}};

constexpr u64 dr6_writable = DR6::B0 | DR6::B1 | DR6::B2 | DR6::B3 | DR6::BD | DR6::BS | DR6::BT;
constexpr u64 dr7_reserved = bit(11) | bit(12) | bit(14) | bit(15);

} // namespace

/// The native bytes of a VMCB; a store into them goes past decoded code, which is therefore dropped.
u8* Svm::vmcb_bytes(u64 address) {
    const Physical at{address};
    if (cpu_.memory.kind(at) != PhysicalMemory::Kind::ram) return nowhere_;
    if (cpu_.memory.has_code(at)) [[unlikely]]
        cpu_.memory.about_to_write(at, VMCB::bytes);
    return cpu_.memory.native(at);
}

/// rAX: 4-KByte aligned and within the physical address space, else #GP(0).
Result<u64> Svm::vmcb_operand(const Insn& insn) const {
    const u64 address = cpu_.gpr(RAX, insn.address_size);
    if ((address & 0xFFF) || (address >> cpu_.model.physical_bits)) return general_protection(0);
    return address;
}

/// 15.15 "VMCB State Caching": what a set clean bit covers is taken as this processor last knew it.
void Svm::take_copy(u64 address) {
    const VmcbView memory(vmcb_bytes(address));
    u32 clean = cpu_.has(Feature::VmcbClean) && address == copy_address_ ? memory.get(VMCB::clean_bits) : 0;
    vmcb_address_ = copy_address_ = address;
    if (clean == 0) {
        std::memcpy(copy_, memory.bytes(), 0x140);
        std::memcpy(copy_ + 0x400, memory.bytes() + 0x400, 0x270);
        if (virtualizes_lbr()) std::memcpy(copy_ + 0x670, memory.bytes() + 0x670, 0x28);
        if (spec_ctrl_) std::memcpy(copy_ + 0x6E0, memory.bytes() + 0x6E0, 8);
        return;
    }
    for (const Span& span : spans) {
        const bool known =
            span.clean != CleanGroup::uncached && (clean >> static_cast<unsigned>(span.clean) & 1);
        if (!known) std::memcpy(copy_ + span.offset, memory.bytes() + span.offset, span.bytes);
    }
}

/// Out of the copy: what is asked often.
void Svm::derive_controls() {
    u32 changed = 0;
    for (unsigned i = 0; i < 6; ++i) {
        const u32 word = guest_.get(VmcbField<u32>{static_cast<u16>(4 * i), CleanGroup::I});
        changed |= words_[i] ^ word;
        words_[i] = word;
    }
    interrupt_control_ = guest_.get(VMCB::interrupt_control);
    if (!cpu_.has(Feature::VGIF)) interrupt_control_ &= ~VMCB::INT::V_GIF_ENABLE;
    if (!cpu_.has(Feature::VNMI)) interrupt_control_ &= ~VMCB::INT::V_NMI_ENABLE;
    nested_control_ = cpu_.has(Feature::NP) ? guest_.get(VMCB::nested_control) : 0;
    if (!cpu_.has(Feature::GMET)) nested_control_ &= ~VMCB::GMET;
    if (!cpu_.has(Feature::ROGPT)) nested_control_ &= ~VMCB::ROGPT;
    asid_ = guest_.get(VMCB::guest_asid);
    pause_count_ = guest_.get(VMCB::pause_filter_count);
    last_pause_ = cpu_.now();
    bus_lock_counter_ = guest_.get(VMCB::bus_lock_counter);
    if (!changed) return;
    intercepted_.reset();
    for (const InterceptRow& row : intercept_rows)
        intercepted_.set(static_cast<std::size_t>(row.intercept), intercepts(row.code));
    // MWAIT and HLT have two intercepts each.
    if (intercepts(ExitCode::MWAIT_CONDITIONAL)) intercepted_.set(static_cast<std::size_t>(Intercept::mwait));
    if (cpu_.has(Feature::IdleHltIntercept) && intercepts(ExitCode::IDLE_HLT))
        intercepted_.set(static_cast<std::size_t>(Intercept::hlt));
}

void Svm::save_host() {
    const ControlRegisters& c = cpu_.control;
    for (unsigned i = 0; i < 4; ++i) host_.segment[i] = cpu_.segment[i];
    host_.gdtr = cpu_.gdtr;
    host_.idtr = cpu_.idtr;
    host_.efer = c.efer;
    host_.cr0 = c.cr0;
    host_.cr3 = c.cr3;
    host_.cr4 = c.cr4;
    host_.rflags = cpu_.rflags();
    host_.rip = cpu_.next_rip;
    host_.rsp = cpu_.r[RSP];
    host_.rax = cpu_.r[RAX];
    host_.pat = cpu_.pat;
    if (spec_ctrl_) host_.spec_ctrl = *spec_ctrl_;
}

void Svm::load_guest() {
    ControlRegisters& c = cpu_.control;
    const VmcbView& v = guest_;
    c.cr0 = v.get(VMCB::cr0) | CR0::ET;
    c.cr2 = v.get(VMCB::cr2);
    c.cr3 = v.get(VMCB::cr3);
    c.cr4 = v.get(VMCB::cr4);
    const u64 efer = v.get(VMCB::efer);
    const bool long_mode = (efer & EFER::LME) && (c.cr0 & CR0::PG);
    c.efer = (efer & ~EFER::LMA) | (long_mode ? EFER::LMA : 0);
    if (nested_paging()) cpu_.pat = v.get(VMCB::g_pat);

    cpu_.seg(Seg::ES) = v.segment(VMCB::es_selector, true);
    cpu_.seg(Seg::CS) = v.segment(VMCB::cs_selector, true);
    cpu_.seg(Seg::SS) = v.segment(VMCB::ss_selector, true);
    cpu_.seg(Seg::DS) = v.segment(VMCB::ds_selector, true);
    cpu_.seg(Seg::CS).access &= ~AR::UNUSABLE;
    cpu_.gdtr = {v.get(VMCB::gdtr_base), static_cast<u16>(v.get(VMCB::gdtr_limit))};
    cpu_.idtr = {v.get(VMCB::idtr_base), static_cast<u16>(v.get(VMCB::idtr_limit))};
    const u64 rflags = (v.get(VMCB::rflags) & RFLAGS::all) | RFLAGS::FIXED1;
    cpu_.flags.set_arithmetic(rflags);
    cpu_.flags.rest = rflags & ~RFLAGS::arithmetic;
    cpu_.cpl = !(c.cr0 & CR0::PE) ? 0 : rflags & RFLAGS::VM ? 3 : v.get(VMCB::cpl) & 3;
    cpu_.dr6 = (v.get(VMCB::dr6) & dr6_writable) | DR6::fixed1;
    cpu_.dr7 = (v.get(VMCB::dr7) & ~dr7_reserved) | DR7::fixed1;
    const u64 rip = v.get(VMCB::rip);
    cpu_.rip = cpu_.next_rip = cpu_.code64() ? rip : low32(rip);
    cpu_.r[RSP] = v.get(VMCB::rsp);
    cpu_.r[RAX] = v.get(VMCB::rax);

    cpu_.clear_shadow();
    if (v.get(VMCB::interrupt_shadow) & 1) cpu_.set_shadow(Shadow::sti);
    cpu_.pending_debug = 0;
    cpu_.monitor_armed = false;
    cpu_.delivering.reset();
    trap_.reset();
}

/// The page is where the pointer says, be that memory or not; only memory is modelled. Its PPR is made to fit
/// what the VMM may have put there.
Result<void> Svm::check_avic_page() {
    if (!avic_.backed())
        return cpu_.unmodelled("a vAPIC backing page that is not in memory",
                               "APM 2 15.29.3 \"AVIC Backing Page\"");
    avic_.update_ppr();
    return {};
}

/// 15.23.1 "Hardware Acceleration for LBR Virtualization".
void Svm::switch_lbr_to_guest() {
    Msrs& msrs = *cpu_.msrs;
    host_.lbr[0] = std::exchange(cpu_.debugctl, guest_.get(VMCB::dbgctl) & (DEBUGCTL::LBR | DEBUGCTL::BTF));
    for (unsigned i = 0; i < 4; ++i) {
        host_.lbr[1 + i] = msrs.stored(lbr_rows[i].msr);
        msrs.store(lbr_rows[i].msr, guest_.get(lbr_rows[i].field));
    }
}

void Svm::switch_lbr_to_host() {
    Msrs& msrs = *cpu_.msrs;
    VmcbView memory(vmcb_bytes(vmcb_address_));
    memory.put(VMCB::dbgctl, cpu_.debugctl);
    guest_.put(VMCB::dbgctl, cpu_.debugctl);
    cpu_.debugctl = host_.lbr[0];
    for (unsigned i = 0; i < 4; ++i) {
        const u64 value = msrs.stored(lbr_rows[i].msr);
        memory.put(lbr_rows[i].field, value);
        guest_.put(lbr_rows[i].field, value);
        msrs.store(lbr_rows[i].msr, host_.lbr[1 + i]);
    }
}

/// 15.5.1: PAE paging without nested paging reads the four PDPTEs.
bool Svm::load_guest_pdptes() {
    const bool pae = (guest_.get(VMCB::cr0) & CR0::PG) && (guest_.get(VMCB::cr4) & CR4::PAE) &&
                     !(guest_.get(VMCB::efer) & EFER::LME);
    if (!pae || nested_paging()) return true;
    return cpu_.load_pdptes(guest_.get(VMCB::cr3)).ok();
}

/// #VMEXIT(INVALID): nothing of the guest was loaded; the host goes on after VMRUN with GIF 0.
Stop Svm::refuse(u64 rip) {
    VmcbView memory(vmcb_bytes(vmcb_address_));
    memory.put(VMCB::exitcode, ExitCode::INVALID);
    memory.put(VMCB::exitinfo1, u64{0});
    memory.put(VMCB::exitinfo2, u64{0});
    memory.put(VMCB::exitintinfo, u64{0});
    copy_address_ = ~u64{0};
    gif_ = false;
    if (cpu_.observer) {
        std::vector<RuleViolation> violations;
        const VmrunContext context{guest_, cpu_};
        for (const VmrunCheck* check : last_refusal_) {
            const auto allowed = check->fields.allowed;
            const AllowedBits bits = allowed ? allowed(context) : AllowedBits{};
            for (const u16 offset : check->fields.restricted.all())
                violations.push_back({check->id, offset, guest_.get(*VMCB::find_field(offset)), bits, {}});
        }
        cpu_.observer->vm_entry_failure(cpu_.index, cpu_.now(),
                                        {.rip = rip,
                                         .reason = static_cast<u32>(ExitCode::INVALID),
                                         .check = last_refusal_.front()->id,
                                         .violations = violations,
                                         .svm = true});
    }
    cpu_.rip = cpu_.next_rip;
    cpu_.attention();
    return stopped(Stop::Kind::world_switch);
}

/// Whether the fields that the rules look at, and the host's paging, are as when the rules last were asked.
bool Svm::same_state_as_checked() {
    const std::span<const u16> fields = vmrun_checked_fields();
    checked_.resize(fields.size() + 2);
    bool same = true;
    const auto note = [&](std::size_t i, u64 now) {
        same &= checked_[i] == now;
        checked_[i] = now;
    };
    for (std::size_t i = 0; i < fields.size(); ++i) {
        u64 raw; // with what follows a short field
        std::memcpy(&raw, copy_ + fields[i], sizeof raw);
        note(i, raw);
    }
    note(fields.size(), cpu_.control.cr0);
    note(fields.size() + 1, cpu_.control.efer);
    return same;
}

/// Sets `last_refusal_`. What was legal and has not changed is still legal.
void Svm::check_state() {
    const bool legal = last_refusal_.empty() && !checked_.empty();
    if (same_state_as_checked() && legal) [[likely]]
        return;
    last_refusal_.clear();
    const VmrunContext context{guest_, cpu_};
    for (const VmrunCheck& check : vmrun_checks())
        if (check.violated(context)) last_refusal_.push_back(&check);
}

Result<void> Svm::vmrun(const Insn& insn) {
    const u64 address = TRY(vmcb_operand(insn));
    const u64 rip = cpu_.rip;
    take_copy(address);
    derive_controls();
    check_state();
    if (last_refusal_.empty() && !load_guest_pdptes()) last_refusal_.push_back(&vmrun_pdpte_check);
    if (!last_refusal_.empty()) return refuse(rip);

    avic_.load(guest_, interrupt_control_);
    if (avic_.on()) TRY(check_avic_page());

    note_translation_rights();
    save_host();
    control_tlb();
    load_guest();
    if (virtualizes_lbr()) switch_lbr_to_guest();
    if (spec_ctrl_) *spec_ctrl_ = guest_.get(VMCB::spec_ctrl);
    cpu_.in_guest = true;
    cpu_.intercepted = intercepted_;
    cpu_.undefined.reset();
    gif_ = true;
    select_guest_translations();
    cpu_.mode_changed();
    cpu_.attention();
    return inject();
}

} // namespace exeunt
