// What controls add to EPT: permissions for fetches by mode, violations that become exceptions; and
// protection keys for supervisor pages across the world switch. SDM 3C 25.5.6 "Virtualization
// Exceptions", 28.2.3.
#include "tests/support/vmx_harness.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using F = VmcsField;
using T = VmxHarness;

constexpr u64 user_execute = bit(10), suppress_ve = bit(63);
constexpr u64 ve_area = T::spare_region + 0x2000, page = 0x8'0000;
const Code load = code("8b 04 25 00 00 08 00", "mov eax, [0x0000000000080000]");
const Code cpuid = code("0f a2", "cpuid");

/// EPT with mode-based execute control; every entry allows fetches from user-mode addresses, too.
void use_mode_based(T& t) {
    t.use_ept();
    t.on(secondary::mode_based_execute_control_for_ept);
    for (const u64 at : {T::ept_tables, T::ept_tables + 0x1000}) t.write(at, t.read(at) | user_execute);
    for (u64 i = 0; i < 8; ++i) {
        const u64 at = T::ept_tables + 0x2000 + 8 * i;
        t.write(at, t.read(at) | user_execute);
    }
    for (u64 at = 0; at < 0x100'0000; at += 0x1000) t.set_ept_entry(at, t.ept_entry(at) | user_execute);
}

/// The guest's code is at a supervisor-mode address (U/S = 0) instead of a user-mode one.
void supervisor_code(T& t) { t.write(Harness::tables_address + 0x2000, 0x83); }

void change_code_entry(T& t, u64 clear, u64 set = 0) {
    t.set_ept_entry(Harness::code_address, (t.ept_entry(Harness::code_address) & ~clear) | set);
}

void use_ve(T& t) {
    t.use_ept();
    t.on(secondary::ept_violation_ve);
    t.set(F::virtualization_exception_information_address, ve_area);
    t.set(F::eptp_index, 0x123);
}

constexpr u64 ve_handler = Harness::handler_address + 16 * 20;

} // namespace

TEST_CASE(
    "Mode-based execute control: bit 10 is for user-mode addresses, bit 2 for the others [SDM 3C 28.2.3]") {
    T t;
    use_mode_based(t);
    SUBCASE("user-mode address without bit 10") {
        change_code_entry(t, user_execute);
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0xFF) == 0xBC); // fetch; R, W and X but not user X; linear address
    }
    SUBCASE("user-mode address without bit 2") {
        change_code_entry(t, 4);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("supervisor-mode address without bit 10") {
        supervisor_code(t);
        change_code_entry(t, user_execute);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("supervisor-mode address without bit 2") {
        supervisor_code(t);
        change_code_entry(t, 4);
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0xFF) == 0xDC);
    }
    SUBCASE("bit 10 counts over all levels") {
        t.write(T::ept_tables, t.read(T::ept_tables) & ~user_execute);
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x78) == 0x38);
    }
    SUBCASE("bit 10 alone makes an entry present") {
        t.set_ept_entry(page, page | 6 << 3 | user_execute);
        t.guest(load);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x7F) == 0x41);
    }
    SUBCASE("without paging every address is a user-mode one") {
        t.guest_mode(Mode::protected32);
        use_mode_based(t);
        change_code_entry(t, user_execute);
        t.guest(cpuid);
        EXITED(t, ExitReason::ept_violation);
    }
}

TEST_CASE("Mode-based execute control off: bit 10 is ignored [SDM 3C Table 28-6]") {
    T t;
    t.use_ept();
    SUBCASE("fetch") {
        change_code_entry(t, user_execute);
        t.guest(cpuid);
        EXITED(t, ExitReason::cpuid);
    }
    SUBCASE("an entry with nothing else is not present") {
        t.set_ept_entry(page, page | 6 << 3 | user_execute);
        t.guest(load);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x7F) == 0x01);
    }
}

TEST_CASE("Mode-based execute control: changed between two entries with one VPID, it holds at once") {
    T t;
    use_mode_based(t);
    t.on(secondary::enable_vpid);
    t.set(F::virtual_processor_identifier, 1);
    change_code_entry(t, user_execute);
    t.off(secondary::mode_based_execute_control_for_ept);
    t.guest(cpuid);
    EXITED(t, ExitReason::cpuid);
    t.on(secondary::mode_based_execute_control_for_ept);
    t.run_guest();
    EXITED(t, ExitReason::ept_violation);
}

