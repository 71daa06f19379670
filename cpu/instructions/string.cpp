// String instructions: SDM 1 5.1.8 and 7.3.9 "String Operations"; each by its name in volume 2. INS and OUTS:
// io.cpp.
//
// MOVS and STOS that go forwards are done natively in runs within a page, where the TLB allows direct access.
#include "cpu/instructions/string.hpp"

#include "cpu/instructions/integer.hpp"

#include <cstring>

namespace exeunt {

namespace {

u8* direct_read(Cpu& cpu, u64 linear) {
    const TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = cpu.mmu.part().entry(linear);
    return e.read_tag == part.tag_of(linear) ? reinterpret_cast<u8*>(e.addend + linear) : nullptr;
}

u8* direct_write(Cpu& cpu, u64 linear) {
    const TlbPart& part = cpu.mmu.part();
    const TlbEntry& e = cpu.mmu.part().entry(linear);
    return e.write_tag == part.write_tag_of(linear) ? reinterpret_cast<u8*>(e.addend + linear) : nullptr;
}

/// A run of elements at one index register, going up, within a page and without wrapping around.
struct Run {
    u64 linear = 0;
    u64 elements = 0; ///< 0: not even one can be done directly
};

Run run_at(Cpu& cpu, const Insn& insn, Seg segment, Gpr index, unsigned bytes, u64 most, AccessType type) {
    const u64 offset = cpu.gpr(index, insn.address_size);
    const Result<u64> linear = cpu.linear(segment, offset, bytes, type);
    if (!linear.ok()) return {};
    const u64 in_page = (page_size - (linear.value() & 0xFFF)) / bytes;
    const u64 before_wrap = (low_mask(8u * insn.address_size) - offset) / bytes;
    return {linear.value(), std::min({most, in_page, before_wrap})};
}

/// Whether segmentation allows the whole run, so that no element of it can fault.
bool allowed(Cpu& cpu, const Insn& insn, Seg segment, Gpr index, u64 bytes, AccessType type) {
    return cpu.linear(segment, cpu.gpr(index, insn.address_size), static_cast<unsigned>(bytes), type).ok();
}

/// What copying element by element, going up, leaves: where the source is overwritten before it is read, the
/// bytes between the two pointers repeat.
void copy_up(u8* to, const u8* from, u64 bytes, u64 element) {
    const u64 distance = reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from);
    if (distance == 0) return;
    if (distance >= bytes) { // also when `to` is below `from`
        std::memmove(to, from, bytes);
    } else if (distance == 1 && element == 1) {
        std::memset(to, *from, bytes);
    } else if (distance >= element) {
        for (u64 done = 0; done < bytes; done += distance)
            std::memcpy(to + done, from + done, std::min(distance, bytes - done));
    } else {
        u8 value[8];
        for (u64 done = 0; done < bytes; done += element) {
            std::memcpy(value, from + done, element);
            std::memcpy(to + done, value, element);
        }
    }
}

template <class T>
void fill_up(u8* to, T value, u64 elements) {
    if constexpr (sizeof(T) == 1) {
        std::memset(to, value, elements);
    } else {
        const T raw = PhysicalMemory::little_endian(value);
        for (u64 i = 0; i < elements; ++i) std::memcpy(to + i * sizeof(T), &raw, sizeof(T));
    }
}

u64 move_run(Cpu& cpu, const Insn& insn, unsigned bytes, u64 most) {
    if (cpu.flag(RFLAGS::DF)) return 0;
    const Seg segment = insn.memory.segment;
    const Run from = run_at(cpu, insn, segment, RSI, bytes, most, AccessType::read);
    const Run to = run_at(cpu, insn, Seg::ES, RDI, bytes, from.elements, AccessType::write);
    if (to.elements == 0) return 0;
    const u64 size = to.elements * bytes;
    const u8* source = direct_read(cpu, from.linear);
    u8* destination = direct_write(cpu, to.linear);
    if (!source || !destination) return 0;
    if (!allowed(cpu, insn, segment, RSI, size, AccessType::read) ||
        !allowed(cpu, insn, Seg::ES, RDI, size, AccessType::write))
        return 0;
    copy_up(destination, source, size, bytes);
    advance(cpu, insn, RSI, bytes, to.elements);
    advance(cpu, insn, RDI, bytes, to.elements);
    return to.elements;
}

u64 store_run(Cpu& cpu, const Insn& insn, unsigned bytes, u64 most) {
    if (cpu.flag(RFLAGS::DF)) return 0;
    const Run to = run_at(cpu, insn, Seg::ES, RDI, bytes, most, AccessType::write);
    if (to.elements == 0) return 0;
    u8* destination = direct_write(cpu, to.linear);
    if (!destination || !allowed(cpu, insn, Seg::ES, RDI, to.elements * bytes, AccessType::write)) return 0;
    with_size(bytes,
              [&](auto zero) { fill_up(destination, static_cast<decltype(zero)>(cpu.r[RAX]), to.elements); });
    advance(cpu, insn, RDI, bytes, to.elements);
    return to.elements;
}

constexpr auto never_ends = [] { return false; };
constexpr auto no_bulk = [](u64) { return u64{0}; };

Result<void> move_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    const auto one = [&]() -> Result<void> {
        const u64 value = TRY(cpu.load(insn.memory.segment, cpu.gpr(RSI, insn.address_size), bytes));
        TRY(cpu.store(Seg::ES, cpu.gpr(RDI, insn.address_size), bytes, value));
        advance(cpu, insn, RSI, bytes);
        advance(cpu, insn, RDI, bytes);
        return {};
    };
    return repeat(
        cpu, insn, one, [&](u64 most) { return move_run(cpu, insn, bytes, most); }, never_ends);
}

