// isa-debug-exit: a write to the port ends the machine; the native exit status is value * 2 + 1.
// QEMU hw/misc "isa-debug-exit".
//
// Wiring: ports from `port` (F4H), four of them; `exit` is called with the value written.
#pragma once

#include "base/bus.hpp"

#include <functional>

namespace exeunt {

class DebugExit final : public PortDevice, public Device {
public:
    static constexpr u16 default_port = 0xF4;
    explicit DebugExit(std::function<void(u32)> exit) : exit_(std::move(exit)) {}

    u32 port_read(u16, unsigned) override { return 0; }
    void port_write(u16, unsigned, u32 value) override { exit_(value); }
    void reset() override {}
    void visit(StateVisitor&) override {}

private:
    std::function<void(u32)> exit_;
};

} // namespace exeunt
