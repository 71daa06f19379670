// vmcb_fuzz [--cases N] [--seed S]: random VMCBs through VMRUN. Each case takes a VMCB that is entered,
// changes a few of its fields and executes VMRUN. A refusal must name exactly the rules that violated_rules()
// finds, and what is entered must violate none. Exit status: 0, or 12 after the first case that is otherwise,
// which is printed.
#include "tests/support/svm_harness.hpp"
#include "tests/svm/vmcb_predicates.hpp"

#include "base/random.hpp"

#define DOCTEST_CONFIG_IMPLEMENT // the harness is the unit tests'
#include <doctest/doctest.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <vector>

namespace exeunt::test {

namespace {

using T = SvmHarness;
using Image = std::array<u8, VMCB::bytes>;

u64 rules(std::span<const VmrunCheck* const> checks) {
    u64 mask = 0;
    for (const VmrunCheck* check : checks) {
        unsigned number = 0;
        std::from_chars(check->id.data() + 6, check->id.data() + check->id.size(), number); // VMRUN-n
        mask |= bit(number);
    }
    return mask;
}

class Fuzzer {
public:
    explicit Fuzzer(u64 seed) : random_(seed) {
        add_start([](T&) {});
        add_start([](T& t) { t.use_npt(); });
        add_start([](T& t) { t.use_avic(); });
        add_start([](T& t) { t.use_avic(true); });
        add_start([](T& t) { // PAE paging: four PDPTEs at 50000H
            t.set(VMCB::efer, EFER::SVME);
            t.set(VMCB::cs_attrib, t.get(VMCB::cs_attrib) & ~0x200u);
            t.set(VMCB::cr3, 0x5'0000);
        });
        t_.use_avic(); // the tables
        t_.cpu.observer = nullptr;
        state_ = t_.cpu;
        for (const Range& range : kept_ranges) {
            kept_.emplace_back(range.bytes);
            t_.memory.read_bytes(Physical{range.start}, kept_.back().data(), range.bytes);
        }
    }

    /// Whether VMRUN did as it must.
    bool run();
    unsigned entered = 0, refused = 0;
    u64 rules_seen = 0;

private:
    template <class Change>
    void add_start(Change change) {
        T t;
        change(t);
        Image image;
        t.memory.read_bytes(Physical{T::vmcb}, image.data(), image.size());
        starts_.push_back(image);
    }
    void mutate(Image& image);
    u64 value(u64 now);
    void restore();
    void explain(const Image& image, u64 expected, u64 found);

    /// What cases need of memory: an event that a guest takes may be written over it.
    struct Range {
        u64 start, bytes;
    };
    static constexpr Range kept_ranges[] = {{T::gdt_address, 0x4000},    {0x5'0000, 0x1000},
                                            {T::tables_address, 0x3000}, {T::nested_tables, 0xB000},
                                            {T::backing_page, 0x4000},   {T::vmrun_address, 0x1000}};
    std::vector<std::vector<u8>> kept_;

    Random random_;
    T t_;
    CpuState state_;
    std::vector<Image> starts_;
    bool took_event_ = false;
    std::vector<const VMCB::FieldRow*> changed_;
};

u64 Fuzzer::value(u64 now) {
    const u64 r = random_.next();
    switch (r % 12) {
    case 0: return random_.next();
    case 1: return 0;
    case 2: return ~u64{0};
    case 3: return (r >> 8) % 32;
    case 4: return bit(static_cast<unsigned>(r >> 8 & 63));
    case 5: return (u64{1} << 48) - 0x4000 + 0x800 * ((r >> 8) % 16);
    case 6: return ~u64{0} - 0x4000 + 0x800 * ((r >> 8) % 16);
    case 7: return bit(31) | (r >> 8 & 0xFFF); // an event
    case 8: return now & (now - 1);
    default: return now ^ bit(static_cast<unsigned>(r >> 8 & 63)) ^ (r & bit(20) ? bit(r >> 24 & 31) : 0);
    }
}

void Fuzzer::mutate(Image& image) {
    changed_.clear();
    for (u64 n = 1 + random_.next() % 3; n > 0; --n) {
        const VMCB::FieldRow& row = VMCB::field_rows[random_.next() % std::size(VMCB::field_rows)];
        changed_.push_back(&row);
        u64 now = 0;
        for (unsigned i = 0; i < row.bytes; ++i) now |= u64{image[row.offset + i]} << (8 * i);
        const u64 then = value(now);
        for (unsigned i = 0; i < row.bytes; ++i) image[row.offset + i] = static_cast<u8>(then >> (8 * i));
    }
}

/// Back to the host before VMRUN.
void Fuzzer::restore() {
    Cpu& cpu = t_.cpu;
    if (cpu.in_guest) t_.svm.exit({.code = ExitCode::INTR});
    if (took_event_)
        for (std::size_t i = 0; i < kept_.size(); ++i)
            t_.memory.write_bytes(Physical{kept_ranges[i].start}, kept_[i].data(), kept_[i].size());
    static_cast<CpuState&>(cpu) = state_;
    cpu.context_changed(false);
    cpu.mode_changed();
    cpu.r[RAX] = T::vmcb;
    cpu.rip = cpu.next_rip = T::vmrun_address;
}

void Fuzzer::explain(const Image& image, u64 expected, u64 found) {
    std::printf("case %u: violated", entered + refused);
    for (unsigned n = 0; n < 64; ++n)
        if (expected >> n & 1) std::printf(" VMRUN-%03u", n);
    std::printf("; VMRUN found");
    for (unsigned n = 0; n < 64; ++n)
        if (found >> n & 1) std::printf(" VMRUN-%03u", n);
    std::printf("\n");
    for (const VMCB::FieldRow* row : changed_) {
        u64 is = 0;
        for (unsigned i = 0; i < row->bytes; ++i) is |= u64{image[row->offset + i]} << (8 * i);
        std::printf("  %.*s = %#llx\n", static_cast<int>(row->name.size()), row->name.data(),
                    static_cast<unsigned long long>(is));
    }
}

bool Fuzzer::run() {
    Image image = starts_[random_.next() % starts_.size()];
    mutate(image);
    restore();
    t_.memory.write_bytes(Physical{T::vmcb}, image.data(), image.size());
    // Clean bits speak of what VMRUN knew; nothing here does.
    t_.set(VMCB::clean_bits, 0);
    t_.set(VMCB::exitcode, 0); // a guest that shuts down leaves it
    const u64 expected =
        violated_rules(image, [this](u64 at) { return t_.memory.load<u64>(Physical{at & low_mask(32)}); });
    const Stop stop = t_.cpu.step();
    const bool in_host = !t_.cpu.in_guest;
    const bool invalid =
        in_host && stop.kind == Stop::Kind::world_switch && t_.exitcode() == ExitCode::INVALID;
    const u64 found = invalid ? rules(t_.svm.last_refusal()) : 0;
    took_event_ = !invalid && (image[0xAB] & 0x80); // EVENTINJ.V
    (invalid ? refused : entered) += 1;
    rules_seen |= found;
    if (found == expected && (found != 0) == invalid) return true;
    explain(image, expected, found);
    return false;
}

bool number_argument(int argc, char** argv, int& i, std::string_view name, u64& value) {
    if (name != argv[i] || i + 1 >= argc) return false;
    const std::string_view text = argv[++i];
    return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc();
}

int fuzz(int argc, char** argv) {
    u64 cases = 1'000'000, seed = 1;
    for (int i = 1; i < argc; ++i)
        if (!number_argument(argc, argv, i, "--cases", cases) &&
            !number_argument(argc, argv, i, "--seed", seed)) {
            std::fprintf(stderr, "usage: vmcb_fuzz [--cases N] [--seed S]\n");
            return 2;
        }
    Fuzzer fuzzer(seed);
    for (u64 i = 0; i < cases; ++i)
        if (!fuzzer.run()) {
            std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
            return 12;
        }
    std::printf("vmcb_fuzz: seed %llu, %u entered, %u refused by %u different rules\n",
                static_cast<unsigned long long>(seed), fuzzer.entered, fuzzer.refused,
                static_cast<unsigned>(__builtin_popcountll(fuzzer.rules_seen)));
    return 0;
}

} // namespace

} // namespace exeunt::test

int main(int argc, char** argv) {
    doctest::Context context;
    context.setAsDefaultForAssertsOutOfTestCases();
    return exeunt::test::fuzz(argc, argv);
}
