// Masked moves and gathers of AVX and AVX2: of memory only the elements whose mask has its sign set are
// touched, and only they can fault. SDM 2C VMASKMOV, VPMASKMOV, VGATHERDPS and the other gathers; SDM 2A 2.4,
// exception types 6 (masked moves) and 12 (VSIB); neither has #AC.
#include "cpu/instructions/sse.hpp"

#include <algorithm>

namespace exeunt {

using namespace sse;

namespace {

template <class T>
bool is_selected(const Ymm& mask, unsigned i) {
    return lane<T>(mask, i) >> (8 * sizeof(T) - 1);
}

template <class T>
Result<T> load_element(Cpu& cpu, Seg segment, u64 offset) {
    const u64 at = TRY(cpu.linear(segment, offset, sizeof(T), AccessType::read));
    T value;
    if (!load_fast(cpu, at, value)) {
        TRY(cpu.load_linear_bytes(at, &value, sizeof(T)));
        value = PhysicalMemory::little_endian(value);
    }
    return value;
}

/// Elements that are not selected become zero.
template <class T>
Result<void> load_masked(Cpu& cpu, const Insn& insn) {
    const Ymm mask = vector<Ymm>(cpu, insn.operand[1].number);
    const u64 offset = cpu.effective_address(insn);
    Ymm value;
    for (unsigned i = 0; i < insn.vector_bytes / sizeof(T); ++i) {
        if (!is_selected<T>(mask, i)) continue;
        set_lane<T>(value, i, TRY(load_element<T>(cpu, insn.memory.segment, offset + i * sizeof(T))));
    }
    set_vector(cpu, insn, value);
    return {};
}

/// Every element is checked before the first is written.
template <class T>
Result<void> store_masked(Cpu& cpu, const Insn& insn) {
    const Ymm mask = vector<Ymm>(cpu, insn.operand[1].number);
    const Ymm value = vector<Ymm>(cpu, insn.operand[2].number);
    const u64 offset = cpu.effective_address(insn);
    std::array<WriteTarget, Ymm::bytes / sizeof(T)> targets;
    for (unsigned i = 0; i < insn.vector_bytes / sizeof(T); ++i) {
        if (!is_selected<T>(mask, i)) continue;
        const u64 at =
            TRY(cpu.linear(insn.memory.segment, offset + i * sizeof(T), sizeof(T), AccessType::write));
        targets[i] = TRY(cpu.translate_write(at, sizeof(T), cpu.mmu.privilege()));
    }
    for (unsigned i = 0; i < insn.vector_bytes / sizeof(T); ++i)
        if (is_selected<T>(mask, i)) TRY(cpu.commit(targets[i], lane<T>(value, i)));
    return {};
}

template <class T>
Result<void> move_masked(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    return insn.operand[0].kind == OperandKind::memory ? store_masked<T>(cpu, insn)
                                                       : load_masked<T>(cpu, insn);
}

/// The mask as a gather leaves it before it has done anything: every element all ones or zero.
template <class T>
Ymm gather_mask(const Cpu& cpu, const Ymm& mask, unsigned count) {
    if (cpu.model.has(Quirk::gather_keeps_mask_elements)) return mask;
    Ymm result;
    for (unsigned i = 0; i < count; ++i)
        if (is_selected<T>(mask, i)) set_lane<T>(result, i, static_cast<T>(~T{0}));
    return result;
}

/// What a gather has done so far, in registers: elements are loaded from the lowest up, and the mask of each
/// is cleared with it, so that after a fault the instruction goes on where it stopped.
struct Gather {
    Ymm value, mask;

    void commit(Cpu& cpu, const Insn& insn) const {
        cpu.vector[insn.operand[0].number] = {{value.q[0], value.q[1], value.q[2], value.q[3]}};
        cpu.vector[insn.operand[2].number] = {{mask.q[0], mask.q[1], mask.q[2], mask.q[3]}};
    }
};

/// T: elements, I: signed indexes.
template <class T, class I>
Result<void> gather(Cpu& cpu, const Insn& insn) {
    TRY(sse_available(cpu, insn));
    const unsigned count = static_cast<unsigned>(insn.vector_bytes / std::max(sizeof(T), sizeof(I)));
    const u64 base = cpu.effective_address(insn), wrap = low_mask(8u * insn.address_size);
    const Ymm indexes = vector<Ymm>(cpu, insn.memory.vector_index);
    const Ymm mask = vector<Ymm>(cpu, insn.operand[2].number);
    Gather g{vector<Ymm>(cpu, insn.operand[0].number), gather_mask<T>(cpu, mask, count)};
    const u64 debug_before = cpu.pending_debug;
    for (unsigned i = 0; i < count; ++i) {
        if (!is_selected<T>(mask, i)) {
            set_lane<T>(g.mask, i, 0);
            continue;
        }
        const u64 index = static_cast<u64>(i64{lane<I>(indexes, i)}) << insn.memory.scale;
        const Result<T> element = load_element<T>(cpu, insn.memory.segment, (base + index) & wrap);
        if (!element.ok()) {
            g.commit(cpu, insn);
            // Traps of elements that were loaded come instead of the fault; RF keeps instruction breakpoints
            // from matching again when the instruction is resumed.
            if (element.stop().kind == Stop::Kind::retry || cpu.pending_debug == debug_before)
                return element.stop();
            cpu.flags.rest |= RFLAGS::RF;
            cpu.next_rip = cpu.rip;
            return {};
        }
        set_lane<T>(g.value, i, element.value());
        set_lane<T>(g.mask, i, 0);
    }
    g.mask = {};
    for (unsigned i = count; i < Ymm::bytes / sizeof(T); ++i) set_lane<T>(g.value, i, 0);
    g.commit(cpu, insn);
    return {};
}

} // namespace

Result<void> exec_VMASKMOVPS(Cpu& cpu, const Insn& insn) { return move_masked<u32>(cpu, insn); }
Result<void> exec_VMASKMOVPD(Cpu& cpu, const Insn& insn) { return move_masked<u64>(cpu, insn); }
Result<void> exec_VPMASKMOVD(Cpu& cpu, const Insn& insn) { return move_masked<u32>(cpu, insn); }
Result<void> exec_VPMASKMOVQ(Cpu& cpu, const Insn& insn) { return move_masked<u64>(cpu, insn); }

Result<void> exec_VGATHERDPS(Cpu& cpu, const Insn& insn) { return gather<u32, i32>(cpu, insn); }
Result<void> exec_VGATHERDPD(Cpu& cpu, const Insn& insn) { return gather<u64, i32>(cpu, insn); }
Result<void> exec_VGATHERQPS(Cpu& cpu, const Insn& insn) { return gather<u32, i64>(cpu, insn); }
Result<void> exec_VGATHERQPD(Cpu& cpu, const Insn& insn) { return gather<u64, i64>(cpu, insn); }
Result<void> exec_VPGATHERDD(Cpu& cpu, const Insn& insn) { return gather<u32, i32>(cpu, insn); }
Result<void> exec_VPGATHERDQ(Cpu& cpu, const Insn& insn) { return gather<u64, i32>(cpu, insn); }
Result<void> exec_VPGATHERQD(Cpu& cpu, const Insn& insn) { return gather<u32, i64>(cpu, insn); }
Result<void> exec_VPGATHERQQ(Cpu& cpu, const Insn& insn) { return gather<u64, i64>(cpu, insn); }

} // namespace exeunt
