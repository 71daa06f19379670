// Comparison and classification. SDM 1 8.3.6 "Comparison and Classification Instructions"; SDM 2A FCOM,
// FUCOM, FCOMI, FICOM, FTST, FXAM.
#include "cpu/instructions/x87.hpp"

namespace exeunt {

namespace {

using namespace x87;
using softfloat80::Kind;
using softfloat80::Relation;

enum class QuietNan : u8 { accepted, invalid };

/// The relation, with what was found in `e`.
Relation relation(bool defined, const Extended& a, const Extended& b, QuietNan quiet_nan, Environment& e) {
    if (defined) return softfloat80::compare(a, b, quiet_nan == QuietNan::invalid, e);
    stack_underflow(e);
    return Relation::unordered;
}

constexpr u16 condition_codes(Relation r) {
    switch (r) {
    case Relation::greater: return 0;
    case Relation::less: return FSW::C0;
    case Relation::equal: return FSW::C3;
    default: return FSW::C0 | FSW::C2 | FSW::C3;
    }
}

/// Sets C3, C2 and C0, and pops. Unmasked, #I keeps both from happening (SDM 2A FCOM), #D only the second.
Result<void> into_status(Cpu& cpu, const Insn& insn, u64 offset, Relation r, const Environment& e,
                         unsigned pops) {
    X87State& x87 = cpu.x87;
    const bool completes = conclude(cpu, insn, e, offset);
    if (!(e.unmasked() & FSW::IE))
        x87.status = static_cast<u16>((x87.status & ~(FSW::C0 | FSW::C2 | FSW::C3)) | condition_codes(r));
    while (completes && pops-- > 0) pop(x87);
    return {};
}

/// With a number in memory or ST(i).
Result<void> compare(Cpu& cpu, const Insn& insn, QuietNan quiet_nan, unsigned pops) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    if (has_memory(insn)) {
        const u64 offset = cpu.effective_address(insn);
        const Extended number = TRY(load_number(cpu, insn, offset, e));
        return into_status(cpu, insn, offset, relation(!is_empty(x87, 0), st(x87, 0), number, quiet_nan, e),
                           e, pops);
    }
    const unsigned i = register_number(insn);
    const bool defined = !is_empty(x87, 0) && !is_empty(x87, i);
    return into_status(cpu, insn, 0, relation(defined, st(x87, 0), st(x87, i), quiet_nan, e), e, pops);
}

/// FCOMI and its like: the relation in ZF, PF and CF.
Result<void> compare_flags(Cpu& cpu, const Insn& insn, QuietNan quiet_nan, bool pops) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const unsigned i = register_number(insn);
    const bool defined = !is_empty(x87, 0) && !is_empty(x87, i);
    const Relation r = relation(defined, st(x87, 0), st(x87, i), quiet_nan, e);
    const bool completes = conclude(cpu, insn, e);
    const bool unordered = r == Relation::unordered;
    const u64 result = (unordered || r == Relation::less ? RFLAGS::CF : 0) | (unordered ? RFLAGS::PF : 0) |
                       (unordered || r == Relation::equal ? RFLAGS::ZF : 0);
    // An unmasked #I leaves these three alone; OF, SF and AF are cleared in any case (SDM 2A FCOMI).
    static constexpr u64 kept = RFLAGS::CF | RFLAGS::PF | RFLAGS::ZF;
    cpu.flags.set_arithmetic(e.unmasked() & FSW::IE ? cpu.flags.arithmetic() & kept : result);
    if (completes && pops) pop(x87);
    return {};
}

} // namespace

Result<void> exec_FCOM(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::invalid, 0); }
Result<void> exec_FCOMP(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::invalid, 1); }
Result<void> exec_FCOMPP(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::invalid, 2); }
Result<void> exec_FICOM(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::invalid, 0); }
Result<void> exec_FICOMP(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::invalid, 1); }
Result<void> exec_FUCOM(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::accepted, 0); }
Result<void> exec_FUCOMP(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::accepted, 1); }
Result<void> exec_FUCOMPP(Cpu& cpu, const Insn& insn) { return compare(cpu, insn, QuietNan::accepted, 2); }
Result<void> exec_FCOMI(Cpu& cpu, const Insn& insn) {
    return compare_flags(cpu, insn, QuietNan::invalid, false);
}
Result<void> exec_FCOMIP(Cpu& cpu, const Insn& insn) {
    return compare_flags(cpu, insn, QuietNan::invalid, true);
}
Result<void> exec_FUCOMI(Cpu& cpu, const Insn& insn) {
    return compare_flags(cpu, insn, QuietNan::accepted, false);
}
Result<void> exec_FUCOMIP(Cpu& cpu, const Insn& insn) {
    return compare_flags(cpu, insn, QuietNan::accepted, true);
}

Result<void> exec_FTST(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const Relation r =
        relation(!is_empty(x87, 0), st(x87, 0), softfloat80::zero(false), QuietNan::invalid, e);
    return into_status(cpu, insn, 0, r, e, 0);
}

/// C1 is the sign, also of an empty register. SDM 2A Table 3-51 "FXAM Results".
Result<void> exec_FXAM(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    const Extended& a = st(x87, 0);
    u16 codes = 0;
    if (is_empty(x87, 0)) {
        codes = FSW::C3 | FSW::C0;
    } else {
        switch (softfloat80::kind(a)) {
        case Kind::unsupported: break;
        case Kind::quiet_nan:
        case Kind::signaling_nan: codes = FSW::C0; break;
        case Kind::finite: codes = FSW::C2; break;
        case Kind::infinity: codes = FSW::C2 | FSW::C0; break;
        case Kind::zero: codes = FSW::C3; break;
        case Kind::denormal: codes = FSW::C3 | FSW::C2; break;
        }
    }
    note(cpu, insn, 0);
    const u16 sign = softfloat80::is_negative(a) ? FSW::C1 : u16{0};
    x87.status = static_cast<u16>((x87.status & ~FSW::conditions) | codes | sign);
    return {};
}

} // namespace exeunt
