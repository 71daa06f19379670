// What a guest does with its virtual APIC: accesses to the page at V_APIC_BAR, the MSRs of x2AVIC, and what
// leaves the guest for it. APM 2 15.29.3 "AVIC Backing Page", 15.29.6 "AVIC #VMEXITs", 15.29.7 "x2AVIC".
//
// What the manual leaves open: nRIP is RIP after a trap and 0 at a fault. An EOI of a level-triggered
// interrupt exits after the write and leaves the vector in ISR, where Linux's handler of the exit looks for
// it. Bytes beyond a register's first four are memory.
#include "svm/svm.hpp"

namespace exeunt {

using AVIC::Behaviour;
using Register = VirtualApic::Register;

namespace {

constexpr u64 written = bit(32);
constexpr u32 self_ipi = 0x3F0;

/// Whether an access at this offset begins in a register.
bool in_register(unsigned offset) { return (offset & 0xF) < 4; }

/// SDM 3A 10.12.1.2 "x2APIC Register Address Space": which registers there are; ISR, TMR and IRR are
/// read-only.
const LocalApic::Row* x2apic_row(unsigned offset) {
    static constexpr LocalApic::Row bitmap{.offset = Register::ISR,
                                           .name = "ISR, TMR, IRR",
                                           .xapic = LocalApic::Access::read_only,
                                           .x2apic = LocalApic::Access::read_only,
                                           .reset = 0,
                                           .writable = 0,
                                           .on_write = nullptr};
    if (offset >= Register::ISR && offset < Register::IRR + 0x80u) return &bitmap;
    for (const LocalApic::Row& row : LocalApic::rows())
        if (row.offset == offset && row.x2apic != LocalApic::Access::absent && offset != Register::LVT_CMCI)
            return &row;
    return nullptr;
}

} // namespace

void Svm::trap_after(const SvmExit& exit) {
    trap_ = exit;
    cpu_.attention();
}

// ---- Registers, whichever way they are reached ----

Result<void> Svm::avic_read(unsigned offset) {
    if (AVIC::register_row(offset).read == Behaviour::fault)
        return exit({.code = ExitCode::AVIC_NOACCEL, .info1 = offset & 0xFF0});
    return {};
}

Result<void> Svm::avic_write(unsigned offset, unsigned bytes, u64 value) {
    const unsigned slot = offset & 0xFF0;
    const Behaviour behaviour = AVIC::register_row(offset).write;
    if (behaviour == Behaviour::fault) return exit({.code = ExitCode::AVIC_NOACCEL, .info1 = written | slot});
    VirtualApic page = avic_.page();
    page.store(offset, bytes, value);
    if (behaviour == Behaviour::trap) trap_after({.code = ExitCode::AVIC_NOACCEL, .info1 = written | slot});
    if (behaviour != Behaviour::accelerate) return {};
    switch (slot) {
    case Register::TPR:
        interrupt_control_ = (interrupt_control_ & ~VMCB::INT::V_TPR) | (page.tpr() >> 4);
        avic_.update_ppr();
        break;
    case Register::EOI: avic_eoi(); break;
    default: avic_command({page.reg(Register::ICR_LOW), page.reg(Register::ICR_HIGH)}); break;
    }
    cpu_.attention();
    return {};
}

void Svm::avic_eoi() {
    VirtualApic page = avic_.page();
    const u8 vector = page.highest(Register::ISR);
    if (vector == 0) return;
    if (page.vector_bit(Register::TMR, vector)) {
        trap_after({.code = ExitCode::AVIC_NOACCEL, .info1 = written | Register::EOI, .info2 = vector});
        return;
    }
    page.end_service(vector);
    avic_.update_ppr();
}

/// What a write to the ICR's low half does.
void Svm::avic_command(AVIC::Command command) {
    const AVIC::Outcome outcome = avic_.send(command);
    for (const u32 apic_id : outcome.doorbells) ring(apic_id);
    if (outcome.complete) return;
    trap_after({.code = ExitCode::AVIC_INCOMPLETE_IPI,
                .info1 = u64{command.high} << 32 | command.low,
                .info2 = u64{static_cast<u32>(outcome.failure)} << 32 | outcome.index});
}

// ---- The page ----

Result<u64> Svm::special_read(Cpu& cpu, u64 physical, u64, unsigned bytes) {
    const auto offset = static_cast<unsigned>(physical & 0xFFF);
    if (avic_.on() && in_register(offset)) TRY(avic_read(offset));
    u64 value = 0;
    cpu.memory.read_bytes(Physical{physical}, &value, bytes);
    return PhysicalMemory::little_endian(value);
}

Result<void> Svm::special_write(Cpu& cpu, u64 physical, u64, unsigned bytes, u64 value) {
    const auto offset = static_cast<unsigned>(physical & 0xFFF);
    if (avic_.on() && in_register(offset)) return avic_write(offset, bytes, value);
    const u64 raw = PhysicalMemory::little_endian(value);
    cpu.memory.write_bytes(Physical{physical}, &raw, bytes);
    return {};
}

// ---- The MSRs: what x2APIC itself refuses is #GP(0) before AVIC looks ----

Result<u64> Svm::x2avic_read(u32 index) {
    const unsigned offset = (index & 0xFF) << 4;
    const LocalApic::Row* row = x2apic_row(offset);
    if (!row || row->x2apic == LocalApic::Access::write_only) return general_protection(0);
    TRY(avic_read(offset));
    const VirtualApic page = avic_.page();
    const u64 high = offset == Register::ICR_LOW ? page.reg(Register::ICR_HIGH) : 0;
    return high << 32 | page.reg(offset);
}

Result<void> Svm::x2avic_write(u32 index, u64 value) {
    const unsigned offset = (index & 0xFF) << 4;
    const LocalApic::Row* row = x2apic_row(offset);
    if (!row || row->x2apic == LocalApic::Access::read_only) return general_protection(0);
    const u64 upper = offset == Register::ICR_LOW ? ~u64{0} << 32 : 0;
    if (value & ~(row->writable | upper)) return general_protection(0);
    VirtualApic page = avic_.page();
    if (offset == self_ipi) {
        constexpr u32 to_self = 1u << 18;
        page.store(self_ipi, 4, value);
        avic_command({to_self | low32(value), 0});
        cpu_.attention();
        return {};
    }
    if (offset == Register::ICR_LOW) page.set_reg(Register::ICR_HIGH, high32(value));
    return avic_write(offset, 4, low32(value));
}

// ---- From outside ----

void Svm::doorbell() {
    if (cpu_.in_guest && avic_.on()) cpu_.attention();
}

void SvmInterconnect::doorbell(u32 apic_id) {
    for (Svm* processor : processors_)
        if (processor->apic_id() == apic_id) processor->doorbell();
}

} // namespace exeunt
