#include "tests/differential/silicon_oracle.hpp"

#include "arch/features.hpp"

#if defined(__x86_64__) && defined(__linux__)

#include <algorithm>
#include <asm/prctl.h>
#include <cpuid.h>
#include <csignal>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace exeunt::test {

namespace {

constexpr int gpr_of_frame[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};

/// The part of the signal frame that is used: the XSAVE area's legacy region, header and, after them, the
/// upper halves of YMM registers. The kernel says in the reserved bytes of the legacy region what else is
/// there.
struct Frame {
    static constexpr unsigned at_magic = 464, at_features = 472, at_present = 512, at_upper = 576,
                              bytes = 832;
    static constexpr u32 magic = 0x4650'5853;
    static constexpr u64 legacy = 3, avx = 4;

    u8* at;
    explicit Frame(fpregset_t fpregs) : at(reinterpret_cast<u8*>(fpregs)) {}
    template <class T>
    T get(unsigned offset) const {
        T value;
        std::memcpy(&value, at + offset, sizeof value);
        return value;
    }
    bool has_upper() const { return get<u32>(at_magic) == magic && (get<u64>(at_features) & avx); }
    unsigned size() const { return has_upper() ? bytes : at_upper; }
};

/// What the signal handler works on: there is no other way to reach it.
struct Exchange {
    const Case* wanted = nullptr;
    bool step = false;
    bool running = false;
    Outcome outcome;
    gregset_t saved_registers;
    std::array<u8, Frame::bytes> saved_vectors;
};
Exchange* exchange = nullptr;

void load_vectors(const Registers& from, fpregset_t frame) {
    const unsigned top = from.x87.top();
    frame->cwd = from.x87.control;
    frame->swd = from.x87.status;
    frame->ftw = static_cast<u8>(~from.x87.empty);
    frame->fop = 0;
    frame->rip = frame->rdp = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const X87Register& st = from.x87.st[(top + i) & 7];
        std::memcpy(&frame->_st[i], &st.significand, 8);
        std::memcpy(reinterpret_cast<u8*>(&frame->_st[i]) + 8, &st.sign_exponent, 2);
    }
    frame->mxcsr = from.mxcsr;
    const Frame area(frame);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(&frame->_xmm[i], from.vector[i], 16);
        if (area.has_upper()) std::memcpy(area.at + Frame::at_upper + 16 * i, from.vector[i] + 2, 16);
    }
    // XSTATE_BV: what was written is there and not in its initial state.
    const u64 present =
        area.get<u64>(Frame::at_present) | Frame::legacy | (area.has_upper() ? Frame::avx : 0);
    std::memcpy(area.at + Frame::at_present, &present, 8);
}

void save_vectors(_libc_fpstate& frame, Registers& to) {
    to.x87.control = frame.cwd;
    to.x87.status = frame.swd;
    to.x87.empty = static_cast<u8>(~frame.ftw);
    const unsigned top = to.x87.top();
    for (unsigned i = 0; i < 8; ++i) {
        X87Register& st = to.x87.st[(top + i) & 7];
        std::memcpy(&st.significand, &frame._st[i], 8);
        std::memcpy(&st.sign_exponent, reinterpret_cast<const u8*>(&frame._st[i]) + 8, 2);
    }
    to.mxcsr = frame.mxcsr;
    const Frame area(&frame);
    const bool upper = area.has_upper() && (area.get<u64>(Frame::at_present) & Frame::avx);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(to.vector[i], &frame._xmm[i], 16);
        std::fill_n(to.vector[i] + 2, 2, 0);
        if (upper) std::memcpy(to.vector[i] + 2, area.at + Frame::at_upper + 16 * i, 16);
    }
}

