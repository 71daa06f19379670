// One row for each paging mode and level: which linear bits index it, and what its page-size bit means.
// SDM 3A Table 4-1 "Properties of Different Paging Modes", Tables 4-4 to 4-19.
#pragma once

#include "arch/registers.hpp"

#include <array>

namespace exeunt {

struct PagingLevel {
    unsigned high_bit, low_bit;    ///< of the linear address
    enum class Large : u8 { never, if_pse, always, if_gigabyte_pages } large = Large::never;
    bool page_size_reserved = false;  ///< bit 7 must be 0 where it can not mean a page
    bool in_registers = false;        ///< PAE's PDPTEs

    constexpr bool large_page_if(u64 cr4, bool gigabyte_pages) const {
        switch (large) {
            case Large::never: return false;
            case Large::if_pse: return cr4 & CR4::PSE;
            case Large::always: return true;
            case Large::if_gigabyte_pages: return gigabyte_pages;
        }
        return false;
    }
    /// Address bits that a large page's entry must have clear (bit 12 is PAT; PSE36 reuses 20:13).
    constexpr u64 large_reserved(unsigned physical_bits) const {
        if (large == Large::if_pse) {
            const unsigned used = physical_bits < 40 ? physical_bits : 40;
            return low_mask(22) & ~low_mask(13 + used - 32);
        }
        return low_mask(low_bit) & ~low_mask(13);
    }
};

struct PagingFormat {
    unsigned levels;
    unsigned entry_bytes;
    bool pae;  ///< bits 62:52 are reserved
    std::array<PagingLevel, 5> level;
};

namespace paging_formats {
using L = PagingLevel::Large;
inline constexpr PagingFormat legacy{2, 4, false, {{{31, 22, L::if_pse}, {21, 12}}}};
inline constexpr PagingFormat pae{3, 8, true, {{{31, 30, L::never, false, true}, {29, 21, L::always}, {20, 12}}}};
inline constexpr PagingFormat level4{
    4, 8, false, {{{47, 39, L::never, true}, {38, 30, L::if_gigabyte_pages, true}, {29, 21, L::always}, {20, 12}}}};
inline constexpr PagingFormat level5{5, 8, false,
                                     {{{56, 48, L::never, true},
                                       {47, 39, L::never, true},
                                       {38, 30, L::if_gigabyte_pages, true},
                                       {29, 21, L::always},
                                       {20, 12}}}};
}  // namespace paging_formats

/// The format in force. Only asked while CR0.PG = 1.
inline const PagingFormat& paging_format(const ControlRegisters& control) {
    if (control.efer & EFER::LMA) return control.cr4 & CR4::LA57 ? paging_formats::level5 : paging_formats::level4;
    return control.cr4 & CR4::PAE ? paging_formats::pae : paging_formats::legacy;
}

}  // namespace exeunt
