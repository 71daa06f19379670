// SKINIT: from any software to the secure loader, as after INIT. APM 2 15.27 "Secure Startup with SKINIT";
// APM 3 "SKINIT".
//
// Without a TPM nothing is measured: the loader runs in the state that the manual describes ("measured launch
// environment entered"), and software that asks a TPM for its PCR 17 finds none. The 64 KBytes of the loader
// are not kept from DMA. The other processors are not asked whether they wait for a SIPI.
#include "cpu/cpuid.hpp"
#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"
#include "svm/svm.hpp"

namespace exeunt {

namespace {

constexpr u64 loader_bytes = 0x1'0000;

Segment flat(u16 selector, u32 type) {
    return {selector, AR::P | AR::S | AR::G | AR::DB | type, 0xFFFF'FFFF, 0};
}

} // namespace

Result<void> Svm::skinit() {
    const u64 base = cpu_.gpr(RAX, 4) & ~(loader_bytes - 1);
    if (cpu_.index != 0) return general_protection(0); // only the bootstrap processor
    const u64 entry = cpu_.memory.load<u16>(Physical{base});
    // As INIT, which clears VM_CR.SVMDIS where this does not.
    const u64 vm_cr = cpu_.msrs->stored(Msr::VM_CR);
    cpu_.reset(true);
    cpu_.msrs->store(Msr::VM_CR, vm_cr | VM_CR::DPD | VM_CR::R_INIT | VM_CR::DIS_A20M);
    cpu_.control.cr0 |= CR0::PE;
    cpu_.seg(Seg::CS) = flat(0x08, AR::CODE | AR::READABLE | AR::ACCESSED);
    cpu_.seg(Seg::SS) = flat(0x10, AR::WRITABLE | AR::ACCESSED);
    cpu_.r[RAX] = base;
    cpu_.r[RDX] = processor_signature(cpu_.model);
    cpu_.r[RSP] = base + loader_bytes;
    cpu_.rip = cpu_.next_rip = low32(base + entry);
    gif_ = false;
    cpu_.mode_changed();
    cpu_.attention();
    return stopped(Stop::Kind::world_switch);
}

} // namespace exeunt
