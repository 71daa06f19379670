// The XSAVE feature set: XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS. SDM 1 ch. 13 "Managing State Using
// the XSAVE Feature Set"; SDM 2C XSAVE, XRSTOR and their variants.
//
// The init optimisation is exact: a component that is in its initial configuration is not written by
// XSAVEOPT, XSAVEC and XSAVES. The modified optimisation is never applied, which the manual allows (SDM
// 1 13.6). Not modelled: components beyond x87, SSE, AVX and PKRU.
#include "cpu/instructions/xsave.hpp"

#include "cpu/instructions/system.hpp"

namespace exeunt {

namespace {

constexpr u64 compacted_format = bit(63); // of XCOMP_BV
constexpr u32 mxcsr_initial = 0x1F80;
constexpr unsigned at_mxcsr = 24, at_st = 32, at_xmm = 160, end_of_xmm = 416;

struct Header {
    u64 xstate_bv = 0, xcomp_bv = 0;
    bool rest_zero_23_16 = true; ///< bytes 23:16 of the header
    bool rest_zero_63_16 = true;
};

/// What one instruction of the family does.
struct Form {
    bool compacted = false;    ///< XSAVEC, XSAVES
    bool skip_initial = false; ///< XSAVEOPT, XSAVEC, XSAVES
    bool supervisor = false;   ///< XSAVES, XRSTORS: IA32_XSS counts, CPL must be 0
    bool wide = false;         ///< REX.W
};

/// One contiguous piece of the area that is to be written.
struct Piece {
    unsigned offset;
    unsigned bytes;
    std::array<u8, xsave_legacy_bytes> data;
};

u64 enabled(const Cpu& cpu, const Form& form) { return cpu.control.xcr0 | (form.supervisor ? cpu.xss : 0); }

u64 requested(const Cpu& cpu, const Form& form) {
    return enabled(cpu, form) & (cpu.gpr(RDX, 4) << 32 | cpu.gpr(RAX, 4));
}

/// The faults that come before memory is touched, in the order of SDM 3C 25.1.1; gives the linear address.
Result<u64> area(Cpu& cpu, const Insn& insn, const Form& form, Intercept intercept, AccessType type) {
    if (!(cpu.control.cr4 & CR4::OSXSAVE)) return undefined_opcode();
    if (form.supervisor) {
        if (cpu.undefined_here(intercept)) return undefined_opcode();
        if (cpu.cpl != 0) return general_protection(0);
        TRY(cpu.ask(insn, intercept));
    }
    if (cpu.control.cr0 & CR0::TS) return exception(Vector::NM);
    const u64 linear =
        TRY(cpu.linear(insn.memory.segment, cpu.effective_address(insn), xsave_extended_start, type));
    if (linear & 63) return general_protection(0);
    return linear;
}

Result<Header> load_header(Cpu& cpu, u64 linear) {
    u64 words[8];
    TRY(cpu.load_linear_bytes(linear + xsave_legacy_bytes, words, sizeof words));
    Header header;
    header.xstate_bv = PhysicalMemory::little_endian(words[0]);
    header.xcomp_bv = PhysicalMemory::little_endian(words[1]);
    header.rest_zero_23_16 = words[2] == 0;
    for (unsigned i = 2; i < 8; ++i) header.rest_zero_63_16 &= words[i] == 0;
    return header;
}

// ---- Components
// ------------------------------------------------------------------------------------------------

unsigned vectors(const Cpu& cpu) { return cpu.code64() ? 16 : 8; }

/// A component of the extended region as bytes. Registers 8 to 15 are not there outside 64-bit mode.
unsigned put_component(const Cpu& cpu, unsigned number, u8* to) {
    if (number == 2) {
        for (unsigned i = 0; i < vectors(cpu); ++i)
            for (unsigned half = 0; half < 2; ++half) {
                const u64 raw = PhysicalMemory::little_endian(cpu.vector[i].q[2 + half]);
                std::memcpy(to + 16 * i + 8 * half, &raw, 8);
            }
        return 16 * vectors(cpu);
    }
    const u64 raw = PhysicalMemory::little_endian(u64{cpu.control.pkru});
    std::memcpy(to, &raw, 8);
    return 8;
}

void take_component(Cpu& cpu, unsigned number, const u8* from) {
    u64 raw;
    if (number == 2) {
        for (unsigned i = 0; i < vectors(cpu); ++i)
            for (unsigned half = 0; half < 2; ++half) {
                std::memcpy(&raw, from + 16 * i + 8 * half, 8);
                cpu.vector[i].q[2 + half] = PhysicalMemory::little_endian(raw);
            }
        return;
    }
    std::memcpy(&raw, from, 8);
    load_pkru(cpu, low32(PhysicalMemory::little_endian(raw)));
}

void initialise_x87(Cpu& cpu) { cpu.x87 = X87State{}; }

void initialise_vectors(Cpu& cpu, unsigned first_quadword) {
    for (unsigned i = 0; i < vectors(cpu); ++i)
        cpu.vector[i].q[first_quadword] = cpu.vector[i].q[first_quadword + 1] = 0;
}

void initialise_component(Cpu& cpu, unsigned number) {
    if (number == 2)
        initialise_vectors(cpu, 2);
    else
        load_pkru(cpu, 0);
}

bool vectors_zero(const Cpu& cpu, unsigned first_quadword) {
    for (const VectorRegister& v : cpu.vector)
        if (v.q[first_quadword] | v.q[first_quadword + 1]) return false;
    return true;
}

bool x87_initial(const X87State& x87) {
    if (x87.control != 0x037F || x87.status != 0 || x87.empty != 0xFF || x87.opcode != 0 ||
        x87.instruction_pointer != 0 || x87.data_pointer != 0 || x87.instruction_selector != 0 ||
        x87.data_selector != 0)
        return false;
    for (const X87Register& st : x87.st)
        if (st.significand != 0 || st.sign_exponent != 0) return false;
    return true;
}

// ---- Saving
// ------------------------------------------------------------------------------------------------------

Piece piece(const LegacyRegion& region, unsigned offset, unsigned bytes) {
    Piece result{offset, bytes, {}};
    std::copy_n(region.begin() + offset, bytes, result.data.begin());
    return result;
}

/// The pieces of the legacy region; `written` are the components, `mxcsr` whether MXCSR and its mask are.
std::vector<Piece> legacy_pieces(const Cpu& cpu, u64 written, bool mxcsr, bool wide) {
    LegacyRegion region{};
    put_x87(cpu, region, wide);
    put_xmm(cpu, region);
    const u32 words[] = {PhysicalMemory::little_endian(cpu.mxcsr), PhysicalMemory::little_endian(mxcsr_mask)};
    std::memcpy(region.data() + at_mxcsr, words, sizeof words);
    std::vector<Piece> pieces;
    if (written & XCR0::X87) {
        pieces.push_back(piece(region, 0, at_mxcsr));
        pieces.push_back(piece(region, at_st, at_xmm - at_st));
    }
    if (mxcsr) pieces.push_back(piece(region, at_mxcsr, at_st - at_mxcsr));
    if (written & XCR0::SSE) pieces.push_back(piece(region, at_xmm, 16 * vectors(cpu)));
    return pieces;
}

Result<void> save(Cpu& cpu, const Insn& insn, const Form& form) {
    const u64 linear = TRY(area(cpu, insn, form, Intercept::xsaves, AccessType::write));
    const u64 rfbm = requested(cpu, form);
    u64 in_use = xsave_in_use(cpu);
    // SDM 1 13.10, 13.11: for XSAVEC and XSAVES, SSE is in use when MXCSR is not 1F80H.
    if (form.compacted && cpu.mxcsr != mxcsr_initial) in_use |= XCR0::SSE;
    const u64 written = form.skip_initial ? rfbm & in_use : rfbm;
    const bool mxcsr = form.compacted ? written & XCR0::SSE : rfbm & (XCR0::SSE | XCR0::AVX);

    std::vector<Piece> pieces = legacy_pieces(cpu, written, mxcsr, form.wide);
    for (const XsaveComponent& component : xsave_components) {
        if (!test_bit(written, component.number)) continue;
        Piece p{form.compacted ? xsave_compacted_offset(rfbm, component.number) : component.offset, 0, {}};
        p.bytes = put_component(cpu, component.number, p.data.data());
        pieces.push_back(p);
    }
    // The header comes last. XSAVE and XSAVEOPT keep the bits that were not asked for.
    u64 words[2] = {rfbm & in_use, rfbm | compacted_format};
    TRY(cpu.check_linear(linear + xsave_legacy_bytes, 16, AccessType::write));
    if (!form.compacted) words[0] |= TRY(cpu.load_linear(linear + xsave_legacy_bytes, 8)) & ~rfbm;
    Piece header{xsave_legacy_bytes, form.compacted ? 16u : 8u, {}};
    for (u64& word : words) word = PhysicalMemory::little_endian(word);
    std::memcpy(header.data.data(), words, sizeof words);
    pieces.push_back(header);

    for (const Piece& p : pieces) TRY(cpu.check_linear(linear + p.offset, p.bytes, AccessType::write));
    for (const Piece& p : pieces) TRY(cpu.store_linear_bytes(linear + p.offset, p.data.data(), p.bytes));
    return {};
}

// ---- Restoring
// ---------------------------------------------------------------------------------------------------

/// SDM 1 13.8.1 "Standard Form of XRSTOR", 13.8.2 "Compacted Form of XRSTOR", 13.12 "Operation of XRSTORS".
bool header_valid(const Cpu& cpu, const Form& form, const Header& header) {
    const u64 components = enabled(cpu, form);
    if (!(header.xcomp_bv & compacted_format))
        return !form.supervisor && header.xcomp_bv == 0 && header.rest_zero_23_16 &&
               !(header.xstate_bv & ~components);
    if (!cpu.has(Feature::XSAVEC)) return false;
    const u64 layout = header.xcomp_bv & ~compacted_format;
    return !(layout & ~components) && !(header.xstate_bv & ~layout) && header.rest_zero_63_16;
}

/// What is going to be loaded, fetched in full before anything changes.
struct Incoming {
    LegacyRegion legacy;
    std::array<std::array<u8, 256>, xsave_components.size()> extended;
};

Result<void> fetch(Cpu& cpu, u64 linear, const Header& header, u64 loaded, bool mxcsr, Incoming& incoming) {
    if ((loaded & (XCR0::X87 | XCR0::SSE)) || mxcsr)
        TRY(cpu.load_linear_bytes(linear, incoming.legacy.data(), end_of_xmm));
    for (unsigned i = 0; i < xsave_components.size(); ++i) {
        const XsaveComponent& component = xsave_components[i];
        if (!test_bit(loaded, component.number)) continue;
        const unsigned offset =
            header.xcomp_bv & compacted_format
                ? xsave_compacted_offset(header.xcomp_bv & ~compacted_format, component.number)
                : component.offset;
        TRY(cpu.load_linear_bytes(linear + offset, incoming.extended[i].data(), component.bytes));
    }
    return {};
}

Result<void> restore(Cpu& cpu, const Insn& insn, const Form& form) {
    const u64 linear = TRY(area(cpu, insn, form, Intercept::xrstors, AccessType::read));
    const u64 rfbm = requested(cpu, form);
    const Header header = TRY(load_header(cpu, linear));
    if (!header_valid(cpu, form, header)) return general_protection(0);
    const bool compacted = header.xcomp_bv & compacted_format;
    const u64 loaded = rfbm & header.xstate_bv, initialised = rfbm & ~header.xstate_bv;
    // The standard form loads MXCSR whenever SSE or AVX is asked for, whatever XSTATE_BV says.
    const bool load_mxcsr = compacted ? loaded & XCR0::SSE : rfbm & (XCR0::SSE | XCR0::AVX);
    Incoming incoming;
    TRY(fetch(cpu, linear, header, loaded, load_mxcsr, incoming));
    u32 mxcsr = mxcsr_initial;
    if (load_mxcsr) {
        std::memcpy(&mxcsr, incoming.legacy.data() + at_mxcsr, sizeof mxcsr);
        mxcsr = PhysicalMemory::little_endian(mxcsr);
        if (mxcsr & ~mxcsr_mask) return general_protection(0);
    }

    if (loaded & XCR0::X87)
        take_x87(cpu, incoming.legacy, form.wide);
    else if (initialised & XCR0::X87)
        initialise_x87(cpu);
    if (loaded & XCR0::SSE)
        take_xmm(cpu, incoming.legacy);
    else if (initialised & XCR0::SSE)
        initialise_vectors(cpu, 0);
    if (load_mxcsr || (initialised & XCR0::SSE)) cpu.mxcsr = mxcsr;
    for (unsigned i = 0; i < xsave_components.size(); ++i) {
        const unsigned number = xsave_components[i].number;
        if (test_bit(loaded, number))
            take_component(cpu, number, incoming.extended[i].data());
        else if (test_bit(initialised, number))
            initialise_component(cpu, number);
    }
    return {};
}

} // namespace

u64 xsave_in_use(const Cpu& cpu) {
    u64 mask = 0;
    if (!x87_initial(cpu.x87)) mask |= XCR0::X87;
    if (!vectors_zero(cpu, 0)) mask |= XCR0::SSE;
    if (!vectors_zero(cpu, 2)) mask |= XCR0::AVX;
    if (cpu.control.pkru != 0) mask |= XCR0::PKRU;
    return mask;
}

Result<void> exec_XSAVE(Cpu& cpu, const Insn& insn) { return save(cpu, insn, {}); }
Result<void> exec_XSAVE64(Cpu& cpu, const Insn& insn) { return save(cpu, insn, {.wide = true}); }
Result<void> exec_XSAVEOPT(Cpu& cpu, const Insn& insn) { return save(cpu, insn, {.skip_initial = true}); }
Result<void> exec_XSAVEOPT64(Cpu& cpu, const Insn& insn) {
    return save(cpu, insn, {.skip_initial = true, .wide = true});
}
Result<void> exec_XSAVEC(Cpu& cpu, const Insn& insn) {
    return save(cpu, insn, {.compacted = true, .skip_initial = true});
}
Result<void> exec_XSAVEC64(Cpu& cpu, const Insn& insn) {
    return save(cpu, insn, {.compacted = true, .skip_initial = true, .wide = true});
}
Result<void> exec_XSAVES(Cpu& cpu, const Insn& insn) {
    return save(cpu, insn, {.compacted = true, .skip_initial = true, .supervisor = true});
}
Result<void> exec_XSAVES64(Cpu& cpu, const Insn& insn) {
    return save(cpu, insn, {.compacted = true, .skip_initial = true, .supervisor = true, .wide = true});
}
Result<void> exec_XRSTOR(Cpu& cpu, const Insn& insn) { return restore(cpu, insn, {}); }
Result<void> exec_XRSTOR64(Cpu& cpu, const Insn& insn) { return restore(cpu, insn, {.wide = true}); }
Result<void> exec_XRSTORS(Cpu& cpu, const Insn& insn) { return restore(cpu, insn, {.supervisor = true}); }
Result<void> exec_XRSTORS64(Cpu& cpu, const Insn& insn) {
    return restore(cpu, insn, {.supervisor = true, .wide = true});
}

} // namespace exeunt
