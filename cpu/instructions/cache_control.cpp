// Caches and translations: INVD, WBINVD, WBNOINVD, PREFETCHh, CLFLUSH, CLFLUSHOPT, CLWB, CLZERO, INVLPG, INVPCID,
// fences. The manual's page of each mnemonic; SDM 3A 4.10.4.1 "Operations that Invalidate TLBs and
// Paging-Structure Caches".
//
// Not modelled: caches. Memory is always coherent and in program order, so that fences and flushes only check
// their operands; INVD loses nothing.
#include "cpu/instructions/system.hpp"

namespace exeunt {

Result<void> exec_INVD(Cpu&, const Insn&) { return {}; }
Result<void> exec_WBINVD(Cpu&, const Insn&) { return {}; }

Result<void> exec_LFENCE(Cpu&, const Insn&) { return {}; }
Result<void> exec_MFENCE(Cpu&, const Insn&) { return {}; }
Result<void> exec_SFENCE(Cpu&, const Insn&) { return {}; }
Result<void> exec_SERIALIZE(Cpu&, const Insn&) { return {}; }

/// A page of the extension's may have an exit for it.
Result<TlbEntry> touch(Cpu& cpu, u64 linear) {
    const TlbEntry entry = *TRY(cpu.mmu.lookup(Linear{linear}, {AccessType::read, cpu.mmu.privilege()}));
    if (entry.special())
        TRY(cpu.virtualization->special_read(cpu, entry.physical() + (linear & 0xFFF), linear, 1));
    return entry;
}

namespace {

/// Checked as the load of a byte, which code that is only executable allows as well.
Result<void> touch_line(Cpu& cpu, const Insn& insn) {
    const Seg where = insn.memory.segment;
    const u64 offset = cpu.effective_address(insn);
    const u32 type = cpu.seg(where).access & (AR::S | AR::CODE | AR::READABLE);
    const bool execute_only = cpu.protected_mode() && !cpu.v8086() && type == (AR::S | AR::CODE);
    const u64 linear =
        TRY(cpu.linear(where, offset, 1, execute_only ? AccessType::execute : AccessType::read));
    TRY(touch(cpu, linear));
    return {};
}

} // namespace

Result<void> exec_CLFLUSH(Cpu& cpu, const Insn& insn) { return touch_line(cpu, insn); }
Result<void> exec_CLFLUSHOPT(Cpu& cpu, const Insn& insn) { return touch_line(cpu, insn); }
Result<void> exec_CLWB(Cpu& cpu, const Insn& insn) { return touch_line(cpu, insn); }

// Hints, and there is no cache: nothing is touched, nothing faults.
Result<void> exec_PREFETCH(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHNTA(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHT0(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHT1(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHT2(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHW(Cpu&, const Insn&) { return {}; }
Result<void> exec_PREFETCHWT1(Cpu&, const Insn&) { return {}; }

// CLZERO: the 64-byte line, of linear addresses, that rAX points into becomes 0.
Result<void> exec_CLZERO(Cpu& cpu, const Insn& insn) {
    const u8 zero[64] = {};
    const Seg where = insn.has_segment_override ? insn.memory.segment : Seg::DS;
    const u64 offset = cpu.gpr(RAX, insn.address_size);
    const u64 into_line = cpu.linear_unchecked(where, offset, insn.address_size) & 63;
    return cpu.store_bytes(where, offset - into_line, zero, sizeof zero);
}

// INVLPG: in every PCID; a non-canonical address does nothing.
Result<void> exec_INVLPG(Cpu& cpu, const Insn& insn) {
    const u64 linear =
        cpu.linear_unchecked(insn.memory.segment, cpu.effective_address(insn), insn.address_size);
    if (!cpu.code64() || cpu.canonical(linear)) cpu.mmu.drop_page(Linear{linear});
    return {};
}

// INVPCID: type in the register, descriptor in memory. SDM 2A INVPCID, Figure 3-24 "INVPCID Descriptor".
Result<void> exec_INVPCID(Cpu& cpu, const Insn& insn) {
    enum Type : u64 {
        individual_address = 0,
        single_context = 1,
        all_with_globals = 2,
        all_without_globals = 3
    };
    const u64 type = cpu.gpr(insn.operand[0].number, insn.mode == 64 ? 8 : 4);
    u8 raw[16];
    TRY(cpu.load_bytes(insn.memory.segment, cpu.effective_address(insn), raw, sizeof raw));
    u64 pcid, linear;
    std::memcpy(&pcid, raw, 8);
    std::memcpy(&linear, raw + 8, 8);
    pcid = PhysicalMemory::little_endian(pcid);
    linear = PhysicalMemory::little_endian(linear);
    if (type > all_without_globals || pcid >> 12) return general_protection(0);
    if (type <= single_context && pcid != 0 && !(cpu.control.cr4 & CR4::PCIDE)) return general_protection(0);
    if (type == individual_address && !cpu.canonical(linear)) return general_protection(0);
    const u32 world = cpu.mmu.key().world;
    switch (type) {
    case individual_address: cpu.mmu.drop_page(Linear{linear}); break;
    case single_context: cpu.mmu.flush_pcid(world, static_cast<u16>(pcid)); break;
    default: cpu.mmu.flush_world(world); break;
    }
    cpu.context_changed(false);
    return {};
}

} // namespace exeunt
