#include "tests/differential/generator.hpp"

#include <Zydis/Zydis.h>
#include <algorithm>
#include <bit>
#include <cstring>

namespace exeunt::test {

namespace {

ZydisDecodedInstruction raw(const Case& c) {
    static constexpr ZydisMachineMode machines[] = {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_MACHINE_MODE_LEGACY_32,
                                                    ZYDIS_MACHINE_MODE_LONG_64};
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, machines[static_cast<unsigned>(c.mode)],
                     static_cast<ZydisStackWidth>(static_cast<unsigned>(c.mode)));
    ZydisDecodedInstruction instruction;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, c.bytes.data(), 15, &instruction)))
        instruction = {};
    return instruction;
}

void patch_little_endian(Case& c, unsigned offset, unsigned bits, u64 value) {
    for (unsigned i = 0; i < bits / 8; ++i) c.bytes[offset + i] = static_cast<u8>(value >> (8 * i));
}

bool is_string(const Insn& insn) {
    static constexpr std::string_view prefixes[] = {"MOVS", "CMPS", "SCAS", "LODS", "STOS"};
    const std::string_view name = insn.row->name;
    return insn.operand_count == 0 && name.size() == 5 &&
           std::find(std::begin(prefixes), std::end(prefixes), name.substr(0, 4)) != std::end(prefixes);
}

constexpr u64 special_doubles[] = {
    0x0000'0000'0000'0000, 0x8000'0000'0000'0000, 0x3FF0'0000'0000'0000, 0xBFF0'0000'0000'0000,
    0x7FF0'0000'0000'0000, 0xFFF0'0000'0000'0000, 0x7FF8'0000'0000'0000, 0xFFF8'0000'0000'0001,
    0x7FF0'0000'0000'0001, 0xFFF4'0000'0000'0000, 0x0000'0000'0000'0001, 0x800F'FFFF'FFFF'FFFF,
    0x0010'0000'0000'0000, 0x7FEF'FFFF'FFFF'FFFF, 0x41DF'FFFF'FFC0'0000, 0x41E0'0000'0000'0000,
    0xC1E0'0000'0000'0000, 0x43E0'0000'0000'0000, 0x3FE0'0000'0000'0000, 0x4008'0000'0000'0000,
    0x36A0'0000'0000'0000, 0x3810'0000'0000'0000, 0x47EF'FFFF'F000'0000, 0x3FF8'0000'0000'0000,
};
constexpr u32 special_singles[] = {
    0x0000'0000, 0x8000'0000, 0x3F80'0000, 0xBF80'0000, 0x7F80'0000, 0xFF80'0000, 0x7FC0'0000, 0xFFC0'0001,
    0x7F80'0001, 0xFFA0'0000, 0x0000'0001, 0x807F'FFFF, 0x0080'0000, 0x7F7F'FFFF, 0x4EFF'FFFF, 0x4F00'0000,
    0xCF00'0000, 0x5F00'0000, 0x3F00'0000, 0x4040'0000, 0x3FC0'0000, 0x4B80'0000, 0x3400'0000, 0x7F00'0000,
};

}  // namespace

