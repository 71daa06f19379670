// Writing a recording: a directory with the trace and with everything that a replay needs.
//
//   ctf/metadata, ctf/stream   the trace, CTF 1.8 (traces/records.inc)
//   recording.json             format version, whether the run was closed in good order, machine configuration
//   input.jsonl                what came in through the one door: {"tick": n, "bytes": "hex"} a line
#pragma once

#include "base/input.hpp"
#include "traces/packets.hpp"
#include "traces/records.hpp"

#include <string>

namespace exeunt {

struct RecordingPaths {
    std::string directory, metadata, stream, description, input;
    explicit RecordingPaths(const std::string& directory);
};

class Recorder final : public Observer, public InputLog {
public:
    /// Creates the directory, which must not exist yet or be empty. Throws BadInput.
    explicit Recorder(const std::string& directory);
    /// Without a single record the directory is left as it was found.
    ~Recorder() override;

    /// The machine's configuration as JSON, with the hashes of its images. Throws BadInput.
    void describe(const std::string& configuration);
    void vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) override;
    void vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) override;
    void vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) override;
    void input(Tick tick, std::span<const u8> bytes) override;
    void state(Tick tick, const StateDigest& hash);
    /// The last record; the recording is complete. Throws BadInput when something could not be written.
    void end(Tick tick, const EndRecord& record);
    /// Writes what there is so far, so that it survives if the process is killed.
    /// False when the disk refuses.
    bool flush() { return writer_.flush(); }

private:
    template <class... Arguments>
    void add(Tick tick, const Arguments&... arguments);
    void write_description(bool complete);

    bool created_ = false;  ///< the directory is ours
    bool begun_ = false;    ///< there is a record
    RecordingPaths paths_;
    PacketWriter writer_;
    std::FILE* input_;
    std::string configuration_;
    RecordBytes bytes_;
};

/// What stands in recording.json.
struct RecordingDescription {
    bool complete = false;
    std::string configuration;  ///< JSON
};
/// Throws BadInput when the directory holds no recording of this format.
RecordingDescription read_description(const std::string& directory);

/// The input log of a recording as the source of a replay's input.
class RecordedInput final : public InputSource {
public:
    /// Throws BadInput.
    explicit RecordedInput(const std::string& directory);
    bool open() const override { return next_ < pieces_.size(); }
    std::vector<u8> take(Tick now, std::size_t room) override;
    Tick wait(Tick from, Tick to) override;

private:
    struct Piece {
        Tick tick;
        std::vector<u8> bytes;
    };
    std::vector<Piece> pieces_;
    std::size_t next_ = 0;
};

}  // namespace exeunt
