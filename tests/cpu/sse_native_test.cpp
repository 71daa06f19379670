// The same bits on every native machine: all forms of AVX, SSE and MMX instructions on seeded random states,
// hashed.
#include "tests/cpu/sse_states.hpp"
#include "tests/support/general.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

class Hash {
public:
    void add(u64 value) {
        for (unsigned i = 0; i < 8; ++i)
            state_ = (state_ ^ (value >> (8 * i) & 0xFF)) * 0x0000'0100'0000'01B3;
    }
    u64 value() const { return state_; }

private:
    u64 state_ = 0xCBF2'9CE4'8422'2325;
};

void add_state(Hash& hash, Harness& t) {
    const Cpu& cpu = t.cpu;
    for (const VectorRegister& v : cpu.vector)
        for (const u64 q : v.q) hash.add(q);
    for (const X87Register& st : cpu.x87.st) {
        hash.add(st.significand);
        hash.add(st.sign_exponent);
    }
    for (unsigned i = 0; i < 16; ++i) hash.add(cpu.r[i]);
    hash.add(cpu.mxcsr);
    hash.add(cpu.x87.status);
    hash.add(cpu.x87.empty);
    hash.add(cpu.flags.arithmetic());
    for (u64 i = 0; i < data_bytes; i += 8) hash.add(t.read(Harness::data_address + i));
}

} // namespace

TEST_CASE("AVX, SSE and MMX: every form leaves the same state on every native machine") {
    Harness t;
    Random random(0x5EED'0021);
    Hash hash;
    for (const Form& form : forms) {
        const Code original = code(form.bytes, form.text);
        for (int i = 0; i < 40; ++i) {
            Setup s = random_setup(random, i % 4 == 0);
            fit_memory(form, s);
            load(t, s);
            const Stop stop = general(t, with_immediate(form, original, static_cast<u8>(random.next())));
            hash.add(static_cast<u64>(stop.kind));
            add_state(hash, t);
        }
    }
    CHECK(hash.value() == 0x94B2'CFA4'8005'B402);
}
