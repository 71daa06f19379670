// Packets of a trace: what is written is read, whatever the moment; what is damaged is refused with its place.
#include "base/bad_input.hpp"
#include "tests/traces/samples.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

RecordBytes state_record(Tick tick) {
    RecordBytes bytes;
    encode(bytes, tick, StateDigest{tick, ~tick});
    return bytes;
}

/// The ticks of all records.
std::vector<Tick> ticks_of(const std::string& path, bool* cut = nullptr) {
    PacketReader reader(path);
    std::vector<Tick> ticks;
    Record record;
    for (auto bytes = reader.next(); !bytes.empty(); bytes = reader.next()) {
        REQUIRE(decode(bytes, record) == bytes.size());
        ticks.push_back(record.tick);
    }
    if (cut) *cut = reader.cut();
    return ticks;
}

std::vector<Tick> up_to(Tick count) {
    std::vector<Tick> ticks(count);
    for (Tick i = 0; i < count; ++i) ticks[i] = i;
    return ticks;
}

std::string refusal(const std::string& path) {
    try {
        ticks_of(path);
    } catch (const BadInput& error) {
        return error.what();
    }
    return "";
}

constexpr std::size_t record_bytes = 26;
constexpr std::size_t records_per_packet = (packet_bytes - packet_header_bytes) / record_bytes;

u64 header_field(const std::string& file, std::size_t packet, std::size_t offset) {
    u64 value = 0;
    for (unsigned i = 0; i < 8; ++i)
        value |= u64{static_cast<u8>(file[packet * packet_bytes + offset + i])} << (8 * i);
    return value;
}

}  // namespace

TEST_CASE("packets: any number of records comes back, also around full packets and full buffers") {
    const TemporaryDirectory directory;
    const std::string path = directory / "stream";
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, records_per_packet - 1, records_per_packet,
                                    records_per_packet + 1, 16 * records_per_packet, 16 * records_per_packet + 1,
                                    40 * records_per_packet + 7}) {
        CAPTURE(count);
        {
            PacketWriter writer(path);
            for (Tick i = 0; i < count; ++i) writer.add(i, state_record(i));
            CHECK(writer.flush());
            CHECK(writer.good());
        }
        CHECK(ticks_of(path) == up_to(count));
        const std::size_t packets = (count + records_per_packet - 1) / records_per_packet;
        CHECK(text_of(path).size() == packets * packet_bytes);
    }
}

TEST_CASE("packets: flushes in between do not show in the file, and what was flushed can be read") {
    const TemporaryDirectory directory;
    constexpr Tick count = 3 * records_per_packet + 5;
    {
        PacketWriter plain(directory / "plain"), flushed(directory / "flushed");
        for (Tick i = 0; i < count; ++i) {
            plain.add(i, state_record(i));
            flushed.add(i, state_record(i));
            if (i % 7 != 0) continue;
            CHECK(flushed.flush());
            CHECK(flushed.flush());
            CHECK(ticks_of(directory / "flushed") == up_to(i + 1));
        }
    }
    CHECK(text_of(directory / "plain") == text_of(directory / "flushed"));
}

TEST_CASE("packets: the header has the ticks and sizes of its packet [CTF 1.8 5.2]") {
    const TemporaryDirectory directory;
    const std::string path = directory / "stream";
    {
        PacketWriter writer(path);
        for (Tick i = 0; i < records_per_packet + 2; ++i) writer.add(100 + i, state_record(100 + i));
    }
    const std::string file = text_of(path);
    REQUIRE(file.size() == 2 * packet_bytes);
    CHECK(header_field(file, 0, 24) == 100);
    CHECK(header_field(file, 0, 32) == 100 + records_per_packet - 1);
    CHECK(header_field(file, 0, 40) == 8 * (packet_header_bytes + records_per_packet * record_bytes));
    CHECK(header_field(file, 0, 48) == 8 * packet_bytes);
    CHECK(header_field(file, 1, 24) == 100 + records_per_packet);
    CHECK(header_field(file, 1, 32) == 100 + records_per_packet + 1);
    CHECK(header_field(file, 1, 40) == 8 * (packet_header_bytes + 2 * record_bytes));
    CHECK(header_field(file, 1, 56) == 0);
}

TEST_CASE("packets: a file that was cut has all records of its whole packets, and says so") {
    const TemporaryDirectory directory;
    const std::string path = directory / "stream";
    {
        PacketWriter writer(path);
        for (Tick i = 0; i < 3 * records_per_packet; ++i) writer.add(i, state_record(i));
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, packet_bytes - 1, packet_bytes, packet_bytes + 1,
                                   2 * packet_bytes + 100, 3 * packet_bytes}) {
        CAPTURE(size);
        std::filesystem::copy_file(path, directory / "cut", std::filesystem::copy_options::overwrite_existing);
        std::filesystem::resize_file(directory / "cut", size);
        bool cut = false;
        CHECK(ticks_of(directory / "cut", &cut) == up_to(size / packet_bytes * records_per_packet));
        CHECK(cut == (size % packet_bytes != 0));
    }
}

TEST_CASE("packets: damage is refused with file and offset") {
    const TemporaryDirectory directory;
    const std::string path = directory / "stream";
    {
        PacketWriter writer(path);
        for (Tick i = 0; i < 2 * records_per_packet; ++i) writer.add(i, state_record(i));
    }
    const std::string good = text_of(path);
    const auto damaged = [&](std::size_t offset, char value) {
        std::string file = good;
        file[packet_bytes + offset] = value;
        write_text(path, file);
        return refusal(path);
    };
    CHECK(refusal(path) == "");
    const std::string no_packet = path + ": offset 0x1000: expected a packet of an exeunt trace";
    const std::string sizes = path + ": offset 0x1000: expected a packet whose sizes are right";
    CHECK(damaged(0, 0) == no_packet);
    CHECK(damaged(4, 0) == no_packet);
    CHECK(damaged(41, 1) == sizes);       // content_size: less than the header
    CHECK(damaged(42, 1) == sizes);       // more than the packet
    CHECK(damaged(47, '\x80') == sizes);
    CHECK(damaged(49, 0) == sizes);       // packet_size
    CHECK(damaged(64, 9) == path + ": offset 0x1040: expected a whole record");  // of no kind
    CHECK(damaged(64 + record_bytes, 9) == path + ": offset 0x105a: expected a whole record");
    // A vm_exit record, longer than what is left of the packet.
    constexpr std::size_t last = 64 + (records_per_packet - 1) * record_bytes;
    CHECK(damaged(last, 0) == path + fmt::format(": offset {:#x}: expected a whole record", packet_bytes + last));
    write_text(path, std::string(packet_bytes, '\0'));
    CHECK(refusal(path) == path + ": offset 0x0: expected a packet of an exeunt trace");
}

TEST_CASE("packets: what can not be opened is refused") {
    const TemporaryDirectory directory;
    CHECK_THROWS_AS(PacketWriter(directory / "no/stream"), BadInput);
    CHECK_THROWS_AS(PacketReader(directory / "no-stream"), BadInput);
    CHECK(refusal(directory.path).starts_with(directory.path + ": offset 0x0: expected readable bytes"));
}

TEST_CASE("packets: a full disk is noticed, and is no crash") {
    if (!std::filesystem::exists("/dev/full")) return;
    PacketWriter writer("/dev/full");
    for (Tick i = 0; i < 40 * records_per_packet; ++i) writer.add(i, state_record(i));
    CHECK_FALSE(writer.good());
    CHECK_FALSE(writer.flush());
}
