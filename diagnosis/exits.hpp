// What a VM exit, a VM entry or its failure says, in words. SDM 3C 27.2 "Recording VM-Exit
// Information", 24.9; APM 2 15.7.1 "State Saved on Exit", 15.20 "Event Injection".
#pragma once

#include "diagnosis/words.hpp"
#include "traces/records.hpp"

namespace exeunt {

/// One line of an explanation: a field, its value, and what it means. A line without a name goes on about the
/// field above it.
struct Explained {
    std::string name, value, words;
};

/// The exit reason (VMX) or exit code (SVM) in words; empty for one that does not exist.
std::string exit_name(bool svm, u64 reason);
/// By its number, or by its name as `exeunt trace list` prints it (any case); false when there is none.
bool find_exit(bool svm, std::string_view text, u64& reason);
/// What the qualification (EXITINFO1) of an exit means. `vector`: of an exception.
std::vector<Words> qualification_in_words(bool svm, u64 reason, u64 qualification, u64 vector = 0);
/// SVM: EXITINFO2.
std::vector<Words> second_qualification_in_words(u64 code, u64 info);
/// VMX: the VM-exit instruction information.
std::vector<Words> instruction_information_in_words(u64 reason, u64 information);
/// Whether the exit has instruction information, and whether the instruction length is defined, for people.
std::string length_rule(u64 reason);

/// All fields of a record in words; those that say nothing are left out.
std::vector<Explained> explain_record(const Record& record);

} // namespace exeunt
