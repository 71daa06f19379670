// Records of a trace: bytes as their rows say, and back.
#include "tests/traces/samples.hpp"

#include <doctest/doctest.h>
#include <map>

using namespace exeunt;
using namespace exeunt::test;

TEST_CASE("records: every row keeps its value") {
    const std::map<std::string, u64> expected[] = {
        {{"cpu", 5}, {"vendor", 1}, {"reason", 0x8000'0030}, {"rip", 0xFFFF'8000'1234'5678},
         {"qualification", 0x1122'3344'5566'7788}, {"qualification2", 0x99AA'BBCC'DDEE'FF00},
         {"instruction_length", 15}, {"instruction_information", 0xF0E1'D2C3},
         {"interruption_information", 0x8000'0B0E}, {"interruption_error", 0xFFFF'FFFE},
         {"idt_vectoring_information", 0x8000'030D}, {"idt_vectoring_error", 0x1234},
         {"guest_linear", 0xFFFF'FFFF'FFFF'F000}, {"guest_physical", 0x000F'FFFF'FFFF'F123}},
        {{"cpu", 6}, {"vendor", 0}, {"launch", 1}, {"rip", 0x7FFF'FFFF'FFFF}, {"interruption_information", 0x8000'0B0D},
         {"interruption_error", 7}, {"instruction_length", 3}},
        {{"cpu", 7}, {"vendor", 0}, {"reason", 0x8000'0021}, {"instruction_error", 26}, {"rip", 0x40'1000},
         {"qualification", 4}, {"check", 0}},
        {{"hash_high", sample_hash.high}, {"hash_low", sample_hash.low}},
        {{"status", 12}, {"reason", 5}, {"hash_high", sample_hash.high}, {"hash_low", sample_hash.low}},
        {{"cpu", 8}, {"vendor", 0}, {"field", 0x681A}, {"value", 0x1'0000'0400}, {"must_be_1", 0x400},
         {"may_be_1", 0xFFFF'FFFF}, {"written_by", 1}, {"writer_cpu", 3},
         {"writer_rip", 0xFFFF'8000'1234'5678}, {"writer_tick", 0x0123'4567'89AB}, {"rule", 0}},
    };
    const auto records = one_of_each();
    for (unsigned kind = 0; kind < record_kinds; ++kind) {
        CAPTURE(kind);
        Record record;
        REQUIRE(decode(records[kind], record) == records[kind].size());
        CHECK(static_cast<unsigned>(record.kind) == kind);
        CHECK(record.tick == 1000 + kind);
        CHECK(record.text == (kind == 2 ? sample_failure.check : kind == 5 ? sample_violation.rule : ""));
        const auto fields = record_fields(record.kind);
        REQUIRE(record.values.size() == fields.size());
        CHECK(fields.size() == expected[kind].size());  // a new row needs a value here
        for (const FieldRow& row : fields) {
            CAPTURE(row.name);
            REQUIRE(expected[kind].contains(std::string(row.name)));
            CHECK(record[row.name] == expected[kind].at(std::string(row.name)));
        }
    }
}

TEST_CASE("records: little-endian, without padding") {
    RecordBytes bytes;
    encode(bytes, 0x0102'0304'0506'0708, StateDigest{0x1112'1314'1516'1718, 0x2122'2324'2526'2728});
    CHECK(bytes == RecordBytes{3,    0,                                                  //
                               8,    7,    6,    5,    4,    3,    2,    1,              //
                               0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,           //
                               0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21});
}

TEST_CASE("records: a record that is cut anywhere, or of no kind, is none") {
    for (const RecordBytes& bytes : one_of_each()) {
        Record record;
        for (std::size_t size = 0; size < bytes.size(); ++size) CHECK(decode({bytes.data(), size}, record) == 0);
        RecordBytes longer = bytes;
        longer.push_back(0xFF);
        CHECK(decode(longer, record) == bytes.size());
        longer[0] = record_kinds;
        CHECK(decode(longer, record) == 0);
        longer[0] = 0;
        longer[1] = 1;
        CHECK(decode(longer, record) == 0);
    }
}

TEST_CASE("records: a value that is wider than its field loses its upper bits, not its neighbour") {
    RecordBytes bytes;
    encode(bytes, 1, 0x1FF, sample_entry);
    Record record;
    REQUIRE(decode(bytes, record) == bytes.size());
    CHECK(record["cpu"] == 0xFF);
    CHECK(record["vendor"] == 0);
}

TEST_CASE("records: a field is shown as its row says") {
    CHECK(show_value({RecordKind::vm_exit, "x", 32, Shown::decimal}, 31, "") == "31");
    CHECK(show_value({RecordKind::vm_exit, "x", 32, Shown::hexadecimal}, 31, "") == "0x1f");
    CHECK(show_value({RecordKind::vm_exit, "x", 0, Shown::text}, 0, "guest.cr0") == "guest.cr0");
    CHECK(Record{}["no_such_field"] == 0);
}

TEST_CASE("records: a state hash is read from its digits") {
    const StateDigest digest = StateDigest::parse("0123456789abcdeffedcba9876543210");
    CHECK(digest.high == sample_hash.high);
    CHECK(digest.low == sample_hash.low);
}
