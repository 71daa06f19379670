#include "tests/support/svm_harness.hpp"

#include "cpu/msrs.hpp"
#include "svm/msrs.hpp"

#include <doctest/doctest.h>

namespace exeunt::test {

CpuModel svm_model() { return CpuModel::load("amd-max"); }

SvmHarness::SvmHarness(const CpuModel& model_) : Harness(model_, Mode::long64), svm(cpu, &interconnect) {
    cpu.controller = &interrupts;
    cpu.observer = &witness;
    cpu.control.efer |= EFER::SVME;
    memory.write_bytes(Physical{vmrun_address}, "\x0F\x01\xD8\xF4", 4); // VMRUN; HLT
    fill_vmcb();
}

void SvmHarness::fill_vmcb() {
    intercept(ExitCode::VMRUN);
    intercept(ExitCode::VMMCALL);
    intercept(ExitCode::HLT);
    set(VMCB::iopm_base_pa, iopm);
    set(VMCB::msrpm_base_pa, msrpm);
    set(VMCB::guest_asid, 1);
    set(VMCB::n_cr3, nested_tables);
    set(VMCB::g_pat, cpu.pat);
    u8 bytes[VMCB::bytes];
    memory.read_bytes(Physical{vmcb}, bytes, sizeof bytes);
    VmcbView v(bytes);
    v.put_segment(VMCB::es_selector, cpu.seg(Seg::ES));
    v.put_segment(VMCB::cs_selector, cpu.seg(Seg::CS));
    v.put_segment(VMCB::ss_selector, cpu.seg(Seg::SS));
    v.put_segment(VMCB::ds_selector, cpu.seg(Seg::DS));
    memory.write_bytes(Physical{vmcb}, bytes, sizeof bytes);
    set(VMCB::gdtr_limit, cpu.gdtr.limit);
    set(VMCB::gdtr_base, cpu.gdtr.base);
    set(VMCB::idtr_limit, cpu.idtr.limit);
    set(VMCB::idtr_base, cpu.idtr.base);
    set(VMCB::efer, cpu.control.efer);
    set(VMCB::cr0, cpu.control.cr0);
    set(VMCB::cr3, cpu.control.cr3);
    set(VMCB::cr4, cpu.control.cr4);
    set(VMCB::dr6, DR6::fixed1);
    set(VMCB::dr7, DR7::fixed1);
    set(VMCB::rflags, RFLAGS::FIXED1);
    set(VMCB::rip, code_address);
    set(VMCB::rsp, stack_top);
}

void SvmHarness::intercept(u64 code, bool on) {
    const u64 at = vmcb + 4 * (code / 32);
    const u64 mask = bit(static_cast<unsigned>(code % 32));
    write(at, on ? read(at, 4) | mask : read(at, 4) & ~mask, 4);
}

void SvmHarness::use_npt() {
    constexpr u64 all = 7;
    set(VMCB::nested_control, VMCB::NP_ENABLE);
    write(nested_tables, (nested_tables + 0x1000) | all);
    write(nested_tables + 0x1000, (nested_tables + 0x2000) | all);
    for (u64 i = 0; i < 8; ++i)
        write(nested_tables + 0x2000 + 8 * i, (nested_tables + 0x3000 + 0x1000 * i) | all);
    for (u64 page = 0; page < 0x100'0000; page += 0x1000) write(npt_entry_address(page), page | all);
}

void SvmHarness::host_at_vmrun() {
    cpu.rip = cpu.next_rip = vmrun_address;
    cpu.r[RAX] = vmcb;
    cpu.activity = Activity::active;
}

void SvmHarness::use_avic(bool x2apic) {
    use_npt();
    set(VMCB::interrupt_control,
        VMCB::INT::AVIC_ENABLE | VMCB::INT::V_INTR_MASKING | (x2apic ? VMCB::INT::X2AVIC_ENABLE : 0));
    set(VMCB::avic_apic_bar, apic_page);
    set(VMCB::avic_backing_page, backing_page);
    set(VMCB::avic_logical_table, logical_table);
    set(VMCB::avic_physical_table, physical_table | 0xFF);
    set(VMCB::rflags, RFLAGS::FIXED1 | RFLAGS::IF);
    write(backing_page + 0xE0, 0xFFFF'FFFF, 4); // DFR: flat
    write(physical_table, backing_page | AVIC::PHYSICAL::V | AVIC::PHYSICAL::IR);
    write(physical_table + 8, other_backing_page | AVIC::PHYSICAL::V | AVIC::PHYSICAL::IR | 1);
}

RunEnd SvmHarness::run_guest(Tick ticks) {
    if (!cpu.in_guest) host_at_vmrun();
    RunEnd end = run(ticks);
    while (end == RunEnd::yielded) end = run(ticks); // PAUSE
    return end;
}

void SvmHarness::guest(const Code& guest_code, Tick ticks) {
    if (!guest_code.text.empty())
        REQUIRE(disassemble_all(CodeMode::long64, guest_code.bytes, guest_rip()) == guest_code.text);
    memory.write_bytes(Physical{guest_rip()}, guest_code.bytes.data(), guest_code.bytes.size());
    run_guest(ticks);
}

std::string SvmHarness::enter() {
    host_at_vmrun();
    cpu.step();
    if (cpu.in_guest) return {};
    std::string ids;
    for (const VmrunCheck* check : svm.last_refusal())
        ids += (ids.empty() ? "" : " ") + std::string(check->id);
    return ids;
}

} // namespace exeunt::test
