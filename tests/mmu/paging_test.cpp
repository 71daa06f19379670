// The walk of the paging structures and its page faults. SDM 3A ch. 4 "Paging".
#include "mmu/mmu.hpp"

#include <doctest/doctest.h>

using namespace exeunt;

namespace {

/// Physical memory, control registers and an MMU; tables are built entry by entry.
struct Paging {
    PhysicalMemory memory{16 << 20};
    ControlRegisters control;
    Mmu mmu{memory, control};

    static constexpr u64 pml4 = 0x1000, pdpt = 0x2000, pd = 0x3000, pt = 0x4000;

    explicit Paging(u64 leaf_bits = 7) {
        control.cr0 = CR0::PE | CR0::PG | CR0::WP;
        control.cr4 = CR4::PAE;
        control.efer = EFER::LMA | EFER::LME | EFER::NXE;
        control.cr3 = pml4;
        memory.store<u64>(Physical{pml4}, pdpt | 7);
        memory.store<u64>(Physical{pdpt}, pd | 7);
        memory.store<u64>(Physical{pd}, pt | 7);
        leaf(0x5000 | leaf_bits);
    }
    /// The entry of linear address 1000H.
    void leaf(u64 entry) { memory.store<u64>(Physical{pt + 8}, entry); }
    u64 leaf() { return memory.load<u64>(Physical{pt + 8}); }
    Result<Translation> walk(AccessType type, Privilege privilege = Privilege::supervisor_smap_off, u64 at = 0x1234) {
        return mmu.walk(Linear{at}, {type, privilege});
    }
};

constexpr auto user = Privilege::user;

}  // namespace

TEST_CASE("4-level paging: a 4-KByte page [SDM 3A 4.5]") {
    Paging t;
    auto result = t.walk(AccessType::read);
    REQUIRE(result.ok());
    CHECK(result.value().physical == Physical{0x5234});
    CHECK(result.value().bytes == 4096);
}