Result<void> store_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    const auto one = [&]() -> Result<void> {
        TRY(cpu.store(Seg::ES, cpu.gpr(RDI, insn.address_size), bytes, cpu.gpr(RAX, bytes)));
        advance(cpu, insn, RDI, bytes);
        return {};
    };
    return repeat(
        cpu, insn, one, [&](u64 most) { return store_run(cpu, insn, bytes, most); }, never_ends);
}

Result<void> load_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    return repeat(cpu, insn, [&]() -> Result<void> {
        const u64 value = TRY(cpu.load(insn.memory.segment, cpu.gpr(RSI, insn.address_size), bytes));
        cpu.set_gpr(RAX, bytes, value);
        advance(cpu, insn, RSI, bytes);
        return {};
    });
}

/// CMPS and SCAS. Until the instruction ends or pauses the flags stay as they were, so that a fault in a
/// later iteration restores them (SDM 2B REP).
template <class Iterate>
Result<void> compare_strings(Cpu& cpu, const Insn& insn, Iterate iterate) {
    Flags flags = cpu.flags;
    bool iterated = false;
    const auto one = [&]() -> Result<void> {
        TRY(iterate(flags));
        iterated = true;
        return {};
    };
    const bool while_equal = insn.repeat != Repeat::repne;
    TRY(repeat(cpu, insn, one, no_bulk, [&] { return flags.zf() != while_equal; }));
    if (iterated) cpu.flags = flags;
    return {};
}

void compare(Flags& flags, u64 a, u64 b, unsigned bytes) {
    with_size(bytes, [&](auto zero) {
        using T = decltype(zero);
        alu::cmp(flags, static_cast<T>(a), static_cast<T>(b));
    });
}

Result<void> compare_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    return compare_strings(cpu, insn, [&](Flags& flags) -> Result<void> {
        const u64 a = TRY(cpu.load(insn.memory.segment, cpu.gpr(RSI, insn.address_size), bytes));
        const u64 b = TRY(cpu.load(Seg::ES, cpu.gpr(RDI, insn.address_size), bytes));
        compare(flags, a, b, bytes);
        advance(cpu, insn, RSI, bytes);
        advance(cpu, insn, RDI, bytes);
        return {};
    });
}

Result<void> scan_string(Cpu& cpu, const Insn& insn, unsigned bytes) {
    return compare_strings(cpu, insn, [&](Flags& flags) -> Result<void> {
        const u64 b = TRY(cpu.load(Seg::ES, cpu.gpr(RDI, insn.address_size), bytes));
        compare(flags, cpu.gpr(RAX, bytes), b, bytes);
        advance(cpu, insn, RDI, bytes);
        return {};
    });
}

/// The SSE2 instructions MOVSD and CMPSD have operands, the string instructions have none.
bool is_sse2(const Insn& insn) { return insn.operand_count != 0; }

} // namespace

Result<void> exec_MOVSB(Cpu& cpu, const Insn& insn) { return move_string(cpu, insn, 1); }
Result<void> exec_MOVSW(Cpu& cpu, const Insn& insn) { return move_string(cpu, insn, 2); }
Result<void> exec_MOVSD(Cpu& cpu, const Insn& insn) {
    return is_sse2(insn) ? sse2_movsd(cpu, insn) : move_string(cpu, insn, 4);
}
Result<void> exec_MOVSQ(Cpu& cpu, const Insn& insn) { return move_string(cpu, insn, 8); }

Result<void> exec_CMPSB(Cpu& cpu, const Insn& insn) { return compare_string(cpu, insn, 1); }
Result<void> exec_CMPSW(Cpu& cpu, const Insn& insn) { return compare_string(cpu, insn, 2); }
Result<void> exec_CMPSD(Cpu& cpu, const Insn& insn) {
    return is_sse2(insn) ? sse2_cmpsd(cpu, insn) : compare_string(cpu, insn, 4);
}
Result<void> exec_CMPSQ(Cpu& cpu, const Insn& insn) { return compare_string(cpu, insn, 8); }

Result<void> exec_SCASB(Cpu& cpu, const Insn& insn) { return scan_string(cpu, insn, 1); }
Result<void> exec_SCASW(Cpu& cpu, const Insn& insn) { return scan_string(cpu, insn, 2); }
Result<void> exec_SCASD(Cpu& cpu, const Insn& insn) { return scan_string(cpu, insn, 4); }
Result<void> exec_SCASQ(Cpu& cpu, const Insn& insn) { return scan_string(cpu, insn, 8); }

Result<void> exec_LODSB(Cpu& cpu, const Insn& insn) { return load_string(cpu, insn, 1); }
Result<void> exec_LODSW(Cpu& cpu, const Insn& insn) { return load_string(cpu, insn, 2); }
Result<void> exec_LODSD(Cpu& cpu, const Insn& insn) { return load_string(cpu, insn, 4); }
Result<void> exec_LODSQ(Cpu& cpu, const Insn& insn) { return load_string(cpu, insn, 8); }

Result<void> exec_STOSB(Cpu& cpu, const Insn& insn) { return store_string(cpu, insn, 1); }
Result<void> exec_STOSW(Cpu& cpu, const Insn& insn) { return store_string(cpu, insn, 2); }
Result<void> exec_STOSD(Cpu& cpu, const Insn& insn) { return store_string(cpu, insn, 4); }
Result<void> exec_STOSQ(Cpu& cpu, const Insn& insn) { return store_string(cpu, insn, 8); }

} // namespace exeunt
