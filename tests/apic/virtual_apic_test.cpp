// The APIC in a page of memory that both extensions keep.
#include "apic/virtual_apic.hpp"

#include <array>
#include <doctest/doctest.h>

using namespace exeunt;
using Reg = VirtualApic::Register;

namespace {
struct Page {
    std::array<u8, 4096> bytes{};
    VirtualApic apic{bytes.data()};
};
} // namespace

TEST_CASE("virtual APIC: vector x is bit x AND 1FH at first + ((x AND E0H) >> 1) [SDM 3C 29.1]") {
    for (const Reg first : {Reg::ISR, Reg::TMR, Reg::IRR})
        for (unsigned vector = 0; vector < 256; ++vector) {
            Page t;
            t.apic.set_vector_bit(first, static_cast<u8>(vector), true);
            const unsigned at = first + ((vector & 0xE0) >> 1);
            CHECK(t.apic.reg(at) == u32{1} << (vector & 0x1F));
            CHECK(t.bytes[at + (vector & 0x1F) / 8] == 1u << (vector & 7)); // little-endian
            CHECK(t.apic.vector_bit(first, static_cast<u8>(vector)));
            CHECK(t.apic.highest(first) == vector);
            t.apic.set_vector_bit(first, static_cast<u8>(vector), false);
            CHECK(t.bytes == Page{}.bytes);
        }
}

TEST_CASE("virtual APIC: the highest vector of several, 0 of none") {
    Page t;
    CHECK(t.apic.highest(Reg::IRR) == 0);
    t.apic.add_vectors(Reg::IRR, 1, 0x0001'0002); // 21H and 30H
    t.apic.add_vectors(Reg::IRR, 7, 1);           // E0H
    CHECK(t.apic.highest(Reg::IRR) == 0xE0);
    t.apic.add_vectors(Reg::IRR, 1, 4); // 22H, and the others stay
    CHECK(t.apic.vector_word(Reg::IRR, 1) == 0x0001'0006);
    CHECK(t.apic.highest(Reg::ISR) == 0);
}

TEST_CASE("virtual APIC: PPR is TPR unless the class in service is higher [SDM 3A 10.8.3.1]") {
    struct {
        u8 tpr, in_service, ppr;
    } const rows[] = {
        {0x2F, 0x20, 0x2F}, // of one class: TPR whole
        {0x2F, 0x2E, 0x2F}, {0x10, 0x2F, 0x20}, {0x00, 0x00, 0x00},
        {0x0F, 0x00, 0x0F}, {0xF0, 0xEF, 0xF0}, {0xEF, 0xF1, 0xF0},
    };
    for (const auto& row : rows) {
        Page t;
        t.apic.set_reg(Reg::TPR, 0xAABB'CC00u | row.tpr);
        t.apic.set_reg(Reg::PPR, 0xFFFF'FFFF);
        t.apic.update_ppr(row.in_service);
        CHECK(t.apic.reg(Reg::PPR) == row.ppr); // the upper three bytes are cleared
        CHECK(t.apic.reg(Reg::TPR) == (0xAABB'CC00u | row.tpr));
        t.apic.set_tpr(row.tpr);
        CHECK(t.apic.reg(Reg::TPR) == row.tpr);
    }
}

TEST_CASE("virtual APIC: a vector goes from IRR to ISR, and leaves at its EOI [SDM 3A 10.8.4, 10.8.5]") {
    Page t;
    t.apic.set_vector_bit(Reg::IRR, 0x31, true);
    t.apic.set_vector_bit(Reg::IRR, 0x52, true);
    CHECK(t.apic.accept(0x52) == 0x31);
    CHECK(t.apic.vector_bit(Reg::ISR, 0x52));
    CHECK_FALSE(t.apic.vector_bit(Reg::IRR, 0x52));
    CHECK(t.apic.accept(0x31) == 0);
    CHECK(t.apic.highest(Reg::ISR) == 0x52);
    CHECK(t.apic.end_service(0x52) == 0x31);
    CHECK(t.apic.end_service(0x31) == 0);
    CHECK(t.apic.end_service(0x31) == 0); // nothing in service: nothing happens
}
