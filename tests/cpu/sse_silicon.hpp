// One instruction executed by the native processor, with all of the x87, MMX, XMM and YMM state around it.
// Only where native is x86-64 and has the instructions.
#pragma once

#if defined(__x86_64__)

#include "tests/cpu/sse_states.hpp"

#include <cpuid.h>
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>

namespace exeunt::test {

namespace native {

inline void* code_page = nullptr;
inline sigjmp_buf trap_return;
inline volatile u32 trap_flags = 0;

extern "C" void exeunt_native_run(NativeState* state, void* code);
asm(R"(
    .macro exeunt_upper, load:req
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .if \load
    vinsertf128 $1, 656 + 16 * \n(%rdi), %ymm\n, %ymm\n
    .else
    vextractf128 $1, %ymm\n, 656 + 16 * \n(%rdi)
    .endif
    .endr
    .endm
    .text
    .globl exeunt_native_run
    .hidden exeunt_native_run
exeunt_native_run:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rsi
    push %rdi
    fxrstor64 (%rdi)
    exeunt_upper 1
    push 640(%rdi)
    popfq
    mov 512(%rdi), %rax
    mov 520(%rdi), %rcx
    mov 528(%rdi), %rdx
    mov 536(%rdi), %rbx
    mov 552(%rdi), %rbp
    mov 560(%rdi), %rsi
    mov 576(%rdi), %r8
    mov 584(%rdi), %r9
    mov 592(%rdi), %r10
    mov 600(%rdi), %r11
    mov 608(%rdi), %r12
    mov 616(%rdi), %r13
    mov 624(%rdi), %r14
    mov 632(%rdi), %r15
    mov 568(%rdi), %rdi
    call *8(%rsp)
    xchg %rdi, (%rsp)
    mov %rax, 512(%rdi)
    mov %rcx, 520(%rdi)
    mov %rdx, 528(%rdi)
    mov %rbx, 536(%rdi)
    mov %rbp, 552(%rdi)
    mov %rsi, 560(%rdi)
    mov %r8, 576(%rdi)
    mov %r9, 584(%rdi)
    mov %r10, 592(%rdi)
    mov %r11, 600(%rdi)
    mov %r12, 608(%rdi)
    mov %r13, 616(%rdi)
    mov %r14, 624(%rdi)
    mov %r15, 632(%rdi)
    pushfq
    popq 640(%rdi)
    popq 568(%rdi)
    fxsave64 (%rdi)
    exeunt_upper 0
    vzeroupper
    fninit
    pop %rsi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");

inline void on_trap(int, siginfo_t*, void* context) {
    trap_flags = static_cast<ucontext_t*>(context)->uc_mcontext.fpregs->mxcsr & MXCSR::flags;
    siglongjmp(trap_return, 1);
}

/// SSE4.2, AES, PCLMULQDQ, FMA, F16C, OSXSAVE; SHA and AVX2.
inline bool has_everything() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned wanted = 1u << 20 | 1u << 25 | 1u << 1 | 1u << 12 | 1u << 29 | 1u << 27,
                       wanted_7 = 1u << 29 | 1u << 5;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & wanted) != wanted) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & wanted_7) != wanted_7) return false;
    asm("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & 6) == 6;
}

/// Executes `bytes`; false when a SIMD floating-point exception came instead: then only MXCSR's flags are
/// known.
inline bool run(NativeState& state, const u8* bytes, std::size_t length) {
    if (!code_page) {
        code_page =
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code_page == MAP_FAILED) std::abort();
    }
    auto* code = static_cast<u8*>(code_page);
    std::memcpy(code, bytes, length);
    code[length] = 0xC3;
    struct sigaction action {
    }, before{};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGFPE, &action, &before);
    const u32 standard = MXCSR::at_reset;
    const bool completed = sigsetjmp(trap_return, 1) == 0;
    if (completed) exeunt_native_run(&state, code);
    asm volatile("fninit\n\tldmxcsr %0" : : "m"(standard));
    if (!completed) {
        const u32 flags = trap_flags;
        u32 mxcsr;
        std::memcpy(&mxcsr, state.fx + 24, 4);
        mxcsr |= flags;
        std::memcpy(state.fx + 24, &mxcsr, 4);
    }
    sigaction(SIGFPE, &before, nullptr);
    return completed;
}

} // namespace native
} // namespace exeunt::test

#endif
