// exeunt as the thing under test: a processor in each mode, with the memory of a case and nothing else mapped.
#pragma once

#include "tests/differential/case.hpp"
#include "tests/support/harness.hpp"

#include <span>

namespace exeunt::test {

/// Under which circumstances a case is run: those of the oracle.
struct Surroundings {
    CaseMode mode = CaseMode::long64;
    bool user = false;              ///< CPL 3, CR0.AM = 1: as a native process has it
    bool system_mapped = false;     ///< the tables that delivery of events needs are mapped for the supervisor
    u16 code_selector = 0, data_selector = 0, other_selector = 0;
};

class Subject {
public:
    Subject(const Surroundings& surroundings, const CpuModel& model);

    /// One instruction, by its general handler. Nothing is delivered: a fault is an outcome.
    Outcome run(const Case& c);
    /// Data as it is now.
    std::span<u8> data() { return {harness_.memory.native(Physical{place::data}), data_bytes(surroundings_.mode)}; }
    /// Loads the registers of a case.
    void load(const Registers& registers);
    Registers registers() const;
    Harness& harness() { return harness_; }

private:
    void map_pages();

    Surroundings surroundings_;
    Harness harness_;
    CpuState initial_;
};

}  // namespace exeunt::test
