// The local APIC of one logical processor: xAPIC page, x2APIC MSRs, IA32_APIC_BASE, IA32_TSC_DEADLINE.
// SDM 3A ch. 10 "Advanced Programmable Interrupt Controller (APIC)".
//
// Wiring: construct one per processor (it attaches itself to the bus), set Cpu::controller to it, connect the
// 8259's INTR to lint(0) and NMI sources to lint(1). Accesses of a processor to physical page apic_page()
// while page_enabled() are its MmioDevice accesses. Call tsc_offset_changed() when software writes its TSC,
// and init() when the processor takes an INIT.
// Not modelled: thermal and CMCI sources have no producer here (local_event() is theirs to
// call); the 3-wire APIC bus; AMD's extended registers (400H up).
#pragma once

#include "apic/ipi.hpp"
#include "base/bus.hpp"
#include "base/clock.hpp"

#include <span>

namespace exeunt {

/// IA32_TIME_STAMP_COUNTER is Clock::now() + tsc_offset(), modulo 2^64.
class TscSource {
public:
    virtual ~TscSource() = default;
    virtual u64 tsc_offset() const = 0;
};

struct LocalApicOptions {
    u32 id = 0;                            ///< initial APIC ID
    bool bootstrap = false;                ///< IA32_APIC_BASE.BSP
    unsigned physical_address_bits = 46;   ///< MAXPHYADDR: reserved bits of IA32_APIC_BASE
    bool x2apic = true;                    ///< CPUID.01H:ECX.x2APIC[bit 21]
    bool tsc_deadline = true;              ///< CPUID.01H:ECX.TSC_Deadline[bit 24]
    bool eoi_broadcast_suppression = true; ///< version register bit 24
    bool cmci = false;                     ///< the LVT CMCI register exists (IA32_MCG_CAP[10])
    u8 version = 0x15;
};

class LocalApic final : public MmioDevice, public InterruptController, public Device {
public:
    enum class Access : u8 { absent, read_only, write_only, read_write };
    struct Row {
        u16 offset;
        const char* name;
        Access xapic, x2apic;
        u32 reset, writable;
        void (LocalApic::*on_write)(u32 old, u32 value);
    };
    static std::span<const Row> rows();

    /// Offsets of the registers, by their names in registers.inc.
    enum Register : u16 {
#define REGISTER(offset, name, xapic, x2apic, reset, writable, on_write) name = offset,
#include "apic/registers.inc"
        ISR = 0x100,
        TMR = 0x180,
        IRR = 0x200,
    };

    static constexpr u64 default_base = 0xFEE0'0000;
    static constexpr u64 ticks_per_count = 10; ///< the timer's input clock is 100 MHz
    static constexpr u32 msr_apic_base = 0x1B, msr_tsc_deadline = 0x6E0, msr_x2apic_first = 0x800;

    /// `ext_int` answers INTA cycles for ExtINT; null when there is no 8259.
    LocalApic(const LocalApicOptions& options, ApicBus& bus, Clock& clock, ProcessorSignals& processor,
              const TscSource& tsc, InterruptSource* ext_int);
    LocalApic(const LocalApic&) = delete;
    LocalApic& operator=(const LocalApic&) = delete;

    // ---- The processor's side ---------------------------------------------------------------------------
    bool interrupt_pending() override;
    u8 acknowledge() override;
    u8 cr8() override { return static_cast<u8>(reg(TPR) >> 4); }
    void set_cr8(u8 value) override;
    bool read_msr(u32 index, u64& value) override;
    bool write_msr(u32 index, u64 value) override;
    void init() override;
    u64 mmio_read(u64 offset, unsigned size) override;
    void mmio_write(u64 offset, unsigned size, u64 value) override;
    /// The physical page of the registers, and whether accesses to it are the APIC's (xAPIC mode).
    u64 apic_page() const { return apic_base_ & ~u64{0xFFF}; }
    bool page_enabled() const { return enabled() && !x2apic_mode(); }
    u64 apic_base() const { return apic_base_; }
    void tsc_offset_changed() { arm_timer(); }
    void end_of_interrupt() override;
    void send_notification(u32 destination, u8 vector) override;

    // ---- The bus's side -----------------------------------------------------------------------------------
    u32 id() const; ///< as the current mode compares it: 8 bits in xAPIC mode, else 32
    bool bootstrap() const { return options_.bootstrap; }
    bool addressed_by(const ApicMessage& message) const;
    void accept(const ApicMessage& message);
    u8 arbitration_priority() const;
    /// IRR or ISR has the vector: the focus processor of lowest-priority delivery.
    bool has_focus(u8 vector) const;
    bool enabled() const { return apic_base_ & apic_base_enable; }
    bool x2apic_mode() const { return apic_base_ & apic_base_extd; }
    bool software_enabled() const { return reg(SVR) & svr_enable; }

