#include "cpu/decoder.hpp"

#include "cpu/instructions.hpp"

#include <Zydis/Zydis.h>
#include <algorithm>
#include <array>

namespace exeunt {

namespace {

/// Which feature an ISA set needs; sets without an entry exist on no model.
struct IsaNeed {
    bool listed = false;
    Feature feature = Feature::none;
};

constexpr auto isa_needs = [] {
    std::array<IsaNeed, ZYDIS_ISA_SET_MAX_VALUE + 1> needs{};
#define ISA_SET(set, feature_name) needs[ZYDIS_ISA_SET_##set] = {true, Feature::feature_name};
#include "cpu/isa_sets.inc"
    return needs;
}();

struct RegisterName {
    OperandKind kind;
    u8 number;
    bool high_byte = false;
};

RegisterName register_name(ZydisRegister reg) {
    const auto id = static_cast<u8>(ZydisRegisterGetId(reg));
    switch (ZydisRegisterGetClass(reg)) {
        case ZYDIS_REGCLASS_GPR8:  // AL CL DL BL, AH CH DH BH, SPL BPL SIL DIL, R8B ...
            if (id < 4) return {OperandKind::gpr, id};
            if (id < 8) return {OperandKind::gpr, static_cast<u8>(id - 4), true};
            return {OperandKind::gpr, static_cast<u8>(id - 4)};
        case ZYDIS_REGCLASS_GPR16:
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64: return {OperandKind::gpr, id};
        case ZYDIS_REGCLASS_SEGMENT: return {OperandKind::segment, id};
        case ZYDIS_REGCLASS_CONTROL: return {OperandKind::control, id};
        case ZYDIS_REGCLASS_DEBUG: return {OperandKind::debug, id};
        case ZYDIS_REGCLASS_X87: return {OperandKind::x87, id};
        case ZYDIS_REGCLASS_MMX: return {OperandKind::mmx, id};
        case ZYDIS_REGCLASS_XMM: return {OperandKind::xmm, id};
        case ZYDIS_REGCLASS_YMM: return {OperandKind::ymm, id};
        case ZYDIS_REGCLASS_BOUND: return {OperandKind::bound, id};
        default: return {OperandKind::none, 0};
    }
}

u8 address_register(ZydisRegister reg) {
    switch (reg) {
        case ZYDIS_REGISTER_NONE: return MemoryOperand::no_register;
        case ZYDIS_REGISTER_IP:
        case ZYDIS_REGISTER_EIP:
        case ZYDIS_REGISTER_RIP: return MemoryOperand::rip_register;
        default: return static_cast<u8>(ZydisRegisterGetId(reg));
    }
}

Seg segment_of(ZydisRegister reg) { return static_cast<Seg>(ZydisRegisterGetId(reg)); }

MemoryOperand memory_operand(const ZydisDecodedOperand& from) {
    MemoryOperand m;
    m.base = address_register(from.mem.base);
    const ZydisRegisterClass index_class = ZydisRegisterGetClass(from.mem.index);
    if (index_class == ZYDIS_REGCLASS_XMM || index_class == ZYDIS_REGCLASS_YMM) {
        m.vector_index = address_register(from.mem.index);
    } else {
        m.index = address_register(from.mem.index);
    }
    m.scale = static_cast<u8>(from.mem.index == ZYDIS_REGISTER_NONE || from.mem.scale == 0
                                  ? 0
                                  : std::countr_zero(from.mem.scale));
    m.segment = segment_of(from.mem.segment);
    m.displacement = from.mem.disp.has_displacement ? from.mem.disp.value : 0;
    return m;
}

Operand operand(const ZydisDecodedOperand& from, Insn& insn) {
    Operand o;
    o.bytes = static_cast<u8>(from.size / 8);
    switch (from.type) {
        case ZYDIS_OPERAND_TYPE_REGISTER: {
            const RegisterName name = register_name(from.reg.value);
            o.kind = name.kind;
            o.number = name.number;
            o.high_byte = name.high_byte;
            break;
        }
        case ZYDIS_OPERAND_TYPE_MEMORY:
            o.kind = OperandKind::memory;
            insn.memory = memory_operand(from);
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            o.kind = from.imm.is_relative ? OperandKind::relative : OperandKind::immediate;
            if (insn.operand_count > 0 && insn.operand[insn.operand_count - 1].kind == OperandKind::immediate) {
                insn.immediate2 = static_cast<u16>(from.imm.value.u);
            } else {
                insn.immediate = from.imm.value.u;
            }
            break;
        case ZYDIS_OPERAND_TYPE_POINTER:
            o.kind = OperandKind::far_pointer;
            insn.immediate = from.ptr.offset;
            insn.immediate2 = from.ptr.segment;
            break;
        default: break;
    }
    return o;
}

bool is_string(const ZydisDecodedInstruction& z) {
    switch (z.mnemonic) {
        case ZYDIS_MNEMONIC_MOVSB: case ZYDIS_MNEMONIC_MOVSW: case ZYDIS_MNEMONIC_MOVSQ:
        case ZYDIS_MNEMONIC_CMPSB: case ZYDIS_MNEMONIC_CMPSW: case ZYDIS_MNEMONIC_CMPSQ:
        case ZYDIS_MNEMONIC_SCASB: case ZYDIS_MNEMONIC_SCASW: case ZYDIS_MNEMONIC_SCASD: case ZYDIS_MNEMONIC_SCASQ:
        case ZYDIS_MNEMONIC_LODSB: case ZYDIS_MNEMONIC_LODSW: case ZYDIS_MNEMONIC_LODSD: case ZYDIS_MNEMONIC_LODSQ:
        case ZYDIS_MNEMONIC_STOSB: case ZYDIS_MNEMONIC_STOSW: case ZYDIS_MNEMONIC_STOSD: case ZYDIS_MNEMONIC_STOSQ:
        case ZYDIS_MNEMONIC_INSB: case ZYDIS_MNEMONIC_INSW: case ZYDIS_MNEMONIC_INSD:
        case ZYDIS_MNEMONIC_OUTSB: case ZYDIS_MNEMONIC_OUTSW: case ZYDIS_MNEMONIC_OUTSD:
        case ZYDIS_MNEMONIC_XLAT: case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MASKMOVDQU:
        case ZYDIS_MNEMONIC_VMASKMOVDQU:
        case ZYDIS_MNEMONIC_MONITOR: return true;
        case ZYDIS_MNEMONIC_MOVSD: case ZYDIS_MNEMONIC_CMPSD:
            return z.meta.category == ZYDIS_CATEGORY_STRINGOP;
        default: return false;
    }
}

/// Zydis gives string and SSE2 instructions of the same name one mnemonic.
u16 mnemonic_of(const ZydisDecodedInstruction& z) { return static_cast<u16>(z.mnemonic); }

/// AMD64: 66H makes a near branch in 64-bit mode one of 16 bits, its target truncated (APM 3 "Near Branches in 64-bit
/// Mode"). Zydis knows that of relative branches with 32-bit displacements only.
void narrow_amd_branch(const ZydisDecodedInstruction& z, Insn& insn) {
    const bool near = z.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR || z.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT;
    if (!near || !insn.operand_prefix || insn.rex_w) return;
    insn.operand_size = 2;
    if (insn.operand_count > 0 && insn.operand[0].kind != OperandKind::relative &&
        insn.operand[0].kind != OperandKind::immediate)
        insn.operand[0].bytes = 2;
}

/// SIB with ModRM.mod = 0 and base = 5 is a displacement and no base, whatever REX.B says (SDM 2A Table 2-5). Zydis
/// takes it for R13D when addresses have 32 bits.
void correct_sib_base(const ZydisDecodedInstruction& z, Insn& insn) {
    const bool no_base = (z.attributes & ZYDIS_ATTRIB_HAS_MODRM) && z.raw.modrm.mod == 0 && z.raw.modrm.rm == 4 &&
                         z.raw.sib.base == 5;
    if (!no_base || insn.address_size == 2) return;
    insn.memory.base = MemoryOperand::no_register;
    insn.memory.displacement = z.raw.disp.value;
}

/// CLZERO has no memory operand in Zydis's eyes, and so no segment to override.
Seg clzero_segment(const ZydisDecodedInstruction& z, CodeMode mode, bool& present) {
    struct Row {
        u8 prefix;
        Seg segment;
    };
    static constexpr Row rows[] = {{0x26, Seg::ES}, {0x2E, Seg::CS}, {0x36, Seg::SS},
                                   {0x3E, Seg::DS}, {0x64, Seg::FS}, {0x65, Seg::GS}};
    Seg segment = Seg::DS;
    for (unsigned i = 0; i < z.raw.prefix_count; ++i)
        for (const Row& row : rows) {
            if (z.raw.prefixes[i].value != row.prefix) continue;
            if (mode == CodeMode::long64 && row.segment != Seg::FS && row.segment != Seg::GS) continue;
            segment = row.segment;
            present = true;
        }
    return segment;
}

/// F3 90 with REX.B is no PAUSE but XCHG R8, rAX, where F3H means nothing; Zydis takes it for PAUSE.
void exchange_instead_of_pause(Insn& insn) {
    insn.mnemonic = ZYDIS_MNEMONIC_XCHG;
    insn.operand_size = insn.rex_w ? 8 : insn.operand_prefix ? 2 : 4;
    insn.repeat = Repeat::none;
    insn.operand_count = 2;
    insn.operand[0] = {OperandKind::gpr, R8, insn.operand_size};
    insn.operand[1] = {OperandKind::gpr, RAX, insn.operand_size};
}

Seg override_segment(const ZydisDecodedInstruction& z, CodeMode mode, bool& present) {
    struct Row {
        ZydisInstructionAttributes attribute;
        Seg segment;
    };
    static constexpr Row rows[] = {
        {ZYDIS_ATTRIB_HAS_SEGMENT_CS, Seg::CS}, {ZYDIS_ATTRIB_HAS_SEGMENT_SS, Seg::SS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_DS, Seg::DS}, {ZYDIS_ATTRIB_HAS_SEGMENT_ES, Seg::ES},
        {ZYDIS_ATTRIB_HAS_SEGMENT_FS, Seg::FS}, {ZYDIS_ATTRIB_HAS_SEGMENT_GS, Seg::GS},
    };
    present = false;
    for (const Row& row : rows) {
        if (!(z.attributes & row.attribute)) continue;
        if (mode == CodeMode::long64 && row.segment != Seg::FS && row.segment != Seg::GS) continue;
        present = true;
        return row.segment;
    }
    return Seg::DS;
}

/// SYSCALL and SYSRET exist outside 64-bit mode on some models, SYSENTER and SYSEXIT in real-address mode for their
/// #GP; Zydis does not know them there. None has operands, so that 64-bit mode's tables serve for all.
bool is_fast_system_call(std::span<const u8> bytes) {
    if (bytes.size() < 2 || bytes[0] != 0x0F) return false;
    return bytes[1] == 0x05 || bytes[1] == 0x07 || bytes[1] == 0x34 || bytes[1] == 0x35;
}

}  // namespace

struct Decoder::Zydis {
    std::array<ZydisDecoder, 4> by_mode;
};

Decoder::Decoder(const CpuModel& model) : zydis_(std::make_unique<Zydis>()), model_(model) {
    struct Row {
        CodeMode mode;
        ZydisMachineMode machine;
        ZydisStackWidth stack;
    };
    static constexpr Row rows[] = {
        {CodeMode::real16, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16},
        {CodeMode::protected16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        {CodeMode::protected32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        {CodeMode::long64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    const bool amd = model.vendor == Vendor::amd;
    for (const Row& row : rows) {
        ZydisDecoder& d = zydis_->by_mode[static_cast<unsigned>(row.mode)];
        ZydisDecoderInit(&d, row.machine, row.stack);
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd);
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_LZCNT, model.has(Feature::LZCNT));
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_TZCNT, model.has(Feature::BMI1));
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    }
}

Decoder::~Decoder() = default;

Decoder::Status Decoder::decode(CodeMode mode, std::span<const u8> bytes, const Virtualization& extension,
                                Insn& insn) const {
    ZydisDecodedInstruction z;
    std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
    const CodeMode table = is_fast_system_call(bytes) ? CodeMode::long64 : mode;
    const ZydisDecoder& decoder = zydis_->by_mode[static_cast<unsigned>(table)];
    const ZyanStatus status = ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &z, operands.data());
    if (status == ZYDIS_STATUS_NO_MORE_DATA) return bytes.size() >= 15 ? Status::too_long : Status::more;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return Status::too_long;
    if (!ZYAN_SUCCESS(status)) return Status::undefined;

    insn = Insn{};
    insn.mnemonic = mnemonic_of(z);
    insn.length = z.length;
    insn.operand_size = static_cast<u8>(z.operand_width / 8);
    insn.address_size = static_cast<u8>(z.address_width / 8);
    insn.mode = mode == CodeMode::long64 ? 64 : mode == CodeMode::protected32 ? 32 : 16;
    if (z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) insn.repeat = Repeat::rep;
    if (z.attributes & ZYDIS_ATTRIB_HAS_REPNE) insn.repeat = Repeat::repne;
    insn.lock = z.attributes & ZYDIS_ATTRIB_HAS_LOCK;
    insn.vex = z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (insn.vex) insn.vector_bytes = static_cast<u8>(z.avx.vector_length / 8);
    insn.operand_prefix = z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;
    insn.rex_w = mode == CodeMode::long64 && (insn.vex ? z.raw.vex.W : z.raw.rex.W);
    insn.opcode = z.opcode;
    if (z.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        insn.modrm = static_cast<u8>((z.raw.modrm.mod << 6) | (z.raw.modrm.reg << 3) | z.raw.modrm.rm);
    insn.memory.segment = override_segment(z, mode, insn.has_segment_override);
    insn.memory.displacement_size = z.raw.disp.size / 8;
    const Seg explicit_override = insn.memory.segment;
    for (unsigned i = 0; i < z.operand_count_visible && i < insn.operand.size(); ++i) {
        insn.operand[i] = operand(operands[i], insn);
        ++insn.operand_count;
    }
    if (z.mnemonic == ZYDIS_MNEMONIC_CLZERO) insn.memory.segment = clzero_segment(z, mode, insn.has_segment_override);
    if (is_string(z)) insn.memory.segment = explicit_override;
    insn.memory.displacement_size = z.raw.disp.size / 8;
    std::copy_n(bytes.begin(), z.length, insn.bytes.begin());
    if (mode == CodeMode::long64 && model_.vendor == Vendor::amd) narrow_amd_branch(z, insn);
    if (mode == CodeMode::long64) correct_sib_base(z, insn);
    // NOTRACK is 3EH, which overrides the segment all the same.
    if ((z.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) && mode != CodeMode::long64) {
        insn.memory.segment = Seg::DS;
        insn.has_segment_override = true;
    }
    if (z.mnemonic == ZYDIS_MNEMONIC_PAUSE && z.raw.rex.B) exchange_instead_of_pause(insn);

    const IsaNeed need = isa_needs[z.meta.isa_set];
    if (!need.listed) return Status::undefined;
    if (need.feature != Feature::none && !model_.has(need.feature)) return Status::undefined;
    insn.row = extension.row(insn.mnemonic);
    if (!insn.row) insn.row = find_row(insn.mnemonic);
    return Status::ok;
}

std::string disassemble(CodeMode mode, std::span<const u8> bytes, u64 address) {
    static constexpr ZydisMachineMode machines[] = {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_MACHINE_MODE_LEGACY_16,
                                                    ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    ZydisDisassembledInstruction text;
    const auto machine = machines[static_cast<unsigned>(mode)];
    if (!ZYAN_SUCCESS(ZydisDisassembleIntel(machine, address, bytes.data(), bytes.size(), &text)))
        return "(not an instruction)";
    return text.text;
}

}  // namespace exeunt
