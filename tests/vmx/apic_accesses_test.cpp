// Memory-mapped APIC accesses of a guest: the APIC-access page. SDM 3C 29.4, 27.2.1 Table 27-6.
#include "cpu/msrs.hpp"
#include "tests/vmx/virtual_apic_harness.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace exeunt;
using namespace exeunt::test;
using Reg = VirtualApic::Register;

namespace {

using F = VmcsField;
using A = VirtualApicHarness;

const Code load = code("8b 03 0f a2", "mov eax, [rbx]; cpuid"),
           store = code("89 03 0f a2", "mov [rbx], eax; cpuid");

/// Under which of the controls accesses to a register are virtualized: with none of the three, only IPI
/// virtualization, virtual-interrupt delivery, APIC-register virtualization.
struct Register {
    unsigned first, last;
    const char* read; ///< of "-idr": '-' is none
    const char* write;
    ExitReason after =
        ExitReason::apic_write; ///< of a write with APIC-register virtualization; cpuid: no exit
};
constexpr ExitReason goes_on = ExitReason::cpuid;
constexpr Register registers[] = {
    {0x020, 0x020, "r", "r"},                // ID
    {0x030, 0x030, "r", ""},                 // version
    {0x080, 0x080, "-idr", "-idr", goes_on}, // TPR
    {0x0B0, 0x0B0, "dr", "dr"},              // EOI
    {0x0D0, 0x0D0, "r", "r"},                // LDR
    {0x0E0, 0x0E0, "r", "r"},                // DFR
    {0x0F0, 0x0F0, "r", "r"},                // SVR
    {0x100, 0x170, "r", ""},                 // ISR
    {0x180, 0x1F0, "r", ""},                 // TMR
    {0x200, 0x270, "r", ""},                 // IRR
    {0x280, 0x280, "r", "r"},                // ESR
    {0x300, 0x300, "dr", "idr"},             // ICR, low
    {0x310, 0x310, "r", "r", goes_on},       // ICR, high
    {0x320, 0x370, "r", "r"},                // LVT
    {0x380, 0x380, "r", "r"},                // initial count
    {0x3E0, 0x3E0, "r", "r"},                // divide configuration
};

bool has(std::string_view under, char control) { return under.find(control) != under.npos; }

const Register* find(unsigned offset) {
    for (const Register& r : registers)
        if (offset >= r.first && offset <= r.last) return &r;
    return nullptr;
}

/// One access of four bytes at the page's `offset`; what came of it.
u32 access(A& t, const Code& what, unsigned offset, u64 value = 0) {
    t.cpu.r[RBX] = A::apic_access + offset;
    t.cpu.r[RAX] = value;
    t.guest_again(what);
    REQUIRE(t.in_host());
    return t.reason();
}
bool exits_for_access(A& t, u64 qualification) {
    return t.reason() == static_cast<u32>(ExitReason::apic_access) && t.qualification() == qualification &&
           t.guest_rip() == Harness::code_address;
}

struct Controls {
    char name;
    void (*turn_on)(A&);
};
const Controls all_controls[] = {
    {'-', [](A&) {}},
    {'i', [](A& t) { t.virtualize_ipis(); }},
    {'d', [](A& t) { t.deliver_virtual_interrupts(); }},
    {'r', [](A& t) { t.on(secondary::apic_register_virtualization); }},
};

} // namespace