u64 Generator::interesting() {
    switch (below(8)) {
        case 0: return below(4);
        case 1: return u64{0} - below(4);
        case 2: return bit(static_cast<unsigned>(below(64)));
        case 3: return bit(static_cast<unsigned>(below(64))) - 1;
        case 4: return sign_extend(random_.next(), 8 << below(3));
        case 5: return u64{0x0101'0101'0101'0101} * below(256);
        default: return random_.next();
    }
}

u64 Generator::single() {
    return chance(60) ? special_singles[below(std::size(special_singles))]
           : chance(70) ? low32(u64{std::bit_cast<u32>(static_cast<float>(static_cast<i64>(below(4096)) - 2048) / 8)})
                        : low32(random_.next());
}

u64 Generator::vector_quadword() {
    switch (below(5)) {
        case 0: return single() << 32 | single();
        case 1: return special_doubles[below(std::size(special_doubles))];
        case 2: return std::bit_cast<u64>(static_cast<double>(static_cast<i64>(below(1 << 20)) - (1 << 19)) / 64);
        case 3: return interesting();
        default: return random_.next();
    }
}

X87Register Generator::extended() {
    static constexpr u16 exponents[] = {0, 1, 0x3FFF, 0x3FFE, 0x4000, 0x403E, 0x7FFE, 0x7FFF, 0x401E, 0x400E, 0x3FC0};
    X87Register value;
    value.significand = chance(40) ? bit(63) : chance(50) ? random_.next() | bit(63) : interesting() | bit(63);
    if (chance(8)) value.significand = interesting();  // also pseudo-denormals, unnormals
    value.sign_exponent = chance(60) ? exponents[below(std::size(exponents))]
                                     : static_cast<u16>(0x3FFF - 40 + below(80));
    if (chance(10)) value.significand = value.sign_exponent = 0;
    if (chance(40)) value.sign_exponent ^= 0x8000;
    return value;
}

// ---- Instructions -------------------------------------------------------------------------------------------------

void Generator::write_modrm(const Form& form, u8* bytes, unsigned& n) {
    u8 modrm = form.modrm;
    if (form.reg_free) modrm = static_cast<u8>((modrm & ~0x38) | below(8) << 3);
    if (form.memory) {
        modrm = static_cast<u8>((modrm & 0x38) | below(3) << 6 | below(8));
    } else if (form.rm_free) {
        modrm = static_cast<u8>((modrm & ~0x07) | below(8));
    }
    bytes[n++] = modrm;
    // What follows is SIB, displacement and immediate, as the decoder takes them.
    if (form.memory && chance(70)) {
        const bool sib = (modrm & 7) == 4;
        if (sib) bytes[n++] = static_cast<u8>(random_.next());
        const u64 displacement = chance(50) ? below(128) : sign_extend(random_.next(), 9);
        for (unsigned i = 0; i < ((modrm & 0xC0) == 0x40 ? 1u : (modrm & 0xC0) == 0x80 ? 4u : 0u); ++i)
            bytes[n++] = static_cast<u8>(displacement >> (8 * i));
    }
}

bool Generator::instruction(const RowForms& row, Case& c) {
    const Form& form = row.forms[below(row.forms.size())];
    c.mode = forms_.mode();
    u8 bytes[40];
    unsigned n = 0;
    if (chance(8)) {
        // The silicon's FS and GS are not the test's in 32-bit mode; CS is read only, which Unicorn does not mind.
        const bool wide = c.mode == CaseMode::long64, silicon = forms_.oracle() == Oracle::silicon;
        std::vector<u8> overrides = {0x26, 0x36, 0x3E};
        if (wide || !silicon) overrides.push_back(0x65);
        if (!silicon) overrides.push_back(0x64);
        if (silicon) overrides.push_back(0x2E);
        bytes[n++] = overrides[below(overrides.size())];
    }
    if (chance(8)) bytes[n++] = 0x67;
    if (chance(form.memory ? 5 : 1)) bytes[n++] = 0xF0;
    if (form.vex) {
        const u8 rxb = c.mode == CaseMode::long64 ? static_cast<u8>(below(8) << 5) : u8{0xE0};
        const u8 pp = form.prefix == 0x66 ? 1 : form.prefix == 0xF3 ? 2 : form.prefix == 0xF2 ? 3 : 0;
        u64 vvvv = form.vvvv_free ? below(16) : 15;
        const bool two_bytes = form.map == 1 && !form.rex_w && chance(50);
        // With two bytes it were LDS; with three the bit does not count outside 64-bit mode, as QEMU does not know.
        if (c.mode != CaseMode::long64 && (two_bytes || forms_.oracle() == Oracle::unicorn)) vvvv |= 8;
        const u8 rest = static_cast<u8>(vvvv << 3 | (form.vex_l ? 4 : 0) | pp);
        bytes[n++] = two_bytes ? 0xC5 : 0xC4;
        if (!two_bytes) bytes[n++] = static_cast<u8>(rxb | form.map);
        bytes[n++] = static_cast<u8>(rest | (two_bytes ? rxb & 0x80 : form.rex_w ? 0x80 : 0));
    } else {
        if (form.prefix) bytes[n++] = form.prefix;
        if (form.rex_w)
            bytes[n++] = static_cast<u8>(0x48 | (chance(60) ? below(8) : 0));
        else if (c.mode == CaseMode::long64 && chance(45))
            bytes[n++] = static_cast<u8>(0x40 | below(8));
        if (form.map) bytes[n++] = 0x0F;
        if (form.map == 2) bytes[n++] = 0x38;
        if (form.map == 3) bytes[n++] = 0x3A;
    }
    bytes[n++] = form.opcode;
    if (form.has_modrm) write_modrm(form, bytes, n);
    while (n < 24) bytes[n++] = static_cast<u8>(chance(30) ? interesting() : random_.next());
    std::copy_n(bytes, 15, c.bytes.begin());
    return forms_.decode(c.bytes.data(), c.insn) && c.insn.row == row.row && forms_.answerable(c.insn);
}

// ---- States -------------------------------------------------------------------------------------------------------

/// Where a memory operand lies: mostly well inside data, sometimes at its edges and beyond.
u64 Generator::address_in_data() {
    const u64 kind = below(100);
    if (forms_.mode() == CaseMode::real16) {
        if (kind < 4) return place::data + 0x40 + 0xFFF0 + below(0x10);  // about the segments' limit
        return place::data + 0x100 + (kind < 60 ? below(0xEF0) * 16 : below(0xEF00));
    }
    if (kind < 55) return place::data + 0x200 + below(0x1B0) * 16;
    if (kind < 82) return place::data + 0x200 + below(0x1B00);
    if (kind < 88) return place::data + 0xFF0 + below(0x10);        // across a page
    if (kind < 92) return place::read_only - 0x10 + below(0x20);    // into the page that is read only
    if (kind < 95) return place::read_only + below(0xF80);
    if (kind < 97) return place::data_end - 0x10 + below(0x20);     // into nothing
    if (kind < 98) return place::data - 0x10 + below(0x20);
    if (forms_.mode() != CaseMode::long64) return place::data + 0x200 + below(0x1B00);
    return kind == 98 ? bit(47) - below(16) : random_.next() | bit(60);  // not canonical
}

u64 Generator::operand_address(bool wide) {
    const u64 address = address_in_data();
    return wide ? address : low32(address);
}

void Generator::vectors(Registers& r) {
    for (auto& vector : r.vector)
        for (u64& q : vector) q = vector_quadword();
    if (chance(30)) std::copy_n(r.vector[below(16)], 4, r.vector[below(16)]);
    r.mxcsr = 0x1F80;
    if (chance(35)) {
        r.mxcsr = static_cast<u32>(0x1F80 | below(4) << 13 | (chance(30) ? 0x8000 : 0) | (chance(30) ? 0x40 : 0) |
                                   (chance(50) ? below(64) : 0));
        if (chance(30)) r.mxcsr &= ~static_cast<u32>(below(64) << 7);
    }
    if (forms_.mode() != CaseMode::long64)
        for (unsigned i = 8; i < 16; ++i) std::fill_n(r.vector[i], 4, 0);
}

void Generator::x87(Case& c) {
    X87State& x = c.before.x87;
    x = X87State{};
    const std::string_view name = c.insn.row->name;
    bool uses = name[0] == 'F' || name == "EMMS";
    for (unsigned i = 0; i < c.insn.operand_count; ++i)
        uses |= c.insn.operand[i].kind == OperandKind::mmx || c.insn.operand[i].kind == OperandKind::x87;
    if (!uses || forms_.oracle() == Oracle::unicorn) return;
    for (X87Register& st : x.st) st = extended();
    x.empty = chance(60) ? 0 : static_cast<u8>(random_.next());
    x.control = 0x037F;
    if (chance(50)) x.control = static_cast<u16>(0x007F | below(4) << 8 | below(4) << 10);
    if (chance(10)) x.control &= static_cast<u16>(~below(64));
    x.control |= 0x40;
    x.set_top(static_cast<unsigned>(below(8)));
    x.status |= static_cast<u16>((random_.next() & 0x4700) | (chance(20) ? below(64) : 0));
    if (x.status & ~x.control & 0x3F) x.status |= 0x8080;
}

/// Indexes of a gather: elements about the base, rarely far away.
void Generator::aim_gather(Case& c) {
    const bool quadwords =
        c.insn.row->name[c.insn.row->name[1] == 'P' ? 8 : 7] == 'Q'; // VPGATHERQD, VGATHERQPS
    for (u64& q : c.before.vector[c.insn.memory.vector_index]) {
        const u64 low = below(256) - 128, high = below(256) - 128;
        q = quadwords ? low : low32(low) | high << 32;
        if (chance(3)) q = random_.next();
    }
}

/// Sets registers so that the memory operand is where address_in_data() says.
void Generator::aim(Case& c) {
    Insn& insn = c.insn;
    if (!insn.has_memory()) return;
    if (std::string_view{insn.row->name}.find("GATHER") != std::string_view::npos) aim_gather(c);
    Registers& r = c.before;
    const u64 target = address_in_data();
    const u64 mask = low_mask(8u * insn.address_size);
    u64 offset = target - segment_base(c.mode, insn.memory.segment);
    const auto set = [&](unsigned number, u64 value) { r.r[number] = (r.r[number] & ~mask) | (value & mask); };
    const MemoryOperand m = insn.memory;
    const u64 displacement = static_cast<u64>(m.displacement);
    const bool relative = m.base == MemoryOperand::rip_register;
    if (relative || (m.base == MemoryOperand::no_register && m.index == MemoryOperand::no_register)) {
        const ZydisDecodedInstruction z = raw(c);
        const u64 next = r.rip + insn.length;
        patch_little_endian(c, z.raw.disp.offset, z.raw.disp.size, relative ? offset - next : offset);
        forms_.decode(c.bytes.data(), insn);
    } else if (m.base == MemoryOperand::no_register) {
        set(m.index, (offset - displacement) >> m.scale);
    } else if (m.base == m.index) {
        set(m.base, ((offset - displacement) & mask) / (1 + (u64{1} << m.scale)));
    } else {
        const u64 index = m.index == MemoryOperand::no_register ? 0 : r.r[m.index] << m.scale;
        set(m.base, offset - displacement - index);
    }
    // Where it came to be.
    const auto value = [&](u8 number) { return number < 16 ? r.r[number] : 0; };
    offset = (relative ? r.rip + insn.length : value(insn.memory.base)) + (value(insn.memory.index) << insn.memory.scale) +
             static_cast<u64>(insn.memory.displacement);
    const u64 linear = (offset & mask) + segment_base(c.mode, insn.memory.segment);
    const u64 at = linear - place::data;
    c.patch_at = static_cast<u32>(at < data_bytes(c.mode) - c.patch.size() ? at : 0x800);
}

void Generator::aim_strings(Case& c) {
    const Insn& insn = c.insn;
    const std::string_view name = insn.row->name;
    const u64 mask = low_mask(8u * insn.address_size);
    Registers& r = c.before;
    const auto set = [&](Gpr number, u64 value) { r.r[number] = (r.r[number] & ~mask) | (value & mask); };
    const auto aim_at = [&](Gpr number, Seg seg) { set(number, address_in_data() - segment_base(c.mode, seg)); };
    if (is_string(insn)) {
        aim_at(RSI, insn.memory.segment);
        aim_at(RDI, Seg::ES);
        if (chance(20)) set(RDI, r.r[RSI] + below(64) - 32);
        if (insn.repeat != Repeat::none) set(RCX, chance(20) ? 0 : below(40));
        if (chance(40)) r.rflags |= RFLAGS::DF;
    } else if (name == "XLAT") {
        aim_at(RBX, insn.memory.segment);
    } else if (name == "MASKMOVQ" || name == "MASKMOVDQU" || name == "VMASKMOVDQU") {
        aim_at(RDI, insn.memory.segment);
    } else if (name == "CLZERO") {
        aim_at(RAX, insn.memory.segment);
    }
}

void Generator::aim_stack(Case& c) {
    Registers& r = c.before;
    const u64 base = segment_base(c.mode, Seg::SS);
    const u64 window = c.mode == CaseMode::real16 ? 0x4000 : 0xC00;
    u64 top = place::data + 0xA00 + (below(window) & ~u64{7}) - base;
    if (chance(5)) top += below(8);
    if (chance(3)) top = address_in_data() - base;
    r.r[RSP] = (c.mode == CaseMode::real16 ? r.r[RSP] & 0xFFFF'0000 : 0) | (c.mode == CaseMode::real16 ? top & 0xFFFF : top);
    const std::string_view name = c.insn.row->name;
    if (name == "ENTER" || name == "LEAVE" || chance(20)) {
        const u64 frame = place::data + 0xA00 + (below(window) & ~u64{7}) - base;
        r.r[RBP] = c.mode == CaseMode::real16 ? (r.r[RBP] & 0xFFFF'0000) | (frame & 0xFFFF) : frame;
    }
}

void Generator::registers(Case& c) {
    Registers& r = c.before;
    for (u64& value : r.r) value = chance(25) ? operand_address(true) : interesting();
    if (chance(15)) r.r[below(16)] = r.r[below(16)];
    r.rip = (c.mode == CaseMode::real16 ? 0 : place::code) + 0x400 + below(64);
    const bool silicon = forms_.oracle() == Oracle::silicon;
    r.rflags = RFLAGS::FIXED1 | RFLAGS::IF | (random_.next() & RFLAGS::arithmetic);
    if (chance(15)) r.rflags |= RFLAGS::DF;
    if (silicon && chance(4)) r.rflags |= RFLAGS::AC;
    if (!silicon && chance(10)) r.rflags |= random_.next() & (RFLAGS::NT | RFLAGS::ID | RFLAGS::IOPL);
    vectors(r);
    x87(c);
}

void Generator::restate(Case& c) {
    registers(c);
    Registers& r = c.before;
    const std::string_view name = c.insn.row->name;
    if ((name == "DIV" || name == "IDIV") && chance(75)) {
        r.r[RDX] = chance(50) ? below(16) : u64{0} - below(2);
        if (c.insn.operand[0].bytes == 1) r.r[RAX] = chance(50) ? below(1024) : r.r[RAX] & 0xFF;
    }
    if (c.mode != CaseMode::long64)
        for (unsigned i = 0; i < 16; ++i) r.r[i] = i < 8 ? low32(r.r[i]) : 0;
    for (unsigned i = 0; i < 8; ++i) {
        const u64 q = vector_quadword();
        for (unsigned j = 0; j < 8; ++j) c.patch[8 * i + j] = static_cast<u8>(q >> (8 * j));
    }
    // Bit strings reach beyond their operand.
    if (name.substr(0, 2) == "BT" && c.insn.has_memory() && c.insn.operand[1].kind == OperandKind::gpr)
        r.r[c.insn.operand[1].number] = sign_extend(random_.next(), 12);
    aim_stack(c);
    aim_strings(c);
    aim(c);
    if (chance(15) || name.substr(0, 7) == "CMPXCHG") {  // comparisons that come out equal
        const u64 bytes = name == "CMPXCHG8B" ? 4 : 8;
        for (unsigned j = 0; j < 8 && chance(95); ++j) {
            c.patch[j] = static_cast<u8>(r.r[RAX] >> (8 * j));
            c.patch[bytes + j] = static_cast<u8>(r.r[RDX] >> (8 * j));
        }
    }
    if (c.mode != CaseMode::long64)
        for (unsigned i = 0; i < 8; ++i) r.r[i] = low32(r.r[i]);
}

Case Generator::next(const RowForms& row) {
    Case c;
    for (unsigned tries = 0; tries < 1000; ++tries) {
        if (!instruction(row, c)) continue;
        if (c.insn.operand_count > 0 && c.insn.operand[0].kind == OperandKind::relative && chance(85)) {
            const ZydisDecodedInstruction z = raw(c);
            patch_little_endian(c, z.raw.imm[0].offset, z.raw.imm[0].size, sign_extend(random_.next(), 8));
            if (!forms_.decode(c.bytes.data(), c.insn)) continue;
        }
        restate(c);
        return c;
    }
    c.insn.row = nullptr;
    return c;
}

}  // namespace exeunt::test
