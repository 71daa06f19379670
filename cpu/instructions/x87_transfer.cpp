// Loads, stores, constants, exchanges and conditional moves. SDM 1 8.3.3 "Data Transfer Instructions", 8.3.4
// "Load Constant Instructions"; SDM 2A FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP, FLD1 and its like, FXCH,
// FCMOVcc.
#include "cpu/instructions/x87.hpp"

#include <algorithm>

namespace exeunt {

namespace x87 {

Image to_image(const Extended& value) {
    Image image;
    for (unsigned i = 0; i < 8; ++i) image[i] = static_cast<u8>(value.significand >> (8 * i));
    image[8] = static_cast<u8>(value.sign_exponent);
    image[9] = static_cast<u8>(value.sign_exponent >> 8);
    return image;
}

Extended from_image(const u8* bytes) {
    Extended value;
    for (unsigned i = 0; i < 8; ++i) value.significand |= u64{bytes[i]} << (8 * i);
    value.sign_exponent = static_cast<u16>(bytes[8] | bytes[9] << 8);
    return value;
}

Result<u64> checked_address(Cpu& cpu, const Insn& insn, u64 offset, unsigned bytes, unsigned alignment,
                            AccessType type) {
    const u64 at = TRY(cpu.linear(insn.memory.segment, offset, bytes, type));
    TRY(cpu.check_alignment(at, alignment));
    TRY(cpu.check_linear(at, bytes, type));
    return at;
}

} // namespace x87

namespace {

using namespace x87;
using softfloat80::Rounding;

Result<Image> load_image(Cpu& cpu, const Insn& insn, u64 offset) {
    Image image;
    const u64 at = TRY(checked_address(cpu, insn, offset, sizeof image, 8, AccessType::read));
    TRY(cpu.load_linear_bytes(at, image.data(), sizeof image));
    return image;
}
/// `stores`: otherwise an exception keeps the result back, and the destination is only checked, whose faults come
/// first (SDM 3A Table 6-2).
Result<void> store_image(Cpu& cpu, const Insn& insn, u64 offset, const Image& image, bool stores) {
    const u64 at = TRY(checked_address(cpu, insn, offset, sizeof image, 8, AccessType::write));
    if (!stores) return {};
    return cpu.store_linear_bytes(at, image.data(), sizeof image);
}

/// Pushes `value`, in which `e` found something, unless the stack is full. Of a load, only #I withholds the
/// result.
[[gnu::always_inline]] inline Result<void> push_result(Cpu& cpu, const Insn& insn, const Extended& value,
                                                       Environment& e, u64 offset = 0) {
    X87State& x87 = cpu.x87;
    if (!is_empty(x87, 7)) [[unlikely]] {
        Environment full{x87.control};
        stack_overflow(full);
        if (conclude(cpu, insn, full, offset)) push(x87, softfloat80::default_nan);
        return {};
    }
    conclude(cpu, insn, e, offset);
    if (!(e.unmasked() & FSW::IE)) [[likely]]
        push(x87, value);
    return {};
}

Result<Extended> load_operand(Cpu& cpu, const Insn& insn, u64 offset, Environment& e) {
    switch (insn.operand[0].bytes) {
    case 4: return softfloat80::load(TRY(load_memory<u32>(cpu, insn, offset)), e);
    case 8: return softfloat80::load(TRY(load_memory<u64>(cpu, insn, offset)), e);
    default: {
        const Image image = TRY(load_image(cpu, insn, offset));
        return from_image(image.data());
    }
    }
}

/// Stores ST(0) as `convert` gives it, and pops.
template <class T, class Convert>
Result<void> store_converted(Cpu& cpu, const Insn& insn, bool pops, T indefinite, Convert convert) {
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    T value = indefinite;
    if (is_empty(x87, 0)) [[unlikely]]
        stack_underflow(e);
    else
        value = convert(st(x87, 0), e);
    const bool stores = !withheld(e);
    const u64 offset = cpu.effective_address(insn);
    if (stores) [[likely]] {
        TRY(store_memory(cpu, insn, offset, value));
    } else {
        TRY(checked_address(cpu, insn, offset, sizeof(T), sizeof(T), AccessType::write));
    }
    conclude(cpu, insn, e, offset);
    if (stores && pops) pop(x87);
    return {};
}

/// FSTP m80 is the only one of its kind: no conversion, hence no exception but stack underflow.
Result<void> store_extended(Cpu& cpu, const Insn& insn) {
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const bool empty = is_empty(x87, 0);
    if (empty) stack_underflow(e);
    const u64 offset = cpu.effective_address(insn);
    const Extended value = empty ? softfloat80::default_nan : st(x87, 0);
    TRY(store_image(cpu, insn, offset, to_image(value), !withheld(e)));
    if (conclude(cpu, insn, e, offset)) pop(x87);
    return {};
}

/// FST and FSTP of a register.
Result<void> copy(Cpu& cpu, const Insn& insn, bool pops) {
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const bool empty = is_empty(x87, 0);
    if (empty) [[unlikely]]
        stack_underflow(e);
    if (!conclude(cpu, insn, e)) return {};
    set_st(x87, register_number(insn), empty ? softfloat80::default_nan : st(x87, 0));
    if (pops) pop(x87);
    return {};
}

Result<void> store(Cpu& cpu, const Insn& insn, bool pops) {
    TRY(ready(cpu));
    if (!has_memory(insn)) return copy(cpu, insn, pops);
    switch (insn.operand[0].bytes) {
    case 4: return store_converted(cpu, insn, pops, softfloat::default_nan<u32>, softfloat80::narrow<u32>);
    case 8: return store_converted(cpu, insn, pops, softfloat::default_nan<u64>, softfloat80::narrow<u64>);
    default: return store_extended(cpu, insn);
    }
}

template <class T>
Result<void> store_integer_of(Cpu& cpu, const Insn& insn, bool pops, Rounding rounding) {
    constexpr unsigned bits = 8 * sizeof(T);
    return store_converted(cpu, insn, pops, static_cast<T>(T{1} << (bits - 1)),
                           [rounding](const Extended& a, Environment& e) {
                               return static_cast<T>(softfloat80::to_integer(a, bits, rounding, e));
                           });
}

Result<void> store_integer(Cpu& cpu, const Insn& insn, bool pops, Rounding rounding) {
    switch (insn.operand[0].bytes) {
    case 2: return store_integer_of<u16>(cpu, insn, pops, rounding);
    case 4: return store_integer_of<u32>(cpu, insn, pops, rounding);
    default: return store_integer_of<u64>(cpu, insn, pops, rounding);
    }
}

Rounding rounding_control(const Cpu& cpu) { return Environment{cpu.x87.control}.rounding(); }

/// The leading 64 bits of a constant.
struct Constant {
    u64 significand;
    u16 exponent;
    bool above_half; ///< the bits that do not fit are more than half of the last place
};

/// SDM 2A FLD1: the constants are rounded as the rounding control says, without a precision exception.
Result<void> push_constant(Cpu& cpu, const Insn& insn, const Constant& constant) {
    TRY(ready(cpu));
    const Rounding rounding = rounding_control(cpu);
    const bool up = rounding == Rounding::up || (rounding == Rounding::nearest && constant.above_half);
    Environment e{cpu.x87.control};
    return push_result(cpu, insn, {constant.significand + up, constant.exponent}, e);
}

Result<void> move_if(Cpu& cpu, const Insn& insn, bool condition) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    const unsigned i = register_number(insn);
    if (is_empty(x87, 0) || is_empty(x87, i)) [[unlikely]] {
        Environment e{x87.control};
        stack_underflow(e);
        if (conclude(cpu, insn, e)) set_st(x87, 0, softfloat80::default_nan);
        return {};
    }
    note(cpu, insn, 0); // C1 stays as it is
    if (condition) set_st(x87, 0, st(x87, i));
    return {};
}

} // namespace

