// INVLPGB and TLBSYNC: translations dropped on every processor. APM 3 "INVLPGB", "TLBSYNC"; APM 2 15.16.3
// "Invalidate Page, Broadcast", 15.14.7 "INVLPGB and TLBSYNC in guests". What is dropped is at least what was
// asked for.
//
// Not modelled: invalidation of nested translations (CPUID 8000_0008H:EBX[21] is 0, so rAX[5] is #GP).
#include "cpu/cpuid.hpp"
#include "svm/svm.hpp"

namespace exeunt {

namespace {

/// rAX[5:0].
constexpr u64 VA_VALID = bit(0), PCID_VALID = bit(1), ASID_VALID = bit(2), NESTED = bit(5);
/// rAX[11:6], ECX[30:16], EDX[31:28].
constexpr u64 reserved_rax = 0xFC0, reserved_ecx = 0x7FFF'0000, reserved_edx = 0xF000'0000;
constexpr u32 asids = 0x8000; // CPUID 8000_000AH:EBX

} // namespace

bool Svm::broadcasts_allowed() const {
    if (!cpu_.in_guest) return true;
    return cpu_.has(Feature::TlbiCtl) && (nested_control_ & VMCB::INVLPGB_ENABLE);
}

Result<void> Svm::invlpgb(const Insn& insn) {
    const u64 rax = cpu_.gpr(RAX, insn.address_size), ecx = cpu_.gpr(RCX, 4), edx = cpu_.gpr(RDX, 4);
    const u64 asid = edx & 0xFFFF, pcid = extract(edx, 27, 16), count = ecx & 0xFFFF;
    const bool pcids = cpu_.control.cr4 & CR4::PCIDE;
    bool illegal = (rax & (reserved_rax | NESTED)) || (ecx & reserved_ecx) || (edx & reserved_edx);
    illegal |= count > invlpgb_count_max || ((rax & PCID_VALID) && pcid != 0 && !pcids);
    // A guest invalidates what is its own.
    illegal |= (rax & ASID_VALID) && (cpu_.in_guest ? asid != 0 : asid >= asids);
    if (illegal) {
        if (cpu_.in_guest && intercepts(ExitCode::INVLPGB_ILLEGAL))
            return instruction_exit(insn, ExitCode::INVLPGB_ILLEGAL);
        return general_protection(0);
    }
    BroadcastInvalidation what;
    what.all_asids = !cpu_.in_guest && !(rax & ASID_VALID);
    what.asid = cpu_.in_guest ? asid_ : static_cast<u32>(asid);
    what.one_pcid = rax & PCID_VALID;
    what.pcid = static_cast<u16>(pcid);
    what.by_address = rax & VA_VALID;
    what.linear = rax & ~u64{0xFFF};
    what.pages = count + 1;
    what.stride = test_bit(ecx, 31) ? page_size << 9 : page_size;
    if (interconnect_) {
        interconnect_->invalidate(what);
    } else {
        invalidate(what);
    }
    return {};
}

void Svm::invalidate(const BroadcastInvalidation& what) {
    const u32 world = what.asid == 0 ? 0 : 1 + what.asid;
    if (what.all_asids) {
        cpu_.mmu.flush_all();
    } else if (what.by_address) {
        for (u64 i = 0; i < what.pages; ++i) cpu_.mmu.drop_page(Linear{what.linear + i * what.stride}, world);
    } else if (what.one_pcid) {
        cpu_.mmu.flush_pcid(world, what.pcid);
    } else {
        cpu_.mmu.flush_world(world);
    }
    cpu_.context_changed(false);
}

void SvmInterconnect::invalidate(const BroadcastInvalidation& what) {
    for (Svm* processor : processors_) processor->invalidate(what);
}

} // namespace exeunt
