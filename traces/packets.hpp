// Packets of a CTF stream: fixed size, each readable by itself. CTF 1.8 section 5 "Event Packet Header".
//
// A packet is one page, and packets are written whole, at multiples of their size: a process that is killed, even
// inside a write, leaves whole packets, which is all that readers of CTF accept.
#pragma once

#include "base/clock.hpp"

#include <array>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace exeunt {

inline constexpr unsigned trace_format_version = 2;
inline constexpr u32 packet_magic = 0xC1FC'1FC1;
/// Bytes of a packet, and of what stands before its records: magic, UUID, stream id, then five quadwords.
inline constexpr std::size_t packet_bytes = 4096;
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
    /// Writes what there is, also the packet that is being filled as it is now; it goes on being filled. False when
    /// the disk refuses.
    bool flush();
    /// False after a write failed.
    bool good() const { return good_; }

private:
    /// Full packets wait for each other: so many are written at once.
    static constexpr std::size_t packets_at_once = 16;

    void begin(Tick tick);
    void close_packet();
    bool write();

    int descriptor_;
    std::vector<u8> waiting_;     ///< not yet in the file: full packets, then the one that is being filled
    std::size_t packet_ = 0;      ///< where in `waiting_` that one starts
    Tick first_ = 0, last_ = 0;   ///< of its records
    u64 offset_ = 0;              ///< in the file, of `waiting_`
    bool dirty_ = false, good_ = true;
};

/// Reads records out of the packets of one stream file, in order.
class PacketReader {
public:
    /// Throws BadInput when the file can not be read.
    explicit PacketReader(const std::string& path);
    ~PacketReader();
    PacketReader(const PacketReader&) = delete;
    PacketReader& operator=(const PacketReader&) = delete;

    /// The bytes of the next record, valid until the next call; empty at the end, also in front of a packet that is
    /// cut short. Throws BadInput, naming file and offset, for anything that is no packet or no record.
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
