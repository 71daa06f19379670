// Packets of a CTF stream: fixed size, each readable by itself, so that a trace whose writer was killed lacks at most
// the packet that was being filled. CTF 1.8 section 5 "Event Packet Header".
#pragma once

#include "base/clock.hpp"

#include <array>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace exeunt {

inline constexpr unsigned trace_format_version = 1;
inline constexpr u32 packet_magic = 0xC1FC'1FC1;
/// Bytes of a packet, and of what stands before its records: magic, UUID, stream id, then five quadwords.
inline constexpr std::size_t packet_bytes = 64 * 1024;
inline constexpr std::size_t packet_header_bytes = 4 + 16 + 4 + 5 * 8;
/// Names the format, not the run: two recordings of the same run are the same bytes.
inline constexpr std::array<u8, 16> trace_uuid{0x65, 0x78, 0x65, 0x75, 0x6E, 0x74, 0x40, 0x01,
                                               0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01};

/// Writes records into the packets of one stream file.
class PacketWriter {
public:
    /// Creates the file. Throws BadInput.
    explicit PacketWriter(const std::string& path);
    ~PacketWriter();
    PacketWriter(const PacketWriter&) = delete;
    PacketWriter& operator=(const PacketWriter&) = delete;

    /// Adds a whole record (at most packet_bytes - packet_header_bytes bytes) that happened at `tick`.
    void add(Tick tick, std::span<const u8> record);
    /// Writes the packet that is being filled as it is now; it goes on being filled. False when the disk refuses.
    bool flush();
    /// False after a write failed.
    bool good() const { return good_; }

private:
    void seal();
    void begin(Tick tick);

    std::FILE* file_;
    std::vector<u8> packet_;
    Tick first_ = 0, last_ = 0;
    long written_packets_ = 0;
    bool dirty_ = false, good_ = true;
};

/// Reads records out of the packets of one stream file, in order.
class PacketReader {
public:
    /// Throws BadInput when the file can not be read or does not begin as such a stream.
    explicit PacketReader(const std::string& path);
    ~PacketReader();
    PacketReader(const PacketReader&) = delete;
    PacketReader& operator=(const PacketReader&) = delete;

    /// The bytes of the next record, valid until the next call; empty at the end, also in front of a packet that is
    /// cut short. Throws BadInput, naming file and offset, for anything that is no packet.
    std::span<const u8> next();
    /// Whether the file ended in the middle of a packet.
    bool cut() const { return cut_; }

private:
    bool load();

    std::string path_;
    std::FILE* file_;
    std::vector<u8> packet_;
    std::size_t at_ = 0, end_ = 0;
    u64 packet_number_ = 0;
    bool cut_ = false;
};

}  // namespace exeunt
