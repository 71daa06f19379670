// Instructions on segment registers, descriptor tables and descriptors.
// SDM 1 5.1.12 "Segment Register Instructions", 5.20 "System Instructions"; SDM 3A 2.4 "Memory-Management
// Registers", 5.10 "Pointer Validation". MOV, PUSH and POP of segment registers are in data_transfer.cpp.
#include "cpu/instructions.hpp"
#include "cpu/instructions/far_transfer.hpp"

namespace exeunt {

// ---- Checks of rows
// ----------------------------------------------------------------------------------------------

Result<void> gp_if_umip(const Cpu& cpu, const Insn&) {
    if ((cpu.control.cr4 & CR4::UMIP) && cpu.cpl > 0) return general_protection(0);
    return {};
}

Result<void> check_system_segment_load(const Cpu& cpu, const Insn& insn) {
    TRY(ud_if_not_protected(cpu, insn));
    return gp_if_not_cpl0(cpu, insn);
}

Result<void> check_system_segment_store(const Cpu& cpu, const Insn& insn) {
    TRY(ud_if_not_protected(cpu, insn));
    return gp_if_umip(cpu, insn);
}

namespace {

// ---- Far pointers
// ------------------------------------------------------------------------------------------------

Result<void> load_pointer(Cpu& cpu, const Insn& insn, Seg where) {
    const unsigned bytes = insn.operand[0].bytes;
    const FarPointer pointer = TRY(load_far_pointer(cpu, insn, bytes));
    TRY(load_segment(cpu, where, pointer.selector));
    cpu.set_gpr(insn.operand[0].number, bytes, pointer.offset);
    return {};
}

// ---- Looking at descriptors
// --------------------------------------------------------------------------------------

void set_zf(Cpu& cpu, bool zf) {
    const u64 others = cpu.flags.arithmetic() & ~RFLAGS::ZF;
    cpu.flags.set_arithmetic(others | (zf ? RFLAGS::ZF : 0));
}

/// Visible at CPL with the selector's RPL: conforming code always is.
bool privilege_allows(const Cpu& cpu, const TableEntry& entry) {
    const Descriptor& d = entry.descriptor;
    if (d.code() && d.conforming()) return true;
    return cpu.cpl <= d.dpl() && (entry.selector & 3u) <= d.dpl();
}

/// A set of system descriptor types, one bit for each.
constexpr u32 types(std::initializer_list<u32> list) {
    u32 set = 0;
    for (const u32 type : list) set |= 1u << type;
    return set;
}
constexpr u32 with_limit_long = types({SystemType::ldt, SystemType::tss_available, SystemType::tss_busy});
constexpr u32 with_limit = with_limit_long | types({SystemType::tss16_available, SystemType::tss16_busy});
constexpr u32 with_rights_long = with_limit_long | types({SystemType::call_gate});
constexpr u32 with_rights =
    with_limit | types({SystemType::call_gate16, SystemType::task_gate, SystemType::call_gate});

/// LAR and LSL: the descriptor if the selector may be looked at and its type is one of those.
Result<std::optional<TableEntry>> look_at(Cpu& cpu, u16 selector, u32 legacy_types, u32 long_types) {
    auto entry = TRY(find_descriptor(cpu, selector));
    if (!entry || !privilege_allows(cpu, *entry)) return std::optional<TableEntry>{};
    if (!entry->descriptor.system()) return entry;
    const u32 valid = cpu.long_mode_active() ? long_types : legacy_types;
    if (!test_bit(valid, entry->descriptor.type())) return std::optional<TableEntry>{};
    const Result<void> upper = fetch_upper(cpu, *entry, Vector::GP);
    // Outside the limit the descriptor is as good as none; a page fault is one.
    if (!upper.ok() && upper.stop() == general_protection(selector_error(selector)))
        return std::optional<TableEntry>{};
    if (!upper.ok()) return upper.stop();
    return entry;
}

Result<std::optional<TableEntry>> look_at_operand(Cpu& cpu, const Insn& insn, unsigned i) {
    const auto selector = static_cast<u16>(TRY(cpu.read_operand(insn, i)));
    const auto entry = TRY(find_descriptor(cpu, selector));
    if (!entry || entry->descriptor.system() || !privilege_allows(cpu, *entry))
        return std::optional<TableEntry>{};
    return entry;
}

} // namespace

Result<void> exec_LDS(Cpu& cpu, const Insn& insn) { return load_pointer(cpu, insn, Seg::DS); }
Result<void> exec_LES(Cpu& cpu, const Insn& insn) { return load_pointer(cpu, insn, Seg::ES); }
Result<void> exec_LFS(Cpu& cpu, const Insn& insn) { return load_pointer(cpu, insn, Seg::FS); }
Result<void> exec_LGS(Cpu& cpu, const Insn& insn) { return load_pointer(cpu, insn, Seg::GS); }
Result<void> exec_LSS(Cpu& cpu, const Insn& insn) { return load_pointer(cpu, insn, Seg::SS); }

/// The second doubleword of the descriptor under the mask 00F0FF00H (SDM 2A LAR).
Result<void> exec_LAR(Cpu& cpu, const Insn& insn) {
    const auto selector = static_cast<u16>(TRY(cpu.read_operand(insn, 1)));
    const auto entry = TRY(look_at(cpu, selector, with_rights, with_rights_long));
    if (entry)
        cpu.set_gpr(insn.operand[0].number, insn.operand[0].bytes,
                    high32(entry->descriptor.raw) & 0x00F0'FF00);
    set_zf(cpu, entry.has_value());
    return {};
}

Result<void> exec_LSL(Cpu& cpu, const Insn& insn) {
    const auto selector = static_cast<u16>(TRY(cpu.read_operand(insn, 1)));
    const auto entry = TRY(look_at(cpu, selector, with_limit, with_limit_long));
    if (entry) cpu.set_gpr(insn.operand[0].number, insn.operand[0].bytes, entry->descriptor.limit());
    set_zf(cpu, entry.has_value());
    return {};
}

Result<void> exec_VERR(Cpu& cpu, const Insn& insn) {
    const auto entry = TRY(look_at_operand(cpu, insn, 0));
    set_zf(cpu, entry && (!entry->descriptor.code() || (entry->descriptor.access() & AR::READABLE)));
    return {};
}

Result<void> exec_VERW(Cpu& cpu, const Insn& insn) {
    const auto entry = TRY(look_at_operand(cpu, insn, 0));
    set_zf(cpu, entry && !entry->descriptor.code() && (entry->descriptor.access() & AR::WRITABLE));
    return {};
}

Result<void> exec_ARPL(Cpu& cpu, const Insn& insn) {
    const auto destination = TRY(cpu.modify_operand(insn, 0));
    const u64 rpl = TRY(cpu.read_operand(insn, 1)) & 3;
    const bool adjust = (destination.value & 3) < rpl;
    TRY(cpu.commit(insn, 0, destination, adjust ? (destination.value & ~u64{3}) | rpl : destination.value));
    set_zf(cpu, adjust);
    return {};
}

// ---- GDTR and IDTR
// -------------------------------------------------------------------------------------------------

namespace {

Result<void> load_table_register(Cpu& cpu, const Insn& insn, TableRegister& table) {
    const u64 at = cpu.effective_address(insn);
    const u64 base_at = (at + 2) & low_mask(8 * insn.address_size);
    const u64 limit = TRY(cpu.load(insn.memory.segment, at, 2));
    u64 base = TRY(cpu.load(insn.memory.segment, base_at, cpu.code64() ? 8 : 4));
    if (!cpu.code64() && insn.operand_size == 2) base &= 0xFF'FFFF;
    if (cpu.code64() && !cpu.canonical(base)) return general_protection(0);
    table = {base, static_cast<u16>(limit)};
    return {};
}

Result<void> store_table_register(Cpu& cpu, const Insn& insn, const TableRegister& table) {
    u8 image[10];
    for (unsigned i = 0; i < 2; ++i) image[i] = static_cast<u8>(table.limit >> (8 * i));
    for (unsigned i = 0; i < 8; ++i) image[2 + i] = static_cast<u8>(table.base >> (8 * i));
    // With 16-bit operands, too, all 32 bits of the base are stored (SDM 2B SGDT).
    return cpu.store_bytes(insn.memory.segment, cpu.effective_address(insn), image, cpu.code64() ? 10 : 6);
}

} // namespace

Result<void> exec_LGDT(Cpu& cpu, const Insn& insn) { return load_table_register(cpu, insn, cpu.gdtr); }
Result<void> exec_LIDT(Cpu& cpu, const Insn& insn) { return load_table_register(cpu, insn, cpu.idtr); }
Result<void> exec_SGDT(Cpu& cpu, const Insn& insn) { return store_table_register(cpu, insn, cpu.gdtr); }
Result<void> exec_SIDT(Cpu& cpu, const Insn& insn) { return store_table_register(cpu, insn, cpu.idtr); }

// ---- LDTR and TR
// ---------------------------------------------------------------------------------------------------

namespace {

/// A system segment's descriptor: in the GDT, of one of these types, present, with a canonical base.
Result<TableEntry> fetch_system_segment(Cpu& cpu, u16 selector, u32 valid_types) {
    const u32 error = selector_error(selector);
    if (selector & 4) return general_protection(error);
    TableEntry entry = TRY(fetch_descriptor(cpu, selector, Vector::GP));
    const Descriptor& d = entry.descriptor;
    if (!d.system() || !test_bit(valid_types, d.type())) return general_protection(error);
    if (!d.present()) return exception(Vector::NP, error);
    TRY(fetch_upper(cpu, entry, Vector::GP));
    if (cpu.long_mode_active() && !cpu.canonical(entry.base())) return general_protection(error);
    return entry;
}

} // namespace

Result<void> exec_LLDT(Cpu& cpu, const Insn& insn) {
    const auto selector = static_cast<u16>(TRY(cpu.read_operand(insn, 0)));
    if (null_selector(selector)) {
        load_null(cpu, Seg::LDTR, selector);
        return {};
    }
    cpu.seg(Seg::LDTR) = TRY(fetch_system_segment(cpu, selector, types({SystemType::ldt}))).segment();
    return {};
}

Result<void> exec_LTR(Cpu& cpu, const Insn& insn) {
    const auto selector = static_cast<u16>(TRY(cpu.read_operand(insn, 0)));
    if (null_selector(selector)) return general_protection(0);
    const u32 valid = types({SystemType::tss_available}) |
                      (cpu.long_mode_active() ? 0 : types({SystemType::tss16_available}));
    const TableEntry entry = TRY(fetch_system_segment(cpu, selector, valid));
    Segment tr = entry.segment();
    tr.access |= 2; // busy
    TRY(cpu.store_linear(entry.address + 5, 1, tr.access & 0xFF, true));
    cpu.seg(Seg::TR) = tr;
    return {};
}

Result<void> exec_SLDT(Cpu& cpu, const Insn& insn) {
    return cpu.write_operand(insn, 0, cpu.seg(Seg::LDTR).selector);
}
Result<void> exec_STR(Cpu& cpu, const Insn& insn) {
    return cpu.write_operand(insn, 0, cpu.seg(Seg::TR).selector);
}

// ---- Bases of FS and GS
// --------------------------------------------------------------------------------------------

Result<void> exec_SWAPGS(Cpu& cpu, const Insn&) {
    std::swap(cpu.seg(Seg::GS).base, cpu.kernel_gs_base);
    return {};
}

namespace {

Result<void> read_base(Cpu& cpu, const Insn& insn, Seg where) {
    if (!(cpu.control.cr4 & CR4::FSGSBASE)) return undefined_opcode();
    return cpu.write_operand(insn, 0, cpu.seg(where).base);
}

Result<void> write_base(Cpu& cpu, const Insn& insn, Seg where) {
    if (!(cpu.control.cr4 & CR4::FSGSBASE)) return undefined_opcode();
    const u64 base = TRY(cpu.read_operand(insn, 0));
    if (!cpu.canonical(base)) return general_protection(0);
    cpu.seg(where).base = base;
    return {};
}

} // namespace

Result<void> exec_RDFSBASE(Cpu& cpu, const Insn& insn) { return read_base(cpu, insn, Seg::FS); }
Result<void> exec_RDGSBASE(Cpu& cpu, const Insn& insn) { return read_base(cpu, insn, Seg::GS); }
Result<void> exec_WRFSBASE(Cpu& cpu, const Insn& insn) { return write_base(cpu, insn, Seg::FS); }
Result<void> exec_WRGSBASE(Cpu& cpu, const Insn& insn) { return write_base(cpu, insn, Seg::GS); }

} // namespace exeunt
