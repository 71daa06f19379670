// #VMEXIT: recording why, saving the guest, loading the host. APM 2 15.6 "#VMEXIT", 15.7 "Intercept
// Operation".
#include "svm/svm.hpp"

#include "base/ensure.hpp"

#include <algorithm>

namespace exeunt {

/// What VMRUN loaded goes back, to memory and to the copy that clean bits refer to.
void Svm::save_guest(VmcbView memory) {
    const auto put = [&](auto field, auto value) {
        memory.put(field, value);
        guest_.put(field, value);
    };
    const auto put_segment = [&](VmcbField<u16> field, Seg which) {
        memory.put_segment(field, cpu_.seg(which));
        guest_.put_segment(field, cpu_.seg(which));
    };
    const ControlRegisters& c = cpu_.control;
    put_segment(VMCB::es_selector, Seg::ES);
    put_segment(VMCB::cs_selector, Seg::CS);
    put_segment(VMCB::ss_selector, Seg::SS);
    put_segment(VMCB::ds_selector, Seg::DS);
    put(VMCB::gdtr_limit, u32{cpu_.gdtr.limit});
    put(VMCB::gdtr_base, cpu_.gdtr.base);
    put(VMCB::idtr_limit, u32{cpu_.idtr.limit});
    put(VMCB::idtr_base, cpu_.idtr.base);
    put(VMCB::cpl, cpu_.cpl);
    put(VMCB::efer, c.efer);
    put(VMCB::cr4, c.cr4);
    put(VMCB::cr3, c.cr3);
    put(VMCB::cr0, c.cr0);
    put(VMCB::cr2, c.cr2);
    put(VMCB::dr7, cpu_.dr7);
    put(VMCB::dr6, cpu_.dr6);
    put(VMCB::rflags, cpu_.rflags());
    put(VMCB::rip, cpu_.rip);
    put(VMCB::rsp, cpu_.r[RSP]);
    put(VMCB::rax, cpu_.r[RAX]);
    if (nested_paging()) put(VMCB::g_pat, cpu_.pat);
    const u64 control = guest_.get(VMCB::interrupt_control);
    put(VMCB::interrupt_control, (control & ~VMCB::INT::state) | (interrupt_control_ & VMCB::INT::state));
    if (cpu_.has(Feature::BusLockThreshold)) put(VMCB::bus_lock_counter, bus_lock_counter_);
    if (spec_ctrl_) put(VMCB::spec_ctrl, *spec_ctrl_);
    // Delivery of an event ended the shadow.
    put(VMCB::interrupt_shadow, u64{cpu_.shadow != Shadow::none && !cpu_.delivering});
}

/// 15.8.4 "Decode Assists for Data Page Faults and Nested Page Faults": as many bytes as can be fetched.
void Svm::record_instruction_bytes(VmcbView memory) {
    constexpr unsigned longest = 15, at = 0x0D1;
    u8* const to = memory.bytes() + at;
    unsigned count = 0;
    u64 linear = cpu_.code64() ? cpu_.rip : low32(cpu_.seg(Seg::CS).base + cpu_.rip);
    while (count < longest) {
        const unsigned here =
            std::min<unsigned>(longest - count, static_cast<unsigned>(page_size - (linear & 0xFFF)));
        TlbPart& part = cpu_.mmu.part(cpu_.fetch_privilege());
        const FetchEntry& fetched = part.fetch_entry(linear);
        Physical physical{fetched.physical + (linear & 0xFFF)};
        if (fetched.tag != part.tag_of(linear) && !cpu_.mmu.probe(Linear{linear}, physical)) break;
        cpu_.memory.read_bytes(physical, to + count, here);
        count += here;
        linear += here;
    }
    std::memset(to + count, 0, longest - count);
    memory.put(VMCB::bytes_fetched, static_cast<u8>(count));
}

void Svm::record(VmcbView memory, const SvmExit& e, u64 exitintinfo) {
    memory.put(VMCB::exitcode, e.code);
    memory.put(VMCB::exitinfo1, e.info1);
    memory.put(VMCB::exitinfo2, e.info2);
    memory.put(VMCB::exitintinfo, exitintinfo);
    memory.put(VMCB::eventinj, memory.get(VMCB::eventinj) & ~EVENT::valid);
    if (cpu_.has(Feature::NRIPS)) memory.put(VMCB::nrip, e.nrip);
    if (!cpu_.has(Feature::DecodeAssists)) return;
    memory.put(VMCB::bytes_fetched, u8{0});
    if (e.records_bytes) record_instruction_bytes(memory);
}

void Svm::observe(const SvmExit& e, u64 exitintinfo) {
    ExitRecord record;
    record.svm = true;
    record.reason = low32(e.code);
    record.qualification = e.info1;
    record.qualification2 = e.info2;
    record.rip = cpu_.rip;
    if (e.nrip) record.instruction_length = static_cast<u32>(e.nrip - cpu_.rip) & 15;
    record.interruption_information = low32(e.event);
    record.interruption_error = high32(e.event);
    record.idt_vectoring_information = low32(exitintinfo);
    record.idt_vectoring_error = high32(exitintinfo);
    if (e.code == ExitCode::NPF) record.guest_physical = e.info2;
    cpu_.observer->vm_exit(cpu_.index, cpu_.now(), record);
}

/// 15.6: the host as VMRUN left it, except what a #VMEXIT forces.
void Svm::load_host() {
    ControlRegisters& c = cpu_.control;
    note_translation_rights();
    if (nested_paging()) cpu_.pat = host_.pat;
    if (spec_ctrl_) *spec_ctrl_ = host_.spec_ctrl;
    for (unsigned i = 0; i < 4; ++i) cpu_.segment[i] = host_.segment[i];
    cpu_.gdtr = host_.gdtr;
    cpu_.idtr = host_.idtr;
    c.efer = host_.efer;
    c.cr0 = host_.cr0 | CR0::PE;
    c.cr3 = host_.cr3;
    c.cr4 = host_.cr4;
    cpu_.dr7 = DR7::fixed1;
    const u64 rflags = host_.rflags & ~(RFLAGS::VM | RFLAGS::RF);
    cpu_.flags.set_arithmetic(rflags);
    cpu_.flags.rest = rflags & ~RFLAGS::arithmetic;
    cpu_.cpl = 0;
    cpu_.rip = cpu_.next_rip = host_.rip;
    cpu_.r[RSP] = host_.rsp;
    cpu_.r[RAX] = host_.rax;

    cpu_.activity = Activity::active;
    cpu_.clear_shadow();
    // 15.5.1: with the host's TF set, VMRUN ends in a debug trap of the host.
    cpu_.pending_debug = rflags & RFLAGS::TF ? DR6::BS : 0;
    cpu_.monitor_armed = false;
    cpu_.delivering.reset();
    cpu_.in_guest = false;
    gif_ = false;

    cpu_.mmu.set_second_level(nullptr);
    check_translation_rights(0);
    cpu_.context_changed(false);
    cpu_.mode_changed();
    cpu_.attention();
    const bool pae = (c.cr0 & CR0::PG) && (c.cr4 & CR4::PAE) && !(c.efer & EFER::LMA);
    if (pae && !cpu_.load_pdptes(c.cr3).ok()) cpu_.activity = Activity::shutdown;
}

Stop Svm::exit(SvmExit e) {
    ENSURE(cpu_.in_guest);
    cpu_.abandon_instruction();
    const VmcbView memory(vmcb_bytes(vmcb_address_));
    const u64 exitintinfo = cpu_.delivering ? EVENT::encode(*cpu_.delivering) : 0;
    // A virtual NMI that was not delivered masks nothing yet; it is in EXITINTINFO (15.21.10).
    if (has_vnmi() && cpu_.delivering && cpu_.delivering->type == Event::Type::nmi)
        interrupt_control_ &= ~VMCB::INT::V_NMI_MASK;
    trap_.reset();
    save_guest(memory);
    if (virtualizes_lbr()) switch_lbr_to_host();
    record(memory, e, exitintinfo);
    if (cpu_.observer) observe(e, exitintinfo);
    load_host();
    return stopped(Stop::Kind::world_switch);
}

} // namespace exeunt
