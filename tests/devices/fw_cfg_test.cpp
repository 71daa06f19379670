// fw_cfg: items, the file directory, DMA, hostile requests.
#include "devices/fw_cfg.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct FwCfgHarness {
    FakeMemory memory;
    FwCfg fw{memory, {.ram_bytes = 0x1'2345'6789, .cpus = 3, .max_cpus = 4}};
    void select(u16 selector) { fw.port_write(0x510, 2, selector); }
    u64 number(unsigned bytes) {
        u64 value = 0;
        for (unsigned i = 0; i < bytes; ++i) value |= u64{fw.port_read(0x511, 1)} << (8 * i);
        return value;
    }
    std::string text(unsigned bytes) {
        std::string result;
        for (unsigned i = 0; i < bytes; ++i) result.push_back(static_cast<char>(fw.port_read(0x511, 1)));
        return result;
    }
    /// A request at 1000H; returns what is left in its control field.
    u32 dma(u32 control, u32 length, u64 to) {
        const auto put_big = [this](u64 at, u64 value, unsigned bytes) {
            for (unsigned i = 0; i < bytes; ++i)
                memory.ram[at + i] = static_cast<u8>(value >> (8 * (bytes - 1 - i)));
        };
        put_big(0x1000, control, 4);
        put_big(0x1004, length, 4);
        put_big(0x1008, to, 8);
        fw.port_write(0x514, 4, 0);
        fw.port_write(0x518, 4, 0x0010'0000); // 1000H, big-endian
        return static_cast<u32>(memory.ram[0x1003]) | static_cast<u32>(memory.get(0x1000, 3)) << 8;
    }
};

} // namespace

TEST_CASE("fw_cfg: signature, interface version, legacy numbers [QEMU fw_cfg]") {
    FwCfgHarness t;
    t.select(0x00);
    CHECK(t.text(4) == "QEMU");
    CHECK(t.number(1) == 0);
    t.select(0x01);
    CHECK(t.number(4) == 3);
    t.select(0x03);
    CHECK(t.number(8) == 0x1'2345'6789);
    t.select(0x05);
    CHECK(t.number(2) == 3);
    t.select(0x0F);
    CHECK(t.number(2) == 4);
    t.select(0x7777);
    CHECK(t.number(4) == 0);
}

TEST_CASE("fw_cfg: the file directory lists names, sizes and selectors, big-endian") {
    FwCfgHarness t;
    CHECK(t.fw.add_file("etc/one", {1, 2, 3}) == 0x20);
    CHECK(t.fw.add_file("opt/two", std::vector<u8>(300, 7)) == 0x21);
    t.select(0x19);
    CHECK(t.number(4) == 0x0200'0000);
    CHECK(t.number(4) == 0x0300'0000);
    CHECK(t.number(2) == 0x2000);
    t.number(2);
    CHECK(t.text(56) == std::string("etc/one") + std::string(49, '\0'));
    CHECK(t.number(4) == 0x2C01'0000);
    CHECK(t.number(2) == 0x2100);
    t.select(0x20);
    CHECK(t.number(4) == 0x0003'0201);
}

TEST_CASE("fw_cfg: DMA announces itself, selects, reads, skips [QEMU fw_cfg DMA]") {
    FwCfgHarness t;
    CHECK(t.fw.port_read(0x514, 4) == 0x554D'4551);
    CHECK(t.fw.port_read(0x518, 4) == 0x4746'4320);
    t.fw.add_file("data", {1, 2, 3, 4, 5, 6, 7, 8});
    CHECK(t.dma(0x0020'000A, 3, 0x2000) == 0);
    CHECK(t.memory.get(0x2000, 4) == 0x0003'0201);
    CHECK(t.dma(0x0000'0004, 2, 0) == 0);
    CHECK(t.dma(0x0000'0002, 5, 0x3000) == 0); // past the end: zeros
    CHECK(t.memory.get(0x3000, 5) == 0x08'0706);
    CHECK(t.dma(0x0020'0018, 4, 0x2000) == 1); // nothing is writable
}

TEST_CASE("fw_cfg: hostile lengths and addresses") {
    FwCfgHarness t;
    t.fw.add_file("data", {1, 2, 3});
    CHECK(t.dma(0x0020'000A, 0xFFFF'FFFF, 0x2000) == 1);
    CHECK(t.dma(0x0020'000A, 3, ~u64{0} - 1) == 0);
    CHECK(t.dma(0x7777'000A, 16, 0x2000) == 0);
    t.fw.port_write(0x514, 4, 0xFFFF'FFFF);
    t.fw.port_write(0x518, 4, 0xFFFF'FFFF);
    CHECK(t.dma(0x0020'000A, 3, 0x2000) == 0);
}
