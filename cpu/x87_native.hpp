// x87 arithmetic by the native processor's own x87 FPU, where it has one: a shorter way to what softfloat80
// defines. It is taken only for operands that are normal numbers and while all exceptions are masked; then
// the manual leaves no choice to the processor, and the tests compare both ways.
//
// Native exception flags are sticky and clearing them is slow, so they are left standing: a flag that the
// guest's status word has already is no news, whoever raised it. Any other one may be stale, so the flags are
// cleared and the operation is repeated.
#pragma once

#include "cpu/softfloat80.hpp"

namespace exeunt::x87_native {

enum class Operation : u8 { add, subtract, multiply, divide, square_root };

/// Whether the native unit is there and computes as it should. Tests switch the short way off with it.
extern bool enabled;

constexpr bool is_normal(const X87Register& a) {
    return ((a.sign_exponent + 1u) & 0x7FFE) != 0 && (a.significand & softfloat80::integer_bit);
}

#if defined(__x86_64__)

/// Everything masked, 64 bits, to nearest: what every native thread starts with.
inline constexpr u16 default_control = FCW::at_reset;

[[gnu::always_inline]] inline void clear_flags() { asm volatile("fnclex"); }
[[gnu::always_inline]] inline void load_control(u16 control) { asm volatile("fldcw %0" : : "m"(control)); }

/// The result stays in the native ST(0) until it is known to be wanted.
struct Outcome {
    long double value;
    u16 status;
};

/// FSUBP and FDIVP as bytes, for assemblers do not agree about their names.
template <Operation operation>
[[gnu::always_inline]] inline Outcome compute(const X87Register& a, const X87Register& b) {
    Outcome o;
#define EXEUNT_X87(text)                                          \
    asm volatile("fldt %[a]\n\t" text "\n\tfnstsw %[status]"      \
                 : [value] "=t"(o.value), [status] "=a"(o.status) \
                 : [a] "m"(a), [b] "m"(b)                         \
                 : "st(1)")
    if constexpr (operation == Operation::add) EXEUNT_X87("fldt %[b]\n\t.byte 0xDE, 0xC1");
    if constexpr (operation == Operation::subtract) EXEUNT_X87("fldt %[b]\n\t.byte 0xDE, 0xE9");
    if constexpr (operation == Operation::multiply) EXEUNT_X87("fldt %[b]\n\t.byte 0xDE, 0xC9");
    if constexpr (operation == Operation::divide) EXEUNT_X87("fldt %[b]\n\t.byte 0xDE, 0xF9");
    if constexpr (operation == Operation::square_root) EXEUNT_X87("fsqrt");
#undef EXEUNT_X87
    return o;
}

template <Operation operation>
[[gnu::noinline]] Outcome compute(const X87Register& a, const X87Register& b, u16 control) {
    load_control(control);
    const Outcome o = compute<operation>(a, b);
    load_control(default_control);
    return o;
}

[[gnu::always_inline]] inline void store(long double value, X87Register& result) {
    asm volatile("fstpt %0" : "=m"(result) : "t"(value) : "st");
}

/// a op b under the guest's control word. False: not here. `status` is the guest's status word; flags and C1
/// enter it.
template <Operation operation>
[[gnu::always_inline]] inline bool run(const X87Register& a, const X87Register& b, u16 control, u16& status,
                                       X87Register& result) {
    if ((control & FCW::masks) != FCW::masks || !enabled || !is_normal(a) || !is_normal(b)) [[unlikely]]
        return false;
    if (operation == Operation::square_root && softfloat80::is_negative(a)) return false;
    const bool standard = ((control ^ default_control) & (FCW::PC | FCW::RC)) == 0;
    Outcome o = standard ? compute<operation>(a, b) : compute<operation>(a, b, control);
    if (o.status & FSW::exceptions & ~status) [[unlikely]] {
        clear_flags();
        o = standard ? compute<operation>(a, b) : compute<operation>(a, b, control);
    }
    store(o.value, result);
    status = static_cast<u16>((status & ~FSW::C1) | (o.status & (FSW::exceptions | FSW::C1)));
    return true;
}

#else

template <Operation>
constexpr bool run(const X87Register&, const X87Register&, u16, u16&, X87Register&) {
    return false;
}

#endif

} // namespace exeunt::x87_native
