#include "diagnosis/walks.hpp"

#include "mmu/ept.hpp"
#include "mmu/npt.hpp"
#include "svm/svm.hpp"
#include "vmx/vmx.hpp"

#include <fmt/format.h>
#include <memory>

namespace exeunt {

namespace {

/// What steers translation in the guest.
struct Guest {
    ControlRegisters control;
    std::unique_ptr<Ept> ept;
    std::unique_ptr<Npt> npt;
    u64 pat = 0;

    SecondLevel* second_level() const {
        return ept ? static_cast<SecondLevel*>(ept.get()) : static_cast<SecondLevel*>(npt.get());
    }
};

void load_pdptes(Cpu& cpu, ControlRegisters& c) {
    const bool pae = (c.cr0 & CR0::PG) && (c.cr4 & CR4::PAE) && !(c.efer & EFER::LMA);
    for (unsigned i = 0; pae && i < 4; ++i)
        c.pdpte[i] = cpu.memory.load<u64>(Physical{(c.cr3 & 0xFFFF'FFE0) + 8 * i});
}

Guest vmx_guest(Cpu& cpu, Vmx& vmx, bool entered) {
    using F = VmcsField;
    Guest guest{.control = cpu.control, .ept = {}, .npt = {}, .pat = cpu.pat};
    if (!vmx.current()) return guest;
    const Vmcs& v = *vmx.current();
    const u64 entry = v[F::vm_entry_controls];
    const u64 primary = v[F::primary_processor_based_vm_execution_controls];
    const bool secondary_active = primary & primary::activate_secondary_controls;
    const u64 secondary = secondary_active ? v[F::secondary_processor_based_vm_execution_controls] : 0;
    const bool ept = secondary & secondary::enable_ept;
    if (!entered) {
        ControlRegisters& c = guest.control;
        c.cr0 = v[F::guest_cr0];
        c.cr3 = v[F::guest_cr3];
        c.cr4 = v[F::guest_cr4];
        if (entry & vm_entry::load_ia32_efer) c.efer = v[F::guest_ia32_efer];
        c.efer = (c.efer & ~EFER::LMA) | (entry & vm_entry::ia_32e_mode_guest ? EFER::LMA : 0);
        if (entry & vm_entry::load_ia32_pat) guest.pat = v[F::guest_ia32_pat];
        for (unsigned i = 0; i < 4; ++i) c.pdpte[i] = v.at(F::guest_pdpte0, i);
        if (!ept) load_pdptes(cpu, c);
    }
    if (ept) {
        guest.ept = std::make_unique<Ept>(vmx.ept());
        guest.ept->set_pointer(v[F::ept_pointer]);
        guest.ept->set_log(nullptr);
    }
    return guest;
}

Guest svm_guest(Cpu& cpu, Svm& svm, bool entered) {
    Guest guest{.control = cpu.control, .ept = {}, .npt = {}, .pat = cpu.pat};
    u8 bytes[VMCB::bytes];
    cpu.memory.read_bytes(Physical{svm.vmcb_address()}, bytes, sizeof bytes);
    const VmcbView vmcb(bytes);
    const bool nested = vmcb.get(VMCB::nested_control) & VMCB::NP_ENABLE;
    if (nested) guest.npt = std::make_unique<Npt>(svm.npt());
    if (entered) return guest;
    if (nested) guest.npt->set_tables(vmcb.get(VMCB::n_cr3), cpu.control.cr4, cpu.control.efer);
    ControlRegisters& c = guest.control;
    c.cr0 = vmcb.get(VMCB::cr0);
    c.cr3 = vmcb.get(VMCB::cr3);
    c.cr4 = vmcb.get(VMCB::cr4);
    c.efer = vmcb.get(VMCB::efer);
    const bool long_mode = (c.efer & EFER::LME) && (c.cr0 & CR0::PG);
    c.efer = (c.efer & ~EFER::LMA) | (long_mode ? EFER::LMA : 0);
    if (nested) guest.pat = vmcb.get(VMCB::g_pat);
    load_pdptes(cpu, c);
    return guest;
}

Guest guest_of(Cpu& cpu, bool entered) {
    if (auto* vmx = dynamic_cast<Vmx*>(cpu.virtualization)) return vmx_guest(cpu, *vmx, entered);
    if (auto* svm = dynamic_cast<Svm*>(cpu.virtualization)) return svm_guest(cpu, *svm, entered);
    return {.control = cpu.control, .ept = {}, .npt = {}, .pat = cpu.pat};
}

constexpr std::string_view entry_names[] = {"", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"};

/// Gathers the steps of a walk.
class Gatherer final : public WalkLog {
public:
    explicit Gatherer(bool ept) : ept_(ept) {}

    void begin(GuestPhysical) override { second_level.clear(); }
    void step(const WalkStep& s) override {
        (s.second_level ? second_level : first_level).push_back(s);
        const std::string_view prefix = !s.second_level ? "" : ept_ ? "EPT " : "nested ";
        WalkLine line{.second_level = s.second_level,
                      .in_register = s.in_register,
                      .physical = s.where,
                      .bytes = s.bytes,
                      .name = fmt::format("{}{}", prefix, entry_names[s.level]),
                      .where = s.in_register ? "register" : fmt::format("{:#x}", s.where.value),
                      .entry = fmt::format("{:#0{}x}", s.entry, 2 + 2 * s.bytes),
                      .words = on_one_line(s.second_level && ept_ ? "ept_entry" : "paging_entry", s.entry)};
        if (!s.second_level && !s.in_register && s.at.value != s.where.value)
            line.where = fmt::format("{:#x} -> {:#x}", s.at.value, s.where.value);
        lines.push_back(std::move(line));
    }

    std::vector<WalkLine> lines;
    std::vector<WalkStep> first_level, second_level; ///< second level: of the last walk there

private:
    bool ept_;
};

std::string rights(bool read, bool write, bool execute) {
    std::string text =
        fmt::format("{}{}{}", read ? "read " : "", write ? "write " : "", execute ? "execute " : "");
    if (text.empty()) return "nothing";
    text.pop_back();
    return text;
}

constexpr u64 present = bit(0), writable = bit(1), user = bit(2), execute_disable = bit(63);

bool all(const std::vector<WalkStep>& steps, u64 mask) {
    for (const WalkStep& s : steps)
        if (!s.in_register && (s.entry & mask) != mask) return false;
    return true;
}
bool any(const std::vector<WalkStep>& steps, u64 mask) {
    for (const WalkStep& s : steps)
        if (s.entry & mask) return true;
    return false;
}

/// Whether the walk came to its end.
bool complete(const std::vector<WalkStep>& steps) { return !steps.empty() && (steps.back().entry & present); }

/// The combined rights of each level of translation that was walked.
void say_rights(const Gatherer& g, const Guest& guest, std::vector<std::string>& to) {
    if (complete(g.first_level))
        to.push_back(fmt::format("guest paging combined: {}, {}, {}",
                                 all(g.first_level, writable) ? "writable" : "read-only",
                                 all(g.first_level, user) ? "user" : "supervisor",
                                 any(g.first_level, execute_disable) ? "execute-disabled" : "executable"));
    if (guest.ept && !g.second_level.empty())
        to.push_back("EPT combined: " + rights(all(g.second_level, bit(0)), all(g.second_level, bit(1)),
                                               all(g.second_level, bit(2))));
    if (guest.npt && complete(g.second_level))
        to.push_back(fmt::format("nested paging combined: {}, {}, {}",
                                 all(g.second_level, writable) ? "writable" : "read-only",
                                 all(g.second_level, user) ? "user" : "supervisor",
                                 any(g.second_level, execute_disable) ? "execute-disabled" : "executable"));
}

/// SDM 3A Table 11-7 "Effective Page-Level Memory Types for Pentium III and More Recent Processor Families":
/// PAT with MTRR, or with EPT in its place (SDM 3C 28.2.6.2).
u64 combined_type(u64 pat, u64 mtrr) {
    constexpr u64 UC = 0, WC = 1, WT = 4, WP = 5, WB = 6, UC_MINUS = 7;
    if (pat == WC) return WC;
    if (pat == UC) return UC;
    if (pat == UC_MINUS) return mtrr == WC ? WC : UC;
    if (pat == WB) return mtrr;
    return mtrr == WT || mtrr == WP || mtrr == WB ? pat : UC;
}

/// The PAT entry that the last entry of a walk selects.
u64 pat_type(const std::vector<WalkStep>& steps, u64 pat) {
    if (steps.empty()) return pat & 7;
    const WalkStep& leaf = steps.back();
    const u64 pat_bit = leaf.level == 1 ? leaf.entry >> 7 & 1 : leaf.entry >> 12 & 1;
    const u64 index = (leaf.entry >> 3 & 3) | pat_bit << 2;
    return pat >> (8 * index) & 7;
}

void say_memory_type(const Gatherer& g, const Guest& guest, std::vector<std::string>& to) {
    const bool disabled = guest.control.cr0 & CR0::CD;
    const bool paging = guest.control.cr0 & CR0::PG;
    const u64 first = paging ? pat_type(g.first_level, guest.pat) : 6;
    std::string text = "memory type: ";
    if (disabled) text += "CR0.CD = 1; ";
    if (paging && !g.first_level.empty()) text += fmt::format("PAT {}; ", memory_type_name(first));
    if (guest.ept && !g.second_level.empty()) {
        const u64 leaf = g.second_level.back().entry;
        const u64 type = leaf >> 3 & 7;
        const bool ignore_pat = leaf >> 6 & 1;
        text += fmt::format("EPT {}{}; ", memory_type_name(type), ignore_pat ? ", ignore PAT" : "");
        const u64 effective = disabled ? 0 : ignore_pat ? type : combined_type(first, type);
        text += "effective " + memory_type_name(effective);
    } else if (guest.npt && !g.second_level.empty()) {
        text += fmt::format("nested PAT index {}; combined with it and the MTRRs (APM 2 15.25.8)",
                            (g.second_level.back().entry >> 3 & 3));
    } else {
        text += "combined with the MTRRs (SDM 3A Table 11-7)";
    }
    to.push_back(text);
}

/// The first step for which `wrong` holds, as a sentence.
template <class Wrong>
void say_culprit(const std::vector<WalkStep>& steps, std::string_view prefix, std::string_view what,
                 Wrong wrong, std::vector<std::string>& to) {
    for (const WalkStep& s : steps)
        if (wrong(s)) {
            to.push_back(fmt::format("because: the {}{} at {} {}", prefix, entry_names[s.level],
                                     s.in_register ? "register" : fmt::format("{:#x}", s.where.value), what));
            return;
        }
}

void say_page_fault(const Stop& stop, const Gatherer& g, std::vector<std::string>& to) {
    to.push_back(fmt::format("#PF, error code {:#x}: {}", stop.error, on_one_line("page_fault", stop.error)));
    const u64 error = stop.error;
    if (!(error & PFEC::P)) {
        say_culprit(
            g.first_level, "", "is not present", [](const WalkStep& s) { return !(s.entry & present); }, to);
    } else if (error & PFEC::RSVD) {
        say_culprit(
            g.first_level, "", "has a reserved bit set",
            [&](const WalkStep& s) { return &s == &g.first_level.back(); }, to);
    } else if (error & PFEC::PK) {
        to.push_back("because: the protection key of the page forbids it");
    } else if ((error & PFEC::U) && !all(g.first_level, user)) {
        say_culprit(
            g.first_level, "", "is a supervisor's",
            [](const WalkStep& s) { return !s.in_register && !(s.entry & user); }, to);
    } else if ((error & PFEC::W) && !all(g.first_level, writable)) {
        say_culprit(
            g.first_level, "", "is read-only",
            [](const WalkStep& s) { return !s.in_register && !(s.entry & writable); }, to);
    } else if (any(g.first_level, execute_disable)) {
        say_culprit(
            g.first_level, "", "disables execution",
            [](const WalkStep& s) { return (s.entry & execute_disable) != 0; }, to);
    } else {
        to.push_back("because: SMEP or SMAP keeps the supervisor from a user page");
    }
}

void say_ept_fault(const Ept& ept, const Gatherer& g, std::vector<std::string>& to) {
    const EptFault& fault = ept.fault();
    const bool violation = fault.kind == EptFault::Kind::violation;
    to.push_back(fmt::format("{} at guest-physical address {:#x}",
                             violation ? "EPT violation" : "EPT misconfiguration", fault.guest_physical));
    if (!violation) {
        if (!g.second_level.empty())
            to.push_back(fmt::format("because: the EPT {} at {:#x} has {}",
                                     entry_names[g.second_level.back().level],
                                     g.second_level.back().where.value, fault.cause));
        return;
    }
    to.push_back(fmt::format("exit qualification {:#x}: {}", fault.qualification,
                             on_one_line("ept_violation", fault.qualification)));
    const u64 needed = fault.qualification & 7;
    say_culprit(
        g.second_level, "EPT ", "does not allow " + rights(needed & 1, needed & 2, needed & 4),
        [needed](const WalkStep& s) { return (s.entry & needed) != needed; }, to);
}

void say_nested_fault(const Npt& npt, const Gatherer& g, std::vector<std::string>& to) {
    const NestedFault& fault = npt.fault();
    to.push_back(fmt::format("nested page fault at guest-physical address {:#x}", fault.guest_physical));
    to.push_back(
        fmt::format("EXITINFO1 {:#x}: {}", fault.error, on_one_line("nested_page_fault", fault.error)));
    const auto culprit = [&](std::string_view what, auto wrong) {
        say_culprit(g.second_level, "nested ", what, wrong, to);
    };
    if (!(fault.error & PFEC::P)) {
        culprit("is not present", [](const WalkStep& s) { return !(s.entry & present); });
    } else if (fault.error & PFEC::RSVD) {
        culprit("has a reserved bit set", [&](const WalkStep& s) { return &s == &g.second_level.back(); });
    } else if (!all(g.second_level, user)) {
        culprit("is a supervisor's: nested accesses are a user's",
                [](const WalkStep& s) { return !(s.entry & user); });
    } else if ((fault.error & PFEC::W) && !all(g.second_level, writable)) {
        culprit("is read-only", [](const WalkStep& s) { return !(s.entry & writable); });
    } else {
        culprit("disables execution", [](const WalkStep& s) { return (s.entry & execute_disable) != 0; });
    }
}

std::string question_in_words(const WalkQuestion& q) {
    static constexpr std::string_view types[] = {"read of", "write to", "fetch from"};
    return fmt::format("{} {} address {:#x}, as {}", types[static_cast<unsigned>(q.access.type)],
                       q.linear ? "linear" : "guest-physical", q.address,
                       q.access.user() ? "user" : "supervisor");
}

void say_roots(const Guest& guest, bool linear, std::vector<std::string>& to) {
    const ControlRegisters& c = guest.control;
    if (linear && !(c.cr0 & CR0::PG)) {
        to.push_back("guest: paging is off");
    } else if (linear) {
        const bool ia_32e = c.efer & EFER::LMA;
        to.push_back(fmt::format("guest: CR3 {:#x}, {}", c.cr3,
                                 ia_32e             ? c.cr4 & CR4::LA57 ? "5-level paging" : "4-level paging"
                                 : c.cr4 & CR4::PAE ? "PAE paging"
                                                    : "32-bit paging"));
    }
    if (guest.ept)
        to.push_back(fmt::format("EPTP {:#x}: {}", guest.ept->pointer(),
                                 on_one_line("ept_pointer", guest.ept->pointer())));
    if (guest.npt) to.push_back(fmt::format("nested CR3 {:#x}", guest.npt->tables().cr3));
}

} // namespace

ExplainedWalk explain_walk(Cpu& cpu, const WalkQuestion& q, bool entered) {
    const Guest guest = guest_of(cpu, entered);
    ExplainedWalk result{.question = question_in_words(q), .roots = {}, .lines = {}, .verdict = {}};
    say_roots(guest, q.linear, result.roots);
    Gatherer gatherer(guest.ept != nullptr);
    Stop stop;
    if (q.linear) {
        Mmu mmu(cpu.memory, guest.control);
        mmu.set_features(cpu.mmu.features());
        mmu.set_second_level(guest.second_level());
        const Result<Translation> found = mmu.explain(Linear{q.address}, q.access, gatherer);
        stop = found.stop();
        result.translates = found.ok();
        if (found.ok()) {
            const Translation& t = found.value();
            result.verdict.push_back(
                fmt::format("translates to physical address {:#x}, in pages of {} KBytes", t.physical.value,
                            t.bytes / 1024));
        }
    } else if (SecondLevel* second = guest.second_level()) {
        const SecondLevelAccess access{.type = q.access.type, .user = true, .probe = true, .log = &gatherer};
        const Result<SecondLevelPage> found = second->translate(GuestPhysical{q.address}, access);
        stop = found.stop();
        result.translates = found.ok();
        if (found.ok())
            result.verdict.push_back(
                fmt::format("translates to physical address {:#x}, in pages of {} KBytes",
                            found.value().physical.value, found.value().bytes / 1024));
    } else {
        result.translates = true;
        result.verdict.push_back(
            "guest-physical addresses are physical: neither EPT nor nested paging is on");
    }
    result.lines = std::move(gatherer.lines);
    if (stop.kind == Stop::Kind::exception) say_page_fault(stop, gatherer, result.verdict);
    if (stop.kind == Stop::Kind::second_level && guest.ept)
        say_ept_fault(*guest.ept, gatherer, result.verdict);
    if (stop.kind == Stop::Kind::second_level && guest.npt)
        say_nested_fault(*guest.npt, gatherer, result.verdict);
    say_rights(gatherer, guest, result.verdict);
    if (result.translates) say_memory_type(gatherer, guest, result.verdict);
    return result;
}

} // namespace exeunt
