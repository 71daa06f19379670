// All that is architectural in one logical processor, as plain data with one visitor.
#pragma once

#include "arch/registers.hpp"
#include "arch/segment.hpp"
#include "base/clock.hpp"
#include "base/snapshot.hpp"

namespace exeunt {

/// x87 data registers hold the 80-bit format: 64-bit significand, then sign and exponent.
struct X87Register {
    u64 significand = 0;
    u16 sign_exponent = 0;
};

/// The x87 FPU (SDM 1 ch. 8). `st` is indexed by physical register number, not by stack position; MMn is the
/// significand of physical register n.
struct X87State {
    X87Register st[8];
    u16 control = 0x037F;
    u16 status = 0;       ///< with TOP in bits 13:11
    u8 empty = 0xFF;      ///< bit n: physical register n is empty (the abridged tag word of FXSAVE, inverted)
    u16 opcode = 0;
    u64 instruction_pointer = 0, data_pointer = 0;
    u16 instruction_selector = 0, data_selector = 0;

    unsigned top() const { return (status >> 11) & 7; }
    void set_top(unsigned top) { status = static_cast<u16>((status & ~0x3800) | ((top & 7) << 11)); }
};

/// A vector register: 256 bits as four quadwords, the least significant first.
struct alignas(32) VectorRegister {
    u64 q[4] = {};
};

/// What a processor that executes nothing waits for. The numbers are those of SDM 3C 24.4.2.
/// UMWAIT waits like MWAIT, and TPAUSE for its deadline alone.
enum class Activity : u8 { active = 0, hlt = 1, shutdown = 2, wait_for_sipi = 3, mwait = 4, tpause = 5 };

/// Interrupts held back for one instruction, numbered as SDM 3C Table 24-3's bits 0 and 1.
enum class Shadow : u8 { none = 0, sti = 1, mov_ss = 2 };

/// RFLAGS in the form in which instructions produce and consume it. ZF is `zf_value` == 0, SF is bit 63 of
/// `sp_value`, PF the parity of its low byte; the other arithmetic flags are bytes. `rest` has all other bits.
struct Flags {
    u64 zf_value = 1;
    u64 sp_value = 0;
    u8 cf = 0, of = 0;  ///< 0 or 1
    u8 af = 0;          ///< bit 4 is AF; other bits are arbitrary
    u64 rest = RFLAGS::FIXED1;

    bool zf() const { return zf_value == 0; }
    bool sf() const { return sp_value >> 63; }
    bool pf() const { return !(__builtin_popcountll(sp_value & 0xFF) & 1); }
    u64 arithmetic() const {
        return u64{cf} | (pf() ? RFLAGS::PF : 0) | (af & RFLAGS::AF) | (zf() ? RFLAGS::ZF : 0) |
               (sf() ? RFLAGS::SF : 0) | (of ? RFLAGS::OF : 0);
    }
    u64 value() const { return rest | arithmetic(); }
    void set_arithmetic(u64 rflags) {
        cf = rflags & RFLAGS::CF ? 1 : 0;
        of = rflags & RFLAGS::OF ? 1 : 0;
        af = static_cast<u8>(rflags & RFLAGS::AF);
        zf_value = rflags & RFLAGS::ZF ? 0 : 1;
        sp_value = (rflags & RFLAGS::SF ? bit(63) : 0) | (rflags & RFLAGS::PF ? 0 : 1);
    }
};

struct CpuState {
    /// General registers 0 to 15, then a zero, then RIP (see Cpu::rip()).
    u64 r[18] = {};
    Flags flags;
    ControlRegisters control;
    Segment segment[8];  ///< by Seg
    TableRegister gdtr, idtr;
    u64 dr[4] = {};
    u64 dr6 = DR6::fixed1, dr7 = DR7::fixed1;
    u8 cpl = 0;
    Activity activity = Activity::active;
    Shadow shadow = Shadow::none;
    bool nmi_blocked = false;
    bool smi_blocked = false;
    bool in_smm = false;
    bool nmi_pending = false, smi_pending = false, init_pending = false, sipi_pending = false;
    u8 sipi_vector = 0;
    u64 pending_debug = 0;  ///< DR6 bits of trap-like debug exceptions to be delivered at the next boundary

    X87State x87;
    VectorRegister vector[16];
    u32 mxcsr = 0x1F80;

    // MSRs with behaviour in the core; the rest are in Msrs.
    u64 tsc_offset = 0;  ///< IA32_TIME_STAMP_COUNTER = now + tsc_offset
    u64 tsc_adjust = 0, tsc_aux = 0;
    u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
    u64 star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;
    u64 debugctl = 0;
    u64 pat = 0x0007'0406'0007'0406;
    u64 xss = 0;
    u64 misc_enable = 0;
    bool monitor_armed = false;
    bool mwait_break_on_interrupt = false;  ///< MWAIT with ECX[0]: an interrupt ends it even while IF = 0
    Tick wait_until = never;     ///< when UMWAIT and TPAUSE end by themselves
    bool wait_is_limited = false;  ///< IA32_UMWAIT_CONTROL made that earlier: CF = 1 then
    u64 monitor_address = 0;  ///< physical address of the armed line
    u64 monitor_line[8] = {};  ///< its contents when it was armed: MWAIT ends when they differ

    void visit(StateVisitor& visitor);
};

}  // namespace exeunt
