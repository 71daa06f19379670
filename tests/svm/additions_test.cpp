// What later processors added to SVM: LBR, NMI and SPEC_CTRL virtualization, guest mode execute trap,
// read-only guest page tables, INVLPGB and TLBSYNC, idle HLT; and SKINIT, MCOMMIT, RDPRU, write traps,
// redirected INIT.
#include "tests/support/svm_harness.hpp"

#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;
namespace INT = VMCB::INT;
constexpr u64 valid = bit(31);
const Stop ud = undefined_opcode(), gp = general_protection(0);

} // namespace

// ---- Last-branch records ----

TEST_CASE("LBR: DebugCtl.LBR records the last branch, and an event keeps the one before [APM 2 13.1.1]") {
    T t;
    t.cpu.debugctl = DEBUGCTL::LBR;
    t.run(code("eb 01 90 cd 50", "jmp 0x0000000000010003; nop; int 0x50"), 10);
    const Msrs& msrs = *t.cpu.msrs;
    CHECK(msrs.stored(Msr::LASTEXCPFROM) == T::code_address);
    CHECK(msrs.stored(Msr::LASTEXCPTO) == T::code_address + 3);
    CHECK(msrs.stored(Msr::BR_FROM) == T::code_address + 3);
    CHECK(msrs.stored(Msr::BR_TO) == T::handler_address + 16 * 0x50);
    T off;
    off.run(code("eb 01 90 f4", "jmp 0x0000000000010003; nop; hlt"), 10);
    CHECK(off.cpu.msrs->stored(Msr::BR_FROM) == 0);
}

TEST_CASE("LBR: REP and branches that are not taken leave no record; #DB ends recording [APM 2 13.1.1]") {
    T t;
    t.cpu.debugctl = DEBUGCTL::LBR;
    t.cpu.r[RCX] = 3, t.cpu.r[RSI] = t.cpu.r[RDI] = T::data_address;
    t.run(code("f3 a4 75 01 90 f4", "rep movsb; jnz 0x0000000000010005; nop; hlt"), 20);
    CHECK(t.cpu.msrs->stored(Msr::BR_FROM) == (t.cpu.flags.zf() ? 0 : T::code_address + 2));
    T db;
    db.cpu.debugctl = DEBUGCTL::LBR;
    db.cpu.pending_debug = DR6::BS;
    db.run(code("90", "nop"), 10);
    CHECK((db.cpu.debugctl & DEBUGCTL::LBR) == 0);
    CHECK(db.cpu.msrs->stored(Msr::BR_FROM) == 0);
}

TEST_CASE(
    "LBR virtualization: VMRUN and #VMEXIT exchange the records, without it they stay [APM 2 15.23.1]") {
    for (const bool on : {true, false}) {
        T t;
        if (on) t.set(VMCB::virtualization_control, VMCB::LBR_VIRTUALIZATION);
        t.set(VMCB::dbgctl, DEBUGCTL::LBR);
        t.set(VMCB::br_from, 0x11);
        t.set(VMCB::lastexcpto, 0x22);
        t.cpu.msrs->store(Msr::BR_FROM, 0x33);
        t.guest(code("eb 01 90 f4", "jmp 0x0000000000010003; nop; hlt"));
        LEFT(t, ExitCode::HLT);
        CHECK(t.get(VMCB::br_from) == (on ? T::code_address : 0x11));
        CHECK(t.get(VMCB::br_to) == (on ? T::code_address + 3 : 0));
        CHECK(t.get(VMCB::lastexcpto) == 0x22);
        CHECK(t.get(VMCB::dbgctl) == DEBUGCTL::LBR);
        CHECK(t.cpu.msrs->stored(Msr::BR_FROM) == 0x33);
        CHECK(t.cpu.debugctl == 0);
    }
}

// ---- NMI virtualization ----

