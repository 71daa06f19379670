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

void write_file(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary);
    out << text;
    out.flush();
    if (!out) throw BadInput(path, "", "a file that can be written");
}

std::string read_file(const std::string& path, const std::string& what) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw BadInput(path, "", what);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

/// The directory, made if it is not there. Throws BadInput when something else is in the way.
std::string made(const std::string& directory) {
    std::error_code error;
    if (fs::exists(directory, error) && !(fs::is_directory(directory, error) && fs::is_empty(directory, error)))
        throw BadInput(directory, "", "a directory that does not exist yet, or is empty");
    fs::create_directories(fs::path(directory) / "ctf", error);
    if (error) throw BadInput(directory, "", "a directory that can be created (" + error.message() + ")");
    return directory;
}

}  // namespace

RecordingPaths::RecordingPaths(const std::string& path)
    : directory(path), metadata((fs::path(path) / "ctf" / "metadata").string()),
      stream((fs::path(path) / "ctf" / "stream").string()),
      description((fs::path(path) / "recording.json").string()), input((fs::path(path) / "input.jsonl").string()) {}

Recorder::Recorder(const std::string& directory)
    : paths_(made(directory)), writer_(paths_.stream), input_(std::fopen(paths_.input.c_str(), "wb")) {
    if (!input_) throw BadInput(paths_.input, "", fmt::format("a file that can be created ({})", std::strerror(errno)));
    write_file(paths_.metadata, ctf_metadata());
}

Recorder::~Recorder() { std::fclose(input_); }

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
    encode(bytes_, tick, arguments...);
    writer_.add(tick, bytes_);
}

void Recorder::vm_exit(unsigned cpu, u64 tick, const ExitRecord& record) { add(tick, cpu, record); }
void Recorder::vm_entry(unsigned cpu, u64 tick, const EntryRecord& record) { add(tick, cpu, record); }
void Recorder::vm_entry_failure(unsigned cpu, u64 tick, const EntryFailureRecord& record) { add(tick, cpu, record); }
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
    if (!description.is_object() || description.value("format", "") != "exeunt recording" ||
        !description.contains("machine"))
        throw BadInput(paths.description, "", "the JSON description of a recording");
    if (const auto version = description.value("version", 0u); version != trace_format_version)
        throw BadInput(paths.description, "version", fmt::format("{}, found {}", trace_format_version, version));
    return {description.value("complete", false), description["machine"].dump()};
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
