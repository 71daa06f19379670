// Single floating-point instructions executed by the native processor, for comparison. Only where native is
// x86-64.
#pragma once

#if defined(__x86_64__)

#include "cpu/softfloat.hpp"

#include <array>
#include <bit>
#include <csetjmp>
#include <csignal>
#include <emmintrin.h>
#include <ucontext.h>

namespace exeunt::test {

/// The result in the low bits, and MXCSR's flags. `trapped`: an unmasked exception came instead of a result.
struct Outcome {
    u64 bits = 0;
    u32 flags = 0;
    bool trapped = false;

    bool operator==(const Outcome& o) const {
        return flags == o.flags && trapped == o.trapped && (trapped || bits == o.bits);
    }
};

namespace native {

inline constexpr u32 standard = MXCSR::at_reset;
inline sigjmp_buf trap_return;
inline volatile u32 trap_flags = 0;

inline void on_trap(int, siginfo_t*, void* context) {
    trap_flags = static_cast<ucontext_t*>(context)->uc_mcontext.fpregs->mxcsr & MXCSR::flags;
    siglongjmp(trap_return, 1);
}

/// Runs `body` (which loads MXCSR itself and gives its flags) and catches the #XM that it may cause.
template <class Body>
Outcome catching(Body body) {
    struct sigaction action {
    }, before{};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGFPE, &action, &before);
    Outcome outcome;
    if (sigsetjmp(trap_return, 1) == 0) {
        outcome = body();
    } else {
        asm volatile("ldmxcsr %0" : : "m"(standard));
        outcome = {0, trap_flags, true};
    }
    sigaction(SIGFPE, &before, nullptr);
    return outcome;
}

inline __m128d in_register(u64 bits) { return std::bit_cast<__m128d>(std::array<u64, 2>{bits, 0}); }
inline u64 low_quadword(__m128d v) { return std::bit_cast<std::array<u64, 2>>(v)[0]; }

#define WITH_MXCSR(text) "ldmxcsr %[control]\n\t" text "\n\tstmxcsr %[status]\n\tldmxcsr %[standard]"

/// xmm (a) op= xmm (b).
#define NATIVE(name, text)                                                        \
    inline Outcome name(u64 a, u64 b, u32 mxcsr) {                                \
        __m128d x = in_register(a);                                               \
        const __m128d y = in_register(b);                                         \
        u32 status = 0;                                                           \
        asm volatile(WITH_MXCSR(text)                                             \
                     : [x] "+x"(x), [status] "=m"(status)                         \
                     : [y] "x"(y), [control] "m"(mxcsr), [standard] "m"(standard) \
                     : "memory");                                                 \
        return {low_quadword(x), status & MXCSR::flags, false};                   \
    }
NATIVE(addss, "addss %[y], %[x]")
NATIVE(addsd, "addsd %[y], %[x]")
NATIVE(subss, "subss %[y], %[x]")
NATIVE(subsd, "subsd %[y], %[x]")
NATIVE(mulss, "mulss %[y], %[x]")
NATIVE(mulsd, "mulsd %[y], %[x]")
NATIVE(divss, "divss %[y], %[x]")
NATIVE(divsd, "divsd %[y], %[x]")
NATIVE(minss, "minss %[y], %[x]")
NATIVE(minsd, "minsd %[y], %[x]")
NATIVE(maxss, "maxss %[y], %[x]")
NATIVE(maxsd, "maxsd %[y], %[x]")
NATIVE(sqrtss, "sqrtss %[x], %[x]")
NATIVE(sqrtsd, "sqrtsd %[x], %[x]")
NATIVE(cvtss2sd, "cvtss2sd %[x], %[x]")
NATIVE(cvtsd2ss, "cvtsd2ss %[x], %[x]")
NATIVE(rcpss, "rcpss %[x], %[x]")
NATIVE(rsqrtss, "rsqrtss %[x], %[x]")
NATIVE(roundss, "roundss $4, %[x], %[x]")
NATIVE(roundsd, "roundsd $4, %[x], %[x]")
NATIVE(roundss_exact, "roundss $12, %[x], %[x]")
NATIVE(roundsd_exact, "roundsd $12, %[x], %[x]")
#undef NATIVE

/// A conversion to a general register.
#define NATIVE(name, text, type)                                                  \
    inline Outcome name(u64 a, u64, u32 mxcsr) {                                  \
        const __m128d x = in_register(a);                                         \
        type r = 0;                                                               \
        u32 status = 0;                                                           \
        asm volatile(WITH_MXCSR(text)                                             \
                     : [r] "=&r"(r), [status] "=m"(status)                        \
                     : [x] "x"(x), [control] "m"(mxcsr), [standard] "m"(standard) \
                     : "memory");                                                 \
        return {r, status & MXCSR::flags, false};                                 \
    }
NATIVE(cvtss2si32, "cvtss2si %[x], %[r]", u32)
NATIVE(cvtsd2si32, "cvtsd2si %[x], %[r]", u32)
NATIVE(cvtss2si64, "cvtss2si %[x], %[r]", u64)
NATIVE(cvtsd2si64, "cvtsd2si %[x], %[r]", u64)
NATIVE(cvttss2si32, "cvttss2si %[x], %[r]", u32)
NATIVE(cvttsd2si32, "cvttsd2si %[x], %[r]", u32)
NATIVE(cvttss2si64, "cvttss2si %[x], %[r]", u64)
NATIVE(cvttsd2si64, "cvttsd2si %[x], %[r]", u64)
#undef NATIVE

/// A conversion from a general register.
#define NATIVE(name, text, type)                                                  \
    inline Outcome name(u64 a, u64, u32 mxcsr) {                                  \
        const type r = static_cast<type>(a);                                      \
        __m128d x = in_register(0);                                               \
        u32 status = 0;                                                           \
        asm volatile(WITH_MXCSR(text)                                             \
                     : [x] "+x"(x), [status] "=m"(status)                         \
                     : [r] "r"(r), [control] "m"(mxcsr), [standard] "m"(standard) \
                     : "memory");                                                 \
        return {low_quadword(x), status & MXCSR::flags, false};                   \
    }
NATIVE(cvtsi2ss32, "cvtsi2ssl %[r], %[x]", u32)
NATIVE(cvtsi2sd32, "cvtsi2sdl %[r], %[x]", u32)
NATIVE(cvtsi2ss64, "cvtsi2ssq %[r], %[x]", u64)
NATIVE(cvtsi2sd64, "cvtsi2sdq %[r], %[x]", u64)
#undef NATIVE

/// A comparison that answers in EFLAGS: bits 0, 1 and 2 are CF, PF and ZF.
#define NATIVE(name, text)                                                                    \
    inline Outcome name(u64 a, u64 b, u32 mxcsr) {                                            \
        const __m128d x = in_register(a), y = in_register(b);                                 \
        u32 status = 0;                                                                       \
        u8 cf = 0, pf = 0, zf = 0;                                                            \
        asm volatile(WITH_MXCSR(text "\n\tsetc %[cf]\n\tsetp %[pf]\n\tsetz %[zf]")            \
                     : [cf] "=&q"(cf), [pf] "=&q"(pf), [zf] "=&q"(zf), [status] "=m"(status)  \
                     : [x] "x"(x), [y] "x"(y), [control] "m"(mxcsr), [standard] "m"(standard) \
                     : "memory", "cc");                                                       \
        return {cf | u64{pf} << 1 | u64{zf} << 2, status & MXCSR::flags, false};              \
    }
NATIVE(comiss, "comiss %[y], %[x]")
NATIVE(comisd, "comisd %[y], %[x]")
NATIVE(ucomiss, "ucomiss %[y], %[x]")
NATIVE(ucomisd, "ucomisd %[y], %[x]")
#undef NATIVE
#undef WITH_MXCSR

} // namespace native
} // namespace exeunt::test

#endif
