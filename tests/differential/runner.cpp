#include "tests/differential/runner.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace exeunt::test {

Options& options() {
    static Options given;
    return given;
}

namespace {

constexpr u64 page = 0x1000;
/// States in which one random instruction is tried.
constexpr unsigned states_per_instruction = 3;

}  // namespace

Runner::Runner(const Forms& forms, Subject& subject, OracleHandle oracle, const KnownDifferences& known, u64 seed)
    : forms_(forms), subject_(subject), oracle_(std::move(oracle)), known_(known), generator_(forms, seed), seed_(seed),
      pristine_(data_bytes(forms.mode())) {
    Random random(0x5EED);
    for (std::size_t i = 0; i < pristine_.size(); i += 8) {
        const u64 value = random.next();
        for (unsigned j = 0; j < 8; ++j) pristine_[i + j] = static_cast<u8>(value >> (8 * j));
    }
    for (const std::span<u8> data : {subject_.data(), oracle_.data()})
        std::copy(pristine_.begin(), pristine_.end(), data.begin());
}

void Runner::prepare(const Case& c, std::span<u8> data) {
    std::copy(c.patch.begin(), c.patch.end(), data.begin() + c.patch_at);
}

void Runner::restore(std::span<u8> data) {
    for (std::size_t at = 0; at < pristine_.size(); at += page)
        if (std::memcmp(data.data() + at, pristine_.data() + at, page) != 0)
            std::memcpy(data.data() + at, pristine_.data() + at, page);
}

/// Whether the silicon may see this case: all that exeunt touched, or was refused, lies within the case's own memory
/// or about it, so that nothing else of this process is hit.
bool Runner::safe(const Case& c, const Outcome& ours) const {
    if (oracle_.oracle != Oracle::silicon) return true;
    if (ours.fault.vector == Fault::unmodelled) return false;
    if (ours.fault.vector != static_cast<int>(Vector::PF)) return true;
    const u64 at = ours.fault.address;
    (void)c;
    return at >= place::data - page && at < place::data_end + page;
}

Runner::Comparison Runner::compare_case(const Case& c) {
    Comparison result;
    prepare(c, subject_.data());
    result.ours = subject_.run(c);
    if (safe(c, result.ours)) {
        prepare(c, oracle_.data());
        result.theirs = oracle_.run(c);
        result.differences = compare(result.ours, result.theirs, oracle_.reported, undefined_flags(c));
        const bool faulted = result.theirs.fault.vector != Fault::none;
        const std::size_t size = pristine_.size();
        if ((!faulted || oracle_.reported.state_after_fault) &&
            std::memcmp(subject_.data().data(), oracle_.data().data(), size) != 0)
            result.differences.emplace_back("memory");
        if (!result.differences.empty())
            result.known = known_.explain(oracle_.oracle, c, result.ours, result.theirs, result.differences);
        restore(oracle_.data());
    }
    restore(subject_.data());
    return result;
}

bool Runner::fails(const Case& c) {
    const Comparison result = compare_case(c);
    return !result.differences.empty() && !result.known;
}

/// Makes every value as plain as it can be while the case still fails.
Case Runner::minimized(Case c) {
    const auto try_value = [&](auto& value, auto plain) {
        if (value == plain) return;
        const auto kept = value;
        value = plain;
        if (!fails(c)) value = kept;
    };
    for (unsigned round = 0; round < 2; ++round) {
        for (u64& r : c.before.r)
            for (const u64 plain : {u64{0}, u64{1}, r & 0xFF, r & 0xFFFF, u64{low32(r)}}) try_value(r, plain);
        for (auto& vector : c.before.vector)
            for (u64& q : vector)
                for (const u64 plain : {u64{0}, q & 0xFFFF'FFFF, q & ~u64{0xFFFF'FFFF}}) try_value(q, plain);
        try_value(c.before.mxcsr, 0x1F80u);
        try_value(c.before.rflags, RFLAGS::FIXED1 | RFLAGS::IF);
        for (u64 flag = 1; flag < bit(22); flag <<= 1)
            if (!(flag & (RFLAGS::FIXED1 | RFLAGS::IF))) try_value(c.before.rflags, c.before.rflags & ~flag);
        try_value(c.patch, std::array<u8, 64>{});
        for (u8& b : c.patch) try_value(b, u8{0});
        for (X87Register& st : c.before.x87.st) {
            try_value(st.significand, u64{0});
            try_value(st.sign_exponent, u16{0});
        }
    }
    return c;
}

void Runner::examine(const Case& c, u64 number) {
    ++cases_;
    const Comparison result = compare_case(c);
    if (result.differences.empty() || result.known) return;
    const std::string row = c.insn.row->name;
    const bool first = by_row_[row]++ == 0;
    if (!first || failures_.size() >= 60) return;
    Case small = minimized(c);
    Comparison again = compare_case(small);
    if (again.differences.empty()) {  // it does not fail twice: as it was the first time
        small = c;
        again = result;
    }
    failures_.push_back(fmt::format("--seed {} --mnemonic {} (case {})\n", seed_, row, number) +
                        report(small, again.ours, again.theirs, again.differences));
}

void Runner::run(u64 cases, const std::string& only_row) {
    const RowForms* only = nullptr;
    for (const RowForms& row : forms_.rows())
        if (row.row->name == only_row) only = &row;
    if ((!only && !only_row.empty()) || forms_.rows().empty()) return;
    for (u64 n = 0; n < cases;) {
        Case c = only ? generator_.next(*only) : generator_.next();
        for (unsigned state = 0; state < states_per_instruction && n < cases; ++state, ++n) {
            if (!c.insn.row) continue;
            if (state) generator_.restate(c);
            if (!undefined_result(c)) examine(c, n);
        }
    }
}

void Runner::look_for_known(u64 cases_per_row) {
    for (const KnownDifferences::Entry& e : known_.entries())
        for (const RowForms& row : forms_.rows())
            if (e.hits == 0 && e.oracle == oracle_.oracle && e.names(row.row->name)) run(cases_per_row, row.row->name);
}

}  // namespace exeunt::test
