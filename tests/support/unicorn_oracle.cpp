#include "tests/support/unicorn_oracle.hpp"

#include "base/ensure.hpp"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <unicorn/unicorn.h>

namespace exeunt::test {

namespace {

constexpr int gpr_ids[] = {UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP,
                           UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_R8,  UC_X86_REG_R9,  UC_X86_REG_R10, UC_X86_REG_R11,
                           UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15};
constexpr int legacy_ids[] = {UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
                              UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI};

}  // namespace

struct UnicornOracle::Engine {
    CaseMode mode;
    uc_engine* uc = nullptr;
    u8* data = nullptr;
    u8* code = nullptr;
    u64 cursor = 0;
    int interrupt = Fault::none;
    std::vector<int> ids;
    std::vector<void*> values;
    Registers registers;
    u64 flags = 0;

    static void on_interrupt(uc_engine* uc, u32 number, void* self) {
        static_cast<Engine*>(self)->interrupt = static_cast<int>(number);
        uc_emu_stop(uc);
    }
};

namespace {

void must(uc_err error) { ENSURE(error == UC_ERR_OK); }

}  // namespace

UnicornOracle::UnicornOracle(CaseMode mode) : engine_(std::make_unique<Engine>()) {
    Engine& e = *engine_;
    e.mode = mode;
    const uc_mode modes[] = {UC_MODE_16, UC_MODE_32, UC_MODE_64};
    must(uc_open(UC_ARCH_X86, modes[static_cast<unsigned>(mode)], &e.uc));
    const auto allocate = [](u64 bytes) {
        return static_cast<u8*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    };
    const bool real = mode == CaseMode::real16;
    e.data = allocate(data_bytes(mode));
    e.code = allocate(0x10000);
    std::memset(e.code, 0xF4, 0x10000);
    const u64 writable = real ? data_bytes(mode) : place::read_only - place::data;
    must(uc_mem_map_ptr(e.uc, place::data, writable, UC_PROT_READ | UC_PROT_WRITE, e.data));
    if (!real)
        must(uc_mem_map_ptr(e.uc, place::read_only, 0x1000, UC_PROT_READ, e.data + writable));
    must(uc_mem_map_ptr(e.uc, place::code, real ? 0x10000 : place::code_bytes, UC_PROT_READ | UC_PROT_EXEC, e.code));
    uc_hook hook = 0;
    must(uc_hook_add(e.uc, &hook, UC_HOOK_INTR, reinterpret_cast<void*>(&Engine::on_interrupt), &e, 1, 0));
    // In the manual's order: what SSE needs (OSFXSR, OSXMMEXCPT), and NE.
    u64 cr0 = 0, cr4 = CR4::OSFXSR | CR4::OSXMMEXCPT;
    must(uc_reg_read(e.uc, UC_X86_REG_CR0, &cr0));
    cr0 |= CR0::NE | CR0::MP;
    must(uc_reg_write(e.uc, UC_X86_REG_CR0, &cr0));
    must(uc_reg_write(e.uc, UC_X86_REG_CR4, &cr4));
    if (real) {
        constexpr int segments[] = {UC_X86_REG_ES, UC_X86_REG_CS, UC_X86_REG_SS,
                                    UC_X86_REG_DS, UC_X86_REG_FS, UC_X86_REG_GS};
        for (unsigned s = 0; s < 6; ++s) {
            u64 selector = segment_base(mode, static_cast<Seg>(s)) >> 4;
            must(uc_reg_write(e.uc, segments[s], &selector));
        }
    }
    if (mode == CaseMode::long64) {
        u64 fs = place::fs_base, gs = place::gs_base;
        must(uc_reg_write(e.uc, UC_X86_REG_FS_BASE, &fs));
        must(uc_reg_write(e.uc, UC_X86_REG_GS_BASE, &gs));
    }
    const bool wide = mode == CaseMode::long64;
    const auto add = [&](int id, void* value) {
        e.ids.push_back(id);
        e.values.push_back(value);
    };
    for (unsigned i = 0; i < (wide ? 16u : 8u); ++i) add(wide ? gpr_ids[i] : legacy_ids[i], &e.registers.r[i]);
    for (unsigned i = 0; i < (wide ? 16u : 8u); ++i) add(UC_X86_REG_XMM0 + static_cast<int>(i), e.registers.vector[i]);
    add(UC_X86_REG_MXCSR, &e.registers.mxcsr);
    add(UC_X86_REG_EFLAGS, &e.flags);
}

UnicornOracle::~UnicornOracle() {
    uc_close(engine_->uc);
    munmap(engine_->data, data_bytes(engine_->mode));
    munmap(engine_->code, 0x10000);
}

std::span<u8> UnicornOracle::data() { return {engine_->data, data_bytes(engine_->mode)}; }

Outcome UnicornOracle::run(const Case& c) {
    Engine& e = *engine_;
    const bool real = c.mode == CaseMode::real16;
    const u64 offset = real ? c.before.rip : c.before.rip - place::code;
    const u64 linear = place::code + offset;
    std::copy_n(c.bytes.begin(), c.insn.length, e.code + offset);
    uc_ctl_remove_cache(e.uc, linear, linear + 16);
    e.registers = c.before;
    e.flags = c.before.rflags;
    uc_reg_write_batch(e.uc, e.ids.data(), e.values.data(), static_cast<int>(e.ids.size()));
    e.interrupt = Fault::none;
    // In real-address mode Unicorn wants the linear address, and makes the offset of it.
    const u64 begin = linear;
    // One instruction, and one that repeats to its end.
    const std::size_t most = c.insn.repeat == Repeat::none ? 1 : 0;
    const uc_err error = uc_emu_start(e.uc, begin, begin + c.insn.length, 0, most);
    uc_reg_read_batch(e.uc, e.ids.data(), e.values.data(), static_cast<int>(e.ids.size()));
    u64 rip = 0;
    uc_reg_read(e.uc, real ? UC_X86_REG_IP : c.mode == CaseMode::long64 ? UC_X86_REG_RIP : UC_X86_REG_EIP, &rip);
    std::memset(e.code + offset, 0xF4, c.insn.length);
    Outcome outcome;
    outcome.after = e.registers;
    outcome.after.rflags = low32(e.flags);
    outcome.after.rip = rip;
    switch (error) {
        case UC_ERR_OK: outcome.fault.vector = e.interrupt; break;
        case UC_ERR_INSN_INVALID: outcome.fault.vector = static_cast<int>(Vector::UD); break;
        case UC_ERR_READ_UNMAPPED:
        case UC_ERR_WRITE_UNMAPPED:
        case UC_ERR_READ_PROT:
        case UC_ERR_WRITE_PROT: outcome.fault.vector = Fault::memory; break;
        // The instruction was a branch that arrived where nothing can be fetched: it is complete.
        case UC_ERR_FETCH_UNMAPPED:
        case UC_ERR_FETCH_PROT: break;
        default: outcome.fault.vector = Fault::any; break;
    }
    // What it did not translate, and what faulted, may come back as success that went nowhere.
    const bool stays = c.insn.repeat != Repeat::none || (c.insn.row->ends == Ends::block && c.insn.row->name[0] != 'U');
    if (error == UC_ERR_OK && outcome.fault.vector == Fault::none && rip == c.before.rip && !stays)
        outcome.fault.vector = Fault::any;
    // QEMU remembers an exception whose delivery it never finishes here, and makes a double fault of the next.
    if (outcome.fault.vector == static_cast<int>(Vector::DF)) outcome.fault.vector = Fault::any;
    if (outcome.fault.vector != Fault::none) outcome.after.rip = c.before.rip;
    return outcome;
}

}  // namespace exeunt::test
