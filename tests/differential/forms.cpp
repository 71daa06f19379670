#include "tests/differential/forms.hpp"

#include "cpu/no_virtualization.hpp"

#include <Zydis/Zydis.h>
#include <algorithm>

namespace exeunt::test {

const std::vector<Exclusion>& exclusions() {
    enum Where { everywhere, unicorn, silicon };
    static const std::vector<Exclusion> list = {
#define EXCLUDE(mnemonic, where, reason) \
    {ZYDIS_MNEMONIC_##mnemonic, #mnemonic, where != silicon, where != unicorn, reason},
#include "tests/differential/exclusions.inc"
    };
    return list;
}

const std::vector<RowName>& row_names() {
    static const std::vector<RowName> list = {
#define INSN(mnemonic, fault, intercept, ends) {ZYDIS_MNEMONIC_##mnemonic, #mnemonic},
#define VEX(mnemonic) {ZYDIS_MNEMONIC_V##mnemonic, "V" #mnemonic},
#include "cpu/instructions.inc"
    };
    return list;
}

namespace {

bool excluded(u16 mnemonic, Oracle oracle) {
    return std::any_of(exclusions().begin(), exclusions().end(), [&](const Exclusion& e) {
        return e.mnemonic == mnemonic && (oracle == Oracle::unicorn ? e.unicorn : e.silicon);
    });
}

/// A prefix before an instruction to which it means nothing is tried, but not as often as a form of its own.
bool meaningless_prefix(const Form& form, const Insn& plain, const Insn& insn) {
    return form.prefix && form.prefix != 0x66 && plain.row == insn.row && insn.repeat == Repeat::none;
}

}  // namespace

Forms::Forms(CaseMode mode, const CpuModel& model, Oracle oracle)
    : mode_(mode), oracle_(oracle), model_(model), decoder_(model), extension_(std::make_unique<NoVirtualization>()) {
    for (const bool vex : {false, true})
        for (u8 map : {u8{0}, u8{1}, u8{2}, u8{3}})
            for (unsigned opcode = 0; opcode < 256; ++opcode)
                for (const u8 prefix : {u8{0x00}, u8{0x66}, u8{0xF2}, u8{0xF3}})
                    for (const unsigned size : {0u, 1u, 2u, 3u}) {
                        const bool rex_w = size & 1, vex_l = size & 2;
                        if (vex ? map == 0 : vex_l || (rex_w && mode != CaseMode::long64)) continue;
                        Form form;
                        form.vex = vex;
                        form.vex_l = vex_l;
                        form.map = map;
                        form.opcode = static_cast<u8>(opcode);
                        form.prefix = prefix;
                        form.rex_w = rex_w;
                        explore(form);
                    }
}

bool Forms::decode(const u8* bytes, Insn& insn) const {
    return decoder_.decode(code_mode(mode_), {bytes, 15}, *extension_, insn) == Decoder::Status::ok && insn.row;
}

bool Forms::try_form(const Form& form, Insn& insn) const {
    u8 bytes[24] = {};
    unsigned n = 0;
    if (form.vex) {
        bytes[n++] = 0xC4;
        bytes[n++] = static_cast<u8>(0xE0 | form.map);
        const u8 pp = form.prefix == 0x66 ? 1 : form.prefix == 0xF3 ? 2 : form.prefix == 0xF2 ? 3 : 0;
        bytes[n++] = static_cast<u8>((form.rex_w ? 0x80 : 0) | (form.vvvv_free ? 0x70 : 0x78) |
                                     (form.vex_l ? 4 : 0) | pp);
    } else {
        if (form.prefix) bytes[n++] = form.prefix;
        if (form.rex_w) bytes[n++] = 0x48;
        if (form.map) bytes[n++] = 0x0F;
        if (form.map == 2) bytes[n++] = 0x38;
        if (form.map == 3) bytes[n++] = 0x3A;
    }
    bytes[n++] = form.opcode;
    bytes[n++] = form.modrm;
    return decode(bytes, insn);
}

void Forms::add(const Form& form, const Insn& insn) {
    if (excluded(insn.mnemonic, oracle_) || !answerable(insn)) return;
    const auto [found, fresh] = by_mnemonic_.try_emplace(insn.mnemonic, rows_.size());
    if (fresh) rows_.push_back({insn.row, {}});
    rows_[found->second].forms.push_back(form);
}

void Forms::explore(Form form) {
    // Prefixes and escapes are no opcodes.
    static constexpr u8 no_opcode[] = {0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3};
    if (!form.vex && form.map == 0 &&
        (std::find(std::begin(no_opcode), std::end(no_opcode), form.opcode) != std::end(no_opcode) ||
         (mode_ == CaseMode::long64 && (form.opcode & 0xF0) == 0x40)))
        return;
    Insn first, plain;
    const auto plain_row = [&](u8 modrm) {
        Form without = form;
        without.prefix = 0;
        without.modrm = modrm;
        return try_form(without, plain);
    };
    // ModRM: memory with each reg; registers with each reg and rm.
    form.modrm = 0x01;
    const bool any = try_form(form, first);
    if (any && first.modrm == 0 && !form.vex) {  // ModRM 01H would be there if there were one
        if (plain_row(0x01) && meaningless_prefix(form, plain, first)) return;
        add(form, first);
        return;
    }
    form.has_modrm = true;
    for (const bool memory : {true, false}) {
        form.memory = memory;
        std::array<std::array<const InsnRow*, 8>, 8> rows{};
        std::array<std::array<Insn, 8>, 8> insns;
        std::array<bool, 8> same_rm{};
        for (u8 reg = 0; reg < 8; ++reg) {
            for (u8 rm = 0; rm < 8; ++rm) {
                if (memory && rm != 1) continue;
                // Memory is [rCX], or [rAX+xMM0] for an instruction that wants a vector of indexes.
                for (const unsigned kind : {0u, 1u, 2u, 3u}) {
                    const bool fixed = kind & 1, vsib = kind & 2;
                    if (rows[reg][rm] || (kind != 0 && !form.vex) || (vsib && !memory)) break;
                    form.modrm = static_cast<u8>((memory ? 0 : 0xC0) | reg << 3 | (vsib ? 4 : rm));
                    form.vvvv_free = form.vex && !fixed;
                    if (try_form(form, insns[reg][rm])) rows[reg][rm] = insns[reg][rm].row;
                }
            }
            same_rm[reg] = memory || std::all_of(rows[reg].begin(), rows[reg].end(),
                                                 [&](const InsnRow* row) { return row == rows[reg][1]; });
        }
        const bool same_reg =
            std::all_of(rows.begin(), rows.end(), [&](const auto& r) { return r[1] == rows[0][1]; }) &&
            std::all_of(same_rm.begin(), same_rm.end(), [](bool b) { return b; });
        for (u8 reg = 0; reg < (same_reg ? 1 : 8); ++reg)
            for (u8 rm = 0; rm < 8; ++rm) {
                if ((memory || same_rm[reg]) && rm != 1) continue;
                if (!rows[reg][rm]) continue;
                form.reg_free = same_reg;
                form.rm_free = memory || same_rm[reg];
                form.modrm = insns[reg][rm].modrm;
                const u8 pattern = form.modrm;
                form.vvvv_free = form.vex;
                form.vvvv_free = form.vex && try_form(form, first);
                if (plain_row(pattern) && !form.vex && meaningless_prefix(form, plain, insns[reg][rm]))
                    continue;
                add(form, insns[reg][rm]);
            }
    }
}

bool Forms::answerable(const Insn& insn) const {
    // Unicorn's QEMU has no AVX.
    if (insn.vex && insn.row->name[0] == 'V' && oracle_ == Oracle::unicorn) return false;
    bool x87 = false;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        const Operand& o = insn.operand[i];
        // Far transfers load CS.
        if (o.kind == OperandKind::far_pointer) return false;
        // MOV and POP to a segment register read a descriptor, or change the base that cases rely on. What
        // selectors are there differs as well.
        if (o.kind == OperandKind::segment) return false;
        // CR and DR: in user mode they fault; in Unicorn they would change the oracle.
        if ((o.kind == OperandKind::control || o.kind == OperandKind::debug) && oracle_ != Oracle::silicon)
            return false;
        // Unicorn has no SSE in real-address mode: CR4.OSFXSR is not heeded there.
        if (o.kind == OperandKind::xmm && oracle_ == Oracle::unicorn && mode_ == CaseMode::real16) return false;
        x87 |= o.kind == OperandKind::x87 || o.kind == OperandKind::mmx;
    }
    const auto mnemonic = static_cast<ZydisMnemonic>(insn.mnemonic);
    const bool far_indirect =
        (mnemonic == ZYDIS_MNEMONIC_JMP || mnemonic == ZYDIS_MNEMONIC_CALL) && insn.opcode == 0xFF &&
        (((insn.modrm >> 3) & 7) == 3 || ((insn.modrm >> 3) & 7) == 5);
    const bool far_return = mnemonic == ZYDIS_MNEMONIC_RET && (insn.opcode & 0xFE) == 0xCA;
    if (far_indirect || far_return) return false;
    // x87 and MMX are left to the silicon: QEMU's x87 keeps no pointers, computes transcendental functions in double
    // precision and reports not all exceptions.
    const std::string_view name = insn.row->name;
    x87 |= name[0] == 'F' || name == "EMMS";
    return !(x87 && oracle_ == Oracle::unicorn);
}

}  // namespace exeunt::test
