// The SVM instructions and MSRs in the host, nested paging and TLB of a guest. APM
// 2 15.4, 15.5, 15.15, 15.16, 15.25, 15.30, 15.33.
#include "tests/support/svm_harness.hpp"

#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using T = SvmHarness;
const Stop ud = undefined_opcode(), gp = general_protection(0);

struct Form {
    const char* bytes;
    const char* text;
};
const Form forms[] = {{"0f 01 d8", "vmrun rax"},  {"0f 01 da", "vmload rax"},
                      {"0f 01 db", "vmsave rax"}, {"0f 01 dc", "stgi"},
                      {"0f 01 dd", "clgi"},       {"0f 01 df", "invlpga rax, ecx"}};

} // namespace

TEST_CASE("SVM instructions: #UD without EFER.SVME, #GP(0) outside CPL 0 [APM 2 15.4]") {
    for (const Form& f : forms) {
        CAPTURE(f.text);
        T off;
        off.cpu.control.efer &= ~EFER::SVME;
        // STGI also comes with SKINIT.
        const bool stgi = std::string(f.text) == "stgi";
        CHECK((off.step(code(f.bytes, f.text)) == ud) == !stgi);
        T user;
        user.enter_ring3();
        CHECK(user.step(code(f.bytes, f.text)) == gp);
    }
    T t;
    CHECK(t.step(code("0f 01 d9", "vmmcall")) == ud); // not intercepted
}

TEST_CASE("rAX of VMRUN, VMLOAD and VMSAVE: aligned and within physical memory [APM 3 VMRUN]") {
    for (unsigned i = 0; i < 3; ++i)
        for (const u64 address : {u64{T::vmcb} + 8, bit(48)}) {
            T t;
            t.cpu.r[RAX] = address;
            CHECK(t.step(code(forms[i].bytes, forms[i].text)) == gp);
        }
}

