#include "traces/recorder.hpp"

#include "base/bad_input.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace exeunt {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// The file appears whole or not at all, also when the process is killed meanwhile.
void write_file(const std::string& path, const std::string& text) {
    const std::string unfinished = path + ".new";
    std::ofstream out(unfinished, std::ios::binary);
    out << text;
    out.close();
    std::error_code error;
    if (out) fs::rename(unfinished, path, error);
    if (!out || error) throw BadInput(path, "", "a file that can be written");
}

std::string read_file(const std::string& path, const std::string& what) {
    std::error_code error;
    std::ifstream in(path, std::ios::binary);
    if (!in || fs::is_directory(path, error)) throw BadInput(path, "", what);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// The directory, made if it is not there; `created` says whether it was made. Throws BadInput when something else is
/// in the way.
std::string made(const std::string& directory, bool& created) {
    std::error_code error;
    created = !fs::exists(directory, error);
    if (!created && !(fs::is_directory(directory, error) && fs::is_empty(directory, error)))
        throw BadInput(directory, "", "a directory that does not exist yet, or is empty");
    fs::create_directories(fs::path(directory) / "ctf", error);
    if (error) throw BadInput(directory, "", "a directory that can be created (" + error.message() + ")");
    return directory;
}

/// A member of a JSON object if it is there and of this type.
template <class T>
bool get(const json& object, const char* key, T& value) {
    const auto member = object.find(key);
    if (member == object.end()) return false;
    if constexpr (std::is_same_v<T, bool>) {
        if (!member->is_boolean()) return false;
    } else if constexpr (std::is_same_v<T, std::string>) {
        if (!member->is_string()) return false;
    } else {
        if (!member->is_number_unsigned()) return false;
    }
    value = member->template get<T>();
    return true;
}

}  // namespace

RecordingPaths::RecordingPaths(const std::string& path)
    : directory(path), metadata((fs::path(path) / "ctf" / "metadata").string()),
      stream((fs::path(path) / "ctf" / "stream").string()),
      description((fs::path(path) / "recording.json").string()), input((fs::path(path) / "input.jsonl").string()) {}

Recorder::Recorder(const std::string& directory)
    : paths_(made(directory, created_)), writer_(paths_.stream), input_(std::fopen(paths_.input.c_str(), "wb")) {
    if (!input_) throw BadInput(paths_.input, "", fmt::format("a file that can be created ({})", std::strerror(errno)));
    write_file(paths_.metadata, ctf_metadata());
}

Recorder::~Recorder() {
    std::fclose(input_);
    if (begun_) return;
    // The run did not come to its first record: something that the user gave was wrong, and nothing half-made stays.
    std::error_code ignored;
    fs::remove_all(fs::path(paths_.directory) / "ctf", ignored);
    fs::remove(paths_.description, ignored);
    fs::remove(paths_.input, ignored);
    if (created_) fs::remove(paths_.directory, ignored);
}

void Recorder::describe(const std::string& configuration) {
    configuration_ = configuration;
    write_description(false);
}

void Recorder::write_description(bool complete) {
    json description;
    description["format"] = "exeunt recording";
    description["version"] = trace_format_version;
    description["complete"] = complete;
    description["machine"] = json::parse(configuration_);
    write_file(paths_.description, description.dump(2) + "\n");
}

template <class... Arguments>
void Recorder::add(Tick tick, const Arguments&... arguments) {
    begun_ = true;
    encode(bytes_, tick, arguments...);
    writer_.add(tick, bytes_);
}

void Recorder::vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) { add(tick, cpu, record); }
void Recorder::vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) { add(tick, cpu, record); }
void Recorder::vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) {
    add(tick, cpu, record);
    for (const RuleViolation& violation : record.violations) add(tick, cpu, ViolationRecord{violation, record.svm});
}
void Recorder::state(Tick tick, const StateDigest& hash) { add(tick, hash); }

void Recorder::input(Tick tick, std::span<const u8> bytes) {
    std::string line = fmt::format("{{\"tick\": {}, \"bytes\": \"", tick);
    for (const u8 byte : bytes) line += fmt::format("{:02x}", byte);
    line += "\"}\n";
    std::fwrite(line.data(), 1, line.size(), input_);
    std::fflush(input_);
}

void Recorder::end(Tick tick, const EndRecord& record) {
    add(tick, record);
    if (!writer_.flush()) throw BadInput(paths_.stream, "", "room for the trace: writing failed");
    write_description(true);
}

RecordingDescription read_description(const std::string& directory) {
    const RecordingPaths paths(directory);
    const std::string text = read_file(paths.description, "the description of a recording (made by `exeunt run --trace`)");
    const json description = json::parse(text, nullptr, false);
    std::string format;
    if (!description.is_object() || !get(description, "format", format) || format != "exeunt recording")
        throw BadInput(paths.description, "", "the JSON description of a recording");
    u64 version = 0;
    if (!get(description, "version", version) || version != trace_format_version)
        throw BadInput(paths.description, "version",
                       fmt::format("{}, found {}", trace_format_version, description.value("version", json()).dump()));
    RecordingDescription result;
    if (!get(description, "complete", result.complete)) throw BadInput(paths.description, "complete", "true or false");
    if (!description.contains("machine") || !description["machine"].is_object())
        throw BadInput(paths.description, "machine", "the configuration of a machine");
    result.configuration = description["machine"].dump();
    return result;
}

RecordedInput::RecordedInput(const std::string& directory) {
    const std::string path = RecordingPaths(directory).input;
    std::istringstream in(read_file(path, "the input log of a recording"));
    std::string line;
    for (unsigned number = 1; std::getline(in, line); ++number) {
        const std::string place = fmt::format("line {}", number);
        const json entry = json::parse(line, nullptr, false);
        if (!entry.is_object() || !entry.contains("tick") || !entry["tick"].is_number_unsigned() ||
            !entry.contains("bytes") || !entry["bytes"].is_string())
            throw BadInput(path, place, "{\"tick\": number, \"bytes\": \"hexadecimal digits\"}");
        const std::string hex = entry["bytes"];
        Piece piece{entry["tick"], {}};
        if (hex.size() % 2 != 0 || hex.find_first_not_of("0123456789abcdef") != std::string::npos)
            throw BadInput(path, place, "an even number of hexadecimal digits");
        if (!pieces_.empty() && piece.tick < pieces_.back().tick) throw BadInput(path, place, "a later tick");
        for (std::size_t i = 0; i < hex.size(); i += 2)
            piece.bytes.push_back(static_cast<u8>(std::stoul(hex.substr(i, 2), nullptr, 16)));
        pieces_.push_back(std::move(piece));
    }
}

std::vector<u8> RecordedInput::take(Tick now, std::size_t room) {
    if (!open() || pieces_[next_].tick != now || pieces_[next_].bytes.size() > room) return {};
    return pieces_[next_++].bytes;
}

Tick RecordedInput::wait(Tick, Tick to) { return open() ? std::min(to, pieces_[next_].tick) : to; }

}  // namespace exeunt
