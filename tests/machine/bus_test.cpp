#include "machine/bus.hpp"

#include <doctest/doctest.h>
#include <string>
#include <utility>
#include <vector>

using namespace exeunt;

namespace {

/// Remembers accesses and answers with a pattern.
struct Probe final : PortDevice, MmioDevice {
    u32 port_read(u16 port, unsigned size) override {
        log.push_back("r" + std::to_string(port) + "/" + std::to_string(size));
        return 0x1122'3344;
    }
    void port_write(u16 port, unsigned size, u32 value) override {
        log.push_back("w" + std::to_string(port) + "/" + std::to_string(size) + "=" + std::to_string(value));
    }
    u64 mmio_read(u64 offset, unsigned size) override {
        log.push_back("R" + std::to_string(offset) + "/" + std::to_string(size));
        return 0x8877'6655'4433'2211;
    }
    void mmio_write(u64 offset, unsigned size, u64 value) override {
        log.push_back("W" + std::to_string(offset) + "/" + std::to_string(size) + "=" + std::to_string(value));
    }
    std::vector<std::string> take() { return std::exchange(log, {}); }
    std::vector<std::string> log;
};

using Log = std::vector<std::string>;

}  // namespace

TEST_CASE("bus: nobody's ports and addresses read as all ones, writes to them are dropped") {
    Bus bus;
    CHECK(bus.port_read(0x80, 1) == 0xFF);
    CHECK(bus.port_read(0x80, 2) == 0xFFFF);
    CHECK(bus.port_read(0xFFFF, 4) == 0xFFFF'FFFF);
    bus.port_write(0x80, 4, 1);
    CHECK(bus.mmio_read(0xD000'0000, 8) == ~u64{0});
    CHECK(bus.mmio_read(0xD000'0000, 1) == 0xFF);
    bus.mmio_write(0xD000'0000, 4, 1);
}

TEST_CASE("bus: an access within one device stays whole, across devices it falls apart into bytes") {
    Bus bus;
    Probe first, second;
    bus.add_ports(0x100, 2, first);
    bus.add_ports(0x102, 1, second);
    CHECK(bus.port_read(0x100, 2) == 0x3344);
    CHECK(first.take() == Log{"r256/2"});
    bus.port_write(0x100, 4, 0x0403'0201);
    CHECK(first.take() == Log{"w256/1=1", "w257/1=2"});
    CHECK(second.take() == Log{"w258/1=3"});
    CHECK(bus.port_read(0x101, 4) == 0xFFFF'4444);
}

TEST_CASE("bus: a wide port takes accesses of its size whole [PCI 3.0 3.2.2.3.2]") {
    Bus bus;
    Probe config, reset;
    bus.add_ports(0xCF8, 8, config);
    bus.add_ports(0xCF9, 1, reset);
    bus.add_wide_port(0xCF8, 4, config);
    bus.port_write(0xCF8, 4, 0x8000'0000);
    CHECK(config.take() == Log{"w3320/4=2147483648"});
    CHECK(reset.take().empty());
    bus.port_write(0xCF9, 1, 6);
    CHECK(reset.take() == Log{"w3321/1=6"});
}

TEST_CASE("bus: MMIO offsets count from the range; accesses that cross eight bytes are split") {
    Bus bus;
    Probe device;
    bus.add_mmio(0xFF00'0000, 0x1000, device);
    CHECK(bus.mmio_read(0xFF00'0010, 4) == 0x4433'2211);
    CHECK(device.take() == Log{"R16/4"});
    CHECK(bus.mmio_read(0xFF00'0006, 4) == 0x1111'1111);
    CHECK(device.take() == Log{"R6/1", "R7/1", "R8/1", "R9/1"});
    bus.mmio_write(0xFF00'0FFC, 4, 0x1'0000'0005);
    CHECK(device.take() == Log{"W4092/4=5"});
    CHECK(bus.mmio_read(0xFF00'1000, 4) == 0xFFFF'FFFF);
    CHECK(device.take().empty());
}
