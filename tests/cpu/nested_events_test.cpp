// Events met while another is delivered: double and triple faults, and what a guest's extension is asked.
#include "cpu/events.hpp"
#include "cpu/no_virtualization.hpp"
#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

#include <vector>

using namespace exeunt;
using namespace exeunt::test;

namespace {

using Type = Event::Type;
const Stop done{};

Event exception_event(Vector vector, u64 address = 0) {
    return {.vector = static_cast<u8>(vector), .type = Type::hardware_exception, .address = address};
}
Event exception_with_error(Vector vector, u32 error, u64 address = 0) {
    return {.vector = static_cast<u8>(vector),
            .type = Type::hardware_exception,
            .has_error = true,
            .error = error,
            .address = address};
}
Event interrupt(u8 vector) { return {.vector = vector, .type = Type::external_interrupt}; }
Event int_n(u8 vector) {
    return {.vector = vector, .type = Type::software_interrupt, .instruction_length = 2};
}

/// An 8-byte gate.
u64 gate8(u16 selector, u32 offset, u32 type, unsigned dpl = 0) {
    return (offset & 0xFFFF) | u64{selector} << 16 | u64{0x8000 | (dpl << 13) | (type << 8)} << 32 |
           u64{offset >> 16} << 48;
}
void set_gate(Harness& t, u8 vector, u64 low, u64 high = 0) {
    const unsigned size = t.cpu.long_mode_active() ? 16 : 8;
    t.write(Harness::idt_address + size * vector, low);
    if (size == 16) t.write(Harness::idt_address + 16 * vector + 8, high);
}

/// The words on the stack that the handler finds, from the top.
std::vector<u64> stack(Harness& t, unsigned count, unsigned bytes) {
    std::vector<u64> words;
    const u64 base = t.cpu.code64() ? 0 : t.cpu.seg(Seg::SS).base;
    for (unsigned i = 0; i < count; ++i) words.push_back(t.read(base + t.cpu.r[RSP] + i * bytes, bytes));
    return words;
}

using Words = std::vector<u64>;

/// An extension that notes what it is asked and exits on chosen vectors.
class Asked : public NoVirtualization {
public:
    struct Question {
        int vector;
        int delivering; ///< -1: nothing
        bool operator==(const Question&) const = default;
    };
    std::vector<Question> questions;
    int exits_on = -1;
    int triple_faults = 0;
    int second_level_faults = 0;
    std::optional<Event> under_way;

    Result<void> event(Cpu& cpu, const Event& event) override {
        questions.push_back({event.vector, cpu.delivering ? cpu.delivering->vector : -1});
        if (event.vector != exits_on) return {};
        under_way = cpu.delivering;
        return stopped(Stop::Kind::world_switch);
    }
    Result<void> triple_fault(Cpu& cpu) override {
        ++triple_faults;
        under_way = cpu.delivering;
        return stopped(Stop::Kind::world_switch);
    }
    Result<void> second_level_fault(Cpu& cpu) override {
        ++second_level_faults;
        under_way = cpu.delivering;
        return stopped(Stop::Kind::world_switch);
    }
};

void enter_guest(Harness& t, Asked& extension) {
    t.cpu.virtualization = &extension;
    t.cpu.in_guest = true;
}

} // namespace

