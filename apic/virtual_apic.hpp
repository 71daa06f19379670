// A local APIC kept in a page of memory: Intel's virtual-APIC page and AMD's vAPIC backing page. What both do
// with it in the same way: registers at the xAPIC page's offsets, vectors from IRR to ISR to EOI, priorities.
// SDM 3C 29.1 "Virtual APIC State"; APM 2 15.29.3 "AVIC Backing Page"; SDM 3A 10.8 "Handling Interrupts".
//
// Who notices a request and when it is delivered, what an EOI or a command does besides, and where the
// vectors of highest priority are kept meanwhile (RVI and SVI; nowhere) is each extension's own.
#pragma once

#include "apic/local_apic.hpp"

namespace exeunt {

/// A look at one page; it holds nothing but the way there.
class VirtualApic {
public:
    using Register = LocalApic::Register;

    /// `page`: the native address of the 4 KBytes. Whoever asks for it has made sure that they may be
    /// written.
    explicit VirtualApic(u8* page) : page_(page) {}

    // ---- Registers --------------------------------------------------------------------------------------
    /// The low four bytes of the 16 that each register has.
    u32 reg(unsigned offset) const { return static_cast<u32>(load(offset, 4)); }
    void set_reg(unsigned offset, u32 value) { store(offset, 4, value); }
    /// 1 to 8 bytes, little-endian as everything in the page.
    u64 load(unsigned offset, unsigned bytes) const;
    void store(unsigned offset, unsigned bytes, u64 value);

    // ---- Vectors: 256 bits in eight registers, `first` being IRR, ISR or TMR ----------------------------
    bool vector_bit(Register first, u8 vector) const;
    void set_vector_bit(Register first, u8 vector, bool value);
    /// The 32 bits of vectors 32n to 32n + 31.
    u32 vector_word(Register first, unsigned n) const { return reg(first + 16 * n); }
    void add_vectors(Register first, unsigned n, u32 vectors);
    /// The highest vector that is set; 0 when none is (as is vector 0, which no APIC delivers).
    u8 highest(Register first) const;

    // ---- Priorities. SDM 3A 10.8.3 "Interrupt, Task, and Processor Priority" ----------------------------
    static constexpr u8 priority_class(u8 vector) { return vector >> 4; }
    static constexpr u8 processor_priority(u8 tpr, u8 in_service) {
        return priority_class(tpr) >= priority_class(in_service) ? tpr : in_service & 0xF0;
    }
    u8 tpr() const { return static_cast<u8>(reg(Register::TPR)); }
    /// The other three bytes become 0.
    void set_tpr(u8 value) { set_reg(Register::TPR, value); }
    u8 ppr() const { return static_cast<u8>(reg(Register::PPR)); }
    void set_ppr(u8 value) { set_reg(Register::PPR, value); }
    /// PPR out of TPR and the vector in service, which is 0 when there is none.
    void update_ppr(u8 in_service) { set_ppr(processor_priority(tpr(), in_service)); }

    // ---- Delivery and EOI. SDM 3A 10.8.4 and 10.8.5 -----------------------------------------------------
    /// `vector` goes from IRR to ISR. Returns the highest request that is left.
    u8 accept(u8 vector);
    /// `vector` leaves ISR. Returns the highest that is left in service.
    u8 end_service(u8 vector);

private:
    u8* page_;
};

} // namespace exeunt
