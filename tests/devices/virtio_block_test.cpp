// virtio block: transport, requests, and rings that break the rules.
#include "devices/pci_host.hpp"
#include "devices/virtio_block.hpp"
#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct FakeDisk final : BlockBackend {
    std::vector<u8> data = std::vector<u8>(64 * 512);
    bool ro = false, broken = false;
    unsigned flushes = 0, reads = 0;
    u64 sectors() const override { return data.size() / 512; }
    bool read_only() const override { return ro; }
    bool read(u64 sector, std::span<u8> to) override {
        ++reads;
        if (broken) return false;
        std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(sector * 512), to.size(), to.begin());
        return true;
    }
    bool write(u64 sector, std::span<const u8> from) override {
        if (broken) return false;
        std::copy(from.begin(), from.end(), data.begin() + static_cast<std::ptrdiff_t>(sector * 512));
        return true;
    }
    bool flush() override {
        ++flushes;
        return !broken;
    }
};

constexpr u64 desc = 0x1000, avail = 0x2000, used = 0x3000, request = 0x4000, data = 0x8000,
              status_at = 0x5000;
constexpr u32 f_next = 1, f_write = 2;

/// A driver: the device is on a PCI host, its queue has 8 entries.
struct DiskHarness {
    FakeMessages messages;
    FakeLine gsi;
    PciHost host{messages, {nullptr, nullptr, nullptr, nullptr, &gsi}, {}};
    FakeMemory memory;
    FakeDisk disk;
    VirtioBlock block{memory, disk};
    u64 bar = 0;
    u16 next = 0;

    explicit DiskHarness(bool start = true) {
        host.attach(block, 4);
        host.assign_resources();
        bar = block.bar_address(0);
        block.config_write(4, 2, 6);
        if (start) bring_up();
    }
    u64 get(u64 offset, unsigned size) { return host.memory_read(bar + offset, size); }
    void put(u64 offset, unsigned size, u64 value) { host.memory_write(bar + offset, size, value); }
    void bring_up() {
        put(0x14, 1, 0);
        put(0x14, 1, 3);
        put(0x08, 4, 1);
        put(0x0C, 4, 1);
        put(0x14, 1, 11);
        put(0x16, 2, 0);
        put(0x18, 2, 8);
        put(0x20, 8, desc);
        put(0x28, 4, avail);
        put(0x2C, 4, 0);
        put(0x30, 8, used);
        put(0x1C, 2, 1);
        put(0x14, 1, 15);
    }
    void descriptor(unsigned n, u64 address, u32 bytes, u32 flags, u16 next_descriptor = 0) {
        memory.put(desc + 16 * n, address, 8);
        memory.put(desc + 16 * n + 8, bytes, 4);
        memory.put(desc + 16 * n + 12, flags, 2);
        memory.put(desc + 16 * n + 14, next_descriptor, 2);
    }
    void submit(u16 head) {
        memory.put(avail + 4 + 2 * (next % 8), head, 2);
        memory.put(avail + 2, ++next, 2);
        put(0x3000, 2, 0);
    }
    void header(u32 type, u64 sector) {
        memory.put(request, type, 4);
        memory.put(request + 8, sector, 8);
        memory.put(status_at, 0x77, 1);
    }
    /// A request of header, data and status descriptors; returns the status byte.
    u64 transfer(u32 type, u64 sector, u32 bytes, bool in) {
        header(type, sector);
        descriptor(0, request, 16, f_next, 1);
        descriptor(1, data, bytes, f_next | (in ? f_write : 0), 2);
        descriptor(2, status_at, 1, f_write);
        submit(0);
        return memory.get(status_at, 1);
    }
    u64 device_status() { return get(0x14, 1); }
};

} // namespace

