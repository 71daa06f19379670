// What a processor watches: breakpoints in code and data, the line that MONITOR armed. SDM 3B 17.2 "Debug Registers";
// SDM 2B MONITOR, MWAIT.
#include "cpu/cpu.hpp"

#include <cstring>

namespace exeunt {

/// Pages with data breakpoints take the slow way to memory, where accesses are compared.
void Cpu::watch_debug_addresses() {
    if (!((dr7 | watched_dr7_) & DR7::enables)) return;
    std::vector<u64> pages;
    for (unsigned i = 0; i < 4; ++i)
        if (((dr7 >> (2 * i)) & 3) && (extract(dr7, 17 + 4 * i, 16 + 4 * i) & 1)) {
            pages.push_back(dr[i] & ~u64{0xFFF});
            pages.push_back((dr[i] + 7) & ~u64{0xFFF});
        }
    watched_dr7_ = dr7;
    mmu.watch_pages(std::move(pages));
}

void Cpu::match_data_breakpoint(u64 linear, unsigned bytes, bool write) {
    // SDM 3A 17.2.4 "Debug Control Register (DR7)", 17.2.5 "Breakpoint Field Recognition".
    static constexpr unsigned lengths[] = {1, 2, 8, 4};
    for (unsigned i = 0; i < 4; ++i) {
        const u64 condition = extract(dr7, 17 + 4 * i, 16 + 4 * i);
        const bool wanted = condition == 3 || (condition == 1 && write);
        if (!((dr7 >> (2 * i)) & 3) || !wanted) continue;
        const u64 length = lengths[extract(dr7, 19 + 4 * i, 18 + 4 * i)];
        const u64 first = dr[i] & ~(length - 1);
        if (linear < first + length && first < linear + bytes) pending_debug |= bit(i);
    }
}

void Cpu::arm_monitor(u64 physical) {
    monitor_armed = true;
    monitor_address = align_down(physical, 64);
    memory.read_bytes(Physical{monitor_address}, monitor_line, sizeof monitor_line);
}

/// Whether what MWAIT, UMWAIT or TPAUSE wait for has happened. SDM 2B MWAIT, TPAUSE, UMWAIT.
bool Cpu::wait_over() {
    if (now() >= wait_until) {
        if (wait_is_limited) flags.cf = 1;
        return true;
    }
    // An interrupt ends the waits with a deadline even while RFLAGS.IF is 0.
    if (wait_until != never && controller && controller->interrupt_pending()) return true;
    return activity == Activity::mwait && monitor_hit();
}

bool Cpu::monitor_hit() const {
    if (!monitor_armed) return true;
    if (mwait_break_on_interrupt && controller && controller->interrupt_pending()) return true;
    u64 line[8];
    memory.read_bytes(Physical{monitor_address}, line, sizeof line);
    return std::memcmp(line, monitor_line, sizeof line) != 0;
}

Result<void> Cpu::check_code_breakpoints() {
    if (flag(RFLAGS::RF) || !(dr7 & DR7::enables)) return {};
    const u64 linear = code64() ? rip : (seg(Seg::CS).base + rip) & 0xFFFF'FFFF;
    u64 hit = 0;
    for (unsigned i = 0; i < 4; ++i) {
        const bool enabled = (dr7 >> (2 * i)) & 3;
        if (enabled && extract(dr7, 17 + 4 * i, 16 + 4 * i) == 0 && dr[i] == linear) hit |= bit(i);
    }
    if (hit) return debug_exception(hit);
    return {};
}

}  // namespace exeunt
