// The local APIC: registers as the xAPIC page shows them, acceptance of interrupts, priorities, EOI, LINT
// pins.
// SDM 3A 10.4 "Local APIC", 10.5 "Handling Local Interrupts", 10.8 "Handling Interrupts".
// Not modelled: see local_apic.hpp.
#include "apic/local_apic.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace exeunt {

namespace {

using Access = LocalApic::Access;

constexpr bool is_lvt(u16 offset) {
    return offset == LocalApic::LVT_CMCI ||
           (offset >= LocalApic::LVT_TIMER && offset <= LocalApic::LVT_ERROR);
}

/// ISR, TMR and IRR: eight registers each, read only.
constexpr bool is_vector_register(u64 offset) { return offset >= LocalApic::ISR && offset < LocalApic::ESR; }

} // namespace

std::span<const LocalApic::Row> LocalApic::rows() {
    using enum Access;
    static constexpr std::array table = {
#define REGISTER(offset, name, xapic, x2apic, reset, writable, on_write) \
    Row{offset, #name, xapic, x2apic, reset, writable, &LocalApic::on_write},
#include "apic/registers.inc"
    };
    return table;
}

LocalApic::LocalApic(const LocalApicOptions& options, ApicBus& bus, Clock& clock, ProcessorSignals& processor,
                     const TscSource& tsc, InterruptSource* ext_int)
    : options_(options),
      bus_(bus),
      clock_(clock),
      processor_(processor),
      tsc_(tsc),
      ext_int_(ext_int),
      timer_(clock.add("local_apic_" + std::to_string(options.id), [this] { timer_expired(); })) {
    for (unsigned n = 0; n < 2; ++n) {
        lint_[n].apic = this;
        lint_[n].index = n;
    }
    bus_.attach(*this);
    reset();
}

void LocalApic::reset() {
    apic_base_ = default_base | apic_base_enable | (options_.bootstrap ? apic_base_bsp : 0);
    reset_registers();
    reg(ID) = options_.id << 24;
    changed();
}

// SDM 3A 10.4.7.3 "Local APIC State After an INIT Reset": as after power-up, but the ID and IA32_APIC_BASE
// stay.
void LocalApic::init() {
    const u32 id = reg(ID);
    reset_registers();
    reg(ID) = id;
    changed();
}

// SDM 3A 10.4.7.1 "Local APIC State After Power-Up or Reset".
void LocalApic::reset_registers() {
    std::fill(std::begin(registers_), std::end(registers_), 0);
    for (const Row& row : rows())
        if (exists(row)) reg(row.offset) = row.reset;
    const u32 max_lvt_entry = options_.cmci ? 6 : 5;
    reg(VERSION) = options_.version | (max_lvt_entry << 16) |
                   (options_.eoi_broadcast_suppression ? static_cast<u32>(bit(24)) : 0);
    errors_ = 0;
    ext_int_message_ = false;
    count_ = 0;
    tsc_deadline_ = 0;
    clock_.disarm(timer_);
}

void LocalApic::enter_virtual_wire_mode() {
    reg(SVR) |= svr_enable;
    reg(LVT_LINT0) = static_cast<u32>(DeliveryMode::ext_int) << 8;
    reg(LVT_LINT1) = static_cast<u32>(DeliveryMode::nmi) << 8;
    changed();
}

// ---- Registers ------------------------------------------------------------------------------------------

const LocalApic::Row* LocalApic::find_row(u64 offset) {
    for (const Row& row : rows())
        if (row.offset == offset) return &row;
    return nullptr;
}

bool LocalApic::exists(const Row& row) const { return row.offset != LVT_CMCI || options_.cmci; }

u32 LocalApic::writable(const Row& row) const {
    if (row.offset == SVR && !options_.eoi_broadcast_suppression) return row.writable & ~svr_no_eoi_broadcast;
    if (row.offset == LVT_TIMER && !options_.tsc_deadline) return row.writable & ~static_cast<u32>(bit(18));
    return row.writable;
}

u32 LocalApic::read_register(u64 offset) {
    switch (offset) {
    case ID: return x2apic_mode() ? options_.id : reg(ID);
    case LDR: return x2apic_mode() ? logical_x2apic_id() : reg(LDR);
    case APR: return arbitration_priority();
    case PPR: return processor_priority();
    case CURRENT_COUNT: return current_count();
    default: return reg(static_cast<unsigned>(offset));
    }
}

// SDM 3A 10.4.1 "The Local APIC Block Diagram": registers are accessed with aligned 32-bit loads and stores.
// A narrower load gives the bytes that it names; other stores do nothing.
u64 LocalApic::mmio_read(u64 offset, unsigned size) {
    if (!page_enabled()) return low_mask(8 * size);
    const u64 at = offset & 0xFF0;
    const Row* row = find_row(at);
    const bool present = row ? row->xapic != Access::absent && exists(*row) : is_vector_register(at);
    if (!present) {
        error(error_illegal_register);
        return 0;
    }
    if (row && row->xapic == Access::write_only) return 0;
    const unsigned first = offset & 0xF;
    return first >= 4 ? 0 : extract(read_register(at), 31, 8 * first) & low_mask(8 * size);
}

void LocalApic::mmio_write(u64 offset, unsigned size, u64 value) {
    if (!page_enabled() || size != 4 || (offset & 0xF) != 0) return;
    const Row* row = find_row(offset);
    if (!row || row->xapic == Access::absent || !exists(*row)) {
        if (!is_vector_register(offset)) error(error_illegal_register);
        return;
    }
    if (row->xapic == Access::read_only) return;
    const u32 old = reg(row->offset), mask = writable(*row);
    reg(row->offset) = (old & ~mask) | (low32(value) & mask);
    (this->*row->on_write)(old, low32(value));
}

void LocalApic::id_written(u32, u32) {}

void LocalApic::tpr_written(u32, u32) { changed(); }

void LocalApic::set_cr8(u8 value) {
    reg(TPR) = (value & 0xFu) << 4;
    changed();
}

void LocalApic::eoi_written(u32, u32) { end_of_interrupt(); }

// SDM 3A 10.4.7.2 "Local APIC State After It Has Been Software Disabled": all LVT mask bits are set.
void LocalApic::svr_written(u32, u32) {
    if (software_enabled()) return;
    for (const Row& row : rows())
        if (is_lvt(row.offset) && exists(row)) reg(row.offset) |= lvt_mask;
    arm_timer();
    changed();
}

// SDM 3A 10.5.3 "Error Handling": a write makes visible what was detected since the last one.
void LocalApic::esr_written(u32, u32) {
    reg(ESR) = errors_;
    errors_ = 0;
}

void LocalApic::error(u32 bits) {
    const bool news = (errors_ & bits) != bits;
    errors_ |= bits;
    if (news) deliver_lvt(LVT_ERROR);
}

void LocalApic::lvt_written(u32, u32) {
    if (software_enabled()) return;
    for (Register lvt : {LVT_CMCI, LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR})
        if (lvt != LVT_CMCI || options_.cmci) reg(lvt) |= lvt_mask;
}

void LocalApic::lvt_lint_written(u32 old, u32 value) {
    lvt_written(old, value);
    // Remote IRR belongs to level-triggered fixed interrupts only.
    for (Register lvt : {LVT_LINT0, LVT_LINT1})
        if (!(reg(lvt) & lvt_level) || extract(reg(lvt), 10, 8) != 0) reg(lvt) &= ~lvt_remote_irr;
    refresh_level_lint(0);
    changed();
}

// ---- Vectors and priorities -----------------------------------------------------------------------------

bool LocalApic::vector_bit(Register first, u8 vector) const {
    return test_bit(reg(first + (vector >> 5) * 16u), vector & 31);
}

void LocalApic::set_vector_bit(Register first, u8 vector, bool value) {
    u32& word = reg(first + (vector >> 5) * 16u);
    const u32 mask = u32{1} << (vector & 31);
    word = value ? word | mask : word & ~mask;
}

int LocalApic::highest(Register first) const {
    for (unsigned word = 8; word-- > 0;)
        if (const u32 value = reg(first + word * 16u))
            return static_cast<int>(word * 32 + 31 - static_cast<unsigned>(std::countl_zero(value)));
    return -1;
}

// SDM 3A 10.8.3.1 "Task and Processor Priorities".
u8 LocalApic::processor_priority() const {
    const u32 tpr = reg(TPR) & 0xFF;
    const int in_service = highest(ISR);
    const u32 isrv = in_service < 0 ? 0 : static_cast<u32>(in_service);
    return static_cast<u8>((tpr & 0xF0) >= (isrv & 0xF0) ? tpr : isrv & 0xF0);
}

// SDM 3A 10.6.2.4 "Lowest Priority Delivery Mode".
u8 LocalApic::arbitration_priority() const {
    const u32 tpr = reg(TPR) & 0xFF;
    const u32 irrv = static_cast<u32>(std::max(highest(IRR), 0)),
              isrv = static_cast<u32>(std::max(highest(ISR), 0));
    if ((tpr >> 4) >= (irrv >> 4) && (tpr >> 4) > (isrv >> 4)) return static_cast<u8>(tpr);
    return static_cast<u8>(std::max(tpr & isrv & 0xF0, irrv & 0xF0));
}

bool LocalApic::has_focus(u8 vector) const {
    return !(reg(SVR) & svr_focus_disabled) && (vector_bit(IRR, vector) || vector_bit(ISR, vector));
}

bool LocalApic::ext_int_requested() const {
    if (!enabled()) return lint_level_[0]; // SDM 3A 10.4.3: LINT0 is INTR
    if (ext_int_message_) return true;
    for (unsigned n = 0; n < 2; ++n) {
        const u32 lvt = reg(n == 0 ? LVT_LINT0 : LVT_LINT1);
        if (lint_level_[n] && !(lvt & lvt_mask) &&
            extract(lvt, 10, 8) == static_cast<u64>(DeliveryMode::ext_int))
            return true;
    }
    return false;
}

bool LocalApic::interrupt_pending() {
    if (ext_int_requested()) return true;
    const int request = highest(IRR);
    return enabled() && request >= 0 && (request >> 4) > (processor_priority() >> 4);
}

u8 LocalApic::acknowledge() {
    if (ext_int_requested()) {
        ext_int_message_ = false;
        const u8 vector = ext_int_ ? ext_int_->acknowledge() : static_cast<u8>(reg(SVR));
        changed();
        return vector;
    }
    // SDM 3A 10.9 "Spurious Interrupt": the request may have been masked since it was signalled.
    if (!interrupt_pending()) return static_cast<u8>(reg(SVR));
    const u8 vector = static_cast<u8>(highest(IRR));
    set_vector_bit(IRR, vector, false);
    set_vector_bit(ISR, vector, true);
    changed();
    return vector;
}

// SDM 3A 10.8.5 "Signaling Interrupt Servicing Completion".
void LocalApic::end_of_interrupt() {
    const int in_service = highest(ISR);
    if (in_service < 0) return;
    const u8 vector = static_cast<u8>(in_service);
    set_vector_bit(ISR, vector, false);
    if (vector_bit(TMR, vector)) {
        if ((reg(LVT_LINT0) & lvt_remote_irr) && (reg(LVT_LINT0) & 0xFF) == vector) {
            reg(LVT_LINT0) &= ~lvt_remote_irr;
            refresh_level_lint(0);
        }
        if (!(reg(SVR) & svr_no_eoi_broadcast)) bus_.eoi(vector);
    }
    changed();
}

void LocalApic::changed() {
    const bool pending = interrupt_pending();
    if (!pending && !was_pending_) return;
    was_pending_ = pending;
    processor_.interrupt_changed();
}

// ---- Acceptance -------------------------------------------------------------------------------------------

// SDM 3A 10.8.4 "Interrupt Acceptance for Fixed Interrupts".
void LocalApic::accept_vector(u8 vector, bool level) {
    if (vector < 16) {
        error(error_receive_illegal_vector);
        return;
    }
    set_vector_bit(IRR, vector, true);
    set_vector_bit(TMR, vector, level);
    changed();
}

void LocalApic::accept(const ApicMessage& message) {
    if (!enabled()) return;
    switch (static_cast<DeliveryMode>(message.delivery_mode)) {
    case DeliveryMode::fixed:
    case DeliveryMode::lowest_priority:
        // SDM 3A 10.4.7.2: a software-disabled APIC responds to INIT, NMI, SMI and SIPI messages only.
        if (software_enabled()) accept_vector(message.vector, message.level);
        break;
    case DeliveryMode::smi: processor_.smi(); break;
    case DeliveryMode::nmi: processor_.nmi(); break;
    case DeliveryMode::init: processor_.init(); break;
    case DeliveryMode::start_up: processor_.sipi(message.vector); break;
    case DeliveryMode::ext_int:
        ext_int_message_ = true;
        changed();
        break;
    default: break;
    }
}

void LocalApic::deliver_lvt(Register lvt) {
    const u32 entry = reg(lvt);
    if (!enabled() || (entry & lvt_mask)) return;
    const bool has_mode = lvt != LVT_TIMER && lvt != LVT_ERROR;
    switch (static_cast<DeliveryMode>(has_mode ? extract(entry, 10, 8) : 0)) {
    case DeliveryMode::fixed: accept_vector(static_cast<u8>(entry), false); break;
    case DeliveryMode::smi: processor_.smi(); break;
    case DeliveryMode::nmi: processor_.nmi(); break;
    case DeliveryMode::init: processor_.init(); break;
    default: break;
    }
}

void LocalApic::local_event(Register lvt) {
    deliver_lvt(lvt);
    // SDM 3A 10.5.1 "Local Vector Table", Mask: a performance-monitoring interrupt masks its own entry.
    if (lvt == LVT_PERF) reg(LVT_PERF) |= lvt_mask;
}

void LocalApic::lint_changed(unsigned index, bool level) {
    const bool rising = level && !lint_level_[index];
    lint_level_[index] = level;
    if (!enabled()) {
        if (index == 0)
            changed();
        else if (rising)
            processor_.nmi();
        return;
    }
    const Register lvt = index == 0 ? LVT_LINT0 : LVT_LINT1;
    const auto mode = static_cast<DeliveryMode>(extract(reg(lvt), 10, 8));
    if (mode == DeliveryMode::ext_int) {
        changed();
    } else if (index == 0 && mode == DeliveryMode::fixed && (reg(lvt) & lvt_level)) {
        refresh_level_lint(0); // LINT1 does not support level-triggered interrupts
    } else if (rising) {
        deliver_lvt(lvt);
    }
}

// SDM 3A 10.5.1 "Local Vector Table", Remote IRR Flag and Trigger Mode.
void LocalApic::refresh_level_lint(unsigned index) {
    u32& lvt = reg(LVT_LINT0);
    if (index != 0 || !lint_level_[0] || (lvt & (lvt_mask | lvt_remote_irr)) || !(lvt & lvt_level) ||
        extract(lvt, 10, 8) != 0 || !enabled())
        return;
    lvt |= lvt_remote_irr;
    accept_vector(static_cast<u8>(lvt), true);
}

void LocalApic::visit(StateVisitor& visitor) {
    visitor.value("apic_base", apic_base_);
    visitor.array("registers", registers_);
    visitor.value("errors", errors_);
    visitor.value("ext_int_message", ext_int_message_);
    visitor.array("lint_level", lint_level_);
    visitor.value("was_pending", was_pending_);
    visitor.value("count", count_);
    visitor.value("count_start", count_start_);
    visitor.value("tsc_deadline", tsc_deadline_);
}

} // namespace exeunt
