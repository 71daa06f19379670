// The fast ways of SSE arithmetic. Each gives the bits and flags of softfloat (cpu/softfloat.hpp), or says
// that it can not; the tests compare them.
//
// 1. quick(), on every native machine: all of them round binary32 and binary64 to nearest alike. So where the
// guest
//    does, its MXCSR.PE is set already and masked, and operands and result are normal numbers away from the
//    ends of the range, nothing but the result can differ from what MXCSR says. MXCSR is not switched and not
//    read.
// 2. by_silicon(), where native is x86-64: the guest's rounding control, DAZ and FZ for one instruction. Only
// when that
//    raises nothing or PE; other exceptions are softfloat's to decide. Not while underflow is unmasked: then
//    a tiny result is an exception even if it is exact.
#pragma once

#include "cpu/softfloat.hpp"

#include <bit>
#include <cmath>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace exeunt::softfloat {

// ---- Operations
// ------------------------------------------------------------------------------------------------ `native`
// works on float and double, and on vectors of them where `vectors` says so. `rounds`: the result may be
// inexact. `unary`: only the second operand counts.

struct Add {
    static constexpr bool rounds = true, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a + b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return add<T>(a, b, e);
    }
};
struct Subtract {
    static constexpr bool rounds = true, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a - b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return subtract<T>(a, b, e);
    }
};
struct Multiply {
    static constexpr bool rounds = true, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a * b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return multiply<T>(a, b, e);
    }
};
struct Divide {
    static constexpr bool rounds = true, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a / b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return divide<T>(a, b, e);
    }
};
struct SquareRoot {
    static constexpr bool rounds = true, vectors = false, unary = true;
    template <class F>
    static F native(F, F b) {
#if defined(__x86_64__)
        if constexpr (sizeof(F) == 4) return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(b)));
        return static_cast<F>(
            _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(static_cast<double>(b)))));
#else
        return std::sqrt(b);
#endif
    }
    template <class T>
    static T soft(T, T b, Environment& e) {
        return square_root<T>(b, e);
    }
};
struct Minimum {
    static constexpr bool rounds = false, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a < b ? a : b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return minimum<T>(a, b, e);
    }
};
struct Maximum {
    static constexpr bool rounds = false, vectors = true, unary = false;
    static auto native(auto a, auto b) { return a > b ? a : b; }
    template <class T>
    static T soft(T a, T b, Environment& e) {
        return maximum<T>(a, b, e);
    }
};

// ---- 1
// ---------------------------------------------------------------------------------------------------------

/// Rounding to nearest, and that a result is inexact is no news.
constexpr bool inexact_is_noted(u32 mxcsr) {
    return (mxcsr & (MXCSR::RC | MXCSR::PE | MXCSR::PM)) == (MXCSR::PE | MXCSR::PM);
}
/// A normal number, and not of the least exponent (where whether a result is tiny depends on how it was
/// rounded).
template <class T>
constexpr bool is_ordinary(T a) {
    return exponent_field(a) - 2 < (1u << Format<T>::exponent_bits) - 3;
}

template <class Op, class T>
[[gnu::always_inline]] inline bool quick(T a, T b, u32 mxcsr, T& result) {
    using Native = typename Format<T>::Native;
    if (Op::rounds && !inexact_is_noted(mxcsr)) return false;
    result = std::bit_cast<T>(Op::native(std::bit_cast<Native>(a), std::bit_cast<Native>(b)));
    return (Op::unary || is_ordinary(a)) && is_ordinary(b) && is_ordinary(result);
}

/// One lane by the quickest way that is exact.
template <class Op, class T>
[[gnu::always_inline]] inline T compute(T a, T b, Environment& e) {
    T result;
    if (quick<Op>(a, b, e.mxcsr | e.raised, result)) [[likely]]
        return result;
    return Op::template soft<T>(a, b, e);
}

/// 16 bytes of lanes: two u64, or four u32 of which two share a quadword. Lanes are worked on alike, so that
/// the native order of bytes does not matter.
using Quadwords = u64 __attribute__((vector_size(16)));
using Doublewords = i32 __attribute__((vector_size(16)));
template <class T>
struct NativeVector;
template <>
struct NativeVector<u32> {
    typedef float Type __attribute__((vector_size(16)));
};
template <>
struct NativeVector<u64> {
    typedef double Type __attribute__((vector_size(16)));
};

/// is_ordinary() of every lane, by comparisons of doublewords. The low doubleword of a double is masked out
/// and lies between its bounds.
template <class T>
[[gnu::always_inline]] inline Doublewords ordinary_lanes(Quadwords v) {
    constexpr u64 exponents = sizeof(T) == 8 ? infinity<u64> : u64{infinity<u32>} << 32 | infinity<u32>;
    constexpr u64 above = sizeof(T) == 8 ? 0x0010'0000'FFFF'FFFF : 0x0080'0000'0080'0000;
    constexpr u64 below = sizeof(T) == 8 ? 0x7FF0'0000'0000'0001 : exponents;
    const Doublewords field = reinterpret_cast<Doublewords>(v & Quadwords{exponents, exponents});
    return (field > reinterpret_cast<Doublewords>(Quadwords{above, above})) &
           (field < reinterpret_cast<Doublewords>(Quadwords{below, below}));
}

