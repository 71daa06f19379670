#include "tests/differential/subject.hpp"

#include <algorithm>

namespace exeunt::test {

namespace {

constexpr Mode harness_mode(CaseMode mode) {
    return mode == CaseMode::real16 ? Mode::real : mode == CaseMode::protected32 ? Mode::protected32 : Mode::long64;
}

}  // namespace

Subject::Subject(const Surroundings& surroundings, const CpuModel& model)
    : surroundings_(surroundings), harness_(model, harness_mode(surroundings.mode)) {
    Cpu& cpu = harness_.cpu;
    const CaseMode mode = surroundings.mode;
    if (mode == CaseMode::real16) {
        for (const Seg s : {Seg::ES, Seg::CS, Seg::SS, Seg::DS, Seg::FS, Seg::GS}) {
            cpu.seg(s).base = segment_base(mode, s);
            cpu.seg(s).selector = static_cast<u16>(segment_base(mode, s) >> 4);
        }
    } else {
        map_pages();
        if (surroundings.user) harness_.enter_ring3();
        cpu.seg(Seg::FS).base = segment_base(mode, Seg::FS);
        cpu.seg(Seg::GS).base = segment_base(mode, Seg::GS);
        if (!surroundings.system_mapped) {
            cpu.seg(Seg::CS).selector = surroundings.code_selector;
            for (const Seg s : {Seg::ES, Seg::SS, Seg::DS}) cpu.seg(s).selector = surroundings.data_selector;
            for (const Seg s : {Seg::FS, Seg::GS}) cpu.seg(s).selector = surroundings.other_selector;
        }
    }
    cpu.control.cr4 |= CR4::OSFXSR | CR4::OSXMMEXCPT;
    cpu.control.cr0 |= CR0::NE | CR0::MP;
    cpu.flags.rest |= RFLAGS::IF;
    if (surroundings.user) {
        cpu.control.cr0 |= CR0::AM;
        cpu.control.cr4 |= CR4::OSXSAVE;
        cpu.control.xcr0 = XCR0::X87 | XCR0::SSE | (model.has(Feature::AVX) ? XCR0::AVX : 0);
    }
    cpu.context_changed(true);
    cpu.mode_changed();
    initial_ = cpu;
}

/// 4-KByte pages: what a case may reach, and for the supervisor what delivery of events needs.
void Subject::map_pages() {
    constexpr u64 tables = 0x20'0000;
    const bool wide = surroundings_.mode == CaseMode::long64;
    const unsigned entry = wide ? 8 : 4;
    u64 last = tables;
    for (unsigned level = 0; level < (wide ? 3u : 1u); ++level, last += 0x1000)
        harness_.write(last, (last + 0x1000) | 7, entry);
    const auto map = [&](u64 from, u64 to, u64 rights) {
        for (u64 page = from; page < to; page += 0x1000)
            harness_.write(last + (page >> 12) * entry, page | rights, entry);
    };
    map(place::data, place::read_only, 7);
    map(place::read_only, place::data_end, 5);
    map(place::code, place::code + place::code_bytes, 5);
    if (surroundings_.system_mapped) {
        map(0, 0xC000, 3);
        map(Harness::stack_top - 0x3000, Harness::stack_top, 3);
        map(Harness::handler_address, Harness::handler_address + 0x1000, 3);
    }
    harness_.cpu.control.cr3 = tables;
    harness_.cpu.control.cr0 |= CR0::PG;
}

void Subject::load(const Registers& registers) {
    Cpu& cpu = harness_.cpu;
    static_cast<CpuState&>(cpu) = initial_;
    std::copy_n(registers.r, 16, cpu.r);
    cpu.rip = registers.rip;
    cpu.flags.set_arithmetic(registers.rflags);
    cpu.flags.rest = (registers.rflags & ~RFLAGS::arithmetic) | RFLAGS::FIXED1;
    for (unsigned i = 0; i < 16; ++i) std::copy_n(registers.vector[i], 4, cpu.vector[i].q);
    cpu.mxcsr = registers.mxcsr;
    cpu.x87 = registers.x87;
    cpu.clear_shadow();
    cpu.mode_changed();
}

Registers Subject::registers() const {
    const Cpu& cpu = harness_.cpu;
    Registers registers;
    std::copy_n(cpu.r, 16, registers.r);
    registers.rip = cpu.rip;
    registers.rflags = cpu.rflags();
    for (unsigned i = 0; i < 16; ++i) std::copy_n(cpu.vector[i].q, 4, registers.vector[i]);
    registers.mxcsr = cpu.mxcsr;
    registers.x87 = cpu.x87;
    return registers;
}

Outcome Subject::run(const Case& c) {
    Cpu& cpu = harness_.cpu;
    load(c.before);
    cpu.next_rip = cpu.rip + c.insn.length;
    cpu.remaining = 1 << 20;
    const Result<void> result = execute(cpu, c.insn);
    Outcome outcome;
    if (result.ok()) {
        cpu.rip = cpu.next_rip;
    } else {
        const Stop& stop = result.stop();
        outcome.fault.vector =
            stop.kind == Stop::Kind::exception ? static_cast<int>(stop.vector) : Fault::unmodelled;
        outcome.fault.error = stop.error;
        if (stop.vector == Vector::PF) outcome.fault.address = stop.address;
    }
    outcome.after = registers();
    return outcome;
}

}  // namespace exeunt::test
