// The trace reader on any stream: whole records, or BadInput, and nothing else.
#include "base/bad_input.hpp"
#include "base/ensure.hpp"
#include "traces/packets.hpp"
#include "traces/records.hpp"
#include "traces/replayer.hpp"

#include <cstddef>
#include <cstdlib>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

using namespace exeunt;

namespace {

/// A file in memory that has a path.
struct MemoryFile {
    int descriptor = memfd_create("stream", 0);
    std::string path = "/proc/self/fd/" + std::to_string(descriptor);

    void set(std::span<const u8> bytes) const {
        if (ftruncate(descriptor, 0) != 0 ||
            pwrite(descriptor, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
            std::abort();
    }
};

/// Gives every packet a good header, so that the bytes are taken for records.
void mend(std::vector<u8>& bytes) {
    const auto put = [&](std::size_t at, u64 value, unsigned count) {
        for (unsigned i = 0; i < count; ++i) bytes[at + i] = static_cast<u8>(value >> (8 * i));
    };
    for (std::size_t at = 0; at < bytes.size(); at += packet_bytes) {
        const std::size_t content = std::max(std::min(packet_bytes, bytes.size() - at), packet_header_bytes);
        bytes.resize(at + packet_bytes);
        put(at, packet_magic, 4);
        std::copy(trace_uuid.begin(), trace_uuid.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at) + 4);
        put(at + 40, content * 8, 8);
        put(at + 48, packet_bytes * 8, 8);
    }
}

void read_all(const std::string& path) {
    PacketReader reader(path);
    Record record, before;
    for (auto bytes = reader.next(); !bytes.empty(); bytes = reader.next()) {
        ENSURE(decode(bytes, record) == bytes.size());
        const auto fields = record_fields(record.kind);
        ENSURE(record.values.size() == fields.size());
        for (std::size_t i = 0; i < fields.size(); ++i) show_value(fields[i], record.values[i], record.text);
        ENSURE(first_difference(record, record).empty());
        if (before.kind != record.kind || before.tick != record.tick) first_difference(before, record);
        before = record;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static const MemoryFile file;
    if (size == 0) return 0;
    std::vector<u8> bytes(data + 1, data + size);
    if (data[0] & 1) mend(bytes);
    file.set(bytes);
    try {
        read_all(file.path);
    } catch (const BadInput&) {
    }
    return 0;
}
