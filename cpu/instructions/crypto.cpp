// AES, PCLMULQDQ and SHA extensions. SDM 1 12.13 "AESNI Extensions", 12.13.3 "PCLMULQDQ"; SDM 2A AESENC,
// AESDEC, AESIMC, AESKEYGENASSIST; SDM 2B PCLMULQDQ, SHA1RNDS4, SHA256RNDS2; FIPS 197 and FIPS 180-4, whose
// words the names are. The state of AES is 16 bytes, column by column; SHA's words stand in registers from
// the most significant down.
#include "cpu/instructions/sse.hpp"

namespace exeunt {

using namespace sse;

namespace {

// ---- AES
// -------------------------------------------------------------------------------------------------------

using State = std::array<u8, 16>;
using Table = std::array<u8, 256>;

/// Multiplication by x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
constexpr u8 times_x(u8 a) { return static_cast<u8>(a << 1 ^ (a & 0x80 ? 0x1B : 0)); }
constexpr u8 multiply(u8 a, u8 b) {
    u8 product = 0;
    for (; b != 0; b >>= 1, a = times_x(a))
        if (b & 1) product ^= a;
    return product;
}

/// FIPS 197 5.1.1: the multiplicative inverse, then an affine transformation.
constexpr Table make_sub_bytes() {
    Table table{};
    u8 power = 1, inverse = 1; // of the generator 3
    for (unsigned i = 0; i < 255; ++i) {
        table[power] = inverse;
        power = multiply(power, 3);
        inverse = multiply(inverse, 0xF6); // 1/3
    }
    for (u8& entry : table) {
        const u8 b = entry;
        entry =
            static_cast<u8>(b ^ std::rotl(b, 1) ^ std::rotl(b, 2) ^ std::rotl(b, 3) ^ std::rotl(b, 4) ^ 0x63);
    }
    return table;
}
constexpr Table invert(const Table& table) {
    Table inverse{};
    for (unsigned i = 0; i < 256; ++i) inverse[table[i]] = static_cast<u8>(i);
    return inverse;
}
constexpr Table multiples_of(u8 factor) {
    Table table{};
    for (unsigned i = 0; i < 256; ++i) table[i] = multiply(static_cast<u8>(i), factor);
    return table;
}

constexpr Table sub_bytes = make_sub_bytes();
constexpr Table inverse_sub_bytes = invert(sub_bytes);
static_assert(sub_bytes[0] == 0x63 && sub_bytes[0x53] == 0xED && inverse_sub_bytes[0xED] == 0x53);

State substitute(const State& s, const Table& table) {
    State r;
    for (unsigned i = 0; i < 16; ++i) r[i] = table[s[i]];
    return r;
}

/// Row i moves by i columns: to the left, or in the inverse to the right.
State shift_rows(const State& s, bool inverse) {
    State r;
    for (unsigned column = 0; column < 4; ++column)
        for (unsigned row = 0; row < 4; ++row)
            r[4 * column + row] = s[4 * ((inverse ? column - row : column + row) & 3) + row];
    return r;
}

/// Each column is multiplied by a polynomial; `first` to `last` are the tables of its coefficients for the
/// first row.
State mix_columns(const State& s, bool inverse) {
    static constexpr Table forward[] = {multiples_of(2), multiples_of(3), multiples_of(1), multiples_of(1)};
    static constexpr Table backward[] = {multiples_of(14), multiples_of(11), multiples_of(13),
                                         multiples_of(9)};
    const Table* coefficients = inverse ? backward : forward;
    State r{};
    for (unsigned column = 0; column < 4; ++column)
        for (unsigned row = 0; row < 4; ++row)
            for (unsigned k = 0; k < 4; ++k)
                r[4 * column + row] ^= coefficients[k][s[4 * column + ((row + k) & 3)]];
    return r;
}

Xmm add_round_key(const State& s, const Xmm& key) {
    return each<u64>(join(s), key, [](u64 a, u64 b) { return a ^ b; });
}

template <bool last>
Xmm encrypt_round(const Xmm& state, const Xmm& key) {
    const State s = substitute(shift_rows(split<u8>(state), false), sub_bytes);
    return add_round_key(last ? s : mix_columns(s, false), key);
}
template <bool last>
Xmm decrypt_round(const Xmm& state, const Xmm& key) {
    const State s = substitute(shift_rows(split<u8>(state), true), inverse_sub_bytes);
    return add_round_key(last ? s : mix_columns(s, true), key);
}

// ---- Carry-less multiplication
// -----------------------------------------------------------------------------------

Xmm carry_less_multiply(u64 a, u64 b) {
    u128 product = 0;
    for (unsigned i = 0; i < 64; ++i) product ^= (u128{a} << i) & (u128{0} - (b >> i & 1));
    return {{static_cast<u64>(product), static_cast<u64>(product >> 64)}};
}

// ---- SHA-1
// -----------------------------------------------------------------------------------------------------

/// The four words of a register, from the most significant down.
std::array<u32, 4> words(const Xmm& v) {
    const auto x = split<u32>(v);
    return {x[3], x[2], x[1], x[0]};
}
Xmm from_words(u32 w0, u32 w1, u32 w2, u32 w3) { return join(std::array<u32, 4>{w3, w2, w1, w0}); }

/// FIPS 180-4 4.1.1, 4.2.1: the functions and constants of the four kinds of rounds.
u32 sha1_function(unsigned kind, u32 b, u32 c, u32 d) {
    switch (kind) {
    case 0: return (b & c) ^ (~b & d);
    case 2: return (b & c) ^ (b & d) ^ (c & d);
    default: return b ^ c ^ d;
    }
}
constexpr u32 sha1_constants[] = {0x5A82'7999, 0x6ED9'EBA1, 0x8F1B'BCDC, 0xCA62'C1D6};

Xmm sha1_rounds(const Xmm& abcd, const Xmm& message, unsigned kind) {
    auto [a, b, c, d] = words(abcd);
    u32 e = 0; // it is in the first word of the message already
    for (const u32 w : words(message)) {
        const u32 next = sha1_function(kind, b, c, d) + std::rotl(a, 5) + w + e + sha1_constants[kind];
        e = d;
        d = c;
        c = std::rotl(b, 30);
        b = a;
        a = next;
    }
    return from_words(a, b, c, d);
}

// ---- SHA-256
// ---------------------------------------------------------------------------------------------------

u32 big_sigma0(u32 x) { return std::rotr(x, 2) ^ std::rotr(x, 13) ^ std::rotr(x, 22); }
u32 big_sigma1(u32 x) { return std::rotr(x, 6) ^ std::rotr(x, 11) ^ std::rotr(x, 25); }
u32 small_sigma0(u32 x) { return std::rotr(x, 7) ^ std::rotr(x, 18) ^ x >> 3; }
u32 small_sigma1(u32 x) { return std::rotr(x, 17) ^ std::rotr(x, 19) ^ x >> 10; }

/// Two rounds: `cdgh` and `abef` hold the state, XMM0 the sums of message words and constants.
Xmm sha256_rounds(const Xmm& cdgh, const Xmm& abef, const Xmm& sums) {
    auto [a, b, e, f] = words(abef);
    auto [c, d, g, h] = words(cdgh);
    for (unsigned i = 0; i < 2; ++i) {
        const u32 t = h + big_sigma1(e) + ((e & f) ^ (~e & g)) + lane<u32>(sums, i);
        const u32 next = t + big_sigma0(a) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t;
        d = c;
        c = b;
        b = a;
        a = next;
    }
    return from_words(a, b, e, f);
}

} // namespace

Result<void> exec_AESENC(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, encrypt_round<false>);
}
Result<void> exec_AESENCLAST(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, encrypt_round<true>);
}
Result<void> exec_AESDEC(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, decrypt_round<false>);
}
Result<void> exec_AESDECLAST(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, decrypt_round<true>);
}
Result<void> exec_AESIMC(Cpu& cpu, const Insn& insn) {
    return unary_vector(cpu, insn, [](const Xmm& a) { return join(mix_columns(split<u8>(a), true)); });
}
/// Doublewords 1 and 3 of the source through the S-box, each beside itself rotated and with the round
/// constant.
Result<void> exec_AESKEYGENASSIST(Cpu& cpu, const Insn& insn) {
    const u32 round_constant = immediate8(insn);
    return unary_vector(cpu, insn, [=](const Xmm& a) {
        const auto x = split<u32>(join(substitute(split<u8>(a), sub_bytes)));
        return join(std::array<u32, 4>{x[1], std::rotr(x[1], 8) ^ round_constant, x[3],
                                       std::rotr(x[3], 8) ^ round_constant});
    });
}

