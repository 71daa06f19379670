// Architectural performance monitoring, version 2: four general counters and three fixed ones, their overflow and its
// interrupt. SDM 3B 18.2 "Architectural Performance Monitoring"; CPUID leaf 0AH.
//
// A tick in which the processor runs is one core cycle and one reference cycle, and the ticks of instructions that
// complete are instructions retired; so counters cost nothing between two looks at them.
//
// Not modelled: edge detection (it counts nothing), the pin control bit, PEBS and the other events (CPUID.0AH:EBX
// says so: they count nothing).
#pragma once

#include "arch/result.hpp"
#include "base/bits.hpp"
#include "base/clock.hpp"
#include "base/snapshot.hpp"

namespace exeunt {

struct Cpu;

class PerformanceMonitor {
public:
    static constexpr unsigned version = 2, counters = 4, fixed_counters = 3, width = 48;
    /// Bits of IA32_PERF_GLOBAL_CTRL and of the overflow part of IA32_PERF_GLOBAL_STATUS.
    static constexpr u64 all_counters = low_mask(counters) | low_mask(fixed_counters) << 32;

    explicit PerformanceMonitor(Cpu& cpu) : cpu_(cpu) {}

    /// Brings the counters up to now; raises what overflowed.
    void update();
    /// The tick at which a counter may overflow, or `never`: update() must be called then.
    Tick deadline() const { return deadline_; }
    /// Whether some counter counts at some privilege levels only: update() must be called when CPL changes.
    bool by_privilege() const { return by_privilege_; }

    /// RDPMC: bit 30 chooses the fixed counters.
    Result<u64> read(u32 index);

    // The MSRs.
    u64 counter(unsigned n);
    u64 fixed_counter(unsigned n);
    u64 select(unsigned n) const { return select_[n]; }
    u64 fixed_control() const { return fixed_control_; }
    u64 global_control() const { return global_control_; }
    u64 status();
    void set_counter(unsigned n, u64 value);
    void set_fixed_counter(unsigned n, u64 value);
    void set_select(unsigned n, u64 value);
    void set_fixed_control(u64 value);
    void set_global_control(u64 value);
    void clear_status(u64 bits);

    /// RESET#; INIT leaves the counters alone.
    void reset();
    void visit(StateVisitor& visitor);

private:
    enum class Source : u8 { nothing, cycles, instructions };
    /// One counter as it counts now.
    struct Counting {
        Source source = Source::nothing;
        bool user = false, supervisor = false; ///< at CPL above 0, at CPL 0
        bool interrupts = false;
    };
    static constexpr unsigned all = counters + fixed_counters;

    Counting configuration(unsigned n) const;
    void configure();
    void overflow(bool interrupt);

    Cpu& cpu_;
    u64 value_[all] = {}; ///< the general counters, then the fixed ones
    u64 select_[counters] = {};
    u64 fixed_control_ = 0;
    u64 global_control_ = low_mask(counters);
    u64 status_ = 0;
    // As of the last update.
    u64 cycles_seen_ = 0, instructions_seen_ = 0;
    bool user_seen_ = false;

    Counting counting_[all]; ///< derived from the controls
    bool by_privilege_ = false, runs_ = false;
    Tick deadline_ = never;
};

} // namespace exeunt
