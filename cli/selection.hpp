// One record of a recording, as the user names it: --record N, or --exit N.
#pragma once

#include "diagnosis/violations.hpp"
#include "traces/records.hpp"

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

namespace exeunt {

struct RecordChoice {
    std::string directory;
    u64 record = 0; ///< from 1, as `exeunt trace list` counts; 0: not given
    u64 exit = 0;   ///< the n-th VM exit, from 1
};

/// DIR, --record and --exit.
void add_record_options(CLI::App& verb, RecordChoice& choice, bool directory_required);

struct ChosenRecord {
    Record record;
    u64 number = 0;
    std::vector<ExplainedRule> rules; ///< of a VM entry failure: what it violates
};

/// Throws BadInput when the recording has no such record.
ChosenRecord choose_record(const RecordChoice& choice);

/// "record 12: vm_exit at tick 345, CPU 0".
std::string record_heading(const ChosenRecord& chosen);

} // namespace exeunt
