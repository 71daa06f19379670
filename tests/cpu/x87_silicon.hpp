// Single x87 instructions executed by the native processor from a given state, for comparison. Only where
// native is x86-64; `Silicon::works` says whether code could be placed.
#pragma once

#include "cpu/state.hpp"

#include <array>
#include <cstring>
#include <span>
#include <vector>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/mman.h>
#define EXEUNT_X87_SILICON 1
#endif

namespace exeunt::test {

/// What an instruction works on: the x87 state, the memory that it names as [rdx], RFLAGS and AX.
struct X87Case {
    static constexpr unsigned memory_bytes = 128;

    X87State x87;
    std::array<u8, memory_bytes> memory{};
    u64 flags = 2;
    u64 rax = 0;
};

/// The 108 bytes of FNSAVE in 64-bit mode. Pointers and opcode are left out.
inline std::array<u8, 108> to_fsave(const X87State& x87) {
    std::array<u8, 108> image{};
    u16 tags = 0;
    for (unsigned i = 0; i < 8; ++i) tags = static_cast<u16>(tags | (x87.empty >> i & 1 ? 3 : 0) << (2 * i));
    std::memcpy(&image[0], &x87.control, 2);
    std::memcpy(&image[4], &x87.status, 2);
    std::memcpy(&image[8], &tags, 2);
    for (unsigned i = 0; i < 8; ++i) {
        const X87Register& r = x87.st[(x87.top() + i) & 7];
        std::memcpy(&image[28 + 10 * i], &r.significand, 8);
        std::memcpy(&image[36 + 10 * i], &r.sign_exponent, 2);
    }
    return image;
}

inline X87State from_fsave(const std::array<u8, 108>& image) {
    X87State x87;
    u16 tags = 0;
    std::memcpy(&x87.control, &image[0], 2);
    std::memcpy(&x87.status, &image[4], 2);
    std::memcpy(&tags, &image[8], 2);
    x87.empty = 0;
    for (unsigned i = 0; i < 8; ++i) {
        if ((tags >> (2 * i) & 3) == 3) x87.empty = static_cast<u8>(x87.empty | 1u << i);
        X87Register& r = x87.st[(x87.top() + i) & 7];
        std::memcpy(&r.significand, &image[28 + 10 * i], 8);
        std::memcpy(&r.sign_exponent, &image[36 + 10 * i], 2);
    }
    return x87;
}

#if EXEUNT_X87_SILICON

class Silicon {
public:
    /// `code`: one instruction; a memory operand is [rdx].
    explicit Silicon(std::span<const u8> code) {
        static constexpr u8 before[] = {
            0x53,                                     // push rbx
            0x48, 0x89, 0xFB,                         // mov rbx, rdi
            0xDD, 0x23,                               // frstor [rbx]
            0x48, 0x8B, 0x53, 0x70,                   // mov rdx, [rbx+70h]
            0xFF, 0x73, 0x78,                         // push qword [rbx+78h]
            0x48, 0x8B, 0x83, 0x80, 0x00, 0x00, 0x00, // mov rax, [rbx+80h]
            0x9D,                                     // popfq
        };
        static constexpr u8 after[] = {
            0x9C,                                     // pushfq
            0x8F, 0x43, 0x78,                         // pop qword [rbx+78h]
            0x48, 0x89, 0x83, 0x80, 0x00, 0x00, 0x00, // mov [rbx+80h], rax
            0xDD, 0x33,                               // fnsave [rbx]
            0x5B,                                     // pop rbx
            0xC3,                                     // ret
        };
        std::vector<u8> bytes(std::begin(before), std::end(before));
        bytes.insert(bytes.end(), code.begin(), code.end());
        bytes.insert(bytes.end(), std::begin(after), std::end(after));
        void* page = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return;
        std::memcpy(page, bytes.data(), bytes.size());
        if (mprotect(page, size, PROT_READ | PROT_EXEC) != 0) {
            munmap(page, size);
            return;
        }
        page_ = page;
    }
    ~Silicon() {
        if (page_) munmap(page_, size);
    }
    Silicon(const Silicon&) = delete;
    Silicon& operator=(const Silicon&) = delete;

    bool works() const { return page_ != nullptr; }

    void run(X87Case& c) const {
        struct {
            std::array<u8, 108> image;
            u32 padding;
            u64 memory, flags, rax;
        } block{to_fsave(c.x87), 0, reinterpret_cast<u64>(c.memory.data()), c.flags, c.rax};
        static_assert(offsetof(decltype(block), memory) == 0x70);
        reinterpret_cast<void (*)(void*)>(page_)(&block);
        c.x87 = from_fsave(block.image);
        c.flags = block.flags;
        c.rax = block.rax;
    }

private:
    static constexpr std::size_t size = 4096;
    void* page_ = nullptr;
};

#endif

} // namespace exeunt::test