TEST_CASE("virtio block: PCI identity and the five structure capabilities [VIRTIO 4.1]") {
    DiskHarness t(false);
    CHECK(t.block.config_read(0, 4) == 0x1042'1AF4);
    std::vector<unsigned> types;
    for (unsigned at = t.block.config_read(0x34, 1); at != 0; at = t.block.config_read(at + 1, 1))
        if (t.block.config_read(at, 1) == 9) types.push_back(t.block.config_read(at + 3, 1));
    CHECK(types == std::vector<unsigned>{1, 3, 4, 2, 5});
}

TEST_CASE("virtio block: features, device configuration, queue limits [VIRTIO 4.1.4.3, 5.2.4]") {
    DiskHarness t(false);
    CHECK(t.get(0x04, 4) == 0x246);
    t.put(0x00, 4, 1);
    CHECK(t.get(0x04, 4) == 1);
    t.put(0x00, 4, 2);
    CHECK(t.get(0x04, 4) == 0);
    CHECK(t.get(0x12, 2) == 1);
    CHECK(t.get(0x18, 2) == 256);
    CHECK(t.get(0x2000, 8) == 64);
    CHECK(t.get(0x2014, 4) == 512);
    t.put(0x18, 2, 3); // not a power of two
    CHECK(t.get(0x18, 2) == 256);
    t.put(0x18, 2, 512);
    CHECK(t.get(0x18, 2) == 256);
    t.put(0x16, 2, 1);
    CHECK(t.get(0x18, 2) == 0);
    t.disk.ro = true;
    t.put(0x00, 4, 0);
    CHECK(t.get(0x04, 4) == 0x266);
}

TEST_CASE("virtio block: FEATURES_OK needs VERSION_1 and nothing that is not offered [VIRTIO 2.1.1]") {
    DiskHarness t(false);
    t.put(0x14, 1, 3);
    t.put(0x14, 1, 11);
    CHECK(t.device_status() == 3);
    t.put(0x08, 4, 1);
    t.put(0x0C, 4, 0x3);
    t.put(0x14, 1, 11);
    CHECK(t.device_status() == 3);
    t.put(0x0C, 4, 0x1);
    t.put(0x14, 1, 11);
    CHECK(t.device_status() == 11);
    t.put(0x14, 1, 0);
    CHECK(t.device_status() == 0);
}

TEST_CASE("virtio block: write, read back, used ring and INTx [VIRTIO 5.2.6]") {
    DiskHarness t;
    for (unsigned i = 0; i < 1024; ++i) t.memory.ram[data + i] = static_cast<u8>(i * 7);
    CHECK(t.transfer(1, 5, 1024, false) == 0);
    CHECK(t.disk.data[5 * 512 + 9] == 63);
    CHECK(t.memory.get(used + 2, 2) == 1);
    CHECK(t.memory.get(used + 8, 4) == 1);
    CHECK(t.gsi.level);
    CHECK(t.get(0x1000, 1) == 1);
    CHECK_FALSE(t.gsi.level);
    std::fill_n(t.memory.ram.begin() + data, 1024, 0);
    CHECK(t.transfer(0, 5, 1024, true) == 0);
    CHECK(t.memory.ram[data + 9] == 63);
    CHECK(t.memory.get(used + 4 + 8 + 4, 4) == 1025);
    for (unsigned i = 0; i < 20; ++i) CHECK(t.transfer(0, i, 512, true) == 0); // around the ring
    CHECK(t.memory.get(used + 2, 2) == 22);
}

TEST_CASE("virtio block: header, data and status may be cut anywhere [VIRTIO 2.4.4]") {
    DiskHarness t;
    for (unsigned i = 0; i < 512; ++i) t.disk.data[512 + i] = static_cast<u8>(i);
    t.header(0, 1);
    t.descriptor(0, request, 5, f_next, 1);
    t.descriptor(1, request + 5, 11, f_next, 2);
    t.descriptor(2, data, 100, f_next | f_write, 3);
    t.descriptor(3, data + 100, 413, f_write);
    t.submit(0);
    CHECK(t.memory.ram[data + 511] == 0xFF);
    CHECK(t.memory.ram[data + 512] == 0); // the status
}

TEST_CASE("virtio block: flush, identity, unsupported requests [VIRTIO 5.2.6]") {
    DiskHarness t;
    CHECK(t.transfer(4, 0, 0, false) == 0);
    CHECK(t.disk.flushes == 1);
    CHECK(t.transfer(8, 0, 20, true) == 0);
    CHECK(t.memory.ram[data] == 'e');
    CHECK(t.transfer(99, 0, 512, true) == 2);
    CHECK(t.device_status() == 15);
}

TEST_CASE(
    "virtio block: errors of range, size, medium and read-only disks are in the status [VIRTIO 5.2.6]") {
    DiskHarness t;
    CHECK(t.transfer(0, 64, 512, true) == 1);
    CHECK(t.transfer(0, 63, 1024, true) == 1);
    CHECK(t.transfer(0, ~u64{0}, 512, true) == 1);
    CHECK(t.transfer(0, u64{1} << 55, 512, true) == 1);
    CHECK(t.transfer(0, 0, 513, true) == 1);
    CHECK(t.transfer(0, 0, 0xFFFF'FE00, true) == 1); // above SIZE_MAX
    CHECK(t.disk.reads == 0);
    t.disk.broken = true;
    CHECK(t.transfer(0, 0, 512, true) == 1);
    CHECK(t.transfer(4, 0, 0, false) == 1);
    t.disk.broken = false;
    t.disk.ro = true;
    CHECK(t.transfer(1, 0, 512, false) == 1);
}

TEST_CASE("virtio block: a ring that breaks the rules stops the device [VIRTIO 2.1.2]") {
    DiskHarness t;
    SUBCASE("a chain that never ends") {
        t.header(0, 0);
        t.descriptor(0, request, 16, f_next, 0);
        t.submit(0);
    }
    SUBCASE("a head outside the table") { t.submit(8); }
    SUBCASE("a next outside the table") {
        t.descriptor(0, request, 16, f_next, 0xFFFF);
        t.submit(0);
    }
    SUBCASE("an available index that ran away") {
        t.memory.put(avail + 2, 9, 2);
        t.put(0x3000, 2, 0);
    }
    SUBCASE("no status byte") {
        t.descriptor(0, request, 16, 0);
        t.submit(0);
    }
    SUBCASE("a header too short") {
        t.descriptor(0, request, 15, f_next, 1);
        t.descriptor(1, status_at, 1, f_write);
        t.submit(0);
    }
    SUBCASE("readable after writable") {
        t.descriptor(0, status_at, 1, f_next | f_write, 1);
        t.descriptor(1, request, 16, 0);
        t.submit(0);
    }
    SUBCASE("an indirect descriptor, which was not offered") {
        t.descriptor(0, request, 16, 4);
        t.submit(0);
    }
    SUBCASE("an address that wraps") {
        t.descriptor(0, ~u64{0} - 3, 16, f_next, 1);
        t.descriptor(1, status_at, 1, f_write);
        t.submit(0);
    }
    CHECK(t.device_status() == (15 | 0x40));
    CHECK(t.get(0x1000, 1) == 2);
    t.bring_up();
    t.next = 0;
    CHECK(t.device_status() == 15);
    CHECK(t.transfer(0, 0, 512, true) == 0);
}

TEST_CASE(
    "virtio block: nothing happens before DRIVER_OK, without bus mastering, or with wild ring addresses") {
    DiskHarness t;
    t.block.config_write(4, 2, 2);
    t.transfer(0, 0, 512, true);
    CHECK(t.memory.get(used + 2, 2) == 0);
    DiskHarness u(false);
    u.transfer(0, 0, 512, true);
    CHECK(u.memory.get(used + 2, 2) == 0);
    for (const u64 wild : {~u64{0}, ~u64{0} - 4, u64{1} << 63}) {
        DiskHarness v(false);
        v.bring_up();
        v.put(0x14, 1, 0);
        v.put(0x08, 4, 1);
        v.put(0x0C, 4, 1);
        v.put(0x14, 1, 11);
        v.put(0x18, 2, 8);
        v.put(0x20, 8, wild);
        v.put(0x28, 8, wild);
        v.put(0x30, 8, wild);
        v.put(0x1C, 2, 1);
        v.put(0x14, 1, 15);
        v.put(0x3000, 2, 0);
        if (wild == u64{1} << 63) CHECK((v.device_status() & 0x40) != 0); // all ones there
    }
}

TEST_CASE("virtio block: MSI-X instead of INTx; NO_INTERRUPT is honoured [VIRTIO 4.1.5.1.2, 2.4.7]") {
    DiskHarness t;
    unsigned msix = t.block.config_read(0x34, 1);
    while (t.block.config_read(msix, 1) != 0x11) msix = t.block.config_read(msix + 1, 1);
    t.block.config_write(msix + 2, 2, 0x8000);
    const u64 table = t.block.bar_address(1);
    t.host.memory_write(table + 16, 8, 0xFEE0'0000);
    t.host.memory_write(table + 24, 8, 0x51);
    t.put(0x1A, 2, 2);
    CHECK(t.get(0x1A, 2) == 0xFFFF);
    t.put(0x1A, 2, 1);
    CHECK(t.get(0x1A, 2) == 1);
    t.transfer(0, 0, 512, true);
    CHECK(t.messages.sent == std::vector<FakeMessages::Message>{{0xFEE0'0000, 0x51}});
    CHECK_FALSE(t.gsi.level);
    t.memory.put(avail, 1, 2);
    t.transfer(0, 0, 512, true);
    CHECK(t.messages.sent.size() == 1);
}

TEST_CASE("virtio block: BAR 0 through configuration space [VIRTIO 4.1.4.7]") {
    DiskHarness t(false);
    unsigned window = t.block.config_read(0x34, 1);
    while (t.block.config_read(window, 1) != 9 || t.block.config_read(window + 3, 1) != 5)
        window = t.block.config_read(window + 1, 1);
    t.block.config_write(window + 8, 4, 0x2000);
    t.block.config_write(window + 12, 4, 4);
    CHECK(t.block.config_read(window + 16, 4) == 64);
    t.block.config_write(window + 8, 4, 0x14);
    t.block.config_write(window + 12, 4, 1);
    t.block.config_write(window + 16, 4, 3);
    CHECK(t.device_status() == 3);
    for (const u32 bad : {0u, 3u, 0xFFFF'FFFFu}) {
        t.block.config_write(window + 12, 4, bad);
        t.block.config_write(window + 8, 4, 0xFFFF'FFFF);
        t.block.config_read(window + 16, 4);
        t.block.config_write(window + 16, 4, bad);
    }
}

TEST_CASE("virtio block: saved and restored, it is the same") {
    DiskHarness a, b(false);
    a.transfer(0, 0, 512, true);
    const Saver saved = save(a.block);
    Restorer restorer(saved);
    b.block.visit(restorer);
    CHECK(save(b.block).values == saved.values);
}
