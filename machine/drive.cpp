#include "machine/drive.hpp"

#include "base/bad_input.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>

namespace exeunt {

Drive::Drive(const std::string& path) : file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) throw BadInput(path, "", fmt::format("a readable file ({})", std::strerror(errno)));
    const bool sought = fseeko(file_.get(), 0, SEEK_END) == 0;
    const off_t bytes = sought ? ftello(file_.get()) : 0;
    if (bytes <= 0 || static_cast<u64>(bytes) % sector_bytes != 0)
        throw BadInput(path, "", fmt::format("a raw image of whole sectors of {} bytes", sector_bytes));
    sectors_ = static_cast<u64>(bytes) / sector_bytes;
}

bool Drive::read_file(u64 sector, std::span<u8> to) {
    return fseeko(file_.get(), static_cast<off_t>(sector * sector_bytes), SEEK_SET) == 0 &&
           std::fread(to.data(), 1, to.size(), file_.get()) == to.size();
}

bool Drive::read(u64 sector, std::span<u8> to) {
    if (!read_file(sector, to)) return false;
    const u64 end = sector + (to.size() + sector_bytes - 1) / sector_bytes;
    for (auto it = written_.lower_bound(sector); it != written_.end() && it->first < end; ++it) {
        const std::size_t at = (it->first - sector) * sector_bytes;
        std::copy_n(it->second.begin(), std::min(sector_bytes, to.size() - at), to.begin() + static_cast<i64>(at));
    }
    return true;
}

bool Drive::write(u64 sector, std::span<const u8> from) {
    while (!from.empty()) {
        const std::size_t bytes = std::min(sector_bytes, from.size());
        const auto [it, fresh] = written_.try_emplace(sector);
        if (fresh && bytes < sector_bytes && !read_file(sector, it->second)) return false;
        std::copy_n(from.begin(), bytes, it->second.begin());
        from = from.subspan(bytes);
        ++sector;
    }
    return true;
}

void Drive::visit(StateVisitor& visitor) {
    u64 count = written_.size();
    visitor.value("written", count);
    for (auto& [sector, bytes] : written_) visitor.bytes(std::to_string(sector), bytes);
}

}  // namespace exeunt
