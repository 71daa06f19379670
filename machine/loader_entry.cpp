#include "machine/loader_entry.hpp"

#include "cpu/cpu.hpp"
#include "machine/loader.hpp"

namespace exeunt {

void enter_image(Cpu& cpu, const EntryState& state) {
    using namespace LoaderSegments;
    const bool long_mode = state.mode == EntryState::Mode::long64;
    const u32 limit = 0xFFFF'FFFF;
    cpu.seg(Seg::CS) = {code_selector, long_mode ? code64_access : code32_access, limit, 0};
    for (const Seg seg : {Seg::DS, Seg::ES, Seg::SS, Seg::FS, Seg::GS})
        cpu.seg(seg) = {data_selector, data_access, limit, 0};
    cpu.seg(Seg::TR) = {tss_selector, tss_access, 0x67, 0};
    cpu.seg(Seg::LDTR) = {0, AR::UNUSABLE, 0, 0};
    cpu.gdtr = {state.gdt, 5 * 8 - 1};
    // Before it has an IDT of its own, an exception in the kernel is a triple fault and not a walk through RAM.
    cpu.idtr = {0, 0};
    cpu.control.cr0 = CR0::PE | CR0::ET | CR0::NE;
    if (long_mode) {
        cpu.control.cr3 = state.cr3;
        cpu.control.cr4 = CR4::PAE;
        cpu.control.efer = EFER::LME | EFER::LMA;
        cpu.control.cr0 |= CR0::PG;
    }
    cpu.cpl = 0;
    cpu.flags = Flags{};
    cpu.r[RAX] = state.rax;
    cpu.r[RBX] = state.rbx;
    cpu.r[RSI] = state.rsi;
    cpu.r[RDI] = state.rdi;
    cpu.r[RSP] = state.rsp;
    cpu.rip = cpu.next_rip = state.rip;
    cpu.mode_changed();
    cpu.context_changed(true);
}

}  // namespace exeunt