Result<void> exec_FLD(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    if (has_memory(insn)) {
        const u64 offset = cpu.effective_address(insn);
        const Extended value = TRY(load_operand(cpu, insn, offset, e));
        return push_result(cpu, insn, value, e, offset);
    }
    const unsigned i = register_number(insn);
    if (is_empty(x87, i)) [[unlikely]] {
        stack_underflow(e);
        if (conclude(cpu, insn, e)) push(x87, softfloat80::default_nan);
        return {};
    }
    return push_result(cpu, insn, st(x87, i), e);
}

Result<void> exec_FILD(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    Environment e{cpu.x87.control};
    const u64 offset = cpu.effective_address(insn);
    i64 value = 0;
    switch (insn.operand[0].bytes) {
    case 2: value = static_cast<i16>(TRY(load_memory<u16>(cpu, insn, offset))); break;
    case 4: value = static_cast<i32>(TRY(load_memory<u32>(cpu, insn, offset))); break;
    default: value = static_cast<i64>(TRY(load_memory<u64>(cpu, insn, offset))); break;
    }
    return push_result(cpu, insn, softfloat80::from_integer(value), e, offset);
}

Result<void> exec_FBLD(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    Environment e{cpu.x87.control};
    const u64 offset = cpu.effective_address(insn);
    const Image image = TRY(load_image(cpu, insn, offset));
    softfloat80::PackedDecimal digits;
    std::copy(image.begin(), image.end(), digits.byte);
    return push_result(cpu, insn, softfloat80::from_decimal(digits), e, offset);
}

