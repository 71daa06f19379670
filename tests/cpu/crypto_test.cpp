// AES, PCLMULQDQ and SHA instructions: whole algorithms with the vectors of their standards.
#include "tests/support/general.hpp"

#include <array>
#include <bit>
#include <string>
#include <string_view>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Stop completed{};
using Bytes16 = std::array<u8, 16>;

Bytes16 bytes16(std::string_view hex) {
    Bytes16 b{};
    for (std::size_t i = 0; i < 16; ++i)
        b[i] = static_cast<u8>(std::stoul(std::string(hex.substr(2 * i, 2)), nullptr, 16));
    return b;
}
void set(Harness& t, unsigned number, const Bytes16& b) {
    for (unsigned i = 0; i < 2; ++i) {
        u64 q = 0;
        for (unsigned k = 0; k < 8; ++k) q |= u64{b[8 * i + k]} << (8 * k);
        t.cpu.vector[number].q[i] = q;
    }
}
Bytes16 get(const Harness& t, unsigned number) {
    Bytes16 b;
    for (unsigned i = 0; i < 16; ++i) b[i] = static_cast<u8>(t.cpu.vector[number].q[i / 8] >> (8 * (i % 8)));
    return b;
}
void set_words(Harness& t, unsigned number, u32 w3, u32 w2, u32 w1, u32 w0) {
    t.cpu.vector[number].q[0] = u64{w1} << 32 | w0;
    t.cpu.vector[number].q[1] = u64{w3} << 32 | w2;
}
u32 word(const Harness& t, unsigned number, unsigned i) {
    return static_cast<u32>(t.cpu.vector[number].q[i / 2] >> (32 * (i % 2)));
}

/// FIPS 197 App. A.1: the round keys of AES-128, by AESKEYGENASSIST.
std::array<Bytes16, 11> expand_key(Harness& t, const Bytes16& key) {
    std::array<Bytes16, 11> keys{key};
    u8 round_constant = 1;
    for (unsigned round = 1; round <= 10; ++round) {
        set(t, 1, keys[round - 1]);
        Code assist = code("66 0f 3a df d1 01", "aeskeygenassist xmm2, xmm1, 0x01");
        assist.bytes.back() = round_constant;
        if (round != 1) assist.text.clear();
        CHECK(general(t, assist) == completed);
        const Bytes16 generated = get(t, 2);
        for (unsigned i = 0; i < 16; ++i)
            keys[round][i] = keys[round - 1][i] ^ (i < 4 ? generated[12 + i] : keys[round][i - 4]);
        round_constant = static_cast<u8>(round_constant << 1 ^ (round_constant & 0x80 ? 0x1B : 0));
    }
    return keys;
}

} // namespace

TEST_CASE("AES: AES-128 by AESKEYGENASSIST, AESENC, AESENCLAST and back by AESIMC, AESDEC, AESDECLAST [SDM 1 "
          "12.13]") {
    Harness t;
    const auto keys = expand_key(t, bytes16("000102030405060708090a0b0c0d0e0f"));
    CHECK(keys[10] == bytes16("13111d7fe3944a17f307a78b4d2b30c5"));
    const auto round = [&](const Code& instruction, const Bytes16& key) {
        set(t, 2, key);
        CHECK(general(t, instruction) == completed);
    };
    set(t, 1, bytes16("00112233445566778899aabbccddeeff"));
    set(t, 2, keys[0]);
    CHECK(general(t, code("66 0f ef ca", "pxor xmm1, xmm2")) == completed);
    for (unsigned i = 1; i < 10; ++i) round(code("66 0f 38 dc ca", "aesenc xmm1, xmm2"), keys[i]);
    round(code("66 0f 38 dd ca", "aesenclast xmm1, xmm2"), keys[10]);
    CHECK(get(t, 1) == bytes16("69c4e0d86a7b0430d8cdb78070b4c55a"));

    round(code("66 0f ef ca", "pxor xmm1, xmm2"), keys[10]);
    for (unsigned i = 9; i >= 1; --i) {
        set(t, 3, keys[i]);
        CHECK(general(t, code("66 0f 38 db d3", "aesimc xmm2, xmm3")) == completed);
        CHECK(general(t, code("66 0f 38 de ca", "aesdec xmm1, xmm2")) == completed);
    }
    round(code("66 0f 38 df ca", "aesdeclast xmm1, xmm2"), keys[0]);
    CHECK(get(t, 1) == bytes16("00112233445566778899aabbccddeeff"));
}

TEST_CASE("PCLMULQDQ: the product of two polynomials over GF(2), halves chosen by the immediate [SDM 2B "
          "PCLMULQDQ]") {
    Harness t;
    t.cpu.vector[1].q[0] = 0b1011;
    t.cpu.vector[1].q[1] = u64{1} << 63;
    t.cpu.vector[2].q[0] = 0b110;
    t.cpu.vector[2].q[1] = u64{1} << 63 | 1;
    const auto first = t.cpu.vector[1];
    CHECK(general(t, code("66 0f 3a 44 ca 00", "pclmulqdq xmm1, xmm2, 0x00")) == completed);
    CHECK(t.cpu.vector[1].q[0] == 0b111010);
    CHECK(t.cpu.vector[1].q[1] == 0);
    t.cpu.vector[1] = first;
    CHECK(general(t, code("66 0f 3a 44 ca 11", "pclmulqdq xmm1, xmm2, 0x11")) == completed);
    CHECK(t.cpu.vector[1].q[0] == u64{1} << 63);
    CHECK(t.cpu.vector[1].q[1] == u64{1} << 62);
}

