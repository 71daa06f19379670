// The records of a trace: their schema out of traces/records.inc, their bytes, and a decoded form for tools.
#pragma once

#include "arch/observer.hpp"
#include "base/clock.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

/// Numbers are the CTF event ids.
enum class RecordKind : u16 { vm_exit = 0, vm_entry = 1, vm_entry_failure = 2, state = 3, end = 4, violation = 5 };
inline constexpr unsigned record_kinds = 6;
std::string_view record_name(RecordKind kind);

/// The hash of the machine's whole state (XXH3, 128 bits).
struct StateDigest {
    u64 high = 0, low = 0;
    /// From 32 hexadecimal digits.
    static StateDigest parse(std::string_view digits);
};

/// The run is over.
struct EndRecord {
    u32 status = 0;  ///< exit status of `exeunt`
    u8 reason = 0;   ///< EndReason (machine/run_loop.hpp)
    StateDigest hash;
};

/// One of EntryFailureRecord::violations.
struct ViolationRecord {
    const RuleViolation& violation;
    bool svm = false;
};

enum class Shown : u8 { decimal, hexadecimal, text };

struct FieldRow {
    RecordKind record;
    std::string_view name;
    unsigned bits;  ///< 8, 32 or 64; 0 for text
    Shown shown;
};

/// The rows of one kind, in the order of its bytes.
std::span<const FieldRow> record_fields(RecordKind kind);

/// One record as bytes: id (u16), tick (u64), fields; little-endian, without padding.
using RecordBytes = std::vector<u8>;
void encode(RecordBytes& to, Tick tick, unsigned cpu, const ExitRecord& record);
void encode(RecordBytes& to, Tick tick, unsigned cpu, const EntryRecord& record);
void encode(RecordBytes& to, Tick tick, unsigned cpu, const EntryFailureRecord& record);
void encode(RecordBytes& to, Tick tick, unsigned cpu, const ViolationRecord& record);
void encode(RecordBytes& to, Tick tick, const StateDigest& record);
void encode(RecordBytes& to, Tick tick, const EndRecord& record);

/// A decoded record. `values` is parallel to record_fields(kind); text fields have 0 there.
struct Record {
    RecordKind kind = RecordKind::vm_exit;
    Tick tick = 0;
    std::vector<u64> values;
    std::string text;  ///< of the one text field, if the kind has one

    /// The value of a field by its name; 0 when the kind has no such field.
    u64 operator[](std::string_view field) const;
};

/// Decodes the record at the start of `from` and says how many bytes it takes; 0 when it is not a whole record.
std::size_t decode(std::span<const u8> from, Record& to);
/// One field for people: "0x1f", "31", or the text.
std::string show_value(const FieldRow& row, u64 value, const std::string& text);

/// CTF 1.8 metadata (TSDL) that describes these records and the packets of traces/packets.hpp.
std::string ctf_metadata();

}  // namespace exeunt
