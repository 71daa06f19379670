// What reading and writing the MSRs of performance monitoring does: rules that cpu/msrs.inc names.
// SDM 3B 18.2 "Architectural Performance Monitoring".
#pragma once

#include "cpu/cpu.hpp"
#include "cpu/performance.hpp"

namespace exeunt::msr_rules {

template <unsigned n>
Result<u64> pmc_read(Cpu& cpu, u64) {
    return cpu.performance->counter(n);
}
template <unsigned n>
Result<u64> pmc_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->set_counter(n, value);
    return u64{0};
}
template <unsigned n>
Result<u64> perfevtsel_read(Cpu& cpu, u64) {
    return cpu.performance->select(n);
}
template <unsigned n>
Result<u64> perfevtsel_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->set_select(n, value);
    return u64{0};
}
template <unsigned n>
Result<u64> fixed_ctr_read(Cpu& cpu, u64) {
    return cpu.performance->fixed_counter(n);
}
template <unsigned n>
Result<u64> fixed_ctr_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->set_fixed_counter(n, value);
    return u64{0};
}

inline Result<u64> fixed_ctr_ctrl_read(Cpu& cpu, u64) { return cpu.performance->fixed_control(); }
inline Result<u64> fixed_ctr_ctrl_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->set_fixed_control(value);
    return u64{0};
}
inline Result<u64> perf_global_ctrl_read(Cpu& cpu, u64) { return cpu.performance->global_control(); }
inline Result<u64> perf_global_ctrl_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->set_global_control(value);
    return u64{0};
}
inline Result<u64> perf_global_status_read(Cpu& cpu, u64) { return cpu.performance->status(); }
inline Result<u64> perf_global_ovf_ctrl_read(Cpu&, u64) { return u64{0}; }
inline Result<u64> perf_global_ovf_ctrl_write(Cpu& cpu, u64, u64 value) {
    cpu.performance->clear_status(value);
    return u64{0};
}

} // namespace exeunt::msr_rules
