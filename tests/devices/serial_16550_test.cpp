// The 16550: FIFO, interrupts and their priority, loopback.
#include "devices/serial_16550.hpp"

#include "tests/devices/fakes.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;

namespace {

struct SerialHarness {
    FakeTime time;
    FakeLine irq;
    std::string sent;
    Serial16550 uart{time.clock, irq, [this](u8 c) { sent.push_back(static_cast<char>(c)); }};
    void out(unsigned offset, u8 value) { uart.port_write(static_cast<u16>(0x3F8 + offset), 1, value); }
    u8 in(unsigned offset) { return static_cast<u8>(uart.port_read(static_cast<u16>(0x3F8 + offset), 1)); }
    void receive(std::string_view text) {
        uart.receive({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
    void enable(u8 ier) {
        out(4, 0x08);
        out(1, ier);
    }
};

} // namespace

TEST_CASE("16550: what is written to THR is sent at once, and LSR says that it is empty [PC16550D]") {
    SerialHarness t;
    CHECK(t.in(5) == 0x60);
    for (const char c : std::string_view("hello")) t.out(0, static_cast<u8>(c));
    CHECK(t.sent == "hello");
    CHECK(t.in(5) == 0x60);
}

TEST_CASE("16550: the divisor latch shadows THR and IER [PC16550D]") {
    SerialHarness t;
    t.out(3, 0x83);
    t.out(0, 0x0C);
    t.out(1, 0x34);
    CHECK(t.in(0) == 0x0C);
    CHECK(t.in(1) == 0x34);
    t.out(3, 0x03);
    CHECK(t.in(1) == 0);
    CHECK(t.sent.empty());
}

TEST_CASE(
    "16550: THRE interrupts when enabled and after each character; reading IIR withdraws it [PC16550D]") {
    SerialHarness t;
    t.enable(0x02);
    CHECK(t.irq.level);
    CHECK(t.in(2) == 0x02);
    CHECK_FALSE(t.irq.level);
    CHECK(t.in(2) == 0x01);
    t.out(0, 'x');
    CHECK(t.irq.level);
    t.out(1, 0x00);
    CHECK_FALSE(t.irq.level);
    t.out(1, 0x02);
    CHECK(t.irq.level);
    CHECK(t.in(2) == 0x02);
    t.out(1, 0x02); // it was enabled already
    CHECK_FALSE(t.irq.level);
}

TEST_CASE("16550: without OUT2 the interrupt does not reach the bus") {
    SerialHarness t;
    t.out(1, 0x02);
    CHECK_FALSE(t.irq.level);
    t.out(4, 0x08);
    CHECK(t.irq.level);
}

TEST_CASE("16550: received data, one at a time without FIFO [PC16550D]") {
    SerialHarness t;
    t.enable(0x01);
    t.receive("ab");
    CHECK(t.irq.level);
    CHECK(t.in(2) == 0x04);
    CHECK((t.in(5) & 0x01) != 0);
    CHECK(t.in(0) == 'a');
    CHECK(t.in(0) == 'b');
    CHECK_FALSE(t.irq.level);
    CHECK((t.in(5) & 0x01) == 0);
    CHECK(t.in(0) == 'b'); // the buffer keeps its last value
}

TEST_CASE("16550: FIFO trigger level and character timeout [PC16550D FIFO Interrupt Mode Operation]") {
    SerialHarness t;
    t.out(3, 0x83);
    t.out(0, 1);
    t.out(1, 0);
    t.out(3, 0x03); // 115200 8N1: a character is 86,805 ticks
    t.out(2, 0x81); // trigger at 8
    t.enable(0x01);
    CHECK(t.in(2) == 0xC1);
    t.receive("1234567");
    CHECK_FALSE(t.irq.level);
    t.time.run(347'221);
    CHECK_FALSE(t.irq.level);
    t.time.run(2);
    CHECK(t.irq.level);
    CHECK(t.in(2) == 0xCC);
    CHECK(t.in(0) == '1');
    CHECK_FALSE(t.irq.level);
    t.receive("89");
    CHECK(t.in(2) == 0xC4);
    t.in(0);
    CHECK_FALSE(t.irq.level);
    for (const char c : std::string_view("3456789")) CHECK(t.in(0) == c);
    CHECK((t.in(5) & 1) == 0);
    t.time.run(10'000'000);
    CHECK_FALSE(t.irq.level);
}

TEST_CASE("16550: input beyond the FIFO waits and is not lost") {
    SerialHarness t;
    t.out(2, 0x01);
    std::string text;
    for (unsigned i = 0; i < 1000; ++i) text.push_back(static_cast<char>('a' + i % 26));
    t.receive(text);
    std::string got;
    while (t.in(5) & 1) got.push_back(static_cast<char>(t.in(0)));
    CHECK(got == text);
    CHECK((t.in(5) & 2) == 0);
}

TEST_CASE("16550: clearing the receive FIFO, and disabling FIFOs clears them [PC16550D FCR]") {
    SerialHarness t;
    t.out(2, 0x01);
    t.receive("abc");
    t.out(2, 0x03);
    CHECK((t.in(5) & 1) == 0);
    t.receive("abc");
    t.out(2, 0x00);
    CHECK((t.in(5) & 1) == 0);
    CHECK(t.in(2) == 0x01);
}

TEST_CASE(
    "16550: loopback joins transmitter and receiver, modem outputs and inputs; overrun [PC16550D Loopback]") {
    SerialHarness t;
    CHECK(t.in(6) == 0xB0);
    t.out(4, 0x1A);         // loop, OUT2, RTS
    CHECK(t.in(6) == 0x92); // DSR went away: delta DSR; RTS is CTS, OUT2 is DCD
    CHECK(t.in(6) == 0x90);
    t.out(0, 'x');
    CHECK(t.sent.empty());
    CHECK((t.in(5) & 1) != 0);
    t.out(0, 'y');
    CHECK((t.in(5) & 2) != 0);
    CHECK((t.in(5) & 2) == 0);
    CHECK(t.in(0) == 'y');
    t.receive("z");
    CHECK((t.in(5) & 1) == 0);
    t.out(4, 0x08);
    CHECK(t.in(0) == 'z');
}

TEST_CASE("16550: line status outranks data, data outranks THRE, THRE the modem [PC16550D Table IV]") {
    SerialHarness t;
    t.uart.receive_break();
    t.out(4, 0x18);
    t.out(4, 0x08);
    t.enable(0x0F);
    CHECK(t.in(2) == 0x06);
    CHECK((t.in(5) & 0x10) != 0);
    CHECK(t.in(2) == 0x04);
    CHECK(t.in(0) == 0);
    CHECK(t.in(2) == 0x02);
    CHECK(t.in(2) == 0x00);
    t.in(6);
    CHECK(t.in(2) == 0x01);
    CHECK_FALSE(t.irq.level);
}

TEST_CASE("16550: saved and restored, it is the same") {
    SerialHarness a, b;
    a.out(2, 0x01);
    a.enable(0x03);
    a.receive("twenty-four characters..");
    a.in(0);
    const Saver saved = save(a.uart);
    Restorer restorer(saved);
    b.uart.visit(restorer);
    CHECK(save(b.uart).values == saved.values);
    CHECK(b.in(0) == 'w');
}
