// Checks on guest segment and descriptor-table registers. SDM 3C 26.3.1.2 "Checks on Guest Segment
// Registers", 26.3.1.3 "Checks on Guest Descriptor-Table Registers".
#include "vmx/entry_checks.hpp"

#include "arch/registers.hpp"
#include "arch/segment.hpp"

#include <array>

namespace exeunt {

namespace {

using E = EntryContext;
using F = VmcsField;

constexpr std::string_view segments = "SDM 3C 26.3.1.2", tables = "SDM 3C 26.3.1.3";

u64 selector(const E& e, Seg s) { return e.vmcs.at(F::guest_es_selector, static_cast<unsigned>(s)); }
u64 base(const E& e, Seg s) { return e.vmcs.at(F::guest_es_base, static_cast<unsigned>(s)); }
u64 limit(const E& e, Seg s) { return e.vmcs.at(F::guest_es_limit, static_cast<unsigned>(s)); }
u64 access(const E& e, Seg s) { return e.vmcs.at(F::guest_es_access_rights, static_cast<unsigned>(s)); }
bool usable(const E& e, Seg s) { return !(access(e, s) & AR::UNUSABLE); }
u64 type(const E& e, Seg s) { return access(e, s) & AR::TYPE; }
u64 dpl(const E& e, Seg s) { return extract(access(e, s), 6, 5); }
u64 rpl(const E& e, Seg s) { return selector(e, s) & 3; }

constexpr std::array code_and_data{Seg::CS, Seg::SS, Seg::DS, Seg::ES, Seg::FS, Seg::GS};
constexpr std::array data{Seg::DS, Seg::ES, Seg::FS, Seg::GS};

/// All fields of a segment are blamed: a rule restricts some of them.
void blame(const E& e, Seg s) {
    for (const F first :
         {F::guest_es_selector, F::guest_es_base, F::guest_es_limit, F::guest_es_access_rights})
        e.blame(static_cast<F>(static_cast<unsigned>(first) + static_cast<unsigned>(s)));
}

/// Whether `holds` holds for these segments, as far as `matters` says that they matter.
template <class Matters, class Holds>
bool for_each(const E& e, std::span<const Seg> segments_, Matters matters, Holds holds) {
    bool all = true;
    for (const Seg s : segments_) {
        if (!matters(s) || holds(s)) continue;
        if (!e.blamed) return false;
        all = false;
        blame(e, s);
    }
    return all;
}
template <class Holds>
bool for_all(const E& e, Holds holds) {
    return for_each(
        e, code_and_data, [](Seg) { return true; }, holds);
}
/// The same for CS and those of the others that are usable, outside virtual-8086 mode.
template <class Holds>
bool for_usable(const E& e, Holds holds) {
    return e.v8086() || for_each(
                            e, code_and_data, [&](Seg s) { return s == Seg::CS || usable(e, s); }, holds);
}
template <class Holds>
bool for_usable_data(const E& e, Holds holds) {
    return e.v8086() || for_each(
                            e, data, [&](Seg s) { return usable(e, s); }, holds);
}

/// Limit and granularity agree.
bool granularity(const E& e, Seg s) {
    const u64 l = limit(e, s);
    const bool g = access(e, s) & AR::G;
    return !(g && (l & 0xFFF) != 0xFFF) && !(!g && (l >> 20) != 0);
}
bool reserved_clear(const E& e, Seg s) { return (access(e, s) & 0xFFFE'0F00) == 0; }
/// Segments of 64-bit processors have 32-bit bases where the manual does not say "canonical".
bool short_base(const E& e, Seg s) { return high32(base(e, s)) == 0; }

constexpr std::array rows{
    EntryCheck{"guest.tr.selector_ti", segments, "TR: the TI flag is 0",
               on(F::guest_tr_selector).bits(allowed::clear<2, 2>),
               [](const E& e) { return !(selector(e, Seg::TR) & 4); }},
    EntryCheck{"guest.ldtr.selector_ti", segments, "LDTR usable: the TI flag is 0",
               on(F::guest_ldtr_selector).given(F::guest_ldtr_access_rights).bits(allowed::clear<2, 2>),
               [](const E& e) { return !usable(e, Seg::LDTR) || !(selector(e, Seg::LDTR) & 4); }},
    EntryCheck{
        "guest.ss.selector_rpl", segments, "neither virtual-8086 nor unrestricted: SS.RPL is CS.RPL",
        on(F::guest_ss_selector, F::guest_cs_selector)
            .given(F::guest_rflags, F::secondary_processor_based_vm_execution_controls),
        [](const E& e) { return e.v8086() || e.unrestricted() || rpl(e, Seg::SS) == rpl(e, Seg::CS); }},
    EntryCheck{"guest.segments.v8086_base", segments, "virtual-8086: base is selector * 16",
               on(F::guest_cs_base, F::guest_ss_base, F::guest_ds_base, F::guest_es_base, F::guest_fs_base,
                  F::guest_gs_base, F::guest_cs_selector, F::guest_ss_selector, F::guest_ds_selector,
                  F::guest_es_selector, F::guest_fs_selector, F::guest_gs_selector)
                   .given(F::guest_rflags),
               [](const E& e) {
                   return !e.v8086() || for_all(e, [&](Seg s) { return base(e, s) == selector(e, s) << 4; });
               }},
    EntryCheck{"guest.bases.canonical", segments, "TR, FS and GS bases are canonical",
               on(F::guest_tr_base, F::guest_fs_base, F::guest_gs_base),
               [](const E& e) {
                   return e.canonical({F::guest_tr_base, F::guest_fs_base, F::guest_gs_base});
               }},
    EntryCheck{"guest.ldtr.base_canonical", segments, "LDTR usable: the base is canonical",
               on(F::guest_ldtr_base).given(F::guest_ldtr_access_rights),
               [](const E& e) { return !usable(e, Seg::LDTR) || e.canonical(base(e, Seg::LDTR)); }},
    EntryCheck{"guest.cs.base_63_32", segments, "CS: base bits 63:32 are 0",
               on(F::guest_cs_base).bits(allowed::low<32>),
               [](const E& e) { return short_base(e, Seg::CS); }},
    EntryCheck{"guest.data.base_63_32", segments, "SS, DS, ES usable: base bits 63:32 are 0",
               on(F::guest_ss_base, F::guest_ds_base, F::guest_es_base)
                   .given(F::guest_ss_access_rights, F::guest_ds_access_rights, F::guest_es_access_rights)
                   .bits(allowed::low<32>),
               [](const E& e) {
                   constexpr std::array three{Seg::SS, Seg::DS, Seg::ES};
                   return for_each(
                       e, three, [&](Seg s) { return usable(e, s); },
                       [&](Seg s) { return short_base(e, s); });
               }},
    EntryCheck{
        "guest.segments.v8086_limit", segments, "virtual-8086: limits are FFFFH",
        on(F::guest_cs_limit, F::guest_ss_limit, F::guest_ds_limit, F::guest_es_limit, F::guest_fs_limit,
           F::guest_gs_limit)
            .given(F::guest_rflags),
        [](const E& e) { return !e.v8086() || for_all(e, [&](Seg s) { return limit(e, s) == 0xFFFF; }); }},
    EntryCheck{
        "guest.segments.v8086_access", segments, "virtual-8086: access rights are F3H",
        on(F::guest_cs_access_rights, F::guest_ss_access_rights, F::guest_ds_access_rights,
           F::guest_es_access_rights, F::guest_fs_access_rights, F::guest_gs_access_rights)
            .given(F::guest_rflags),
        [](const E& e) { return !e.v8086() || for_all(e, [&](Seg s) { return access(e, s) == 0xF3; }); }},
    EntryCheck{"guest.cs.type", segments, "CS: type 9, 11, 13 or 15, or 3 with unrestricted guest",
               on(F::guest_cs_access_rights).given(F::secondary_processor_based_vm_execution_controls),
               [](const E& e) {
                   const u64 t = type(e, Seg::CS);
                   return e.v8086() || t == 9 || t == 11 || t == 13 || t == 15 ||
                          (t == 3 && e.unrestricted());
               }},
    EntryCheck{"guest.ss.type", segments, "SS usable: type 3 or 7", on(F::guest_ss_access_rights),
               [](const E& e) {
                   const u64 t = type(e, Seg::SS);
                   return e.v8086() || !usable(e, Seg::SS) || t == 3 || t == 7;
               }},
    EntryCheck{"guest.data.type", segments, "DS, ES, FS, GS usable: accessed, and readable if code",
               on(F::guest_ds_access_rights, F::guest_es_access_rights, F::guest_fs_access_rights,
                  F::guest_gs_access_rights),
               [](const E& e) {
                   return for_usable_data(e, [&](Seg s) {
                       const u64 t = type(e, s);
                       return (t & 1) && (!(t & 8) || (t & 2));
                   });
               }},
    EntryCheck{"guest.segments.s", segments, "CS and usable segments: S is 1",
               on(F::guest_cs_access_rights, F::guest_ss_access_rights, F::guest_ds_access_rights,
                  F::guest_es_access_rights, F::guest_fs_access_rights, F::guest_gs_access_rights),
               [](const E& e) { return for_usable(e, [&](Seg s) { return (access(e, s) & AR::S) != 0; }); }},
    EntryCheck{"guest.cs.dpl_type_3", segments, "CS of type 3: DPL is 0", on(F::guest_cs_access_rights),
               [](const E& e) { return e.v8086() || type(e, Seg::CS) != 3 || dpl(e, Seg::CS) == 0; }},
    EntryCheck{"guest.cs.dpl_nonconforming", segments, "CS of type 9 or 11: DPL is SS.DPL",
               on(F::guest_cs_access_rights, F::guest_ss_access_rights),
               [](const E& e) {
                   const u64 t = type(e, Seg::CS);
                   return e.v8086() || (t != 9 && t != 11) || dpl(e, Seg::CS) == dpl(e, Seg::SS);
               }},
    EntryCheck{"guest.cs.dpl_conforming", segments, "CS of type 13 or 15: DPL is at most SS.DPL",
               on(F::guest_cs_access_rights, F::guest_ss_access_rights),
               [](const E& e) {
                   const u64 t = type(e, Seg::CS);
                   return e.v8086() || (t != 13 && t != 15) || dpl(e, Seg::CS) <= dpl(e, Seg::SS);
               }},
    EntryCheck{
        "guest.ss.dpl_rpl", segments, "neither virtual-8086 nor unrestricted: SS.DPL is SS.RPL",
        on(F::guest_ss_access_rights, F::guest_ss_selector)
            .given(F::guest_rflags, F::secondary_processor_based_vm_execution_controls),
        [](const E& e) { return e.v8086() || e.unrestricted() || dpl(e, Seg::SS) == rpl(e, Seg::SS); }},
    EntryCheck{"guest.ss.dpl_real_mode", segments, "CS of type 3, or CR0.PE = 0: SS.DPL is 0",
               on(F::guest_ss_access_rights).given(F::guest_cs_access_rights, F::guest_cr0),
               [](const E& e) {
                   return e.v8086() || (type(e, Seg::CS) != 3 && (e.cr0 & CR0::PE)) || dpl(e, Seg::SS) == 0;
               }},
    EntryCheck{
        "guest.data.dpl", segments, "not unrestricted; DS, ES, FS, GS usable, type 0 to 11: DPL at least RPL",
        on(F::guest_ds_access_rights, F::guest_es_access_rights, F::guest_fs_access_rights,
           F::guest_gs_access_rights, F::guest_ds_selector, F::guest_es_selector, F::guest_fs_selector,
           F::guest_gs_selector)
            .given(F::secondary_processor_based_vm_execution_controls),
        [](const E& e) {
            return e.unrestricted() ||
                   for_usable_data(e, [&](Seg s) { return type(e, s) > 11 || dpl(e, s) >= rpl(e, s); });
        }},
    EntryCheck{"guest.segments.p", segments, "CS and usable segments: P is 1",
               on(F::guest_cs_access_rights, F::guest_ss_access_rights, F::guest_ds_access_rights,
                  F::guest_es_access_rights, F::guest_fs_access_rights, F::guest_gs_access_rights),
               [](const E& e) { return for_usable(e, [&](Seg s) { return (access(e, s) & AR::P) != 0; }); }},
    EntryCheck{
        "guest.segments.access_11_8", segments, "CS and usable segments: access rights 11:8 are 0",
        on(F::guest_cs_access_rights, F::guest_ss_access_rights, F::guest_ds_access_rights,
           F::guest_es_access_rights, F::guest_fs_access_rights, F::guest_gs_access_rights),
        [](const E& e) { return for_usable(e, [&](Seg s) { return extract(access(e, s), 11, 8) == 0; }); }},
    EntryCheck{"guest.cs.l_and_d", segments, "IA-32e mode guest: CS.L and CS.D are not both 1",
               on(F::guest_cs_access_rights).given(F::vm_entry_controls),
               [](const E& e) {
                   return e.v8086() || !e.ia_32e_guest() || !(access(e, Seg::CS) & AR::L) ||
                          !(access(e, Seg::CS) & AR::DB);
               }},
    EntryCheck{"guest.segments.granularity", segments, "CS and usable segments: G agrees with the limit",
               on(F::guest_cs_limit, F::guest_ss_limit, F::guest_ds_limit, F::guest_es_limit,
                  F::guest_fs_limit, F::guest_gs_limit, F::guest_cs_access_rights, F::guest_ss_access_rights,
                  F::guest_ds_access_rights, F::guest_es_access_rights, F::guest_fs_access_rights,
                  F::guest_gs_access_rights),
               [](const E& e) { return for_usable(e, [&](Seg s) { return granularity(e, s); }); }},
    EntryCheck{
        "guest.segments.access_31_17", segments, "CS and usable segments: access rights 31:17 are 0",
        on(F::guest_cs_access_rights, F::guest_ss_access_rights, F::guest_ds_access_rights,
           F::guest_es_access_rights, F::guest_fs_access_rights, F::guest_gs_access_rights),
        [](const E& e) { return for_usable(e, [&](Seg s) { return extract(access(e, s), 31, 17) == 0; }); }},
    EntryCheck{"guest.tr.type", segments, "TR: type 11, or 3 outside IA-32e mode",
               on(F::guest_tr_access_rights).given(F::vm_entry_controls),
               [](const E& e) {
                   const u64 t = type(e, Seg::TR);
                   return t == SystemType::tss_busy || (t == SystemType::tss16_busy && !e.ia_32e_guest());
               }},
    EntryCheck{"guest.tr.access", segments, "TR: usable, S is 0, P is 1, reserved bits are 0",
               on(F::guest_tr_access_rights),
               [](const E& e) {
                   return usable(e, Seg::TR) && !(access(e, Seg::TR) & AR::S) &&
                          (access(e, Seg::TR) & AR::P) && reserved_clear(e, Seg::TR);
               }},
    EntryCheck{"guest.tr.granularity", segments, "TR: G agrees with the limit",
               on(F::guest_tr_limit, F::guest_tr_access_rights),
               [](const E& e) { return granularity(e, Seg::TR); }},
    EntryCheck{"guest.ldtr.access", segments, "LDTR usable: type 2, S is 0, P is 1, reserved bits are 0",
               on(F::guest_ldtr_access_rights),
               [](const E& e) {
                   return !usable(e, Seg::LDTR) ||
                          (type(e, Seg::LDTR) == SystemType::ldt && !(access(e, Seg::LDTR) & AR::S) &&
                           (access(e, Seg::LDTR) & AR::P) && reserved_clear(e, Seg::LDTR));
               }},
    EntryCheck{"guest.ldtr.granularity", segments, "LDTR usable: G agrees with the limit",
               on(F::guest_ldtr_limit, F::guest_ldtr_access_rights),
               [](const E& e) { return !usable(e, Seg::LDTR) || granularity(e, Seg::LDTR); }},

    EntryCheck{"guest.tables.base_canonical", tables, "GDTR and IDTR bases are canonical",
               on(F::guest_gdtr_base, F::guest_idtr_base),
               [](const E& e) {
                   return e.canonical({F::guest_gdtr_base, F::guest_idtr_base});
               }},
    EntryCheck{
        "guest.tables.limit_31_16", tables, "GDTR and IDTR limits: bits 31:16 are 0",
        on(F::guest_gdtr_limit, F::guest_idtr_limit).bits(allowed::low<16>),
        [](const E& e) { return e[F::guest_gdtr_limit] <= 0xFFFF && e[F::guest_idtr_limit] <= 0xFFFF; }},
};

} // namespace

std::span<const EntryCheck> guest_segment_checks() { return rows; }

} // namespace exeunt