void enter(mcontext_t& frame) {
    Exchange& x = *exchange;
    const Registers& from = x.wanted->before;
    std::memcpy(x.saved_registers, frame.gregs, sizeof x.saved_registers);
    const Frame area(frame.fpregs);
    std::memcpy(x.saved_vectors.data(), area.at, area.size());
    for (unsigned i = 0; i < 16; ++i) frame.gregs[gpr_of_frame[i]] = static_cast<greg_t>(from.r[i]);
    frame.gregs[REG_RIP] = static_cast<greg_t>(from.rip);
    frame.gregs[REG_EFL] = static_cast<greg_t>(from.rflags | (x.step ? RFLAGS::TF : 0));
    frame.gregs[REG_CSGSFS] = (frame.gregs[REG_CSGSFS] & ~0xFFFF) | SiliconOracle::code_selector(x.wanted->mode);
    load_vectors(from, frame.fpregs);
    x.running = true;
}

void leave(mcontext_t& frame) {
    Exchange& x = *exchange;
    Registers& to = x.outcome.after;
    for (unsigned i = 0; i < 16; ++i) to.r[i] = static_cast<u64>(frame.gregs[gpr_of_frame[i]]);
    to.rip = static_cast<u64>(frame.gregs[REG_RIP]);
    to.rflags = static_cast<u64>(frame.gregs[REG_EFL]) & ~(x.step ? RFLAGS::TF : 0);
    save_vectors(*frame.fpregs, to);
    const auto vector = static_cast<int>(frame.gregs[REG_TRAPNO]);
    Fault& fault = x.outcome.fault;
    fault = {vector, static_cast<u32>(frame.gregs[REG_ERR]), 0};
    if (vector == static_cast<int>(Vector::PF)) fault.address = static_cast<u64>(frame.gregs[REG_CR2]);
    if (vector == static_cast<int>(Vector::DB)) fault = {};
    if (vector == static_cast<int>(Vector::BP)) {
        fault = {};
        --to.rip;
    }
    std::memcpy(frame.gregs, x.saved_registers, sizeof x.saved_registers);
    const Frame area(frame.fpregs);
    std::memcpy(area.at, x.saved_vectors.data(), area.size());
    x.running = false;
}

void on_signal(int number, siginfo_t*, void* context) {
    // The kernel leaves RFLAGS.AC, NT and ID as the case had them; we are not aligned, and the next case is another.
    asm volatile("pushfq\n\tandq $~0x244000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
    mcontext_t& frame = static_cast<ucontext_t*>(context)->uc_mcontext;
    if (exchange && exchange->running) {
        leave(frame);
    } else if (exchange && exchange->wanted) {
        enter(frame);
    } else {
        std::signal(number, SIG_DFL);  // not ours
    }
}

u8* map_at(u64 address, u64 bytes, int protection, int file) {
    void* at = mmap(reinterpret_cast<void*>(address), bytes, protection,
                    MAP_SHARED | MAP_POPULATE | MAP_FIXED_NOREPLACE, file, 0);
    if (at != reinterpret_cast<void*>(address)) throw std::runtime_error("the native address space is taken");
    return static_cast<u8*>(at);
}

/// Instructions that can go elsewhere are single-stepped.
bool may_branch(const Case& c) {
    const std::string_view name = c.insn.row->name;
    return name == "JMP" || name == "CALL" || name == "RET" ||
           (c.insn.operand_count > 0 && c.insn.operand[0].kind == OperandKind::relative);
}

}  // namespace

struct SiliconOracle::Native {
    Exchange exchange;
    u8* data = nullptr;
    u8* code = nullptr;
    u8* stack = nullptr;
    struct sigaction before[std::size(signals)];
    stack_t stack_before{};
    static constexpr u64 stack_bytes = 0x20000;
};

bool SiliconOracle::available() { return true; }

const char* SiliconOracle::model_name() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    return c == signature_AMD_ecx ? "amd-max" : "intel-max";
}

bool SiliconOracle::surveyed() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    const unsigned family = (a >> 8 & 0xF) + (a >> 20 & 0xFF);  // SDM 2A Figure 3-6: extended when the first is FH
    return model_name() == std::string_view{"amd-max"} && family == 0x1A;
}