TEST_CASE(
    "Virtual NMI: taken once and masked until IRET; GIF, mask and shadow hold it back [APM 2 15.21.10]") {
    struct Case {
        u64 control;
        bool shadow, taken;
    };
    constexpr u64 on = INT::V_NMI_ENABLE | INT::V_NMI;
    const Case cases[] = {{on, false, true},
                          {INT::V_NMI, false, false},
                          {on | INT::V_NMI_MASK, false, false},
                          {on | INT::V_GIF_ENABLE, false, false},
                          {on | INT::V_GIF_ENABLE | INT::V_GIF, false, true},
                          {on, true, true}}; // after one instruction
    for (const Case& c : cases) {
        CAPTURE(c.control);
        T t;
        t.intercept(ExitCode::NMI);
        t.set(VMCB::interrupt_control, c.control);
        t.set(VMCB::interrupt_shadow, c.shadow);
        t.guest(code("90 f4", "nop; hlt"));
        LEFT(t, ExitCode::HLT);
        const u64 now = t.get(VMCB::interrupt_control);
        CHECK(t.guest_rip() == (c.taken ? T::handler_address + 16 * 2 : T::code_address + 1));
        CHECK(((now & INT::V_NMI) == 0) == c.taken);
        CHECK(((now & INT::V_NMI_MASK) != 0) == (c.taken || (c.control & INT::V_NMI_MASK)));
        if (c.taken) CHECK(t.read(t.get(VMCB::rsp)) == T::code_address + (c.shadow ? 1 : 0));
    }
}