Result<void> exec_FST(Cpu& cpu, const Insn& insn) { return store(cpu, insn, false); }
Result<void> exec_FSTP(Cpu& cpu, const Insn& insn) { return store(cpu, insn, true); }

/// D9 D8+i, an undocumented twin of FSTP that takes an empty ST(0) without complaint.
Result<void> exec_FSTPNCE(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    conclude(cpu, insn, Environment{x87.control});
    if (!is_empty(x87, 0)) set_st(x87, register_number(insn), st(x87, 0));
    pop(x87);
    return {};
}

Result<void> exec_FIST(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    return store_integer(cpu, insn, false, rounding_control(cpu));
}
Result<void> exec_FISTP(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    return store_integer(cpu, insn, true, rounding_control(cpu));
}
Result<void> exec_FISTTP(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    return store_integer(cpu, insn, true, Rounding::zero);
}

Result<void> exec_FBSTP(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    softfloat80::PackedDecimal digits;
    if (is_empty(x87, 0)) {
        digits = softfloat80::to_decimal(softfloat80::default_nan, e); // the indefinite
        stack_underflow(e);
    } else {
        digits = softfloat80::to_decimal(st(x87, 0), e);
    }
    Image image;
    std::copy_n(digits.byte, image.size(), image.begin());
    const u64 offset = cpu.effective_address(insn);
    TRY(store_image(cpu, insn, offset, image, !withheld(e)));
    if (conclude(cpu, insn, e, offset)) pop(x87);
    return {};
}

// ---- Constants --------------------------------------------------------------------------------------------

Result<void> exec_FLD1(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    Environment e{cpu.x87.control};
    return push_result(cpu, insn, softfloat80::one, e);
}
Result<void> exec_FLDZ(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    Environment e{cpu.x87.control};
    return push_result(cpu, insn, softfloat80::zero(false), e);
}
Result<void> exec_FLDPI(Cpu& cpu, const Insn& insn) {
    return push_constant(cpu, insn, {0xC90F'DAA2'2168'C234, 0x4000, true});
}
Result<void> exec_FLDL2T(Cpu& cpu, const Insn& insn) {
    return push_constant(cpu, insn, {0xD49A'784B'CD1B'8AFE, 0x4000, false});
}
Result<void> exec_FLDL2E(Cpu& cpu, const Insn& insn) {
    return push_constant(cpu, insn, {0xB8AA'3B29'5C17'F0BB, 0x3FFF, true});
}
Result<void> exec_FLDLG2(Cpu& cpu, const Insn& insn) {
    return push_constant(cpu, insn, {0x9A20'9A84'FBCF'F798, 0x3FFD, true});
}
Result<void> exec_FLDLN2(Cpu& cpu, const Insn& insn) {
    return push_constant(cpu, insn, {0xB172'17F7'D1CF'79AB, 0x3FFE, true});
}

// ---- Between registers ------------------------------------------------------------------------------------

Result<void> exec_FXCH(Cpu& cpu, const Insn& insn) {
    TRY(ready(cpu));
    X87State& x87 = cpu.x87;
    Environment e{x87.control};
    const unsigned i = register_number(insn);
    const Extended a = is_empty(x87, 0) ? softfloat80::default_nan : st(x87, 0);
    const Extended b = is_empty(x87, i) ? softfloat80::default_nan : st(x87, i);
    if (is_empty(x87, 0) || is_empty(x87, i)) stack_underflow(e);
    if (!conclude(cpu, insn, e)) return {};
    set_st(x87, 0, b);
    set_st(x87, i, a);
    return {};
}

Result<void> exec_FCMOVB(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, cpu.flags.cf); }
Result<void> exec_FCMOVE(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, cpu.flags.zf()); }
Result<void> exec_FCMOVBE(Cpu& cpu, const Insn& insn) {
    return move_if(cpu, insn, cpu.flags.cf || cpu.flags.zf());
}
Result<void> exec_FCMOVU(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, cpu.flags.pf()); }
Result<void> exec_FCMOVNB(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, !cpu.flags.cf); }
Result<void> exec_FCMOVNE(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, !cpu.flags.zf()); }
Result<void> exec_FCMOVNBE(Cpu& cpu, const Insn& insn) {
    return move_if(cpu, insn, !cpu.flags.cf && !cpu.flags.zf());
}
Result<void> exec_FCMOVNU(Cpu& cpu, const Insn& insn) { return move_if(cpu, insn, !cpu.flags.pf()); }

} // namespace exeunt
