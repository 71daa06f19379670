// Several local APICs on one bus.
#pragma once

#include "apic/io_apic.hpp"
#include "apic/local_apic.hpp"
#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

#include <deque>

namespace exeunt::test {

struct FakeTsc final : TscSource {
    u64 offset = 0;
    u64 tsc_offset() const override { return offset; }
};

struct FakePic final : InterruptSource {
    u8 vector = 0x38;
    unsigned acknowledged = 0;
    u8 acknowledge() override {
        ++acknowledged;
        return vector;
    }
};

struct ApicHarness {
    explicit ApicHarness(unsigned processors = 1, LocalApicOptions options = {}) {
        for (unsigned n = 0; n < processors; ++n) {
            options.id = n;
            options.bootstrap = n == 0;
            apics.emplace_back(options, bus, time.clock, cpu[n], tsc, &pic);
        }
    }
    FakeTime time;
    ApicBus bus;
    FakeProcessor cpu[4];
    FakeTsc tsc;
    FakePic pic;
    std::deque<LocalApic> apics;

    LocalApic& apic(unsigned n = 0) { return apics[n]; }
    u32 read(u64 offset, unsigned n = 0) { return static_cast<u32>(apics[n].mmio_read(offset, 4)); }
    void write(u64 offset, u32 value, unsigned n = 0) { apics[n].mmio_write(offset, 4, value); }
    void enable(unsigned n = 0) { write(LocalApic::SVR, 0x1FF, n); }
    void enable_all() {
        for (unsigned n = 0; n < apics.size(); ++n) enable(n);
    }
    void fixed(u8 vector, unsigned n = 0, bool level = false) {
        apics[n].accept({.vector = vector, .level = level});
    }
    bool request(u8 vector, unsigned n = 0) {
        return test_bit(apics[n].x2apic_mode() ? msr(0x820 + vector / 32u, n)
                                               : read(LocalApic::IRR + vector / 32u * 16, n),
                        vector & 31);
    }
    bool in_service(u8 vector, unsigned n = 0) {
        return test_bit(read(LocalApic::ISR + vector / 32u * 16, n), vector & 31);
    }
    u64 msr(u32 index, unsigned n = 0) {
        u64 value = 0;
        CHECK(apics[n].read_msr(index, value));
        return value;
    }
    void enter_x2apic(unsigned n = 0) { CHECK(apics[n].write_msr(0x1B, apics[n].apic_base() | bit(10))); }
};

} // namespace exeunt::test
