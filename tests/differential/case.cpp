#include "tests/differential/case.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace exeunt::test {

namespace {

struct FlagName {
    const char* name;
    u64 mask;
};
constexpr FlagName flag_names[] = {
    {"CF", RFLAGS::CF}, {"PF", RFLAGS::PF}, {"AF", RFLAGS::AF}, {"ZF", RFLAGS::ZF}, {"SF", RFLAGS::SF},
    {"OF", RFLAGS::OF}, {"DF", RFLAGS::DF}, {"IF", RFLAGS::IF}, {"TF", RFLAGS::TF}, {"IOPL", RFLAGS::IOPL},
    {"NT", RFLAGS::NT}, {"AC", RFLAGS::AC}, {"ID", RFLAGS::ID}, {"VM", RFLAGS::VM},
};

/// Visits every compared value of one or two states under its name.
template <class Visit>
void visit_registers(const Registers& a, const Registers& b, Visit visit) {
    for (unsigned i = 0; i < 16; ++i) visit(register_name(i, CaseMode::long64), a.r[i], b.r[i]);
    visit("rip", a.rip, b.rip);
    for (unsigned i = 0; i < 16; ++i) {
        static constexpr const char* names[] = {"xmm{}", "xmm{}h", "ymm{}", "ymm{}h"};
        for (unsigned q = 0; q < 4; ++q)
            visit(fmt::format(fmt::runtime(names[q]), i), a.vector[i][q], b.vector[i][q]);
    }
    visit("mxcsr", u64{a.mxcsr}, u64{b.mxcsr});
}

/// Without the pointers to the last instruction and operand, about which no two vendors agree.
template <class Visit>
void visit_x87(const X87State& a, const X87State& b, Visit visit) {
    for (unsigned i = 0; i < 8; ++i) {
        visit(fmt::format("fpr{}", i), a.st[i].significand, b.st[i].significand);
        visit(fmt::format("fpr{}x", i), u64{a.st[i].sign_exponent}, u64{b.st[i].sign_exponent});
    }
    visit("fcw", u64{a.control}, u64{b.control});
    visit("fsw", u64{a.status}, u64{b.status});
    visit("ftw", u64{a.empty}, u64{b.empty});
}

bool same_fault(const Fault& a, const Fault& b, const Reported& reported) {
    const auto is_memory = [](const Fault& f) {
        return f.vector == static_cast<int>(Vector::PF) || f.vector == static_cast<int>(Vector::GP) ||
               f.vector == static_cast<int>(Vector::SS);
    };
    if (b.vector == Fault::memory) return is_memory(a);
    if (b.vector == Fault::any) return a.vector >= 0;
    if (a.vector != b.vector) return false;
    if (a.vector < 0 || !reported.error_codes) return true;
    return a.error == b.error && (a.vector != static_cast<int>(Vector::PF) || a.address == b.address);
}

std::string hex_bytes(const Case& c) {
    std::string text;
    for (unsigned i = 0; i < c.insn.length; ++i) text += fmt::format("{:02x} ", c.bytes[i]);
    return text;
}

}  // namespace

std::string register_name(unsigned number, CaseMode mode) {
    static constexpr const char* names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    if (number >= 8) return fmt::format("r{}", number);
    return (mode == CaseMode::long64 ? "r" : "e") + std::string{names[number]};
}

std::string fault_name(const Fault& fault) {
    static constexpr const char* names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS",
                                            "#NP", "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM"};
    switch (fault.vector) {
        case Fault::none: return "none";
        case Fault::memory: return "memory fault";
        case Fault::any: return "some fault";
        case Fault::unmodelled: return "not modelled";
        default: break;
    }
    std::string text = fault.vector < 20 ? names[fault.vector] : std::to_string(fault.vector);
    if (fault.error || fault.address) text += fmt::format("({:x}) at {:x}", fault.error, fault.address);
    return text;
}

Differences compare(const Outcome& ours, const Outcome& theirs, const Reported& reported, u64 undefined) {
    Differences found;
    if (!same_fault(ours.fault, theirs.fault, reported)) found.emplace_back("fault");
    if (ours.fault.vector != Fault::none || theirs.fault.vector != Fault::none)
        if (!found.empty() || !reported.state_after_fault) return found;
    const auto note = [&](const std::string& name, u64 a, u64 b) {
        if (a != b) found.push_back(name);
    };
    // Names are made only when there is something to name.
    const Registers &a = ours.after, &b = theirs.after;
    const bool same = std::equal(a.r, a.r + 16, b.r) && a.rip == b.rip && a.mxcsr == b.mxcsr &&
                      std::equal(&a.vector[0][0], &a.vector[0][0] + 64, &b.vector[0][0]);
    if (!same) visit_registers(a, b, note);
    const u64 changed = (a.rflags ^ b.rflags) & ~undefined & RFLAGS::all & ~RFLAGS::RF;
    if (changed)
        for (const FlagName& flag : flag_names)
            if (changed & flag.mask) found.emplace_back(flag.name);
    if (reported.x87) visit_x87(a.x87, b.x87, note);
    return found;
}

std::string report(const Case& c, const Outcome& ours, const Outcome& theirs, const Differences& differences) {
    static constexpr const char* modes[] = {"16-bit real-address mode", "32-bit protected mode", "64-bit mode"};
    std::string text = fmt::format("{}: {}  [{}]\n", modes[static_cast<unsigned>(c.mode)],
                                   disassemble(code_mode(c.mode), {c.bytes.data(), c.insn.length}, c.before.rip),
                                   hex_bytes(c));
    text += fmt::format("    {:<8}{:>18}{:>20}{:>20}\n", "", "before", "exeunt", "oracle");
    std::vector<u64> befores;
    visit_registers(c.before, c.before, [&](const auto&, u64 a, u64) { befores.push_back(a); });
    visit_x87(c.before.x87, c.before.x87, [&](const auto&, u64 a, u64) { befores.push_back(a); });
    std::size_t at = 0;
    const auto line = [&](const std::string& name, u64 a, u64 b) {
        const u64 before = befores[at++];
        const bool marked = std::find(differences.begin(), differences.end(), name) != differences.end();
        if (before == 0 && a == 0 && b == 0) return;
        if (!marked && before == a && a == b && name[0] == 'f' && c.insn.row->name[0] != 'F') return;
        text += fmt::format("  {} {:<8}{:>18x}{:>20x}{:>20x}\n", marked ? '*' : ' ', name, before, a, b);
    };
    visit_registers(ours.after, theirs.after, line);
    visit_x87(ours.after.x87, theirs.after.x87, line);
    text += fmt::format("    {:<8}{:>18x}{:>20x}{:>20x}\n", "rflags", c.before.rflags, ours.after.rflags,
                        theirs.after.rflags);
    text += fmt::format("    fault: {} / {}\n", fault_name(ours.fault), fault_name(theirs.fault));
    text += fmt::format("    memory operand at {:x}:", place::data + c.patch_at);
    for (unsigned i = 0; i < 32; ++i) text += fmt::format(" {:02x}", c.patch[i]);
    text += "\n    differs:";
    for (const std::string& d : differences) text += " " + d;
    return text + "\n";
}

}  // namespace exeunt::test
