// The I/O and MSR permission maps. APM 2 15.10 "IOIO Intercepts", 15.11 "MSR Intercepts".
#include "cpu/msrs.hpp"
#include "svm/svm.hpp"

namespace exeunt {

/// One bit for each port; the bits after the last port cover accesses that run past it.
bool Svm::io_exits(const IoAccess& access) const {
    if (!intercepts(ExitCode::IOIO)) return false;
    const u64 map = guest_.get(VMCB::iopm_base_pa) & ~u64{0xFFF};
    for (unsigned i = 0; i < access.bytes; ++i) {
        const u32 port = u32{access.port} + i;
        if (test_bit(cpu_.memory.load<u8>(Physical{map + port / 8}), port % 8)) return true;
    }
    return false;
}

/// APM 2 Table 15-8 "MSR Ranges Covered by MSRPM": two bits for each MSR, RDMSR's and WRMSR's. Others always
/// exit.
bool Svm::msr_exits(u32 index, bool write) const {
    if (!intercepts(ExitCode::MSR)) return false;
    u64 offset = 0;
    switch (index & ~u32{0x1FFF}) {
    case 0: break;
    case 0xC000'0000: offset = 0x800; break;
    case 0xC001'0000: offset = 0x1000; break;
    default: return true;
    }
    const u64 bit_ = 2 * u64{index & 0x1FFF} + (write ? 1 : 0);
    const u64 map = guest_.get(VMCB::msrpm_base_pa) & ~u64{0xFFF};
    return test_bit(cpu_.memory.load<u8>(Physical{map + offset + bit_ / 8}), bit_ % 8);
}

Result<void> Svm::msr(const Insn& insn, u32 index, bool write) {
    if (!msr_exits(index, write)) return {};
    return instruction_exit(insn, ExitCode::MSR, write ? 1 : 0);
}

Result<bool> Svm::rdmsr(Cpu&, const Insn& insn, u32 index, u64& value) {
    TRY(msr(insn, index, false));
    if (!x2avic_answers(index)) return false;
    value = TRY(x2avic_read(index));
    return true;
}

Result<bool> Svm::wrmsr(Cpu&, const Insn& insn, u32 index, u64 value) {
    TRY(msr(insn, index, true));
    if (index == Msr::IA32_EFER && intercepts(ExitCode::EFER_WRITE_TRAP))
        trap_after({.code = ExitCode::EFER_WRITE_TRAP});
    if (!x2avic_answers(index)) return false;
    TRY(x2avic_write(index, value));
    return true;
}

/// APM 2 15.10.2 "IN and OUT Behavior": the layout of EXITINFO1.
Result<void> Svm::io(Cpu&, const Insn& insn, const IoAccess& access) {
    if (!io_exits(access)) return {};
    u64 info = access.in ? 1 : 0;
    if (access.string) info |= bit(2);
    if (access.rep) info |= bit(3);
    info |= u64{access.bytes} << 4;             // 1, 2, 4: bits 4, 5, 6
    info |= u64{access.address_size} >> 1 << 7; // 2, 4, 8: bits 7, 8, 9
    if (access.string && !access.in) info |= u64{static_cast<u8>(access.segment)} << 10;
    info |= u64{access.port} << 16;
    return instruction_exit(insn, ExitCode::IOIO, info, cpu_.rip + insn.length);
}

} // namespace exeunt
