// Straight-line programs of random instructions, with branches forwards, by fast handlers and by general ones: the
// general handlers are the definition (design: "the slow way is the definition").
#include "tests/differential/runner.hpp"

#include "cpu/blocks.hpp"

#include <algorithm>
#include <cstring>
#include <doctest/doctest.h>
#include <fmt/format.h>

namespace exeunt::test {

namespace {

constexpr unsigned longest = 20;
constexpr u64 system_end = 0xC000;

/// Everything that must be the same, besides memory.
std::string difference(Subject& fast, Subject& general) {
    const Cpu &a = fast.harness().cpu, &b = general.harness().cpu;
    Outcome left, right;
    left.after = fast.registers();
    right.after = general.registers();
    std::string text;
    for (const std::string& name : compare(left, right, {.x87 = true}, 0)) text += " " + name;
    if (a.now() != b.now()) text += fmt::format(" now: {} / {}", a.now(), b.now());
    if (a.control.cr2 != b.control.cr2) text += fmt::format(" cr2: {:x} / {:x}", a.control.cr2, b.control.cr2);
    if (a.cpl != b.cpl) text += " cpl";
    if (a.activity != b.activity) text += " activity";
    if (fast.harness().vector_reached() != general.harness().vector_reached()) text += " vector";
    for (unsigned s = 0; s < 8; ++s)
        if (!(a.segment[s] == b.segment[s])) text += " segment " + std::to_string(s);
    return text;
}

class Programs {
public:
    Programs(CaseMode mode, u64 seed)
        : model_(CpuModel::load("intel-max")), forms_(mode, model_, Oracle::fast), generator_(forms_, seed),
          fast_({.mode = mode, .user = mode != CaseMode::real16, .system_mapped = true}, model_),
          general_({.mode = mode, .user = mode != CaseMode::real16, .system_mapped = true}, model_) {
        general_.harness().cpu.blocks->set_fast(false);
        keep(pristine_);
    }

    void run(u64 programs) {
        for (u64 n = 0; n < programs && failures_ < 5; ++n) one(n);
        CHECK(failures_ == 0);
    }

private:
    struct Memory {
        std::vector<u8> system, data, code;
    };

    u8* at(Subject& subject, u64 address) { return subject.harness().memory.native(Physical{address}); }
    void keep(Memory& memory) {
        const auto copy = [&](u64 from, u64 bytes) { return std::vector<u8>(at(fast_, from), at(fast_, from) + bytes); };
        memory.system = copy(0, system_end);
        memory.data = copy(place::data, place::real_data_end - place::data);
        memory.code = copy(place::code, place::code_bytes);
    }
    void write(Subject& subject, u64 address, const std::vector<u8>& bytes) {
        if (std::memcmp(at(subject, address), bytes.data(), bytes.size()) != 0)
            subject.harness().memory.write_bytes(Physical{address}, bytes.data(), bytes.size());
    }

    /// 1 to 20 instructions, then HLT (#GP in user mode) wherever a branch may arrive.
    std::vector<u8> program(Case& first) {
        std::vector<u8> bytes;
        const u64 count = 1 + generator_.below(longest);
        for (u64 i = 0; i < count;) {
            Case c = generator_.next();
            if (!c.insn.row || c.insn.row->name[0] == 'H') continue;
            if (i == 0) first = c;
            std::vector<u8> one(c.bytes.begin(), c.bytes.begin() + c.insn.length);
            // Branches go forwards, so that the program ends.
            if (c.insn.operand_count > 0 && c.insn.operand[0].kind == OperandKind::relative) {
                const std::size_t wide = c.insn.length > 4 ? 3 : 0;
                for (std::size_t k = 1; k <= wide; ++k) one[one.size() - k] = 0;
                one[one.size() - 1 - wide] = static_cast<u8>(generator_.below(24));
            }
            bytes.insert(bytes.end(), one.begin(), one.end());
            ++i;
        }
        return bytes;
    }

    void one(u64 n) {
        Case c;
        const std::vector<u8> bytes = program(c);
        c.before.rip = (c.mode == CaseMode::real16 ? 0 : place::code) + 0x400;
        c.before.rflags &= ~RFLAGS::IOPL;
        for (u64& r : c.before.r)
            if (generator_.chance(50)) r = generator_.address_in_data() - segment_base(c.mode, Seg::DS);
        if (c.mode != CaseMode::long64)
            for (unsigned i = 0; i < 16; ++i) c.before.r[i] = i < 8 ? low32(c.before.r[i]) : 0;
        std::vector<u8> code(place::code_bytes, 0xF4);
        std::copy(bytes.begin(), bytes.end(), code.begin() + 0x400);
        RunEnd ends[2];
        for (Subject* subject : {&fast_, &general_}) {
            write(*subject, 0, pristine_.system);
            write(*subject, place::data, pristine_.data);
            write(*subject, place::code, code);
            subject->load(c.before);
            // Twice: the second time over blocks that are there already.
            subject->harness().run(longest + 30);
            write(*subject, place::code, code);
            subject->load(c.before);
            ends[subject == &general_] = subject->harness().run(longest + 30);
        }
        std::string found = difference(fast_, general_);
        if (ends[0] != ends[1]) found += " end of run";
        for (const auto& [from, size] : {std::pair<u64, u64>{0, system_end},
                                         {place::data, place::real_data_end - place::data},
                                         {place::code, place::code_bytes}})
            if (std::memcmp(at(fast_, from), at(general_, from), size) != 0) found += fmt::format(" memory at {:x}", from);
        if (found.empty()) return;
        ++failures_;
        Outcome left, right;
        left.after = fast_.registers();
        right.after = general_.registers();
        c.insn.length = 0;
        const std::string text = disassemble_all(code_mode(c.mode), bytes, c.before.rip);
        FAIL_CHECK("seed ", options().seed, ", program ", n, ": ", text, "\n fast / general:", found, "\n",
                   report(c, left, right, compare(left, right, {.x87 = true}, 0)));
    }

    CpuModel model_;
    Forms forms_;
    Generator generator_;
    Subject fast_, general_;
    Memory pristine_;
    unsigned failures_ = 0;
};

}  // namespace

TEST_CASE("fast handlers: 16-bit real-address mode") {
    Programs(CaseMode::real16, options().seed).run(options().cases / 40);
}
TEST_CASE("fast handlers: 32-bit protected mode") {
    Programs(CaseMode::protected32, options().seed).run(options().cases / 20);
}
TEST_CASE("fast handlers: 64-bit mode") { Programs(CaseMode::long64, options().seed).run(options().cases / 20); }

}  // namespace exeunt::test