template <class Op, class T>
[[gnu::always_inline]] inline bool quick_vector(const u64 (&a)[2], const u64 (&b)[2], u32 mxcsr,
                                                u64 (&result)[2]) {
    if constexpr (Op::vectors) {
        using Native = typename NativeVector<T>::Type;
        if (Op::rounds && !inexact_is_noted(mxcsr)) return false;
        const Quadwords x{a[0], a[1]}, y{b[0], b[1]};
        const Quadwords z =
            reinterpret_cast<Quadwords>(Op::native(reinterpret_cast<Native>(x), reinterpret_cast<Native>(y)));
        result[0] = z[0];
        result[1] = z[1];
        const Quadwords ok =
            reinterpret_cast<Quadwords>(ordinary_lanes<T>(x) & ordinary_lanes<T>(y) & ordinary_lanes<T>(z));
        return (ok[0] & ok[1]) == ~u64{0};
    }
    return false;
}

// ---- 2
// ---------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)

/// What the native processor made of one instruction.
struct Silicon {
    __m128i value;
    u32 flags;
};

inline constexpr u32 native_mxcsr = MXCSR::at_reset;

// Nothing may come between loading MXCSR and the instruction, so they are one piece of assembly. When the
// control bits are those that native code runs with anyway, MXCSR need not be restored: nobody looks at the
// flags.
#define EXEUNT_SILICON(operation, type, lanes, instruction)                                          \
    template <>                                                                                      \
    inline Silicon silicon<operation, type, lanes>(__m128i a, __m128i b, u32 control) {              \
        u32 status = 0;                                                                              \
        if (control == native_mxcsr) {                                                               \
            asm volatile("ldmxcsr %[control]\n\t" instruction " %[b], %[a]\n\tstmxcsr %[status]"     \
                         : [a] "+x"(a), [status] "=m"(status)                                        \
                         : [b] "x"(b), [control] "m"(control));                                      \
        } else {                                                                                     \
            asm volatile("ldmxcsr %[control]\n\t" instruction " %[b], %[a]\n\tstmxcsr %[status]\n\t" \
                         "ldmxcsr %[native]"                                                         \
                         : [a] "+x"(a), [status] "=m"(status)                                        \
                         : [b] "x"(b), [control] "m"(control), [native] "m"(native_mxcsr));          \
        }                                                                                            \
        return {a, status & MXCSR::flags};                                                           \
    }
template <class Op, class T, unsigned lanes>
Silicon silicon(__m128i a, __m128i b, u32 control);
EXEUNT_SILICON(Add, u32, 1, "addss")
EXEUNT_SILICON(Add, u64, 1, "addsd")
EXEUNT_SILICON(Add, u32, 4, "addps")
EXEUNT_SILICON(Add, u64, 2, "addpd")
EXEUNT_SILICON(Subtract, u32, 1, "subss")
EXEUNT_SILICON(Subtract, u64, 1, "subsd")
EXEUNT_SILICON(Subtract, u32, 4, "subps")
EXEUNT_SILICON(Subtract, u64, 2, "subpd")
EXEUNT_SILICON(Multiply, u32, 1, "mulss")
EXEUNT_SILICON(Multiply, u64, 1, "mulsd")
EXEUNT_SILICON(Multiply, u32, 4, "mulps")
EXEUNT_SILICON(Multiply, u64, 2, "mulpd")
EXEUNT_SILICON(Divide, u32, 1, "divss")
EXEUNT_SILICON(Divide, u64, 1, "divsd")
EXEUNT_SILICON(Divide, u32, 4, "divps")
EXEUNT_SILICON(Divide, u64, 2, "divpd")
EXEUNT_SILICON(SquareRoot, u32, 1, "sqrtss")
EXEUNT_SILICON(SquareRoot, u64, 1, "sqrtsd")
EXEUNT_SILICON(SquareRoot, u32, 4, "sqrtps")
EXEUNT_SILICON(SquareRoot, u64, 2, "sqrtpd")
EXEUNT_SILICON(Minimum, u32, 1, "minss")
EXEUNT_SILICON(Minimum, u64, 1, "minsd")
EXEUNT_SILICON(Minimum, u32, 4, "minps")
EXEUNT_SILICON(Minimum, u64, 2, "minpd")
EXEUNT_SILICON(Maximum, u32, 1, "maxss")
EXEUNT_SILICON(Maximum, u64, 1, "maxsd")
EXEUNT_SILICON(Maximum, u32, 4, "maxps")
EXEUNT_SILICON(Maximum, u64, 2, "maxpd")
#undef EXEUNT_SILICON

/// The lanes of `a` and `b` (16 bytes each, or one number) to `result`; PE is added to `mxcsr`.
template <class Op, class T, unsigned lanes>
inline bool by_silicon(const u64 (&a)[2], const u64 (&b)[2], u32& mxcsr, u64 (&result)[2]) {
    if (!(mxcsr & MXCSR::UM)) return false;
    const u32 control = MXCSR::masks | (mxcsr & (MXCSR::RC | MXCSR::DAZ | MXCSR::FZ));
    const Silicon s = silicon<Op, T, lanes>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)),
                                            _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), control);
    if (s.flags & ~(MXCSR::PE & mxcsr >> 7)) return false;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result), s.value);
    mxcsr |= s.flags;
    return true;
}

#else

template <class Op, class T, unsigned lanes>
inline bool by_silicon(const u64 (&)[2], const u64 (&)[2], u32&, u64 (&)[2]) {
    return false;
}

#endif

} // namespace exeunt::softfloat