    // ---- The wires
    // ------------------------------------------------------------------------------------------
    InterruptLine& lint(unsigned n) { return lint_[n & 1]; }
    /// A local source (LVT_THERMAL, LVT_PERF, LVT_CMCI) has an event.
    void local_event(Register lvt);
    void performance_interrupt() override { local_event(LVT_PERF); }

    void reset() override;
    /// As firmware leaves the bootstrap processor's: enabled, LINT0 ExtINT, LINT1 NMI (virtual wire mode).
    /// For starts without firmware. SDM 3A 10.4.7; MultiProcessor Specification 1.4 3.6.2.2.
    void enter_virtual_wire_mode();
    void visit(StateVisitor& visitor) override;

private:
    static constexpr u64 apic_base_bsp = bit(8), apic_base_extd = bit(10), apic_base_enable = bit(11);
    static constexpr u32 svr_enable = bit(8), svr_focus_disabled = bit(9), svr_no_eoi_broadcast = bit(12);
    static constexpr u32 lvt_mask = bit(16), lvt_remote_irr = bit(14), lvt_level = bit(15), lvt_low = bit(13);
    enum class TimerMode : u8 { one_shot = 0, periodic = 1, tsc_deadline = 2, reserved = 3 };
    enum : u32 {
        error_redirectable_ipi = bit(4),
        error_send_illegal_vector = bit(5),
        error_receive_illegal_vector = bit(6),
        error_illegal_register = bit(7),
    };

    class Lint final : public InterruptLine {
    public:
        void set(bool level) override { apic->lint_changed(index, level); }
        LocalApic* apic = nullptr;
        unsigned index = 0;
    };

    // Register storage: one entry for each 16 bytes of the page.
    u32& reg(unsigned offset) { return registers_[(offset >> 4) & 0x3F]; }
    u32 reg(unsigned offset) const { return registers_[(offset >> 4) & 0x3F]; }
    static const Row* find_row(u64 offset);
    bool exists(const Row& row) const;
    u32 writable(const Row& row) const;
    u32 read_register(u64 offset);
    void reset_registers();

    // Functions of rows.
    void plain(u32, u32) {}
    void id_written(u32 old, u32 value);
    void tpr_written(u32 old, u32 value);
    void eoi_written(u32 old, u32 value);
    void svr_written(u32 old, u32 value);
    void esr_written(u32 old, u32 value);
    void icr_written(u32 old, u32 value);
    void lvt_written(u32 old, u32 value);
    void lvt_lint_written(u32 old, u32 value);
    void lvt_timer_written(u32 old, u32 value);
    void initial_count_written(u32 old, u32 value);
    void divide_written(u32 old, u32 value);
    void self_ipi_written(u32 old, u32 value);

    // x2apic.cpp
    bool set_apic_base(u64 value);
    bool x2apic_read(u32 index, u64& value);
    bool x2apic_write(u32 index, u64 value);
    bool x2apic_write_icr(u64 value);
    u32 logical_x2apic_id() const;

    // Interrupts.
    bool vector_bit(Register first, u8 vector) const;
    void set_vector_bit(Register first, u8 vector, bool value);
    int highest(Register first) const;
    u8 processor_priority() const;
    void accept_vector(u8 vector, bool level);
    void deliver_lvt(Register lvt);
    void lint_changed(unsigned index, bool level);
    bool ext_int_requested() const;
    void refresh_level_lint(unsigned index);
    void error(u32 bits);
    void send_ipi(u32 icr_low, u32 destination, bool wide);
    void changed();

    // Timer.
    TimerMode timer_mode() const { return static_cast<TimerMode>(extract(reg(LVT_TIMER), 18, 17)); }
    u64 timer_period() const; ///< ticks for each count
    u32 current_count();
    void settle_timer();
    void catch_up();
    bool before_deadline() const;
    void start_count(u32 count);
    void arm_timer();
    void timer_expired();

    LocalApicOptions options_;
    ApicBus& bus_;
    Clock& clock_;
    ProcessorSignals& processor_;
    const TscSource& tsc_;
    InterruptSource* ext_int_;
    Clock::TimerId timer_;
    Lint lint_[2];

    u64 apic_base_ = 0;
    u32 registers_[64] = {};
    u32 errors_ = 0;               ///< detected since the last write to the ESR
    bool ext_int_message_ = false; ///< an ExtINT came as a message and was not yet acknowledged
    bool lint_level_[2] = {};
    bool was_pending_ = false;
    // The count: `count_` counts were left at `count_start_`; 0 is stopped.
    u32 count_ = 0;
    Tick count_start_ = 0;
    u64 tsc_deadline_ = 0;
};

} // namespace exeunt
