#include "cpu/stack_frame.hpp"

#include "base/ensure.hpp"

#include <memory>

namespace exeunt {

StackPointer current_stack(const Cpu& cpu) { return {cpu.seg(Seg::SS), cpu.r[RSP], cpu.stack_bytes()}; }

StackPointer current_stack(const Cpu& cpu, const Segment& code) {
    StackPointer stack = current_stack(cpu);
    if (is_code64(cpu, code)) stack.address_bytes = 8;
    return stack;
}

namespace {

u32 tss_error(const Cpu& cpu) { return selector_error(cpu.seg(Seg::TR).selector); }

/// A field of the TSS; beyond its limit: #TS with the selector of the TSS.
Result<u64> tss_field(Cpu& cpu, u64 offset, unsigned bytes) {
    const Segment& tr = cpu.seg(Seg::TR);
    if (offset + bytes - 1 > tr.limit) return exception(Vector::TS, tss_error(cpu));
    const u64 address = tr.base + offset;
    return cpu.load_linear(cpu.long_mode_active() ? address : address & 0xFFFF'FFFF, bytes, true);
}

/// SDM 3A Figure 7-11 "64-Bit TSS Format": RSP0 at 4, IST1 at 36.
Result<StackPointer> inner_stack64(Cpu& cpu, unsigned cpl, unsigned ist) {
    const u64 offset = ist ? 28 + 8 * u64{ist} : 4 + 8 * u64{cpl};
    const u64 rsp = TRY(tss_field(cpu, offset, 8));
    return StackPointer{null_stack_segment(cpl, static_cast<u16>(cpl)), rsp, 8};
}

Privilege privilege_at(const Cpu& cpu, unsigned cpl) {
    if (cpl == 3) return Privilege::user;
    const bool smap_off = !(cpu.control.cr4 & CR4::SMAP) || cpu.flag(RFLAGS::AC);
    return smap_off ? Privilege::supervisor_smap_off : Privilege::supervisor;
}

} // namespace

Result<StackPointer> inner_stack(Cpu& cpu, unsigned cpl, unsigned ist) {
    if (cpu.long_mode_active()) return inner_stack64(cpu, cpl, ist);
    // SDM 3A Figure 7-2 "32-Bit Task-State Segment (TSS)", Figure 7-10 "16-Bit TSS Format".
    const bool wide = cpu.seg(Seg::TR).type() & 8;
    const unsigned bytes = wide ? 4 : 2;
    const u64 offset = wide ? 4 + 8 * u64{cpl} : 2 + 4 * u64{cpl};
    // Both must be inside the limit before either is read.
    if (offset + bytes + 1 > cpu.seg(Seg::TR).limit) return exception(Vector::TS, tss_error(cpu));
    const u64 sp = TRY(tss_field(cpu, offset, bytes));
    const auto selector = static_cast<u16>(TRY(tss_field(cpu, offset + bytes, 2)));
    if (null_selector(selector)) return exception(Vector::TS, selector_error(selector));
    TableEntry entry = TRY(fetch_stack_segment(cpu, selector, cpl, Vector::TS));
    TRY(mark_accessed(cpu, entry));
    const Segment ss = entry.segment();
    return StackPointer{ss, sp, ss.big() ? 4u : 2u};
}

StackFrame::StackFrame(Cpu& cpu, const StackPointer& stack, unsigned cpl, u32 error)
    : cpu_(cpu),
      stack_(stack),
      offset_(stack.pointer & low_mask(8 * stack.address_bytes)),
      same_privilege_(cpl == cpu.cpl),
      privilege_(privilege_at(cpu, cpl)),
      error_(error) {}

Result<u64> StackFrame::linear_of(u64 offset, unsigned bytes) const {
    if (stack_.address_bytes == 8) {
        if (!cpu_.canonical(offset) || !cpu_.canonical(offset + bytes - 1))
            return exception(Vector::SS, error_);
        return offset;
    }
    const Segment& ss = stack_.ss;
    if (ss.unusable() || !within_limit(ss, offset, bytes)) return exception(Vector::SS, error_);
    return (ss.base + offset) & 0xFFFF'FFFF;
}

Result<void> StackFrame::push(u64 value, unsigned bytes) {
    ENSURE(count_ < capacity);
    const u64 offset = (offset_ - bytes) & low_mask(8 * stack_.address_bytes);
    const u64 linear = TRY(linear_of(offset, bytes));
    const WriteTarget target = TRY(same_privilege_ ? cpu_.prepare_linear(linear, bytes)
                                                   : cpu_.translate_write(linear, bytes, privilege_));
    std::construct_at(item(count_++), Item{target, value & low_mask(8 * bytes)});
    offset_ = offset;
    return {};
}

Result<void> StackFrame::write() {
    for (unsigned i = 0; i < count_; ++i) TRY(cpu_.commit(item(i)->target, item(i)->value));
    return {};
}

u64 StackFrame::pointer() const {
    if (stack_.address_bytes == 2) return (stack_.pointer & ~u64{0xFFFF}) | offset_;
    return offset_;
}

} // namespace exeunt
