#include "traces/packets.hpp"

#include "base/bad_input.hpp"
#include "base/ensure.hpp"
#include "traces/records.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

namespace exeunt {

namespace {

void store(u8* at, u64 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) at[i] = static_cast<u8>(value >> (8 * i));
}
u64 fetch(const u8* at, unsigned bytes) {
    u64 value = 0;
    for (unsigned i = 0; i < bytes; ++i) value |= u64{at[i]} << (8 * i);
    return value;
}

// Offsets in the packet header.
constexpr std::size_t uuid_at = 4, stream_at = 20, begin_at = 24, end_at = 32, content_at = 40, size_at = 48,
                      discarded_at = 56;

}  // namespace

PacketWriter::PacketWriter(const std::string& path) : file_(std::fopen(path.c_str(), "wb")) {
    if (!file_) throw BadInput(path, "", fmt::format("a file that can be created ({})", std::strerror(errno)));
    packet_.reserve(packet_bytes);
}

PacketWriter::~PacketWriter() {
    if (!packet_.empty()) flush();
    std::fclose(file_);
}

void PacketWriter::begin(Tick tick) {
    packet_.assign(packet_header_bytes, 0);
    first_ = tick;
}

void PacketWriter::add(Tick tick, std::span<const u8> record) {
    ENSURE(record.size() <= packet_bytes - packet_header_bytes);
    if (!packet_.empty() && packet_.size() + record.size() > packet_bytes) seal();
    if (packet_.empty()) begin(tick);
    packet_.insert(packet_.end(), record.begin(), record.end());
    last_ = tick;
    dirty_ = true;
}

/// The packet is full: it takes its place in the file for good.
void PacketWriter::seal() {
    flush();
    ++written_packets_;
    packet_.clear();
}

bool PacketWriter::flush() {
    if (!dirty_ || packet_.empty()) return good_;
    u8* p = packet_.data();
    store(p, packet_magic, 4);
    std::copy(trace_uuid.begin(), trace_uuid.end(), p + uuid_at);
    store(p + stream_at, 0, 4);
    store(p + begin_at, first_, 8);
    store(p + end_at, last_, 8);
    store(p + content_at, packet_.size() * 8, 8);
    store(p + size_at, packet_bytes * 8, 8);
    store(p + discarded_at, 0, 8);
    const std::size_t content = packet_.size();
    packet_.resize(packet_bytes, 0);
    good_ = good_ && std::fseek(file_, written_packets_ * static_cast<long>(packet_bytes), SEEK_SET) == 0 &&
            std::fwrite(packet_.data(), 1, packet_bytes, file_) == packet_bytes && std::fflush(file_) == 0;
    packet_.resize(content);
    dirty_ = false;
    return good_;
}

PacketReader::PacketReader(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) throw BadInput(path, "", fmt::format("a trace that can be read ({})", std::strerror(errno)));
    packet_.resize(packet_bytes);
}

PacketReader::~PacketReader() { std::fclose(file_); }

bool PacketReader::load() {
    const std::size_t got = std::fread(packet_.data(), 1, packet_bytes, file_);
    if (got < packet_bytes) {
        cut_ = got != 0;
        return false;
    }
    const std::string place = fmt::format("offset {:#x}", packet_number_ * packet_bytes);
    const u8* p = packet_.data();
    if (fetch(p, 4) != packet_magic || !std::equal(trace_uuid.begin(), trace_uuid.end(), p + uuid_at))
        throw BadInput(path_, place, "a packet of an exeunt trace");
    const u64 content = fetch(p + content_at, 8) / 8;
    if (fetch(p + size_at, 8) != packet_bytes * 8 || content < packet_header_bytes || content > packet_bytes)
        throw BadInput(path_, place, "a packet whose sizes are right");
    at_ = packet_header_bytes;
    end_ = static_cast<std::size_t>(content);
    ++packet_number_;
    return true;
}

std::span<const u8> PacketReader::next() {
    while (at_ == end_)
        if (cut_ || !load()) return {};
    Record record;
    const std::span<const u8> rest{packet_.data() + at_, end_ - at_};
    const std::size_t size = decode(rest, record);
    if (size == 0)
        throw BadInput(path_, fmt::format("offset {:#x}", (packet_number_ - 1) * packet_bytes + at_), "a whole record");
    at_ += size;
    return rest.first(size);
}

}  // namespace exeunt