TEST_CASE("4-level paging: 2-MByte and 1-GByte pages [SDM 3A Table 4-16, 4-18]") {
    Paging t;
    t.memory.store<u64>(Physical{Paging::pd}, 0x60'0087);
    CHECK(t.walk(AccessType::read).value().physical == Physical{0x60'1234});
    t.memory.store<u64>(Physical{Paging::pdpt}, 0x4000'0087);
    CHECK(t.walk(AccessType::read).value().physical == Physical{0x4000'1234});
    SUBCASE("bits between the page's base and bit 13 are reserved") {
        t.memory.store<u64>(Physical{Paging::pdpt}, 0x4000'0087 | (1u << 20));
        CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    }
    SUBCASE("without 1-GByte pages, PS in a PDPTE is reserved") {
        t.mmu.set_features({.physical_bits = 46, .gigabyte_pages = false});
        CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    }
}

TEST_CASE("page faults report P, W, U, RSVD and I [SDM 3A 4.7]") {
    Paging t;
    SUBCASE("not present") {
        t.leaf(0);
        CHECK(t.walk(AccessType::read).stop() == page_fault(0, 0x1234));
        CHECK(t.walk(AccessType::write, user).stop() == page_fault(PFEC::W | PFEC::U, 0x1234));
        CHECK(t.walk(AccessType::execute, user).stop() == page_fault(PFEC::U | PFEC::I, 0x1234));
    }
    SUBCASE("fetches are not reported without NXE and SMEP") {
        t.leaf(0);
        t.control.efer &= ~EFER::NXE;
        CHECK(t.walk(AccessType::execute).stop() == page_fault(0, 0x1234));
    }
    SUBCASE("read-only") {
        t.leaf(0x5005);
        CHECK(t.walk(AccessType::write, user).stop() == page_fault(PFEC::P | PFEC::W | PFEC::U, 0x1234));
        CHECK(t.walk(AccessType::write).stop() == page_fault(PFEC::P | PFEC::W, 0x1234));
        t.control.cr0 &= ~CR0::WP;
        CHECK(t.walk(AccessType::write).ok());
    }
    SUBCASE("supervisor page") {
        t.leaf(0x5003);
        CHECK(t.walk(AccessType::read, user).stop() == page_fault(PFEC::P | PFEC::U, 0x1234));
        CHECK(t.walk(AccessType::read).ok());
    }
    SUBCASE("a restriction at any level counts") {
        t.memory.store<u64>(Physical{Paging::pdpt}, Paging::pd | 1);
        CHECK(t.walk(AccessType::read, user).stop() == page_fault(PFEC::P | PFEC::U, 0x1234));
    }
    SUBCASE("execute-disable") {
        t.leaf(0x5007 | bit(63));
        CHECK(t.walk(AccessType::execute, user).stop() == page_fault(PFEC::P | PFEC::U | PFEC::I, 0x1234));
        t.control.efer &= ~EFER::NXE;
        CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    }
    SUBCASE("physical address beyond MAXPHYADDR") {
        t.mmu.set_features({.physical_bits = 40});
        t.leaf(0x5007 | bit(40));
        CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    }
}

TEST_CASE("SMEP and SMAP [SDM 3A 4.6.1]") {
    Paging t;
    t.control.cr4 |= CR4::SMEP | CR4::SMAP;
    CHECK(t.walk(AccessType::execute).stop() == page_fault(PFEC::P | PFEC::I, 0x1234));
    CHECK(t.walk(AccessType::execute, user).ok());
    CHECK(t.walk(AccessType::read, Privilege::supervisor).stop() == page_fault(PFEC::P, 0x1234));
    CHECK(t.walk(AccessType::read, Privilege::supervisor_smap_off).ok());
}

TEST_CASE("protection keys [SDM 3A 4.6.2]") {
    Paging t;
    t.control.cr4 |= CR4::PKE;
    t.leaf(0x5007 | (u64{3} << 59));
    t.control.pkru = 2u << 6;  // WD3
    CHECK(t.walk(AccessType::read, user).ok());
    CHECK(t.walk(AccessType::write, user).stop() == page_fault(PFEC::P | PFEC::W | PFEC::U | PFEC::PK, 0x1234));
    t.control.pkru = 1u << 6;  // AD3
    CHECK(t.walk(AccessType::read, user).stop() == page_fault(PFEC::P | PFEC::U | PFEC::PK, 0x1234));
    CHECK(t.walk(AccessType::execute, user).ok());
}

TEST_CASE("accessed and dirty flags [SDM 3A 4.8]") {
    Paging t;
    REQUIRE(t.walk(AccessType::read).ok());
    CHECK(t.leaf() == (0x5007 | 0x20));
    CHECK(t.memory.load<u64>(Physical{Paging::pml4}) == (Paging::pdpt | 0x27));
    REQUIRE(t.walk(AccessType::write).ok());
    CHECK(t.leaf() == (0x5007 | 0x60));
    SUBCASE("an access that faults sets none in the last entry") {
        t.leaf(0x5005);
        CHECK_FALSE(t.walk(AccessType::write).ok());
        CHECK(t.leaf() == 0x5005);
    }
}

TEST_CASE("32-bit paging: 4-KByte pages, 4-MByte pages, PSE36 [SDM 3A 4.3]") {
    Paging t;
    t.control.cr4 = CR4::PSE;
    t.control.efer = 0;
    t.memory.store<u32>(Physical{Paging::pml4}, static_cast<u32>(Paging::pt | 7));
    t.memory.store<u32>(Physical{Paging::pt + 4}, 0x6007);
    CHECK(t.walk(AccessType::read).value().physical == Physical{0x6234});
    t.memory.store<u32>(Physical{Paging::pml4}, 0x0080'0087 | (3u << 13));
    CHECK(t.walk(AccessType::read).value().physical == Physical{0x3'0080'1234});
    SUBCASE("bit 21 is reserved") {
        t.memory.store<u32>(Physical{Paging::pml4}, 0x0080'0087 | (1u << 21));
        CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    }
    SUBCASE("without CR4.PSE bit 7 is ignored") {
        t.control.cr4 = 0;
        t.memory.store<u32>(Physical{Paging::pml4}, static_cast<u32>(Paging::pt | 0x87));
        CHECK(t.walk(AccessType::read).value().physical == Physical{0x6234});
    }
}

TEST_CASE("PAE paging takes its PDPTEs from registers [SDM 3A 4.4]") {
    Paging t;
    t.control.efer = EFER::NXE;
    t.control.pdpte[0] = Paging::pd | 1;
    CHECK(t.walk(AccessType::read, user).value().physical == Physical{0x5234});
    t.leaf(0x5007 | bit(52));
    CHECK(t.walk(AccessType::read).stop() == page_fault(PFEC::P | PFEC::RSVD, 0x1234));
    CHECK(t.walk(AccessType::read, user, 0x4000'0000).stop() == page_fault(PFEC::U, 0x4000'0000));
}

TEST_CASE("5-level paging [SDM 3A 4.5]") {
    Paging t;
    t.control.cr4 |= CR4::LA57;
    constexpr u64 pml5 = 0x7000;
    t.control.cr3 = pml5;
    t.memory.store<u64>(Physical{pml5 + 8 * 3}, Paging::pml4 | 7);
    CHECK(t.walk(AccessType::read, user, (u64{3} << 48) + 0x1234).value().physical == Physical{0x5234});
    CHECK_FALSE(t.walk(AccessType::read, user, 0x1234).ok());
}

TEST_CASE("TLB: a cached translation holds until something drops it [SDM 3A 4.10.2]") {
    Paging t;
    const Access read{AccessType::read, user};
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x5000);
    t.leaf(0x6007);
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x5000);
    SUBCASE("INVLPG") { t.mmu.drop_page(Linear{0x1000}); }
    SUBCASE("flush") { t.mmu.flush_current(); }
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x6000);
}

TEST_CASE("TLB: INVLPG anywhere in a large page drops all of it [SDM 3A 4.10.4.1]") {
    Paging t;
    t.memory.store<u64>(Physical{Paging::pd}, 0x60'0087);
    const Access read{AccessType::read, user};
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x60'1000);
    t.memory.store<u64>(Physical{Paging::pd}, 0x80'0087);
    t.mmu.drop_page(Linear{0x10'0000});
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x80'1000);
}

TEST_CASE("TLB: contexts keep their translations while others are current") {
    Paging t;
    const Access read{AccessType::read, user};
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x5000);
    t.leaf(0x6007);
    t.mmu.select({.world = 1});
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x6000);
    t.mmu.select({});
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x5000);
    t.mmu.flush_world(1);
    CHECK(t.mmu.lookup(Linear{0x1234}, read).value()->physical() == 0x5000);
}

TEST_CASE("TLB: a first write to a clean page walks again and sets the dirty flag [SDM 3A 4.8]") {
    Paging t;
    CHECK_FALSE(t.mmu.lookup(Linear{0x1234}, {AccessType::read, user}).value()->writable());
    CHECK(t.mmu.lookup(Linear{0x1234}, {AccessType::write, user}).value()->writable());
    CHECK((t.leaf() & 0x40) != 0);
}
