#include "traces/packets.hpp"

#include "base/bad_input.hpp"
#include "base/ensure.hpp"
#include "traces/records.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

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

PacketWriter::PacketWriter(const std::string& path)
    : descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0)
        throw BadInput(path, "", fmt::format("a file that can be created ({})", std::strerror(errno)));
    waiting_.reserve(packets_at_once * packet_bytes);
}

PacketWriter::~PacketWriter() {
    flush();
    ::close(descriptor_);
}

void PacketWriter::begin(Tick tick) {
    packet_ = waiting_.size();
    waiting_.resize(packet_ + packet_header_bytes, 0);
    first_ = tick;
}

void PacketWriter::add(Tick tick, std::span<const u8> record) {
    ENSURE(record.size() <= packet_bytes - packet_header_bytes);
    if (waiting_.size() - packet_ + record.size() > packet_bytes) {
        close_packet();
        packet_ = waiting_.size();
        if (packet_ == packets_at_once * packet_bytes) write();
    }
    if (waiting_.size() == packet_) begin(tick);
    waiting_.insert(waiting_.end(), record.begin(), record.end());
    last_ = tick;
    dirty_ = true;
}

/// The header says what the packet holds so far; the rest of it is zeros.
void PacketWriter::close_packet() {
    u8* p = waiting_.data() + packet_;
    store(p, packet_magic, 4);
    std::copy(trace_uuid.begin(), trace_uuid.end(), p + uuid_at);
    store(p + stream_at, 0, 4);
    store(p + begin_at, first_, 8);
    store(p + end_at, last_, 8);
    store(p + content_at, (waiting_.size() - packet_) * 8, 8);
    store(p + size_at, packet_bytes * 8, 8);
    store(p + discarded_at, 0, 8);
    waiting_.resize(packet_ + packet_bytes, 0);
}

/// Everything up to packet_ takes its place in the file for good; what follows it is written again when it has grown.
bool PacketWriter::write() {
    for (std::size_t at = 0; good_ && at < waiting_.size();) {
        const ssize_t done = ::pwrite(descriptor_, waiting_.data() + at, waiting_.size() - at,
                                      static_cast<off_t>(offset_ + at));
        if (done < 0 && errno == EINTR) continue;
        good_ = done > 0;
        if (good_) at += static_cast<std::size_t>(done);
    }
    offset_ += packet_;
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(packet_));
    packet_ = 0;
    dirty_ = false;
    return good_;
}

bool PacketWriter::flush() {
    if (!dirty_) return good_;
    const std::size_t content = waiting_.size() - packet_;
    if (content == 0) return write();
    close_packet();
    write();
    waiting_.resize(content);
    return good_;
}

PacketReader::PacketReader(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) throw BadInput(path, "", fmt::format("a trace that can be read ({})", std::strerror(errno)));
    packet_.resize(packet_bytes);
}

PacketReader::~PacketReader() { std::fclose(file_); }

bool PacketReader::load() {
    const std::size_t got = std::fread(packet_.data(), 1, packet_bytes, file_);
    const std::string place = fmt::format("offset {:#x}", packet_number_ * packet_bytes + (got < packet_bytes ? got : 0));
    if (std::ferror(file_)) throw BadInput(path_, place, fmt::format("readable bytes ({})", std::strerror(errno)));
    if (got < packet_bytes) {
        cut_ = got != 0;
        return false;
    }
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
