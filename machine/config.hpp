// What a machine is made of: all that, with the input log, determines a run. Written to and read from JSON, with
// the hashes of the files it names, so that a recording knows what it was made with.
#pragma once

#include "base/bad_input.hpp"
#include "machine/run_loop.hpp"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

/// A file that the machine reads, and what it was when it was read.
struct ImageFile {
    std::string path = {};
    std::string xxh128 = {};  ///< 32 hexadecimal digits; empty: not read yet
    u64 bytes = 0;
    std::string text = {};    ///< the command line of a multiboot module

    bool given() const { return !path.empty(); }
};

/// The limits of what can be configured.
inline constexpr unsigned cpus_limit = 64;
inline constexpr u64 min_memory = u64{2} << 20;
inline constexpr u64 max_memory = u64{64} << 30;

struct MachineConfig {
    std::string cpu = "intel-max";  ///< a built-in model, or the path of a JSON file
    ImageFile cpu_file;             ///< set where `cpu` is a path
    unsigned cpus = 1;
    u64 memory = u64{1} << 30;
    ImageFile kernel;
    std::vector<ImageFile> initrds;  ///< bzImage: one after the other; PVH and multiboot: modules
    ImageFile drive;
    std::string append;
    u64 random_seed = 0;            ///< of RDRAND and RDSEED
    Schedule schedule;

    /// Throws BadInput when a value is out of range; options are named as on the command line.
    void validate() const;
    std::string to_json() const;
    /// `where` names the text in errors. Throws BadInput.
    static MachineConfig from_json(std::string_view json, const std::string& where);
};

/// The whole file. Fills in hash and size; when `image` has a hash already, the file must have the same one.
/// Throws BadInput.
std::vector<u8> read_image(ImageFile& image);
/// As read_image(), without keeping the bytes: for files too large to hold.
void hash_image(ImageFile& image);

/// XXH3, 128 bits, as 32 hexadecimal digits.
std::string xxh128_hex(std::span<const u8> bytes);

/// "512M", "1G", "4096K", "1048576": bytes. Throws BadInput naming `option`.
u64 parse_size(const std::string& text, const std::string& option);

}  // namespace exeunt
