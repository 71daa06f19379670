// The nested walk: formats, rights, faults and their error, accessed and dirty bits. APM 2 15.25.
#include "mmu/npt.hpp"

#include <doctest/doctest.h>

using namespace exeunt;

namespace {

constexpr u64 root = 0x1000, level3 = 0x2000, level2 = 0x3000, level1 = 0x4000, top5 = 0x5000;
constexpr u64 all = 7, large = bit(7), accessed = bit(5), dirty = bit(6), nx = bit(63);
constexpr u64 long_mode = EFER::LMA | EFER::LME | EFER::NXE;
constexpr u64 gpa = 0x12'3456;

struct Walker {
    Walker() {
        npt.set_features(48, true);
        npt.set_tables(root, CR4::PAE, long_mode);
        entry(root, 0, level3 | all);
        entry(level3, 0, level2 | all);
        entry(level2, 0, level1 | all);
        entry(level1, 0x123, 0x7'7000 | all);
    }
    void entry(u64 table, unsigned index, u64 value) {
        memory.store<u64>(Physical{table + 8 * index}, value);
    }
    u64 entry(u64 table, unsigned index) { return memory.load<u64>(Physical{table + 8 * index}); }
    static SecondLevelAccess of(AccessType type, bool tables = false) {
        return {.type = type, .paging_structure = tables};
    }
    /// The error of the fault, or 0 when the access is allowed.
    u64 error(AccessType type, bool tables = false, u64 address = gpa) {
        const auto result = npt.translate(GuestPhysical{address}, of(type, tables));
        if (result.ok()) return 0;
        CHECK(result.stop().kind == Stop::Kind::second_level);
        CHECK(npt.fault().guest_physical == address);
        return npt.fault().error;
    }
    u64 physical(u64 address = gpa) {
        const auto result = npt.translate(GuestPhysical{address}, of(AccessType::read));
        REQUIRE(result.ok());
        return result.value().physical.value;
    }

    PhysicalMemory memory{1 << 20};
    Npt npt{memory};
};

constexpr AccessType read = AccessType::read, write = AccessType::write, execute = AccessType::execute;

} // namespace

TEST_CASE("Nested walk: pages of 4 KBytes, 2 MBytes and 1 GByte [APM 2 15.25.5]") {
    Walker w;
    CHECK(w.physical() == 0x7'7456);
    w.entry(level2, 0, 0x40'0000 | large | all);
    CHECK(w.physical() == 0x52'3456);
    w.entry(level3, 0, 0x4000'0000 | large | all);
    CHECK(w.physical() == 0x4012'3456);
}

TEST_CASE("Nested walk: the format is that of the host's paging mode [APM 2 15.25.3]") {
    Walker w;
    w.entry(top5, 0, root | all);
    w.npt.set_tables(top5, CR4::PAE | CR4::LA57, long_mode);
    CHECK(w.physical() == 0x7'7456);
    // PAE: four entries without rights, then two levels.
    w.entry(level3, 0, level2 | 1);
    w.npt.set_tables(level3, CR4::PAE, EFER::NXE);
    CHECK(w.physical() == 0x7'7456);
    CHECK(w.error(read, false, u64{1} << 32) == (NPF::final_address | PFEC::U)); // beyond its reach
    // 32-bit, with a 4-MByte page.
    w.memory.store<u32>(Physical{0x6000}, 0x40'0000 | large | all);
    w.npt.set_tables(0x6000, CR4::PSE, 0);
    CHECK(w.physical() == 0x52'3456);
}

TEST_CASE("Nested faults: EXITINFO1 of each access [APM 2 15.25.6]") {
    Walker w;
    constexpr u64 leaf = 0x7'7000;
    struct Row {
        u64 entry;
        AccessType type;
        bool tables;
        u64 error;
    };
    constexpr u64 f = NPF::final_address | PFEC::U, t = NPF::guest_tables | PFEC::U | PFEC::W;
    const Row rows[] = {
        {0, read, false, f},
        {0, write, false, f | PFEC::W},
        {0, execute, false, f | PFEC::I},
        {0, read, true, t},
        {leaf | all, write, false, 0},
        {leaf | 5, write, false, f | PFEC::P | PFEC::W},
        {leaf | 5, read, false, 0},
        {leaf | 5, read, true, t | PFEC::P},  // accesses to guest tables are writes
        {leaf | 3, read, false, f | PFEC::P}, // every access is a user's
        {leaf | all | nx, execute, false, f | PFEC::P | PFEC::I},
        {leaf | all | nx, read, false, 0},
        {leaf | all | bit(50), read, false, f | PFEC::P | PFEC::RSVD},
    };
    for (const Row& row : rows) {
        CAPTURE(row.entry);
        w.entry(level1, 0x123, row.entry);
        CHECK(w.error(row.type, row.tables) == row.error);
    }
    w.npt.set_tables(root, CR4::PAE, EFER::LMA | EFER::LME); // without NXE bit 63 is reserved
    w.entry(level1, 0x123, leaf | all | nx);
    CHECK(w.error(read) == (f | PFEC::P | PFEC::RSVD));
}

TEST_CASE(
    "Nested accessed and dirty bits: dirty with a write, or an access to a guest's tables [APM 2 15.25.5]") {
    Walker w;
    const auto result = w.npt.translate(GuestPhysical{gpa}, Walker::of(read));
    CHECK(!result.value().write); // until the dirty bit is set
    CHECK((w.entry(root, 0) & (accessed | dirty)) == accessed);
    CHECK((w.entry(level1, 0x123) & (accessed | dirty)) == accessed);
    CHECK(w.npt.translate(GuestPhysical{gpa}, Walker::of(write)).value().write);
    CHECK((w.entry(level1, 0x123) & dirty) != 0);
    CHECK((w.entry(level2, 0) & dirty) == 0);
    Walker tables;
    CHECK(tables.error(read, true) == 0);
    CHECK((tables.entry(level1, 0x123) & dirty) != 0);
    Walker probe;
    SecondLevelAccess look = Walker::of(read);
    look.probe = true;
    CHECK(probe.npt.translate(GuestPhysical{gpa}, look).ok());
    CHECK((probe.entry(level1, 0x123) & accessed) == 0);
}