TEST_CASE("Virtual NMI: IRET ends the mask, and the next one comes [APM 2 15.21.10]") {
    T t;
    t.intercept(ExitCode::NMI);
    t.set(VMCB::interrupt_control, INT::V_NMI_ENABLE | INT::V_NMI | INT::V_NMI_MASK);
    const u64 frame = T::stack_top - 40;
    t.write(frame, T::code_address + 2);
    t.write(frame + 8, T::code64_0);
    t.write(frame + 16, RFLAGS::FIXED1);
    t.write(frame + 24, T::stack_top);
    t.write(frame + 32, T::data_0);
    t.set(VMCB::rsp, frame);
    t.guest(code("48 cf f4", "iretq; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK(t.guest_rip() == T::handler_address + 16 * 2);
    CHECK(t.read(t.get(VMCB::rsp)) == T::code_address + 2);
}

TEST_CASE("Virtual NMI: injected it masks; interrupted in its delivery it does not [APM 2 15.21.10]") {
    T t;
    t.intercept(ExitCode::NMI);
    t.set(VMCB::interrupt_control, INT::V_NMI_ENABLE);
    t.set(VMCB::eventinj, valid | 2 << 8);
    t.run_guest();
    LEFT(t, ExitCode::HLT);
    CHECK((t.get(VMCB::interrupt_control) & INT::V_NMI_MASK) != 0);

    T interrupted;
    interrupted.intercept(ExitCode::NMI);
    interrupted.use_npt();
    interrupted.set(VMCB::interrupt_control, INT::V_NMI_ENABLE | INT::V_NMI);
    interrupted.write(interrupted.npt_entry_address(T::idt_address), 0);
    interrupted.run_guest();
    LEFT(interrupted, ExitCode::NPF);
    CHECK((interrupted.get(VMCB::interrupt_control) & INT::V_NMI_MASK) == 0);
    CHECK(interrupted.get(VMCB::exitintinfo) == (valid | 2 << 8 | 2));
}

TEST_CASE("NMIs of the processor exit in a guest with virtual NMIs, before those [APM 2 15.21.10]") {
    T t;
    t.intercept(ExitCode::NMI);
    t.set(VMCB::interrupt_control, INT::V_NMI_ENABLE | INT::V_NMI);
    t.svm.set_gif(false);
    t.cpu.nmi_pending = true;
    t.guest(code("f4", "hlt"));
    LEFT(t, ExitCode::NMI);
    CHECK((t.get(VMCB::interrupt_control) & INT::V_NMI) != 0);
}

// ---- SPEC_CTRL, nested paging options ----

TEST_CASE("SPEC_CTRL: a guest has its own, kept in the VMCB [APM 2 15.37]") {
    T t;
    t.cpu.msrs->store(Msr::SPEC_CTRL, 1);
    t.set(VMCB::spec_ctrl, 2);
    t.cpu.r[RCX] = Msr::SPEC_CTRL;
    t.guest(code("0f 32 89 c3 b8 03 00 00 00 0f 30 f4", "rdmsr; mov ebx, eax; mov eax, 0x03; wrmsr; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK(t.cpu.r[RBX] == 2);
    CHECK(t.get(VMCB::spec_ctrl) == 3);
    CHECK(t.cpu.msrs->stored(Msr::SPEC_CTRL) == 1);
}

TEST_CASE("Guest mode execute trap: supervisors fetch only from supervisor pages [APM 2 15.25.14]") {
    T t;
    t.use_npt();
    t.set(VMCB::nested_control, VMCB::NP_ENABLE | VMCB::GMET);
    t.guest(code("f4", "hlt"));
    LEFT(t, ExitCode::NPF); // every page is a user's
    CHECK(t.info1() == (NPF::final_address | PFEC::I | PFEC::P));
    T allowed;
    allowed.use_npt();
    allowed.set(VMCB::nested_control, VMCB::NP_ENABLE | VMCB::GMET);
    allowed.write(allowed.npt_entry_address(T::code_address), T::code_address | 3); // a supervisor's
    allowed.guest(code("f4", "hlt"));
    LEFT(allowed, ExitCode::HLT);
}

TEST_CASE("Read-only guest page tables: reading them is no write [APM 2 15.25.15]") {
    for (const bool on : {false, true}) {
        T t;
        t.use_npt();
        if (on) t.set(VMCB::nested_control, VMCB::NP_ENABLE | VMCB::ROGPT);
        const u64 cr3 = t.get(VMCB::cr3);
        t.write(t.npt_entry_address(cr3), cr3 | 5);
        t.write(cr3, t.read(cr3) | bit(5)); // accessed: nothing is to be written
        t.guest(code("f4", "hlt"));
        LEFT(t, on ? ExitCode::HLT : ExitCode::NPF);
        if (!on) CHECK(t.info1() == (NPF::guest_tables | PFEC::U | PFEC::W | PFEC::P));
    }
}

// ---- INVLPGB, TLBSYNC ----

TEST_CASE("INVLPGB: what it refuses [APM 3 INVLPGB]") {
    struct Case {
        u64 rax, ecx, edx;
        bool refused;
    };
    const Case cases[] = {{0, 0, 0, false},       {bit(6), 0, 0, true},  {bit(5), 0, 0, true},
                          {1, 7, 0, false},       {1, 8, 0, true},       {1, bit(16), 0, true},
                          {1, bit(31), 0, false}, {0, 0, bit(28), true}, {2, 0, 1 << 16, true},
                          {4, 0, 0x7FFF, false},  {4, 0, 0x8000, true}};
    for (const Case& c : cases) {
        CAPTURE(c.rax);
        T t;
        t.cpu.r[RAX] = c.rax, t.cpu.r[RCX] = c.ecx, t.cpu.r[RDX] = c.edx;
        CHECK((t.step(code("0f 01 fe", "invlpgb rax, edx, ecx")) == gp) == c.refused);
        T user;
        user.enter_ring3();
        CHECK(user.step(code("0f 01 fe", "invlpgb rax, edx, ecx")) == gp);
    }
}

TEST_CASE("INVLPGB: translations go on every processor [APM 3 INVLPGB]") {
    for (const u64 rax : {u64{0}, u64{1}, u64{5}, u64{4}}) {
        CAPTURE(rax);
        T t;
        Cpu other(1, t.model, t.memory, t.bus, 0);
        Svm other_svm(other, &t.interconnect);
        static_cast<CpuState&>(other) = t.cpu;
        other.context_changed(true);
        other.mode_changed();
        constexpr u64 page = T::data_address, entry = T::tables_address + 0x2000;
        t.write(page, 0x1111);
        CHECK(other.load_linear(page, 8).value() == 0x1111);
        // Large pages map the harness's memory: the first 2 MBytes move.
        const u64 old = t.read(entry);
        t.write(entry, old + 0x20'0000);
        t.write(page + 0x20'0000, 0x2222);
        CHECK(other.load_linear(page, 8).value() == 0x1111); // cached
        t.cpu.r[RAX] = rax | (rax & 1 ? page : 0), t.cpu.r[RCX] = 0, t.cpu.r[RDX] = 0;
        t.cpu.mmu.flush_all();
        t.write(entry, old);
        REQUIRE(t.step(code("0f 01 fe", "invlpgb rax, edx, ecx")).kind == Stop::Kind::none);
        t.write(entry, old + 0x20'0000);
        CHECK(other.load_linear(page, 8).value() == 0x2222);
    }
}

TEST_CASE(
    "INVLPGB and TLBSYNC in a guest: #UD unless the VMCB allows them; intercepts; what is not its own [APM 2 "
    "15.14.7]") {
    struct Case {
        const char* bytes;
        const char* text;
        u64 nested_control, intercept, rax, edx, exit;
    };
    constexpr u64 on = VMCB::INVLPGB_ENABLE, ud_exit = ExitCode::EXCP0 + 6, gp_exit = ExitCode::EXCP0 + 13;
    const char* const invlpgb = "0f 01 fe";
    const char* const text = "invlpgb rax, edx, ecx";
    const Case cases[] = {{invlpgb, text, 0, ExitCode::INVLPGB, 0, 0, ud_exit},
                          {invlpgb, text, on, ExitCode::INVLPGB, 0, 0, ExitCode::INVLPGB},
                          {invlpgb, text, on, ExitCode::INVLPGB, bit(6), 0, ExitCode::INVLPGB},
                          {invlpgb, text, on, ExitCode::INVLPGB_ILLEGAL, 0, 0, ExitCode::HLT},
                          {invlpgb, text, on, ExitCode::INVLPGB_ILLEGAL, 4, 2, ExitCode::INVLPGB_ILLEGAL},
                          {invlpgb, text, on, gp_exit, 4, 2, gp_exit},
                          {"0f 01 ff", "tlbsync", 0, ExitCode::TLBSYNC, 0, 0, ud_exit},
                          {"0f 01 ff", "tlbsync", on, ExitCode::TLBSYNC, 0, 0, ExitCode::TLBSYNC},
                          {"0f 01 ff", "tlbsync", on, ud_exit, 0, 0, ExitCode::HLT}};
    for (const Case& c : cases) {
        CAPTURE(c.exit);
        T t;
        t.set(VMCB::nested_control, c.nested_control);
        t.intercept(c.intercept);
        t.intercept(ud_exit);
        t.set(VMCB::rax, c.rax);
        t.cpu.r[RDX] = c.edx, t.cpu.r[RCX] = 0;
        t.guest(code(std::string(c.bytes) + " f4", std::string(c.text) + "; hlt"));
        LEFT(t, c.exit);
    }
}

// ---- Instructions of the core with SVM intercepts ----

TEST_CASE("MCOMMIT: #UD without EFER.MCOMMIT, else CF = 1 [APM 3 MCOMMIT]") {
    T t;
    CHECK(t.step(code("f3 0f 01 fa", "mcommit")) == ud);
    t.cpu.control.efer |= EFER::MCOMMIT;
    t.cpu.set_rflags(RFLAGS::FIXED1 | RFLAGS::ZF);
    CHECK(t.step(code("f3 0f 01 fa", "mcommit")).kind == Stop::Kind::none);
    CHECK((t.cpu.rflags() & RFLAGS::arithmetic) == RFLAGS::CF);
    T guest;
    guest.intercept(ExitCode::MCOMMIT);
    guest.set(VMCB::efer, guest.get(VMCB::efer) | EFER::MCOMMIT);
    guest.guest(code("f3 0f 01 fa", "mcommit"));
    LEFT(guest, ExitCode::MCOMMIT);
}

TEST_CASE("RDPRU: MPERF and APERF; CR4.TSD makes it #UD outside CPL 0 [APM 3 RDPRU]") {
    T t;
    for (const u64 number : {0, 1, 2}) {
        t.cpu.r[RCX] = number;
        t.cpu.r[RAX] = t.cpu.r[RDX] = ~u64{0};
        CHECK(t.step(code("0f 01 fd", "rdpru")).kind == Stop::Kind::none);
        CHECK(t.cpu.r[RDX] == 0);
        CHECK((t.cpu.r[RAX] == 0) == (number == 2));
    }
    T user;
    user.cpu.control.cr4 |= CR4::TSD;
    user.enter_ring3();
    CHECK(user.step(code("0f 01 fd", "rdpru")) == ud);
    T guest;
    guest.intercept(ExitCode::RDPRU);
    guest.guest(code("0f 01 fd", "rdpru"));
    LEFT(guest, ExitCode::RDPRU);
}

TEST_CASE("XSETBV: the intercept comes before the #GP for CPL > 0 [APM 2 Table 15-7]") {
    T t;
    t.intercept(ExitCode::XSETBV);
    t.set(VMCB::cr4, t.get(VMCB::cr4) | CR4::OSXSAVE);
    t.set(VMCB::cpl, 3);
    t.set(VMCB::cs_selector, T::code64_3);
    t.set(VMCB::ss_selector, T::data_3);
    t.guest(code("0f 01 d1", "xsetbv"));
    LEFT(t, ExitCode::XSETBV);
}

TEST_CASE("FERR freeze: an x87 exception waits for the interrupt that FERR# asks for [APM 2 15.14.2]") {
    T t;
    t.intercept(ExitCode::FERR_FREEZE);
    t.set(VMCB::cr0, t.get(VMCB::cr0) & ~CR0::NE);
    t.cpu.x87.control = 0x0340; // #IA not masked
    t.cpu.x87.status = 0x8081;
    t.guest(code("9b", "fwait"));
    LEFT(t, ExitCode::FERR_FREEZE);
    CHECK(t.guest_rip() == T::code_address);
}

TEST_CASE("SMI: intercepted it exits and stays pending [APM 2 15.13.3]") {
    T t;
    t.intercept(ExitCode::SMI);
    t.svm.set_gif(false);
    t.cpu.smi_pending = true;
    t.guest(code("f4", "hlt"));
    LEFT(t, ExitCode::SMI);
    CHECK(t.info1() == 1);
    CHECK(t.cpu.smi_pending);
}

TEST_CASE("Write traps: after MOV to CR and WRMSR of EFER, and not when those fault [APM 2 15.9]") {
    T cr4;
    cr4.intercept(ExitCode::CR0_WRITE_TRAP + 4);
    cr4.cpu.r[RCX] = cr4.get(VMCB::cr4) | CR4::TSD;
    cr4.guest(code("0f 22 e1 f4", "mov cr4, rcx; hlt"));
    LEFT(cr4, ExitCode::CR0_WRITE_TRAP + 4);
    CHECK(cr4.guest_rip() == T::code_address + 3);
    CHECK((cr4.get(VMCB::cr4) & CR4::TSD) != 0);

    T efer;
    efer.intercept(ExitCode::EFER_WRITE_TRAP);
    efer.cpu.r[RCX] = Msr::IA32_EFER;
    efer.cpu.r[RDX] = 0;
    efer.set(VMCB::rax, efer.get(VMCB::efer) ^ EFER::SCE);
    efer.guest(code("0f 30 f4", "wrmsr; hlt"));
    LEFT(efer, ExitCode::EFER_WRITE_TRAP);
    CHECK(efer.guest_rip() == T::code_address + 2);

    T fault;
    fault.intercept(ExitCode::EFER_WRITE_TRAP);
    fault.cpu.r[RCX] = Msr::IA32_EFER;
    fault.cpu.r[RDX] = 1;
    fault.guest(code("0f 30", "wrmsr"));
    LEFT(fault, ExitCode::HLT); // #GP's handler
    CHECK(fault.guest_rip() == T::handler_address + 16 * 13);
}

TEST_CASE(
    "Idle HLT: exits only when no virtual event waits; the HLT intercept goes before it [APM 2 15.14.6]") {
    struct Case {
        u64 control;
        bool exits;
    };
    constexpr u64 interrupt = INT::V_IRQ | u64{0x66} << 32 | 0xF0000;
    const Case cases[] = {{0, true},
                          {interrupt, false}, // IF is 0: it waits for it for ever, and does not exit
                          {interrupt | 0xF, true},
                          {INT::V_NMI_ENABLE | INT::V_NMI | INT::V_NMI_MASK, true}};
    for (const Case& c : cases) {
        T t;
        t.intercept(ExitCode::HLT, false);
        t.intercept(ExitCode::NMI);
        t.intercept(ExitCode::IDLE_HLT);
        t.set(VMCB::interrupt_control, c.control);
        t.guest(code("f4", "hlt"), 100);
        if (c.exits) {
            LEFT(t, ExitCode::IDLE_HLT);
            CHECK(t.get(VMCB::nrip) == T::code_address + 1);
        } else {
            CHECK(t.cpu.in_guest);
        }
    }
    T both;
    both.intercept(ExitCode::IDLE_HLT);
    both.guest(code("f4", "hlt"));
    LEFT(both, ExitCode::HLT);
}

// ---- Bus lock threshold ----

TEST_CASE("Bus lock threshold: locked accesses that cross a line count down, then exit [APM 2 15.14.5]") {
    struct Case {
        const char* bytes;
        const char* text;
        u64 offset; ///< in a line of 64 bytes
        bool locks;
    };
    const Case cases[] = {{"f0 ff 03", "lock inc [rbx]", 62, true},
                          {"f0 ff 03", "lock inc [rbx]", 60, false},
                          {"ff 03", "inc [rbx]", 62, false},
                          {"48 87 03", "xchg [rbx], rax", 60, true}, // locked without the prefix
                          {"f0 48 0f b1 13", "lock cmpxchg [rbx], rdx", 57, true},
                          {"f0 0f ab 0b", "lock bts [rbx], ecx", 61, true},
                          {"f0 0f c1 13", "lock xadd [rbx], edx", 63, true}};
    for (const Case& c : cases)
        for (const u64 counter : {0, 1}) {
            CAPTURE(c.text);
            T t;
            t.intercept(ExitCode::BUSLOCK);
            t.set(VMCB::bus_lock_counter, counter);
            t.cpu.r[RBX] = T::data_address + c.offset;
            t.cpu.r[RCX] = t.cpu.r[RDX] = 0;
            t.guest(code(std::string(c.bytes) + " f4", std::string(c.text) + "; hlt"));
            const bool exits = c.locks && counter == 0;
            LEFT(t, exits ? ExitCode::BUSLOCK : ExitCode::HLT);
            if (exits) CHECK(t.guest_rip() == T::code_address);
            CHECK(t.get(VMCB::bus_lock_counter) == (c.locks ? 0 : counter));
        }
    T off;
    off.set(VMCB::bus_lock_counter, 5);
    off.cpu.r[RBX] = T::data_address + 62;
    off.guest(code("f0 ff 03 f4", "lock inc [rbx]; hlt"));
    LEFT(off, ExitCode::HLT);
    CHECK(off.get(VMCB::bus_lock_counter) == 5);
}

// ---- TSC_RATIO and IGNNE ----

TEST_CASE(
    "TSC_RATIO: integer and fraction scale a guest's counter and not the host's; bits 63:40 are MBZ [APM 2 "
    "15.30.5]") {
    T t;
    Msrs& msrs = *t.cpu.msrs;
    CHECK(msrs.stored(Msr::TSC_RATIO) == bit(32)); // 1.0
    CHECK(msrs.write(t.cpu, Msr::TSC_RATIO, bit(40)).stop() == gp);
    REQUIRE(msrs.write(t.cpu, Msr::TSC_RATIO, bit(33) | bit(31)).ok()); // 2.5
    t.cpu.tsc_offset = 0x1'0000'0000;
    t.set(VMCB::tsc_offset, 0x1000);
    t.guest(code("0f 31 f4", "rdtsc; hlt"));
    LEFT(t, ExitCode::HLT);
    const u64 seen = t.cpu.r[RDX] << 32 | (t.get(VMCB::rax) & 0xFFFF'FFFF), host = t.cpu.tsc();
    CHECK(seen >= 0x2'8000'0000 + 0x1000);
    CHECK(seen <= host * 5 / 2 + 0x1000);
    CHECK(host < 0x1'0000'1000);
}

TEST_CASE("IGNNE: one bit [APM 2 15.30.2]") {
    T t;
    CHECK(t.cpu.msrs->write(t.cpu, Msr::IGNNE, 1).ok());
    CHECK(t.cpu.msrs->read(t.cpu, Msr::IGNNE).value() == 1);
    CHECK(t.cpu.msrs->write(t.cpu, Msr::IGNNE, 2).stop() == gp);
}

// ---- INIT and SKINIT ----

TEST_CASE("VM_CR.R_INIT: an INIT becomes #SX with error code 1 [APM 2 15.21.8, 15.30.1]") {
    T t;
    t.cpu.msrs->store(Msr::VM_CR, VM_CR::R_INIT);
    t.cpu.init_pending = true;
    t.run(code("90", "nop"), 10);
    CHECK(t.vector_reached() == 30);
    CHECK(t.read(t.cpu.r[RSP]) == 1);
    CHECK(!t.cpu.init_pending);
}

TEST_CASE("SKINIT: the loader's state, VM_CR and GIF, without a TPM [APM 2 15.27]") {
    T t;
    constexpr u64 loader = 0x40'0000;
    t.write(loader, 0x1000'0200); // entry point, length
    t.cpu.msrs->store(Msr::VM_CR, VM_CR::LOCK);
    t.cpu.r[RAX] = loader + 0x1234, t.cpu.r[RBX] = 7;
    t.step(code("0f 01 de", "skinit eax"));
    CHECK(t.cpu.rip == loader + 0x200);
    CHECK(t.cpu.r[RAX] == loader);
    CHECK(t.cpu.r[RSP] == loader + 0x1'0000);
    CHECK(t.cpu.r[RBX] == 0);
    CHECK(t.cpu.control.efer == 0);
    CHECK((t.cpu.control.cr0 & (CR0::PE | CR0::PG)) == CR0::PE);
    CHECK(t.cpu.seg(Seg::CS).selector == 8);
    CHECK(t.cpu.seg(Seg::CS).limit == 0xFFFF'FFFF);
    CHECK(t.cpu.seg(Seg::CS).big());
    CHECK(t.cpu.seg(Seg::SS).selector == 0x10);
    CHECK(t.cpu.seg(Seg::DS).limit == 0xFFFF);
    CHECK(!t.svm.gif());
    constexpr u64 set = VM_CR::DPD | VM_CR::R_INIT | VM_CR::DIS_A20M;
    CHECK(t.cpu.msrs->stored(Msr::VM_CR) == (set | VM_CR::LOCK));
    t.memory.write_bytes(Physical{t.cpu.rip}, "\x0F\x01\xDC", 3); // STGI, without EFER.SVME
    CHECK(t.cpu.step().kind == Stop::Kind::none);
    CHECK(t.svm.gif());

    T intercepted;
    intercepted.intercept(ExitCode::SKINIT);
    intercepted.guest(code("0f 01 de", "skinit eax"));
    LEFT(intercepted, ExitCode::SKINIT);
    T user;
    user.enter_ring3();
    CHECK(user.step(code("0f 01 de", "skinit eax")) == gp);
}
