// One processor with 16 MiB of RAM, no devices, and code at a known place: what most processor tests need.
//
// Every mode starts at CPL 0 with interrupts off, flat segments, a GDT, an IDT whose 256 gates lead to
// `handler_address` + 16 * vector (each a HLT), and a TSS. Paging, where the mode has it, maps linear addresses
// 0 to 1 GiB to themselves with 2-MByte pages, user and writable.
#pragma once

#include "arch/features.hpp"
#include "cpu/cpu.hpp"
#include "tests/support/code.hpp"

#include <map>
#include <memory>

namespace exeunt::test {

enum class Mode { real, v8086, protected16, protected32, compatibility, long64 };

/// Answers every port with FFH..., remembers what was written; MMIO reads give FFH.
class NullBus : public IoBus {
public:
    u32 port_read(u16 port, unsigned size) override {
        const auto found = inputs.find(port);
        return found != inputs.end() ? found->second : static_cast<u32>(low_mask(8 * size));
    }
    void port_write(u16 port, unsigned, u32 value) override { outputs[port] = value; }
    u64 mmio_read(u64, unsigned size) override { return low_mask(8 * size); }
    void mmio_write(u64 physical, unsigned, u64 value) override { mmio_writes[physical] = value; }

    std::map<u16, u32> inputs, outputs;
    std::map<u64, u64> mmio_writes;
};

class Harness {
public:
    static constexpr u64 code_address = 0x1'0000;
    static constexpr u64 data_address = 0x2'0000;
    static constexpr u64 stack_top = 0x3'0000;
    static constexpr u64 handler_address = 0x4'0000;
    static constexpr u64 gdt_address = 0x5000, idt_address = 0x6000, tss_address = 0x8000, tables_address = 0x10'0000;
    // Selectors of the GDT: code and data for rings 0 and 3, in 32, 64 and 16 bits.
    static constexpr u16 code32_0 = 0x08, data_0 = 0x10, code64_0 = 0x18, code16_0 = 0x20, data16_0 = 0x28,
                         code32_3 = 0x33, data_3 = 0x3B, code64_3 = 0x43, tss = 0x50;

    explicit Harness(Mode mode = Mode::long64, const std::string& model_name = "intel-max");
    explicit Harness(const CpuModel& model, Mode mode = Mode::long64);

    /// Places code at `code_address` (or elsewhere) and points RIP at it. Checks its disassembly.
    void place(const Code& code, u64 address = code_address);
    /// Places one instruction and executes it. What it stopped with, before delivery; Kind::none when it completed.
    Stop step(const Code& code);
    /// Executes the next instruction where RIP is.
    Stop step() { return cpu.step(); }
    /// Places code and runs until HLT or `ticks` have passed.
    RunEnd run(const Code& code, Tick ticks = 10'000);
    RunEnd run(Tick ticks = 10'000);

    /// Physical memory, little-endian.
    u64 read(u64 physical, unsigned bytes = 8);
    void write(u64 physical, u64 value, unsigned bytes = 8);
    /// Makes the processor run at CPL 3 with flat ring-3 segments (protected32, compatibility and long64).
    void enter_ring3();
    /// Which handler of the IDT the processor halted in, or -1.
    int vector_reached() const;
    CodeMode code_mode() const;

    CpuModel model;
    NullBus bus;
    PhysicalMemory memory{16 << 20};
    std::unique_ptr<Cpu> processor;
    Cpu& cpu;

private:
    void build_tables();
    void enter(Mode mode);

    Tick now_ = 0;
};

/// A segment descriptor: flat, with these access rights (VMCS layout, arch/segment.hpp).
u64 descriptor(u32 base, u32 limit, u32 access);

}  // namespace exeunt::test