/// Zydis counts VPCLMULQDQ among AVX, but it comes with both.
Result<void> exec_PCLMULQDQ(Cpu& cpu, const Insn& insn) {
    if (!cpu.has(Feature::PCLMULQDQ)) return undefined_opcode();
    const u8 halves = immediate8(insn);
    return binary_vector(cpu, insn, [=](const Xmm& a, const Xmm& b) {
        return carry_less_multiply(a.q[halves & 1], b.q[halves >> 4 & 1]);
    });
}

Result<void> exec_SHA1RNDS4(Cpu& cpu, const Insn& insn) {
    const unsigned kind = immediate8(insn) & 3;
    return binary_vector(cpu, insn, [=](const Xmm& a, const Xmm& b) { return sha1_rounds(a, b, kind); });
}
Result<void> exec_SHA1NEXTE(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) {
        Xmm r = b;
        set_lane<u32>(r, 3, lane<u32>(b, 3) + std::rotl(lane<u32>(a, 3), 30));
        return r;
    });
}
Result<void> exec_SHA1MSG1(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) {
        const auto w = words(a), next = words(b);
        return from_words(w[2] ^ w[0], w[3] ^ w[1], next[0] ^ w[2], next[1] ^ w[3]);
    });
}
Result<void> exec_SHA1MSG2(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) {
        const auto w = words(a), before = words(b);
        const u32 w16 = std::rotl(w[0] ^ before[1], 1);
        return from_words(w16, std::rotl(w[1] ^ before[2], 1), std::rotl(w[2] ^ before[3], 1),
                          std::rotl(w[3] ^ w16, 1));
    });
}

Result<void> exec_SHA256RNDS2(Cpu& cpu, const Insn& insn) {
    const Xmm sums = xmm(cpu, 0);
    return binary_vector(cpu, insn, [&](const Xmm& a, const Xmm& b) { return sha256_rounds(a, b, sums); });
}
Result<void> exec_SHA256MSG1(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) {
        const auto w = split<u32>(a);
        return join(std::array<u32, 4>{w[0] + small_sigma0(w[1]), w[1] + small_sigma0(w[2]),
                                       w[2] + small_sigma0(w[3]), w[3] + small_sigma0(lane<u32>(b, 0))});
    });
}
Result<void> exec_SHA256MSG2(Cpu& cpu, const Insn& insn) {
    return binary_vector(cpu, insn, [](const Xmm& a, const Xmm& b) {
        const auto w = split<u32>(a), before = split<u32>(b);
        const u32 w16 = w[0] + small_sigma1(before[2]), w17 = w[1] + small_sigma1(before[3]);
        return join(std::array<u32, 4>{w16, w17, w[2] + small_sigma1(w16), w[3] + small_sigma1(w17)});
    });
}

} // namespace exeunt
