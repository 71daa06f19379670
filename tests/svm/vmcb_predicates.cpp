#include "tests/svm/vmcb_predicates.hpp"

namespace exeunt::test {

namespace {

/// A VMCB with the manual's offsets.
class Image {
public:
    explicit Image(std::span<const u8, 4096> bytes) : bytes_(bytes) {}
    u64 q(unsigned offset) const { return number(offset, 8); }
    u32 d(unsigned offset) const { return static_cast<u32>(number(offset, 4)); }
    u32 w(unsigned offset) const { return static_cast<u32>(number(offset, 2)); }

private:
    u64 number(unsigned offset, unsigned size) const {
        u64 value = 0;
        for (unsigned i = size; i-- > 0;) value = value << 8 | bytes_[offset + i];
        return value;
    }
    std::span<const u8, 4096> bytes_;
};

constexpr u64 physical_end = u64{1} << 48;
bool on(u64 value, unsigned n) { return value >> n & 1; }

/// The last byte of a map that begins in the 4 KBytes of `base`.
bool map_illegal(u64 base, u64 bytes) { return base - base % 4096 > physical_end - bytes; }

bool is_exception(u64 vector) {
    switch (vector) {
    case 0:
    case 1:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: // #DE #DB #BP #OF #BR #UD #NM #DF
    case 10:
    case 11:
    case 12:
    case 13:
    case 14: // #TS #NP #SS #GP #PF
    case 16:
    case 17:
    case 18:
    case 19:
    case 21: // #MF #AC #MC #XF #CP
    case 28:
    case 29:
    case 30: return true; // #HV #VC #SX
    default: return false;
    }
}

bool injection_illegal(u64 event, bool code64) {
    if (!on(event, 31)) return false;
    switch (event >> 8 & 7) {
    case 0:
    case 2:
    case 4: return false;
    case 3: break;
    default: return true;
    }
    const u64 vector = event & 0xFF;
    return !is_exception(vector) || (code64 && (vector == 4 || vector == 5));
}

bool pat_illegal(u64 pat) {
    for (; pat != 0; pat >>= 8) switch (pat & 0xFF) {
        case 0:
        case 1:
        case 4:
        case 5:
        case 6:
        case 7: break;
        default: return true;
        }
    return false;
}

bool page_illegal(u64 address) { return address % 4096 != 0 || address >= physical_end; }

} // namespace

u64 violated_rules(std::span<const u8, 4096> vmcb, const std::function<u64(u64)>& physical) {
    const Image v(vmcb);
    u64 broken = 0;
    const auto rule = [&](unsigned number, bool violated) { broken |= u64{violated} << number; };
    const u64 cr0 = v.q(0x558), cr3 = v.q(0x550), cr4 = v.q(0x548), efer = v.q(0x4D0);
    const bool pe = on(cr0, 0), pg = on(cr0, 31), pae = on(cr4, 5), lme = on(efer, 8);
    const bool l = on(v.w(0x412), 9), big = on(v.w(0x412), 10);
    rule(1, !on(efer, 12));
    rule(2, on(cr0, 29) && !on(cr0, 30));
    rule(3, cr0 >> 32 != 0);
    rule(4, lme && pg && cr3 >= physical_end);
    // VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57; FSGSBASE PCIDE OSXSAVE; SMEP SMAP PKE
    rule(5, (cr4 & 0xFFFF'FFFF & ~u64{0x0077'1FFF}) != 0);
    rule(32, cr4 >> 32 != 0);
    rule(6, v.d(0x56C) != 0);
    rule(7, v.d(0x564) != 0);
    // SCE LME LMA NXE SVME FFXSR MCOMMIT AIBRSE
    rule(8, (efer & ~u64{0x0022'5D01}) != 0);
    rule(10, lme && pg && !pae);
    rule(11, lme && pg && !pe);
    rule(12, lme && pg && pae && l && big);
    rule(13, !on(v.d(0x10), 0));
    rule(14, map_illegal(v.q(0x40), 3 * 4096));
    rule(15, map_illegal(v.q(0x48), 2 * 4096));
    rule(16, injection_illegal(v.q(0xA8), lme && pg && l));
    rule(17, v.d(0x58) == 0);
    const bool np = on(v.q(0x90), 0);
    rule(22, np && v.q(0xB0) >= physical_end);
    rule(23, np && pat_illegal(v.q(0x668)));
    const u64 control = v.q(0x60);
    const bool vnmi = on(control, 26), x2avic = on(control, 30), avic = on(control, 31);
    rule(25, vnmi && !on(v.d(0x0C), 1));
    rule(26, x2avic && !avic);
    rule(27, avic && !x2avic && (v.q(0xF8) & 0xFFF) > 255);
    const bool logical = !x2avic && page_illegal(v.q(0xF0));
    rule(29, avic && (page_illegal(v.q(0xE0)) || v.q(0xF8) >= physical_end || logical));
    rule(34, avic && !np);
    if (broken == 0 && pg && pae && !lme && !np)
        for (u64 i = 0; i < 4; ++i) {
            const u64 entry = physical((cr3 & 0xFFFF'FFE0) + 8 * i);
            rule(24, on(entry, 0) && ((entry & 0x1E6) != 0 || entry >= physical_end));
        }
    return broken;
}

} // namespace exeunt::test
