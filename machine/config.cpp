#include "machine/config.hpp"

#include "base/bits.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <xxhash.h>

namespace exeunt {

namespace {

using nlohmann::json;

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

File open(const std::string& path) {
    File file(std::fopen(path.c_str(), "rb"));
    if (!file) throw BadInput(path, "", std::string("a readable file (") + std::strerror(errno) + ")");
    struct stat status {};
    if (fstat(fileno(file.get()), &status) == 0 && S_ISDIR(status.st_mode))
        throw BadInput(path, "", "a file, not a directory");
    return file;
}

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

/// Calls `use` with each piece of the file, and gives its hash and size to `image`.
template <class Use>
void read_pieces(ImageFile& image, Use use) {
    const File file = open(image.path);
    struct FreeState {
        void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
    };
    const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
    XXH3_128bits_reset(state.get());
    std::vector<u8> piece(std::size_t{1} << 20);
    u64 bytes = 0;
    while (const std::size_t got = std::fread(piece.data(), 1, piece.size(), file.get())) {
        XXH3_128bits_update(state.get(), piece.data(), got);
        use(std::span<const u8>(piece.data(), got));
        bytes += got;
    }
    if (std::ferror(file.get())) throw BadInput(image.path, fmt::format("offset {:#x}", bytes), "readable bytes");
    const std::string found = hex(XXH3_128bits_digest(state.get()));
    if (!image.xxh128.empty() && image.xxh128 != found)
        throw BadInput(image.path, "content", fmt::format("the file that was recorded: XXH3-128 {} and {} bytes; "
                                                          "this one has {} and {} bytes",
                                                          image.xxh128, image.bytes, found, bytes));
    image.xxh128 = found;
    image.bytes = bytes;
}

json image_json(const ImageFile& image) {
    json out = {{"path", image.path}, {"bytes", image.bytes}, {"xxh128", image.xxh128}};
    if (!image.text.empty()) out["text"] = image.text;
    return out;
}

/// Reads the members of one JSON object, each by its type, and refuses those that nobody asked for.
class Reader {
public:
    Reader(const json& object, std::string where, std::string place)
        : object_(object), where_(std::move(where)), place_(std::move(place)) {
        if (!object.is_object()) throw BadInput(where_, place_, "a JSON object");
    }
    void read(const char* key, std::string& value) {
        if (const json* member = find(key)) {
            if (!member->is_string()) throw BadInput(where_, place(key), "a string");
            value = member->get<std::string>();
        }
    }
    template <class T>
        requires std::is_unsigned_v<T>
    void read(const char* key, T& value) {
        if (const json* member = find(key)) {
            if (!member->is_number_unsigned() || member->get<u64>() > static_cast<T>(~T{0}))
                throw BadInput(where_, place(key), fmt::format("an integer from 0 to {}", static_cast<T>(~T{0})));
            value = member->get<T>();
        }
    }
    void read(const char* key, ImageFile& image) {
        if (const json* member = find(key)) read_image(*member, place(key), image);
    }
    void read(const char* key, std::vector<ImageFile>& images) {
        if (const json* member = find(key)) {
            if (!member->is_array()) throw BadInput(where_, place(key), "an array");
            for (const json& element : *member) {
                std::string at = place(fmt::format("{}[{}]", key, images.size()));
                read_image(element, std::move(at), images.emplace_back());
            }
        }
    }
    void known(const char* key) { known_.emplace_back(key); }
    void done() const {
        for (const auto& item : object_.items())
            if (std::find(known_.begin(), known_.end(), item.key()) == known_.end())
                throw BadInput(where_, place(item.key()), "no such key");
    }

private:
    void read_image(const json& object, std::string place, ImageFile& image) const {
        Reader reader(object, where_, std::move(place));
        reader.read("path", image.path);
        reader.read("bytes", image.bytes);
        reader.read("xxh128", image.xxh128);
        reader.read("text", image.text);
        reader.done();
    }
    const json* find(const char* key) {
        known(key);
        const auto member = object_.find(key);
        return member == object_.end() ? nullptr : &*member;
    }
    std::string place(const std::string& key) const { return place_.empty() ? key : place_ + "." + key; }

    const json& object_;
    std::string where_, place_;
    std::vector<std::string> known_;
};

}  // namespace

void MachineConfig::validate() const {
    if (cpus < 1 || cpus > cpus_limit) throw BadInput("--cpus", "", fmt::format("a number from 1 to {}", cpus_limit));
    if (memory < min_memory || memory > max_memory || memory % 4096 != 0)
        throw BadInput("--memory", "", "a size from 2M to 64G that is a multiple of 4K");
    if (!kernel.given()) throw BadInput("--kernel", "", "a file");
    if (schedule.slice == 0) throw BadInput("--slice", "", "at least one tick");
    if (append.find('\0') != std::string::npos) throw BadInput("--append", "", "text without zero bytes");
}

std::string MachineConfig::to_json() const {
    json out = {
        {"cpu", cpu},
        {"cpus", cpus},
        {"memory", memory},
        {"kernel", image_json(kernel)},
        {"append", append},
        {"random_seed", random_seed},
        {"schedule", {{"slice", schedule.slice}, {"seed", schedule.seed}, {"limit", schedule.limit}}},
    };
    for (const ImageFile& initrd : initrds) out["initrds"].push_back(image_json(initrd));
    if (cpu_file.given()) out["cpu_file"] = image_json(cpu_file);
    if (drive.given()) out["drive"] = image_json(drive);
    // What is not UTF-8 in a path or a command line survives as U+FFFD; it can not stop the recording.
    return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

MachineConfig MachineConfig::from_json(std::string_view text, const std::string& where) {
    const json document = json::parse(text, nullptr, false);
    if (document.is_discarded()) throw BadInput(where, "", "JSON");
    MachineConfig config;
    Reader reader(document, where, "");
    reader.read("cpu", config.cpu);
    reader.read("cpu_file", config.cpu_file);
    reader.read("cpus", config.cpus);
    reader.read("memory", config.memory);
    reader.read("kernel", config.kernel);
    reader.read("initrds", config.initrds);
    reader.read("drive", config.drive);
    reader.read("append", config.append);
    reader.read("random_seed", config.random_seed);
    if (const auto schedule = document.find("schedule"); schedule != document.end()) {
        Reader inner(*schedule, where, "schedule");
        inner.read("slice", config.schedule.slice);
        inner.read("seed", config.schedule.seed);
        inner.read("limit", config.schedule.limit);
        inner.done();
    }
    reader.known("schedule");
    reader.done();
    return config;
}

std::vector<u8> read_image(ImageFile& image) {
    std::vector<u8> bytes;
    read_pieces(image, [&](std::span<const u8> piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
    return bytes;
}

void hash_image(ImageFile& image) {
    read_pieces(image, [](std::span<const u8>) {});
}

std::string xxh128_hex(std::span<const u8> bytes) { return hex(XXH3_128bits(bytes.data(), bytes.size())); }

u64 parse_size(const std::string& text, const std::string& option) {
    u64 value = 0;
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    unsigned shift = 0;
    if (error == std::errc{} && rest + 1 == end) {
        switch (*rest) {
            case 'K': case 'k': shift = 10; break;
            case 'M': case 'm': shift = 20; break;
            case 'G': case 'g': shift = 30; break;
            default: shift = 64; break;
        }
    }
    const bool good = error == std::errc{} && (rest == end || shift == 10 || shift == 20 || shift == 30);
    if (!good || value > (~u64{0} >> shift)) throw BadInput(option, text, "a size such as 512M or 1G");
    return value << shift;
}

}  // namespace exeunt
