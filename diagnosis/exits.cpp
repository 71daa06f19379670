#include "diagnosis/exits.hpp"

#include "base/bits.hpp"
#include "machine/run_loop.hpp"
#include "svm/exit_codes.hpp"
#include "vmx/exit_reasons.hpp"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>

namespace exeunt {

namespace {

struct VmxExitRow {
    u16 number;
    std::string_view name, manual, qualification, information, length;
};
constexpr VmxExitRow vmx_exits[] = {
#define EXIT_REASON(number, name, manual, qualification, information, length) \
    {number, #name, manual, #qualification, #information, #length},
#include "vmx/exit_reasons.inc"
};

const VmxExitRow* vmx_exit(u64 reason) {
    for (const VmxExitRow& row : vmx_exits)
        if (row.number == (reason & 0xFFFF)) return &row;
    return nullptr;
}

/// What EXITINFO1 and EXITINFO2 hold, by exit code. APM 2 15.8 to 15.12, 15.25.6, 15.29.3.
struct SvmExitRow {
    u64 first, last;
    std::string_view info1, info2;
};
constexpr SvmExitRow svm_exits[] = {
    {0x000, 0x01F, "svm_cr", ""},
    {0x020, 0x03F, "svm_dr", ""},
    {ExitCode::EXCP0 + 14, ExitCode::EXCP0 + 14, "page_fault", "linear_address"},
    {ExitCode::SWINT, ExitCode::SWINT, "svm_vector", ""},
    {ExitCode::INVLPG, ExitCode::INVLPG, "linear_address", ""},
    {ExitCode::IOIO, ExitCode::IOIO, "svm_io", "svm_next_rip"},
    {ExitCode::MSR, ExitCode::MSR, "svm_msr", ""},
    {ExitCode::TASK_SWITCH, ExitCode::TASK_SWITCH, "svm_selector", "svm_task_switch"},
    {ExitCode::NPF, ExitCode::NPF, "nested_page_fault", "guest_physical_address"},
    {ExitCode::AVIC_INCOMPLETE_IPI, ExitCode::AVIC_INCOMPLETE_IPI, "avic_ipi", "avic_ipi_cause"},
    {ExitCode::AVIC_NOACCEL, ExitCode::AVIC_NOACCEL, "avic_access", "svm_vector"},
};

const SvmExitRow* svm_exit(u64 code) {
    for (const SvmExitRow& row : svm_exits)
        if (code >= row.first && code <= row.last) return &row;
    return nullptr;
}

std::string lower(std::string_view text) {
    std::string low(text);
    for (char& c : low) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return low;
}

/// A field with its parts: on one line where they fit, else a line each.
void add(std::vector<Explained>& to, std::string name, std::string value, const std::vector<Words>& words) {
    constexpr std::size_t fits = 60;
    const std::string line = on_one_line(words);
    if (line.size() <= fits) {
        to.push_back({std::move(name), std::move(value), line});
        return;
    }
    to.push_back({std::move(name), std::move(value), ""});
    for (const Words& w : words) to.push_back({"", "", w.name.empty() ? w.words : w.name + ": " + w.words});
}

std::string hexadecimal(u64 value) { return fmt::format("{:#x}", value); }

void explain_events(const Record& r, std::vector<Explained>& to, std::string_view information,
                    std::string_view error, std::string_view what) {
    const u64 value = r[information];
    if (!(value & bit(31))) return;
    const bool svm = r["vendor"] == 1;
    add(to, std::string(what), hexadecimal(value),
        svm ? in_words("svm_event", value | r[error] << 32) : in_words("interruption", value));
    if (!svm && (value & bit(11)))
        add(to, std::string(what) + " error", hexadecimal(r[error]),
            (value & 0xFF) == 14 ? in_words("page_fault", r[error]) : std::vector<Words>{});
}

void explain_reason(const Record& r, std::vector<Explained>& to) {
    const bool svm = r["vendor"] == 1;
    const u64 reason = r["reason"];
    std::string words = exit_name(svm, reason);
    if (!svm && (reason & exit_reason_entry_failure)) words += ", the VM entry failed";
    add(to, svm ? "EXITCODE" : "exit reason", hexadecimal(reason), {{"", words}});
}

void explain_exit(const Record& r, std::vector<Explained>& to) {
    const bool svm = r["vendor"] == 1;
    const u64 reason = r["reason"];
    explain_reason(r, to);
    to.push_back({"guest RIP", hexadecimal(r["rip"]), ""});
    const u64 qualification = r["qualification"];
    const auto words =
        qualification_in_words(svm, reason, qualification, r["interruption_information"] & 0xFF);
    if (qualification != 0 || !words.empty())
        add(to, svm ? "EXITINFO1" : "exit qualification", hexadecimal(qualification), words);
    if (svm && r["qualification2"] != 0)
        add(to, "EXITINFO2", hexadecimal(r["qualification2"]),
            second_qualification_in_words(reason, r["qualification2"]));
    if (r["instruction_length"] != 0)
        to.push_back({"instruction length", fmt::format("{}", r["instruction_length"]), ""});
    const auto information = instruction_information_in_words(reason, r["instruction_information"]);
    if (!svm && !information.empty())
        add(to, "instruction information", hexadecimal(r["instruction_information"]), information);
    explain_events(r, to, "interruption_information", "interruption_error",
                   svm ? "exception" : "interruption information");
    explain_events(r, to, "idt_vectoring_information", "idt_vectoring_error",
                   svm ? "EXITINTINFO" : "IDT-vectoring information");
    if (r["guest_linear"] != 0) to.push_back({"guest-linear address", hexadecimal(r["guest_linear"]), ""});
    if (r["guest_physical"] != 0 || reason == 48 || reason == 49)
        to.push_back({"guest-physical address", hexadecimal(r["guest_physical"]), ""});
}

void explain_entry(const Record& r, std::vector<Explained>& to) {
    const bool svm = r["vendor"] == 1;
    to.push_back({"instruction", svm ? "VMRUN" : r["launch"] ? "VMLAUNCH" : "VMRESUME", ""});
    to.push_back({"guest RIP", hexadecimal(r["rip"]), "as loaded"});
    explain_events(r, to, "interruption_information", "interruption_error",
                   svm ? "EVENTINJ" : "injected event");
    if (r["instruction_length"] != 0)
        to.push_back(
            {"instruction length", fmt::format("{}", r["instruction_length"]), "of the injected event"});
}

void explain_failure(const Record& r, std::vector<Explained>& to) {
    const bool svm = r["vendor"] == 1;
    const u64 error = r["instruction_error"];
    if (r["reason"] != 0) {
        explain_reason(r, to);
        if (!svm)
            add(to, "exit qualification", hexadecimal(r["qualification"]),
                qualification_in_words(svm, r["reason"], r["qualification"]));
    } else {
        to.push_back({"VM-instruction error", error ? fmt::format("{}", error) : "-",
                      error ? std::string(instruction_error_name(static_cast<u32>(error)))
                            : "VMfailInvalid: no error number"});
    }
    to.push_back({"RIP", hexadecimal(r["rip"]), "of the instruction that tried"});
    to.push_back({"refused by", r.text, ""});
}

std::string end_in_words(u64 reason) {
    static constexpr std::string_view words[] = {"powered off", "isa-debug-exit", "tick limit",
                                                 "a signal",    "the user",       "shutdown",
                                                 "hung",        "not modelled"};
    return reason < std::size(words) ? std::string(words[reason]) : fmt::format("{}", reason);
}

} // namespace

std::string exit_name(bool svm, u64 reason) {
    if (svm) return exit_code_name(static_cast<u32>(reason));
    const VmxExitRow* row = vmx_exit(reason);
    return row ? std::string(row->manual) : std::string{};
}

bool find_exit(bool svm, std::string_view text, u64& reason) {
    const std::string wanted = lower(text);
    if (!svm) {
        for (const VmxExitRow& row : vmx_exits)
            if (wanted == row.name || wanted == lower(row.manual)) {
                reason = row.number;
                return true;
            }
        return false;
    }
    for (u32 code = 0; code <= 0x403; ++code)
        if (wanted == lower(exit_code_name(code))) {
            reason = code;
            return true;
        }
    return false;
}

std::vector<Words> qualification_in_words(bool svm, u64 reason, u64 qualification, u64 vector) {
    if (svm) {
        const SvmExitRow* row = svm_exit(reason);
        return row ? in_words(row->info1, qualification) : std::vector<Words>{};
    }
    const VmxExitRow* row = vmx_exit(reason);
    if (!row) return {};
    if (row->qualification == "debug_or_page_fault")
        return vector == 14  ? in_words("linear_address", qualification)
               : vector == 1 ? in_words("debug", qualification)
                             : std::vector<Words>{};
    return in_words(row->qualification, qualification);
}

std::vector<Words> second_qualification_in_words(u64 code, u64 info) {
    const SvmExitRow* row = svm_exit(code);
    return row ? in_words(row->info2, info) : std::vector<Words>{};
}

std::vector<Words> instruction_information_in_words(u64 reason, u64 information) {
    const VmxExitRow* row = vmx_exit(reason);
    if (!row || (row->information == "ins_outs" && information == 0)) return {};
    return in_words(row->information, information);
}

std::string length_rule(u64 reason) {
    const VmxExitRow* row = vmx_exit(reason);
    if (!row) return {};
    return row->length == "always"  ? "always defined"
           : row->length == "never" ? "undefined"
                                    : "defined for some causes";
}

std::vector<Explained> explain_record(const Record& r) {
    std::vector<Explained> lines;
    switch (r.kind) {
    case RecordKind::vm_exit: explain_exit(r, lines); break;
    case RecordKind::vm_entry: explain_entry(r, lines); break;
    case RecordKind::vm_entry_failure: explain_failure(r, lines); break;
    case RecordKind::violation: lines.push_back({"rule", r.text, ""}); break;
    case RecordKind::state:
        lines.push_back({"state hash", fmt::format("{:016x}{:016x}", r["hash_high"], r["hash_low"]), ""});
        break;
    case RecordKind::end:
        lines.push_back({"ended by", end_in_words(r["reason"]), ""});
        lines.push_back({"exit status", fmt::format("{}", r["status"]), ""});
        lines.push_back({"state hash", fmt::format("{:016x}{:016x}", r["hash_high"], r["hash_low"]), ""});
        break;
    }
    return lines;
}

} // namespace exeunt
