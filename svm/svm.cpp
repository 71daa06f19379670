#include "svm/svm.hpp"

#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"

namespace exeunt {

namespace {

/// APM 2 15.30.1 "VM_CR MSR (C001_0114h)": once locked, SVM can not be disabled or enabled; while it is on it
/// can not be disabled.
Result<u64> vm_cr_write(Cpu& cpu, u64 stored, u64 value) {
    if ((value & VM_CR::SVMDIS) && (cpu.control.efer & EFER::SVME)) return general_protection(0);
    constexpr u64 locked = VM_CR::LOCK | VM_CR::SVMDIS;
    if (stored & VM_CR::LOCK) value = (value & ~locked) | (stored & locked);
    return value;
}

/// APM 2 15.30.4 "VM_HSAVE_PA MSR (C001_0117h)".
Result<u64> vm_hsave_pa_write(Cpu& cpu, u64, u64 value) {
    if ((value & 0xFFF) || (value >> cpu.model.physical_bits)) return general_protection(0);
    return value;
}

Result<u64> write_only(Cpu&, u64) { return general_protection(0); }

/// APM 2 15.29.8 "AVIC Doorbell": the physical APIC ID of the processor to be told.
Result<u64> doorbell_write(Cpu& cpu, u64, u64 value) {
    static_cast<Svm&>(*cpu.virtualization).ring(static_cast<u32>(value));
    return u64{0};
}

Result<u64> reads_zero(Cpu&, u64) { return u64{0}; }

/// APM 2 15.31 "SVM-Lock": the key is kept while VM_CR.LOCK is 0; once it is 1, the same key clears it.
Result<u64> svm_key_write(Cpu& cpu, u64 stored, u64 value) {
    const u64 vm_cr = cpu.msrs->stored(Msr::VM_CR);
    if (!(vm_cr & VM_CR::LOCK)) return value;
    if (value != 0 && value == stored) cpu.msrs->store(Msr::VM_CR, vm_cr & ~VM_CR::LOCK);
    return stored;
}

constexpr std::nullptr_t plain = nullptr;

constexpr MsrRow msr_rows[] = {
#define MSR(index, name, present_with, reset, writable, read, write) \
    {index, #name, present_with, reset, writable, read, write},
#include "svm/msrs.inc"
};

} // namespace

std::span<const MsrRow> svm_msr_rows() { return msr_rows; }

Svm::Svm(Cpu& cpu, SvmInterconnect* interconnect)
    : cpu_(cpu), npt_(cpu.memory), avic_(cpu.memory), interconnect_(interconnect) {
    std::memset(nowhere_, 0xFF, sizeof nowhere_);
    npt_.set_features(cpu.model.physical_bits, cpu.has(Feature::PAGE1GB));
    cpu.msrs->add(msr_rows);
    cpu.virtualization = this;
    if (cpu.has(Feature::SpecCtrl)) spec_ctrl_ = cpu.msrs->slot(Msr::SPEC_CTRL);
    if (interconnect_) interconnect_->attach(*this);
}

void Svm::ring(u32 apic_id) {
    if (interconnect_) {
        interconnect_->doorbell(apic_id);
    } else if (apic_id == cpu_.index) {
        doorbell();
    }
}

/// RESET# and INIT: GIF is 1, no guest runs, and SVM is not disabled unless that is locked (15.30.1).
void Svm::reset(Cpu& cpu) {
    gif_ = true;
    copy_address_ = ~u64{0};
    trap_.reset();
    cpu.in_guest = false;
    cpu.mmu.set_second_level(nullptr);
    const u64 vm_cr = cpu.msrs->stored(Msr::VM_CR);
    if (!(vm_cr & VM_CR::LOCK)) cpu.msrs->store(Msr::VM_CR, vm_cr & ~VM_CR::SVMDIS);
}

namespace {

void visit_table(StateVisitor& visitor, const char* name, TableRegister& table) {
    visitor.enter(name);
    visitor.value("base", table.base);
    visitor.value("limit", table.limit);
    visitor.leave();
}

} // namespace

void Svm::visit_trap(StateVisitor& visitor) {
    visitor.enter("trap");
    bool pending = trap_.has_value();
    SvmExit trap = trap_.value_or(SvmExit{.code = 0});
    visitor.value("pending", pending);
    visitor.value("code", trap.code);
    visitor.value("info1", trap.info1);
    visitor.value("info2", trap.info2);
    visitor.leave();
    trap_.reset();
    if (pending) trap_ = trap;
}

void Svm::visit(StateVisitor& visitor) {
    visitor.enter("svm");
    visitor.value("gif", gif_);
    visitor.value("vmcb_address", vmcb_address_);
    visitor.value("copy_address", copy_address_);
    visitor.bytes("copy", copy_);
    visitor.value("interrupt_control", interrupt_control_);
    visitor.value("pause_count", pause_count_);
    visitor.value("last_pause", last_pause_);
    visitor.value("bus_lock_counter", bus_lock_counter_);
    visitor.enter("host");
    static constexpr const char* names[] = {"es", "cs", "ss", "ds"};
    for (unsigned i = 0; i < 4; ++i) {
        visitor.enter(names[i]);
        visitor.value("selector", host_.segment[i].selector);
        visitor.value("access", host_.segment[i].access);
        visitor.value("limit", host_.segment[i].limit);
        visitor.value("base", host_.segment[i].base);
        visitor.leave();
    }
    visit_table(visitor, "gdtr", host_.gdtr);
    visit_table(visitor, "idtr", host_.idtr);
    visitor.value("efer", host_.efer);
    visitor.value("cr0", host_.cr0);
    visitor.value("cr3", host_.cr3);
    visitor.value("cr4", host_.cr4);
    visitor.value("rflags", host_.rflags);
    visitor.value("rip", host_.rip);
    visitor.value("rsp", host_.rsp);
    visitor.value("rax", host_.rax);
    visitor.value("pat", host_.pat);
    visitor.value("spec_ctrl", host_.spec_ctrl);
    visitor.array("lbr", host_.lbr);
    visitor.leave();
    visit_trap(visitor);
    visitor.leave();
    if (cpu_.in_guest) { // what the guest's controls imply
        const u64 interrupt_control = interrupt_control_, pause_count = pause_count_;
        const Tick last_pause = last_pause_;
        const u16 bus_lock_counter = bus_lock_counter_;
        derive_controls();
        interrupt_control_ = interrupt_control;
        pause_count_ = pause_count;
        last_pause_ = last_pause;
        bus_lock_counter_ = bus_lock_counter;
        cpu_.intercepted = intercepted_;
        cpu_.undefined.reset();
        avic_.load(guest_, interrupt_control_);
        bind_guest_translations();
    } else {
        cpu_.mmu.set_second_level(nullptr);
    }
}

} // namespace exeunt
