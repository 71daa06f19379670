#include "tests/support/vmx_harness.hpp"

#include "cpu/msrs.hpp"

#include <doctest/doctest.h>

#include <ostream>

namespace exeunt::test {

std::ostream& operator<<(std::ostream& out, const EntryOutcome& o) {
    if (o.entered) return out << "entered";
    if (o.fail_invalid) return out << "VMfailInvalid, " << o.check;
    if (o.instruction_error) return out << "VMfailValid " << o.instruction_error << ", " << o.check;
    return out << "entry failure " << (o.reason & 0xFFFF) << ", qualification " << o.qualification << ", "
               << o.check;
}

EntryOutcome entered() { return {.entered = true}; }
EntryOutcome refused_control(std::string check) {
    return {.instruction_error = 7, .check = std::move(check)};
}
EntryOutcome refused_host(std::string check) { return {.instruction_error = 8, .check = std::move(check)}; }
EntryOutcome refused_guest(std::string check, u64 qualification) {
    return {
        .reason = 33 | exit_reason_entry_failure, .qualification = qualification, .check = std::move(check)};
}

VmxHarness::VmxHarness(const std::string& model_name) : Harness(Mode::long64, model_name), vmx(cpu) {
    cpu.controller = &interrupts;
    cpu.observer = &witness;
    cpu.control.cr4 |= CR4::VMXE;
    write(vmxon_region, vmx.capabilities().revision(), 4);
    write(vmcs_region, vmx.capabilities().revision(), 4);
    const u64 pointers = data_address;
    cpu.r[RAX] = pointers;
    write(pointers, vmxon_region);
    REQUIRE(step(code("f3 0f c7 30", "vmxon [rax]")) == Stop{});
    REQUIRE((cpu.rflags() & RFLAGS::arithmetic) == 0);
    write(pointers, vmcs_region);
    REQUIRE(step(code("66 0f c7 30", "vmclear [rax]")) == Stop{});
    REQUIRE(step(code("0f c7 30", "vmptrld [rax]")) == Stop{});
    REQUIRE((cpu.rflags() & RFLAGS::arithmetic) == 0);
    write(exit_address, 0xF4, 1); // HLT
    fill_vmcs();
    cpu.r[RAX] = 0;
}

void VmxHarness::on(Control control, bool value) {
    const F field =
        control.group == ControlGroup::pin_based   ? F::pin_based_vm_execution_controls
        : control.group == ControlGroup::primary   ? F::primary_processor_based_vm_execution_controls
        : control.group == ControlGroup::secondary ? F::secondary_processor_based_vm_execution_controls
        : control.group == ControlGroup::tertiary  ? F::tertiary_processor_based_vm_execution_controls
        : control.group == ControlGroup::vm_exit   ? F::primary_vm_exit_controls
        : control.group == ControlGroup::vm_entry  ? F::vm_entry_controls
                                                   : F::vm_function_controls;
    set(field, value ? get(field) | control.mask() : get(field) & ~control.mask());
}

void VmxHarness::fill_vmcs() {
    const VmxCapabilities& c = vmx.capabilities();
    set(F::pin_based_vm_execution_controls, c.must_be_1(ControlGroup::pin_based));
    set(F::primary_processor_based_vm_execution_controls,
        c.must_be_1(ControlGroup::primary) | (primary::hlt_exiting | primary::activate_secondary_controls));
    set(F::primary_vm_exit_controls, c.must_be_1(ControlGroup::vm_exit) |
                                         (vm_exit::host_address_space_size | vm_exit::save_ia32_efer) |
                                         vm_exit::load_ia32_efer);
    set(F::vm_entry_controls,
        c.must_be_1(ControlGroup::vm_entry) | (vm_entry::ia_32e_mode_guest | vm_entry::load_ia32_efer));
    set(F::secondary_processor_based_vm_execution_controls, 0);
    set(F::vmcs_link_pointer, ~u64{0});
    set(F::address_of_io_bitmap_a, io_bitmap_a);
    set(F::address_of_io_bitmap_b, io_bitmap_b);
    set(F::address_of_msr_bitmaps, msr_bitmap);
    set(F::virtual_apic_address, virtual_apic);
    set(F::pml_address, pml);

    set(F::host_cr0, cpu.control.cr0);
    set(F::host_cr3, cpu.control.cr3);
    set(F::host_cr4, cpu.control.cr4);
    set(F::host_ia32_efer, cpu.control.efer);
    set(F::host_ia32_pat, cpu.pat);
    set(F::host_cs_selector, code64_0);
    for (const F f : {F::host_ss_selector, F::host_ds_selector, F::host_es_selector}) set(f, data_0);
    set(F::host_tr_selector, tss);
    set(F::host_tr_base, tss_address);
    set(F::host_gdtr_base, gdt_address);
    set(F::host_idtr_base, idt_address);
    set(F::host_rip, exit_address);
    set(F::host_rsp, stack_top - 0x2000);

    set(F::guest_cr0, cpu.control.cr0);
    set(F::guest_cr3, cpu.control.cr3);
    set(F::guest_cr4, cpu.control.cr4);
    set(F::guest_ia32_efer, cpu.control.efer);
    set(F::guest_ia32_pat, cpu.pat);
    set(F::guest_dr7, DR7::fixed1);
    for (unsigned i = 0; i < 8; ++i) {
        const Segment& s = cpu.segment[i];
        const auto field = [&](F first) { return static_cast<F>(static_cast<unsigned>(first) + i); };
        set(field(F::guest_es_selector), s.selector);
        set(field(F::guest_es_base), s.base);
        set(field(F::guest_es_limit), s.limit);
        set(field(F::guest_es_access_rights), s.access);
    }
    set(F::guest_ldtr_selector, 0);
    set(F::guest_ldtr_access_rights, AR::UNUSABLE);
    set(F::guest_gdtr_base, gdt_address);
    set(F::guest_gdtr_limit, 0xFF);
    set(F::guest_idtr_base, idt_address);
    set(F::guest_idtr_limit, 0xFFF);
    set(F::guest_rip, code_address);
    set(F::guest_rsp, stack_top);
    set(F::guest_rflags, RFLAGS::FIXED1);
}

void VmxHarness::use_ept(u64 flags) {
    on(secondary::enable_ept);
    set(F::ept_pointer, ept_tables | flags);
    write(ept_tables, (ept_tables + 0x1000) | 7);
    write(ept_tables + 0x1000, (ept_tables + 0x2000) | 7);
    for (u64 i = 0; i < 8; ++i) write(ept_tables + 0x2000 + 8 * i, (ept_tables + 0x3000 + 0x1000 * i) | 7);
    for (u64 page = 0; page < 0x100'0000; page += 0x1000) set_ept_entry(page, page | 6 << 3 | 7);
}

void VmxHarness::guest_mode(Mode mode) {
    if (mode == Mode::long64) return;
    off(vm_entry::ia_32e_mode_guest);
    set(F::guest_ia32_efer, EFER::NXE);
    u64 cr0 = get(F::guest_cr0) & ~CR0::PG;
    use_ept();
    on(secondary::unrestricted_guest);
    const bool real = mode == Mode::real || mode == Mode::v8086, wide = mode == Mode::protected32;
    if (mode == Mode::real) cr0 &= ~CR0::PE;
    set(F::guest_cr0, cr0);
    const u32 data_access = AR::P | AR::S | AR::WRITABLE | AR::ACCESSED;
    for (unsigned i = 0; i < 6; ++i) {
        const auto field = [&](F first) { return static_cast<F>(static_cast<unsigned>(first) + i); };
        const bool cs = i == static_cast<unsigned>(Seg::CS);
        const u64 base = !wide && cs ? code_address : 0;
        set(field(F::guest_es_selector), real ? base >> 4
                                         : cs ? (wide ? code32_0 : code16_0)
                                              : (wide ? data_0 : data16_0));
        set(field(F::guest_es_base), base);
        set(field(F::guest_es_limit), wide ? 0xFFFF'FFFF : 0xFFFF);
        u32 access = data_access | (cs && !real ? AR::CODE : 0) | (wide ? AR::DB | AR::G : 0);
        if (mode == Mode::v8086) access = 0xF3;
        set(field(F::guest_es_access_rights), access);
    }
    if (mode != Mode::protected32) {
        set(F::guest_rip, 0);
        set(F::guest_rsp, 0xFFF0);
    }
    if (mode == Mode::v8086) set(F::guest_rflags, RFLAGS::FIXED1 | RFLAGS::VM);
    if (mode == Mode::real) {
        set(F::guest_idtr_base, 0);
        set(F::guest_idtr_limit, 0x3FF);
        for (u64 v = 0; v < 256; ++v) write(4 * v, (handler_address / 16) << 16 | (16 * v), 4);
    }
}

void VmxHarness::host32() {
    constexpr u32 flat = AR::P | AR::S | AR::DB | AR::G | AR::ACCESSED;
    for (u64 i = 0; i < 4; ++i) write(page_directory + 4 * i, i << 22 | 0x83, 4);
    cpu.control.cr3 = page_directory;
    cpu.control.cr4 = (cpu.control.cr4 & ~CR4::PAE) | CR4::PSE;
    cpu.control.efer &= ~(EFER::LMA | EFER::LME);
    cpu.seg(Seg::CS) = {code32_0, flat | AR::CODE | AR::READABLE, 0xFFFF'FFFF, 0};
    cpu.mode_changed();
    cpu.context_changed(true);
    off(vm_exit::host_address_space_size);
    set(F::host_cr3, cpu.control.cr3);
    set(F::host_cr4, cpu.control.cr4);
    set(F::host_ia32_efer, cpu.control.efer);
    set(F::host_cs_selector, code32_0);
    guest_mode(Mode::protected32);
    set(F::guest_ia32_efer, cpu.control.efer);
}

/// The host about to execute VMLAUNCH or VMRESUME.
void VmxHarness::host_at(u64 address) {
    const bool launch = launching ? *launching : !(vmx.current() && vmx.current()->launched());
    const u8 bytes[] = {0x0F, 0x01, static_cast<u8>(launch ? 0xC2 : 0xC3), 0xF4};
    memory.write_bytes(Physical{address}, bytes, sizeof bytes);
    cpu.rip = cpu.next_rip = address;
    cpu.activity = Activity::active;
}

EntryOutcome VmxHarness::enter() {
    REQUIRE(!cpu.in_guest);
    host_at(launch_address);
    witness.failures = 0;
    const unsigned before = witness.entries;
    cpu.step();
    EntryOutcome outcome;
    outcome.entered = witness.entries > before;
    if (outcome.entered) return outcome;
    outcome.fail_invalid = cpu.rflags() & RFLAGS::CF;
    outcome.instruction_error = witness.failure.instruction_error;
    outcome.reason = witness.failure.reason;
    outcome.qualification = witness.failure.qualification;
    outcome.check = witness.failures ? std::string(witness.failure.check) : "";
    return outcome;
}

RunEnd VmxHarness::run_guest(Tick ticks) {
    if (!cpu.in_guest) host_at(launch_address);
    RunEnd end = run(ticks);
    while (end == RunEnd::yielded) end = run(ticks); // PAUSE
    return end;
}

void VmxHarness::place_guest(const Code& guest_code) {
    const u64 rights = get(F::guest_cs_access_rights);
    const bool long_mode = (get(F::vm_entry_controls) & vm_entry::ia_32e_mode_guest) && (rights & AR::L);
    const bool protected_mode = get(F::guest_cr0) & CR0::PE && !(get(F::guest_rflags) & RFLAGS::VM);
    const CodeMode mode = long_mode         ? CodeMode::long64
                          : rights & AR::DB ? CodeMode::protected32
                          : protected_mode  ? CodeMode::protected16
                                            : CodeMode::real16;
    const u64 base = get(F::guest_cs_base);
    const u64 linear = base + get(F::guest_rip);
    if (!guest_code.text.empty())
        REQUIRE(disassemble_all(mode, guest_code.bytes, linear - base) == guest_code.text);
    memory.write_bytes(Physical{linear}, guest_code.bytes.data(), guest_code.bytes.size());
}

void VmxHarness::guest(const Code& guest_code, Tick ticks) {
    place_guest(guest_code);
    run_guest(ticks);
}

} // namespace exeunt::test
