// docs/traces.md and the CTF metadata say what the rows say.
#include "tests/traces/samples.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using namespace exeunt;
using namespace exeunt::test;

TEST_CASE("docs/traces.md: every record and every field, with offset, type and how it is shown") {
    const std::string page = text_of(EXEUNT_SOURCE_DIR "/docs/traces.md");
    REQUIRE_FALSE(page.empty());
    std::size_t at = 0;
    for (unsigned id = 0; id < record_kinds; ++id) {
        const auto kind = static_cast<RecordKind>(id);
        const std::string heading = fmt::format("\n### {} `{}`\n", id, record_name(kind));
        CAPTURE(heading);
        at = page.find(heading, at);
        REQUIRE(at != std::string::npos);
        at = page.find("\n|---", at);
        REQUIRE(at != std::string::npos);
        at = page.find('\n', at + 1);
        unsigned offset = 10;
        for (const FieldRow& row : record_fields(kind)) {
            const bool text = row.shown == Shown::text;
            const std::string line =
                fmt::format("\n| {} | `{}` | {} | {} | ", offset, row.name, text ? "string" : fmt::format("u{}", row.bits),
                            text ? "text" : row.shown == Shown::decimal ? "decimal" : "hexadecimal");
            CAPTURE(line);
            REQUIRE(page.compare(at, line.size(), line) == 0);  // rows follow each other: none is missing, none is new
            at = page.find('\n', at + 1);
            offset += row.bits / 8;
        }
        CHECK(page.compare(at, 2, "\n|") != 0);
    }
}

TEST_CASE("docs/traces.md: the packet header") {
    const std::string page = text_of(EXEUNT_SOURCE_DIR "/docs/traces.md");
    std::string uuid;
    for (const u8 byte : trace_uuid) uuid += fmt::format("{:02x} ", byte);
    uuid.pop_back();
    CHECK(page.find(fmt::format("packets of {} bytes", packet_bytes)) != std::string::npos);
    CHECK(page.find(fmt::format("{:X}H", packet_magic)) != std::string::npos);
    CHECK(page.find(uuid) != std::string::npos);
    CHECK(page.find(fmt::format("| {}: bits of the packet", packet_bytes * 8)) != std::string::npos);
    CHECK(page.find(fmt::format("| {} | | | records |", packet_header_bytes)) != std::string::npos);
    CHECK(page.find(fmt::format("version {} of the", trace_format_version)) != std::string::npos);
}

TEST_CASE("CTF metadata: every record is an event with its fields in their order [CTF 1.8 7]") {
    const std::string metadata = ctf_metadata();
    CHECK(metadata.starts_with("/* CTF 1.8 */"));
    CHECK(metadata.find("uuid = \"65786575-6e74-4001-8000-000000000001\"") != std::string::npos);
    std::size_t at = 0;
    for (unsigned id = 0; id < record_kinds; ++id) {
        const auto kind = static_cast<RecordKind>(id);
        at = metadata.find(fmt::format("id = {};\n    stream_id = 0;\n    name = \"{}\";", id, record_name(kind)), at);
        REQUIRE(at != std::string::npos);
        for (const FieldRow& row : record_fields(kind)) {
            const std::string type =
                row.shown == Shown::text ? "string" : fmt::format("{}{}", row.shown == Shown::decimal ? "u" : "x", row.bits);
            at = metadata.find(fmt::format("        {} {};\n", type, row.name), at);
            CAPTURE(row.name);
            REQUIRE(at != std::string::npos);
        }
    }
}
