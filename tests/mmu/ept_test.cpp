// The EPT walk: sizes, rights, violations and their qualification, misconfigurations, flags, the log.
// SDM 3C 28.2.
#include "mmu/ept.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace exeunt;

namespace {

constexpr u64 root = 0x1000, level3 = 0x2000, level2 = 0x3000, level1 = 0x4000, top5 = 0x5000;
constexpr u64 rwx = 7, write_back = 6 << 3, page_bit = bit(7), accessed = bit(8), dirty = bit(9);
constexpr u64 eptp = root | 6 | 3 << 3;
constexpr u64 gpa = 0x0000'0000'0012'3456; // PML4E 0, PDPTE 0, PDE 0, PTE 123H

struct Log final : PageModificationLog {
    bool full() const override { return is_full; }
    void add(GuestPhysical page) override { pages.push_back(page.value); }
    bool is_full = false;
    std::vector<u64> pages;
};

struct Walker {
    Walker() {
        ept.set_pointer(eptp);
        entry(root, 0, level3 | rwx);
        entry(level3, 0, level2 | rwx);
        entry(level2, 0, level1 | rwx);
        pte(0x77000 | write_back | rwx);
    }
    void entry(u64 table, unsigned index, u64 value) {
        memory.store<u64>(Physical{table + 8 * index}, value);
    }
    u64 entry(u64 table, unsigned index) { return memory.load<u64>(Physical{table + 8 * index}); }
    void pte(u64 value) { entry(level1, 0x123, value); }
    u64 pte() { return entry(level1, 0x123); }

    static SecondLevelAccess of(AccessType type) {
        return {.type = type, .linear_valid = true, .linear = 0xABC};
    }
    Result<SecondLevelPage> translate(AccessType type, u64 address = gpa) {
        return ept.translate(GuestPhysical{address}, of(type));
    }
    bool allowed(AccessType type) { return translate(type).ok(); }
    /// What the fault of this access is.
    EptFault fault(const SecondLevelAccess& access, u64 address = gpa) {
        const auto result = ept.translate(GuestPhysical{address}, access);
        if (result.ok()) return {};
        CHECK(result.stop().kind == Stop::Kind::second_level);
        return ept.fault();
    }
    EptFault fault(AccessType type, u64 address = gpa) { return fault(of(type), address); }
    bool misconfigured() { return fault(AccessType::read).kind == EptFault::Kind::misconfiguration; }

    PhysicalMemory memory{1 << 20};
    Ept ept{memory};
};

constexpr auto read = AccessType::read, write = AccessType::write, execute = AccessType::execute;

} // namespace