TEST_CASE("SHA-256: one block by SHA256RNDS2, SHA256MSG1 and SHA256MSG2 gives the digest of \"abc\" [SDM 2B "
          "SHA256RNDS2]") {
    static constexpr u32 initial[] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    static constexpr u32 constants[] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    Harness t;
    std::array<u32, 64> w{};
    w[0] = 0x61626380;
    w[15] = 24;
    // The message schedule, four words at a time: SHA256MSG1, the seventh words before, SHA256MSG2.
    for (unsigned i = 16; i < 64; i += 4) {
        set_words(t, 1, w[i - 13], w[i - 14], w[i - 15], w[i - 16]);
        set_words(t, 2, w[i - 9], w[i - 10], w[i - 11], w[i - 12]);
        CHECK(general(t, code("0f 38 cc ca", "sha256msg1 xmm1, xmm2")) == completed);
        set_words(t, 2, w[i - 4], w[i - 5], w[i - 6], w[i - 7]);
        CHECK(general(t, code("66 0f fe ca", "paddd xmm1, xmm2")) == completed);
        set_words(t, 2, w[i - 1], w[i - 2], w[i - 3], w[i - 4]);
        CHECK(general(t, code("0f 38 cd ca", "sha256msg2 xmm1, xmm2")) == completed);
        for (unsigned k = 0; k < 4; ++k) w[i + k] = word(t, 1, k);
    }
    set_words(t, 1, initial[2], initial[3], initial[6], initial[7]);
    set_words(t, 2, initial[0], initial[1], initial[4], initial[5]);
    for (unsigned i = 0; i < 64; i += 4) {
        set_words(t, 0, 0, 0, w[i + 1] + constants[i + 1], w[i] + constants[i]);
        CHECK(general(t, code("0f 38 cb ca", "sha256rnds2 xmm1, xmm2")) == completed);
        set_words(t, 0, 0, 0, w[i + 3] + constants[i + 3], w[i + 2] + constants[i + 2]);
        CHECK(general(t, code("0f 38 cb d1", "sha256rnds2 xmm2, xmm1")) == completed);
    }
    // Registers hold A B E F and C D G H, from the most significant word down.
    CHECK(word(t, 2, 3) + initial[0] == 0xba7816bf);
    CHECK(word(t, 2, 2) + initial[1] == 0x8f01cfea);
    CHECK(word(t, 1, 3) + initial[2] == 0x414140de);
    CHECK(word(t, 1, 2) + initial[3] == 0x5dae2223);
    CHECK(word(t, 2, 1) + initial[4] == 0xb00361a3);
    CHECK(word(t, 2, 0) + initial[5] == 0x96177a9c);
    CHECK(word(t, 1, 1) + initial[6] == 0xb410ff61);
    CHECK(word(t, 1, 0) + initial[7] == 0xf20015ad);
}

TEST_CASE("SHA-1: one block by SHA1RNDS4, SHA1NEXTE, SHA1MSG1 and SHA1MSG2 gives the digest of \"abc\" [SDM "
          "2B SHA1RNDS4]") {
    static constexpr u32 initial[] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    Harness t;
    std::array<u32, 80> w{};
    w[0] = 0x61626380;
    w[15] = 24;
    const auto set_message = [&](unsigned number, unsigned from) {
        set_words(t, number, w[from], w[from + 1], w[from + 2], w[from + 3]);
    };
    for (unsigned i = 16; i < 80; i += 4) {
        set_message(1, i - 16);
        set_message(2, i - 12);
        CHECK(general(t, code("0f 38 c9 ca", "sha1msg1 xmm1, xmm2")) == completed);
        set_message(2, i - 8);
        CHECK(general(t, code("66 0f ef ca", "pxor xmm1, xmm2")) == completed);
        set_message(2, i - 4);
        CHECK(general(t, code("0f 38 ca ca", "sha1msg2 xmm1, xmm2")) == completed);
        for (unsigned k = 0; k < 4; ++k) w[i + k] = word(t, 1, 3 - k);
    }
    // XMM1: A B C D. XMM3: those of four rounds before, whose A becomes E.
    set_words(t, 1, initial[0], initial[1], initial[2], initial[3]);
    for (unsigned i = 0; i < 80; i += 4) {
        set_message(2, i);
        if (i == 0) {
            set_words(t, 2, w[0] + initial[4], w[1], w[2], w[3]);
        } else {
            CHECK(general(t, code("0f 38 c8 da", "sha1nexte xmm3, xmm2")) == completed);
            t.cpu.vector[2] = t.cpu.vector[3];
        }
        t.cpu.vector[3] = t.cpu.vector[1];
        Code rounds = code("0f 3a cc ca 00", i == 0 ? "sha1rnds4 xmm1, xmm2, 0x00" : "");
        rounds.bytes.back() = static_cast<u8>(i / 20);
        CHECK(general(t, rounds) == completed);
    }
    CHECK(word(t, 1, 3) + initial[0] == 0xa9993e36);
    CHECK(word(t, 1, 2) + initial[1] == 0x4706816a);
    CHECK(word(t, 1, 1) + initial[2] == 0xba3e2571);
    CHECK(word(t, 1, 0) + initial[3] == 0x7850c26c);
    CHECK(std::rotl(word(t, 3, 3), 30) + initial[4] == 0x9cd0d89d);
}
