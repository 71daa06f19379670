#include "machine/snapshot.hpp"

#include "machine/machine.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

namespace exeunt {

namespace {

/// Longer runs of bytes are looked at page by page.
constexpr std::size_t piece = 4096;
constexpr std::size_t many_bytes = 256;

bool all_zero(std::span<const u8> data) {
    static constexpr std::array<u8, piece> zeros{};
    return std::memcmp(data.data(), zeros.data(), data.size()) == 0;
}

/// Whether the native kernel keeps none of our pages in swap: only then do absent pages hold nothing.
bool nothing_swapped() {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> status(std::fopen("/proc/self/status", "r"), std::fclose);
    if (!status) return false;
    char line[256];
    while (std::fgets(line, sizeof line, status.get()))
        if (unsigned long kbytes = 1; std::sscanf(line, "VmSwap: %lu kB", &kbytes) == 1) return kbytes == 0;
    return false;
}

/// For each 4 KBytes of `data`, whether it can be other than zero: false where nothing was ever allocated. Where
/// the native system can not tell, all are true.
std::vector<bool> possibly_touched(std::span<const u8> data) {
    const std::size_t native_page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::vector<bool> touched((data.size() + piece - 1) / piece, true);
    const bool aligned = reinterpret_cast<std::uintptr_t>(data.data()) % native_page == 0;
    if (data.size() < (std::size_t{1} << 20) || native_page < piece || !aligned || !nothing_swapped())
        return touched;
    std::vector<unsigned char> resident((data.size() + native_page - 1) / native_page);
    if (mincore(const_cast<u8*>(data.data()), data.size(), resident.data()) != 0 || !nothing_swapped()) return touched;
    for (std::size_t i = 0; i < touched.size(); ++i) touched[i] = resident[i * piece / native_page] & 1;
    return touched;
}

std::string hex(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

}  // namespace

struct StateHash::State {
    struct Free {
        void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
    };
    std::unique_ptr<XXH3_state_t, Free> xxh{XXH3_createState()};
};

StateHash::StateHash() : state_(std::make_unique<State>()) { XXH3_128bits_reset(state_->xxh.get()); }
StateHash::~StateHash() = default;

void StateHash::feed(const void* data, std::size_t size) { XXH3_128bits_update(state_->xxh.get(), data, size); }

void StateHash::feed_number(u64 value) {
    std::array<u8, 8> raw;
    for (unsigned i = 0; i < 8; ++i) raw[i] = static_cast<u8>(value >> (8 * i));
    feed(raw.data(), raw.size());
}

/// Names are told apart from what follows by their kind and length.
void StateHash::feed_name(char kind, std::string_view name) {
    feed(&kind, 1);
    feed_number(name.size());
    feed(name.data(), name.size());
}

void StateHash::enter(std::string_view name) { feed_name('{', name); }
void StateHash::leave() { feed_name('}', {}); }

void StateHash::field(std::string_view name, u64& value, unsigned bits) {
    feed_name('=', name);
    feed_number(bits);
    feed_number(value);
}

void StateHash::bytes(std::string_view name, std::span<u8> data) {
    feed_name('#', name);
    feed_number(data.size());
    if (data.size() <= piece) {
        feed(data.data(), data.size());
    } else {
        feed_pages(data);
    }
}

void StateHash::buffer(std::string_view name, std::vector<u8>& data) { bytes(name, data); }

void StateHash::feed_pages(std::span<const u8> data) {
    const std::vector<bool> touched = possibly_touched(data);
    for (std::size_t i = 0; i < touched.size(); ++i) {
        if (!touched[i]) continue;
        const auto page = data.subspan(i * piece, std::min(piece, data.size() - i * piece));
        if (all_zero(page)) continue;
        feed_number(i);
        feed(page.data(), page.size());
    }
    feed_number(~u64{0});
}

std::string StateHash::digest() { return hex(XXH3_128bits_digest(state_->xxh.get())); }

struct StateJson::State {
    using Json = nlohmann::ordered_json;
    Json root = Json::object();
    std::vector<Json*> groups{&root};
};

StateJson::StateJson() : state_(std::make_unique<State>()) {}
StateJson::~StateJson() = default;

void StateJson::enter(std::string_view name) {
    auto& group = (*state_->groups.back())[std::string(name)];
    if (!group.is_object()) group = State::Json::object();
    state_->groups.push_back(&group);
}

void StateJson::leave() { state_->groups.pop_back(); }

void StateJson::field(std::string_view name, u64& value, unsigned) {
    (*state_->groups.back())[std::string(name)] = value;
}

void StateJson::bytes(std::string_view name, std::span<u8> data) {
    auto& out = (*state_->groups.back())[std::string(name)];
    if (data.size() <= many_bytes) {
        std::string digits;
        for (const u8 byte : data) digits += fmt::format("{:02x}", byte);
        out = digits;
        return;
    }
    StateHash hash;
    hash.bytes(name, data);
    out = {{"bytes", data.size()}, {"xxh128", hash.digest()}};
}

void StateJson::buffer(std::string_view name, std::vector<u8>& data) { bytes(name, data); }

std::string StateJson::text() const { return state_->root.dump(1) + "\n"; }

std::string state_hash(Machine& machine) {
    StateHash hash;
    machine.visit(hash);
    return hash.digest();
}

std::string state_json(Machine& machine) {
    StateJson json;
    machine.visit(json);
    return json.text();
}

}  // namespace exeunt