CpuModel SiliconOracle::restrict(CpuModel model) {
    for (const FeatureRow& row : feature_rows()) {
        unsigned answer[4] = {};
        const bool known = __get_cpuid_count(row.leaf, row.subleaf, &answer[0], &answer[1], &answer[2], &answer[3]);
        if (!known || !(answer[static_cast<unsigned>(row.reg)] >> row.bit & 1)) model.features.set(row.feature, false);
    }
    return model;
}

SiliconOracle::SiliconOracle() : native_(std::make_unique<Native>()) {
    Native& n = *native_;
    constexpr u64 bytes = place::data_end - place::data;
    // Data and code are mapped twice: where the case expects them, with its rights, and for us.
    const auto share = [](u64 address, u64 size, int protection) {
        const int file = memfd_create("case", 0);
        if (file < 0 || ftruncate(file, static_cast<off_t>(size)) != 0) throw std::runtime_error("memfd_create");
        map_at(address, size, protection, file);
        void* ours = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        return static_cast<u8*>(ours);
    };
    n.data = share(place::data, bytes, PROT_READ | PROT_WRITE);
    mprotect(reinterpret_cast<void*>(place::read_only), 0x1000, PROT_READ);
    // A page that was never read is not present yet, and the error code would say so.
    (void)*reinterpret_cast<volatile u8*>(place::read_only);
    n.code = share(place::code, place::code_bytes, PROT_READ | PROT_EXEC);
    std::memset(n.code, 0xCC, place::code_bytes);
    n.stack = static_cast<u8*>(
        mmap(nullptr, Native::stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    const stack_t alternate{n.stack, 0, Native::stack_bytes};
    sigaltstack(&alternate, &n.stack_before);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (std::size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &action, &n.before[i]);
    // 64-bit code does not look at these; compatibility mode needs them flat.
    asm volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(u32{data_selector}));
    syscall(SYS_arch_prctl, ARCH_SET_GS, place::gs_base);
    exchange = &n.exchange;
}

SiliconOracle::~SiliconOracle() {
    Native& n = *native_;
    exchange = nullptr;
    for (std::size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &n.before[i], nullptr);
    sigaltstack(&n.stack_before, nullptr);
    constexpr u64 bytes = place::data_end - place::data;
    munmap(n.data, bytes);
    munmap(n.code, place::code_bytes);
    munmap(reinterpret_cast<void*>(place::data), bytes);
    munmap(reinterpret_cast<void*>(place::code), place::code_bytes);
    munmap(n.stack, Native::stack_bytes);
}

std::span<u8> SiliconOracle::data() { return {native_->data, data_bytes(CaseMode::long64)}; }

Outcome SiliconOracle::run(const Case& c) {
    Native& n = *native_;
    u8* at = n.code + (c.before.rip - place::code);
    std::memcpy(at, c.bytes.data(), c.insn.length);
    n.exchange.wanted = &c;
    n.exchange.step = may_branch(c) && c.insn.repeat == Repeat::none;
    asm volatile("int3" : : : "memory");
    n.exchange.wanted = nullptr;
    std::memset(at, 0xCC, c.insn.length);
    return n.exchange.outcome;
}

}  // namespace exeunt::test

#else

namespace exeunt::test {

struct SiliconOracle::Native {};
bool SiliconOracle::available() { return false; }
const char* SiliconOracle::model_name() { return "intel-max"; }
bool SiliconOracle::surveyed() { return false; }
CpuModel SiliconOracle::restrict(CpuModel model) { return model; }
SiliconOracle::SiliconOracle() {}
SiliconOracle::~SiliconOracle() = default;
std::span<u8> SiliconOracle::data() { return {}; }
Outcome SiliconOracle::run(const Case&) { return {}; }

}  // namespace exeunt::test

#endif
