// Loading and saving of state: guest, host, MSR areas, activity; caching of translations; records; snapshots.
// SDM 3C 26.3.2, 26.4, 26.6 to 26.8, 27.3 to 27.6, 28.3.
#include "tests/support/vmx_harness.hpp"

#include "cpu/msrs.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;

const Code cpuid = code("0f a2", "cpuid");

void msr_entry(T& t, unsigned i, u64 index, u64 value) {
    t.write(T::msr_area + 16 * i, index);
    t.write(T::msr_area + 16 * i + 8, value);
}

} // namespace

TEST_CASE("Guest state: what an entry loads, an exit saves [SDM 3C 26.3.2, 27.3]") {
    T t;
    t.on(vm_entry::load_debug_controls);
    t.on(vm_entry::load_ia32_pat);
    t.on(vm_exit::save_debug_controls);
    t.on(vm_exit::save_ia32_pat);
    const std::pair<F, u64> values[] = {
        {F::guest_rsp, 0x1234'5678},
        {F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::CF | RFLAGS::ZF | RFLAGS::IF | RFLAGS::IOPL},
        {F::guest_ia32_sysenter_cs, 0x77},
        {F::guest_ia32_sysenter_esp, 0x8888},
        {F::guest_ia32_sysenter_eip, 0x9999},
        {F::guest_ia32_pat, 0x0001'0405'0607'0001},
        {F::guest_ia32_debugctl, 2},
        {F::guest_dr7, 0x455},
        {F::guest_fs_base, 0x7FFF'1234'5678},
        {F::guest_gs_base, ~u64{0xFFF}},
        {F::guest_gdtr_limit, 0x7F},
        {F::guest_idtr_base, 0x1'2345},
        {F::guest_ldtr_selector, 0x58},
        {F::guest_ldtr_access_rights, 0x82},
        {F::guest_ldtr_limit, 0x17},
        {F::guest_es_selector, 0},
        {F::guest_es_access_rights, AR::UNUSABLE},
        {F::guest_tr_base, 0xABC000},
    };
    for (const auto& [field, value] : values) t.set(field, value);
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    for (const auto& value : values)
        CHECK_MESSAGE(t.get(value.first) == value.second, row_of(value.first).name);
    CHECK(t.get(F::guest_cr3) == Harness::tables_address);
    CHECK((t.get(F::vm_entry_controls) & vm_entry::ia_32e_mode_guest));
}

TEST_CASE("Guest state: bits of CR0 and DR7 that an entry does not take [SDM 3C 26.3.2.1]") {
    T t;
    t.on(vm_entry::load_debug_controls);
    t.on(vm_exit::save_debug_controls);
    t.set(F::guest_cr0, (t.get(F::guest_cr0) & ~CR0::ET) | CR0::CD | CR0::NW | bit(17) | bit(8));
    t.set(F::guest_dr7, bit(12) | bit(14) | bit(15) | 3);
    t.guest(cpuid);
    CHECK((t.get(F::guest_cr0) & (CR0::ET | CR0::CD | CR0::NW | bit(17) | bit(8))) == CR0::ET);
    CHECK(t.get(F::guest_dr7) == (DR7::fixed1 | 3));
}

TEST_CASE("Host state after an exit [SDM 3C 27.5]") {
    T t;
    t.set(F::host_cr0, t.get(F::host_cr0) | CR0::TS);
    t.set(F::host_fs_base, 0x1111);
    t.set(F::host_gs_base, 0x2222);
    t.set(F::host_ds_selector, 0);
    t.set(F::host_ia32_sysenter_cs, 0x33);
    t.set(F::host_ia32_sysenter_esp, 0x44);
    t.set(F::host_ia32_sysenter_eip, 0x55);
    t.on(vm_exit::load_ia32_pat);
    t.set(F::host_ia32_pat, 6);
    t.cpu.dr7 = 0x4FF;
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    const Cpu& c = t.cpu;
    CHECK(c.control.cr0 == (t.get(F::host_cr0)));
    CHECK(c.rflags() == RFLAGS::FIXED1);
    CHECK(c.r[RSP] == t.get(F::host_rsp));
    CHECK(c.seg(Seg::CS) == Segment{Harness::code64_0, 0xA09B, 0xFFFF'FFFF, 0});
    CHECK(c.seg(Seg::SS) == Segment{Harness::data_0, 0xC093, 0xFFFF'FFFF, 0});
    CHECK(c.seg(Seg::DS).unusable());
    CHECK(c.seg(Seg::FS).base == 0x1111);
    CHECK(c.seg(Seg::GS).base == 0x2222);
    CHECK(c.seg(Seg::TR) == Segment{Harness::tss, 0x8B, 0x67, Harness::tss_address});
    CHECK(c.seg(Seg::LDTR).unusable());
    CHECK(c.gdtr.limit == 0xFFFF);
    CHECK(c.idtr.limit == 0xFFFF);
    CHECK(c.sysenter_cs == 0x33);
    CHECK(c.sysenter_esp == 0x44);
    CHECK(c.sysenter_eip == 0x55);
    CHECK(c.pat == 6);
    CHECK(c.dr7 == DR7::fixed1);
    CHECK(c.cpl == 0);
}

TEST_CASE("IA32_EFER without its controls: LMA and LME follow the entry and exit controls [SDM 3C 26.3.2.1, "
          "27.5.1]") {
    T t;
    t.off(vm_entry::load_ia32_efer);
    t.off(vm_exit::load_ia32_efer);
    t.guest_mode(Mode::protected32);
    t.guest(code("0f a2", "cpuid"));
    EXITED(t, ExitReason::cpuid);
    // CR0.PG = 0: LME stayed, LMA went.
    CHECK((t.get(F::guest_ia32_efer) & (EFER::LMA | EFER::LME)) == EFER::LME);
    CHECK((t.cpu.control.efer & (EFER::LMA | EFER::LME)) == (EFER::LMA | EFER::LME));
    CHECK((t.get(F::vm_entry_controls) & vm_entry::ia_32e_mode_guest) == false);
}

TEST_CASE("Exits store IA32_EFER.LMA into IA-32e mode guest: the guest switches modes itself [SDM 3C 27.2]") {
    T t;
    t.guest_mode(Mode::protected32);
    t.set(F::guest_ia32_efer, EFER::LME | EFER::NXE);
    t.cpu.r[RAX] = t.get(F::guest_cr0) | CR0::PG;
    t.guest(code("0f 22 c0 0f a2", "mov cr0, eax; cpuid"));
    EXITED(t, ExitReason::cpuid);
    CHECK((t.get(F::vm_entry_controls) & vm_entry::ia_32e_mode_guest));
    t.run_guest(); // and it still enters
    EXITED(t, ExitReason::cpuid);
}

TEST_CASE("Unrestricted guest: real mode, 16-bit protected mode, virtual-8086 mode run and come back [SDM 3C "
          "26.3.1]") {
    for (const Mode mode : {Mode::real, Mode::protected16, Mode::v8086, Mode::protected32}) {
        T t;
        t.guest_mode(mode);
        t.guest(code("0f a2"));
        EXITED(t, ExitReason::cpuid);
        t.set(F::guest_rip, t.get(F::guest_rip) + 2);
        t.place_guest(code("0f 01 c1"));
        t.run_guest();
        EXITED(t, ExitReason::vmcall);
    }
}

TEST_CASE("PAE guests: PDPTEs out of memory, or out of the VMCS with EPT; reserved bits fail the entry with "
          "qualification 2 [SDM 3C 26.3.1.6]") {
    for (const bool ept : {false, true})
        for (const bool bad : {false, true}) {
            T t;
            t.guest_mode(Mode::protected32);
            t.set(F::guest_cr0, t.get(F::guest_cr0) | CR0::PG);
            if (!ept) {
                t.off(secondary::unrestricted_guest);
                t.off(secondary::enable_ept);
            }
            constexpr u64 pdpt = 0x9000, directory = 0xA000;
            t.set(F::guest_cr3, pdpt);
            const u64 pdpte = directory | 1 | (bad ? 2 : 0);
            if (ept) {
                t.set(F::guest_pdpte0, pdpte);
            } else {
                t.write(pdpt, pdpte);
            }
            t.write(directory, 0x83);
            if (bad) {
                CHECK(t.enter() == refused_guest("guest.pdptes.reserved_bits", 2));
            } else {
                t.guest(cpuid);
                EXITED(t, ExitReason::cpuid);
                if (ept) CHECK(t.get(F::guest_pdpte0) == pdpte);
            }
        }
}

TEST_CASE("VM-entry failure: the host's state, nothing saved, the event stays [SDM 3C 26.7]") {
    T t;
    t.set(F::guest_cr4, 0);
    t.set(F::vm_entry_interruption_information, 0x8000'0306);
    t.set(F::host_gs_base, 0x1234);
    CHECK(t.enter() == refused_guest("guest.cr4.fixed_bits"));
    CHECK(t.reason() == 0x8000'0021);
    CHECK(t.get(F::guest_cr4) == 0);
    CHECK(t.get(F::vm_entry_interruption_information) == 0x8000'0306);
    CHECK(t.cpu.rip == T::exit_address);
    CHECK(t.cpu.seg(Seg::GS).base == 0x1234);
    CHECK(!t.vmx.current()->launched());
    CHECK(t.witness.entries == 0);
    CHECK(t.witness.exits == 0);
}

TEST_CASE("MSR areas: loaded at entry, stored and loaded at exit [SDM 3C 26.4, 27.4, 27.6]") {
    T t;
    msr_entry(t, 0, Msr::IA32_STAR, 0x1111);
    msr_entry(t, 1, Msr::IA32_LSTAR, 0x2222);
    t.set(F::vm_entry_msr_load_address, T::msr_area);
    t.set(F::vm_entry_msr_load_count, 2);
    msr_entry(t, 4, Msr::IA32_STAR, 0);
    msr_entry(t, 5, Msr::IA32_KERNEL_GS_BASE, 0);
    t.set(F::vm_exit_msr_store_address, T::msr_area + 64);
    t.set(F::vm_exit_msr_store_count, 2);
    msr_entry(t, 8, Msr::IA32_STAR, 0x3333);
    t.set(F::vm_exit_msr_load_address, T::msr_area + 128);
    t.set(F::vm_exit_msr_load_count, 1);
    t.cpu.kernel_gs_base = 0x4444;
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    CHECK(t.read(T::msr_area + 64 + 8) == 0x1111);
    CHECK(t.read(T::msr_area + 80 + 8) == 0x4444);
    CHECK(t.cpu.star == 0x3333);
    CHECK(t.cpu.lstar == 0x2222);
}

TEST_CASE("MSR areas: the stored time-stamp counter is the guest's [SDM 3C 27.4]") {
    T t;
    msr_entry(t, 0, Msr::IA32_TIME_STAMP_COUNTER, 0);
    t.set(F::vm_exit_msr_store_address, T::msr_area);
    t.set(F::vm_exit_msr_store_count, 1);
    t.on(primary::use_tsc_offsetting);
    t.set(F::tsc_offset, u64{1} << 50);
    t.guest(cpuid);
    CHECK((t.read(T::msr_area + 8) >> 50) == 1);
}

TEST_CASE("MSR areas: entries that may not be loaded fail the entry, with their number [SDM 3C 26.4]") {
    const struct {
        u64 index, value;
        const char* check;
    } cases[] = {
        {Msr::IA32_FS_BASE, 0, "msr_load.fs_gs_base"},
        {Msr::IA32_GS_BASE, 0, "msr_load.fs_gs_base"},
        {0x808, 0, "msr_load.x2apic"},
        {0x8FF, 0, "msr_load.x2apic"},
        {0x9B, 0, "msr_load.smm_only"},
        {Msr::IA32_BIOS_UPDT_TRIG, 0, "msr_load.model_specific"},
        {u64{1} << 32 | Msr::IA32_STAR, 0, "msr_load.bits_63_32"},
        {0x1234'5678, 0, "msr_load.wrmsr"},
        {Msr::IA32_PAT, 2, "msr_load.wrmsr"},
        {Msr::IA32_LSTAR, u64{1} << 62, "msr_load.wrmsr"},
        {Msr::IA32_EFER, 0, "msr_load.wrmsr"}, // LME with paging on
    };
    for (const auto& c : cases) {
        const std::string name = c.check;
        CAPTURE(name);
        T t;
        msr_entry(t, 0, Msr::IA32_STAR, 1);
        msr_entry(t, 1, c.index, c.value);
        t.set(F::vm_entry_msr_load_address, T::msr_area);
        t.set(F::vm_entry_msr_load_count, 2);
        const EntryOutcome expected{
            .reason = 34 | exit_reason_entry_failure, .qualification = 2, .check = c.check};
        CHECK(t.enter() == expected);
        CHECK(!t.cpu.in_guest);
        CHECK(t.cpu.rip == T::exit_address);
    }
}

TEST_CASE("VMX aborts: what exits can not store or load [SDM 3C 27.7]") {
    T t;
    SUBCASE("store: indicator 1") {
        msr_entry(t, 0, 0x1234'5678, 0);
        t.set(F::vm_exit_msr_store_address, T::msr_area);
        t.set(F::vm_exit_msr_store_count, 1);
        t.guest(cpuid);
        CHECK(t.read(T::vmcs_region + 4, 4) == 1);
    }
    SUBCASE("load: indicator 4") {
        msr_entry(t, 0, Msr::IA32_GS_BASE, 0);
        t.set(F::vm_exit_msr_load_address, T::msr_area);
        t.set(F::vm_exit_msr_load_count, 1);
        t.guest(cpuid);
        CHECK(t.read(T::vmcs_region + 4, 4) == 4);
    }
    CHECK(!t.cpu.in_guest);
    CHECK(t.cpu.activity == Activity::shutdown);
    CHECK(!t.vmx.operating());
}

TEST_CASE("Activity states: HLT and shutdown are entered and wait [SDM 3C 26.6.2]") {
    for (const u64 state : {u64{1}, u64{2}}) {
        T t;
        t.set(F::guest_activity_state, state);
        t.on(pin_based::nmi_exiting);
        t.guest(cpuid);
        CHECK(t.cpu.in_guest);
        CHECK(t.cpu.activity == static_cast<Activity>(state));
        t.cpu.signals().nmi();
        t.run_guest();
        EXITED(t, ExitReason::exception_or_nmi);
        CHECK(t.get(F::guest_activity_state) == state);
    }
}

// ---- Translations -------------------------------------------------------------------------------

TEST_CASE(
    "EPT violation: the first access of the guest, and again until the entry is there [SDM 3C 28.2.3.2]") {
    T t;
    t.use_ept();
    t.cpu.r[RBX] = Harness::data_address + 0x123;
    const u64 page = t.ept_entry(Harness::data_address);
    t.set_ept_entry(Harness::data_address, 0);
    t.guest(code("8b 03 c6 03 00 0f a2", "mov eax, [rbx]; mov byte ptr [rbx], 0x00; cpuid"));
    EXITED(t, ExitReason::ept_violation);
    CHECK(t.get(F::guest_physical_address) == Harness::data_address + 0x123);
    CHECK(t.get(F::guest_linear_address) == Harness::data_address + 0x123);
    CHECK((t.qualification() & 0x1BF) == 0x181);
    CHECK(t.guest_rip() == Harness::code_address);
    CHECK((t.get(F::guest_rflags) & RFLAGS::RF) != 0);
    t.set_ept_entry(Harness::data_address, page & ~u64{2});
    t.run_guest();
    EXITED(t, ExitReason::ept_violation);
    CHECK((t.qualification() & 0x1BF) == 0x1AA);
    CHECK(t.guest_rip() == Harness::code_address + 2);
    t.set_ept_entry(Harness::data_address, page);
    t.run_guest();
    EXITED(t, ExitReason::cpuid);
}

TEST_CASE("EPT violation of the code fetch and of the guest's own paging structures [SDM 3C Table 27-7]") {
    T t;
    t.use_ept();
    SUBCASE("fetch") {
        t.set_ept_entry(Harness::code_address, t.ept_entry(Harness::code_address) & ~u64{4});
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x1BF) == 0x19C);
        CHECK(t.length() == 0);
    }
    SUBCASE("paging structure") {
        t.set_ept_entry(Harness::tables_address, 0);
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x1BF) == 0x081);
        CHECK(t.get(F::guest_physical_address) == Harness::tables_address);
        CHECK(t.get(F::guest_linear_address) == Harness::code_address);
    }
    SUBCASE("misconfiguration") {
        t.set_ept_entry(Harness::code_address, t.ept_entry(Harness::code_address) & ~u64{5});
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_misconfiguration);
        CHECK(t.qualification() == 0);
        CHECK(t.get(F::guest_physical_address) == Harness::code_address);
    }
}

TEST_CASE("Page-modification log: guest writes fill it downwards; full is an exit [SDM 3C 28.2.5]") {
    T t;
    t.use_ept(6 | 3 << 3 | bit(6));
    t.on(secondary::enable_pml);
    t.set(F::pml_index, 511);
    t.cpu.r[RBX] = Harness::data_address;
    const Code writes = code("8b 03 c6 03 00 c6 03 01 0f a2",
                             "mov eax, [rbx]; mov byte ptr [rbx], 0x00; mov byte ptr [rbx], 0x01; cpuid");
    SUBCASE("logged once") {
        t.guest(writes);
        EXITED(t, ExitReason::cpuid);
        const u64 index = t.get(F::pml_index);
        bool logged = false;
        unsigned times = 0;
        for (u64 i = index + 1; i <= 511; ++i)
            if (t.read(T::pml + 8 * i) == Harness::data_address) logged = true, ++times;
        CHECK(logged);
        CHECK(times == 1);
    }
    SUBCASE("full") {
        t.set(F::pml_index, 0xFFFF);
        t.guest(writes);
        EXITED(t, ExitReason::page_modification_log_full);
    }
}

TEST_CASE("VPIDs keep translations apart and alive; INVVPID drops them; without VPIDs every entry does "
          "[SDM 3C 28.3]") {
    constexpr u64 linear = 0x4000'0000; // 1 GiB: mapped by its own page directory
    const auto sees_stale = [](bool vpid, bool invvpid) {
        T t;
        if (vpid) {
            t.on(secondary::enable_vpid);
            t.set(F::virtual_processor_identifier, 7);
        }
        constexpr u64 directory = 0x11'0000;
        t.write(Harness::tables_address + 0x1008, directory | 7);
        t.write(directory, 0x40'0083);
        t.write(0x40'0000, 0xAAAA);
        t.write(0x60'0000, 0xBBBB);
        t.cpu.r[RBX] = linear;
        t.guest(code("48 8b 03 0f a2", "mov rax, [rbx]; cpuid"));
        REQUIRE(t.cpu.r[RAX] == 0xAAAA);
        t.write(directory, 0x60'0083);
        if (invvpid) {
            t.write(Harness::data_address, 7);
            t.cpu.r[RCX] = 1;
            t.cpu.r[RAX] = Harness::data_address;
            t.cpu.activity = Activity::active;
            REQUIRE(t.step(code("66 0f 38 81 08", "invvpid rcx, xmmword ptr [rax]")) == Stop{});
            t.place_guest(code("90", "nop"));
            t.memory.write_bytes(Physical{Harness::code_address}, "\x48\x8B\x03\x0F\xA2", 5);
        }
        t.set(F::guest_rip, Harness::code_address);
        t.run_guest();
        REQUIRE(t.in_host());
        return t.cpu.r[RAX] == 0xAAAA;
    };
    CHECK(sees_stale(true, false));
    CHECK(!sees_stale(true, true));
    CHECK(!sees_stale(false, false));
}

TEST_CASE("CR0.WP changed by the VMM holds at once, also for cached translations") {
    T t;
    t.on(secondary::enable_vpid);
    t.set(F::virtual_processor_identifier, 3);
    t.write(Harness::tables_address + 0x2008, 0x20'0081); // the second 2 MiB: read-only
    t.cpu.r[RBX] = 0x3F'0000;
    t.set(F::guest_cr0, t.get(F::guest_cr0) & ~CR0::WP);
    const Code write = code("c6 03 00 0f a2", "mov byte ptr [rbx], 0x00; cpuid");
    t.guest(write);
    EXITED(t, ExitReason::cpuid);
    t.set(F::guest_cr0, t.get(F::guest_cr0) | CR0::WP);
    t.set(F::guest_rip, Harness::code_address);
    t.set(F::exception_bitmap, bit(14));
    t.run_guest();
    EXITED(t, ExitReason::exception_or_nmi);
}

// ---- Records ------------------------------------------------------------------------------------

TEST_CASE("Observers see every entry, exit and refusal") {
    T t;
    t.guest(cpuid);
    CHECK(t.witness.entries == 1);
    CHECK(t.witness.entry.launch);
    CHECK(t.witness.entry.rip == Harness::code_address);
    CHECK(t.witness.exits == 1);
    CHECK(t.witness.exit.reason == 10);
    CHECK(t.witness.exit.rip == Harness::code_address);
    CHECK(t.witness.exit.instruction_length == 2);
    t.run_guest();
    CHECK(t.witness.entries == 2);
    CHECK(!t.witness.entry.launch);
    t.set(F::cr3_target_count, 5);
    t.run_guest();
    CHECK(t.witness.failures == 1);
    CHECK(t.witness.failure.check == "controls.cr3_target_count");
    CHECK(t.witness.failure.instruction_error == 7);
    CHECK(t.vmx.last_refusal() == "controls.cr3_target_count");
}

TEST_CASE("Without an observer everything is as with one") {
    T with, without;
    without.cpu.observer = nullptr;
    with.guest(cpuid);
    without.guest(cpuid);
    for (std::size_t i = 0; i < vmcs_field_count; ++i) {
        const auto field = static_cast<F>(i);
        CHECK_MESSAGE(with.get(field) == without.get(field), row_of(field).name);
    }
    CHECK(with.cpu.now() == without.cpu.now());
}
