// SDM 3C 26.3.1 "Checks on the Guest State Area", 26.4 "Loading MSRs".
#include "tests/vmx/vmcs_predicates.hpp"

namespace exeunt::test {

namespace {

using I = VmcsImage;
using F = VmcsField;
using enum PredicateGroup;

bool canonical(const I& s, u64 a) {
    const u64 top = a >> (s.linear_bits - 1);
    return top == 0 || top == ~u64{0} >> (s.linear_bits - 1);
}
bool fits(const I& s, u64 address) { return address < u64{1} << s.physical_bits; }

// The segment registers in the order of their fields.
enum Register : unsigned { ES, CS, SS, DS, FS, GS, LDTR, TR };
u64 selector(const I& s, unsigned r) { return s.at(F::guest_es_selector, r); }
u64 base(const I& s, unsigned r) { return s.at(F::guest_es_base, r); }
u64 limit(const I& s, unsigned r) { return s.at(F::guest_es_limit, r); }
u64 rights(const I& s, unsigned r) { return s.at(F::guest_es_access_rights, r); }
u64 type(const I& s, unsigned r) { return rights(s, r) % 16; }
u64 dpl(const I& s, unsigned r) { return extract(rights(s, r), 6, 5); }
u64 rpl(const I& s, unsigned r) { return selector(s, r) % 4; }
bool usable(const I& s, unsigned r) { return !test_bit(rights(s, r), 16); }
bool v8086(const I& s) { return test_bit(s[F::guest_rflags], 17); }
bool unrestricted(const I& s) { return s.proc2(7); }
bool pe(const I& s) { return test_bit(s[F::guest_cr0], 0); }
bool pg(const I& s) { return test_bit(s[F::guest_cr0], 31); }

template <class Holds>
bool code_and_data(Holds holds) {
    for (unsigned r = ES; r <= GS; ++r)
        if (!holds(r)) return false;
    return true;
}
/// CS, and of the others those that are usable, unless in virtual-8086 mode.
template <class Holds>
bool in_use(const I& s, Holds holds) {
    return v8086(s) || code_and_data([&](unsigned r) { return (r != CS && !usable(s, r)) || holds(r); });
}
bool limit_and_g(const I& s, unsigned r) {
    const bool g = test_bit(rights(s, r), 15);
    return (limit(s, r) % 4096 == 4095 || !g) && (limit(s, r) < 0x10'0000 || g);
}

u64 event(const I& s) { return s[F::vm_entry_interruption_information]; }
bool injects(const I& s, unsigned type) { return test_bit(event(s), 31) && extract(event(s), 10, 8) == type; }
bool injects(const I& s) { return test_bit(event(s), 31); }
bool blocks(const I& s, unsigned n) { return test_bit(s[F::guest_interruptibility_state], n); }
u64 activity(const I& s) { return s[F::guest_activity_state]; }
u64 pending(const I& s) { return s[F::guest_pending_debug_exceptions]; }
bool bs_decided(const I& s) { return blocks(s, 0) || blocks(s, 1) || activity(s) == 1; }
bool single_step(const I& s) {
    return test_bit(s[F::guest_rflags], 8) && !test_bit(s[F::guest_ia32_debugctl], 1);
}
bool linked(const I& s) { return s[F::vmcs_link_pointer] + 1 != 0; }

constexpr Predicate guest_table[] = {
    {"guest.cr0.fixed_bits", guest,
     [](const I& s) {
         const u64 free = 0x6000'0000 | (unrestricted(s) ? 0x8000'0001 : 0);
         const u64 cr0 = s[F::guest_cr0];
         return ((cr0 | free) & s.cr0_fixed0) == s.cr0_fixed0 && (cr0 & ~free & ~s.cr0_fixed1) == 0;
     }},
    {"guest.cr0.pg_needs_pe", guest, [](const I& s) { return pe(s) || !pg(s); }},
    {"guest.cr4.fixed_bits", guest,
     [](const I& s) {
         const u64 cr4 = s[F::guest_cr4];
         return (s.cr4_fixed0 & ~cr4) == 0 && (cr4 & ~s.cr4_fixed1) == 0;
     }},
    {"guest.debugctl.reserved_bits", guest,
     [](const I& s) { return !s.entry(2) || (s[F::guest_ia32_debugctl] & ~s.debugctl_bits) == 0; }},
    {"guest.ia_32e.pg_pae", guest,
     [](const I& s) { return !s.entry(9) || (pg(s) && test_bit(s[F::guest_cr4], 5)); }},
    {"guest.cr4.pcide", guest, [](const I& s) { return s.entry(9) || !test_bit(s[F::guest_cr4], 17); }},
    {"guest.cr3.width", guest, [](const I& s) { return fits(s, s[F::guest_cr3]); }},
    {"guest.dr7.bits_63_32", guest, [](const I& s) { return !s.entry(2) || s[F::guest_dr7] >> 32 == 0; }},
    {"guest.sysenter.canonical", guest,
     [](const I& s) {
         return canonical(s, s[F::guest_ia32_sysenter_esp]) && canonical(s, s[F::guest_ia32_sysenter_eip]);
     }},
    {"guest.perf_global_ctrl", guest,
     [](const I& s) { return !s.entry(13) || (s[F::guest_ia32_perf_global_ctrl] & ~s.perf_global_bits) == 0; }},
    {"guest.pat", guest,
     [](const I& s) {
         for (unsigned i = 0; i < 8; ++i) {
             const u64 t = s[F::guest_ia32_pat] >> (8 * i) & 0xFF;
             if (s.entry(14) && t != 0 && t != 1 && t != 4 && t != 5 && t != 6 && t != 7) return false;
         }
         return true;
     }},
    {"guest.efer.reserved_bits", guest,
     [](const I& s) { return !s.entry(15) || (s[F::guest_ia32_efer] & ~s.efer_bits) == 0; }},
    {"guest.efer.lma", guest,
     [](const I& s) { return !s.entry(15) || test_bit(s[F::guest_ia32_efer], 10) == s.entry(9); }},
    {"guest.efer.lme", guest,
     [](const I& s) {
         const u64 efer = s[F::guest_ia32_efer];
         return !s.entry(15) || !pg(s) || test_bit(efer, 10) == test_bit(efer, 8);
     }},

    {"guest.pkrs", guest, [](const I& s) { return !s.entry(22) || s[F::guest_ia32_pkrs] < u64{1} << 32; }},

    {"guest.tr.selector_ti", guest, [](const I& s) { return !test_bit(selector(s, TR), 2); }},
    {"guest.ldtr.selector_ti", guest,
     [](const I& s) { return !usable(s, LDTR) || !test_bit(selector(s, LDTR), 2); }},
    {"guest.ss.selector_rpl", guest,
     [](const I& s) { return v8086(s) || unrestricted(s) || rpl(s, SS) == rpl(s, CS); }},
    {"guest.segments.v8086_base", guest,
     [](const I& s) {
         return !v8086(s) || code_and_data([&](unsigned r) { return base(s, r) == 16 * selector(s, r); });
     }},
    {"guest.bases.canonical", guest,
     [](const I& s) {
         return canonical(s, base(s, TR)) && canonical(s, base(s, FS)) && canonical(s, base(s, GS));
     }},
    {"guest.ldtr.base_canonical", guest,
     [](const I& s) { return !usable(s, LDTR) || canonical(s, base(s, LDTR)); }},
    {"guest.cs.base_63_32", guest, [](const I& s) { return base(s, CS) < u64{1} << 32; }},
    {"guest.data.base_63_32", guest,
     [](const I& s) {
         for (const unsigned r : {SS, DS, ES})
             if (usable(s, r) && base(s, r) >> 32 != 0) return false;
         return true;
     }},
    {"guest.segments.v8086_limit", guest,
     [](const I& s) {
         return !v8086(s) || code_and_data([&](unsigned r) { return limit(s, r) == 0xFFFF; });
     }},
    {"guest.segments.v8086_access", guest,
     [](const I& s) { return !v8086(s) || code_and_data([&](unsigned r) { return rights(s, r) == 0xF3; }); }},
    {"guest.cs.type", guest,
     [](const I& s) {
         // 9, 11, 13 and 15: accessed code.
         return v8086(s) || (type(s, CS) & 9) == 9 || (unrestricted(s) && type(s, CS) == 3);
     }},
    {"guest.ss.type", guest,
     [](const I& s) { return v8086(s) || !usable(s, SS) || type(s, SS) == 3 || type(s, SS) == 7; }},
    {"guest.data.type", guest,
     [](const I& s) {
         for (const unsigned r : {DS, ES, FS, GS}) {
             if (v8086(s) || !usable(s, r)) continue;
             if (!test_bit(type(s, r), 0) || (test_bit(type(s, r), 3) && !test_bit(type(s, r), 1)))
                 return false;
         }
         return true;
     }},
    {"guest.segments.s", guest,
     [](const I& s) { return in_use(s, [&](unsigned r) { return test_bit(rights(s, r), 4); }); }},
    {"guest.cs.dpl_type_3", guest,
     [](const I& s) { return v8086(s) || type(s, CS) != 3 || dpl(s, CS) == 0; }},
    {"guest.cs.dpl_nonconforming", guest,
     [](const I& s) {
         return v8086(s) || (type(s, CS) != 9 && type(s, CS) != 11) || dpl(s, CS) == dpl(s, SS);
     }},
    {"guest.cs.dpl_conforming", guest,
     [](const I& s) {
         return v8086(s) || (type(s, CS) != 13 && type(s, CS) != 15) || dpl(s, CS) <= dpl(s, SS);
     }},
    {"guest.ss.dpl_rpl", guest,
     [](const I& s) { return v8086(s) || unrestricted(s) || dpl(s, SS) == rpl(s, SS); }},
    {"guest.ss.dpl_real_mode", guest,
     [](const I& s) { return v8086(s) || (type(s, CS) != 3 && pe(s)) || dpl(s, SS) == 0; }},
    {"guest.data.dpl", guest,
     [](const I& s) {
         if (v8086(s) || unrestricted(s)) return true;
         for (const unsigned r : {DS, ES, FS, GS})
             if (usable(s, r) && type(s, r) <= 11 && dpl(s, r) < rpl(s, r)) return false;
         return true;
     }},
    {"guest.segments.p", guest,
     [](const I& s) { return in_use(s, [&](unsigned r) { return test_bit(rights(s, r), 7); }); }},
    {"guest.segments.access_11_8", guest,
     [](const I& s) { return in_use(s, [&](unsigned r) { return extract(rights(s, r), 11, 8) == 0; }); }},
    {"guest.cs.l_and_d", guest,
     [](const I& s) {
         return v8086(s) || !s.entry(9) || !test_bit(rights(s, CS), 13) || !test_bit(rights(s, CS), 14);
     }},
    {"guest.segments.granularity", guest,
     [](const I& s) { return in_use(s, [&](unsigned r) { return limit_and_g(s, r); }); }},
    {"guest.segments.access_31_17", guest,
     [](const I& s) { return in_use(s, [&](unsigned r) { return rights(s, r) >> 17 == 0; }); }},
    {"guest.tr.type", guest,
     [](const I& s) { return type(s, TR) == 11 || (type(s, TR) == 3 && !s.entry(9)); }},
    {"guest.tr.access", guest,
     [](const I& s) {
         // P is 1; S, unusable, 11:8 and 31:17 are 0.
         return (rights(s, TR) & 0xFFFF'0F90) == 0x80;
     }},
    {"guest.tr.granularity", guest, [](const I& s) { return limit_and_g(s, TR); }},
    {"guest.ldtr.access", guest,
     [](const I& s) { return !usable(s, LDTR) || (rights(s, LDTR) & 0xFFFE'0F9F) == 0x82; }},
    {"guest.ldtr.granularity", guest, [](const I& s) { return !usable(s, LDTR) || limit_and_g(s, LDTR); }},

    {"guest.tables.base_canonical", guest,
     [](const I& s) { return canonical(s, s[F::guest_gdtr_base]) && canonical(s, s[F::guest_idtr_base]); }},
    {"guest.tables.limit_31_16", guest,
     [](const I& s) { return s[F::guest_gdtr_limit] < 0x1'0000 && s[F::guest_idtr_limit] < 0x1'0000; }},

    {"guest.rip.bits_63_32", guest,
     [](const I& s) {
         return (s.entry(9) && test_bit(rights(s, CS), 13)) || s[F::guest_rip] < u64{1} << 32;
     }},
    {"guest.rip.bits_63_n", guest,
     [](const I& s) {
         const u64 top = s[F::guest_rip] >> s.linear_bits, ones = ~u64{0} >> s.linear_bits;
         return !s.entry(9) || !test_bit(rights(s, CS), 13) || top == 0 || top == ones;
     }},
    {"guest.rflags.reserved_bits", guest,
     [](const I& s) { return (s[F::guest_rflags] & 0xFFFF'FFFF'FFC0'802A) == 2; }},
    {"guest.rflags.vm", guest, [](const I& s) { return !v8086(s) || (!s.entry(9) && pe(s)); }},
    {"guest.rflags.if", guest, [](const I& s) { return !injects(s, 0) || test_bit(s[F::guest_rflags], 9); }},

    {"guest.activity.supported", guest,
     [](const I& s) {
         return activity(s) == 0 ||
                (activity(s) < 4 && test_bit(s.misc, static_cast<unsigned>(5 + activity(s))));
     }},
    {"guest.activity.hlt_dpl", guest, [](const I& s) { return activity(s) != 1 || dpl(s, SS) == 0; }},
    {"guest.activity.blocking", guest,
     [](const I& s) { return activity(s) == 0 || (!blocks(s, 0) && !blocks(s, 1)); }},
    {"guest.activity.hlt_event", guest,
     [](const I& s) {
         const u64 vector = event(s) % 256;
         return activity(s) != 1 || !injects(s) || injects(s, 0) || injects(s, 2) ||
                (injects(s, 3) && (vector == 1 || vector == 18)) || (injects(s, 7) && vector == 0);
     }},
    {"guest.activity.shutdown_event", guest,
     [](const I& s) {
         return activity(s) != 2 || !injects(s) || injects(s, 2) || (injects(s, 3) && event(s) % 256 == 18);
     }},
    {"guest.activity.sipi_event", guest, [](const I& s) { return activity(s) != 3 || !injects(s); }},
    {"guest.interruptibility.reserved_bits", guest,
     [](const I& s) { return s[F::guest_interruptibility_state] < 32; }},
    {"guest.interruptibility.sti_and_mov_ss", guest,
     [](const I& s) { return !blocks(s, 0) || !blocks(s, 1); }},
    {"guest.interruptibility.sti_if", guest,
     [](const I& s) { return !blocks(s, 0) || test_bit(s[F::guest_rflags], 9); }},
    {"guest.interruptibility.interrupt", guest,
     [](const I& s) { return !injects(s, 0) || (!blocks(s, 0) && !blocks(s, 1)); }},
    {"guest.interruptibility.nmi_mov_ss", guest, [](const I& s) { return !injects(s, 2) || !blocks(s, 1); }},
    {"guest.interruptibility.nmi_sti", guest, [](const I& s) { return !injects(s, 2) || !blocks(s, 0); }},
    {"guest.interruptibility.smi", guest, [](const I& s) { return !blocks(s, 2); }},
    {"guest.interruptibility.nmi_nmi", guest,
     [](const I& s) { return !s.pin(5) || !injects(s, 2) || !blocks(s, 3); }},
    {"guest.interruptibility.enclave", guest, [](const I& s) { return !blocks(s, 4); }},
    {"guest.pending_debug.reserved_bits", guest,
     [](const I& s) { return (pending(s) & 0xFFFF'FFFF'FFFE'AFF0) == 0; }},
    {"guest.pending_debug.bs_set", guest,
     [](const I& s) { return !bs_decided(s) || !single_step(s) || test_bit(pending(s), 14); }},
    {"guest.pending_debug.bs_clear", guest,
     [](const I& s) { return !bs_decided(s) || single_step(s) || !test_bit(pending(s), 14); }},
    {"guest.pending_debug.rtm", guest, [](const I& s) { return !test_bit(pending(s), 16); }},
    {"guest.link_pointer.bits_11_0", guest,
     [](const I& s) { return !linked(s) || s[F::vmcs_link_pointer] % 4096 == 0; }},
    {"guest.link_pointer.width", guest,
     [](const I& s) { return !linked(s) || fits(s, s[F::vmcs_link_pointer]); }},
    {"guest.link_pointer.revision", guest,
     [](const I& s) {
         if (!linked(s) || s[F::vmcs_link_pointer] % 4096 != 0 || !fits(s, s[F::vmcs_link_pointer]))
             return true;
         const u32 first = s.memory->load<u32>(Physical{s[F::vmcs_link_pointer]});
         return (first & 0x7FFF'FFFF) == s.revision && test_bit(first, 31) == s.proc2(14);
     }},
    {"guest.link_pointer.not_current", guest,
     [](const I& s) { return s[F::vmcs_link_pointer] != s.current_vmcs; }},
};

/// The MSRs that vmcs_fuzz puts into MSR areas, and whether this value can be written.
bool loads(const I& s, u64 index, u64 value) {
    switch (index) {
    case 0xC000'0081: return true;                // IA32_STAR
    case 0xC000'0082: return canonical(s, value); // IA32_LSTAR
    default: return false;
    }
}

template <class Refuses>
bool no_entry(const I& s, Refuses refuses) {
    for (u64 i = 0; i < s[F::vm_entry_msr_load_count]; ++i) {
        const Physical at{s[F::vm_entry_msr_load_address] + 16 * i};
        const u64 index = s.memory->load<u32>(at), reserved = s.memory->load<u32>(at + 4);
        if (refuses(index, reserved, s.memory->load<u64>(at + 8))) return false;
        if (!loads(s, index, s.memory->load<u64>(at + 8)) || reserved)
            break; // the first that is refused ends it
    }
    return true;
}

constexpr Predicate late_table[] = {
    {"guest.pdptes.reserved_bits", pdptes,
     [](const I& s) {
         if (!pg(s) || !test_bit(s[F::guest_cr4], 5) || s.entry(9)) return true;
         for (unsigned i = 0; i < 4; ++i) {
             const u64 table = s[F::guest_cr3] & 0xFFFF'FFE0;
             const u64 entry =
                 s.proc2(1) ? s.at(F::guest_pdpte0, i) : s.memory->load<u64>(Physical{table + 8 * i});
             if (test_bit(entry, 0) && ((entry & 0x1E6) || !fits(s, entry))) return false;
         }
         return true;
     }},
    {"msr_load.fs_gs_base", msr_load,
     [](const I& s) {
         return no_entry(s, [](u64 i, u64, u64) { return i == 0xC000'0100 || i == 0xC000'0101; });
     }},
    {"msr_load.x2apic", msr_load,
     [](const I& s) { return no_entry(s, [](u64 i, u64, u64) { return i >= 0x800 && i <= 0x8FF; }); }},
    {"msr_load.smm_only", msr_load,
     [](const I& s) { return no_entry(s, [](u64 i, u64, u64) { return i == 0x9B; }); }},
    {"msr_load.model_specific", msr_load,
     [](const I& s) { return no_entry(s, [](u64 i, u64, u64) { return i == 0x79 || i == 0x8B; }); }},
    {"msr_load.bits_63_32", msr_load,
     [](const I& s) { return no_entry(s, [](u64, u64 reserved, u64) { return reserved != 0; }); }},
    {"msr_load.wrmsr", msr_load,
     [](const I& s) { return no_entry(s, [&](u64 i, u64, u64 v) { return !loads(s, i, v); }); }},
};

} // namespace

std::span<const Predicate> guest_predicates() { return guest_table; }
std::span<const Predicate> late_predicates() { return late_table; }

} // namespace exeunt::test
