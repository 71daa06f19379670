#include "traces/records.hpp"

#include "base/bits.hpp"
#include "traces/packets.hpp"

#include <array>
#include <fmt/format.h>

namespace exeunt {

namespace {

constexpr FieldRow rows[] = {
#define FIELD(record, field, bits, shown, value) {RecordKind::record, #field, bits, Shown::shown},
#include "traces/records.inc"
};

constexpr std::size_t count_of(RecordKind kind) {
    std::size_t n = 0;
    for (const FieldRow& row : rows) n += row.record == kind;
    return n;
}
constexpr std::size_t first_of(RecordKind kind) {
    std::size_t i = 0;
    while (rows[i].record != kind) ++i;
    return i;
}
constexpr bool rows_of_a_record_stand_together() {
    for (std::size_t i = 1; i < std::size(rows); ++i)
        if (rows[i].record < rows[i - 1].record) return false;
    return true;
}
static_assert(rows_of_a_record_stand_together());

void put_bytes(RecordBytes& to, u64 value, unsigned bits) {
    const std::size_t at = to.size();
    to.resize(at + bits / 8);
    for (unsigned i = 0; i < bits / 8; ++i) to[at + i] = static_cast<u8>(value >> (8 * i));
}
void put(RecordBytes& to, unsigned bits, u64 value) { put_bytes(to, value, bits); }
void put(RecordBytes& to, unsigned, std::string_view text) {
    to.insert(to.end(), text.begin(), text.end());
    to.push_back(0);
}
void start(RecordBytes& to, RecordKind kind, Tick tick) {
    to.clear();
    put_bytes(to, static_cast<u64>(kind), 16);
    put_bytes(to, tick, 64);
}

/// One encoder for each kind: the rows of the others are skipped at compile time.
template <RecordKind kind, class R>
void encode_fields(RecordBytes& to, [[maybe_unused]] unsigned cpu, const R& r) {
#define FIELD(name, field, bits, shown, value)                                                     \
    if constexpr (RecordKind::name == kind) {                                                      \
        put(to, bits, value);                                                                      \
    }
#include "traces/records.inc"
}

u64 get_bytes(std::span<const u8> from, unsigned bits) {
    u64 value = 0;
    for (unsigned i = 0; i < bits / 8; ++i) value |= u64{from[i]} << (8 * i);
    return value;
}

}  // namespace

std::string_view record_name(RecordKind kind) {
    constexpr std::array<std::string_view, record_kinds> names{"vm_exit", "vm_entry", "vm_entry_failure", "state", "end", "violation"};
    return names[static_cast<std::size_t>(kind)];
}

StateDigest StateDigest::parse(std::string_view digits) {
    const auto half = [&](std::size_t at) {
        u64 value = 0;
        for (std::size_t i = at; i < at + 16 && i < digits.size(); ++i) {
            const char c = digits[i];
            value = value << 4 | static_cast<u64>(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        return value;
    };
    return {half(0), half(16)};
}

std::span<const FieldRow> record_fields(RecordKind kind) {
    static constexpr std::size_t first[] = {
        first_of(RecordKind::vm_exit), first_of(RecordKind::vm_entry), first_of(RecordKind::vm_entry_failure),
        first_of(RecordKind::state), first_of(RecordKind::end), first_of(RecordKind::violation)};
    return {rows + first[static_cast<std::size_t>(kind)], count_of(kind)};
}

void encode(RecordBytes& to, Tick tick, unsigned cpu, const ExitRecord& record) {
    start(to, RecordKind::vm_exit, tick);
    encode_fields<RecordKind::vm_exit>(to, cpu, record);
}
void encode(RecordBytes& to, Tick tick, unsigned cpu, const EntryRecord& record) {
    start(to, RecordKind::vm_entry, tick);
    encode_fields<RecordKind::vm_entry>(to, cpu, record);
}
void encode(RecordBytes& to, Tick tick, unsigned cpu, const EntryFailureRecord& record) {
    start(to, RecordKind::vm_entry_failure, tick);
    encode_fields<RecordKind::vm_entry_failure>(to, cpu, record);
}
void encode(RecordBytes& to, Tick tick, unsigned cpu, const ViolationRecord& record) {
    start(to, RecordKind::violation, tick);
    encode_fields<RecordKind::violation>(to, cpu, record);
}
void encode(RecordBytes& to, Tick tick, const StateDigest& record) {
    start(to, RecordKind::state, tick);
    encode_fields<RecordKind::state>(to, 0, record);
}
void encode(RecordBytes& to, Tick tick, const EndRecord& record) {
    start(to, RecordKind::end, tick);
    encode_fields<RecordKind::end>(to, 0, record);
}

u64 Record::operator[](std::string_view field) const {
    const auto fields = record_fields(kind);
    for (std::size_t i = 0; i < fields.size(); ++i)
        if (fields[i].name == field) return values[i];
    return 0;
}

std::size_t decode(std::span<const u8> from, Record& to) {
    constexpr std::size_t header = 10;
    if (from.size() < header) return 0;
    const u64 id = get_bytes(from, 16);
    if (id >= record_kinds) return 0;
    to.kind = static_cast<RecordKind>(id);
    to.tick = get_bytes(from.subspan(2), 64);
    to.values.clear();
    to.text.clear();
    std::size_t at = header;
    for (const FieldRow& row : record_fields(to.kind)) {
        if (row.shown == Shown::text) {
            std::size_t end = at;
            while (end < from.size() && from[end] != 0) ++end;
            if (end == from.size()) return 0;
            to.text.assign(from.begin() + static_cast<std::ptrdiff_t>(at), from.begin() + static_cast<std::ptrdiff_t>(end));
            to.values.push_back(0);
            at = end + 1;
        } else {
            if (from.size() - at < row.bits / 8) return 0;
            to.values.push_back(get_bytes(from.subspan(at), row.bits));
            at += row.bits / 8;
        }
    }
    return at;
}

std::string show_value(const FieldRow& row, u64 value, const std::string& text) {
    switch (row.shown) {
        case Shown::decimal: return fmt::format("{}", value);
        case Shown::hexadecimal: return fmt::format("{:#x}", value);
        case Shown::text: return text;
    }
    return {};
}

std::string ctf_metadata() {
    std::string text = "/* CTF 1.8 */\n\n";
    for (const unsigned bits : {8u, 16u, 32u, 64u})
        for (const bool hexadecimal : {false, true})
            text += fmt::format("typealias integer {{ size = {}; align = 8; signed = false; base = {}; }} := {}{};\n",
                                bits, hexadecimal ? 16 : 10, hexadecimal ? "x" : "u", bits);
    std::string uuid;
    for (std::size_t i = 0; i < trace_uuid.size(); ++i)
        uuid += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", trace_uuid[i]);
    text += fmt::format(R"(
trace {{
    major = 1;
    minor = 8;
    uuid = "{}";
    byte_order = le;
    packet.header := struct {{ x32 magic; u8 uuid[16]; u32 stream_id; }};
}};

env {{
    domain = "exeunt";
    tracer_name = "exeunt";
    format_version = {};
}};

clock {{
    name = tick;
    description = "retired instructions, one virtual nanosecond each";
    freq = {};
    offset = 0;
}};
typealias integer {{ size = 64; align = 8; signed = false; map = clock.tick.value; }} := tick_t;

stream {{
    id = 0;
    packet.context := struct {{
        tick_t timestamp_begin;
        tick_t timestamp_end;
        u64 content_size;
        u64 packet_size;
        u64 events_discarded;
    }};
    event.header := struct {{ u16 id; tick_t timestamp; }};
}};
)",
                        uuid, trace_format_version, ticks_per_second);
    for (unsigned id = 0; id < record_kinds; ++id) {
        const auto kind = static_cast<RecordKind>(id);
        text += fmt::format("\nevent {{\n    id = {};\n    stream_id = 0;\n    name = \"{}\";\n    fields := struct {{\n",
                            id, record_name(kind));
        for (const FieldRow& row : record_fields(kind)) {
            const std::string type = row.shown == Shown::text
                                         ? "string"
                                         : fmt::format("{}{}", row.shown == Shown::hexadecimal ? "x" : "u", row.bits);
            text += fmt::format("        {} {};\n", type, row.name);
        }
        text += "    };\n};\n";
    }
    return text;
}

}  // namespace exeunt