TEST_CASE("EPT: pages of 4 KBytes, 2 MBytes and 1 GByte [SDM 3C 28.2.2]") {
    Walker t;
    CHECK(t.translate(read).value().physical == Physical{0x77456});
    CHECK(t.translate(read).value().bytes == 0x1000);
    t.entry(level2, 0, u64{0x4000'0000} | page_bit | write_back | rwx);
    CHECK(t.translate(read).value().physical == Physical{0x4012'3456});
    CHECK(t.translate(read).value().bytes == 0x20'0000);
    t.entry(level3, 0, u64{0x1'4000'0000} | page_bit | write_back | rwx);
    CHECK(t.translate(read).value().physical == Physical{0x1'4012'3456});
    CHECK(t.translate(read).value().bytes == 0x4000'0000);
}

TEST_CASE("EPT: five levels when EPTP[5:3] is 4 [SDM 3C 24.6.11]") {
    Walker t;
    t.entry(top5, 0, root | rwx);
    t.ept.set_pointer(top5 | 6 | 4 << 3);
    CHECK(t.translate(read).value().physical == Physical{0x77456});
    CHECK(t.fault(read, u64{1} << 48).kind == EptFault::Kind::violation); // PML5E 1 is not present
}

TEST_CASE("EPT: rights are those that every entry gives; execute-only exists [SDM 3C 28.2.2]") {
    Walker t;
    t.pte(0x77000 | write_back | 1);
    CHECK(t.allowed(read));
    CHECK(!t.allowed(write));
    CHECK(!t.allowed(execute));
    const SecondLevelPage page = t.translate(read).value();
    CHECK((page.read && !page.write && !page.execute));
    t.pte(0x77000 | write_back | 4);
    CHECK(!t.allowed(read));
    CHECK(t.allowed(execute));
    t.pte(0x77000 | write_back | rwx);
    t.entry(level3, 0, level2 | 5);
    CHECK(t.allowed(read));
    CHECK(!t.allowed(write));
    CHECK(t.allowed(execute));
}

TEST_CASE("EPT violation: qualification bits 0 to 8 [SDM 3C Table 27-7]") {
    Walker t;
    t.ept.set_features({.advanced_information = false});
    t.pte(0x77000 | write_back | 5);
    CHECK(t.fault(write).qualification == (bit(1) | bit(3) | bit(5) | bit(7) | bit(8)));
    CHECK(t.ept.fault().guest_physical == gpa);
    CHECK(t.ept.fault().guest_linear == 0xABC);
    t.pte(0x77000 | write_back | 3);
    CHECK(t.fault(execute).qualification == (bit(2) | bit(3) | bit(4) | bit(7) | bit(8)));
    SUBCASE("bits 5:3 are 0 if any entry was not present") {
        t.pte(0x77000 | write_back);
        CHECK(t.fault(read).qualification == (bit(0) | bit(7) | bit(8)));
    }
    SUBCASE("bit 8 is 0 for guest paging structures") {
        t.pte(0);
        SecondLevelAccess access = Walker::of(read);
        access.paging_structure = true;
        CHECK(t.fault(access).qualification == (bit(0) | bit(7)));
        access.type = write;
        CHECK(t.fault(access).qualification == (bit(1) | bit(7)));
    }
    SUBCASE("with accessed and dirty flags those accesses are writes, bits 0 and 1") {
        t.ept.set_pointer(eptp | EPTP::accessed_dirty);
        SecondLevelAccess access = Walker::of(read);
        access.paging_structure = true;
        t.pte(0x77000 | write_back | 5);
        CHECK(t.fault(access).qualification == (bit(0) | bit(1) | bit(3) | bit(5) | bit(7)));
    }
    SUBCASE("no linear address: PDPTE loads") {
        t.pte(0);
        CHECK(t.fault(SecondLevelAccess{}).qualification == bit(0));
        CHECK(t.ept.fault().guest_linear == 0);
    }
}

TEST_CASE("EPT violation: advanced information in bits 9 to 11 [SDM 3C Table 27-7]") {
    Walker t;
    t.pte(0);
    SecondLevelAccess access = Walker::of(read);
    constexpr u64 base = bit(0) | bit(7) | bit(8);
    CHECK(t.fault(access).qualification == (base | bit(9))); // a user-mode address
    access.supervisor_page = access.writable_page = access.execute_disable_page = true;
    CHECK(t.fault(access).qualification == (base | bit(10) | bit(11)));
    access.paging_structure = true;
    CHECK(t.fault(access).qualification == (bit(0) | bit(7)));
}

TEST_CASE("EPT misconfiguration: rights 010 and 110, and 100 without execute-only [SDM 3C 28.2.3.1]") {
    Walker t;
    for (const u64 rights : {u64{2}, u64{6}}) {
        t.pte(0x77000 | write_back | rights);
        CHECK(t.misconfigured());
        t.pte(0x77000 | write_back | rwx);
        t.entry(level3, 0, level2 | rights);
        CHECK(t.misconfigured());
        t.entry(level3, 0, level2 | rwx);
    }
    t.pte(0x77000 | write_back | 4);
    CHECK(t.fault(execute).kind == EptFault::Kind::none);
    t.ept.set_features({.execute_only = false});
    CHECK(t.fault(execute).kind == EptFault::Kind::misconfiguration);
}

TEST_CASE("EPT misconfiguration: memory types 2, 3 and 7 of a leaf [SDM 3C 28.2.3.1]") {
    Walker t;
    for (u64 type = 0; type < 8; ++type) {
        t.pte(0x77000 | type << 3 | rwx);
        CHECK(t.misconfigured() == (type == 2 || type == 3 || type == 7));
    }
}

TEST_CASE("EPT misconfiguration: reserved bits, each at its edges [SDM 3C 28.2.3.1, Tables 28-1 to 28-6]") {
    Walker t;
    const auto check_bits = [&](u64 table, unsigned index, std::initializer_list<unsigned> reserved,
                                std::initializer_list<unsigned> ignored) {
        const u64 good = t.entry(table, index);
        for (const unsigned n : reserved) {
            t.entry(table, index, good | bit(n));
            CHECK_MESSAGE(t.misconfigured(), "bit ", n, " of the entry in ", table);
        }
        for (const unsigned n : ignored) {
            t.entry(table, index, good | bit(n));
            CHECK_MESSAGE(!t.misconfigured(), "bit ", n, " of the entry in ", table);
        }
        t.entry(table, index, good);
    };
    check_bits(root, 0, {3, 6, 7, 46, 51}, {8, 11, 52, 63});
    check_bits(level3, 0, {3, 6, 46, 51}, {8, 11, 52, 63});
    check_bits(level2, 0, {3, 6, 46, 51}, {8, 11, 52, 63});
    check_bits(level1, 0x123, {46, 51}, {6, 7, 8, 9, 11, 52, 63});
    t.entry(level2, 0, u64{0x4000'0000} | page_bit | write_back | rwx);
    check_bits(level2, 0, {12, 20, 46, 51}, {6, 8, 21, 63});
    t.entry(level3, 0, u64{0x1'4000'0000} | page_bit | write_back | rwx);
    check_bits(level3, 0, {12, 29, 46, 51}, {6, 8, 30, 63});
    SUBCASE("bit 7 where there are no pages of that size") {
        t.ept.set_features({.pages_2m = false, .pages_1g = false});
        CHECK(t.misconfigured());
        t.entry(level3, 0, level2 | rwx);
        CHECK(t.misconfigured());
    }
}

TEST_CASE("EPT: the first entry that is not present, or misconfigured, ends the walk [SDM 3C 28.2.3]") {
    Walker t;
    t.entry(level3, 0, 0);
    t.entry(level2, 0, level1 | 2);
    CHECK(t.fault(read).kind == EptFault::Kind::violation);
    t.entry(level3, 0, level2 | 1); // a violation of rights is only seen at the end
    CHECK(t.fault(write).kind == EptFault::Kind::misconfiguration);
}

TEST_CASE("EPT: accessed flags on the way, the dirty flag in the leaf [SDM 3C 28.2.4]") {
    Walker t;
    CHECK(t.translate(write).value().write);
    CHECK((t.pte() & (accessed | dirty)) == 0); // EPTP[6] = 0: not touched
    t.ept.set_pointer(eptp | EPTP::accessed_dirty);
    CHECK(!t.translate(read).value().write); // a later write must set the dirty flag
    CHECK((t.pte() & (accessed | dirty)) == accessed);
    CHECK((t.entry(root, 0) & accessed) != 0);
    CHECK((t.entry(level3, 0) & accessed) != 0);
    CHECK((t.entry(level2, 0) & (accessed | dirty)) == accessed);
    CHECK(t.translate(write).value().write);
    CHECK((t.pte() & (accessed | dirty)) == (accessed | dirty));
    SUBCASE("guest paging structures are written to as far as EPT is concerned") {
        t.pte(0x77000 | write_back | rwx);
        SecondLevelAccess access = Walker::of(read);
        access.paging_structure = true;
        CHECK(t.fault(access).kind == EptFault::Kind::none);
        CHECK((t.pte() & dirty) != 0);
    }
    SUBCASE("a refused access sets nothing") {
        t.pte(0x77000 | write_back | 5);
        CHECK(t.fault(write).kind == EptFault::Kind::violation);
        CHECK((t.pte() & (accessed | dirty)) == 0);
    }
    SUBCASE("nor does a debugger's look") {
        t.pte(0x77000 | write_back | rwx);
        SecondLevelAccess access = Walker::of(read);
        access.probe = true;
        CHECK(t.fault(access).kind == EptFault::Kind::none);
        CHECK((t.pte() & accessed) == 0);
    }
}

TEST_CASE("Page-modification logging: an entry for each dirty flag set, an event when full [SDM 3C 28.2.5]") {
    Walker t;
    Log log;
    t.ept.set_pointer(eptp | EPTP::accessed_dirty);
    t.ept.set_log(&log);
    CHECK(t.allowed(read));
    CHECK(log.pages.empty());
    CHECK(t.allowed(write));
    CHECK(t.allowed(write));
    CHECK(log.pages == std::vector<u64>{gpa & ~u64{0xFFF}});
    log.is_full = true;
    CHECK(t.allowed(write)); // already dirty
    t.pte(0x77000 | write_back | rwx);
    CHECK(t.allowed(read));
    CHECK(t.fault(write).kind == EptFault::Kind::log_full);
    CHECK((t.pte() & dirty) == 0);
    CHECK(log.pages.size() == 1);
}
