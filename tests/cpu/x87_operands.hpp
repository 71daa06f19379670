// Operands and states for the random tests of x87 instructions: all special encodings, numbers close to every
// boundary, and pairs that are close to one another.
#pragma once

#include "cpu/softfloat80.hpp"
#include "tests/cpu/x87_silicon.hpp"

#include <random>

namespace exeunt::test {

class X87Generator {
public:
    explicit X87Generator(u64 seed) : random_(seed) {}

    u64 bits() { return random_(); }
    unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }
    bool chance(unsigned percent) { return below(100) < percent; }

    u64 significand() {
        switch (below(8)) {
        case 0: return u64{1} << 63;
        case 1: return ~u64{0};
        case 2: return u64{1} << 63 | u64{1} << below(63);
        case 3: return ~u64{0} << below(64) | u64{1} << 63;
        case 4: return ~(u64{1} << below(63));
        case 5: return u64{1} << 63 | bits() >> (1 + below(62));
        case 6: return u64{1} << 63 | bits() << below(64);
        default: return u64{1} << 63 | bits();
        }
    }
    X87Register number() {
        const u16 sign = static_cast<u16>(below(2) << 15);
        u64 s = significand();
        unsigned field = 0;
        switch (below(16)) {
        case 0: return {0, sign};                                       // zero
        case 1: return {u64{1} << 63, static_cast<u16>(sign | 0x7FFF)}; // infinity
        case 2: return {s, static_cast<u16>(sign | 0x7FFF)};            // NaN, mostly
        case 3: return {s >> (1 + below(63)), sign};                    // denormal
        case 4: return {s, sign};                                       // pseudo-denormal
        case 5:                                                         // unsupported
            if (chance(30)) return {s >> 1, static_cast<u16>(sign | (chance(50) ? 0x7FFF : bits() & 0x7FFF))};
            field = 16383;
            break;
        case 6: field = 1 + below(70); break;
        case 7: field = 0x7FFE - below(70); break;
        case 8: field = 16383 - 1022 - 60 + below(70); break; // about the ends of double precision
        case 9: field = 16383 + 1000 + below(30); break;
        case 10: field = 16383 - 126 - 30 + below(40); break; // and of single
        case 11: field = 16383 + 120 + below(12); break;
        case 12: field = 1 + below(0x7FFE); break;
        default: field = 16383 - 70 + below(140); break;
        }
        return {s, static_cast<u16>(sign | field)};
    }
    /// Often close to `a`.
    X87Register beside(const X87Register& a) {
        X87Register b = number();
        if (chance(40))
            b.sign_exponent = static_cast<u16>((b.sign_exponent & 0x8000) | (a.sign_exponent & 0x7FFF));
        if (chance(15)) b.significand = a.significand + below(3) - 1;
        if (chance(20)) b.sign_exponent = static_cast<u16>(b.sign_exponent + below(130) - 65);
        return b;
    }
    X87State state() {
        X87State x;
        x.control = static_cast<u16>(0x0040 | below(4) << 10);
        static constexpr u16 precisions[] = {0x300, 0x300, 0x200, 0x000};
        x.control |= precisions[below(4)];
        x.control |= static_cast<u16>(chance(70) ? 0x3F : below(64));
        x.status = static_cast<u16>(bits() & 0x4700);
        if (chance(50)) x.status |= static_cast<u16>(bits() & x.control & 0x3F);
        if (chance(20)) x.status |= 0x40;
        x.set_top(below(8));
        x.empty = chance(75) ? u8{0} : static_cast<u8>(bits());
        x.st[0] = number();
        for (unsigned i = 1; i < 8; ++i) x.st[i] = beside(x.st[i - 1]);
        if (chance(50)) x.empty |= static_cast<u8>(1u << ((x.top() + 7) & 7)); // room for a push
        return x;
    }
    /// Memory that is often a number of single, double or extended precision, or an integer of a moderate
    /// size.
    std::array<u8, X87Case::memory_bytes> memory() {
        std::array<u8, X87Case::memory_bytes> bytes;
        for (u8& b : bytes) b = static_cast<u8>(bits());
        u64 low = bits();
        switch (below(10)) {
        case 0: low = single() | u64{single()} << 32; break;
        case 1: low = single(); break;
        case 2:
        case 3:
        case 4: low = double_precision(); break;
        case 5: low = bits() >> below(64); break;
        case 6: low = ~u64{0} << below(64); break;
        case 7: low = decimal(); break;
        case 8: {
            const X87Register r = number();
            low = r.significand;
            std::memcpy(&bytes[8], &r.sign_exponent, 2);
            break;
        }
        default: break;
        }
        std::memcpy(bytes.data(), &low, 8);
        if (chance(50)) bytes[8] = static_cast<u8>(decimal());
        return bytes;
    }
    X87Case whole_case() {
        X87Case c{state(), memory(), 2 | (bits() & 0x8D5), bits()};
        return c;
    }

private:
    u32 single() {
        static constexpr u32 fields[] = {0, 1, 254, 255, 127, 126};
        const u32 field = chance(60) ? fields[below(6)] : below(256);
        return below(2) << 31 | field << 23 |
               (static_cast<u32>(significand() >> 40) & 0x7F'FFFF & (chance(10) ? 0u : ~0u));
    }
    u64 double_precision() {
        static constexpr u32 fields[] = {0, 1, 2046, 2047, 1023, 1022};
        const u64 field = chance(60) ? fields[below(6)] : below(2048);
        const u64 fraction = significand() >> 11 & 0xF'FFFF'FFFF'FFFF;
        return u64{below(2)} << 63 | field << 52 | (chance(10) ? 0 : fraction);
    }
    u64 decimal() {
        u64 digits = 0;
        for (unsigned i = 0; i < 16; ++i) digits = digits << 4 | below(10);
        return digits;
    }

    std::mt19937_64 random_;
};

} // namespace exeunt::test
