#include "cpu/branch_records.hpp"

#include "cpu/msrs.hpp"

namespace exeunt {

void record_branch(Cpu& cpu, u64 from, u64 to) {
    cpu.msrs->store(Msr::BR_FROM, from);
    cpu.msrs->store(Msr::BR_TO, to);
}

void record_event(Cpu& cpu, u64 from, u64 to) {
    cpu.msrs->store(Msr::LASTEXCPFROM, cpu.msrs->stored(Msr::BR_FROM));
    cpu.msrs->store(Msr::LASTEXCPTO, cpu.msrs->stored(Msr::BR_TO));
    record_branch(cpu, from, to);
}

} // namespace exeunt