TEST_CASE("Virtualization exceptions: the information area, and #VE instead of the exit [SDM 3C 25.5.6.1, "
          "25.5.6.2]") {
    T t;
    use_ve(t);
    t.set_ept_entry(page, 0);
    t.guest(load);
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == ve_handler);
    CHECK(t.read(ve_area, 4) == 48);
    CHECK(t.read(ve_area + 4, 4) == 0xFFFF'FFFF);
    CHECK((t.read(ve_area + 8) & 0x1BF) == 0x181);
    CHECK(t.read(ve_area + 16) == page);
    CHECK(t.read(ve_area + 24) == page);
    CHECK(t.read(ve_area + 32, 2) == 0x123);
    CHECK(t.read(Harness::stack_top - 40) == Harness::code_address); // a fault: RIP is the instruction's
}

TEST_CASE("Virtualization exceptions: what keeps a violation an exit [SDM 3C 25.5.6.1, 25.5.6.2]") {
    T t;
    use_ve(t);
    t.set_ept_entry(page, 0);
    SUBCASE("the area is in use") { t.write(ve_area + 4, 1, 4); }
    SUBCASE("suppress #VE in the entry that is not present") { t.set_ept_entry(page, suppress_ve); }
    SUBCASE("suppress #VE in the entry that maps the page") {
        t.set_ept_entry(page, page | suppress_ve | 6 << 3 | 4); // execute-only
    }
    SUBCASE("the control is 0") { t.off(secondary::ept_violation_ve); }
    SUBCASE("CR0.PE = 0") {
        t.guest_mode(Mode::real);
        t.set_ept_entry(0x5000, 0);
        t.guest(code("a0 00 50", "mov al, [0x5000]"));
        EXITED(t, ExitReason::ept_violation);
        CHECK(t.read(ve_area, 4) == 0);
        return;
    }
    SUBCASE("an event is under delivery") {
        t.set_ept_entry(Harness::stack_top - 0x1000, 0);
        t.guest(code("0f 0b", "ud2"));
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.vectoring() & 0x8000'00FF) == 0x8000'0006);
        return;
    }
    SUBCASE("a misconfiguration is none") {
        t.set_ept_entry(page, page | 2);
        t.guest(load);
        EXITED(t, ExitReason::ept_misconfiguration);
        return;
    }
    t.guest(load);
    EXITED(t, ExitReason::ept_violation);
    CHECK(t.read(ve_area, 4) == 0);
}

TEST_CASE("Virtualization exceptions: bit 63 of entries above the last is ignored [SDM 3C 25.5.6.1]") {
    T t;
    use_ve(t);
    t.write(T::ept_tables, t.read(T::ept_tables) | suppress_ve);
    t.set_ept_entry(page, page | 6 << 3 | 1);
    t.guest(code("89 04 25 00 00 08 00", "mov [0x0000000000080000], eax"));
    EXITED(t, ExitReason::hlt);
    CHECK(t.guest_rip() == ve_handler);
}

