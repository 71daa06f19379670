// What stands around a device under test: a clock that runs timers at their tick, lines, guest RAM, a
// processor that counts its signals, and visitors that save and restore.
#pragma once

#include "base/bus.hpp"
#include "base/clock.hpp"

#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace exeunt::test {

struct FakeTime final : TimeSource {
    Tick tick = 0;
    Clock clock{*this};
    Tick now() const override { return tick; }
    void deadline_changed(Tick) override {}
    /// Goes to a tick and stops at each deadline on the way.
    void run_to(Tick target) {
        while (clock.next() <= target) {
            if (clock.next() > tick) tick = clock.next();
            clock.run_due();
        }
        tick = target;
    }
    void run(Tick ticks) { run_to(tick + ticks); }
};

struct FakeLine final : InterruptLine {
    bool level = false;
    unsigned rises = 0;
    FakeTime* time = nullptr;
    std::vector<Tick> rise_ticks;
    void set(bool value) override {
        if (value && !level) {
            ++rises;
            if (time) rise_ticks.push_back(time->tick);
        }
        level = value;
    }
};

struct FakeProcessor final : ProcessorSignals {
    unsigned changes = 0, nmis = 0, smis = 0, inits = 0;
    std::vector<u8> sipis;
    void interrupt_changed() override { ++changes; }
    void nmi() override { ++nmis; }
    void smi() override { ++smis; }
    void init() override { ++inits; }
    void sipi(u8 vector) override { sipis.push_back(vector); }
};

struct FakeMessages final : MessageSink {
    struct Message {
        u64 address;
        u32 data;
        bool operator==(const Message&) const = default;
    };
    std::vector<Message> sent;
    void message(u64 address, u32 data) override { sent.push_back({address, data}); }
};

struct FakeMemory final : DmaMemory {
    explicit FakeMemory(std::size_t size = 1 << 20) : ram(size) {}
    std::vector<u8> ram;
    void read(u64 at, void* to, u64 count) override {
        for (u64 i = 0; i < count; ++i) {
            const u64 from = at + i;
            static_cast<u8*>(to)[i] = from < ram.size() ? ram[from] : 0xFF;
        }
    }
    void write(u64 at, const void* from, u64 count) override {
        for (u64 i = 0; i < count; ++i)
            if (at + i < ram.size()) ram[at + i] = static_cast<const u8*>(from)[i];
    }
    void put(u64 at, u64 value, unsigned count) {
        for (unsigned i = 0; i < count; ++i) ram.at(at + i) = static_cast<u8>(value >> (8 * i));
    }
    u64 get(u64 at, unsigned count) const {
        u64 value = 0;
        for (unsigned i = 0; i < count; ++i) value |= u64{ram.at(at + i)} << (8 * i);
        return value;
    }
};

/// Writes down all fields in order, as text.
struct Saver final : StateVisitor {
    std::vector<std::string> names;
    std::vector<std::vector<u8>> values;
    void enter(std::string_view) override {}
    void leave() override {}
    void field(std::string_view name, u64& value, unsigned) override {
        std::vector<u8> bytes(8);
        for (unsigned i = 0; i < 8; ++i) bytes[i] = static_cast<u8>(value >> (8 * i));
        names.emplace_back(name);
        values.push_back(std::move(bytes));
    }
    void bytes(std::string_view name, std::span<u8> data) override {
        names.emplace_back(name);
        values.emplace_back(data.begin(), data.end());
    }
    void buffer(std::string_view name, std::vector<u8>& data) override { bytes(name, data); }
};

struct Restorer final : StateVisitor {
    explicit Restorer(const Saver& from) : saved(from) {}
    const Saver& saved;
    std::size_t next = 0;
    void enter(std::string_view) override {}
    void leave() override {}
    void field(std::string_view, u64& value, unsigned) override {
        value = 0;
        for (unsigned i = 0; i < 8; ++i) value |= u64{saved.values.at(next)[i]} << (8 * i);
        ++next;
    }
    void bytes(std::string_view, std::span<u8> data) override {
        const auto& from = saved.values.at(next++);
        if (!from.empty()) std::memcpy(data.data(), from.data(), std::min(from.size(), data.size()));
    }
    void buffer(std::string_view, std::vector<u8>& data) override { data = saved.values.at(next++); }
};

inline Saver save(Device& device) {
    Saver saver;
    device.visit(saver);
    return saver;
}

} // namespace exeunt::test