TEST_CASE("double faults: which pairs make one [SDM 3A Table 6-5]") {
    struct Row {
        Event first;
        bool page_fault_second;
        int reached;
    };
    const Event contributory = exception_with_error(Vector::NP, 8);
    const Event page_fault = exception_with_error(Vector::PF, 0, 0x99);
    for (const Row& row :
         {Row{interrupt(0x40), false, 13}, Row{interrupt(0x40), true, 14}, Row{contributory, false, 8},
          Row{contributory, true, 14}, Row{page_fault, false, 8}, Row{page_fault, true, 8},
          Row{exception_event(Vector::UD), false, 13}, Row{int_n(0x40), false, 13}}) {
        Harness t;
        const u8 vector = row.first.vector;
        CAPTURE(static_cast<int>(vector));
        CAPTURE(row.page_fault_second);
        const u64 target = Harness::handler_address + 16 * vector;
        if (row.page_fault_second) { // by an IST stack that is not mapped; #PF itself has another one
            set_gate(t, vector, gate8(Harness::code64_0, static_cast<u32>(target), 14) | u64{1} << 32);
            t.write(Harness::tss_address + 36, 0x5000'0000);
        } else {
            set_gate(t, vector, gate8(0, static_cast<u32>(target), 14));
        }
        REQUIRE(t.cpu.deliver(row.first).ok());
        CHECK(t.vector_reached() == row.reached);
        if (row.reached == 8) CHECK(stack(t, 2, 8) == Words{0, Harness::code_address});
        if (row.page_fault_second) CHECK(t.cpu.control.cr2 == 0x4FFF'FFF8);
        CHECK_FALSE(t.cpu.delivering);
    }
}

TEST_CASE("triple fault: shutdown at the instruction that began it [SDM 3A 6.15 \"Interrupt 8\"]") {
    Harness t;
    t.cpu.idtr.limit = 0;
    REQUIRE(t.cpu.deliver(exception_event(Vector::UD)).ok());
    CHECK(t.cpu.activity == Activity::shutdown);
    CHECK(t.cpu.rip == Harness::code_address);
    CHECK_FALSE(t.cpu.delivering);
}

TEST_CASE("in a guest: each exception is asked about with what was being delivered [SDM 3C 25.2, 27.2.4]") {
    Harness t;
    Asked extension;
    enter_guest(t, extension);
    using Questions = std::vector<Asked::Question>;
    set_gate(t, 14, gate8(0, 0, SystemType::interrupt_gate));
    const Event page_fault = exception_with_error(Vector::PF, 0, 0x99);
    SUBCASE("#PF, then #GP for it, then the #DF that both make") {
        REQUIRE(t.cpu.deliver(page_fault).ok());
        CHECK(extension.questions == Questions{{14, -1}, {13, 14}, {8, -1}});
        CHECK(t.vector_reached() == 8);
    }
    SUBCASE("an exit for the second: the first is the event under way, and nothing afterwards") {
        extension.exits_on = 13;
        CHECK(t.cpu.deliver(page_fault).stop() == stopped(Stop::Kind::world_switch));
        REQUIRE(extension.under_way);
        CHECK(extension.under_way->vector == 14);
        CHECK_FALSE(t.cpu.delivering);
    }
    SUBCASE("an exit for the first: CR2 and DR6 keep their values") {
        extension.exits_on = 14;
        CHECK(t.cpu.deliver(page_fault).stop() == stopped(Stop::Kind::world_switch));
        CHECK(t.cpu.control.cr2 == 0);
        CHECK_FALSE(extension.under_way);
        CHECK(t.cpu.rip == Harness::code_address);
    }
    SUBCASE("hardware interrupts and injected events are not asked about, but what they meet is") {
        Event injected = page_fault;
        injected.injected = true;
        REQUIRE(t.cpu.deliver(injected).ok());
        CHECK(extension.questions == Questions{{13, 14}, {8, -1}});
        CHECK(t.cpu.control.cr2 == 0);
        extension.questions.clear();
        REQUIRE(t.cpu.deliver(interrupt(0x40)).ok());
        CHECK(extension.questions.empty());
    }
    SUBCASE("a triple fault is an exit; the third exception was asked about") {
        set_gate(t, 8, gate8(0, 0, SystemType::interrupt_gate));
        CHECK(t.cpu.deliver(page_fault).stop() == stopped(Stop::Kind::world_switch));
        CHECK(extension.questions == Questions{{14, -1}, {13, 14}, {8, -1}, {13, 8}});
        CHECK(extension.triple_faults == 1);
        CHECK_FALSE(extension.under_way);
        CHECK(t.cpu.activity == Activity::active);
    }
}

TEST_CASE("in a guest: a refusal of the second level during delivery is an exit with that event under way "
          "[SDM 3C 27.2.4]") {
    /// Refuses the page of the stack.
    class NoStack : public SecondLevel {
    public:
        Result<SecondLevelPage> translate(GuestPhysical address, const SecondLevelAccess&) override {
            if (address.page().value == 0x2'8000) return stopped(Stop::Kind::second_level);
            return SecondLevelPage{.physical = Physical{address.value}};
        }
    };
    Harness t;
    Asked extension;
    enter_guest(t, extension);
    NoStack second_level;
    t.cpu.mmu.set_second_level(&second_level);
    t.cpu.guest_tlb_key.world = 1;
    t.cpu.context_changed(true);
    t.cpu.r[RSP] = 0x2'9000;
    CHECK(t.cpu.deliver(exception_event(Vector::UD)).stop() == stopped(Stop::Kind::world_switch));
    CHECK(extension.second_level_faults == 1);
    REQUIRE(extension.under_way);
    CHECK(extension.under_way->vector == 6);
    CHECK_FALSE(t.cpu.delivering);
    CHECK(t.cpu.r[RSP] == 0x2'9000);
}