TEST_CASE("APIC-access page: which reads of which register are virtualized [SDM 3C 29.4.2]") {
    for (const Controls& controls : all_controls) {
        CAPTURE(controls.name);
        A t;
        t.virtualize_accesses();
        controls.turn_on(t);
        for (unsigned offset = 0; offset < 0x1000; offset += 16) t.set_reg(offset, 0xA000'0000 + offset);
        for (unsigned offset = 0; offset < 0x1000; offset += 16) {
            CAPTURE(offset);
            access(t, load, offset);
            const Register* row = find(offset);
            if (row && has(row->read, controls.name)) {
                CHECK(t.reason() == static_cast<u32>(ExitReason::cpuid));
                // VM entry made VPPR, but nobody reads that.
                CHECK(low32(t.cpu.r[RAX]) == 0xA000'0000 + offset);
            } else {
                CHECK(exits_for_access(t, offset | 0 << 12));
            }
        }
    }
}

TEST_CASE("APIC-access page: which writes of which register are virtualized [SDM 3C 29.4.3.1]") {
    for (const Controls& controls : all_controls) {
        CAPTURE(controls.name);
        A t;
        t.virtualize_accesses();
        controls.turn_on(t);
        for (unsigned offset = 0; offset < 0x1000; offset += 16) {
            CAPTURE(offset);
            t.set_reg(offset, 0);
            access(t, store, offset, 0xFF00'0000);
            const Register* row = find(offset);
            if (row && has(row->write, controls.name)) {
                CHECK(t.reason() != static_cast<u32>(ExitReason::apic_access));
                const bool cleared = offset == Reg::TPR || (offset == Reg::EOI && controls.name == 'd');
                CHECK(t.reg(offset) == (cleared ? 0 : 0xFF00'0000));
            } else {
                CHECK(exits_for_access(t, offset | 1 << 12));
                if (offset != Reg::PPR) CHECK(t.reg(offset) == 0);
            }
            CHECK(t.read(A::apic_access + offset, 4) == 0); // the page itself is never written
        }
    }
}

TEST_CASE("APIC-write emulation: what follows a write, register by register [SDM 3C 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.on(secondary::apic_register_virtualization);
    for (const Register& row : registers)
        for (unsigned offset = row.first; offset <= row.last && *row.write; offset += 16) {
            CAPTURE(offset);
            access(t, store, offset, 0x1234'5678);
            CHECK(t.reason() == static_cast<u32>(row.after));
            if (row.after != ExitReason::apic_write) continue;
            CHECK(t.qualification() == offset);
            CHECK(t.guest_rip() == Harness::code_address + 2); // trap-like
            CHECK(t.length() == 0);
            CHECK((t.get(F::guest_rflags) & RFLAGS::RF) == 0);
            CHECK(t.reg(offset) == 0x1234'5678);
        }
    CHECK(t.reg(Reg::TPR) == 0x78);             // bytes 3:1 become 0
    CHECK(t.reg(Reg::ICR_HIGH) == 0x1200'0000); // bytes 2:0 become 0
}

TEST_CASE("APIC-access page: nothing is virtualized without a TPR shadow [SDM 3C 29.4.2, 29.4.3.1]") {
    A t;
    t.virtualize_accesses();
    t.off(primary::use_tpr_shadow);
    access(t, load, 0x80);
    CHECK(exits_for_access(t, 0x80));
    access(t, store, 0x80);
    CHECK(exits_for_access(t, 0x80 | 1 << 12));
}

TEST_CASE("APIC-access page: sizes and places within a register [SDM 3C 29.4.2, 29.4.3.1]") {
    A t;
    t.virtualize_accesses();
    t.set_reg(Reg::TPR, 0x4433'2211);
    const Code byte = code("8a 03 0f a2", "mov al, [rbx]; cpuid"),
               word = code("66 8b 03 0f a2", "mov ax, [rbx]; cpuid"),
               quadword = code("48 8b 03 0f a2", "mov rax, [rbx]; cpuid"),
               store_byte = code("88 03 0f a2", "mov [rbx], al; cpuid");
    SUBCASE("without APIC-register virtualization only at the register's own offset") {
        CHECK(access(t, byte, 0x80) == static_cast<u32>(ExitReason::cpuid));
        CHECK((t.cpu.r[RAX] & 0xFF) == 0x11);
        access(t, byte, 0x81);
        CHECK(exits_for_access(t, 0x81));
    }
    SUBCASE("with it anywhere in its four bytes") {
        t.on(secondary::apic_register_virtualization);
        CHECK(access(t, word, 0x82) == static_cast<u32>(ExitReason::cpuid));
        CHECK((t.cpu.r[RAX] & 0xFFFF) == 0x4433);
        access(t, word, 0x83);
        CHECK(exits_for_access(t, 0x83));
        access(t, load, 0x82);
        CHECK(exits_for_access(t, 0x82));
        access(t, byte, 0x84);
        CHECK(exits_for_access(t, 0x84));
        CHECK(access(t, store_byte, 0xF2, 0x5A) == static_cast<u32>(ExitReason::apic_write));
        CHECK(t.qualification() == 0xF2);
        CHECK(t.reg(Reg::SVR) == 0x005A'0000);
    }
    SUBCASE("never more than 32 bits") {
        t.on(secondary::apic_register_virtualization);
        access(t, quadword, 0x80);
        CHECK(exits_for_access(t, 0x80));
        access(t, code("0f 10 03 0f a2", "movups xmm0, [rbx]; cpuid"), 0x80);
        CHECK(exits_for_access(t, 0x80));
        access(t, code("48 89 03 0f a2", "mov [rbx], rax; cpuid"), 0x80);
        CHECK(exits_for_access(t, 0x80 | 1 << 12));
    }
}

TEST_CASE("APIC-access page: an access that crosses into it exits with the offset there [SDM 3C 29.4.1]") {
    A t;
    t.virtualize_accesses();
    t.cpu.r[RBX] = A::apic_access - 2;
    t.guest(load);
    CHECK(exits_for_access(t, 0));
    t.cpu.r[RBX] = A::apic_access + 0xFFE;
    t.guest_again(store);
    CHECK(exits_for_access(t, 0xFFE | 1 << 12));
    CHECK(t.read(A::apic_access + 0x1000, 2) == 0);
}

TEST_CASE("APIC-access page: read and write of one operation are both virtualized [SDM 3C 29.4.3.1]") {
    A t;
    t.virtualize_accesses();
    t.set_reg(Reg::TPR, 0x21);
    CHECK(access(t, code("0f c1 03 0f a2", "xadd [rbx], eax; cpuid"), 0x80, 0x10) ==
          static_cast<u32>(ExitReason::cpuid));
    CHECK(t.reg(Reg::TPR) == 0x31);
    CHECK(low32(t.cpu.r[RAX]) == 0x21);
    CHECK(access(t, code("87 03 0f a2", "xchg [rbx], eax; cpuid"), 0x80, 0x50) ==
          static_cast<u32>(ExitReason::cpuid));
    CHECK(t.reg(Reg::TPR) == 0x50);
}

TEST_CASE("APIC-access page: a second write of one operation exits, and the first is not emulated [SDM 3C "
          "29.4.3.1]") {
    A t;
    t.guest_mode(Mode::protected32);
    t.virtualize_accesses();
    t.set(F::tpr_threshold, 3);
    t.set_reg(Reg::TPR, 0x40);
    t.set(F::guest_rsp, A::apic_access + 0x84);
    t.cpu.r[RBP] = 0x10;
    SUBCASE("one write: PUSH") {
        t.guest(code("55 0f a2", "push ebp; cpuid"));
        EXITED(t, ExitReason::tpr_below_threshold);
        CHECK(t.guest_rip() == Harness::code_address + 1);
        CHECK(t.get(F::guest_rsp) == A::apic_access + 0x80);
    }
    SUBCASE("two: ENTER with a frame pointer") {
        t.guest(code("c8 00 00 01 0f a2", "enter 0x00, 0x01; cpuid"));
        EXITED(t, ExitReason::apic_access);
        CHECK(t.guest_rip() == Harness::code_address);
        CHECK(t.get(F::guest_rsp) == A::apic_access + 0x84);
        t.set(F::tpr_threshold, 0); // nothing is left of it at the next entry
        t.set(F::guest_rip, Harness::code_address + 4);
        t.run_guest();
        EXITED(t, ExitReason::cpuid);
    }
}

TEST_CASE("APIC-access page: each iteration of a string instruction is an operation [SDM 3C 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.on(secondary::apic_register_virtualization);
    t.cpu.r[RDI] = A::apic_access + 0xF0;
    t.cpu.r[RCX] = 3;
    t.guest(code("f3 ab", "rep stosd"));
    EXITED(t, ExitReason::apic_write);
    CHECK(t.qualification() == 0xF0);
    CHECK(t.cpu.r[RCX] == 2);
    CHECK(t.guest_rip() == Harness::code_address);
    t.run_guest();
    EXITED(t, ExitReason::apic_access); // 0F4H
    CHECK(t.qualification() == (0xF4 | 1 << 12));
    CHECK(t.cpu.r[RCX] == 2);
}

TEST_CASE("APIC-write emulation: TPR virtualization after the write [SDM 3C 29.1.2, 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.set(F::tpr_threshold, 4);
    t.set_reg(Reg::TPR, 0x40);
    CHECK(access(t, store, 0x80, 0x41) == static_cast<u32>(ExitReason::cpuid));
    CHECK(access(t, store, 0x80, 0x3F) == static_cast<u32>(ExitReason::tpr_below_threshold));
    CHECK(t.guest_rip() == Harness::code_address + 2);
    CHECK(t.reg(Reg::TPR) == 0x3F);
}

TEST_CASE("APIC-write emulation: EOI virtualization after a write to 0B0H [SDM 3C 29.1.4, 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.deliver_virtual_interrupts();
    t.serve(0x30);
    t.serve(0x51);
    t.set_status(0, 0x51);
    SUBCASE("without an exit") {
        CHECK(access(t, store, 0xB0, 0x1234) == static_cast<u32>(ExitReason::cpuid));
        CHECK(t.reg(Reg::EOI) == 0);
        CHECK(t.status() == 0x3000);
        CHECK(access(t, store, 0xB0) == static_cast<u32>(ExitReason::cpuid));
        CHECK(t.status() == 0);
        CHECK(t.reg(Reg::PPR) == 0);
    }
    SUBCASE("with one") {
        t.set(F::eoi_exit_bitmap_1, bit(0x11));
        CHECK(access(t, store, 0xB0) == static_cast<u32>(ExitReason::virtualized_eoi));
        CHECK(t.qualification() == 0x51);
        CHECK(t.guest_rip() == Harness::code_address + 2);
        CHECK(t.status() == 0x3000);
    }
}

TEST_CASE("APIC-write emulation: self-IPIs by the ICR [SDM 3C 29.1.5, 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.deliver_virtual_interrupts();
    const auto accepted = [&](u32 icr) {
        t.set_status(0, 0);
        access(t, store, 0x300, icr);
        if (t.reason() == static_cast<u32>(ExitReason::cpuid)) return (t.status() & 0xFF) == (icr & 0xFF);
        CHECK(t.reason() == static_cast<u32>(ExitReason::apic_write));
        CHECK(t.qualification() == 0x300);
        CHECK(t.status() == 0);
        return false;
    };
    CHECK(accepted(0x0004'0010));
    CHECK(accepted(0x0004'40FE)); // level is not looked at
    CHECK(accepted(0x0004'08FE)); // nor is the destination mode
    CHECK_FALSE(accepted(0x0004'000F));
    for (const unsigned n : {8u, 9u, 10u, 12u, 13u, 15u, 16u, 17u, 20u, 31u}) {
        CAPTURE(n);
        CHECK_FALSE(accepted(0x0004'0041 | u32{1} << n));
    }
    for (const u32 shorthand : {0u, 2u, 3u}) CHECK_FALSE(accepted(shorthand << 18 | 0x41));
}

// ---- Exits ----------------------------------------------------------------------------------------------

TEST_CASE("APIC-access exit: fault-like, RF = 1 in the saved image [SDM 3C 27.3.3, 29.4.1]") {
    A t;
    t.virtualize_accesses();
    access(t, load, 0x20);
    EXITED(t, ExitReason::apic_access);
    CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
    CHECK(t.vectoring() == 0);
    CHECK(t.length() == 2);
}

TEST_CASE("APIC-access exit: instruction fetches [SDM 3C Table 27-6]") {
    A t;
    t.virtualize_accesses();
    t.set(F::guest_rip, A::apic_access + 0x80);
    t.run_guest();
    EXITED(t, ExitReason::apic_access);
    CHECK(t.qualification() == (0x80 | 2 << 12));
    CHECK(t.guest_rip() == A::apic_access + 0x80);
}

TEST_CASE("APIC-access exit: during delivery of an event [SDM 3C Table 27-6, 27.2.3]") {
    A t;
    t.virtualize_accesses();
    t.set(F::guest_idtr_base, A::apic_access);
    SUBCASE("an exception") {
        t.guest(code("0f 0b", "ud2"));
        EXITED(t, ExitReason::apic_access);
        CHECK(t.qualification() == (6 * 16 | 3 << 12));
        CHECK(t.vectoring() == (u32{1} << 31 | 3 << 8 | 6));
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
    }
    SUBCASE("INT n, with its length") {
        t.guest(code("cd 50", "int 0x50"));
        EXITED(t, ExitReason::apic_access);
        CHECK(t.qualification() == (0x500 | 3 << 12));
        CHECK(t.vectoring() == (u32{1} << 31 | 4 << 8 | 0x50));
        CHECK(t.length() == 2);
        CHECK((t.get(F::guest_rflags) & RFLAGS::RF) == 0);
    }
    SUBCASE("an injected interrupt") {
        t.interrupts_on();
        t.set(F::vm_entry_interruption_information, u64{1} << 31 | 0x40);
        t.run_guest();
        EXITED(t, ExitReason::apic_access);
        CHECK(t.vectoring() == (u32{1} << 31 | 0x40));
    }
}

TEST_CASE("APIC-access exit: guest-physical accesses are never virtualized [SDM 3C 29.4.6.2]") {
    A t;
    t.virtualize_accesses();
    t.on(secondary::apic_register_virtualization);
    t.use_ept();
    SUBCASE("a page walk") {
        t.set(F::guest_cr3, A::apic_access);
        t.run_guest();
        EXITED(t, ExitReason::apic_access);
        CHECK((t.qualification() >> 12) == 15);
    }
    SUBCASE("a page walk during delivery") {
        t.set(F::guest_cr3, A::apic_access);
        t.set(F::vm_entry_interruption_information, u64{1} << 31 | 0x40);
        t.interrupts_on();
        t.run_guest();
        EXITED(t, ExitReason::apic_access);
        CHECK((t.qualification() >> 12) == 10);
        CHECK(t.vectoring() == (u32{1} << 31 | 0x40));
    }
}

TEST_CASE(
    "APIC-access page: without EPT a page walk is a physical access, and reads memory [SDM 3C 29.4.6.3]") {
    A t;
    t.virtualize_accesses();
    u8 table[4096];
    t.memory.read_bytes(Physical{Harness::tables_address}, table, sizeof table);
    t.memory.write_bytes(Physical{A::apic_access}, table, sizeof table);
    t.set(F::guest_cr3, A::apic_access);
    t.guest(code("0f a2", "cpuid"));
    EXITED(t, ExitReason::cpuid);
}

TEST_CASE("APIC-access page: it is the final physical address that counts [SDM 3C 29.4]") {
    constexpr u64 page = 0x8'0000;
    A t;
    t.virtualize_accesses();
    t.use_ept(6 | 3 << 3 | bit(6));
    t.set_ept_entry(page, A::apic_access | 6 << 3 | 7);
    t.set_ept_entry(A::apic_access, page | 6 << 3 | 7);
    t.write(page + 0x80, 0x77, 4);
    t.set_reg(Reg::TPR, 0x12);
    t.cpu.r[RBX] = page + 0x80;
    t.cpu.r[RSI] = A::apic_access + 0x80;
    SUBCASE("reads") {
        t.guest(code("8b 03 8b 36 0f a2", "mov eax, [rbx]; mov esi, [rsi]; cpuid"));
        EXITED(t, ExitReason::cpuid);
        CHECK(t.cpu.r[RAX] == 0x12);
        CHECK(t.cpu.r[RSI] == 0x77);
    }
    SUBCASE("accessed and dirty flags are set before the exit") {
        t.cpu.r[RBX] = page + 0x20;
        t.guest(store);
        EXITED(t, ExitReason::apic_access);
        CHECK((t.ept_entry(page) & (bit(8) | bit(9))) == (bit(8) | bit(9)));
    }
    SUBCASE("an EPT violation comes first") {
        t.set_ept_entry(page, A::apic_access | 6 << 3 | 1);
        t.guest(store);
        EXITED(t, ExitReason::ept_violation);
    }
}

TEST_CASE("APIC-access page: CLFLUSH is like a read, PREFETCH never exits [SDM 3C 29.4.6.1]") {
    A t;
    t.virtualize_accesses();
    const Code flush = code("0f ae 3b 0f a2", "clflush [rbx]; cpuid");
    access(t, flush, 0x20);
    CHECK(exits_for_access(t, 0x20));
    CHECK(access(t, flush, 0x80) == static_cast<u32>(ExitReason::cpuid));
    CHECK(access(t, code("0f 18 0b 0f a2", "prefetcht0 [rbx]; cpuid"), 0x20) ==
          static_cast<u32>(ExitReason::cpuid));
    t.cpu.misc_enable |= MiscEnable::MONITOR;
    t.cpu.r[RCX] = t.cpu.r[RDX] = 0;
    access(t, code("0f 01 c8 0f a2", "monitor; cpuid"), 0, A::apic_access + 0x20);
    CHECK(exits_for_access(t, 0x20));
}

TEST_CASE("APIC-write exit: above the monitor trap flag and INIT [SDM 3C 29.4.3.2]") {
    A t;
    t.virtualize_accesses();
    t.on(secondary::apic_register_virtualization);
    t.on(primary::monitor_trap_flag);
    CHECK(access(t, store, 0xF0) == static_cast<u32>(ExitReason::apic_write));
}

TEST_CASE("APIC-access page: off, it is memory [SDM 3C 29.4]") {
    A t;
    t.virtualize_accesses();
    CHECK(access(t, store, 0x20, 0x55) == static_cast<u32>(ExitReason::apic_access));
    t.off(secondary::virtualize_apic_accesses);
    CHECK(access(t, store, 0x20, 0x55) == static_cast<u32>(ExitReason::cpuid));
    CHECK(t.read(A::apic_access + 0x20, 4) == 0x55);
    CHECK(access(t, load, 0x20) == static_cast<u32>(ExitReason::cpuid));
    CHECK(low32(t.cpu.r[RAX]) == 0x55);
}