TEST_CASE("Virtualization exceptions: the exception bitmap has bit 20 for #VE [SDM 3C 25.2]") {
    T t;
    use_ve(t);
    t.set(F::exception_bitmap, bit(20));
    t.set_ept_entry(page, 0);
    t.guest(load);
    EXITED(t, ExitReason::exception_or_nmi);
    CHECK(t.interruption() == (0x8000'0300 | 20));
    CHECK(t.guest_rip() == Harness::code_address);
}

TEST_CASE("EPTP switching leaves the index that #VE reports [SDM 3C 25.5.5.3]") {
    T t;
    use_ve(t);
    t.on(secondary::enable_vm_functions);
    t.set(F::vm_function_controls, 1);
    t.set(F::eptp_list_address, T::spare_region);
    t.write(T::spare_region + 8 * 5, t.get(F::ept_pointer));
    t.cpu.r[RAX] = 0;
    t.cpu.r[RCX] = 5;
    t.guest(code("0f 01 d4 f4", "vmfunc; hlt"));
    EXITED(t, ExitReason::hlt);
    CHECK(t.get(F::eptp_index) == 5);
}

TEST_CASE(
    "IA32_PKRS: loaded by entry and exit when they are to, saved by every exit [SDM 3C 26.3.2.1, 27.3.1]") {
    T t;
    t.cpu.control.pkrs = 0x11;
    t.set(F::guest_ia32_pkrs, 0x22);
    t.set(F::host_ia32_pkrs, 0x33);
    SUBCASE("without the controls the register stays") {
        t.guest(cpuid);
        CHECK(t.get(F::guest_ia32_pkrs) == 0x11);
        CHECK(t.cpu.control.pkrs == 0x11);
    }
    SUBCASE("load PKRS") {
        t.on(vm_entry::load_pkrs);
        t.on(vm_exit::load_pkrs);
        t.guest(cpuid);
        CHECK(t.get(F::guest_ia32_pkrs) == 0x22);
        CHECK(t.cpu.control.pkrs == 0x33);
    }
}

namespace {

constexpr u64 sub_page_tables = T::spare_region + 0x4000;

/// The page is read-only, and of its 32 sub-pages those of `writable` can be written.
void use_sub_pages(T& t, u32 writable) {
    t.use_ept(6 | 3 << 3 | bit(6));
    t.on(secondary::sub_page_write_permissions_for_ept);
    t.set(F::sub_page_permission_table_pointer, sub_page_tables);
    for (u64 level = 0; level < 3; ++level)
        t.write(sub_page_tables + 0x1000 * level, (sub_page_tables + 0x1000 * (level + 1)) | 1);
    u64 permissions = 0;
    for (unsigned i = 0; i < 32; ++i)
        if (test_bit(writable, i)) permissions |= bit(2 * i);
    t.write(sub_page_tables + 0x3000 + 8 * (page >> 12), permissions);
    t.set_ept_entry(page, page | 6 << 3 | 1 | bit(61));
    t.cpu.r[RAX] = 0x5566'7788;
}

/// MOV [RBX], EAX where RBX is this far into the page; then CPUID.
void store_at(T& t, u64 offset) {
    t.cpu.r[RBX] = page + offset;
    t.guest(code("89 03 0f a2", "mov [rbx], eax; cpuid"));
}

} // namespace

TEST_CASE("Sub-page write permissions: 128 bytes at a time, where the page alone is read-only [later "
          "editions, 28.3.4]") {
    T t;
    use_sub_pages(t, 0b10);
    SUBCASE("writable") {
        store_at(t, 0x80);
        EXITED(t, ExitReason::cpuid);
        CHECK(t.read(page + 0x80, 4) == 0x5566'7788);
        CHECK((t.ept_entry(page) & bit(9)) != 0); // dirty
        store_at(t, 0xFC);
        EXITED(t, ExitReason::cpuid);
        t.set(F::guest_rip, Harness::code_address);
        store_at(t, 0x100); // not cached
        EXITED(t, ExitReason::ept_violation);
    }
    SUBCASE("not writable: an EPT violation") {
        store_at(t, 0x7C);
        EXITED(t, ExitReason::ept_violation);
        CHECK((t.qualification() & 0x3F) == 0x0A);
    }
    SUBCASE("a write that begins in a writable one and ends in another") {
        store_at(t, 0xFD);
        EXITED(t, ExitReason::ept_violation);
        CHECK(t.read(page + 0xFC) == 0);
    }
    SUBCASE("bit 61 clear: the page decides") {
        t.set_ept_entry(page, page | 6 << 3 | 1);
        store_at(t, 0x80);
        EXITED(t, ExitReason::ept_violation);
    }
    SUBCASE("an entry above withholds the right") {
        t.write(T::ept_tables + 0x1000, t.read(T::ept_tables + 0x1000) & ~u64{2});
        store_at(t, 0x80);
        CHECK(t.reason() != static_cast<u32>(ExitReason::cpuid));
    }
    SUBCASE("the control is 0") {
        t.off(secondary::sub_page_write_permissions_for_ept);
        store_at(t, 0x80);
        EXITED(t, ExitReason::ept_violation);
    }
    SUBCASE("reads do not care") {
        t.cpu.r[RBX] = page;
        t.guest(code("8b 03 0f a2", "mov eax, [rbx]; cpuid"));
        EXITED(t, ExitReason::cpuid);
    }
}

TEST_CASE(
    "SPP-related events: a miss and a misconfiguration of the table: exit 66 [later editions, 28.3.4.2]") {
    T t;
    use_sub_pages(t, ~u32{0});
    u64 expected = 0;
    SUBCASE("miss") {
        t.write(sub_page_tables + 0x1000, 0);
        expected = bit(11);
    }
    SUBCASE("reserved bit of an upper entry") {
        t.write(sub_page_tables + 0x2000, t.read(sub_page_tables + 0x2000) | 2);
    }
    SUBCASE("reserved bit of the last entry") { t.write(sub_page_tables + 0x3000 + 8 * (page >> 12), 3); }
    store_at(t, 0x80);
    EXITED(t, ExitReason::spp_related_event);
    CHECK(t.qualification() == expected);
    CHECK(t.get(F::guest_physical_address) == page + 0x80);
    CHECK(t.get(F::guest_linear_address) == page + 0x80);
    CHECK(t.guest_rip() == Harness::code_address);
}
