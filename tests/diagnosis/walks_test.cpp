// Both walks of an address, as they are explained. SDM 3A ch. 4, 3C 28.2; APM 2 15.25.
#include "diagnosis/walks.hpp"

#include "diagnosis/live.hpp"
#include "tests/support/svm_harness.hpp"
#include "tests/support/vmx_harness.hpp"

#include <algorithm>
#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr u64 address = Harness::data_address + 0x123;
constexpr u64 uncached = 0, write_back = 6;
constexpr u64 eptp = write_back | 3 << 3;

ExplainedWalk walk(Harness& t, AccessType type, u64 where = address, bool linear = true) {
    WalkQuestion q;
    q.linear = linear;
    q.address = where;
    q.access = {type, Privilege::supervisor_smap_off};
    return explain_walk(t.cpu, q, false);
}

bool says(const ExplainedWalk& w, const std::string& text) {
    return std::any_of(w.verdict.begin(), w.verdict.end(),
                       [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

} // namespace

TEST_CASE("walk: each entry of the guest's structures follows those of EPT that translate its address [SDM "
          "3C 28.2.2]") {
    VmxHarness t;
    t.use_ept(eptp);
    const ExplainedWalk w = walk(t, AccessType::read);
    REQUIRE(w.translates);
    CHECK(says(w, "translates to physical address 0x20123"));
    CHECK(says(w, "effective WB"));
    CHECK(says(w, "EPT combined: read write execute"));
    std::size_t guest = 0;
    for (const WalkLine& line : w.lines) guest += !line.second_level;
    // Four second-level entries for each of the guest's, and for the page.
    CHECK(w.lines.size() == guest + 4 * (guest + 1));
    REQUIRE(w.lines.size() > 5);
    CHECK(w.lines[0].name == "EPT PML4E");
    CHECK(w.lines[3].name == "EPT PTE");
    CHECK(w.lines[4].name == "PML4E");
    CHECK(w.lines[4].physical == Physical{Harness::tables_address});
}

TEST_CASE("walk: an EPT violation names the entry that does not allow the access [SDM 3C 28.2.3.2]") {
    VmxHarness t;
    t.use_ept(eptp);
    t.set_ept_entry(address, (address & ~u64{0xFFF}) | write_back << 3 | 1);
    CHECK(walk(t, AccessType::read).translates);
    const ExplainedWalk w = walk(t, AccessType::write);
    CHECK(!w.translates);
    CHECK(says(w, "EPT violation at guest-physical address 0x20123"));
    CHECK(says(w, "does not allow write"));
    CHECK(says(w, "EPT combined: read"));
    CHECK(says(walk(t, AccessType::write, address, false), "does not allow write"));
}

TEST_CASE("walk: an EPT misconfiguration says what is wrong with the entry [SDM 3C 28.2.3.1]") {
    VmxHarness t;
    t.use_ept(eptp);
    const u64 frame = address & ~u64{0xFFF};
    t.set_ept_entry(address, frame | write_back << 3 | 2);
    CHECK(says(walk(t, AccessType::read), "write permission without read permission"));
    t.set_ept_entry(address, frame | 3 << 3 | 7);
    CHECK(says(walk(t, AccessType::read), "a reserved memory type"));
    t.set_ept_entry(address, frame | write_back << 3 | 7 | bit(50));
    CHECK(says(walk(t, AccessType::read), "a reserved bit set"));
}

TEST_CASE("walk: EPT's memory type and the guest's PAT combine, unless PAT is ignored [SDM 3C 28.2.6.2]") {
    VmxHarness t;
    t.use_ept(eptp);
    const u64 frame = address & ~u64{0xFFF};
    t.set_ept_entry(address, frame | uncached << 3 | 7);
    CHECK(says(walk(t, AccessType::read), "EPT UC; effective UC"));
    t.set_ept_entry(address, frame | uncached << 3 | bit(6) | 7);
    CHECK(says(walk(t, AccessType::read), "EPT UC, ignore PAT; effective UC"));
}

TEST_CASE("walk: a page fault of the guest's own paging, without side effects [SDM 3A 4.7]") {
    VmxHarness t;
    t.use_ept(eptp);
    const u64 root = t.read(Harness::tables_address);
    (void)walk(t, AccessType::write);
    CHECK(t.read(Harness::tables_address) == root); // no accessed flag
    t.write(Harness::tables_address, root & ~u64{1});
    const ExplainedWalk w = walk(t, AccessType::read);
    CHECK(says(w, "#PF, error code 0x0"));
    CHECK(says(w, "because: the PML4E at 0x100000 is not present"));
}

TEST_CASE("walk: nested paging names the entry of a nested page fault [APM 2 15.25.6]") {
    SvmHarness t;
    t.use_npt();
    CHECK(t.enter() == "");
    const u64 entry = t.npt_entry_address(address);
    WalkQuestion q;
    q.address = address;
    q.access = {AccessType::write, Privilege::supervisor_smap_off};
    CHECK(explain_walk(t.cpu, q, true).translates);
    t.write(entry, t.read(entry) & ~u64{2});
    const ExplainedWalk w = explain_walk(t.cpu, q, true);
    CHECK(says(w, "nested page fault at guest-physical address 0x20123"));
    CHECK(says(w, "is read-only"));
    t.write(entry, 0);
    CHECK(says(explain_walk(t.cpu, q, true), "is not present"));
}

TEST_CASE("walk: the access of a fault is that of its record") {
    Record record;
    record.kind = RecordKind::vm_exit;
    record.values.assign(record_fields(record.kind).size(), 0);
    const auto set = [&](std::string_view name, u64 value) {
        const auto fields = record_fields(record.kind);
        for (std::size_t i = 0; i < fields.size(); ++i)
            if (fields[i].name == name) record.values[i] = value;
    };
    CHECK(!is_translation_fault([&] {
        set("reason", 10);
        return record;
    }()));
    set("reason", 48);
    set("qualification", 0x182);
    set("guest_linear", 0x7000);
    REQUIRE(is_translation_fault(record));
    CHECK(faulting_access(record).linear);
    CHECK(faulting_access(record).address == 0x7000);
    CHECK(faulting_access(record).access.type == AccessType::write);
    set("reason", 0); // an intercepted #PF: fetch by a user
    set("interruption_information", 0x8000'0B0E);
    set("interruption_error", 0x14);
    set("qualification", 0x1234);
    REQUIRE(is_translation_fault(record));
    CHECK(faulting_access(record).address == 0x1234);
    CHECK(faulting_access(record).access.type == AccessType::execute);
    CHECK(faulting_access(record).access.user());
}
