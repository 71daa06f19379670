// Control instructions: the control and status words, the environment and the whole state, the stack pointer,
// waiting. SDM 1 8.1.10 "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE" with Figures 8-9 to
// 8-12, 8.3.11, 8.3.12; SDM 2A FINIT, FCLEX, FLDCW, FLDENV, FSTENV, FSAVE, FRSTOR, FSTSW, FINCSTP, FFREE; SDM
// 2B WAIT.
#include "cpu/instructions/x87.hpp"

#include <algorithm>

namespace exeunt {

namespace x87 {

/// SDM 1 8.7: CR0.NE says how a pending exception is reported. APM 2 15.14.2 "Ferr_Freeze Intercept".
Stop pending_exception(Cpu& cpu) {
    if (cpu.control.cr0 & CR0::NE) return exception(Vector::MF);
    // The processor waits for an interrupt before the instruction, which does not begin.
    const auto asked = cpu.ask(Insn{}, Intercept::ferr_freeze);
    if (!asked.ok()) return asked.stop();
    return cpu.unmodelled("an x87 exception reported through FERR# (CR0.NE = 0)",
                          "SDM 1 8.7.2 \"MS-DOS* Compatibility Sub-mode\"");
}

} // namespace x87

namespace {

using namespace x87;
using softfloat80::Kind;

constexpr unsigned environment_words = 7, registers_bytes = 80;
using Words = std::array<u32, environment_words>;
/// The largest image: an environment of 28 bytes and the registers.
using StateImage = std::array<u8, 4 * environment_words + registers_bytes>;

void set_control(X87State& x87, u32 word) {
    x87.control = static_cast<u16>((word & FCW::writable) | FCW::fixed1);
    summarize(x87);
}

void initialise(X87State& x87) {
    x87.control = FCW::at_reset;
    x87.status = 0;
    x87.empty = 0xFF;
    x87.opcode = 0;
    x87.instruction_pointer = x87.data_pointer = 0;
    x87.instruction_selector = x87.data_selector = 0;
}

Tag tag_of(const X87State& x87, unsigned number) {
    if (test_bit(x87.empty, number)) return Tag::empty;
    switch (softfloat80::kind(x87.st[number])) {
    case Kind::zero: return Tag::zero;
    case Kind::finite: return Tag::valid;
    default: return Tag::special;
    }
}

u16 tag_word(const X87State& x87) {
    unsigned word = 0;
    for (unsigned i = 0; i < 8; ++i) word |= static_cast<unsigned>(tag_of(x87, i)) << (2 * i);
    return static_cast<u16>(word);
}

/// Of a tag that is loaded, only whether it says empty counts.
u8 empty_of(u32 tags) {
    unsigned empty = 0;
    for (unsigned i = 0; i < 8; ++i)
        if (((tags >> (2 * i)) & 3) == static_cast<unsigned>(Tag::empty)) empty |= 1u << i;
    return static_cast<u8>(empty);
}

bool real_format(const Cpu& cpu) { return cpu.real_mode() || cpu.v8086(); }

/// The seven fields of an environment, of 2 or 4 bytes each. What the wide forms leave over is ones.
Words environment(const Cpu& cpu, bool wide) {
    const X87State& x87 = cpu.x87;
    const u32 rest = wide ? 0xFFFF'0000 : 0;
    Words w{x87.control | rest, x87.status | rest, tag_word(x87) | rest};
    if (!real_format(cpu)) {
        w[3] = low32(x87.instruction_pointer);
        w[4] = x87.instruction_selector | u32{x87.opcode} << 16;
        w[5] = low32(x87.data_pointer);
        w[6] = x87.data_selector | rest;
        return w;
    }
    // In real-address and virtual-8086 mode, linear addresses in two pieces.
    const u32 instruction = low32(x87.instruction_pointer) + (u32{x87.instruction_selector} << 4);
    const u32 data = low32(x87.data_pointer) + (u32{x87.data_selector} << 4);
    w[3] = (instruction & 0xFFFF) | rest;
    w[4] = instruction >> 16 << 12 | x87.opcode;
    w[5] = (data & 0xFFFF) | rest;
    w[6] = data >> 16 << 12;
    return w;
}

void load_environment(Cpu& cpu, const Words& w, bool wide) {
    X87State& x87 = cpu.x87;
    x87.status = static_cast<u16>(w[1]);
    x87.empty = empty_of(w[2]);
    set_control(x87, w[0]);
    if (!real_format(cpu)) {
        x87.instruction_pointer = w[3];
        x87.instruction_selector = static_cast<u16>(w[4]);
        x87.data_pointer = w[5];
        x87.data_selector = static_cast<u16>(w[6]);
        x87.opcode = wide ? static_cast<u16>(w[4] >> 16 & 0x7FF) : u16{0};
        return;
    }
    x87.instruction_pointer = (w[3] & 0xFFFF) | w[4] >> 12 << 16;
    x87.data_pointer = (w[5] & 0xFFFF) | w[6] >> 12 << 16;
    x87.opcode = w[4] & 0x7FF;
    x87.instruction_selector = x87.data_selector = 0;
}

/// Writes the environment at the start of `image`; gives its length.
unsigned put_environment(const Cpu& cpu, bool wide, StateImage& image) {
    const unsigned size = wide ? 4 : 2;
    const Words words = environment(cpu, wide);
    for (unsigned i = 0; i < environment_words * size; ++i)
        image[i] = static_cast<u8>(words[i / size] >> (8 * (i % size)));
    return environment_words * size;
}

Words take_environment(const StateImage& image, bool wide) {
    const unsigned size = wide ? 4 : 2;
    Words words{};
    for (unsigned i = 0; i < environment_words * size; ++i)
        words[i / size] |= u32{image[i]} << (8 * (i % size));
    return words;
}

unsigned image_alignment(const Insn& insn) { return insn.operand_size == 2 ? 2 : 4; }

Result<void> store_image(Cpu& cpu, const Insn& insn, const StateImage& image, unsigned bytes) {
    const u64 offset = cpu.effective_address(insn);
    const u64 at = TRY(checked_address(cpu, insn, offset, bytes, image_alignment(insn), AccessType::write));
    return cpu.store_linear_bytes(at, image.data(), bytes);
}
Result<StateImage> load_image(Cpu& cpu, const Insn& insn, unsigned bytes) {
    StateImage image{};
    const u64 offset = cpu.effective_address(insn);
    const u64 at = TRY(checked_address(cpu, insn, offset, bytes, image_alignment(insn), AccessType::read));
    TRY(cpu.load_linear_bytes(at, image.data(), bytes));
    return image;
}

/// FINCSTP, FDECSTP.
Result<void> turn(Cpu& cpu, const Insn& insn, unsigned by) {
    TRY(ready(cpu));
    conclude(cpu, insn, Environment{cpu.x87.control});
    cpu.x87.set_top(cpu.x87.top() + by);
    return {};
}

} // namespace

Result<void> exec_FNINIT(Cpu& cpu, const Insn&) {
    TRY(available(cpu));
    initialise(cpu.x87);
    return {};
}

Result<void> exec_FNCLEX(Cpu& cpu, const Insn&) {
    TRY(available(cpu));
    cpu.x87.status &= FSW::conditions | FSW::TOP;
    return {};
}

Result<void> exec_FNSTCW(Cpu& cpu, const Insn& insn) {
    TRY(available(cpu));
    return store_memory(cpu, insn, cpu.effective_address(insn), cpu.x87.control);
}

Result<void> exec_FLDCW(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    set_control(cpu.x87, TRY(load_memory<u16>(cpu, insn, cpu.effective_address(insn))));
    return {};
}

Result<void> exec_FNSTSW(Cpu& cpu, const Insn& insn) {
    TRY(available(cpu));
    return cpu.write_operand(insn, 0, cpu.x87.status);
}

/// Stores the environment, then masks all exceptions.
Result<void> exec_FNSTENV(Cpu& cpu, const Insn& insn) {
    TRY(available(cpu));
    StateImage image{};
    const unsigned bytes = put_environment(cpu, insn.operand_size != 2, image);
    TRY(store_image(cpu, insn, image, bytes));
    set_control(cpu.x87, cpu.x87.control | FCW::masks);
    return {};
}

Result<void> exec_FLDENV(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    const bool wide = insn.operand_size != 2;
    const StateImage image = TRY(load_image(cpu, insn, environment_words * (wide ? 4 : 2)));
    load_environment(cpu, take_environment(image, wide), wide);
    return {};
}

/// Environment and registers, ST(0) first; then as FNINIT.
Result<void> exec_FNSAVE(Cpu& cpu, const Insn& insn) {
    TRY(available(cpu));
    StateImage image{};
    const unsigned at = put_environment(cpu, insn.operand_size != 2, image);
    for (unsigned i = 0; i < 8; ++i) {
        const Image number = to_image(st(cpu.x87, i));
        std::copy(number.begin(), number.end(), image.begin() + at + 10 * i);
    }
    TRY(store_image(cpu, insn, image, at + registers_bytes));
    initialise(cpu.x87);
    return {};
}

Result<void> exec_FRSTOR(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    const bool wide = insn.operand_size != 2;
    const unsigned at = environment_words * (wide ? 4 : 2);
    const StateImage image = TRY(load_image(cpu, insn, at + registers_bytes));
    load_environment(cpu, take_environment(image, wide), wide);
    for (unsigned i = 0; i < 8; ++i) st(cpu.x87, i) = from_image(image.data() + at + 10 * i);
    return {};
}

Result<void> exec_FINCSTP(Cpu& cpu, const Insn& insn) { return turn(cpu, insn, 1); }
Result<void> exec_FDECSTP(Cpu& cpu, const Insn& insn) { return turn(cpu, insn, 7); }

Result<void> exec_FFREE(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    conclude(cpu, insn, Environment{cpu.x87.control});
    set_empty(cpu.x87, register_number(insn));
    return {};
}
/// DF C0+i, undocumented: FFREE, then pop.
Result<void> exec_FFREEP(Cpu& cpu, const Insn& insn) {
    TRY(exec_FFREE(cpu, insn));
    pop(cpu.x87);
    return {};
}

Result<void> exec_FNOP(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    note(cpu, insn, 0);
    return {};
}

/// SDM 3A Table 2-2: CR0.EM does not concern it, CR0.TS only together with CR0.MP.
Result<void> exec_FWAIT(Cpu& cpu, const Insn&) {
    static constexpr u64 both = CR0::MP | CR0::TS;
    if ((cpu.control.cr0 & both) == both) return exception(Vector::NM);
    if (cpu.x87.status & FSW::ES) return pending_exception(cpu);
    return {};
}

// SDM 1 8.3.13: FENI, FDISI and FSETPM did something on the 8087 and the Intel 287; since then they are NOPs.
Result<void> exec_FENI8087_NOP(Cpu& cpu, const Insn&) { return available(cpu); }
Result<void> exec_FDISI8087_NOP(Cpu& cpu, const Insn&) { return available(cpu); }
Result<void> exec_FSETPM287_NOP(Cpu& cpu, const Insn&) { return available(cpu); }

} // namespace exeunt
