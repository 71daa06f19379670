#include "tests/support/harness.hpp"

#include <doctest/doctest.h>

namespace exeunt::test {

namespace {

constexpr u32 code_access = AR::P | AR::S | AR::CODE | AR::READABLE | AR::ACCESSED;
constexpr u32 data_access = AR::P | AR::S | AR::WRITABLE | AR::ACCESSED;
constexpr u32 ring3 = 3u << 5;

}  // namespace

u64 descriptor(u32 base, u32 limit, u32 access) {
    const u64 raw_limit = access & AR::G ? limit >> 12 : limit;
    return (raw_limit & 0xFFFF) | (u64{base & 0xFF'FFFF} << 16) | (u64{access & 0xF0FF} << 40) |
           (((raw_limit >> 16) & 0xF) << 48) | (u64{base >> 24} << 56);
}

Harness::Harness(Mode mode, const std::string& model_name) : Harness(CpuModel::load(model_name), mode) {}

Harness::Harness(const CpuModel& cpu_model, Mode mode)
    : model(cpu_model), processor(std::make_unique<Cpu>(0, model, memory, bus, 1)), cpu(*processor) {
    memory.set_bus(bus);
    cpu.reset(false);
    build_tables();
    enter(mode);
}

void Harness::build_tables() {
    const auto flat = [&](u16 selector, u32 access) {
        write(gdt_address + (selector & ~7u), descriptor(0, 0xFFFF'FFFF, access | AR::G));
    };
    flat(code32_0, code_access | AR::DB);
    flat(data_0, data_access | AR::DB);
    flat(code64_0, code_access | AR::L);
    flat(code32_3, code_access | AR::DB | ring3);
    flat(data_3, data_access | AR::DB | ring3);
    flat(code64_3, code_access | AR::L | ring3);
    write(gdt_address + code16_0, descriptor(0, 0xFFFF, code_access));
    write(gdt_address + data16_0, descriptor(0, 0xFFFF, data_access));
    write(gdt_address + tss, descriptor(static_cast<u32>(tss_address), 0x2067, AR::P | SystemType::tss_busy));
    for (unsigned v = 0; v < 256; ++v) write(handler_address + 16 * v, 0xF4, 1);  // HLT

    // 4-level tables; the PAE tables of 32-bit modes are not used: 32-bit modes run without paging.
    write(tables_address, (tables_address + 0x1000) | 7);
    write(tables_address + 0x1000, (tables_address + 0x2000) | 7);
    for (u64 i = 0; i < 512; ++i) write(tables_address + 0x2000 + 8 * i, (i << 21) | 0x87);
}

void Harness::enter(Mode mode) {
    const bool ia32e = mode == Mode::long64 || mode == Mode::compatibility;
    cpu.gdtr = {gdt_address, 0xFF};
    cpu.idtr = {idt_address, 0xFFF};
    cpu.r[RSP] = stack_top;
    const auto load = [&](Seg s, u16 selector, u64 base, u32 limit, u32 access) {
        cpu.seg(s) = Segment{selector, access, limit, base};
    };
    const auto load_data = [&](u16 selector, u64 base, u32 limit, u32 access) {
        for (const Seg s : {Seg::ES, Seg::SS, Seg::DS, Seg::FS, Seg::GS}) load(s, selector, base, limit, access);
    };
    load(Seg::TR, tss, tss_address, 0x2067, AR::P | SystemType::tss_busy);
    if (mode == Mode::real || mode == Mode::v8086) {
        // Segment 0 everywhere, code at a real-mode address (code_address as 1000H:0000H).
        cpu.idtr = {0, 0x3FF};
        for (u64 v = 0; v < 256; ++v) write(4 * v, (handler_address / 16) << 16 | (16 * v), 4);
        const u32 access = mode == Mode::v8086 ? data_access | ring3 : data_access;
        load(Seg::CS, static_cast<u16>(code_address / 16), code_address, 0xFFFF, access);
        load_data(0, 0, 0xFFFF, access);
        load(Seg::SS, 0x2000, 0x2'0000, 0xFFFF, access);
        cpu.r[RSP] = 0xFFF0;
        if (mode == Mode::v8086) {
            cpu.idtr = {idt_address, 0x7FF};
            cpu.control.cr0 |= CR0::PE;
            cpu.flags.rest |= RFLAGS::VM;
            cpu.cpl = 3;
        }
    } else {
        cpu.control.cr0 |= CR0::PE | CR0::NE | CR0::WP;
        load_data(data_0, 0, 0xFFFF'FFFF, data_access | AR::DB | AR::G);
        if (mode == Mode::protected16) {
            load(Seg::CS, code16_0, 0, 0xF'FFFF, code_access);
            load_data(data16_0, 0, 0xF'FFFF, data_access);
        } else {
            const bool wide = mode == Mode::long64;
            load(Seg::CS, wide ? code64_0 : code32_0, 0, 0xFFFF'FFFF, code_access | (wide ? AR::L : AR::DB) | AR::G);
        }
    }
    if (mode != Mode::real) {
        for (u64 v = 0; v < 256; ++v) {
            const u64 target = handler_address + 16 * v;
            const u64 selector = ia32e ? code64_0 : code32_0;
            const u64 gate = (target & 0xFFFF) | selector << 16 | (v == 3 || v == 4 ? u64{0xEE00} : u64{0x8E00}) << 32 |
                             (target >> 16) << 48;
            write(idt_address + (ia32e ? 16 : 8) * v, gate);
            if (ia32e) write(idt_address + 16 * v + 8, 0);
        }
        // RSP0 (ESP0, SS0) of the TSS.
        if (ia32e) {
            write(tss_address + 4, stack_top - 0x1000);
        } else {
            write(tss_address + 4, stack_top - 0x1000, 4);
            write(tss_address + 8, data_0, 4);
        }
    }
    if (ia32e) {
        cpu.control.cr3 = tables_address;
        cpu.control.cr4 |= CR4::PAE | CR4::OSFXSR | CR4::OSXMMEXCPT;
        cpu.control.efer |= EFER::LME | EFER::LMA | EFER::NXE | EFER::SCE;
        cpu.control.cr0 |= CR0::PG;
    }
    cpu.control.cr0 &= ~(CR0::CD | CR0::NW);
    cpu.rip = mode == Mode::real || mode == Mode::v8086 ? 0 : code_address;
    cpu.context_changed(true);
    cpu.mode_changed();
}

void Harness::enter_ring3() {
    const bool wide = cpu.code64();
    cpu.cpl = 3;
    cpu.seg(Seg::CS).selector = wide ? code64_3 : code32_3;
    cpu.seg(Seg::CS).access |= ring3;
    for (const Seg s : {Seg::ES, Seg::SS, Seg::DS, Seg::FS, Seg::GS}) {
        cpu.seg(s).selector = data_3;
        cpu.seg(s).access |= ring3;
    }
    cpu.mode_changed();
}

CodeMode Harness::code_mode() const {
    if (cpu.code64()) return CodeMode::long64;
    if (cpu.seg(Seg::CS).big()) return CodeMode::protected32;
    return cpu.real_mode() || cpu.v8086() ? CodeMode::real16 : CodeMode::protected16;
}

void Harness::place(const Code& code, u64 address) {
    const u64 base = cpu.code64() ? 0 : cpu.seg(Seg::CS).base;
    if (!code.text.empty()) REQUIRE(disassemble_all(code_mode(), code.bytes, address - base) == code.text);
    memory.write_bytes(Physical{address}, code.bytes.data(), code.bytes.size());
    cpu.rip = address - base;
}

Stop Harness::step(const Code& code) {
    place(code);
    return cpu.step();
}

RunEnd Harness::run(const Code& code, Tick ticks) {
    place(code);
    return run(ticks);
}

RunEnd Harness::run(Tick ticks) {
    const RunEnd end = cpu.run(now_, now_ + ticks);
    now_ = cpu.now();
    return end;
}

u64 Harness::read(u64 physical, unsigned bytes) {
    u64 value = 0;
    memory.read_bytes(Physical{physical}, &value, bytes);
    return PhysicalMemory::little_endian(value);
}

void Harness::write(u64 physical, u64 value, unsigned bytes) {
    value = PhysicalMemory::little_endian(value);
    memory.write_bytes(Physical{physical}, &value, bytes);
}

int Harness::vector_reached() const {
    const u64 linear = (cpu.code64() ? 0 : cpu.seg(Seg::CS).base) + cpu.rip;
    const u64 offset = linear - handler_address;
    return linear >= handler_address && offset < 16 * 256 ? static_cast<int>(offset / 16) : -1;
}

}  // namespace exeunt::test