TEST_CASE("VMSAVE and VMLOAD: segments with their hidden parts and the system-call MSRs [APM 2 15.5.2]") {
    T t;
    t.cpu.seg(Seg::FS) = {0x3B, AR::P | AR::S | AR::WRITABLE | AR::DB | AR::G, 0x1234'5FFF, 0x1122'3344'5566};
    t.cpu.seg(Seg::GS) = {0, AR::UNUSABLE, 0, 0xFFFF'8000'0000'0000};
    t.cpu.kernel_gs_base = 0x77;
    t.cpu.star = 1, t.cpu.lstar = 2, t.cpu.cstar = 3, t.cpu.sfmask = 4;
    t.cpu.sysenter_cs = 5, t.cpu.sysenter_esp = 6, t.cpu.sysenter_eip = 7;
    const Segment fs = t.cpu.seg(Seg::FS), gs = t.cpu.seg(Seg::GS), tr = t.cpu.seg(Seg::TR);
    t.cpu.r[RAX] = T::other_vmcb;
    REQUIRE(t.step(code("0f 01 db", "vmsave rax")) == Stop{});
    CHECK(t.read(T::other_vmcb + 0x442, 2) == 0xC92); // G, D, P, S, writable
    CHECK(t.read(T::other_vmcb + 0x608) == 2);
    t.cpu.seg(Seg::FS) = t.cpu.seg(Seg::GS) = t.cpu.seg(Seg::TR) = {};
    t.cpu.kernel_gs_base = t.cpu.star = t.cpu.lstar = t.cpu.cstar = t.cpu.sfmask = 0;
    t.cpu.sysenter_cs = t.cpu.sysenter_esp = t.cpu.sysenter_eip = 0;
    REQUIRE(t.step(code("0f 01 da", "vmload rax")) == Stop{});
    CHECK(t.cpu.seg(Seg::FS) == fs);
    CHECK(t.cpu.seg(Seg::GS) == gs);
    CHECK(t.cpu.seg(Seg::TR) == tr);
    CHECK(t.cpu.kernel_gs_base == 0x77);
    CHECK(t.cpu.star + t.cpu.lstar + t.cpu.cstar + t.cpu.sfmask == 10);
    CHECK(t.cpu.sysenter_cs + t.cpu.sysenter_esp + t.cpu.sysenter_eip == 18);
    t.write(T::other_vmcb + 0x448, 0x0000'8000'0000'0000); // bases are made canonical
    REQUIRE(t.step(code("0f 01 da", "vmload rax")) == Stop{});
    CHECK(t.cpu.seg(Seg::FS).base ==
          (t.model.linear_bits > 48 ? 0x0000'8000'0000'0000 : 0xFFFF'8000'0000'0000));
}

TEST_CASE("#VMEXIT gives the host back what VMRUN kept [APM 2 15.6]") {
    T t;
    t.set(VMCB::rax, 0x1111);
    t.set(VMCB::dr7, DR7::fixed1 | 3);
    t.cpu.r[RSP] = 0x2'8000;
    const u64 cr3 = t.cpu.control.cr3, cr4 = t.cpu.control.cr4;
    t.set(VMCB::cr4, cr4 | CR4::PGE);
    t.guest(code("48 ff c0 f4", "inc rax; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK(t.get(VMCB::rax) == 0x1112);
    CHECK(t.cpu.r[RAX] == T::vmcb);
    CHECK(t.cpu.r[RSP] == 0x2'8000);
    CHECK(t.cpu.control.cr3 == cr3);
    CHECK(t.cpu.control.cr4 == cr4);
    CHECK(t.cpu.dr7 == DR7::fixed1);
    CHECK(t.get(VMCB::cr4) == (cr4 | CR4::PGE));
}

TEST_CASE("Nested paging: faults of the guest's data, code and tables [APM 2 15.25.6]") {
    struct Row {
        u64 page, entry, error;
    };
    const u64 tables = SvmHarness().get(VMCB::cr3);
    const Row rows[] = {
        {T::data_address, 0, NPF::final_address | PFEC::U | PFEC::W},
        {T::data_address, T::data_address | 5, NPF::final_address | PFEC::U | PFEC::W | PFEC::P},
        {T::code_address, T::code_address | 7 | bit(63), NPF::final_address | PFEC::U | PFEC::P | PFEC::I},
        {tables, tables | 5, NPF::guest_tables | PFEC::U | PFEC::W | PFEC::P},
    };
    for (const Row& row : rows) {
        CAPTURE(row.page);
        T t;
        t.use_npt();
        t.cpu.control.efer |= EFER::NXE;
        t.write(t.npt_entry_address(row.page), row.entry);
        t.cpu.r[RBX] = T::data_address + 0x18;
        t.guest(code("88 0b f4", "mov [rbx], cl; hlt"));
        LEFT(t, ExitCode::NPF);
        CHECK(t.info1() == row.error);
        CHECK((t.info2() & ~u64{0xFFF}) == row.page);
        CHECK(t.guest_rip() == T::code_address);
        // The hypervisor maps it, and the guest goes on.
        t.write(t.npt_entry_address(row.page), row.page | 7);
        t.set(VMCB::tlb_control, 3);
        t.run_guest();
        LEFT(t, ExitCode::HLT);
    }
}

TEST_CASE("A guest's PAE tables: PDPTEs come through the nested tables when they are used [APM 2 15.25.10]") {
    T t;
    t.use_npt();
    t.set(VMCB::efer, EFER::SVME);
    t.set(VMCB::cs_attrib, 0xC9B);
    t.set(VMCB::cr3, 0x5'1000);
    t.write(0x5'1000, 0x5'2000 | 1);
    t.write(0x5'2000, 0x80 | 7); // 2 MBytes
    t.write(t.npt_entry_address(0x5'1000), 0);
    t.memory.write_bytes(Physical{T::code_address}, "\xF4", 1);
    t.run_guest();
    LEFT(t, ExitCode::NPF);
    CHECK(t.info2() == 0x5'1000);
    CHECK(t.info1() == (NPF::guest_tables | PFEC::U | PFEC::W));
    t.write(t.npt_entry_address(0x5'1000), 0x5'1000 | 7);
    t.run_guest();
    LEFT(t, ExitCode::HLT);
}

TEST_CASE("ASIDs keep translations apart; TLB_CONTROL flushes [APM 2 15.16]") {
    T t;
    t.use_npt();
    t.write(T::data_address, 0xAA, 1);
    t.write(0x7'0000, 0xBB, 1);
    t.cpu.r[RBX] = T::data_address;
    const auto seen = [&] {
        t.set(VMCB::rip, T::code_address);
        t.guest(code("8a 03 f4", "mov al, [rbx]; hlt"));
        return t.get(VMCB::rax) & 0xFF;
    };
    CHECK(seen() == 0xAA);
    t.write(t.npt_entry_address(T::data_address), 0x7'0000 | 7);
    CHECK(seen() == 0xAA); // still cached
    t.set(VMCB::guest_asid, 2);
    CHECK(seen() == 0xBB);
    t.set(VMCB::guest_asid, 1);
    CHECK(seen() == 0xAA);
    t.set(VMCB::tlb_control, 3);
    CHECK(seen() == 0xBB);
}

TEST_CASE("TLB_CONTROL: nothing, every ASID, this one, this one's that are not global [APM 2 15.16.2]") {
    struct Case {
        u64 control;
        bool flushes_own, flushes_other;
    };
    for (const Case& c : {Case{0, false, false}, {1, true, true}, {3, true, false}, {7, true, false}}) {
        CAPTURE(c.control);
        T t;
        t.use_npt();
        t.write(T::data_address, 0xAA, 1);
        t.write(0x7'0000, 0xBB, 1);
        t.cpu.r[RBX] = T::data_address;
        const auto seen = [&](u64 asid, u64 control) {
            t.set(VMCB::rip, T::code_address);
            t.set(VMCB::guest_asid, asid);
            t.set(VMCB::tlb_control, control);
            t.guest(code("8a 03 f4", "mov al, [rbx]; hlt"));
            return t.get(VMCB::rax) & 0xFF;
        };
        CHECK(seen(1, 0) == 0xAA);
        CHECK(seen(2, 0) == 0xAA);
        t.write(t.npt_entry_address(T::data_address), 0x7'0000 | 7);
        CHECK((seen(1, c.control) == 0xBB) == c.flushes_own);
        CHECK((seen(2, 0) == 0xBB) == c.flushes_other);
    }
}

TEST_CASE("INVLPGA drops one page of one ASID [APM 3 INVLPGA]") {
    T t;
    t.use_npt();
    t.write(T::data_address, 0xAA, 1);
    t.write(0x7'0000, 0xBB, 1);
    t.cpu.r[RBX] = T::data_address;
    const auto run = [&] {
        t.set(VMCB::rip, T::code_address);
        t.guest(code("8a 03 f4", "mov al, [rbx]; hlt"));
        return t.get(VMCB::rax) & 0xFF;
    };
    CHECK(run() == 0xAA);
    t.write(t.npt_entry_address(T::data_address), 0x7'0000 | 7);
    t.cpu.activity = Activity::active;
    t.cpu.r[RAX] = T::data_address;
    t.cpu.r[RCX] = 2;
    REQUIRE(t.step(code("0f 01 df", "invlpga rax, ecx")) == Stop{});
    CHECK(run() == 0xAA); // another ASID
    t.cpu.activity = Activity::active;
    t.cpu.r[RAX] = T::data_address;
    t.cpu.r[RCX] = 1;
    REQUIRE(t.step(code("0f 01 df", "invlpga rax, ecx")) == Stop{});
    CHECK(run() == 0xBB);
}

TEST_CASE("Clean bits: what is marked clean is taken as the processor last knew it [APM 2 15.15]") {
    T t;
    t.set(VMCB::cr2, 0x11);
    t.memory.write_bytes(Physical{T::code_address}, "\xF4", 1);
    t.run_guest();
    LEFT(t, ExitCode::HLT);
    t.set(VMCB::cr2, 0x22);
    t.set(VMCB::clean_bits, bit(9));
    t.run_guest();
    CHECK(t.get(VMCB::cr2) == 0x11);
    t.set(VMCB::cr2, 0x22);
    t.set(VMCB::clean_bits, bit(8));
    t.run_guest();
    CHECK(t.get(VMCB::cr2) == 0x22);
}

TEST_CASE("Virtual GIF and virtual VMLOAD: the guest's own, without an exit [APM 2 15.33]") {
    T t;
    t.set(VMCB::interrupt_control, VMCB::INT::V_GIF_ENABLE | VMCB::INT::V_GIF);
    t.guest(code("0f 01 dd f4", "clgi; hlt"));
    LEFT(t, ExitCode::HLT);
    CHECK((t.get(VMCB::interrupt_control) & VMCB::INT::V_GIF) == 0);

    T v;
    v.use_npt();
    v.set(VMCB::virtualization_control, VMCB::VIRTUAL_VMLOAD_VMSAVE);
    v.set(VMCB::rax, T::data_address);
    v.write(v.npt_entry_address(T::data_address), 0x7'0000 | 7);
    v.cpu.kernel_gs_base = 0x55;
    v.guest(code("0f 01 db f4", "vmsave rax; hlt"));
    LEFT(v, ExitCode::HLT);
    CHECK(v.read(0x7'0620) == 0x55);
}

TEST_CASE("VM_CR, SVM_KEY and VM_HSAVE_PA [APM 2 15.30, 15.31]") {
    T t;
    Msrs& m = *t.cpu.msrs;
    CHECK(m.write(t.cpu, Msr::VM_CR, VM_CR::SVMDIS).stop() == gp); // SVME is 1
    CHECK(m.write(t.cpu, Msr::IA32_EFER, t.cpu.control.efer & ~EFER::SVME).ok());
    CHECK(m.write(t.cpu, Msr::SVM_KEY, 0x1234).ok());
    CHECK(m.read(t.cpu, Msr::SVM_KEY).value() == 0);
    CHECK(m.write(t.cpu, Msr::VM_CR, VM_CR::SVMDIS | VM_CR::LOCK).ok());
    CHECK(m.write(t.cpu, Msr::IA32_EFER, t.cpu.control.efer | EFER::SVME).stop() == gp);
    CHECK(m.write(t.cpu, Msr::VM_CR, 0).ok());
    CHECK(m.read(t.cpu, Msr::VM_CR).value() == (VM_CR::SVMDIS | VM_CR::LOCK)); // locked
    CHECK(m.write(t.cpu, Msr::SVM_KEY, 1).ok());
    CHECK((m.read(t.cpu, Msr::VM_CR).value() & VM_CR::LOCK) != 0);
    CHECK(m.write(t.cpu, Msr::SVM_KEY, 0x1234).ok());
    CHECK((m.read(t.cpu, Msr::VM_CR).value() & VM_CR::LOCK) == 0);
    CHECK(m.write(t.cpu, Msr::VM_HSAVE_PA, 0x1008).stop() == gp);
    CHECK(m.write(t.cpu, Msr::VM_HSAVE_PA, bit(48)).stop() == gp);
    CHECK(m.write(t.cpu, Msr::VM_HSAVE_PA, 0x1000).ok());
}

TEST_CASE("Exit codes have the manual's names [APM 2 App. C]") {
    CHECK(exit_code_name(0x03) == "CR3_READ");
    CHECK(exit_code_name(0x18) == "CR8_WRITE");
    CHECK(exit_code_name(0x4E) == "EXCP14");
    CHECK(exit_code_name(0x7B) == "IOIO");
    CHECK(exit_code_name(0x400) == "NPF");
    CHECK(exit_code_name(0xFFFF'FFFF) == "INVALID");
    CHECK(exit_code_name(0x3FF).empty());
}
